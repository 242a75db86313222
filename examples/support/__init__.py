"""What the examples share: measures, pictures and reports. Nothing here is needed to train."""
