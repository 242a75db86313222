"""Sound files: what they are, whether they can be used, and how they become a waveform.

Two ways lead from a file to a float32 waveform at the wanted rate. tensorflow-io decodes and
resamples in the graph; its native ops load up to TensorFlow 2.17. soundfile and soxr do the same
in Python. Their decoders agree to the last bit or two; their resamplers agree below 0.8 of the
lower rate's Nyquist frequency to 1e-4 of full scale, and differ above in how soon they roll off.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import importlib
import math
import os
import pathlib
import struct
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

SUFFIXES = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3")

# A recording counts as clipped where more of its samples than this are at full scale.
CLIPPED_SHARE = 0.01
_FULL_SCALE = 0.999

# What tensorflow-io decodes, by libsndfile's names of format and subtype: how to call it, and the
# scale of its numbers. Place 0 is for all other kinds, which go through soundfile.
_NATIVE: list[tuple[tuple[str, str], str, dict[str, Any], float]] = [
    (("", ""), "", {}, 1.0),
    (("WAV", "PCM_16"), "decode_wav", {"dtype": tf.int16}, 2.0**15),
    (("WAV", "PCM_24"), "decode_wav", {"dtype": tf.int32}, 2.0**31),
    (("WAV", "FLOAT"), "decode_wav", {"dtype": tf.float32}, 1.0),
    (("FLAC", "PCM_16"), "decode_flac", {"dtype": tf.int16}, 2.0**15),
    (("FLAC", "PCM_24"), "decode_flac", {"dtype": tf.int32}, 2.0**31),
    (("OGG", "VORBIS"), "decode_vorbis", {}, 1.0),
    (("MP3", "MPEG_LAYER_III"), "decode_mp3", {}, 1.0),
]
_KINDS = {names: number for number, (names, *_) in enumerate(_NATIVE)}


@dataclasses.dataclass(frozen=True)
class SoundFile:
    """What the header of a file says, and what was found wrong with the rest.

    Attributes:
        path: the file.
        rate: samples per second.
        channels: 1 for mono.
        frames: samples of one channel; after trimming where that was asked for.
        kind: how tensorflow-io decodes it, 0 if not.
        problem: why it cannot be used, or "".
    """

    path: pathlib.Path
    rate: int = 1
    channels: int = 1
    frames: int = 0
    kind: int = 0
    problem: str = ""


def import_extra(name: str) -> Any:
    """A module of the extra `audio`.

    Raises:
        ImportError: it is not installed; the message says how to install it.
    """
    try:
        return importlib.import_module(name)
    except (ImportError, OSError) as error:  # OSError: soundfile does not find its library
        raise ImportError(
            f'Sound files need {name}: pip install "keras_vqvae[audio]" ({error})'
        ) from error


@functools.cache
def native_problem() -> str:
    """Why tensorflow-io cannot decode here, or "" if it can; found out once."""
    header = (
        b"RIFF\x26\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0\x80\x3e\0\0\0\x7d\0\0\2\0\x10\0data\2\0\0\0\0\0"
    )
    try:
        tfio = importlib.import_module("tensorflow_io")
        # Importing works with any TensorFlow; only a call tells.
        with tf.device("CPU"):
            tfio.audio.decode_wav(tf.constant(header), dtype=tf.int16)
    except ImportError:
        return "it is not installed"
    except Exception as error:  # NotImplementedError, but who knows of later versions
        return f"its native ops do not load with TensorFlow {tf.__version__} ({error})"
    return ""


def choose_decoder(decoder: str) -> bool:
    """Whether to decode with tensorflow-io.

    Raises:
        ValueError: `decoder` is none of the three.
        ImportError: tensorflow-io is asked for and does not work here.
    """
    if decoder not in ("auto", "tensorflow-io", "soundfile"):
        raise ValueError(
            f'`decoder` must be "auto", "tensorflow-io" or "soundfile", got {decoder!r}.'
        )
    import_extra("soundfile")  # reads the headers in any case
    if decoder == "tensorflow-io" and native_problem():
        raise ImportError(
            f"`decoder` tensorflow-io cannot be used: {native_problem()}. It needs TensorFlow up "
            'to 2.17; `decoder="soundfile"` works with all.'
        )
    return decoder != "soundfile" and not native_problem()


# Looking at files.


def inspect(
    paths: Sequence[pathlib.Path], *, whole: bool, trim: Callable | None = None
) -> list[SoundFile]:
    """Looks at files, several at a time.

    Args:
        paths: the files.
        whole: whether to decode them, which finds damage, NaN and clipping; else headers only.
        trim: from (waveform, rate) to the trimmed waveform.
    """
    import_extra("soundfile")
    look = functools.partial(_inspect, whole=whole, trim=trim)
    progress = keras.utils.Progbar(len(paths), unit_name="file", interval=1)
    found = []
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for file in pool.map(look, paths):
            found.append(file)
            if len(found) % 1024 == 0:  # few files take no time
                progress.update(len(found))
    return found


def _inspect(path: pathlib.Path, *, whole: bool, trim: Callable | None) -> SoundFile:
    soundfile = import_extra("soundfile")
    try:
        with soundfile.SoundFile(path) as stream:
            name = "WAV" if stream.format == "WAVEX" else stream.format
            kind = _KINDS.get((name, stream.subtype), 0)
            file = SoundFile(path, stream.samplerate, stream.channels, stream.frames, kind)
            if not whole or file.frames == 0:
                return file
            samples = stream.read(dtype="float32", always_2d=True)
            if name == "WAV":
                _check_riff(path)
    except (OSError, RuntimeError) as error:  # soundfile's own errors are RuntimeErrors
        said = str(error).replace(f"Error opening {str(path)!r}: ", "").strip()
        return SoundFile(path, problem=f"cannot be read ({said})")
    if len(samples) < file.frames:
        problem = f"cannot be read (is cut off: {len(samples)} of {file.frames} samples)"
        return dataclasses.replace(file, problem=problem)
    problem = problem_of(samples)
    frames = file.frames
    if trim is not None and not problem:
        frames = len(trim(samples.mean(axis=1), file.rate))
    return dataclasses.replace(file, frames=frames, problem=problem)


def _check_riff(path: pathlib.Path) -> None:
    """libsndfile takes what there is of a WAV file that was cut off; other decoders may not."""
    with path.open("rb") as stream:
        name, size = struct.unpack("<4sI", stream.read(8))
    there = path.stat().st_size - 8
    # Of a stream whose length was not known the size is 0 or all ones.
    if name == b"RIFF" and there + 1 < size < 0xFFFFFF00:  # some count a byte of padding
        raise OSError(f"is cut off: its header says {size} bytes, there are {there}")


def problem_of(samples: np.ndarray) -> str:
    """What is wrong with samples in [-1, 1], or with int16 ones; "" if nothing is."""
    if samples.dtype != np.int16 and not np.isfinite(samples).all():
        return "holds NaN or infinite samples"
    limit = int(_FULL_SCALE * 32768) if samples.dtype == np.int16 else _FULL_SCALE
    loud = np.count_nonzero(samples >= limit) + np.count_nonzero(samples <= -limit)
    share = loud / max(samples.size, 1)
    if share > CLIPPED_SHARE:
        return f"is clipped: {share:.1%} of its samples are at full scale or beyond"
    return ""


# From a file to a waveform.


def length_at(frames: int, rate: int, wanted: int) -> int:
    """How many samples there are after resampling: rounded, halves upwards."""
    return (2 * frames * wanted + rate) // (2 * rate)


def read_samples(path: str | os.PathLike, sample_rate: int | None) -> np.ndarray:
    """float32 `(samples,)` by soundfile and soxr; channels are averaged."""
    samples, rate = import_extra("soundfile").read(path, dtype="float32", always_2d=True)
    mono = samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1)
    if sample_rate is None or rate == sample_rate:
        return mono
    return resample(mono, rate, sample_rate)


def resample(waveform: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    """float32 `(samples,)` at another rate, by soxr."""
    resampled = import_extra("soxr").resample(waveform, rate, wanted)
    return _to_length(resampled, length_at(len(waveform), rate, wanted))


def _to_length(samples: np.ndarray, length: int) -> np.ndarray:
    samples = samples[:length]
    return np.pad(samples, (0, length - len(samples)))


def native_delay(rate: int, wanted: int) -> tuple[int, int, int]:
    """What makes up for the delay of tensorflow-io's resampler.

    It is Speex's of quality 4, a filter of 64 samples, more where the rate goes down, by half of
    which it delays. That is no whole number of the new samples in general: silence is put in
    front so that it is one.

    Returns:
        `(front, behind, skip)`: samples of silence to put in front and behind, so that the
        filter's tail comes out as well, and new samples to leave out.
    """
    divisor = math.gcd(rate, wanted)
    old, new = rate // divisor, wanted // divisor
    taps = 64
    if old > new:  # as speex_resampler does it: a multiple of 8
        taps = ((taps * old // new - 1) & ~7) + 8
    front = -(taps // 2) % old
    return front, taps + old, (taps // 2 + front) * new // old


@tf.autograph.experimental.do_not_convert  # it would look into the import
def native_resample(waveform: tf.Tensor, rate, wanted: int, delay, length) -> tf.Tensor:
    """`resample` in the graph: float32 `(samples,)`.

    Args:
        waveform: float32 `(samples,)`.
        rate: its own; an integer or a scalar tensor.
        wanted: the new rate.
        delay: see `native_delay`; three integers or an int32 tensor `(3,)`.
        length: see `length_at`.
    """
    tfio = importlib.import_module("tensorflow_io")
    front, behind, skip = delay[0], delay[1], delay[2]
    padded = tf.pad(waveform, [[front, behind]])[:, None]
    rate = tf.cast(rate, tf.int64)
    resampled = tfio.audio.resample(padded, rate, tf.constant(wanted, tf.int64))[:, 0]
    return resampled[skip : skip + length]


def native_columns(files: Sequence[SoundFile], sample_rate: int) -> dict[str, np.ndarray]:
    """What `load` needs to know of each file."""
    delays = {rate: native_delay(rate, sample_rate) for rate in {file.rate for file in files}}
    return {
        "path": np.array([str(file.path) for file in files]),
        "kind": np.array([file.kind for file in files], np.int32),
        "rate": np.array([file.rate for file in files], np.int32),
        "delay": np.array([delays[file.rate] for file in files], np.int32),
    }


def loader(files: Sequence[SoundFile], sample_rate: int, native: bool) -> Callable:
    """A function for `Dataset.map`, from a row of `native_columns` to a waveform.

    Returns:
        A function to float32 `(samples,)` at `sample_rate`, channels averaged.
    """

    def by_soundfile(row):
        def read(path):
            try:
                return read_samples(path.decode(), sample_rate)
            except (OSError, RuntimeError) as error:
                raise ValueError(f"{path.decode()} cannot be read: {error}") from error

        return tf.ensure_shape(tf.numpy_function(read, [row["path"]], tf.float32), (None,))

    if not native:
        return by_soundfile
    tfio = importlib.import_module("tensorflow_io")

    def by_native(row, kind):
        _, function, arguments, scale = _NATIVE[kind]
        decoded = getattr(tfio.audio, function)(tf.io.read_file(row["path"]), **arguments)
        waveform = tf.reduce_mean(tf.cast(decoded, tf.float32) / scale, axis=-1)
        if {file.rate for file in files} == {sample_rate}:
            return waveform
        rate, length = row["rate"], tf.shape(waveform, tf.int64)[0]
        wide = tf.cast(rate, tf.int64)
        length = tf.cast((2 * length * sample_rate + wide) // (2 * wide), tf.int32)
        return tf.cond(
            rate == sample_rate,
            lambda: waveform,
            lambda: native_resample(waveform, rate, sample_rate, row["delay"], length),
        )

    kinds = sorted({file.kind for file in files})

    def by_kind(row):
        branches = [
            functools.partial(by_native, row, kind)
            if kind
            else functools.partial(by_soundfile, row)
            for kind in kinds
        ]
        place = tf.argmax(tf.cast(tf.constant(kinds) == row["kind"], tf.int32))
        waveform = tf.switch_case(tf.cast(place, tf.int32), branches)
        return tf.ensure_shape(waveform, (None,))

    return by_kind
