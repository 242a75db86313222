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
import contextlib
import dataclasses
import functools
import importlib
import io
import math
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_vqvae.data import audio_headers, extras
from keras_vqvae.paths import shown

SUFFIXES = (
    ".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au", ".caf", ".w64"
)  # fmt: skip
# Of texts and labels that belong to sound files.
BESIDE = (".txt", ".csv", ".json", ".jsonl", ".lab", ".textgrid")

# A recording counts as clipped where more of its samples than this are at full scale.
CLIPPED_SHARE = 0.01
# What is decoded of MP3 and Ogg overshoots full scale a little; more is another scale.
MOST_OVERSHOOT = 1.5
FULL_SCALE = 0.999
# libsndfile reports 2**63 - 1 frames if the length is unknown.
_MOST_FRAMES = 2**48
# In Hz. Beyond are damaged headers, from which resampling would make clips without end or of none.
_RATES = (100, 10_000_000)

# What tensorflow-io decodes, by libsndfile's names of format and subtype: how to call it, and the
# scale of its numbers. Place 0 is for all other kinds, which go through soundfile; so does MP3, of
# which tensorflow-io gives other numbers of samples and an error where a tag follows the sound.
_NATIVE: list[tuple[tuple[str, str], str, dict[str, Any], float]] = [
    (("", ""), "", {}, 1.0),
    (("WAV", "PCM_16"), "decode_wav", {"dtype": tf.int16}, 2.0**15),
    (("WAV", "PCM_24"), "decode_wav", {"dtype": tf.int32}, 2.0**31),
    (("WAV", "FLOAT"), "decode_wav", {"dtype": tf.float32}, 1.0),
    (("FLAC", "PCM_16"), "decode_flac", {"dtype": tf.int16}, 2.0**15),
    (("FLAC", "PCM_24"), "decode_flac", {"dtype": tf.int32}, 2.0**31),
    (("OGG", "VORBIS"), "decode_vorbis", {}, 1.0),
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
        kept: what trimming leaves of `frames`.
        kind: how tensorflow-io decodes it, 0 if not.
        can_jump: whether soundfile decodes a part of it as it decodes the whole.
        is_mended: whether libsndfile reads it whole only after its header was mended.
        is_lost_by_mixing: whether averaging its channels takes half of its level or more.
        problem: why it cannot be used, or "".
    """

    path: pathlib.Path
    rate: int = 1
    channels: int = 1
    frames: int = 0
    kept: int = 0
    kind: int = 0
    can_jump: bool = False
    is_mended: bool = False
    is_lost_by_mixing: bool = False
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
        # TensorFlow's errors cannot hold a name that is not UTF-8.
        return wanted and not native_problem() and shown(file.path) == str(file.path)

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
    try:
        with _named(path):
            return _look(path, whole=whole, trim=trim, clipped=clipped)
    except UnreadableError as error:
        return SoundFile(path, problem=error.problem)


def _look(path: pathlib.Path, *, whole: bool, trim: Callable | None, clipped: str) -> SoundFile:
    if path.stat().st_size == 0:
        raise OSError("is empty")
    content = audio_headers.readable(path)
    with _open(path, content) as stream:
        name = "WAV" if stream.format == "WAVEX" else stream.format
        frames, subtype = stream.frames, stream.subtype
        if name not in ("WAV", "RF64"):
            audio_headers.check_header(path, name, stream.extra_info)
        if frames > _MOST_FRAMES:
            raise OSError(
                "does not say how long it is, as encoders leave it that write to a pipe; "
                "ffmpeg -i old.flac new.flac adds that"
            )
        if not _RATES[0] <= stream.samplerate <= _RATES[1]:
            raise OSError(f"has a sample rate of {stream.samplerate} Hz")
        kind = _KINDS.get((name, subtype), 0)
        if name == "WAV":
            kind = kind if audio_headers.is_plain(path, frames) else 0
        elif not whole:  # tensorflow-io's error does not name a file that is damaged
            kind = 0
        file = SoundFile(
            path,
            stream.samplerate,
            stream.channels,
            frames,
            kept=frames,
            kind=kind,
            can_jump=name in ("WAV", "FLAC") and content is None and stream.seekable(),
            is_mended=content is not None,
        )
        if not whole or frames == 0:
            return file
        samples = stream.read(frames, dtype="float32", always_2d=True)
    audio_headers.check_decoded(path, name, len(samples), frames)
    problem = problem_of(samples, clipped)
    kept = len(samples)
    if trim is not None and not problem:
        kept = len(trim(samples.mean(axis=1), file.rate))
    return dataclasses.replace(
        file,
        frames=len(samples),
        kept=kept,
        is_lost_by_mixing=_is_lost_by_mixing(samples),
        problem=problem,
    )


class UnreadableError(ValueError):
    """A file cannot be read, of whatever class the error is that a decoder raises for it."""

    def __init__(self, path: str | os.PathLike, error: Exception) -> None:
        said = str(error).replace(f"Error opening {_for_soundfile(path)!r}: ", "").strip()
        self.problem = f"cannot be read ({said or type(error).__name__})"
        super().__init__(f"{shown(path)} {self.problem}")


@contextlib.contextmanager
def _named(path: str | os.PathLike) -> Iterator[None]:
    """The one place where errors of decoders become errors that name the file."""
    try:
        yield
    except ImportError:  # says what to install
        raise
    except Exception as error:
        raise UnreadableError(path, error) from error


def _open(path: str | os.PathLike, content: io.BytesIO | None) -> Any:
    return import_extra("soundfile").SoundFile(content or _for_soundfile(path))


def _for_soundfile(path: str | os.PathLike) -> str | bytes:
    # It encodes a str strictly, and a name on Linux may be of any bytes.
    return os.fsencode(path) if os.name == "posix" else os.fspath(path)


def _is_lost_by_mixing(samples: np.ndarray) -> bool:
    """Whether averaging channels, `(samples, channels)`, halves the level of the loudest."""
    if samples.shape[1] == 1:
        return False
    energies = np.square(samples).sum(axis=0)
    return bool(np.square(samples.mean(axis=1)).sum() <= 0.26 * energies.max() > 0)


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
    path: str | os.PathLike,
    sample_rate: int | None,
    start: int = 0,
    count: int = -1,
    *,
    is_mended: bool = False,
    is_checked: bool = True,
) -> np.ndarray:
    """float32 `(samples,)` by soundfile and soxr; channels are averaged.

    Args:
        path: the file.
        sample_rate: in Hz; None for the file's own.
        start: the first sample to read, in the file's own rate.
        count: how many to read, if there are so many; -1 for all.
        is_mended: as `SoundFile.is_mended`.
        is_checked: whether the file is known to be whole.

    Raises:
        UnreadableError: the file cannot be read, ends before its header says, or, where it is not
            checked and read as a whole, holds more.
    """
    with _named(path):
        content = audio_headers.readable(pathlib.Path(path)) if is_mended else None
        with _open(path, content) as stream:
            rate, kind, there = stream.samplerate, stream.format, stream.frames - start
            wanted = there if count < 0 else min(count, there)
            if start:
                stream.seek(start)
            samples = stream.read(wanted, dtype="float32", always_2d=True)
        if count < 0 and not is_checked:
            audio_headers.check_decoded(pathlib.Path(path), kind, len(samples), wanted)
        elif len(samples) < wanted and kind != "MP3":
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
    sizes = [os.path.getsize(file.path) if file.kind else 0 for file in files]
    return {
        "path": np.array([os.fsencode(file.path) for file in files]),
        "name": np.array([shown(file.path) for file in files]),
        "kind": np.array([file.kind for file in files], np.int32),
        "rate": np.array([file.rate for file in files], np.int32),
        "frames": np.array([file.frames for file in files], np.int64),
        # tensorflow-io's errors do not name the file, and one that changed may be damaged.
        "size": np.array(sizes, np.int64).astype(np.int32),  # which wraps as tf.strings.length does
        "jumps": np.array(jumps),
        "is_mended": np.array([file.is_mended for file in files]),
        "delay": np.array([delays[file.rate] for file in files], np.int32),
    }


def loader(files: Sequence[SoundFile], sample_rate: int, is_checked: bool) -> Callable:
    """A function for `Dataset.map`, from a row of `columns` to a waveform.

    A row may say which part of the file is wanted, `start` and `count`: where its `jumps` is true.

    Args:
        files: all that rows may name.
        sample_rate: of the waveforms, in Hz.
        is_checked: whether the files are known to be whole.

    Returns:
        A function to float32 `(samples,)` at `sample_rate`, channels averaged.
    """

    def read(path, is_mended, start, count):
        options = {"is_mended": bool(is_mended), "is_checked": is_checked}
        return read_samples(os.fsdecode(path), sample_rate, int(start), int(count), **options)

    def by_soundfile(row):
        arguments = [row["path"], row["is_mended"], row.get("start", 0), row.get("count", -1)]
        return tf.ensure_shape(tf.numpy_function(read, arguments, tf.float32), (None,))

    if not any(file.kind for file in files):
        return by_soundfile
    tfio = importlib.import_module("tensorflow_io")

    def by_native(row, kind):
        _, function, arguments, scale = _NATIVE[kind]
        content = tf.io.read_file(row["path"])
        is_same = tf.strings.length(content) == row["size"]
        said = tf.strings.join([row["path"], " has changed since it was looked at."])
        with tf.control_dependencies([tf.debugging.Assert(is_same, [said])]):
            content = tf.identity(content)
        decoded = getattr(tfio.audio, function)(content, **arguments)
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
    got, there = tf.strings.as_string(length), tf.strings.as_string(row["frames"])
    said = tf.strings.join(
        [row["path"], ": tensorflow-io decodes ", got, " of ", there, " samples"]
    )
    return tf.debugging.Assert((length == row["frames"]) & (length > 0), [said])
