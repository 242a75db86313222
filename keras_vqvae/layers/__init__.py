"""Reusable layers, each usable alone in any Keras model."""

from keras_vqvae.layers.causal_conv3d import CausalConv3D, CausalConv3DTranspose
from keras_vqvae.layers.dilated_conv import CausalConv1D, CausalConv1DTranspose, WaveNetBlock
from keras_vqvae.layers.harmonic_source import HarmonicSource
from keras_vqvae.layers.masked_conv import GatedMaskedConv2D
from keras_vqvae.layers.parallel_decoder import ParallelDecoder
from keras_vqvae.layers.past_frames import PastFrames
from keras_vqvae.layers.residual import ConvDecoder, ConvEncoder, ResidualStack
from keras_vqvae.layers.spectrogram_encoder import SpectrogramEncoder
from keras_vqvae.layers.transport import Transport
from keras_vqvae.layers.vector_quantizer import VectorQuantizer
from keras_vqvae.layers.wavenet import WaveNetStack

__all__ = [
    "CausalConv1D",
    "CausalConv1DTranspose",
    "CausalConv3D",
    "CausalConv3DTranspose",
    "ConvDecoder",
    "ConvEncoder",
    "GatedMaskedConv2D",
    "HarmonicSource",
    "ParallelDecoder",
    "PastFrames",
    "ResidualStack",
    "SpectrogramEncoder",
    "Transport",
    "VectorQuantizer",
    "WaveNetBlock",
    "WaveNetStack",
]
