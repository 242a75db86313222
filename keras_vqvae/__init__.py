"""Discrete representations for Keras: VQ-VAE layers, models, training and export.

The names below run on TensorFlow and JAX. What needs TensorFlow is imported when it is first
used: `export_savedmodel` and the modules `callbacks`, `data`, `distribute` and `export`.
"""

import importlib
from typing import Any

from keras_vqvae import functional, layers, likelihoods, metrics, models, sampling
from keras_vqvae.layers import (
    ConvDecoder,
    ConvEncoder,
    GatedMaskedConv2D,
    ResidualStack,
    VectorQuantizer,
)
from keras_vqvae.likelihoods import Gaussian
from keras_vqvae.metrics import CodeUsage
from keras_vqvae.models import VQVAE, Autoregressive, ImageVQVAE, PixelCNN

__version__ = "0.1.0"

__all__ = [
    "VQVAE",
    "Autoregressive",
    "CodeUsage",
    "ConvDecoder",
    "ConvEncoder",
    "GatedMaskedConv2D",
    "Gaussian",
    "ImageVQVAE",
    "PixelCNN",
    "ResidualStack",
    "VectorQuantizer",
    "functional",
    "layers",
    "likelihoods",
    "metrics",
    "models",
    "sampling",
]

_NEED_TENSORFLOW = {
    "callbacks": "keras_vqvae.callbacks",
    "data": "keras_vqvae.data",
    "distribute": "keras_vqvae.distribute",
    "export": "keras_vqvae.export",
    "export_savedmodel": "keras_vqvae.export:export_savedmodel",
}


def __getattr__(name: str) -> Any:
    if name not in _NEED_TENSORFLOW:
        raise AttributeError(f"module 'keras_vqvae' has no attribute {name!r}")
    module, _, attribute = _NEED_TENSORFLOW[name].partition(":")
    loaded = importlib.import_module(module)
    return getattr(loaded, attribute) if attribute else loaded


def __dir__() -> list[str]:
    return sorted({*globals(), *_NEED_TENSORFLOW})
