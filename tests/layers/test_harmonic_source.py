"""The source of voices: its waves against numpy's, and that it goes on where it stopped."""

import itertools

import keras
import numpy as np
import pytest

from keras_vqvae import ParallelDecoder
from keras_vqvae.layers.harmonic_source import NOISE_CODES, TURN, HarmonicSource
from tests.checks import copy_by_config, floats, gradient, to_numpy
from tests.inside import inside

RATE, UNIT = 8000, 10


def source(**options: object) -> HarmonicSource:
    return HarmonicSource(RATE, UNIT, **options)


def pitches(batch: int = 2, codes: int = 40) -> np.ndarray:
    random = np.random.default_rng(0)
    hertz = random.uniform(60, 400, (batch, codes))
    return np.where(random.random((batch, codes)) < 0.7, hertz, 0).astype("float32")


def test_waves_against_numpy() -> None:
    pitch = pitches()
    got = to_numpy(source(harmonics=3)(pitch))
    assert got.shape == (2, 400, 4) and np.abs(got).max() <= 1
    hertz = np.repeat(pitch.astype("float64"), UNIT, 1)
    turns = np.cumsum(hertz, 1) / RATE - hertz / RATE  # the first sample is at 0
    for k in (1, 2, 3):
        expected = np.sin(2 * np.pi * k * turns) * (hertz > 0)
        np.testing.assert_allclose(got[..., k - 1], expected, atol=1e-4)
    noise = np.random.RandomState(0).uniform(-1, 1, NOISE_CODES * UNIT).astype("float32")
    np.testing.assert_array_equal(got[..., 3], np.stack([noise[:400]] * 2))


def test_no_drift() -> None:
    """After an hour the phase is that of the sum of all steps, to the last bit."""
    layer, codes = source(), 3600 * RATE // UNIT
    pitch = np.full((1, codes), 222.2, "float32")
    end = to_numpy(layer.after(pitch, np.zeros((1, 2), "int32"), np.int32(codes)))
    step = int(np.round(np.float32(222.2) * np.float32(TURN / RATE)))
    assert int(end[0, 0]) % 2**32 == step * codes * UNIT % 2**32
    assert end[0, 1] == codes * UNIT % layer.noise_length


@pytest.mark.parametrize("cut", [0, 1, 17, 39, 40])
def test_goes_on_where_it_stopped(cut: int) -> None:
    layer, pitch = source(), pitches(codes=300)
    start = np.array([[5, 7], [-(2**31), layer.noise_length - 1]], "int32")
    whole = to_numpy(layer(pitch, start))
    then = layer.after(pitch, start, np.int32(cut))
    rest = to_numpy(layer(pitch[:, cut:], then)) if cut < 300 else whole[:, :0]
    np.testing.assert_array_equal(whole[:, cut * UNIT :], rest)


def test_config_and_precision() -> None:
    layer = source(harmonics=2, dtype="mixed_float16")
    copy = copy_by_config(layer)
    got = copy(pitches())
    assert keras.backend.standardize_dtype(got.dtype) == "float16" and not copy.weights
    # Only the result is rounded.
    np.testing.assert_allclose(to_numpy(got), to_numpy(source(harmonics=2)(pitches())), atol=1e-3)


def voiced(**options: object) -> ParallelDecoder:
    """A decoder that tells many pitches, and none now and then."""
    keras.utils.set_random_seed(0)
    layer = ParallelDecoder(
        (5, 2), 8, finest_hidden=4, dilations=(1, 2), sample_rate=RATE, **options
    )
    layer.build((None, None, 5), (None, 3))
    inside(layer).pitch.bias.assign([0.1, 0.0])
    return layer


@pytest.mark.locked
@pytest.mark.parametrize("causal", [False, True])
def test_decoding_in_parts(causal: bool) -> None:
    """Each part with its context, and nothing else from before but where the source is."""
    layer = voiced(causal=causal)
    x, condition = 0.3 * floats((2, 60, 5)), floats((2, 3), seed=1)
    told = to_numpy(inside(layer).told(inside(layer).voice(inside(layer).first(x), condition)))
    assert 0.1 < (told > 0).mean() < 0.95 and len(np.unique(told)) > 10
    whole = to_numpy(layer(x, condition))
    before, after = layer.context
    state, parts = np.zeros((2, 2), "int32"), []
    cuts = [0, 1, 31, 60]
    for first, end in itertools.pairwise(cuts):
        low = max(0, first - before)
        part = x[:, low : end + after]
        made, state = layer.decode_from(part, state, first - low, end - low, condition)
        parts.append(to_numpy(made)[:, (first - low) * UNIT : (end - low) * UNIT])
    np.testing.assert_allclose(np.concatenate(parts, 1), whole, atol=1e-5)


def test_causality() -> None:
    layer = voiced(causal=True)
    x = 0.3 * floats((1, 30, 5))
    condition = floats((1, 3), seed=1)
    changed = x.copy()
    changed[:, 15] += 1
    moved = np.abs(to_numpy(layer(changed, condition)) - to_numpy(layer(x, condition)))[0, :, 0]
    assert moved[: 15 * UNIT].max() == 0 and moved[15 * UNIT :].max() > 1e-4


def test_follows_the_pitch_in_training() -> None:
    layer = voiced(seed=3)
    x, condition = 0.3 * floats((2, 80, 5)), floats((2, 3), seed=1)
    places = np.arange(800) / RATE
    tones = np.stack([sum(np.sin(2 * np.pi * k * f * places) for k in (1, 2)) for f in (100, 250)])
    tones = (0.2 * tones).astype("float32")
    made, loss = layer.follow(x, tones, condition)
    np.testing.assert_array_equal(to_numpy(made), to_numpy(layer(x, condition)))
    voice = to_numpy(inside(layer).voice(inside(layer).first(x), condition)).astype("float64")
    # All but perhaps the edges is voiced.
    off = np.abs(voice[..., 1] - np.log2(np.array([[100], [250]]) / 150))
    expected = (np.log1p(np.exp(-voice[..., 0])) + off)[:, 8:-8].mean(1)
    np.testing.assert_allclose(to_numpy(loss), expected, rtol=0.1)
    forced, _ = layer.follow(x, tones, condition, training=True)
    assert np.abs(to_numpy(forced) - to_numpy(made)).max() > 1e-4


@pytest.mark.locked
def test_codes_learn_no_pitch_where_there_are_speakers() -> None:
    """The pitch is the speaker's: no gradient of its loss reaches the codes' vectors."""
    waveform = 0.1 * floats((1, 20 * UNIT))

    def learned(*shapes: tuple) -> np.ndarray:
        layer = ParallelDecoder((5, 2), 8, finest_hidden=4, dilations=(1,), sample_rate=RATE)
        layer.build(*shapes)
        condition = [floats((1, 3))] * (len(shapes) - 1)
        # Something of x itself, since TensorFlow has no gradient where nothing is connected.
        return gradient(
            lambda x: keras.ops.sum(layer.follow(x, waveform, *condition)[1] + 0 * x[:, 0, 0]),
            0.3 * floats((1, 20, 5)),
        )

    assert np.abs(learned((None, None, 5), (None, 3))).max() == 0
    assert np.abs(learned((None, None, 5))).max() > 0
