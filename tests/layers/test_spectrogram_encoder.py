"""The encoder that begins with the spectrogram: what it sees, and how voices are disguised."""

from typing import Any

import numpy as np
import pytest
from keras import ops

from keras_vqvae import AudioVQVAE, SpectrogramEncoder, spectral
from tests.checks import check_layer, floats, to_numpy
from tests.inside import inside

RATE = 16000


def small(**options: Any) -> SpectrogramEncoder:
    sizes: dict = {"hop": 40, "window": 160, "bands": 20, "hidden": 8, "residual_blocks": 1}
    return SpectrogramEncoder(4, RATE, 80, **{**sizes, **options})


def test_layer(tmp_path) -> None:
    layer = small()
    layer.build((None, None, 1))
    # window 5, one strided convolution, a residual block, window 1
    expected = (5 * 20 * 8 + 8) + (4 * 8 * 8 + 8) + (3 * 8 * 8 + 8) + (8 * 8 + 8) + (8 * 4 + 4)
    assert layer.count_params() == expected
    check_layer(small, (2, 480, 1), tmp_path, trainable=expected)


@pytest.mark.parametrize("downsampling", [40, 80, 200])
def test_context(downsampling: int) -> None:
    encoder = SpectrogramEncoder(4, RATE, downsampling, hop=40, window=160, bands=20, hidden=8)
    codes = 41
    x = floats((1, codes * downsampling, 1)) * 0.1
    base = to_numpy(encoder(x))
    assert base.shape == (1, codes, 4)
    before, after = encoder.context
    kept = slice((20 - before) * downsampling, (21 + after) * downsampling)
    changed = floats(x.shape, seed=1) * 0.1
    changed[:, kept] = x[:, kept]
    np.testing.assert_allclose(to_numpy(encoder(changed))[:, 20], base[:, 20], atol=1e-5)
    # and not much more than it needs
    narrower = floats(x.shape, seed=1) * 0.1
    kept = slice(kept.start + 2 * downsampling, kept.stop - 2 * downsampling)
    narrower[:, kept] = x[:, kept]
    assert np.abs(to_numpy(encoder(narrower))[:, 20] - base[:, 20]).max() > 1e-5


def tone(hertz: float) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * hertz / RATE * np.arange(3200))).astype("float32")[None]


@pytest.mark.parametrize("stretch", [0.8, 1.0, 1.25])
def test_warped_spectra_are_those_of_a_tone_of_another_pitch(stretch: float) -> None:
    encoder = SpectrogramEncoder(4, RATE, 160, warp=0.3)
    frames = to_numpy(spectral.log_mel(tone(1500.0), RATE, 640, 160, 80))[0, 5]
    matrix = to_numpy(inside(encoder).interpolation(np.full((1, 1, 1), stretch, "float32")))[0]
    # Band c is read at c * stretch: what was at 1,500 Hz is found at 1,500 / stretch.
    other = to_numpy(spectral.log_mel(tone(1500.0 / stretch), RATE, 640, 160, 80))[0, 5]
    assert abs(int(np.argmax(frames @ matrix)) - int(np.argmax(other))) <= 1
    if stretch == 1.0:
        np.testing.assert_allclose(matrix, np.eye(80), atol=1e-4)


def test_disguises_are_of_training_only_and_decided_by_the_seed() -> None:
    x = tone(700.0)[..., None].repeat(3, 0)
    encoder, same, other = (small(warp=0.2, colour=0.5, seed=seed) for seed in (1, 1, 2))
    plain = to_numpy(encoder(x))
    for copy in (same, other):
        copy(x)
        copy.set_weights(encoder.get_weights())
    np.testing.assert_array_equal(to_numpy(encoder(x)), plain)
    first, second = (to_numpy(encoder(x, training=True)) for _ in range(2))
    assert np.abs(first - plain).max() > 1e-3 and np.abs(first - second).max() > 1e-3
    assert np.abs(first[0] - first[1]).max() > 1e-3, "each example has its own"
    np.testing.assert_array_equal(to_numpy(same(x, training=True)), first)
    assert np.abs(to_numpy(other(x, training=True)) - first).max() > 1e-3


@pytest.mark.locked
def test_in_a_model() -> None:
    encoder = SpectrogramEncoder(8, 8000, 80, hop=40, window=160, bands=20, hidden=8, warp=0.2)
    model = AudioVQVAE(
        8000, 16, 8, downsampling=80, encoder=encoder, decoder="parallel", hidden=8, finest_hidden=4
    )
    model.compile("adam")
    x = (0.1 * floats((4, 1600))).clip(-1, 1)
    model.fit(x, verbose=0)
    whole = model.encode(x)
    stream, got = model.streaming(4), []
    for start in range(0, 1600, 250):
        got.append(stream.encode(x[:, start : start + 250]))
    got.append(stream.encode_end())
    np.testing.assert_array_equal(np.concatenate(got, 1), whole)


@pytest.mark.parametrize("window", [320, 640])
@pytest.mark.parametrize("samples", [160, 200])
def test_clips_of_a_code_or_two(window: int, samples: int) -> None:
    encoder = SpectrogramEncoder(4, RATE, 160, window=window, bands=30, hidden=8)
    model = AudioVQVAE(RATE, 16, 4, downsampling=160, encoder=encoder, decoder="parallel", hidden=8)
    x = (0.1 * floats((2, samples))).clip(-1, 1)
    codes = model.encode(x)
    assert codes.shape == (2, -(-samples // 160))
    np.testing.assert_array_equal(to_numpy(model.encode(ops.convert_to_tensor(x))), codes)
    stream = model.streaming(2)
    got = [stream.encode(x[:, :30]), stream.encode(x[:, 30:]), stream.encode_end()]
    np.testing.assert_array_equal(np.concatenate(got, 1), codes)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: SpectrogramEncoder(4, RATE, 160, window=400), "multiple of hop, got 400 and 160"),
        (lambda: SpectrogramEncoder(4, RATE, 160, window=320), "of 80 mel bands hold no bin"),
        (lambda: SpectrogramEncoder(4, RATE, 100), "downsampling=100 must be a multiple of"),
        (lambda: SpectrogramEncoder(4, RATE, 160, warp=1.0), "0 <= warp < 1"),
    ],
)
def test_refuses(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
