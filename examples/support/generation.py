"""Figures of a prior: bits per code, cost of a sample, likeness to what it was trained on."""

import time
from pathlib import Path
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
    codes = unseen["codes"] if isinstance(unseen, dict) else unseen
    nats = -prior.log_prob(unseen).mean() / prior.num_positions
    return {
        "uniform": float(np.log2(prior.num_codes)),
        "unigram": unigram_bits(train, codes, prior.num_codes),
        "PixelCNN": float(nats / np.log(2)),
    }


def unigram_bits(train: np.ndarray, unseen: np.ndarray, num_codes: int) -> float:
    """Bits a code where only its frequency in training is known (add-one smoothing)."""
    counts = np.bincount(train.ravel(), minlength=num_codes) + 1
    return float(-np.log2(counts / counts.sum())[unseen].mean())


def bits_by_set(
    prior: PixelCNN, train: np.ndarray, unseen: dict[str, np.ndarray]
) -> dict[str, dict[str, float]]:
    """`bits_per_code` of training codes, of each unseen set and of all unseen codes together.

    The last is what `fit` logs as `val_loss` if it validates on all of them.
    """
    sets = {"training images": train[:: max(1, len(train) // 500)], **unseen}
    if len(unseen) > 1:
        sets["all unseen images"] = np.concatenate(list(unseen.values()))
    return {name: bits_per_code(prior, train, codes) for name, codes in sets.items()}


def evaluate(
    prior: PixelCNN,
    vqvae: ImageVQVAE,
    train: tuple[np.ndarray, np.ndarray],
    unseen: dict[str, np.ndarray],
    out: Path,
    samples: int = 24,
    temperature: float = 0.9,
) -> dict:
    """Returns what report.py says of a prior; draws samples and writes them into `out`.

    Args:
        prior: a trained model.
        vqvae: the model whose codes it was trained on.
        train: the images that it was trained on, and their codes.
        unseen: codes that it was not trained on, by name of the set.
        out: the folder of the prior.
        samples: how many images to draw.
        temperature: of the samples.
    """
    images, codes = train
    start = time.perf_counter()
    drawn = prior.sample(samples, temperature=temperature, seed=0, verbose=0)
    first = time.perf_counter() - start  # compilation included
    figures, nearest = compare(prior, vqvae, drawn, codes, images)
    np.savez(out / "samples.npz", samples=vqvae.decode(drawn), nearest=nearest)
    return {
        "parameters": prior.count_params(),
        "temperature": temperature,
        "bits_per_code": bits_by_set(prior, codes, unseen),
        "seconds_with_compilation": first,
        **figures,
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
