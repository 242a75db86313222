"""Likelihoods, against scipy."""

import numpy as np
import pytest
import scipy.stats
from keras import ops

from keras_vqvae import Gaussian, backend
from tests.checks import copy_by_config, floats, to_numpy


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
