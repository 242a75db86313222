"""Models that train by `compile()` and `fit(data)`."""

from keras_vqvae.models.image import ImageVQVAE
from keras_vqvae.models.vqvae import VQVAE

__all__ = ["VQVAE", "ImageVQVAE"]
