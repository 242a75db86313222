"""Every public layer and model of the package, as small as it can be, with data for it.

A new layer or model joins with a line here; `tests/test_settings.py` runs all of them.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

import keras_vqvae as kv
from tests.checks import floats, images

# A function of keyword arguments of `keras.layers.Layer`, and the arguments of a call.
LAYERS: dict[str, tuple[Callable, tuple]] = {
    "CausalConv1D": (lambda **kw: kv.CausalConv1D(2, 2, **kw), (floats((2, 4, 3)),)),
    "CausalConv1DTranspose": (
        lambda **kw: kv.CausalConv1DTranspose(2, 4, 2, **kw),
        (floats((2, 4, 3)),),
    ),
    "CausalConv3D": (lambda **kw: kv.CausalConv3D(2, 2, **kw), (floats((2, 2, 4, 6, 3)),)),
    "CausalConv3DTranspose": (
        lambda **kw: kv.CausalConv3DTranspose(2, 2, 2, **kw),
        (floats((2, 2, 3, 4, 5)),),
    ),
    "ConvDecoder": (
        lambda **kw: kv.ConvDecoder(2, 3, downsampling=2, hidden=4, residual_blocks=1, **kw),
        (floats((2, 3, 4, 5)),),
    ),
    "ConvEncoder": (
        lambda **kw: kv.ConvEncoder(2, 3, downsampling=2, hidden=4, residual_blocks=1, **kw),
        (floats((2, 4, 6, 3)),),
    ),
    "GatedMaskedConv2D": (
        lambda **kw: kv.GatedMaskedConv2D(2, **kw),
        ((floats((2, 3, 4, 2)), floats((2, 3, 4, 2))), floats((2, 1, 1, 3))),
    ),
    "HarmonicSource": (
        lambda **kw: kv.HarmonicSource(8000, 4, harmonics=2, **kw),
        (np.array([[100, 0, 200]], "float32"),),
    ),
    "ParallelDecoder": (
        lambda **kw: kv.ParallelDecoder((2, 2), 4, finest_hidden=2, sample_rate=6400, **kw),
        (floats((2, 3, 5)), floats((2, 3))),
    ),
    "PastFrames": (
        lambda **kw: kv.PastFrames(4, (1, 2), **kw),
        (floats((2, 2, 3, 4, 5)), floats((2, 3))),
    ),
    "ResidualStack": (lambda **kw: kv.ResidualStack(1, 4, blocks=1, **kw), (floats((2, 5, 4)),)),
    "SpectrogramEncoder": (
        lambda **kw: kv.SpectrogramEncoder(
            3, 8000, 8, hop=4, window=64, bands=4, hidden=4, warp=0.1, colour=0.1, **kw
        ),
        (floats((2, 80, 1)) * 0.1,),
    ),
    "Transport": (
        lambda **kw: kv.Transport((1, 1), **kw),
        (floats((2, 2, 3, 4, 5)), floats((2, 3, 4, 3))),
    ),
    "VectorQuantizer": (lambda **kw: kv.VectorQuantizer(8, 4, **kw), (floats((2, 3, 4)),)),
    "WaveNetBlock": (
        lambda **kw: kv.WaveNetBlock(2, 3, **kw),
        (floats((2, 4, 2)), floats((2, 2, 3)), floats((2, 3))),
    ),
    "WaveNetDecoder": (
        lambda **kw: kv.WaveNetDecoder(
            2, channels=2, skip_channels=3, dilations=(1,), likelihood=kv.Categorical(8), **kw
        ),
        (floats((2, 3, 4)), np.zeros((2, 6), "float32"), floats((2, 3))),
    ),
    "WaveNetStack": (
        lambda **kw: kv.WaveNetStack(5, 2, 3, dilations=(1, 2), **kw),
        (floats((2, 4, 2)), floats((2, 2, 3)), floats((2, 3))),
    ),
}


def _image(**kw: Any) -> kv.ImageVQVAE:
    return kv.ImageVQVAE((8, 12, 3), 8, 4, hidden=4, residual_blocks=1, **kw)


def _video(**kw: Any) -> kv.VideoVQVAE:
    return kv.VideoVQVAE((4, 6, 3), 8, 4, downsampling=(2, 2, 2), hidden=4, residual_blocks=1, **kw)


def _audio(decoder: Any, **kw: Any) -> kv.AudioVQVAE:
    return kv.AudioVQVAE(
        6400, 8, 4, downsampling=4, num_speakers=2, speaker_dim=3, decoder=decoder,
        hidden=4, finest_hidden=2, residual_blocks=1, burn_in=0, **kw,
    )  # fmt: skip


def _wavenet_decoder(**kw: Any) -> kv.WaveNetDecoder:
    return kv.WaveNetDecoder(4, channels=2, skip_channels=3, dilations=(1,), name="decoder", **kw)


def _parallel_decoder(**kw: Any) -> kv.ParallelDecoder:
    return kv.ParallelDecoder(
        (2, 2), 4, finest_hidden=2, dilations=(1,), sample_rate=6400, name="decoder", **kw
    )


def _spoken(samples: int = 400) -> dict:
    waveform = np.clip(floats((2, samples)) * 0.1, -1, 1)
    return {"waveform": waveform, "speaker": np.array([0, 1], "int32")}


def _codes(shape: tuple) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 8, shape, dtype="int32")


# A function of keyword arguments of `keras.Model`, and data for `fit`.
MODELS: dict[str, tuple[Callable, Any]] = {
    "ImageVQVAE": (_image, images(2, (8, 12, 3))),
    "VideoVQVAE": (_video, images(4, (4, 4, 6, 3))),
    "AudioVQVAE (WaveNet)": (
        lambda **kw: _audio(_wavenet_decoder(dtype=kw.get("dtype")), **kw),
        _spoken(),
    ),
    "AudioVQVAE (parallel)": (
        lambda **kw: _audio(_parallel_decoder(dtype=kw.get("dtype")), **kw),
        _spoken(),
    ),
    "PixelCNN": (
        lambda **kw: kv.PixelCNN((3, 4), 8, 2, hidden=4, num_layers=2, **kw),
        {"codes": _codes((2, 3, 4)), "condition": np.array([0, 1], "int32")},
    ),
    "WaveNet": (
        lambda **kw: kv.WaveNet(
            8, 2, channels=4, skip_channels=4, dilations=(1, 2), burn_in=0, **kw
        ),
        {"codes": _codes((2, 16)), "condition": np.array([0, 1], "int32")},
    ),
    "VideoPredictor": (
        lambda **kw: kv.VideoPredictor(
            _image(name="frames", dtype=kw.get("dtype")), 3, context_frames=2, hidden=4,
            past_dilations=(1, 2), num_layers=2, **kw,
        ),
        {"frames": images(8, (8, 12, 3)).reshape(2, 4, 8, 12, 3), "actions": _codes((2, 4)) % 3},
    ),
}  # fmt: skip
