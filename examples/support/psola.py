"""The same words and mouth, at another pitch."""

import keras
import numpy as np

from keras_vqvae import spectral


def at_pitch(waveform: np.ndarray, sample_rate: int, factor: float) -> np.ndarray:
    """Speech with its pitch multiplied, and formants and timing as they were.

    Pitch-synchronous overlap-add (Moulines and Charpentier 1990): pieces of two periods are cut out
    around marks a period apart, and laid down again `factor` times as densely.

    Args:
        waveform: float32 `(samples,)`.
        sample_rate: Hz.
        factor: from one half to three.

    Returns:
        float32 `(samples,)`.
    """
    hop = sample_rate // 100
    hertz = keras.ops.convert_to_numpy(spectral.pitch(waveform[None], sample_rate, hop))[0]
    periods = np.where(hertz > 0, sample_rate / np.maximum(hertz, 1.0), hop)
    voiced = hertz > 0
    marks = _marks(waveform, periods, voiced, hop)
    longest = int(periods.max()) + 1
    padded = np.pad(waveform.astype("float64"), 2 * longest)
    made, weight = np.zeros_like(padded), np.full_like(padded, 1e-3)
    place = float(marks[0])
    while place < len(waveform):
        frame = min(int(place) // hop, len(periods) - 1)
        period = round(periods[frame])
        # What is no voice stays where it is.
        mark = marks[np.argmin(np.abs(marks - place))] if voiced[frame] else round(place)
        window = np.hanning(2 * period + 1)
        at = round(place) + 2 * longest - period
        piece = padded[mark + 2 * longest - period :][: len(window)]
        made[at : at + len(window)] += window * piece
        weight[at : at + len(window)] += window
        place += period / (factor if voiced[frame] else 1.0)
    return (made / weight)[2 * longest :][: len(waveform)].astype("float32")


def _marks(waveform: np.ndarray, periods: np.ndarray, voiced: np.ndarray, hop: int) -> np.ndarray:
    """Samples about a period apart, on the peaks of voices."""
    marks, place = [], 0
    while place < len(waveform):
        frame = min(place // hop, len(periods) - 1)
        period = round(periods[frame])
        if voiced[frame]:
            near = np.arange(max(0, place - period // 4), min(len(waveform), place + period // 4))
            place = int(near[np.argmax(np.abs(waveform[near]))]) if len(near) else place
        if marks and place <= marks[-1]:
            place = marks[-1] + period
            continue
        marks.append(place)
        place += period
    return np.array(marks)
