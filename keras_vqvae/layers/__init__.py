"""Reusable layers, each usable alone in any Keras model."""

from keras_vqvae.layers.masked_conv import GatedMaskedConv2D
from keras_vqvae.layers.residual import ConvDecoder, ConvEncoder, ResidualStack
from keras_vqvae.layers.vector_quantizer import VectorQuantizer

__all__ = ["ConvDecoder", "ConvEncoder", "GatedMaskedConv2D", "ResidualStack", "VectorQuantizer"]
