"""Spectra against plain numpy in float64."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_vqvae import spectral
from tests.checks import to_numpy
from tests.test_functional import gradient

RATE = 8000


def noise(batch: int, samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, (batch, samples)).astype("float32")


def tone(hz: float, samples: int, amplitude: float = 0.5) -> np.ndarray:
    return (amplitude * np.sin(2 * np.pi * hz / RATE * np.arange(samples)))[None].astype("float32")


def numpy_magnitudes(x: np.ndarray, window: int, hop: int) -> np.ndarray:
    """Frame by frame, the transform written out as a sum."""
    padded = np.pad(x.astype("float64"), [[0, 0], [window // 2, window // 2]], mode="reflect")
    hann = np.sin(np.pi * np.arange(window) / window) ** 2
    waves = np.exp(-2j * np.pi * np.outer(np.arange(window), np.arange(window // 2 + 1)) / window)
    starts = range(0, x.shape[1] + 1, hop)
    return np.stack([np.abs((padded[:, s : s + window] * hann) @ waves) for s in starts], axis=1)


def numpy_log_mel(x: np.ndarray, window: int, hop: int, bands: int) -> np.ndarray:
    edges = np.linspace(0, 2595 * np.log10(1 + RATE / 2 / 700), bands + 2)
    centres = 700 * (10 ** (edges / 2595) - 1)
    hz = np.arange(window // 2 + 1) * RATE / window
    matrix = [np.interp(hz, centres[i : i + 3], [0, 1, 0]) for i in range(bands)]
    return np.log(numpy_magnitudes(x, window, hop) @ np.stack(matrix, 1) + spectral.FLOOR)


# Hops of a half, a quarter and a sixth; clips that frames fill and that they do not.
@pytest.mark.parametrize("window, hop", [(64, 32), (64, 16), (48, 8), (2, 1)])
@pytest.mark.parametrize("samples", [33, 64, 200])
def test_magnitudes(window: int, hop: int, samples: int) -> None:
    x = noise(3, samples)
    found = spectral.magnitudes(ops.convert_to_tensor(x), window, hop)
    assert found.shape == (3, samples // hop + 1, window // 2 + 1)
    assert keras.backend.standardize_dtype(found.dtype) == "float32"
    np.testing.assert_allclose(to_numpy(found), numpy_magnitudes(x, window, hop), atol=2e-5)


def test_magnitude_of_a_tone() -> None:
    found = to_numpy(spectral.magnitudes(tone(1000, 4000, 1.0), 256, 64))[0, 20]
    assert found.argmax() == 1000 * 256 / RATE
    assert found.max() == pytest.approx(256 / 4, rel=1e-4)


@pytest.mark.parametrize("window, hop", [(64, 24), (63, 21), (64, 0), (0, 1)])
def test_bad_windows(window: int, hop: int) -> None:
    with pytest.raises(ValueError, match="multiple of hop"):
        spectral.magnitudes(noise(1, 500), window, hop)


@pytest.mark.parametrize("samples", [1, 15, 16, 32, 33])
def test_clips_too_short_to_reflect_are_followed_by_zeros(samples: int) -> None:
    x = noise(2, samples)
    enough = np.pad(x, [(0, 0), (0, max(0, 33 - samples))])
    found = spectral.magnitudes(ops.convert_to_tensor(x), 64, 16)
    assert found.shape == (2, samples // 16 + 1, 33)
    expected = numpy_magnitudes(enough, 64, 16)[:, : samples // 16 + 1]
    np.testing.assert_allclose(to_numpy(found), expected, atol=2e-5)


def test_half_precision_is_computed_in_float32() -> None:
    x = ops.cast(noise(2, 300), "float16")
    found = spectral.magnitudes(x, 64, 16)
    assert keras.backend.standardize_dtype(found.dtype) == "float32"
    np.testing.assert_allclose(to_numpy(found), numpy_magnitudes(to_numpy(x), 64, 16), atol=2e-5)


def test_mel_matrix() -> None:
    matrix = spectral.mel_matrix(16000, 1024, 80)
    assert matrix.shape == (513, 80) and matrix.dtype == "float32"
    assert matrix.min() == 0 and matrix.max() <= 1 and matrix.any(0).all()
    # Between the centres of the first and the last triangle, the triangles of a bin sum up to 1.
    inner = slice(int(matrix[:, 0].argmax()) + 1, int(matrix[:, -1].argmax()))
    np.testing.assert_allclose(matrix[inner].sum(1), 1.0, atol=1e-6)
    # HTK's mel: 1000 Hz are 1000 mel. Of two bands up to there, the centres are at 333 and 667.
    centres = spectral.mel_matrix(16000, 16000, 2, high=1000.0).argmax(0)
    expected = 700 * (10 ** (np.array([1000 / 3, 2000 / 3]) / 2595) - 1)
    np.testing.assert_allclose(centres, expected, atol=1.0)


def test_mel_bands_are_where_they_are_asked_for() -> None:
    hz = np.nonzero(spectral.mel_matrix(RATE, 512, 10, low=300.0, high=3000.0).any(1))[0]
    assert 300 < hz.min() * RATE / 512 < 330 and 2950 < hz.max() * RATE / 512 < 3000


def test_bad_mel() -> None:
    with pytest.raises(ValueError, match="mel bands hold no bin"):
        spectral.mel_matrix(16000, 128, 80)
    with pytest.raises(ValueError, match=r"low < high <= 4000\.0 Hz"):
        spectral.mel_matrix(RATE, 512, 10, high=5000.0)


def test_log_mel() -> None:
    x = noise(2, 1000)
    found = spectral.log_mel(ops.convert_to_tensor(x), RATE, 256, 64, 20)
    assert found.shape == (2, 16, 20)
    np.testing.assert_allclose(to_numpy(found), numpy_log_mel(x, 256, 64, 20), atol=1e-4)
    louder = to_numpy(spectral.log_mel(10 * x, RATE, 256, 64, 20)) - to_numpy(found)
    np.testing.assert_allclose(louder, np.log(10), atol=0.02)


@pytest.mark.parametrize("rate, frames", [(8000, 63), (16000, 63), (22050, 87)])
def test_log_mel_by_default(rate: int, frames: int) -> None:
    assert spectral.log_mel(noise(1, rate), rate).shape == (1, frames, 80)


def test_multi_scale_distance() -> None:
    a, b = noise(2, 600), noise(2, 600, 1)
    expected = np.zeros(2)
    for window in (256, 64):
        one, other = (numpy_magnitudes(x, window, window // 4) for x in (a, b))
        expected += np.abs(one - other).mean((1, 2)) / 2
        logs = np.log(one + spectral.FLOOR) - np.log(other + spectral.FLOOR)
        expected += np.abs(logs).mean((1, 2)) / 2
    found = spectral.multi_scale_distance(a, b, windows=(256, 64))
    np.testing.assert_allclose(to_numpy(found), expected, rtol=1e-4)


def test_windows_longer_than_the_clip_are_left_out() -> None:
    a, b = noise(2, 300), noise(2, 300, 1)
    all_of_them = to_numpy(spectral.multi_scale_distance(a, b))
    fitting = to_numpy(spectral.multi_scale_distance(a, b, windows=(256, 128, 64)))
    np.testing.assert_array_equal(all_of_them, fitting)
    # But for the shortest.
    a, b = a[:, :200], b[:, :200]
    shortest = to_numpy(spectral.multi_scale_distance(a, b, windows=(512, 1024)))
    enough = [np.pad(x, [(0, 0), (0, 57)]) for x in (a, b)]
    one, other = (numpy_magnitudes(x, 512, 128)[:, :2] for x in enough)
    logs = np.abs(np.log(one + spectral.FLOOR) - np.log(other + spectral.FLOOR))
    expected = np.abs(one - other).mean((1, 2)) + logs.mean((1, 2))
    np.testing.assert_allclose(shortest, expected, rtol=1e-4)


LENGTHS = np.array([3000, 513, 64, 7, 1], "int32")


def junk_after_the_end(width: int) -> tuple[np.ndarray, np.ndarray]:
    """Clips of `LENGTHS`, followed by noise."""
    return noise(len(LENGTHS), width), noise(len(LENGTHS), width, 1)


def distances_alone(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    parts = zip(a, b, LENGTHS, strict=True)
    alone = [spectral.multi_scale_distance(x[None, :n], y[None, :n]) for x, y, n in parts]
    return np.concatenate([to_numpy(d) for d in alone])


@pytest.mark.parametrize(
    "width", [3001, *(pytest.param(n, marks=pytest.mark.long) for n in (3000, 6000))]
)
def test_the_distance_of_padded_clips_is_that_of_the_clips(width: int) -> None:
    a, b = junk_after_the_end(width)
    found = spectral.multi_scale_distance(a, b, lengths=LENGTHS)
    np.testing.assert_allclose(to_numpy(found), distances_alone(a, b), rtol=2e-5)

    def slope(lengths: np.ndarray | None, n: int) -> np.ndarray:
        def total(x: object) -> object:
            return ops.sum(spectral.multi_scale_distance(x, b[:, :n], lengths=lengths))

        return gradient(total, a[:, :n])

    found = slope(LENGTHS, width)
    assert np.isfinite(found).all()
    for row, n in enumerate(LENGTHS):
        assert not found[row, n:].any(), "padding has a gradient"
    for row, n in enumerate(LENGTHS[:3]):
        np.testing.assert_allclose(found[row, :n], slope(None, n)[row], rtol=1e-3, atol=1e-6)


@pytest.mark.tensorflow
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("samples", [1500, 900, 64, 30])
def test_the_windows_do_not_depend_on_what_a_graph_knows(samples: int, padded: bool) -> None:
    import tensorflow as tf

    a, b = tf.constant(noise(2, samples)), tf.constant(noise(2, samples, 1))
    lengths = tf.constant([samples, samples]) if padded else None
    compiled = tf.function(
        lambda a, b: spectral.multi_scale_distance(a, b, lengths=lengths),
        autograph=False,
        input_signature=[tf.TensorSpec((None, None))] * 2,
    )
    expected = to_numpy(spectral.multi_scale_distance(a, b))
    np.testing.assert_allclose(to_numpy(compiled(a, b)), expected, rtol=1e-5)


def test_clips_of_different_lengths_have_no_distance() -> None:
    for distance, more in (
        (spectral.multi_scale_distance, ()),
        (spectral.log_mel_distance, (RATE,)),
    ):
        with pytest.raises(ValueError, match="a and b differ in length: 1000 and 999 samples"):
            distance(noise(1, 1000), noise(1, 999), *more)


def distances(a: object, b: object) -> list:
    return [spectral.multi_scale_distance(a, b), spectral.log_mel_distance(a, b, RATE)]


def test_log_mel_distance() -> None:
    a, b = noise(2, 1000), noise(2, 1000, 1)
    expected = np.abs(numpy_log_mel(a, 256, 64, 20) - numpy_log_mel(b, 256, 64, 20)).mean((1, 2))
    found = spectral.log_mel_distance(a, b, RATE, 256, 64, 20)
    np.testing.assert_allclose(to_numpy(found), expected, rtol=1e-4)
    assert to_numpy(spectral.log_mel_distance(a, 2 * a, RATE))[0] == pytest.approx(
        np.log(2), abs=0.01
    )


def test_distances_hear_pitch_and_not_phase() -> None:
    a = tone(440, RATE)
    for same, other in zip(distances(a, a), distances(a, tone(500, RATE)), strict=True):
        assert to_numpy(same)[0] == 0 and to_numpy(other)[0] > 0.05
    for shifted, other in zip(
        distances(noise(1, RATE), np.roll(noise(1, RATE), 3, axis=1)),
        distances(noise(1, RATE), noise(1, RATE, 1)),
        strict=True,
    ):
        assert to_numpy(shifted)[0] < 0.6 * to_numpy(other)[0]


def test_examples_do_not_touch_each_other() -> None:
    a, b = noise(3, 2500), noise(3, 2500, 1)
    other = np.concatenate([a[:1], noise(2, 2500, 2)])
    for whole, changed in zip(distances(a, b), distances(other, b), strict=True):
        assert whole.shape == (3,)
        np.testing.assert_allclose(to_numpy(whole)[0], to_numpy(changed)[0], rtol=1e-5)
    alone = [to_numpy(d)[0] for d in distances(a[1:2], b[1:2])]
    np.testing.assert_allclose(alone, [to_numpy(d)[1] for d in distances(a, b)], rtol=1e-5)


@pytest.mark.parametrize("which", [0, 1])
def test_gradient(which: int) -> None:
    """Against differences along it, and finite for silence, in either place."""
    a, b, silence = noise(1, 600), noise(1, 600, 1), np.zeros((1, 600), "float32")

    def slope(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return gradient(lambda x: ops.sum(distances(x, y)[which]), x)

    found = slope(a, b)
    length = np.linalg.norm(found)
    step = 1e-3 * found / length
    up, down = (to_numpy(distances(x, b)[which])[0] for x in (a + step, a - step))
    assert length == pytest.approx((up - down) / 2e-3, rel=0.05)
    for x, y in ((silence, b), (silence, silence), (a, silence)):
        assert np.isfinite(slope(x, y)).all()


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("which", "samples"),
    [
        (1, None),
        *(
            pytest.param(*case, marks=pytest.mark.long)
            for case in ((0, None), (0, 2100), (1, 2100))
        ),
    ],
)
def test_graph_and_xla(which: int, samples: int | None) -> None:
    import tensorflow as tf

    def values(a: tf.Tensor, b: tf.Tensor) -> tuple:
        with tf.GradientTape() as tape:
            tape.watch(a)
            distance = distances(a, b)[which]
        return distance, tape.gradient(distance, a)

    a, b = tf.constant(noise(2, 2100)), tf.constant(noise(2, 2100, 1))
    expected = values(a, b)
    for jit_compile in (False, True):
        compiled = tf.function(
            values,
            jit_compile=jit_compile,
            autograph=False,
            input_signature=[tf.TensorSpec((None, samples))] * 2,
        )
        distance, slope = compiled(a, b)
        np.testing.assert_allclose(distance, expected[0], rtol=1e-4)
        np.testing.assert_allclose(slope, expected[1], atol=1e-3 * np.abs(expected[1]).max())


@pytest.mark.parametrize("rate, hop", [(8000, 64), (16000, 160), (16000, 640)])
@pytest.mark.parametrize("hertz", [70.0, 110.0, 220.5, 390.0])
def test_pitch_of_harmonics(rate: int, hop: int, hertz: float) -> None:
    t = np.arange(rate) / rate
    x = sum(np.sin(2 * np.pi * k * hertz * t + k) / k for k in range(1, 8)) * 0.2
    found = to_numpy(spectral.pitch(x[None].astype("float32"), rate, hop))
    assert found.shape == (1, rate // hop)
    assert np.abs(found[0, 4:-4] / hertz - 1).max() < 0.005


def test_pitch_of_what_has_none() -> None:
    hiss = noise(2, 8000)
    assert (to_numpy(spectral.pitch(hiss, 8000, 80)) > 0).mean() < 0.02
    assert to_numpy(spectral.pitch(np.zeros((1, 8000), "float32"), 8000, 80)).max() == 0
    t = np.arange(8000)
    # Hum below the lowest voice: alike at all short lags, most at none of them.
    hum = 0.5 * np.sin(2 * np.pi * 30 * t / 8000)
    assert to_numpy(spectral.pitch(hum.astype("float32").reshape(1, -1), 8000, 80)).max() == 0
    # A voice 40 dB below the loudest part is none.
    x = 0.5 * np.sin(2 * np.pi * t / 40) * np.where(t < 4000, 1, 0.005)
    found = to_numpy(spectral.pitch(x.astype("float32").reshape(1, -1), 8000, 80))[0]
    assert (found[5:40] > 0).all() and (found[60:95] == 0).all()
    with pytest.raises(ValueError, match="needs 0 < low < high"):
        spectral.pitch(hiss, 8000, 80, 100, 90)


def test_pitch_by_another_way() -> None:
    """Of a gliding voice: the inverse of the time between pulses, by construction."""
    rate = 16000
    hertz = np.geomspace(90, 300, rate)
    turns = np.cumsum(hertz) / rate
    x = sum(np.cos(2 * np.pi * k * turns) for k in range(1, 10)) * 0.05
    found = to_numpy(spectral.pitch(x[None].astype("float32"), rate, 160))[0]
    middles = hertz[80::160]
    assert np.abs(found / middles - 1)[5:-5].max() < 0.02
