"""Figures of predicted video: likeness step by step, motion, sharpness."""

from collections.abc import Sequence

import numpy as np

from keras_vqvae.data.video import Episode
from support import scores
from support.figures import ratio

# What has less contrast, in grey levels, shows nothing that could move.
FLAT = 0.5
MOVES = 0.5  # grey levels a step; less is a picture that stands still
MOST_WINDOWS = 2000  # that are held in memory; about 200 kB each


def cut(episodes: Sequence[Episode], length: int, every: int) -> tuple[np.ndarray, np.ndarray]:
    """Windows `(n, length, ...)` of frames and of actions, at most 2,000 from all over.

    Raises:
        ValueError: no episode is so long.
    """
    places = [(e, t) for e in episodes for t in range(0, len(e) - length + 1, every)]
    if not places:
        longest = max((len(e) for e in episodes), default=0)
        raise ValueError(
            f"held-out episodes must have at least {length} frames, the longest has {longest}"
        )
    some = [places[i] for i in evenly(len(places), MOST_WINDOWS)]
    frames, actions = (
        np.stack([getattr(e, name)[t : t + length] for e, t in some])
        for name in ("frames", "actions")
    )
    return frames, actions


def evenly(count: int, most: int) -> np.ndarray:
    """At most so many of so many, from all over."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(int))


def all_turns(actions: np.ndarray, left: int, right: int) -> np.ndarray:
    """Which rows of `(n, steps)` are of turns and nothing else."""
    return np.flatnonzero(np.all(np.isin(actions, (left, right)), 1))


def by_step(originals: np.ndarray, frames: np.ndarray) -> dict[str, list[float]]:
    """PSNR in dB and SSIM of each step; uint8 `(n, steps, h, w, c)`.

    SSIM is the mean over examples. PSNR is that of the mean squared error: where somebody turns
    there and back, a copy is without error, and a mean of PSNRs would be infinite.
    """
    figures: dict = {"PSNR": [], "SSIM": []}
    for step in range(originals.shape[1]):
        pair = originals[:, step], frames[:, step]
        error = np.mean((pair[0].astype("float32") - pair[1]) ** 2)
        figures["PSNR"].append(float(10 * np.log10(255**2 / max(error, 1e-6))))
        figures["SSIM"].append(scores.ssim(*pair))
    return figures


def shift(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """By how many pixels pictures `(n, h, w, c)` move to the right (phase correlation).

    It is a quarter of their width at most, and 0 where there is nothing to be seen.
    """
    window = np.hanning(before.shape[1])[:, None] * np.hanning(before.shape[2])
    spectra, seen = [], np.full(len(before), True)
    for pictures in (before, after):
        grey = pictures.astype("float32").mean(-1)
        grey -= grey.mean((1, 2), keepdims=True)
        seen &= grey.std((1, 2)) > FLAT
        spectra.append(np.fft.fft2(grey * window))
    cross = spectra[1] * np.conj(spectra[0])
    peaks = np.fft.ifft2(cross / np.maximum(np.abs(cross), 1e-6)).real
    along = np.fft.fftshift(peaks, (1, 2))
    middle_row, middle = along.shape[1] // 2, along.shape[2] // 2
    most = along.shape[2] // 4
    near = along[:, middle_row - 2 : middle_row + 3, middle - most : middle + most + 1].max(1)
    return np.where(seen, near.argmax(1) - most, 0)


def obedience(
    last: np.ndarray, frames: np.ndarray, actions: np.ndarray, left: int, right: int
) -> dict[str, float | None]:
    """In which share of the turns the picture moves the way that it must; None without turns.

    Who turns to the left sees things move to the right.

    Args:
        last: `(n, h, w, c)`, the frames before.
        frames: `(n, steps, h, w, c)`.
        actions: `(n, steps)`, those that led to the frames.
        left: the action of turning left.
        right: that of turning right.
    """
    before = np.concatenate([last[:, None], frames[:, :-1]], 1)
    turns = np.isin(actions, (left, right))
    moved = shift(before[turns], frames[turns])
    wanted = np.where(actions[turns] == left, 1, -1)
    return {
        "share": ratio(np.sum(np.sign(moved) == wanted), turns.sum()),
        "turns": int(turns.sum()),
        "median pixels": float(np.median(moved * wanted)) if turns.any() else None,
    }


def gradient_energy(frames: np.ndarray) -> float:
    """Mean squared difference of neighbouring pixels."""
    x = frames.astype("float32")
    return float(np.mean(np.diff(x, axis=-2) ** 2) + np.mean(np.diff(x, axis=-3) ** 2))


def liveliness(frames: np.ndarray, usual: np.ndarray) -> dict[str, float | None]:
    """Whether long predictions stay pictures of the world; shares of 1 are like those usual.

    Flat pictures have no contrast and noise has too much, frozen walks do not move, and walks that
    all end in one picture do not differ.

    Args:
        frames: `(n, steps, h, w, c)`, of which the last ten are looked at.
        usual: `(any, h, w, c)`, reconstructions of frames from all over the world that was learned.

    Returns:
        figures by name, None where reconstructions are flat, as those of a network that has
        hardly been trained; of a single walk no figure of how walks differ.
    """
    late, usual = frames[:, -10:].astype("float32"), usual.astype("float32")
    of_walks, contrast = late.std((2, 3)).mean((1, 2)), usual.std((1, 2)).mean()
    moves = np.abs(np.diff(late, axis=1)).mean((1, 2, 3, 4))
    figures = {
        "contrast / reconstructions": ratio(of_walks.mean(), contrast),
        "contrast of the flattest walk / reconstructions": ratio(of_walks.min(), contrast),
        "gradient energy / reconstructions": ratio(gradient_energy(late), gradient_energy(usual)),
        "share of walks that move": float(np.mean(moves > MOVES)),
    }
    if len(late) > 1 and len(usual) > 1:
        apart = ratio(_difference(late[:, -1]), _difference(usual))
        figures["difference between walks / reconstructions"] = apart
    return figures


def color_drift(context: np.ndarray, frames: np.ndarray) -> float | None:
    """How far the mean color leaves the place of the context; 1 is as far as to another place.

    `liveliness` cannot tell: it compares with all places together.

    Args:
        context: `(n, steps, h, w, c)`, reconstructed, of two walks at least.
        frames: `(n, steps, h, w, c)`, predicted, of which the last ten are looked at.

    Returns:
        the mean distance between the colors of a walk's last frames and of its context, over the
        mean distance between the colors of two contexts; None where these are all alike.
    """
    before, after = context.mean((1, 2, 3)), frames[:, -10:].mean((1, 2, 3))
    apart = np.linalg.norm(before[:, None] - before[None], axis=-1)
    usual = apart[~np.eye(len(before), dtype=bool)].mean()
    return float(np.linalg.norm(after - before, axis=-1).mean() / usual) if usual else None


def _difference(frames: np.ndarray) -> float:
    """Mean absolute difference between one of the pictures and another."""
    apart = [np.abs(frames - np.roll(frames, by, 0)).mean() for by in range(1, len(frames))]
    return float(np.mean(apart))
