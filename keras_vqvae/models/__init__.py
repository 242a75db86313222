"""Models that train by `compile()` and `fit(data)`."""

from keras_vqvae.models.autoregressive import Autoregressive
from keras_vqvae.models.image import ImageVQVAE
from keras_vqvae.models.pixelcnn import PixelCNN
from keras_vqvae.models.vqvae import VQVAE

__all__ = ["VQVAE", "Autoregressive", "ImageVQVAE", "PixelCNN"]
