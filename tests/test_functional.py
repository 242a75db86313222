"""Pure functions, against plain numpy."""

from collections.abc import Callable

import hypothesis.strategies as st
import keras
import numpy as np
import pytest
from hypothesis import given
from keras import ops

from keras_vqvae import functional
from tests.checks import floats, to_numpy


def gradient(fn: Callable, x: np.ndarray) -> np.ndarray:
    """d fn(x) / d x of a function from an array to a scalar, on either backend."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        x = tf.constant(x)
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = fn(x)
        found = tape.gradient(y, x, unconnected_gradients="zero")
    else:
        import jax

        found = jax.grad(fn)(x)
    return to_numpy(found)


def numpy_nearest(z: np.ndarray, codebook: np.ndarray) -> np.ndarray:
    distances = ((z[:, None].astype("float64") - codebook[None]) ** 2).sum(-1)
    return distances.argmin(1)


@given(st.integers(0, 40), st.integers(1, 20), st.integers(1, 6), st.integers(0, 99))
def test_nearest_codes(rows: int, num_codes: int, code_dim: int, seed: int) -> None:
    z, codebook = floats((rows, code_dim), seed), floats((num_codes, code_dim), seed + 1)
    codes = functional.nearest_codes(ops.convert_to_tensor(z), ops.convert_to_tensor(codebook))
    assert codes.shape == (rows,) and keras.backend.standardize_dtype(codes.dtype) == "int32"
    np.testing.assert_array_equal(to_numpy(codes), numpy_nearest(z, codebook))


# 7 rows a chunk: fewer rows than a chunk, exactly one, a whole number of them, and one more.
@pytest.mark.parametrize("rows", [0, 1, 6, 7, 8, 13, 14, 15, 50])
def test_nearest_codes_in_chunks(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(functional, "SCORES_PER_CHUNK", 7 * 5)
    z, codebook = floats((rows, 3)), floats((5, 3), 1)
    found = functional.nearest_codes(ops.convert_to_tensor(z), ops.convert_to_tensor(codebook))
    np.testing.assert_array_equal(to_numpy(found), numpy_nearest(z, codebook))


@pytest.mark.tensorflow
@pytest.mark.parametrize("jit_compile", [False, True])
def test_nearest_codes_of_unknown_number(
    jit_compile: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tensorflow as tf

    monkeypatch.setattr(functional, "SCORES_PER_CHUNK", 7 * 5)
    search = tf.function(
        functional.nearest_codes,
        jit_compile=jit_compile,
        input_signature=[tf.TensorSpec((None, 3)), tf.TensorSpec((5, 3))],
    )
    codebook = floats((5, 3), 1)
    for rows in (1, 7, 23) if jit_compile else (0, 1, 7, 23):
        z = floats((rows, 3))
        np.testing.assert_array_equal(search(z, codebook), numpy_nearest(z, codebook))


def test_nearest_codes_takes_the_first_of_equals() -> None:
    codebook = np.array([[5.0], [1.0], [1.0], [-1.0], [-1.0]], "float32")
    codes = functional.nearest_codes(np.array([[1.2], [0.0], [-3.0]], "float32"), codebook)
    np.testing.assert_array_equal(to_numpy(codes), [1, 1, 3])


def test_nearest_codes_far_from_the_origin() -> None:
    # |x|^2 is left out of the search: 1e6 would swallow the differences in float32.
    codebook = np.array([[1000.0, 0.0], [1000.0, 0.5], [1000.0, 1.0]], "float32")
    z = np.array([[1000.0, 0.1], [1000.0, 0.6], [1000.0, 0.9]], "float32")
    np.testing.assert_array_equal(to_numpy(functional.nearest_codes(z, codebook)), [0, 1, 2])


def test_nearest_codes_has_no_gradient() -> None:
    z, codebook = floats((4, 3)), floats((5, 3), 1)

    def fn(z: object) -> object:
        return ops.sum(
            ops.cast(functional.nearest_codes(z, ops.convert_to_tensor(codebook)), "float32")
        )

    np.testing.assert_array_equal(gradient(fn, z), np.zeros_like(z))


def test_straight_through() -> None:
    z, quantized, weights = floats((4, 3)), floats((4, 3), 1), floats((4, 3), 2)
    value = functional.straight_through(z, quantized)
    np.testing.assert_allclose(to_numpy(value), quantized, atol=1e-6)
    # The gradient of z is that of the output, and `quantized` has none.
    by_z = gradient(lambda z: ops.sum(functional.straight_through(z, quantized) * weights), z)
    np.testing.assert_allclose(by_z, weights, atol=1e-6)
    by_q = gradient(lambda q: ops.sum(functional.straight_through(z, q) * weights), quantized)
    np.testing.assert_array_equal(by_q, np.zeros_like(z))


@given(st.integers(0, 30), st.integers(1, 9), st.integers(1, 4))
def test_code_statistics(rows: int, num_codes: int, code_dim: int) -> None:
    z = floats((rows, code_dim))
    codes = np.random.default_rng(rows).integers(0, num_codes, rows).astype("int32")
    counts, sums = functional.code_statistics(
        ops.convert_to_tensor(z), ops.convert_to_tensor(codes), num_codes
    )
    assert counts.shape == (num_codes,) and sums.shape == (num_codes, code_dim)
    np.testing.assert_array_equal(to_numpy(counts), np.bincount(codes, minlength=num_codes))
    expected = np.zeros((num_codes, code_dim))
    np.add.at(expected, codes, z)
    np.testing.assert_allclose(to_numpy(sums), expected, atol=1e-5)


def test_code_sums_gradient() -> None:
    codes, weights = np.array([2, 0, 2], "int32"), floats((4, 3))

    def fn(z: object) -> object:
        return ops.sum(functional.code_statistics(z, codes, 4)[1] * weights)

    np.testing.assert_allclose(gradient(fn, floats((3, 3))), weights[codes], atol=1e-6)


def test_code_counts_of_any_shape() -> None:
    codes = np.random.default_rng(0).integers(0, 6, (2, 3, 4)).astype("int32")
    counts = to_numpy(functional.code_counts(ops.convert_to_tensor(codes), 7))
    np.testing.assert_array_equal(counts, np.bincount(codes.reshape(-1), minlength=7))


def numpy_perplexity(counts: np.ndarray) -> float:
    p = counts[counts > 0] / counts.sum()
    return float(np.exp(-(p * np.log(p)).sum()))


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=20).filter(any))
def test_perplexity(counts: list) -> None:
    array = np.array(counts, "float32")
    found = float(to_numpy(functional.perplexity(ops.convert_to_tensor(array))))
    assert found == pytest.approx(numpy_perplexity(array.astype("float64")), rel=1e-5)


def test_perplexity_of_extremes() -> None:
    assert float(functional.perplexity(np.full(512, 3.0, "float32"))) == pytest.approx(512, 1e-5)
    assert float(functional.perplexity(np.eye(512, dtype="float32")[7])) == pytest.approx(1.0)
    assert float(functional.entropy(np.zeros(512, "float32"))) == 0.0
    # Summed over a long epoch.
    assert float(functional.perplexity(np.full(8, 1e9, "float32"))) == pytest.approx(8, 1e-5)


def test_perplexity_gradient() -> None:
    counts = np.array([3.0, 1.0, 4.0], "float32")
    p, total = counts / counts.sum(), counts.sum()
    entropy = -(p * np.log(p)).sum()
    expected = np.exp(entropy) * -(np.log(p) + entropy) / total
    np.testing.assert_allclose(gradient(functional.perplexity, counts), expected, rtol=1e-4)
    # Unused codes do not make it infinite or NaN.
    assert np.isfinite(gradient(functional.perplexity, np.array([3.0, 0.0, 4.0], "float32"))).all()


def test_pixels_there_and_back() -> None:
    pixels = np.arange(256, dtype="uint8")
    unit = functional.pixels_to_unit(pixels)
    assert float(unit[0]) == -1.0 and float(unit[255]) == 1.0
    np.testing.assert_allclose(to_numpy(unit), np.arange(256) / 127.5 - 1, atol=1e-6)
    back = functional.unit_to_pixels(unit)
    assert keras.backend.standardize_dtype(back.dtype) == "uint8"
    np.testing.assert_array_equal(to_numpy(back), pixels)
    outside = functional.unit_to_pixels(np.array([-9.0, 9.0], "float32"))
    np.testing.assert_array_equal(to_numpy(outside), [0, 255])


def test_mu_law() -> None:
    # ITU-T G.711's formula, by numpy.
    x = np.linspace(-1, 1, 1001).astype("float32")
    companded = np.sign(x) * np.log1p(255 * np.abs(x)) / np.log1p(255)
    classes = to_numpy(functional.mu_law_encode(x))
    assert classes.dtype == "int32" and classes[0] == 0 and classes[-1] == 255
    assert np.abs(classes - (companded + 1) / 2 * 255).max() <= 0.501
    every = np.arange(256, dtype="int32")
    decoded = to_numpy(functional.mu_law_decode(every))
    assert decoded.min() == -1 and decoded.max() == 1
    np.testing.assert_allclose(decoded, -decoded[::-1], atol=1e-6)
    np.testing.assert_array_equal(to_numpy(functional.mu_law_encode(decoded)), every)


def test_causal_shift() -> None:
    x = floats((2, 4, 3))
    shifted = to_numpy(functional.causal_shift(ops.convert_to_tensor(x)))
    np.testing.assert_array_equal(shifted[:, 1:], x[:, :-1])
    assert not shifted[:, 0].any()


@pytest.mark.parametrize("batch", [0, 1, 3])
def test_never_empty(batch: int) -> None:
    x = ops.convert_to_tensor(floats((batch, 2, 3)))
    padded = functional.never_empty(x)
    assert padded.shape == (max(1, batch), 2, 3)
    np.testing.assert_array_equal(to_numpy(padded)[:batch], to_numpy(x))


@pytest.mark.tensorflow
def test_never_empty_of_unknown_batch() -> None:
    import tensorflow as tf

    fn = tf.function(functional.never_empty, input_signature=[tf.TensorSpec((None, 2, 3), "uint8")])
    for batch in (0, 1, 3):
        x = np.ones((batch, 2, 3), "uint8")
        padded = fn(x)
        assert padded.shape == (max(1, batch), 2, 3) and padded.dtype == "uint8"
        np.testing.assert_array_equal(padded[:batch], x)


@pytest.mark.parametrize(
    "scale", ["unit_to_levels", "levels_to_unit", "mu_law_encode", "mu_law_decode"]
)
def test_one_level_has_no_scale(scale: str) -> None:
    """It gave NaN, silently."""
    with pytest.raises(ValueError, match="`levels` must be at least 2, got 1"):
        getattr(functional, scale)(np.zeros(3, "float32"), 1)


def assert_nearest(codes: object, z: np.ndarray, codebook: np.ndarray) -> None:
    """No other code is nearer by more than float32 rounds."""
    distances = ((z[:, None].astype("float64") - codebook[None]) ** 2).sum(-1)
    found = np.take_along_axis(distances, to_numpy(codes)[:, None], 1)[:, 0]
    assert (found <= distances.min(1) * (1 + 1e-5)).all()


# Kelvin, mel cepstra, years, and latents that hardly differ.
OFFSETS = [(0, 1), (293, 0.3), (-400, 5), (2020, 1), (10, 0.02)]


@pytest.mark.parametrize("mean, spread", OFFSETS)
def test_the_search_is_as_exact_far_from_zero(mean: float, spread: float) -> None:
    """Scores z·e - |e|²/2 would lose the digits that tell codes apart: 47 % wrong at 2020 ± 1."""
    z, codebook = mean + spread * floats((1300, 4)), mean + spread * floats((900, 4), 1)
    assert_nearest(functional.nearest_codes(z, ops.convert_to_tensor(codebook)), z, codebook)


def test_codes_far_away_do_not_spoil_the_search_among_the_others() -> None:
    """They would if their mean were the origin of the search."""
    z, codebook = floats((500, 4)), floats((64, 4), 1)
    codebook[::7] += 1e6
    assert_nearest(functional.nearest_codes(z, ops.convert_to_tensor(codebook)), z, codebook)


@pytest.mark.parametrize("num_codes", [1, 5])
def test_rows_that_are_not_finite_have_codes_too(num_codes: int) -> None:
    z = np.array([[np.nan, 0], [np.inf, 0], [-np.inf, 0], [3e38, 0]], "float32")
    codebook = ops.convert_to_tensor(100 + floats((num_codes, 2)))
    codes = to_numpy(functional.nearest_codes(z, codebook))
    assert ((codes >= 0) & (codes < num_codes)).all()


@pytest.mark.tensorflow
def test_the_search_in_chunks_converts_to_tflite(monkeypatch: pytest.MonkeyPatch) -> None:
    """With its own ops alone, whatever the number of rows."""
    import tensorflow as tf

    monkeypatch.setattr(functional, "SCORES_PER_CHUNK", 7 * 5)
    codebook = 100 + floats((5, 3), 1)
    search = tf.function(
        lambda z: functional.nearest_codes(z, tf.constant(codebook)),
        autograph=False,
        input_signature=[tf.TensorSpec((None, 3))],
    )
    concrete = search.get_concrete_function()
    converted = tf.lite.TFLiteConverter.from_concrete_functions([concrete], search).convert()
    interpreter = tf.lite.Interpreter(model_content=converted)
    place, found = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    for rows in (1, 7, 23):
        z = 100 + floats((rows, 3))
        interpreter.resize_tensor_input(place["index"], z.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(place["index"], z)
        interpreter.invoke()
        codes = interpreter.get_tensor(found["index"])
        np.testing.assert_array_equal(codes, numpy_nearest(z, codebook))
