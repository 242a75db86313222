"""The parallel decoder of sound, and how far it and the encoder see."""

from typing import Any

import keras
import numpy as np
import pytest

from keras_vqvae import ConvDecoder, ConvEncoder, ParallelDecoder
from keras_vqvae.layers.parallel_decoder import decoder_strides
from tests.checks import check_layer, floats, to_numpy
from tests.inside import inside


def small(**options: Any) -> ParallelDecoder:
    return ParallelDecoder((3, 2), 8, finest_hidden=3, dilations=(1, 2), **options)


@pytest.mark.locked
@pytest.mark.parametrize("causal", [False, True])
def test_layer(causal: bool, tmp_path) -> None:
    make = lambda **kw: small(causal=causal, **kw)  # noqa: E731
    layer = make()
    layer.build((None, None, 5))
    # Inputs of this size are several turns of the sine.
    check_layer(
        make,
        (2, 4, 5),
        tmp_path,
        trainable=layer.count_params(),
        low_precision=0.5,
        output_dtype="float32",
    )


def test_condition() -> None:
    """Each unit of it is moved by the condition; without one it refuses it."""
    layer = small()
    x, one, other = floats((2, 4, 5)), floats((2, 3), seed=1), floats((2, 3), seed=2)
    assert layer(x, one).shape == (2, 24, 1)
    assert np.abs(to_numpy(layer(x, one)) - to_numpy(layer(x, other))).max() > 1e-4
    with pytest.raises(ValueError, match="was built with a condition"):
        layer(x)


# Reached codes on either side, rounded up, must hold all that an output depends on: no more than
# one code of it may be too much.
NETWORKS = {
    "encoder 8": (lambda **kw: ConvEncoder(1, 4, downsampling=8, hidden=6, **kw), 8, False),
    "encoder 30": (lambda **kw: ConvEncoder(1, 4, downsampling=30, hidden=6, **kw), 30, False),
    "decoder 8": (lambda **kw: ConvDecoder(1, 1, downsampling=8, hidden=6, **kw), 8, True),
    "decoder 15": (lambda **kw: ConvDecoder(1, 1, downsampling=15, hidden=6, **kw), 15, True),
    "parallel 6": (small, 6, True),
    "parallel 20": (lambda **kw: ParallelDecoder((5, 4), 6, dilations=(1, 3), **kw), 20, True),
}


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_context(name: str, causal: bool) -> None:
    make, unit, decodes = NETWORKS[name]
    network, codes = make(causal=causal), 31
    x = floats((1, codes, 4) if decodes else (1, codes * unit, 1))
    network(x)
    for part in getattr(network, "_units", []):  # which at first count for little
        part.narrow.kernel.assign(10 * part.narrow.kernel)
    base = to_numpy(network(x))
    before, after = network.context
    middle = codes // 2
    # Everything but the middle code and its context is changed.
    changed = floats(x.shape, seed=1)
    scale = 1 if decodes else unit
    kept = slice((middle - before) * scale, (middle + after + 1) * scale)
    changed[:, kept] = x[:, kept]
    own = slice(middle * unit, (middle + 1) * unit) if decodes else middle
    np.testing.assert_allclose(to_numpy(network(changed))[:, own], base[:, own], atol=1e-5)
    if causal:
        assert after == 0
    # All of it is seen, or some of the samples of its first and last code.
    for side in (kept.start, kept.stop - scale):
        if decodes and causal and side == kept.stop - scale:
            continue
        narrower = changed.copy()
        narrower[:, side : side + scale] += 10
        assert np.abs(to_numpy(network(narrower))[:, own] - base[:, own]).max() > 1e-6, side


def test_channels_by_stage() -> None:
    encoder = ConvEncoder(1, 4, downsampling=16, hidden=32, finest_hidden=8)
    decoder = ConvDecoder(1, 1, downsampling=16, hidden=32, finest_hidden=8)
    encoder.build((None, None, 1))
    decoder.build((None, None, 4))

    def filters(network: Any) -> list:
        kinds = (keras.layers.Conv1D, keras.layers.Conv1DTranspose)
        return [x.filters for x in inside(network).layers_in_order if isinstance(x, kinds)]

    assert filters(encoder) == [8, 16, 32, 32, 4]
    assert filters(decoder) == [32, 32, 16, 8, 1]


@pytest.mark.parametrize("speech", [False, True])
@pytest.mark.parametrize("downsampling", [64, 128, 640])
def test_a_fresh_one_is_not_louder_than_sound(downsampling: int, speech: bool) -> None:
    """Of noise at many times full scale, which it once began with, no decoder learns."""
    keras.utils.set_random_seed(0)
    strides = decoder_strides(downsampling)
    assert np.prod(strides) == downsampling and max(strides) <= 5
    layer = ParallelDecoder(strides, 64, sample_rate=16000 if speech else None)
    vectors = keras.random.normal((2, 20, 16), seed=0)
    made = np.asarray(layer(vectors, keras.random.normal((2, 8), seed=1)))
    assert 0.01 < np.sqrt(np.mean(made**2)) < 1.0


def test_strides_of_a_decoder() -> None:
    assert [decoder_strides(n) for n in (1, 2, 64, 128, 160, 441)] == [
        (1,), (2,), (4, 4, 4), (4, 4, 4, 2), (5, 4, 4, 2), (7, 7, 3, 3)
    ]  # fmt: skip


def test_refuses() -> None:
    for strides in ((), 64, (4, 0)):
        with pytest.raises(ValueError, match="strides must be some positive integers"):
            ParallelDecoder(strides, 8)
    with pytest.raises(ValueError, match="sample_rate=1000 holds no 8 harmonics .*take 6400"):
        ParallelDecoder((4, 4), 8, sample_rate=1000)


def test_causal_is_of_rank_1_only() -> None:
    with pytest.raises(ValueError, match="causal=True is for rank 1"):
        ConvEncoder(2, 4, causal=True)
