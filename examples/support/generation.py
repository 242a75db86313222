"""Figures of a prior: bits per code, cost of a sample, likeness to what it was trained on."""

import time
from typing import Any

import numpy as np

from keras_vqvae import ImageVQVAE, PixelCNN


def bits_per_code(prior: PixelCNN, train: np.ndarray, unseen: Any) -> dict[str, float]:
    """Cross-entropy of unseen codes in bits: the prior's, and those of two simpler models.

    The unigram model knows how frequent each code is in training (add-one smoothing); the uniform
    one knows nothing.

    Args:
        prior: a trained model.
        train: codes that it was trained on.
        unseen: codes, or codes and condition, as `prior.log_prob` takes them.
    """
    counts = np.bincount(train.ravel(), minlength=prior.num_codes) + 1
    unigram = -np.log2(counts / counts.sum())
    codes = unseen["codes"] if isinstance(unseen, dict) else unseen
    nats = -prior.log_prob(unseen).mean() / prior.num_positions
    return {
        "uniform": float(np.log2(prior.num_codes)),
        "unigram": float(unigram[codes].mean()),
        "PixelCNN": float(nats / np.log(2)),
    }


def compare(
    prior: PixelCNN,
    vqvae: ImageVQVAE,
    drawn: np.ndarray,
    codes: np.ndarray,
    pictures: np.ndarray,
) -> tuple[dict, np.ndarray]:
    """Cost of a sample, and how near the nearest training picture is.

    Returns:
        figures, and the training picture nearest to each sample (least squared error).
    """
    samples = vqvae.decode(drawn)
    nearest = pictures[nearest_rows(samples, pictures)]
    shares = np.array([(codes == grid).mean((1, 2)).max() for grid in drawn])
    seconds = _seconds(lambda: prior.sample(len(drawn), seed=1))
    passes = seconds / _seconds(lambda: prior.log_prob(drawn))
    return {
        "codes_per_sample": prior.num_positions,
        "seconds_per_sample": seconds / len(drawn),
        "forward_passes_per_sample": passes,
        "greatest_share_of_codes_in_common": {
            "mean": float(shares.mean()),
            "max": float(shares.max()),
        },
    }, nearest


def nearest_rows(samples: np.ndarray, pictures: np.ndarray, chunk: int = 1000) -> np.ndarray:
    """Index of the picture nearest to each sample, in squared error (uint8)."""
    wanted = samples.reshape(len(samples), -1).astype("float32")
    best = np.full(len(samples), np.inf)
    index = np.zeros(len(samples), int)
    for start in range(0, len(pictures), chunk):
        some = pictures[start : start + chunk].reshape(-1, wanted.shape[1]).astype("float32")
        distances = (some**2).sum(1) - 2 * wanted @ some.T
        found = distances.argmin(1)
        least = distances[np.arange(len(samples)), found]
        index = np.where(least < best, start + found, index)
        best = np.minimum(best, least)
    return index


def _seconds(fn) -> float:
    fn()
    start = time.perf_counter()
    fn()
    return time.perf_counter() - start
