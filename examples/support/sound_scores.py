"""Reconstruction quality of sound, and two codecs to compare with."""

import fractions
import io
from collections.abc import Callable, Mapping, Sequence

import keras
import numpy as np

from keras_vqvae import functional, spectral

# Opus at its lowest: 6 kb/s, and frames of 60 ms, which spend least on headers.
OPUS_BITS_PER_SECOND = 6000

# Opus drops what is above 4 kHz at that rate: over a wider band a distance from its output would
# measure the bandwidth and little else.
COMPARED_RATE = 8000


def log_mel(original: np.ndarray, sound: np.ndarray, sample_rate: int) -> float:
    """`spectral.log_mel_distance` of two clips `(samples,)`, in nats; one nat is 8.7 dB."""
    return _of_clip(lambda a, b: spectral.log_mel_distance(a, b, sample_rate), original, sound)


def multi_scale(original: np.ndarray, sound: np.ndarray) -> float:
    """`spectral.multi_scale_distance` of two clips `(samples,)`."""
    return _of_clip(spectral.multi_scale_distance, original, sound)


def in_band(waveform: np.ndarray, sample_rate: int) -> np.ndarray:
    """A clip at 8 kHz, which holds what is below 4 kHz and nothing else."""
    import soxr

    return soxr.resample(waveform, sample_rate, COMPARED_RATE)


def buzz(waveform: np.ndarray, sample_rate: int, codes_per_second: float) -> float | None:
    """Power at multiples of the code rate over that halfway between them, above 2 kHz, in dB.

    A decoder repeats what it makes of a code with every code that is the same, which is heard as a
    buzz. Recorded speech has about 0 dB; silence has None. Clips should last a second or more.
    """
    power = np.abs(np.fft.rfft(waveform * np.hanning(len(waveform)))) ** 2
    hertz = np.fft.rfftfreq(len(waveform), 1 / sample_rate)
    multiples = np.arange(2000 // codes_per_second + 1, sample_rate / 2 // codes_per_second)

    def near(centres: np.ndarray) -> float:
        return sum(power[np.abs(hertz - centre) <= 1].mean() for centre in centres)

    on, between = (near((multiples + shift) * codes_per_second) for shift in (0, 0.5))
    return float(10 * np.log10(on / between)) if on and between else None


def pitch_error(
    originals: Sequence[np.ndarray], sounds: Sequence[np.ndarray], sample_rate: int
) -> float | None:
    """Median difference of pitch in semitones, where both clips of a pair are voiced.

    It is None where no frame is voiced in both.
    """
    differences = []
    for pair in zip(originals, sounds, strict=True):
        before, after = (
            keras.ops.convert_to_numpy(spectral.pitch(x[None], sample_rate, sample_rate // 100))[0]
            for x in pair
        )
        voiced = (before > 0) & (after > 0)
        differences.append(np.abs(12 * np.log2(after[voiced] / before[voiced])))
    together = np.concatenate(differences)
    return float(np.median(together)) if len(together) else None


def hold(waveform: np.ndarray, factor: int = 64) -> np.ndarray:
    """Means of `factor` samples in 8-bit mu-law, each held for `factor` samples."""
    samples = len(waveform)
    whole = np.pad(waveform, (0, -samples % factor), mode="edge").reshape(-1, factor).mean(1)
    levels = functional.mu_law_decode(functional.mu_law_encode(whole.astype("float32")))
    return np.repeat(keras.ops.convert_to_numpy(levels), factor)[:samples]


def opus(
    waveform: np.ndarray, sample_rate: int, bits_per_second: int = OPUS_BITS_PER_SECOND
) -> tuple[np.ndarray, int]:
    """A clip through Opus, as long as before and in time with it.

    Args:
        waveform: float32 `(samples,)` in [-1, 1].
        sample_rate: 8000, 12000, 16000, 24000 or 48000 Hz, the rates that Opus takes.
        bits_per_second: what the encoder is asked for; the lowest is 6000.

    Returns:
        the clip, and the bytes of its packets (those of the container not counted).
    """
    import av
    import soxr

    pcm = np.round(np.clip(waveform, -1, 1) * 32767).astype("int16")
    frame = av.AudioFrame.from_ndarray(pcm[None], format="s16", layout="mono")
    frame.sample_rate, frame.pts = sample_rate, 0
    frame.time_base = fractions.Fraction(1, sample_rate)
    buffer, num_bytes = io.BytesIO(), 0
    with av.open(buffer, "w", format="ogg") as container:
        options = {"application": "voip", "frame_duration": "60"}
        stream = container.add_stream("libopus", rate=sample_rate, options=options)
        stream.bit_rate, stream.layout = bits_per_second, "mono"
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            num_bytes += packet.size
            container.mux(packet)
    buffer.seek(0)
    with av.open(buffer) as container:
        # The container says how much the codec is late and where the clip ends, and the decoder
        # leaves both out. Opus always decodes to 48 kHz.
        decoded = np.concatenate([f.to_ndarray()[0] for f in container.decode(audio=0)])
        rate = container.streams.audio[0].rate
    sound = soxr.resample(decoded, rate, sample_rate)[: len(waveform)]
    return np.pad(sound, (0, len(waveform) - len(sound))).astype("float32"), num_bytes


def compare(
    originals: Sequence[np.ndarray],
    reconstructions: Mapping[str, Sequence[np.ndarray]],
    sample_rate: int,
    bits_per_second: Mapping[str, float] | None = None,
) -> tuple[dict[str, dict[str, float]], dict[str, list[np.ndarray]]]:
    """Distances of reconstructions, of held samples and of Opus, from the originals below 4 kHz.

    Args:
        originals: clips `(samples,)`, not of one length.
        reconstructions: by name of the model, one for each original and in time with it; the
            longer of the two is cut.
        sample_rate: Hz.
        bits_per_second: of the models, where known.

    Returns:
        figures by codec, `log_mel below 4 kHz` and `multi_scale below 4 kHz` (means over the
        clips' time) and `bits_per_second`, and clips by codec.
    """
    seconds = sum(map(len, originals)) / sample_rate
    if not seconds:
        raise ValueError("`originals` must hold sound, got no sample.")
    coded = [opus(x, sample_rate) for x in originals]
    sounds = {name: list(clips) for name, clips in reconstructions.items()}
    sounds |= {"8-bit, held for 64": [hold(x) for x in originals], "Opus": [x for x, _ in coded]}
    rates = dict(bits_per_second or {})
    rates |= {
        "8-bit, held for 64": 8 * sample_rate / 64,
        "Opus": 8 * sum(num_bytes for _, num_bytes in coded) / seconds,
    }
    figures = {}
    lengths = [len(x) for x in originals]
    compared = [in_band(x, sample_rate) for x in originals]
    for name, clips in sounds.items():
        pairs = list(zip(compared, (in_band(x, sample_rate) for x in clips), strict=True))
        distances = {
            "log_mel below 4 kHz": [log_mel(*pair, COMPARED_RATE) for pair in pairs],
            "multi_scale below 4 kHz": [multi_scale(*pair) for pair in pairs],
        }
        figures[name] = {k: float(np.average(v, weights=lengths)) for k, v in distances.items()}
        if name in rates:
            figures[name]["bits_per_second"] = float(rates[name])
    return figures, sounds


def _of_clip(distance: Callable, original: np.ndarray, sound: np.ndarray) -> float:
    samples = min(len(original), len(sound))
    pair = (keras.ops.convert_to_tensor(x[None, :samples], "float32") for x in (original, sound))
    return float(distance(*pair)[0])
