"""Likelihoods, against scipy."""

from typing import Any

import numpy as np
import pytest
import scipy.special
import scipy.stats
from keras import ops

from keras_vqvae import Categorical, Gaussian, LogisticMixture, backend
from tests.checks import copy_by_config, floats, gradient, to_numpy


@pytest.mark.parametrize("scale", [0.22, 1.0])
def test_gaussian_log_prob(scale: float) -> None:
    mean, x = floats((3, 4, 4, 2)), floats((3, 4, 4, 2), 1)
    found = to_numpy(
        Gaussian(scale).log_prob(ops.convert_to_tensor(mean), ops.convert_to_tensor(x))
    )
    expected = scipy.stats.norm.logpdf(x, mean, scale) + np.log(2 / 255)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_gaussian_probabilities_of_the_levels_sum_to_one() -> None:
    # A log-probability is that of a level, not a density.
    levels = np.arange(256, dtype="float32") / 127.5 - 1
    for scale in (0.05, 0.22):
        log_prob = to_numpy(Gaussian(scale).log_prob(np.zeros(256, "float32"), levels))
        assert np.exp(log_prob).sum() == pytest.approx(1, abs=1e-3)
        edges = scipy.stats.norm.cdf([levels - 1 / 255, levels + 1 / 255], 0, scale)
        inner = np.abs(levels) < 2 * scale
        np.testing.assert_allclose(log_prob[inner], np.log(edges[1] - edges[0])[inner], atol=2e-2)


def test_bits_per_dim() -> None:
    mean, x = floats((3, 4, 2)), floats((3, 4, 2), 1)
    found = to_numpy(Gaussian().bits_per_dim(mean, x))
    nats = scipy.stats.norm.logpdf(x, mean, 0.22) + np.log(2 / 255)
    np.testing.assert_allclose(found, -nats.mean((1, 2)) / np.log(2), rtol=1e-4)
    # Knowing nothing costs about 8 bits: a uniform distribution over the levels has exactly 8.
    uniform = np.linspace(-1, 1, 256, dtype="float32")[None]
    assert 7.9 < float(Gaussian(0.58).bits_per_dim(np.zeros_like(uniform), uniform)[0]) < 8.6


def test_gaussian_sample() -> None:
    likelihood = Gaussian(0.1)
    params = np.full((20000,), 0.3, "float32")
    u = backend.uniforms((20000, likelihood.num_uniforms), 0)
    x = to_numpy(likelihood.sample(params, u))
    assert scipy.stats.kstest(x, scipy.stats.norm(0.3, 0.1).cdf).pvalue > 1e-3
    assert x.mean() == pytest.approx(0.3, abs=0.004) and x.std() == pytest.approx(0.1, abs=0.004)
    np.testing.assert_allclose(
        to_numpy(likelihood.sample(params, u, temperature=0.0)), 0.3, atol=1e-6
    )
    half = to_numpy(likelihood.sample(params, u, temperature=0.5))
    assert half.std() == pytest.approx(0.05, abs=0.002)


def test_gaussian_sample_of_extreme_uniforms_is_finite_and_in_range() -> None:
    u = np.array([[0.0], [np.nextafter(1, 0, dtype="float32")]], "float32")
    x = to_numpy(Gaussian(1.0).sample(np.zeros(2, "float32"), u))
    np.testing.assert_array_equal(x, [-1.0, 1.0])


def test_gaussian_mean_is_clipped_float32() -> None:
    mean = Gaussian().mean(ops.cast(np.array([-3.0, 0.5, 3.0], "float32"), "bfloat16"))
    assert to_numpy(mean).dtype == "float32"
    np.testing.assert_array_equal(to_numpy(mean), [-1.0, 0.5, 1.0])


def test_gaussian_config() -> None:
    assert vars(copy_by_config(Gaussian(0.1, levels=32))) == {"scale": 0.1, "levels": 32}


@pytest.mark.parametrize("scale", [0.0, -1.0])
def test_gaussian_refuses_bad_scale(scale: float) -> None:
    with pytest.raises(ValueError, match=f"scale must be positive, got {scale}"):
        Gaussian(scale)


def levels_of(count: int) -> np.ndarray:
    return (2 * np.arange(count) / (count - 1) - 1).astype("float32")


def test_categorical_log_prob() -> None:
    params = floats((3, 4, 2 * 8))
    x = np.random.default_rng(0).choice(levels_of(8), (3, 4, 2)).astype("float32")
    found = to_numpy(Categorical(8).log_prob(params, x))
    log_p = scipy.special.log_softmax(params.reshape(3, 4, 2, 8).astype("float64"), -1)
    level = np.round((x + 1) / 2 * 7).astype(int)[..., None]
    np.testing.assert_allclose(found, np.take_along_axis(log_p, level, -1)[..., 0], atol=1e-5)
    mean = (np.exp(log_p) * levels_of(8)).sum(-1)
    np.testing.assert_allclose(to_numpy(Categorical(8).mean(params)), mean, atol=1e-5)


