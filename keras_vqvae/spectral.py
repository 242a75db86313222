"""Spectra of waveforms and distances between them. Pure functions, all in float32.

Waveforms are `(batch, samples)` in [-1, 1]. Everything has a gradient, also for silence.
"""

import functools
import math

import numpy as np
from keras import ops

from keras_vqvae import backend
from keras_vqvae.backend import Tensor

# Keeps the gradient of a magnitude finite where it is 0: sqrt(re² + im² + EPSILON²).
EPSILON = 1e-5
# Added before a logarithm. Rounding to 16 bits leaves magnitudes of sqrt(3/8 window / 12) / 32768,
# 1.7e-4 at a window of 1024: what is below that is not asked for.
FLOOR = 1e-3
# Correlation of a frame with itself a period later, from which on it is a voice.
VOICED = 0.5


def magnitudes(x: Tensor, window: int, hop: int) -> Tensor:
    """Magnitudes of the short-time Fourier transform, with a periodic Hann window.

    Frame i is centred at sample `i * hop`; the ends are reflected, those of a clip of at most
    `window // 2` samples after as many zeros as that needs. Nothing is divided by: a full sine has
    a magnitude of `window / 4`.

    Args:
        x: `(batch, samples)`.
        window: length of a frame in samples, even.
        hop: samples from frame to frame; must divide `window`.

    Returns:
        `(batch, samples // hop + 1, window // 2 + 1)` float32, at least `EPSILON`. Bin k is at
        `k * sample_rate / window` Hz.
    """
    check_window(window, hop)
    half, count = window // 2, ops.shape(x)[1] // hop + 1
    x = _at_least(ops.cast(x, "float32"), half + 1)
    found = _spectra(ops.pad(x, [[0, 0], [half, half]], mode="reflect"), window, hop)
    return found[:, :count]


def check_window(window: int, hop: int) -> None:
    """Raises `ValueError` where `magnitudes` has no use for a window and a hop."""
    if hop < 1 or window < 2 or window % 2 or window % hop:
        raise ValueError(f"window must be even and a multiple of hop, got {window} and {hop}")


def _spectra(x: Tensor, window: int, hop: int) -> Tensor:
    """Magnitudes of the frames that fit."""
    real, imaginary = ops.rfft(_frames(x, window, hop) * _hann(window))
    return ops.sqrt(ops.square(real) + ops.square(imaginary) + EPSILON**2)


def _at_least(x: Tensor, samples: int) -> Tensor:
    """`x`, with zeros after its end where it has fewer samples."""
    got = ops.shape(x)[1]
    if isinstance(got, int):
        return ops.pad(x, [[0, 0], [0, samples - got]]) if got < samples else x
    if backend.BACKEND == "jax":  # a symbol, met in symbolic calls only
        return x
    return ops.pad(x, [[0, 0], [0, ops.maximum(samples - got, 0)]])


def _frames(x: Tensor, window: int, hop: int) -> Tensor:
    """`(batch, frames, window)`, those that fit."""
    # Of pieces of `hop` samples: slices, whose gradient is a sum of slices. The gathers of
    # `ops.stft` have a scatter for a gradient, which on JAX takes four times as long in all.
    count = ops.shape(x)[1] // hop
    pieces = ops.reshape(x[:, : count * hop], (-1, count, hop))
    parts = window // hop
    return ops.concatenate([pieces[:, i : count - parts + 1 + i] for i in range(parts)], axis=-1)


