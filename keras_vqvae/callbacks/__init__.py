"""Callbacks: pictures and sound of what a model does, and backups to resume from."""

from keras_vqvae.callbacks.backup import BackupAndRestore
from keras_vqvae.callbacks.pictures import CodebookHistogram, ReconstructionPictures
from keras_vqvae.callbacks.sound import ReconstructionSound

__all__ = ["BackupAndRestore", "CodebookHistogram", "ReconstructionPictures", "ReconstructionSound"]