def mixture_reference(params: np.ndarray, levels: int) -> np.ndarray:
    """Probability of each level, float64: `(..., levels)`."""
    logits, means, log_scales = np.split(params.astype("float64"), 3, -1)
    pi = scipy.special.softmax(logits, -1)[..., None, :]
    edges = (np.arange(levels + 1) - 0.5) * 2 / (levels - 1) - 1
    edges[0], edges[-1] = -np.inf, np.inf
    z = (edges[:, None] - means[..., None, :]) / np.exp(log_scales)[..., None, :]
    return np.diff((pi * scipy.special.expit(z)).sum(-1), axis=-1)


@pytest.mark.parametrize("levels", [4, 256])
def test_logistic_mixture_log_prob(levels: int) -> None:
    params = floats((5, 3 * 3)) * 1.5
    likelihood = LogisticMixture(3, levels)
    x = np.tile(levels_of(levels), (5, 1))
    found = to_numpy(likelihood.log_prob(np.repeat(params[:, None], levels, 1), x))
    np.testing.assert_allclose(np.exp(found), mixture_reference(params, levels), atol=2e-6)
    assert np.exp(found).sum(-1) == pytest.approx(np.ones(5), abs=1e-4)


def test_logistic_mixture_far_from_all_its_components_is_finite() -> None:
    likelihood = LogisticMixture(2, 65536)
    params = np.array([[0, 0, -0.9, 0.9, -12, -40]], "float32")
    x = np.array([0.25], "float32")
    log_prob = likelihood.log_prob(params, x)
    assert np.isfinite(to_numpy(log_prob)).all() and float(log_prob[0]) < -1000
    found = gradient(lambda p: ops.sum(likelihood.log_prob(p, x)), ops.convert_to_tensor(params))
    assert np.isfinite(found).all()


@pytest.mark.parametrize("log_scale", [-80.0, 80.0])
def test_the_narrowest_and_the_widest_mixtures_are_numbers(log_scale: float) -> None:
    likelihood = LogisticMixture(1)
    params = np.array([[0.0, 0.0, log_scale]] * 3, "float32")[None]
    x = np.array([[-1.0, 0.0, 1.0]], "float32")
    log_prob = np.asarray(likelihood.log_prob(params, x))
    assert np.isfinite(log_prob).all()
    found = gradient(lambda p: ops.sum(likelihood.log_prob(p, x)), ops.convert_to_tensor(params))
    assert np.isfinite(found).all()
    if log_scale > 0:  # as likely below the range as above it, and hardly within
        np.testing.assert_allclose(log_prob[0, [0, 2]], np.log(0.5), rtol=2e-3)


@pytest.mark.parametrize("likelihood", [Categorical(16), LogisticMixture(3, 16)])
def test_next_to_no_temperature_draws_the_likeliest(likelihood: Any) -> None:
    params = 30 * floats((5, likelihood.num_outputs))
    u = backend.uniforms((5, likelihood.num_uniforms), 0)
    cold, colder = (to_numpy(likelihood.sample(params, u, t)) for t in (1e-6, 1e-37))
    np.testing.assert_array_equal(colder, cold)
    assert len(np.unique(cold)) > 1


@pytest.mark.parametrize("likelihood", [Categorical(16), LogisticMixture(3, 16)])
def test_draws_follow_the_probabilities(likelihood: Any) -> None:
    params = floats((1, likelihood.num_outputs))
    if isinstance(likelihood, Categorical):
        expected = scipy.special.softmax(params[0].astype("float64"))
    else:
        expected = mixture_reference(params, 16)[0]
    n = 40_000
    u = ((np.arange(n) + 0.5) / n).astype("float32")
    x = to_numpy(likelihood.sample(np.repeat(params, n, 0)[:, None], u[:, None, None]))
    levels = np.round((x[:, 0] + 1) / 2 * 15).astype(int)
    found = np.bincount(levels, minlength=16) / n
    np.testing.assert_allclose(found, expected, atol=2e-3)
    cold = to_numpy(likelihood.sample(np.repeat(params, n, 0)[:, None], u[:, None, None], 0.05))
    assert cold.std() < x.std()


@pytest.mark.parametrize("make", [lambda: Categorical(1), lambda: LogisticMixture(0)])
def test_discrete_likelihoods_refuse(make: Any) -> None:
    with pytest.raises(ValueError, match="at least"):
        make()


@pytest.mark.parametrize("likelihood", [Categorical(8), LogisticMixture(2, 9)])
def test_discrete_likelihoods_survive_serialisation(likelihood: Any) -> None:
    assert copy_by_config(likelihood).get_config() == likelihood.get_config()


def test_gaussian_without_temperature_is_its_mean_whatever_the_uniform_number() -> None:
    u = np.array([[0.0], [0.5], [1.0 - 2.0**-24]], "float32")
    params = np.array([0.3, -0.2, 0.9], "float32")
    got = to_numpy(Gaussian().sample(params, u, temperature=0.0))
    np.testing.assert_allclose(got, params, atol=1e-6)


def test_temperature_narrows_the_components_of_a_mixture() -> None:
    likelihood, u = LogisticMixture(1, 65536), np.linspace(0.05, 0.95, 7).astype("float32")
    params = np.tile(np.array([[0.0, 0.1, -4.0]], "float32"), (7, 1))
    x = to_numpy(likelihood.sample(params, u[:, None], temperature=0.25))
    expected = 0.1 + 0.25 * np.exp(-4.0) * scipy.special.logit(u)
    np.testing.assert_allclose(x, expected, atol=2 / 65535)