def mel_matrix(
    sample_rate: int, window: int, bands: int, low: float = 0.0, high: float | None = None
) -> np.ndarray:
    """Triangles, equally wide in mel, that sum the bins of a spectrum up to bands.

    Mel are HTK's, `2595 log10(1 + Hz / 700)`. A triangle is 1 at its centre and 0 at the centres of
    its neighbours (no normalisation by area).

    Args:
        sample_rate: Hz.
        window: length of the spectrum's frames in samples.
        bands: number of triangles.
        low, high: Hz, where the first triangle begins and the last ends; half the sample rate
            where `high` is None.

    Returns:
        `(window // 2 + 1, bands)` float32.
    """
    high = sample_rate / 2 if high is None else high
    if not 0 <= low < high <= sample_rate / 2:
        raise ValueError(f"needs 0 <= low < high <= {sample_rate / 2} Hz, got {low} and {high}")
    first, last = (2595 * math.log10(1 + hz / 700) for hz in (low, high))
    mel = np.linspace(first, last, bands + 2)
    edges = 700 * (10 ** (mel / 2595) - 1)
    bins = np.arange(window // 2 + 1)[:, None] * (sample_rate / window)
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    rising, falling = (bins - left) / (centre - left), (right - bins) / (right - centre)
    matrix = np.maximum(0.0, np.minimum(rising, falling))
    if not matrix.any(0).all():
        empty = int(np.sum(~matrix.any(0)))
        raise ValueError(
            f"{empty} of {bands} mel bands hold no bin of a window of {window} samples: "
            "take fewer bands or a longer window"
        )
    return matrix.astype("float32")


def log_mel(
    x: Tensor,
    sample_rate: int,
    window: int | None = None,
    hop: int | None = None,
    bands: int = 80,
    low: float = 0.0,
    high: float | None = None,
) -> Tensor:
    """Natural logarithm of the magnitudes in mel bands: `ln(magnitudes · mel_matrix + FLOOR)`.

    Args:
        x: `(batch, samples)`.
        sample_rate: Hz.
        window: samples; by default the power of two nearest to 64 ms (1024 at 16 kHz).
        hop: samples; a quarter of the window by default.
        bands, low, high: as in `mel_matrix`.

    Returns:
        `(batch, samples // hop + 1, bands)` float32. A gain of 20 dB adds 2.3.
    """
    window = 2 ** round(math.log2(0.064 * sample_rate)) if window is None else window
    hop = window // 4 if hop is None else hop
    matrix = mel_matrix(sample_rate, window, bands, low, high)
    return ops.log(ops.matmul(magnitudes(x, window, hop), matrix) + FLOOR)


def multi_scale_distance(
    a: Tensor,
    b: Tensor,
    windows: tuple[int, ...] = (2048, 1024, 512, 256, 128, 64),
    lengths: Tensor | None = None,
) -> Tensor:
    """Distance of spectra at several resolutions in time and frequency.

    Engel et al. 2020 (DDSP, sec. 4.2.1), with means for norms and with hops of a quarter window:
    `mean over windows of (mean |A - B| + mean |ln(A + FLOOR) - ln(B + FLOOR)|)`, A and B being the
    magnitudes. The linear part hears peaks, the logarithmic one what is between and above them.

    Args:
        a, b: `(batch, samples)`.
        windows: samples, multiples of four. Those longer than a clip are left out, but for the
            shortest, before which it is followed by zeros.
        lengths: int32 `(batch,)`, in samples, where clips are padded: the distance is that of the
            clips alone, whatever follows them. None where they are not.

    Returns:
        `(batch,)` float32. It hears little of a small shift in time.

    Raises:
        ValueError: `a` and `b` differ in length.
    """
    _check_equal_lengths(a, b)
    samples = _samples(a)
    shortest = min(windows)
    possible = [w for w in windows if samples is None or w <= samples] or [shortest]
    if lengths is None:
        found = [_distance_at(*(magnitudes(x, w, w // 4) for x in (a, b))) for w in possible]
        if samples is not None:
            return sum(found) / len(found)
        lengths = ops.shape(a)[1]
    else:
        lengths = ops.cast(lengths, "int32")
        sides = [_Padded(x, lengths, shortest, max(possible)) for x in (a, b)]
        found = []
        for window in possible:
            hop = window // 4
            one, other = (side.magnitudes(window, hop) for side in sides)
            frames = ops.arange(ops.shape(one)[1], dtype="int32") <= lengths[:, None] // hop
            found.append(_distance_at(one, other, ops.cast(frames, "float32")))
    fits = [ops.cast((w <= lengths) | (w == shortest), "float32") for w in possible]
    return sum(f * d for f, d in zip(fits, found, strict=True)) / sum(fits)


class _Padded:
    """Padded clips whose frames are those of the clips alone.

    Args:
        x: `(batch, samples)`.
        lengths: int32 `(batch,)`.
        shortest, longest: of the windows, in samples. What is longer than a clip, and not the
            shortest, means nothing there.
    """

    def __init__(self, x: Tensor, lengths: Tensor, shortest: int, longest: int) -> None:
        x = _at_least(ops.cast(x, "float32"), longest // 2 + 1)
        samples, lengths = ops.shape(x)[1], lengths[:, None]
        self.samples = samples
        self.x = ops.where(ops.arange(samples, dtype="int32") < lengths, x, 0.0)
        # Each reflected at its own end.
        place = ops.arange(samples + longest // 2, dtype="int32")
        last = ops.maximum(lengths, shortest // 2 + 1) - 1
        place = ops.where(place <= last, place, 2 * last - place)
        place = ops.clip(place, 0, samples - 1)
        self.reflected = ops.take_along_axis(self.x, place, 1)

    def magnitudes(self, window: int, hop: int) -> Tensor:
        """As the function of this name; frames after a clip's end mean nothing."""
        half = window // 2
        before = ops.flip(self.x[:, 1 : half + 1], 1)
        whole = ops.concatenate([before, self.reflected[:, : self.samples + half]], 1)
        return _spectra(whole, window, hop)


def _distance_at(a: Tensor, b: Tensor, frames: Tensor | None = None) -> Tensor:
    return _distance(a, b, frames) + _distance(ops.log(a + FLOOR), ops.log(b + FLOOR), frames)


def _check_equal_lengths(a: Tensor, b: Tensor) -> None:
    if None not in (_samples(a), _samples(b)) and _samples(a) != _samples(b):
        raise ValueError(f"a and b differ in length: {_samples(a)} and {_samples(b)} samples")


def log_mel_distance(
    a: Tensor,
    b: Tensor,
    sample_rate: int,
    window: int | None = None,
    hop: int | None = None,
    bands: int = 80,
) -> Tensor:
    """Mean absolute difference of `log_mel`: `(batch,)` float32, in nats (one is 8.7 dB).

    Raises:
        ValueError: `a` and `b` differ in length.
    """
    _check_equal_lengths(a, b)
    return _distance(*(log_mel(x, sample_rate, window, hop, bands) for x in (a, b)))


def pitch(x: Tensor, sample_rate: int, hop: int, low: float = 60.0, high: float = 400.0) -> Tensor:
    """Pitch of a voice, from the autocorrelation of frames.

    Boersma 1993, "Accurate short-term analysis of the fundamental frequency and the
    harmonics-to-noise ratio of a sampled sound", without his search for a smooth path: the
    autocorrelation of a frame is divided by that of its Hann window, and the lag of its highest
    peak is the period. There is a voice where that peak is above `VOICED`, and the frame no more
    than 35 dB below the loudest of its clip.

    Args:
        x: `(batch, samples)`.
        sample_rate: Hz.
        hop: samples from frame to frame. Frame i is centred on those from `i * hop` on.
        low, high: Hz, between which a pitch is looked for.

    Returns:
        `(batch, samples // hop)` float32, Hz; 0 where there is no voice. It has no gradient.
    """
    if not 0 < low < high < sample_rate / 4:
        raise ValueError(f"needs 0 < low < high < {sample_rate / 4} Hz, got {low} and {high}")
    parts = max(1, -(-3 * sample_rate // round(low * hop)))  # three periods of the lowest
    window = parts * hop
    before = (window - hop) // 2
    x = ops.pad(ops.cast(x, "float32"), [[0, 0], [before, window - hop - before]])
    frames = _frames(x, window, hop)
    frames = (frames - ops.mean(frames, -1, keepdims=True)) * _hann(window)
    size = 2 ** math.ceil(math.log2(1.5 * window))
    power = _autocorrelation(frames, size)
    own = _autocorrelation_of_hann(window, size)
    shortest, longest = int(sample_rate / high), math.ceil(sample_rate / low)
    lags = np.arange(shortest - 1, longest + 2)  # one more on either side
    energy = power[..., :1]
    r = power[..., lags[0] : lags[-1] + 1] / (own[lags] * (energy + EPSILON))
    left, middle, right = r[..., :-2], r[..., 1:-1], r[..., 2:]
    is_peak = (middle >= left) & (middle >= right)
    # The vertex of the parabola through a peak and its neighbours.
    bend = ops.maximum(2.0 * middle - left - right, EPSILON)
    height = middle + ops.square(right - left) / (8.0 * bend)
    # Two periods are as alike as one: of equal peaks the shorter lag is meant.
    cost = (0.02 * np.log2(low * lags[1:-1] / sample_rate)).astype("float32")
    best = ops.argmax(ops.where(is_peak, height - cost, -1.0), -1)[..., None]
    shift = ops.clip((right - left) / (2.0 * bend), -1.0, 1.0)
    lag = shift + lags[1:-1].astype("float32")
    height, lag = (ops.take_along_axis(part, best, -1)[..., 0] for part in (height, lag))
    loudest = ops.max(energy, 1, keepdims=True)
    voiced = ops.any(is_peak, -1) & (height > VOICED) & (energy > 10**-3.5 * loudest)[..., 0]
    return ops.stop_gradient(ops.where(voiced, sample_rate / lag, 0.0))


def _autocorrelation(frames: Tensor, size: int) -> Tensor:
    """Of all lags up to half of `size`."""
    real, imaginary = ops.rfft(frames, size)
    power = ops.square(real) + ops.square(imaginary)
    return ops.irfft((power, ops.zeros_like(power)), size)[..., : size // 2]


@functools.cache
def _autocorrelation_of_hann(window: int, size: int) -> np.ndarray:
    r = np.fft.irfft(np.abs(np.fft.rfft(_hann(window), size)) ** 2)[: size // 2]
    return (np.maximum(r / r[0], EPSILON)).astype("float32")


def _distance(a: Tensor, b: Tensor, frames: Tensor | None = None) -> Tensor:
    """Mean over bins, and over those frames where `frames`, `(batch, frames)`, is 1."""
    if frames is None:
        return ops.mean(ops.abs(a - b), axis=(1, 2))
    return ops.sum(ops.mean(ops.abs(a - b), -1) * frames, -1) / ops.sum(frames, -1)


def _samples(x: Tensor) -> int | None:
    """Samples of a clip, where the shape says."""
    samples = tuple(x.shape)[-1]
    return samples if isinstance(samples, int) else None


@functools.cache
def _hann(window: int) -> np.ndarray:
    turns = np.arange(window) / window
    return (0.5 - 0.5 * np.cos(2 * np.pi * turns)).astype("float32")
