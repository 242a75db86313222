"""Checkpoints made long ago load and give the same numbers: see `tests/golden/make.py`."""

import keras
import numpy as np
import pytest

from tests.golden import make

# Floats agree to this, absolutely and relatively, between TensorFlow and JAX and their versions:
# float32 sums in another order. Codes agree exactly; grey levels to one, where a half is rounded.
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def results() -> tuple[dict, dict]:
    with np.load(make.FOLDER / "numbers.npz") as file:
        expected = dict(file)
    model = keras.saving.load_model(make.FOLDER / "image_vqvae.keras")
    alone = keras.saving.load_model(make.FOLDER / "vector_quantizer.keras")
    found = make.numbers(model, alone.layers[-1], expected.pop("images"), expected.pop("z"))
    return expected, found


def test_the_same_numbers(results: tuple[dict, dict]) -> None:
    compare(*results)


def test_the_prior_gives_the_same_numbers() -> None:
    with np.load(make.FOLDER / "prior_numbers.npz") as file:
        expected = dict(file)
    model = keras.saving.load_model(make.FOLDER / "pixelcnn.keras")
    x = {name: expected.pop(name) for name in ("codes", "condition")}
    compare(expected, make.prior_numbers(model, x))
    assert len(np.unique(expected["prior_samples"])) == 6
    assert expected["prior_log_prob"].mean() < -2  # it has learnt, and not by heart


@pytest.mark.parametrize("name", make.SOUND)
def test_sound_gives_the_same_numbers(name: str) -> None:
    with np.load(make.FOLDER / f"audio_{name}.npz") as file:
        expected = dict(file)
    model = keras.saving.load_model(make.FOLDER / f"audio_{name}.keras")
    compare(expected, make.sound_numbers(model, make.tones()))
    assert len(np.unique(expected["codes"])) >= 4 and expected["outputs"].std() > 0.01


def compare(expected: dict, found: dict) -> None:
    assert set(found) == set(expected)
    for name, want in expected.items():
        got = np.asarray(found[name])
        assert got.dtype == want.dtype and got.shape == want.shape, name
        if want.dtype == "int32":
            np.testing.assert_array_equal(got, want, err_msg=name)
        elif want.dtype == "uint8":
            assert np.abs(got.astype(int) - want).max() <= 1, name
        else:
            np.testing.assert_allclose(got, want, rtol=TOLERANCE, atol=TOLERANCE, err_msg=name)


def test_the_numbers_say_something(results: tuple[dict, dict]) -> None:
    expected, _ = results
    assert len(np.unique(expected["image_codes"])) >= 4
    assert len(np.unique(expected["codes"])) >= 6
    assert expected["image_outputs"].std() > 0.01


def test_small_enough_for_a_repository() -> None:
    assert sum(p.stat().st_size for p in make.FOLDER.iterdir() if p.is_file()) < 500_000
