"""Sound files: what they are, whether they can be used, and how they become a waveform.

Two ways lead from a file to a float32 waveform at the wanted rate. tensorflow-io decodes and
resamples in the graph; its native ops load up to TensorFlow 2.17. soundfile and soxr do the same
in Python. Their decoders agree to the last bit or two; their resamplers agree below 0.7 of the
lower rate's Nyquist frequency to 1e-4 of full scale, and differ above in how soon they roll off.

The first is the faster one for WAV that is not resampled, the second for all else (figures in
docs/input.md), and each file takes its faster way unless one is asked for.
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

from keras_vqvae.data import audio_headers, extras

SUFFIXES = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3")

# A recording counts as clipped where more of its samples than this are at full scale.
CLIPPED_SHARE = 0.01
# What is decoded of MP3 and Ogg overshoots full scale a little; more is another scale.
MOST_OVERSHOOT = 1.5
FULL_SCALE = 0.999
_UNKNOWN = 2**31 - 1
# Of an unknown number libsndfile makes the greatest of 64 bits.
_MOST_FRAMES = 2**48

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
        frames: samples of one channel.
        slack: so many more or less than `frames` may be decoded: none but of MP3.
        kept: what trimming leaves of `frames`.
        kind: how tensorflow-io decodes it, 0 if not.
        can_jump: whether soundfile decodes a part of it as it decodes the whole.
        problem: why it cannot be used, or "".
    """

    path: pathlib.Path
    rate: int = 1
    channels: int = 1
    frames: int = 0
    slack: int = 0
    kept: int = 0
    kind: int = 0
    can_jump: bool = False
    problem: str = ""


def import_extra(name: str) -> Any:
    """A module of the extra `audio`.

    Raises:
        ImportError: it is not installed; the message says how to install it.
    """
    return extras.import_extra(name, "Sound files")


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


