"""How much codes know of phones (van den Oord et al. 2017, sec. 4.3).

The paper maps each of 128 codes to the phone that it meets most often, and finds 49.3 % of
positions right, where always saying the most frequent phone gives 7.2 %.
"""

from collections.abc import Collection, Sequence

import numpy as np

from keras_vqvae.data.audio_corpus import labels_at
from support.figures import ratio


def phones_of_codes(
    segments: Sequence[tuple[float, str]],
    positions: int,
    samples_per_code: int,
    sample_rate: int,
) -> np.ndarray:
    """The phone at the middle of the samples that each code stands for.

    Args:
        segments: `(end in seconds, phone)` in order of time, as `Clip.phones`.
        positions: codes of the clip.
        samples_per_code: samples that a code stands for; code i begins at `i * samples_per_code`.
        sample_rate: Hz.

    Returns:
        `(positions,)` str.
    """
    middles = (np.arange(positions) + 0.5) * samples_per_code / sample_rate
    return labels_at(segments, middles)


def code_phone_study(
    codes: Sequence[np.ndarray],
    phones: Sequence[np.ndarray],
    leave_out: Collection[str] = (),
) -> dict[str, float | None]:
    """How well phones can be told from single codes, and what they have in common.

    Every second clip, beginning with the first, decides which phone a code stands for: the one it
    meets most often there, and for a code not met, the most frequent phone. The others test it.

    Args:
        codes: codes `(positions,)` of each clip, integers; at least two clips.
        phones: phone of each position, as `phones_of_codes` gives it.
        leave_out: phones whose positions do not count, such as silence.

    Returns:
        `accuracy` of the map on the clips that test it; `baseline`, the accuracy there of always
        saying the phone most frequent in the others; their `ratio`, None for a baseline of 0. Over
        all clips: the `mutual_information` of code and phone in bits, by counting ("plug-in"),
        which is too high
        by chance; the same `corrected` to first order (Miller and Madow 1955); the
        `phone_entropy`, most that it could be; and how many `positions` counted.
    """
    if len(codes) != len(phones) or len(codes) < 2:
        raise ValueError(f"needs at least two clips, got {len(codes)} of codes, {len(phones)}")
    sizes = [(len(c), len(p)) for c, p in zip(codes, phones, strict=True)]
    if any(of_codes != of_phones for of_codes, of_phones in sizes):
        raise ValueError(f"clips must have as many codes as phones, got {sizes}")
    names, labels = np.unique(np.concatenate(phones), return_inverse=True)
    indices = np.concatenate(codes)
    clip = np.repeat(np.arange(len(codes)), [len(c) for c in codes])
    counts = ~np.isin(labels, np.nonzero(np.isin(names, list(leave_out)))[0])
    indices, labels, learns = indices[counts], labels[counts], clip[counts] % 2 == 0
    if learns.all() or not learns.any():
        raise ValueError("one half of the clips has no positions that count")

    table = _table(indices[learns], labels[learns], indices.max() + 1, len(names))
    most_frequent = table.sum(0).argmax()
    map_ = np.where(table.any(1), table.argmax(1), most_frequent)
    accuracy = float(np.mean(map_[indices[~learns]] == labels[~learns]))
    baseline = float(np.mean(labels[~learns] == most_frequent))
    joint = _table(indices, labels, indices.max() + 1, len(names))
    plug_in, corrected = mutual_information(joint)
    return {
        "accuracy": accuracy,
        "baseline": baseline,
        "ratio": ratio(accuracy, baseline),
        "mutual_information": plug_in,
        "corrected": corrected,
        "phone_entropy": _entropy(joint.sum(0)),
        "positions": len(labels),
    }


def mutual_information(table: np.ndarray) -> tuple[float, float]:
    """Bits that the two axes of a table of counts have in common.

    Counting makes entropies too low, by about `(outcomes met - 1) / (2 n ln 2)` bits each (Miller
    and Madow 1955), and so `I(X; Y) = H(X) + H(Y) - H(X, Y)` too high where pairs are many.

    Returns:
        the value by counting, and the corrected one, which is not cut off at 0.
    """
    by_row, by_column = table.sum(1), table.sum(0)
    plug_in = _entropy(by_row) + _entropy(by_column) - _entropy(table)
    met = [np.count_nonzero(x) - 1 for x in (by_row, by_column, table)]
    correction = (met[0] + met[1] - met[2]) / (2 * table.sum() * np.log(2))
    return plug_in, float(plug_in + correction)


def _table(rows: np.ndarray, columns: np.ndarray, num_rows: int, num_columns: int) -> np.ndarray:
    pairs = np.bincount(rows * num_columns + columns, minlength=num_rows * num_columns)
    return pairs.reshape(num_rows, num_columns)


def _entropy(counts: np.ndarray) -> float:
    """Bits."""
    p = counts[counts > 0] / counts.sum()
    return float(-(p * np.log2(p)).sum())
