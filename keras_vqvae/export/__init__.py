"""SavedModels that answer the same numbers without this package."""

from keras_vqvae.export.savedmodel import export_savedmodel

__all__ = ["export_savedmodel"]
