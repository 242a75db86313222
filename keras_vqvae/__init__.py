"""Discrete representations for Keras: VQ-VAE layers, models, training and export.

The names below run on TensorFlow and JAX. What needs TensorFlow is imported when it is first
used: `export_savedmodel` and the modules `callbacks`, `data`, `distribute` and `export`.
"""

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

# The launcher is quiet, but its options are read after this package, and TensorFlow, are imported.
if "keras_vqvae.distribute" in sys.orig_argv and "--verbose" not in sys.orig_argv:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from keras_vqvae import functional, layers, likelihoods, metrics, models, sampling, spectral
from keras_vqvae.layers import (
    CausalConv1D,
    CausalConv1DTranspose,
    CausalConv3D,
    CausalConv3DTranspose,
    ConvDecoder,
    ConvEncoder,
    GatedMaskedConv2D,
    HarmonicSource,
    ParallelDecoder,
    PastFrames,
    ResidualStack,
    SpectrogramEncoder,
    Transport,
    VectorQuantizer,
    WaveNetBlock,
    WaveNetStack,
)
from keras_vqvae.likelihoods import Categorical, Gaussian, LogisticMixture
from keras_vqvae.metrics import CodeUsage
from keras_vqvae.models import (
    VQVAE,
    AudioVQVAE,
    Autoencoder,
    Autoregressive,
    ImageVQVAE,
    PixelCNN,
    Streaming,
    VideoPredictor,
    VideoVQVAE,
    WaveNet,
    WaveNetDecoder,
)

if TYPE_CHECKING:  # for type checkers, which do not know what `__getattr__` imports
    from keras_vqvae import callbacks as callbacks
    from keras_vqvae import data as data
    from keras_vqvae import distribute as distribute
    from keras_vqvae import export as export
    from keras_vqvae.export import export_savedmodel as export_savedmodel

__version__ = "0.1.0"

__all__ = [
    "VQVAE",
    "AudioVQVAE",
    "Autoencoder",
    "Autoregressive",
    "Categorical",
    "CausalConv1D",
    "CausalConv1DTranspose",
    "CausalConv3D",
    "CausalConv3DTranspose",
    "CodeUsage",
    "ConvDecoder",
    "ConvEncoder",
    "GatedMaskedConv2D",
    "Gaussian",
    "HarmonicSource",
    "ImageVQVAE",
    "LogisticMixture",
    "ParallelDecoder",
    "PastFrames",
    "PixelCNN",
    "ResidualStack",
    "SpectrogramEncoder",
    "Streaming",
    "Transport",
    "VectorQuantizer",
    "VideoPredictor",
    "VideoVQVAE",
    "WaveNet",
    "WaveNetBlock",
    "WaveNetDecoder",
    "WaveNetStack",
    "functional",
    "layers",
    "likelihoods",
    "metrics",
    "models",
    "sampling",
    "spectral",
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