def check_decoder(decoder: str) -> None:
    """Whether there is such a decoder, and works here.

    Raises:
        ValueError: `decoder` is none of the three.
        ImportError: tensorflow-io is asked for and does not work here, or there is no soundfile.
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


def by_decoder(files: Sequence[SoundFile], sample_rate: int, decoder: str) -> list[SoundFile]:
    """The files, with `kind` 0 where they are to go through soundfile."""

    def is_native(file: SoundFile) -> bool:
        if decoder == "auto":
            wanted = _NATIVE[file.kind][1] == "decode_wav" and file.rate == sample_rate
        else:
            wanted = decoder == "tensorflow-io"
        return wanted and not native_problem()

    return [file if is_native(file) else dataclasses.replace(file, kind=0) for file in files]


# Looking at files.


def inspect(
    paths: Sequence[pathlib.Path],
    *,
    whole: bool,
    trim: Callable | None = None,
    clipped: str = "refuse",
) -> list[SoundFile]:
    """Looks at files, several at a time.

    Args:
        paths: the files.
        whole: whether to decode them, which finds damage, NaN and clipping; else headers only.
        trim: from (waveform, rate) to the trimmed waveform.
        clipped: `"refuse"` or `"allow"`, see `problem_of`.
    """
    import_extra("soundfile")
    look = functools.partial(_inspect, whole=whole, trim=trim, clipped=clipped)
    progress = keras.utils.Progbar(len(paths), unit_name="file", interval=1)
    found = []
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for file in pool.map(look, paths):
            found.append(file)
            if len(found) % 1024 == 0:  # few files take no time
                progress.update(len(found))
    return found


def _inspect(path: pathlib.Path, *, whole: bool, trim: Callable | None, clipped: str) -> SoundFile:
    soundfile = import_extra("soundfile")
    try:
        if path.stat().st_size == 0:
            raise OSError("is empty")
        with soundfile.SoundFile(path) as stream:
            name = "WAV" if stream.format == "WAVEX" else stream.format
            frames = stream.frames
            if frames > _MOST_FRAMES:
                raise OSError(
                    "does not say how long it is, as encoders leave it that write to a pipe; "
                    "ffmpeg -i old.flac new.flac adds that"
                )
            file = SoundFile(
                path,
                stream.samplerate,
                stream.channels,
                frames,
                # How long an MP3 file is may be known only when it is decoded.
                slack=_UNKNOWN if name == "MP3" else 0,
                kept=frames,
                kind=_KINDS.get((name, stream.subtype), 0),
                can_jump=name in ("WAV", "FLAC"),
            )
            if name == "WAV":
                audio_headers.check_whole(path)
                if file.kind and not audio_headers.is_plain(path, frames):
                    file = dataclasses.replace(file, kind=0)
            elif name == "OGG":
                audio_headers.check_whole_ogg(path)
            if not whole or frames == 0:
                return file
            samples = stream.read(dtype="float32", always_2d=True)
            if name == "MP3":
                file = dataclasses.replace(file, slack=_slack(len(samples)))
                _check_mp3(len(samples), frames, path)
            elif len(samples) < frames:
                raise OSError(f"is cut off: {len(samples)} of {frames} samples")
    except (OSError, RuntimeError, struct.error) as error:  # soundfile's own are RuntimeErrors
        said = str(error).replace(f"Error opening {str(path)!r}: ", "").strip()
        return SoundFile(path, problem=f"cannot be read ({said})")
    problem = problem_of(samples, clipped)
    kept = len(samples)
    if trim is not None and not problem:
        kept = len(trim(samples.mean(axis=1), file.rate))
    return dataclasses.replace(file, frames=len(samples), kept=kept, problem=problem)


def _slack(samples: int) -> int:
    """By how much the decoders of an MP3 file may differ: in whether they drop its first frames.

    They hold the encoder's delay. Where no header says so, neither is the last frame cut.
    """
    return max(3 * 1152, samples // 100)


def _check_mp3(samples: int, frames: int, path: pathlib.Path) -> None:
    """Whether libsndfile read it all: its `frames` are a guess where no header tells them."""
    there, is_told = audio_headers.mp3_samples(path)
    if is_told and samples < frames - _slack(frames):
        raise OSError(f"is cut off: {samples} of {frames} samples")
    if not is_told and samples < there - _slack(there):
        raise OSError(
            f"libsndfile reads {samples} of {there} samples of an MP3 file of variable bit rate "
            "that does not say how long it is; ffmpeg -i old.mp3 -c copy new.mp3 adds that"
        )


def problem_of(samples: np.ndarray, clipped: str = "refuse") -> str:
    """What is wrong with samples in [-1, 1], or with int16 ones; "" if nothing is.

    Samples at full scale are wrong where there are many, unless `clipped` is `"allow"`.
    """
    if samples.dtype != np.int16 and not np.isfinite(samples).all():
        return "holds NaN or infinite samples"
    if clipped == "allow":
        return ""
    if samples.dtype != np.int16 and samples.size and np.abs(samples).max() > MOST_OVERSHOOT:
        return (
            f"has samples of size up to {np.abs(samples).max():g}, far beyond full scale, which is "
            '1 (clipped="allow" cuts them)'
        )
    limit = int(FULL_SCALE * 32768) if samples.dtype == np.int16 else FULL_SCALE
    loud = np.count_nonzero(samples >= limit) + np.count_nonzero(samples <= -limit)
    share = loud / max(samples.size, 1)
    if share > CLIPPED_SHARE:
        return (
            f"is clipped: {share:.1%} of its samples are at full scale or beyond "
            '(clipped="allow" takes it)'
        )
    return ""


# From a file to a waveform.


def length_at(frames: int, rate: int, wanted: int) -> int:
    """How many samples there are after resampling: rounded, halves upwards."""
    return (2 * frames * wanted + rate) // (2 * rate)


def read_samples(
    path: str | os.PathLike, sample_rate: int | None, start: int = 0, count: int = -1
) -> np.ndarray:
    """float32 `(samples,)` by soundfile and soxr; channels are averaged.

    Args:
        path: the file.
        sample_rate: in Hz; None for the file's own.
        start: the first sample to read, in the file's own rate.
        count: how many to read, if there are so many; -1 for all.

    Raises:
        OSError, RuntimeError: the file cannot be read, or ends before its header says.
    """
    with import_extra("soundfile").SoundFile(path) as stream:
        rate, there = stream.samplerate, stream.frames - start
        wanted = there if count < 0 else min(count, there)
        if start:
            stream.seek(start)
        samples = stream.read(wanted, dtype="float32", always_2d=True)
        if len(samples) < wanted and stream.format != "MP3":
            raise OSError(f"is cut off: {len(samples)} of {wanted} samples")
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


def columns(files: Sequence[SoundFile], sample_rate: int) -> dict[str, np.ndarray]:
    """What `loader` needs to know of each file."""
    delays = {rate: native_delay(rate, sample_rate) for rate in {file.rate for file in files}}
    jumps = [file.can_jump and not file.kind and file.rate == sample_rate for file in files]
    return {
        "path": np.array([str(file.path) for file in files]),
        "kind": np.array([file.kind for file in files], np.int32),
        "rate": np.array([file.rate for file in files], np.int32),
        "frames": np.array([file.frames for file in files], np.int64),
        "slack": np.array([file.slack for file in files], np.int64),
        "jumps": np.array(jumps),
        "delay": np.array([delays[file.rate] for file in files], np.int32),
    }


def loader(files: Sequence[SoundFile], sample_rate: int) -> Callable:
    """A function for `Dataset.map`, from a row of `columns` to a waveform.

    A row may say which part of the file is wanted, `start` and `count`: where its `jumps` is true.

    Returns:
        A function to float32 `(samples,)` at `sample_rate`, channels averaged.
    """

    def by_soundfile(row):
        def read(path, start, count):
            try:
                return read_samples(path.decode(), sample_rate, int(start), int(count))
            except (OSError, RuntimeError) as error:
                raise ValueError(f"{path.decode()} cannot be read: {error}") from error

        part = [row["path"], row.get("start", 0), row.get("count", -1)]
        return tf.ensure_shape(tf.numpy_function(read, part, tf.float32), (None,))

    if not any(file.kind for file in files):
        return by_soundfile
    tfio = importlib.import_module("tensorflow_io")

    def by_native(row, kind):
        _, function, arguments, scale = _NATIVE[kind]
        decoded = getattr(tfio.audio, function)(tf.io.read_file(row["path"]), **arguments)
        waveform = tf.reduce_mean(tf.cast(decoded, tf.float32) / scale, axis=-1)
        length = tf.shape(waveform, tf.int64)[0]
        with tf.control_dependencies([_assert_whole(row, length)]):
            waveform = tf.identity(waveform)
        if {file.rate for file in files} == {sample_rate}:
            return waveform
        rate, wide = row["rate"], tf.cast(row["rate"], tf.int64)
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


def _assert_whole(row: dict, length: tf.Tensor) -> tf.Operation:
    """tensorflow-io gives what it understands of a file, which may be nothing."""
    missed = tf.abs(length - row["frames"]) > row["slack"]
    got, there = tf.strings.as_string(length), tf.strings.as_string(row["frames"])
    said = tf.strings.join(
        [row["path"], ": tensorflow-io decodes ", got, " of ", there, " samples"]
    )
    return tf.debugging.Assert(~(missed | (length == 0)), [said])
