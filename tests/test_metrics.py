"""Metrics, against numpy."""

import numpy as np
import pytest

from keras_vqvae import CodeUsage
from tests.checks import copy_by_config, to_numpy


def expected(codes: np.ndarray, num_codes: int) -> dict:
    counts = np.bincount(codes.reshape(-1), minlength=num_codes)
    p = counts[counts > 0] / counts.sum()
    entropy = -(p * np.log(p)).sum()
    return {
        "perplexity": np.exp(entropy),
        "code_use": (counts > 0).mean(),
        "bits_per_code": entropy / np.log(2),
    }


def test_code_usage_accumulates_counts_over_batches() -> None:
    random = np.random.default_rng(0)
    metric = CodeUsage(32)
    every = []
    # The last batch is smaller, and each batch uses other codes.
    for batch, low in ((8, 0), (8, 8), (3, 16)):
        codes = random.integers(low, low + 8, (batch, 4, 4)).astype("int32")
        metric.update_state(codes)
        every.append(codes.reshape(-1))
        found, want = metric.result(), expected(np.concatenate(every), 32)
        assert set(found) == set(want)
        for name, value in want.items():
            assert float(found[name]) == pytest.approx(value, rel=1e-5), name
    # The mean of the batches' perplexities is far from it.
    mean = np.mean([expected(codes, 32)["perplexity"] for codes in every])
    assert mean < 0.6 * float(metric.result()["perplexity"])


def test_code_usage_reset() -> None:
    metric = CodeUsage(4)
    metric.update_state(np.array([0, 1, 2], "int32"))
    metric.reset_state()
    result = {name: float(value) for name, value in metric.result().items()}
    assert result == {"perplexity": 1.0, "code_use": 0.0, "bits_per_code": 0.0}
    metric.update_state(np.array([3, 3], "int32"))
    assert float(metric.result()["code_use"]) == 0.25


def test_code_usage_of_an_empty_batch() -> None:
    metric = CodeUsage(4)
    metric.update_state(np.zeros((0, 2), "int32"))
    assert all(np.isfinite(to_numpy(v)) for v in metric.result().values())


def test_code_usage_config() -> None:
    copy = copy_by_config(CodeUsage(7, name="usage"))
    assert (copy.num_codes, copy.name) == (7, "usage")
