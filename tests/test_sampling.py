"""Drawing codes: the inverse distribution function, temperature, top-k and top-p."""

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_vqvae import backend, sampling
from tests.checks import to_numpy


def options(temperature: float = 1.0, top_k: int = 10**6, top_p: float = 1.0) -> sampling.Options:
    return sampling.Options(np.float32(temperature), np.int32(top_k), np.float32(top_p))


def reference(logits: np.ndarray, temperature: float, top_k: int, top_p: float) -> np.ndarray:
    """Probabilities in float64, one row and one code at a time."""
    result = []
    for row in logits.astype("float64"):
        p = np.exp(row / temperature - np.max(row / temperature))
        p /= p.sum()
        order = np.argsort(-p, kind="stable")[:top_k]
        kept, reached, whole = [], 0.0, p[order].sum()
        for code in order:
            if reached >= top_p * whole:
                break
            kept.append(code)
            reached += p[code]
        out = np.zeros_like(p)
        out[kept] = p[kept] / p[kept].sum()
        result.append(out)
    return np.array(result)


@given(
    seed=st.integers(0, 1000),
    num_codes=st.sampled_from([1, 2, 5, 64]),
    temperature=st.sampled_from([0.3, 1.0, 2.5]),
    top_k=st.sampled_from([1, 3, 64, 100]),
    top_p=st.sampled_from([0.01, 0.5, 0.9, 1.0]),
)
def test_weights_against_numpy(
    seed: int, num_codes: int, temperature: float, top_k: int, top_p: float
) -> None:
    logits = np.random.default_rng(seed).normal(0, 2, (4, num_codes)).astype("float32")
    found = to_numpy(sampling.weights(logits, options(temperature, top_k, top_p)))
    expected = reference(logits, temperature, top_k, top_p)
    np.testing.assert_allclose(found / found.sum(-1, keepdims=True), expected, atol=1e-5)
    np.testing.assert_array_equal(found > 0, expected > 0)


def test_equals_of_the_last_are_kept() -> None:
    logits = np.log([[0.4, 0.2, 0.2, 0.2]]).astype("float32")
    assert (to_numpy(sampling.weights(logits, options(top_k=2))) > 0).tolist() == [[True] * 4]


@pytest.mark.parametrize("restricted", [options(), options(top_k=50), options(top_p=0.6)])
def test_only_what_is_allowed_is_drawn(restricted: sampling.Options) -> None:
    # JAX and XLA sum in an order in which sums of nothing may rise or fall by a rounding.
    logits = np.random.default_rng(0).normal(0, 2, (2000, 512)).astype("float32")
    weights = to_numpy(sampling.weights(logits, restricted))
    layer = keras.layers.Layer()
    draw = backend.jit(lambda logits, u: sampling.draw(logits, u, restricted), layer, xla=True)
    # Also numbers right at the steps of the distribution function, where a rounding decides.
    steps = np.cumsum(weights, -1)
    at_steps = np.minimum(steps[:, 100] / steps[:, -1], 1 - 2**-24)
    for u in (np.zeros(2000), np.full(2000, 1 - 2**-24), at_steps):
        codes = to_numpy(draw(logits, u.astype("float32")))
        assert codes.dtype == np.int32
        assert (np.take_along_axis(weights, codes[:, None], 1) > 0).all()


def test_sums_that_rise_and_fall_where_nothing_is_added(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = np.array([[1.0, -np.inf, 2.0, -np.inf, 0.5, -np.inf]], "float32")
    falls = [0.3, 0.3000001, 0.8, 0.7999999, 1.0, 0.9999999]
    rises = [0.3, 0.3000001, 0.8, 0.8000001, 1.0, 1.0000002]
    for sums, expected in (
        (falls, {0.0: 0, 0.3: 0, 0.30000006: 2, 0.80000015: 4, 0.9999999: 4}),
        (rises, {0.29: 0, 0.30000003: 2, 0.8: 4, 1 - 2**-24: 4}),
    ):
        given = keras.ops.convert_to_tensor(np.array([sums], "float32"))
        monkeypatch.setattr(sampling.functional, "prefix_sums", lambda x, given=given: given)
        for u, code in expected.items():
            drawn = sampling.draw(logits, np.array([u], "float32"), options())
            assert to_numpy(drawn).tolist() == [code], (sums, u)


def test_impossible_codes_are_never_drawn() -> None:
    logits = np.array([[-np.inf, 1.0, -np.inf]] * 3, "float32")
    u = np.array([0.0, 0.5, 1 - 2**-24], "float32")
    assert to_numpy(sampling.draw(logits, u, options())).tolist() == [1, 1, 1]


def test_low_precision_logits_are_drawn_from_in_float32() -> None:
    logits = keras.ops.zeros((512, 512), "bfloat16")
    u = ((np.arange(512) + 0.5) / 512).astype("float32")
    np.testing.assert_array_equal(to_numpy(sampling.draw(logits, u, options())), np.arange(512))


def test_frequencies() -> None:
    logits = np.tile(np.log([[0.5, 0.1, 0.4]]), (30_000, 1)).astype("float32")
    u = to_numpy(backend.uniforms((30_000,), 3))
    counts = np.bincount(to_numpy(sampling.draw(logits, u, options())), minlength=3)
    expected = 30_000 * np.array([0.5, 0.1, 0.4])
    assert np.sum((counts - expected) ** 2 / expected) < 13.8  # 99.9 % of chi-square, 2 freedoms


def test_examples_get_the_same_numbers_however_many_there_are() -> None:
    few, many = (to_numpy(sampling.given_positions((4, 6), n, 5).u) for n in (3, 10))
    np.testing.assert_array_equal(few, many[:3])
    assert few.shape == (3, 4, 6)
