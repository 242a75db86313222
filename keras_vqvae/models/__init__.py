"""Models that train by `compile()` and `fit(data)`."""

from keras_vqvae.models.audio import AudioVQVAE
from keras_vqvae.models.autoencoder import Autoencoder
from keras_vqvae.models.autoregressive import Autoregressive
from keras_vqvae.models.image import ImageVQVAE
from keras_vqvae.models.pixelcnn import PixelCNN
from keras_vqvae.models.streaming import Streaming
from keras_vqvae.models.video import VideoPredictor
from keras_vqvae.models.video_vqvae import VideoVQVAE
from keras_vqvae.models.vqvae import VQVAE
from keras_vqvae.models.wavenet import WaveNet, WaveNetDecoder

__all__ = [
    "VQVAE",
    "AudioVQVAE",
    "Autoencoder",
    "Autoregressive",
    "ImageVQVAE",
    "PixelCNN",
    "Streaming",
    "VideoPredictor",
    "VideoVQVAE",
    "WaveNet",
    "WaveNetDecoder",
]
