"""`tf.data` pipelines of sound: float32 waveforms in [-1, 1], or their mu-law codes.

A batch of crops is the waveforms, float32 `(batch, samples)`, as `fit` takes them. Where there is
more to say it is a dict:

- `"waveform"`: float32 `(batch, samples)`; with `mu_law=True` instead
  `"codes"`: int32 `(batch, samples)`, 0 to 255, as `functional.mu_law_encode` makes them;
- `"speaker"`: int32 `(batch,)`, with `speakers`; the dataset then has `speaker_names`. Beside codes
  it is named `"condition"`, as `WaveNet.fit` has it;
- `"length"`: int32 `(batch,)`, where whole clips are asked for (`crop=None`): how many samples are
  the clip's. The rest, up to the batch's longest, are zeros.

A dataset of files has `sample_rate`; an `AudioVQVAE` takes none of another rate, or of speakers in
another order than its own.

Crops always have the same length: a clip that is shorter is padded with zeros, which count as
sound, and a warning counts such clips (not those of TensorFlow Datasets, whose lengths are not
known before); `min_samples=crop` refuses them. With a `seed` the place of
a crop is decided by the seed, the number of the epoch and the clip's place in the data, and nothing
else; without, it is the middle.

Order, resuming with `start_at`, and several workers are those of `keras_vqvae.data.images`.

Bad files are found before the first batch, not in the middle of training: every file is decoded
once when the dataset is made. `check=False` reads the headers only, which for hundreds of hours is
worth it; then NaN or a damaged file ends reading when it is met, with its name, and clipping is
not looked for. (Of joined FLAC files the first is taken if only crops of them are decoded.)

Texts and the times of phones are in no batch, since no model takes them: `read_manifest` gives
them file by file.
"""

from __future__ import annotations

import os
import pathlib
import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_vqvae.backend import native
from keras_vqvae.data import audio_files
from keras_vqvae.data.audio_files import BESIDE, SUFFIXES, SoundFile
from keras_vqvae.data.audio_manifest import Row, read_manifest
from keras_vqvae.data.files import find_files
from keras_vqvae.data.images import import_tfds, tfds_builder
from keras_vqvae.data.options import filled_in
from keras_vqvae.data.order import Order, check_batch_size, check_shard, is_integer
from keras_vqvae.paths import local_path, shown

__all__ = [
    "Row",
    "check_folder",
    "from_arrays",
    "from_folder",
    "from_librispeech",
    "from_manifest",
    "from_tfds",
    "from_vctk",
    "read",
    "read_manifest",
    "trim",
]

# Silence is what lies so much below the loudest frame of a clip.
SILENCE_DECIBELS = 40.0
_FRAMES_PER_SECOND = 50

# TensorFlow Datasets hold whole clips, some 300 kB each.
_SHUFFLE_BUFFER = 512


def from_folder(
    folder: str | os.PathLike,
    sample_rate: int,
    crop: int | None = None,
    batch_size: int = 32,
    *,
    speakers: bool | Sequence[str] = False,
    channels: str = "mono",
    resample: bool = True,
    trim_silence: bool = False,
    min_samples: int = 1,
    mu_law: bool = False,
    seed: int | None = None,
    repeat: bool = False,
    clipped: str = "refuse",
    skip_corrupt: bool = False,
    check: bool = True,
    shard: tuple[int, int] | None = None,
    decoder: str = "auto",
) -> tf.data.Dataset:
    """Batches of the sound files in a folder and all folders below it.

    They are WAV, FLAC, Ogg, MP3, AIFF, AU, CAF and W64. Hidden files and folders, whose names begin
    with a dot, are left out, and a warning counts files of other kinds.

    Args:
        folder: where the files are.
        sample_rate: of the waveforms, in Hz.
        crop: samples in a crop, or None for whole clips.
        batch_size: clips in a batch.
        speakers: whether to yield speakers too. The speaker of a file is the first folder below
            `folder` on the way to it; they are numbered in sorted order. Or names: they are
            numbered as here, which makes ids the same for training and test data, and files of
            others are left out, with a warning that counts them.
        channels: `"mono"` refuses files with several channels, `"mix"` averages them, and a warning
            counts files that lose half of their level by it.
        resample: whether to resample files of another rate; else they are refused.
        trim_silence: whether to cut off what is 40 dB below a clip's loudest 20 ms at both its
            ends.
        min_samples: clips that are shorter, after trimming, are refused; give the samples of one
            code of the model.
        mu_law: whether to yield codes instead of waveforms.
        seed: None for the order of the sorted paths and crops from the middle; an integer to
            reshuffle, and crop elsewhere, for each epoch.
        repeat: whether to go on without end; batches then run across the borders of epochs.
        clipped: `"refuse"` or `"allow"` files of which more than 1 % of the samples are at full
            scale or beyond, which then is cut to [-1, 1].
        skip_corrupt: whether to leave out files that cannot be read or are cut off, hold NaN, are
            clipped, too short or, with `speakers`, in no folder of a speaker, with a warning that
            counts them.
        check: whether to decode every file beforehand.
        shard: `(index, count)` for this worker's part of every batch, or None for all of it.
        decoder: `"tensorflow-io"` decodes and resamples in the graph, which works up to TensorFlow
            2.17, `"soundfile"` (with soxr) in Python; `"auto"` takes for each file the faster one:
            the first for WAV without resampling, the second for all else. What tensorflow-io does
            not know, or is known to read wrong, goes through soundfile in any case.

    Returns:
        A dataset of float32 `(batch, crop)`, or of dicts; see the module.

    Raises:
        ValueError: the folder is missing or has no usable file; a file cannot be used, or has no
            speaker; or an argument is out of range. The message names the files and what to do.
        ImportError: soundfile, soxr or the `decoder` asked for is not installed.
    """
    folder = local_path(folder, "folder")
    paths = find_files(folder, SUFFIXES, "sound", BESIDE)
    wanted = _wanted_speakers(speakers)
    if wanted is not False:
        loose = [shown(path.name) for path in paths if path.parent == folder]
        if loose:
            cure = (
                f"With `speakers` every file must lie in a sub-folder of {shown(folder)} named "
                "after its speaker; a manifest can name speakers, too."
            )
            _report(f"files of {shown(folder)} have no speaker", loose, skip_corrupt, cure)
            paths = [path for path in paths if path.parent != folder]
    by_file = [shown(path.relative_to(folder).parts[0]) for path in paths]
    return _from_files(
        f"`folder` {shown(folder)}", paths, by_file, sample_rate, crop, batch_size,
        speakers=wanted, channels=channels, resample=resample, trim_silence=trim_silence,
        min_samples=min_samples, mu_law=mu_law, seed=seed, repeat=repeat, clipped=clipped,
        skip_corrupt=skip_corrupt, check=check, shard=shard, decoder=decoder,
    )  # fmt: skip


def from_manifest(
    path: str | os.PathLike,
    sample_rate: int,
    crop: int | None = None,
    batch_size: int = 32,
    *,
    speakers: bool | Sequence[str] = False,
    trim_silence: bool = False,
    skip_corrupt: bool = False,
    **options: Any,
) -> tf.data.Dataset:
    """Batches of the files that a CSV or JSONL manifest names; see `read_manifest`.

    Args:
        path: the manifest.
        sample_rate: of the waveforms, in Hz.
        crop: samples in a crop, or None for whole clips.
        batch_size: clips in a batch.
        speakers: whether to yield speakers too, from the column `speaker`, or those of which, as
            for `from_folder`.
        trim_silence: as for `from_folder`.
        skip_corrupt: whether to leave out files that cannot be used, rows that point nowhere and,
            with `speakers`, rows without a speaker.
        **options: all others of `from_folder`.

    Returns:
        A dataset of float32 `(batch, crop)`, or of dicts; see the module.

    Raises:
        ValueError: as `from_folder`; also where the manifest is wrong, a row points to no file, or
            has no speaker. The message names the line.
        TypeError: there is no such option.
        ImportError: as `from_folder`.
    """
    given = {**options, "trim_silence": trim_silence, "skip_corrupt": skip_corrupt}
    options = filled_in("from_manifest", from_folder, given)
    options["speakers"] = wanted = _wanted_speakers(speakers)
    path = local_path(path)
    rows = read_manifest(path)
    # Not Path.is_file, which raises on a name that is too long.
    is_there = [os.path.isfile(row.path) for row in rows]
    if not all(is_there):
        lost = [row for row, there in zip(rows, is_there, strict=True) if not there]
        named = [f"line {row.line}: {ascii(str(row.path))[1:-1]:.200}" for row in lost]
        cure = "Paths are relative to the manifest's folder."
        _report(f"rows of {path} point to no file", named, skip_corrupt, cure)
        rows = [row for row, there in zip(rows, is_there, strict=True) if there]
    if trim_silence and any(row.segments for row in rows):
        warnings.warn(
            f"the `segments` of {path} are of whole files; with trim_silence=True batches begin "
            "later",
            stacklevel=2,
        )
    nameless = [f"line {row.line}" for row in rows if not row.speaker]
    if wanted is not False and nameless:
        _report(
            f"rows of {path} have no `speaker`",
            nameless,
            skip_corrupt,
            "Fill the column in, if there is one.",
        )
        rows = [row for row in rows if row.speaker]
    return _from_files(
        f"The manifest {path}",
        [row.path for row in rows],
        [row.speaker for row in rows],
        sample_rate,
        crop,
        batch_size,
        **options,
    )


def from_vctk(
    folder: str | os.PathLike | None,
    sample_rate: int = 48000,
    crop: int | None = None,
    batch_size: int = 32,
    *,
    mic: int = 1,
    speakers: bool | Sequence[str] = False,
    **options: Any,
) -> tf.data.Dataset:
    """Batches of VCTK, 110 speakers of English.

    Its texts are not read: they are in the corpus's folder `txt`, one file for each recording.

    Args:
        folder: the unpacked corpus, version 0.80 (WAV) or 0.92 (FLAC, two microphones), or one of
            its folders; None for the set `vctk` of the TensorFlow Datasets, see `from_tfds`.
        sample_rate: of the waveforms, in Hz; the recordings have 48000.
        crop: samples in a crop, or None for whole clips.
        batch_size: clips in a batch.
        mic: which microphone, 1 or 2.
        speakers: whether to yield speakers too, such as `"p225"`, or those of which, as for
            `from_folder`. (Of the TensorFlow Dataset the names of all.)
        **options: all others of `from_folder`, or of `from_tfds`.

    Returns:
        A dataset of float32 `(batch, crop)`, or of dicts; see the module.

    Raises:
        ValueError, ImportError: as `from_folder` or `from_tfds`.
        TypeError: there is no such option.
    """
    if mic not in (1, 2):
        raise ValueError(f"`mic` must be 1 or 2, got {mic!r}.")
    options["speakers"] = speakers
    if folder is None:
        options = filled_in("from_vctk without a folder", from_tfds, options)
        return from_tfds(f"vctk/mic{mic}", "train", sample_rate, crop, batch_size, **options)
    options = filled_in("from_vctk", from_folder, options)
    # p225_001.wav or p225_001_mic1.flac
    pattern = re.compile(rf"([ps]\d+)_\d+(_mic{mic})?\.(wav|flac)", re.IGNORECASE)
    what = "VCTK (such as p225/p225_001_mic1.flac)"
    folder = local_path(folder, "folder")
    return _from_corpus(folder, what, pattern, sample_rate, crop, batch_size, **options)


def from_librispeech(
    folder: str | os.PathLike | None,
    sample_rate: int = 16000,
    crop: int | None = None,
    batch_size: int = 32,
    *,
    split: str | None = None,
    speakers: bool | Sequence[str] = False,
    **options: Any,
) -> tf.data.Dataset:
    """Batches of LibriSpeech, read books in English.

    Its texts are not read: they are beside the recordings, in a file for each chapter.

    Args:
        folder: the unpacked corpus or one of its parts, such as `LibriSpeech/train-clean-100`;
            None for the set `librispeech` of the TensorFlow Datasets, see `from_tfds`.
        sample_rate: of the waveforms, in Hz; the recordings have 16000.
        crop: samples in a crop, or None for whole clips.
        batch_size: clips in a batch.
        split: which part, such as `"dev_clean"` or `"train_clean100"`, which in a folder are
            `dev-clean` and `train-clean-100`. None for all that is in the folder, of the TensorFlow
            Dataset for `"train_clean100"`.
        speakers: whether to yield speakers too, such as `"1089"`, or those of which, as for
            `from_folder`. (Of the TensorFlow Dataset the names of all.)
        **options: all others of `from_folder`, or of `from_tfds`.

    Returns:
        A dataset of float32 `(batch, crop)`, or of dicts; see the module.

    Raises:
        ValueError: as `from_folder` or `from_tfds`; also where `folder` does not have the `split`.
        TypeError: there is no such option.
        ImportError: as `from_folder` or `from_tfds`.
    """
    options["speakers"] = speakers
    if folder is None:
        options = filled_in("from_librispeech without a folder", from_tfds, options)
        split = split or "train_clean100"
        return from_tfds("librispeech", split, sample_rate, crop, batch_size, **options)
    options = filled_in("from_librispeech", from_folder, options)
    folder = local_path(folder, "folder")
    if split is not None:
        folder = _part_of_librispeech(folder, split)
    pattern = re.compile(r"(\d+)-\d+-\d+\.flac")
    what = "LibriSpeech (such as 1089/134686/1089-134686-0000.flac)"
    return _from_corpus(folder, what, pattern, sample_rate, crop, batch_size, **options)


def from_arrays(
    waveforms: Sequence[np.ndarray],
    crop: int | None = None,
    batch_size: int = 32,
    *,
    speakers: Sequence[int] | Sequence[str] | np.ndarray | None = None,
    min_samples: int = 1,
    mu_law: bool = False,
    seed: int | None = None,
    repeat: bool = False,
    clipped: str = "refuse",
    shard: tuple[int, int] | None = None,
) -> tf.data.Dataset:
    """Batches of waveforms that are in memory.

    Args:
        waveforms: 1-D arrays that may differ in length: float32 in [-1, 1], or int16, which takes
            half the memory and is divided by 32768; in either order of bytes.
        crop: samples in a crop, or None for whole clips.
        batch_size: clips in a batch.
        speakers: one a waveform, as ids from 0 or as names, which are numbered in sorted order; or
            None.
        min_samples: shorter waveforms are refused; give the samples of one code of the model.
        mu_law: whether to yield codes instead of waveforms.
        seed: None for the order given and crops from the middle; an integer to reshuffle, and crop
            elsewhere, for each epoch.
        repeat: whether to go on without end; batches then run across the borders of epochs.
        clipped: `"refuse"` or `"allow"` waveforms of which more than 1 % of the samples are at full
            scale.
        shard: `(index, count)` for this worker's part of every batch, or None for all of it.

    Returns:
        A dataset of float32 `(batch, crop)`, or of dicts; see the module.

    Raises:
        ValueError: a waveform has another rank or dtype, is too short, clipped, holds NaN or
            leaves [-1, 1]; `speakers` does not match; or an argument is out of range. The message
            says which waveform.
    """
    _check_arguments(1, crop, batch_size, min_samples, shard)
    _check_clipped(clipped)
    if isinstance(waveforms, np.ndarray) and waveforms.ndim == 2 and waveforms.shape[1] == 2:
        raise ValueError(
            f"`waveforms` of shape {waveforms.shape} would be {len(waveforms)} clips. If it is one "
            "clip in stereo, average the channels: `[waveforms.mean(axis=1)]`."
        )
    arrays = [native(np.asarray(waveform)) for waveform in waveforms]
    if not arrays:
        raise ValueError("`waveforms` must not be empty.")
    dtypes = {array.dtype for array in arrays}
    if dtypes not in ({np.dtype(np.float32)}, {np.dtype(np.int16)}):
        found = ", ".join(sorted(map(str, dtypes)))
        raise ValueError(f"`waveforms` must be all float32, or all int16, got {found}.")
    for i, array in enumerate(arrays):
        _check_array(f"`waveforms[{i}]`", array, min_samples, clipped)
    lengths = np.array([len(array) for array in arrays])
    _warn_of_short(lengths, crop, 3)
    columns: dict[str, Any] = {"start": np.cumsum(lengths) - lengths, "samples": lengths}
    names = None
    if speakers is not None:
        columns["speaker"], names = _speaker_column(speakers, len(arrays))
    # The data stays in host memory however large it is; clips are cut out of it.
    with tf.device("CPU"):
        flat = tf.convert_to_tensor(np.concatenate(arrays))

    def load(row):
        samples = flat[row["start"] : row["start"] + row["samples"]]
        return samples if flat.dtype == tf.float32 else tf.cast(samples, tf.float32) / 32768.0

    order = _CropOrder(len(arrays), batch_size, seed, repeat, shard)
    dataset = _batches(_rows(columns), order, load, crop, mu_law)
    return _with_facts(dataset, names, None)


def from_tfds(
    name: str,
    split: str,
    sample_rate: int,
    crop: int | None = None,
    batch_size: int = 32,
    *,
    data_dir: str | os.PathLike | None = None,
    speakers: bool | Sequence[str] = False,
    channels: str = "mono",
    resample: bool = True,
    trim_silence: bool = False,
    mu_law: bool = False,
    seed: int | None = None,
    shard: tuple[int, int] | None = None,
    decoder: str = "auto",
) -> tf.data.Dataset:
    """Batches of one of the TensorFlow Datasets, by its feature of the kind `Audio`.

    The data set is downloaded and prepared if it is not there yet.

    Args:
        name: as TensorFlow Datasets has it, for example `"librispeech"`.
        split: for example `"train_clean100"`.
        sample_rate: of the waveforms, in Hz.
        crop: samples in a crop, or None for whole clips.
        batch_size: clips in a batch.
        data_dir: where the data sets are kept; by default where TensorFlow Datasets keeps them.
        speakers: whether to yield speakers too, from the feature `speaker` or `speaker_id`. Where
            its names are not part of the data set they are collected first, which reads the whole
            split, or are those of the list that is given here.
        channels: `"mono"` refuses a data set of several channels, `"mix"` averages them.
        resample: whether to resample a data set of another rate; else it is refused.
        trim_silence: whether to cut off what is 40 dB below a clip's loudest 20 ms at both its
            ends.
        mu_law: whether to yield codes instead of waveforms.
        seed: None for the order on disk and crops from the middle; an integer to reshuffle, through
            a buffer of 512 clips, and crop elsewhere, for each epoch.
        shard: `(index, count)` for this worker's part of every batch, or None for all of it.
        decoder: with what to resample: `"tensorflow-io"`, or soxr for `"soundfile"` and `"auto"`.

    Returns:
        A dataset of float32 `(batch, crop)`, or of dicts; see the module.

    Raises:
        ValueError: there is no such data set, split or feature; a speaker is not in `speakers`; or
            an argument is out of range.
        ImportError: TensorFlow Datasets is not installed, or cannot be imported.
    """
    _check_arguments(sample_rate, crop, batch_size, 1, shard)
    wanted = _wanted_speakers(speakers)
    builder = tfds_builder(name, data_dir)
    key, rate, several = _tfds_audio(builder)
    _check_channels(channels)
    if several and channels == "mono":
        raise ValueError(f'{name} has {key!r} of several channels: channels="mix" averages them.')
    if rate != sample_rate and not resample:
        raise ValueError(f"{name} has {rate} Hz, not {sample_rate}: resample=True resamples it.")
    native = decoder == "tensorflow-io"
    audio_files.check_decoder(decoder)
    if rate != sample_rate:
        if not native:
            audio_files.import_extra("soxr")
    builder.download_and_prepare()
    if split.partition("[")[0] not in builder.info.splits and split != "all":
        raise ValueError(f"`split` {split!r} is none of {name}: {list(builder.info.splits)}.")
    examples = builder.as_dataset(split=split, shuffle_files=False)
    names, speaker_of = _tfds_speakers(builder, examples, wanted)

    def thin(index, example):
        # Sound is kept in 64 bits there; it is 16.
        samples = example[key]
        if samples.dtype.is_integer:
            samples = tf.cast(samples, tf.int16)
        row = {"index": index, "samples": samples}
        if names is not None:
            row["speaker"] = speaker_of(example)
        return row

    def load(row):
        waveform = tf.cast(row["samples"], tf.float32)
        if row["samples"].dtype.is_integer:
            waveform /= 32768.0
        if several:
            waveform = tf.reduce_mean(waveform, axis=-1)
        waveform = _resampler(rate, sample_rate, native)(waveform)
        return _trim(waveform, sample_rate) if trim_silence else waveform

    count = int(examples.cardinality())
    order = _CropOrder(count, batch_size, seed, False, shard, buffer=_SHUFFLE_BUFFER)
    rows = examples.enumerate().map(thin)
    return _with_facts(_batches(rows, order, load, crop, mu_law), names, sample_rate)


def check_folder(
    folder: str | os.PathLike, *, clipped: str = "refuse"
) -> tuple[list[pathlib.Path], dict[pathlib.Path, str]]:
    """Decodes every sound file in a folder and all folders below it.

    Args:
        folder: where the files are.
        clipped: `"refuse"` or `"allow"` files that are; see `from_folder`.

    Returns:
        `(good, problems)`: the sorted paths of the files that can be used, and what is wrong with
        each of the others: not readable, cut off, empty, NaN, clipped.

    Raises:
        ValueError: the folder is missing or holds no sound file; the message names it.
        ImportError: soundfile is not installed.
    """
    _check_clipped(clipped)
    paths = find_files(local_path(folder, "folder"), SUFFIXES, "sound", BESIDE)
    files = audio_files.inspect(paths, whole=True, clipped=clipped)
    problems = {file.path: problem for file in files if (problem := _problem(file, file.rate, 1))}
    return [file.path for file in files if file.path not in problems], problems


def read(
    path: str | os.PathLike,
    sample_rate: int | None = None,
    *,
    channels: str = "mono",
    resample: bool = True,
    clipped: str = "refuse",
) -> np.ndarray:
    """One sound file.

    Args:
        path: the file.
        sample_rate: in Hz; None for the file's own.
        channels: `"mono"` refuses a file with several channels, `"mix"` averages them.
        resample: whether to resample a file of another rate; else it is refused.
        clipped: `"refuse"` or `"allow"` a file of which more than 1 % of the samples are at full
            scale or beyond.

    Returns:
        float32 `(samples,)` in [-1, 1].

    Raises:
        ValueError: the file is missing or cannot be used; the message says why and what to do.
        ImportError: soundfile is not installed, or soxr where it is needed.
    """
    if sample_rate is not None and not is_integer(sample_rate, 1):
        raise ValueError(f"`sample_rate` must be a positive integer or None, got {sample_rate!r}.")
    _check_clipped(clipped)
    path = local_path(path)
    if not path.is_file():
        raise ValueError(f"{shown(path)} is no file.")
    (file,) = audio_files.inspect([path], whole=True, clipped=clipped)
    problem = _problem(file, sample_rate or file.rate, 1)
    if problem:
        raise ValueError(f"{shown(path)} {problem}.")
    _check_format([file], sample_rate or file.rate, channels, resample)
    waveform = audio_files.read_samples(path, sample_rate, is_mended=file.is_mended)
    return np.clip(waveform, -1.0, 1.0)


def trim(waveform: np.ndarray, sample_rate: int) -> np.ndarray:
    """Cuts off silence at both ends: what is 40 dB below the loudest 20 ms.

    Args:
        waveform: float32 `(samples,)`.
        sample_rate: in Hz.

    Returns:
        A part of `waveform`, whole frames of 20 ms.
    """
    frame = max(1, sample_rate // _FRAMES_PER_SECOND)
    padded = np.pad(waveform, (0, -len(waveform) % frame)).reshape(-1, frame)
    energy = np.square(padded).sum(axis=1)
    loud = np.nonzero(energy >= energy.max(initial=0.0) * 10 ** (-SILENCE_DECIBELS / 10))[0]
    return waveform[loud[0] * frame : (loud[-1] + 1) * frame] if len(loud) else waveform


# From rows to batches.


class _CropOrder(Order):
    """An order that tells every row the number of its epoch, by which it is cropped."""

    def __init__(self, *arguments: Any, buffer: int | None = None) -> None:
        super().__init__(*arguments)
        self.buffer = buffer

    def rows(self, source: tf.data.Dataset) -> tf.data.Dataset:
        if self.seed is None:
            zero = tf.constant(0, tf.int64)
            source = source.map(lambda row: {**row, "epoch": zero})
        return self.elements(source, self.buffer)

    def shuffled(self, source, epoch, buffer=None):
        shuffled = super().shuffled(source, epoch, buffer)
        return shuffled.map(lambda row: {**row, "epoch": epoch})


def _rows(columns: dict[str, Any]) -> tf.data.Dataset:
    count = len(next(iter(columns.values())))
    return tf.data.Dataset.from_tensor_slices({"index": np.arange(count), **columns})


def _batches(
    source: tf.data.Dataset, order: _CropOrder, load: Callable, crop: int | None, mu_law: bool
) -> tf.data.Dataset:
    """Rows with `index`, and perhaps `speaker`, to batches; `load` makes a waveform of a row."""

    def example(row):
        waveform = tf.clip_by_value(tf.ensure_shape(load(row), (None,)), -1.0, 1.0)
        if crop is not None:
            waveform = _crop(waveform, crop, row, order)
        made = {"waveform": waveform}
        if "speaker" in row:
            made["speaker"] = row["speaker"]
        if crop is None:
            made["length"] = tf.size(waveform)
        return made

    def finished(batch):
        if mu_law:  # as a WaveNet takes it
            names = {"speaker": "condition"}
            codes = _mu_law(batch.pop("waveform"))
            batch = {"codes": codes, **{names.get(key, key): batch[key] for key in batch}}
        return batch["waveform"] if list(batch) == ["waveform"] else batch

    examples = order.rows(source).map(example, tf.data.AUTOTUNE)
    size = order.batch_size
    batches = examples.padded_batch(size) if crop is None else examples.batch(size)
    return order.finish(batches.map(finished))


def _crop(waveform: tf.Tensor, crop: int, row: dict, order: Order) -> tf.Tensor:
    start = _crop_start(tf.size(waveform, tf.int64), crop, row, order)
    cut = waveform[start : start + crop]
    return tf.ensure_shape(tf.pad(cut, [[0, crop - tf.size(cut)]]), (crop,))


def _crop_start(samples: tf.Tensor, crop: int, row: dict, order: Order) -> tf.Tensor:
    spare = tf.maximum(samples - crop, 0)
    if order.seed is None:
        return spare // 2
    # One number for each epoch and row; the generator is named, for its numbers to stay.
    place = row["epoch"] * order.size + row["index"]
    return tf.random.stateless_uniform(
        (), [order.seed, place], 0, spare + 1, tf.int64, alg="philox"
    )


def _mu_law(waveform: tf.Tensor) -> tf.Tensor:
    # `functional.mu_law_encode`, which is Keras's backend's, in a graph that is TensorFlow's.
    companded = tf.sign(waveform) * tf.math.log1p(255.0 * tf.abs(waveform)) / np.log(256.0)
    return tf.cast(tf.round((companded + 1.0) * 127.5), tf.int32)


def _trim(waveform: tf.Tensor, sample_rate) -> tf.Tensor:
    """`trim` in the graph."""
    frame = tf.maximum(1, sample_rate // _FRAMES_PER_SECOND)
    padded = tf.pad(waveform, [[0, -tf.size(waveform) % frame]])
    energy = tf.reduce_sum(tf.square(tf.reshape(padded, (-1, frame))), axis=1)
    quiet = tf.reduce_max(energy) * 10 ** (-SILENCE_DECIBELS / 10)
    loud = tf.cast(tf.where(energy >= quiet)[:, 0], tf.int32)
    return waveform[loud[0] * frame : (loud[-1] + 1) * frame]


def _resampler(rate: int, wanted: int, native: bool) -> Callable:
    if rate == wanted:
        return lambda waveform: waveform
    if not native:
        return lambda waveform: tf.ensure_shape(
            tf.numpy_function(
                lambda samples: audio_files.resample(samples, rate, wanted), [waveform], tf.float32
            ),
            (None,),
        )
    delay = audio_files.native_delay(rate, wanted)
    return lambda waveform: audio_files.native_resample(
        waveform, rate, wanted, delay, audio_files.length_at(tf.size(waveform), rate, wanted)
    )


def _with_facts(
    dataset: tf.data.Dataset, names: list[str] | None, sample_rate: int | None
) -> tf.data.Dataset:
    if names is not None:
        dataset.speaker_names = names
    if sample_rate is not None:
        dataset.sample_rate = sample_rate
    return dataset


# Files.


def _from_files(
    where: str,
    paths: list[pathlib.Path],
    by_file: list[str],
    sample_rate: int,
    crop: int | None,
    batch_size: int,
    *,
    speakers: bool | list[str],
    channels: str,
    resample: bool,
    trim_silence: bool,
    min_samples: int,
    mu_law: bool,
    seed: int | None,
    repeat: bool,
    clipped: str,
    skip_corrupt: bool,
    check: bool,
    shard: tuple[int, int] | None,
    decoder: str,
) -> tf.data.Dataset:
    """`by_file` are the files' speakers, which only count where `speakers` is not False.

    All options are those of `from_folder`, which has their defaults.
    """
    _check_arguments(sample_rate, crop, batch_size, min_samples, shard)
    _check_clipped(clipped)
    audio_files.check_decoder(decoder)
    names = None
    if speakers is not False:
        names = sorted(set(by_file)) if speakers is True else speakers
        paths, by_file = _of_speakers(where, paths, by_file, names)
    files = audio_files.inspect(
        paths, whole=check, trim=trim if trim_silence else None, clipped=clipped
    )
    usable = [file for file in files if not file.problem]
    _check_format(usable, sample_rate, channels, resample, stacklevel=4)
    problems = {
        file.path: problem
        for file in files
        if (problem := _problem(file, sample_rate, min_samples))
    }
    if problems:
        named = [f"{shown(path)} {problem}" for path, problem in problems.items()]
        cure = "Repair or remove them."
        _report("sound files cannot be used", named, skip_corrupt, cure, stacklevel=4)
    good = [i for i, file in enumerate(files) if file.path not in problems]
    if not good:
        raise ValueError(f"{where} has no sound file that can be used.")
    _warn_of_short(
        [audio_files.length_at(files[i].kept, files[i].rate, sample_rate) for i in good], crop, 4
    )
    if speakers is True and names is not None:
        heard = sorted({by_file[i] for i in good})
        if heard != names:
            lost = ", ".join(sorted(set(names) - set(heard)))
            warnings.warn(f"no file can be used of the speakers {lost}: left out", stacklevel=3)
        names = heard
    files = audio_files.by_decoder([files[i] for i in good], sample_rate, decoder)
    columns: dict[str, Any] = audio_files.columns(files, sample_rate)
    if names is not None:
        numbers = {name: number for number, name in enumerate(names)}
        columns["speaker"] = np.array([numbers[by_file[i]] for i in good], np.int32)
    decode = audio_files.loader(files, sample_rate, is_checked=check)
    order = _CropOrder(len(files), batch_size, seed, repeat, shard)

    def load(row):
        if crop is not None and not trim_silence:
            # Where only the crop can be read, it is; there is nothing left to cut off then.
            start = _crop_start(row["frames"], crop, row, order)
            jumps = row["jumps"]
            row = {**row, "start": tf.where(jumps, start, 0), "count": tf.where(jumps, crop, -1)}
        waveform = decode(row)
        if not check:
            finite = tf.reduce_all(tf.math.is_finite(waveform))
            said = tf.strings.join([row["name"], " holds NaN or infinite samples."])
            with tf.control_dependencies([tf.debugging.Assert(finite, [said])]):
                waveform = tf.identity(waveform)
        if trim_silence:
            waveform = _trim(waveform, sample_rate)
            if not check:  # how much is left was not known before
                left = tf.size(waveform)
                said = tf.strings.join(
                    [row["name"], " is shorter than `min_samples` after trimming:"]
                )
                fits = tf.debugging.Assert(left >= min_samples, [said, left])
                with tf.control_dependencies([fits]):
                    waveform = tf.identity(waveform)
        return waveform

    return _with_facts(_batches(_rows(columns), order, load, crop, mu_law), names, sample_rate)


def _from_corpus(folder: pathlib.Path, what: str, pattern: re.Pattern, *arguments, **options):
    """Files whose names match; the pattern's first group is the speaker."""
    options["speakers"] = _wanted_speakers(options["speakers"])
    found = find_files(folder, SUFFIXES, "sound", ("", *BESIDE))
    matches = {path: match for path in found if (match := pattern.fullmatch(path.name))}
    if not matches:
        raise ValueError(f"`folder` {shown(folder)} holds no file of {what}.")
    by_file = [match[1] for match in matches.values()]
    return _from_files(f"`folder` {shown(folder)}", list(matches), by_file, *arguments, **options)


def _part_of_librispeech(folder: pathlib.Path, split: str) -> pathlib.Path:
    # "train_clean100" is the name of TensorFlow Datasets, "train-clean-100" that of the folder.
    name = re.sub(r"(?<=[a-z])(?=\d)", "-", split.replace("_", "-"))
    if folder.name == name:
        return folder
    part = folder / name
    if not part.is_dir():
        there = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
        raise ValueError(
            f"`split` {split!r}: {folder} has no folder {name}; it has {', '.join(there[:10])}."
        )
    return part


def _problem(file: SoundFile, sample_rate: int, min_samples: int) -> str:
    if file.problem:
        return file.problem
    samples = audio_files.length_at(file.kept, file.rate, sample_rate)
    if file.frames == 0:
        return "is empty"
    if samples < min_samples:
        return f"is shorter than `min_samples`: {samples} samples at {sample_rate} Hz"
    return ""


def _report(what: str, named: list[str], skip: bool, cure: str, stacklevel: int = 3) -> None:
    more = f"; and {len(named) - 3} more" if len(named) > 3 else ""
    text = f"{len(named)} {what}: {'; '.join(named[:3])}{more}."
    if not skip:
        raise ValueError(f"{text} {cure} Or leave them out: `skip_corrupt=True`.")
    warnings.warn(f"{text} They are left out.", stacklevel=stacklevel)


def _warn_of_short(lengths: Sequence[int] | np.ndarray, crop: int | None, stacklevel: int) -> None:
    short = int(np.sum(np.asarray(lengths) < (crop or 0)))
    if short:
        warnings.warn(
            f"{short} of {len(lengths)} clips are shorter than crops of {crop} samples: zeros are "
            f"added, which count as sound. `min_samples={crop}` refuses them.",
            stacklevel=stacklevel,
        )


# Checks of arguments.


def _check_arguments(sample_rate, crop, batch_size, min_samples, shard) -> None:
    check_batch_size(batch_size)
    if not is_integer(sample_rate, 1):
        raise ValueError(f"`sample_rate` must be a positive integer, got {sample_rate!r}.")
    if crop is not None and not is_integer(crop, 1):
        raise ValueError(
            f"`crop` must be a positive integer, the samples in a crop, or None, got {crop!r}."
        )
    if not is_integer(min_samples, 1):
        raise ValueError(f"`min_samples` must be a positive integer, got {min_samples!r}.")
    if crop is not None and min_samples > crop:
        raise ValueError(
            f"`crop` must be at least `min_samples`, {min_samples}, got {crop}: such crops would "
            "be shorter than one code."
        )
    _, count = check_shard(shard, batch_size)
    if count > 1 and crop is None:
        raise ValueError(
            "`shard` needs `crop`: whole clips are padded to the longest of a batch, which each "
            "worker would know of its own part only."
        )


def _check_clipped(clipped: str) -> None:
    if clipped not in ("refuse", "allow"):
        raise ValueError(f'`clipped` must be "refuse" or "allow", got {clipped!r}.')


def _wanted_speakers(speakers: Any) -> bool | list[str]:
    """Whether speakers are wanted, or their names."""
    if isinstance(speakers, (bool, np.bool_)):
        return bool(speakers)
    names = [] if isinstance(speakers, str) or not np.iterable(speakers) else list(speakers)
    if not names or not all(isinstance(name, str) and name for name in names):
        raise ValueError(
            "`speakers` must be True, False or the names of all speakers, such as "
            f'["ann", "bob"], got {speakers!r}.'
        )
    return [str(name) for name in names]  # of an array they are NumPy's


def _check_channels(channels: str) -> None:
    if channels not in ("mono", "mix"):
        raise ValueError(f'`channels` must be "mono" or "mix", got {channels!r}.')


def _check_format(
    files: list[SoundFile], sample_rate: int, channels: str, resample: bool, stacklevel: int = 3
) -> None:
    _check_channels(channels)
    several = [file for file in files if file.channels > 1]
    if several and channels == "mono":
        first = several[0]
        raise ValueError(
            f"{len(several)} of {len(files)} sound files are not mono, for example "
            f'{shown(first.path)} with {first.channels} channels: channels="mix" averages them.'
        )
    other = [file for file in files if file.rate != sample_rate]
    if other and not resample:
        raise ValueError(
            f"{len(other)} of {len(files)} sound files do not have {sample_rate} Hz, for example "
            f"{shown(other[0].path)} with {other[0].rate} Hz: resample=True resamples them."
        )
    lost = [file for file in files if file.is_lost_by_mixing]
    if lost:
        warnings.warn(
            f"averaging the channels takes half of the level or more from {len(lost)} of "
            f"{len(files)} sound files, for example {shown(lost[0].path)}: a channel is silent, or "
            "channels are of opposite phase. Write one of them to a mono file instead.",
            stacklevel=stacklevel,
        )
    if other:
        audio_files.import_extra("soxr")


def _check_array(name: str, array: np.ndarray, min_samples: int, clipped: str) -> None:
    if array.ndim != 1:
        hint = ""
        if array.ndim == 2:
            axis = int(np.argmin(array.shape))
            hint = f" If it is stereo, average the channels: `.mean(axis={axis})`."
        raise ValueError(f"{name} must be mono, of shape (samples,), got {array.shape}.{hint}")
    if len(array) < min_samples:
        raise ValueError(
            f"{name} is too short: {len(array)} samples, of at least {min_samples} (`min_samples`)."
        )
    problem = audio_files.problem_of(array, clipped)
    if problem:
        raise ValueError(f"{name} {problem}.")
    if array.dtype == np.float32 and np.abs(array).max() > 1.0:
        raise ValueError(
            f"{name} must be in [-1, 1], got values up to {np.abs(array).max():g}: divide by the "
            "full scale, or clip."
        )


def _speaker_column(speakers, count: int) -> tuple[np.ndarray, list[str] | None]:
    values = np.asarray(speakers)
    if values.shape != (count,) or values.dtype.kind not in "iuU":
        raise ValueError(
            f"`speakers` must be {count} ids or names, one a waveform, "
            f"got {values.dtype} of shape {values.shape}."
        )
    if values.dtype.kind == "U":
        names, ids = np.unique(values, return_inverse=True)
        return ids.astype(np.int32), [str(name) for name in names]
    if values.min() < 0:
        raise ValueError(f"`speakers` must be ids from 0, got {values.min()}.")
    return values.astype(np.int32), None


def _of_speakers(
    where: str, paths: list[pathlib.Path], by_file: list[str], names: list[str]
) -> tuple[list[pathlib.Path], list[str]]:
    """The files of these speakers, and their speakers."""
    if len(set(names)) < len(names):
        raise ValueError(f"`speakers` must be different names, got {names}.")
    of_them = [(p, name) for p, name in zip(paths, by_file, strict=True) if name in names]
    if not of_them:
        there = ", ".join(sorted(set(by_file))[:10])
        raise ValueError(f"{where} has no file of the speakers {names}; it has {there}.")
    others = len(paths) - len(of_them)
    if others:
        warnings.warn(
            f"{others} of {len(paths)} sound files are of other speakers than `speakers`: left out",
            stacklevel=4,
        )
    return [p for p, _ in of_them], [name for _, name in of_them]


# TensorFlow Datasets.


def _tfds_audio(builder) -> tuple[str, int, bool]:
    """The feature's name, its sample rate, and whether it has several channels."""
    for key, feature in builder.info.features.items():
        if isinstance(feature, import_tfds().features.Audio):
            rate = getattr(feature, "sample_rate", None) or feature._sample_rate
            if not rate:
                raise ValueError(f"{builder.name} does not say the sample rate of {key!r}.")
            return key, rate, len(feature.shape) > 1
    raise ValueError(f"{builder.name} has no sound; it has {list(builder.info.features)}.")


def _tfds_speakers(builder, examples: tf.data.Dataset, speakers: bool | list[str]):
    """Their names, and from an example to its speaker's number; `(None, None)` without."""
    if speakers is False:
        return None, None
    features = builder.info.features
    key = next((key for key in ("speaker", "speaker_id") if key in features), None)
    if key is None:
        raise ValueError(f"{builder.name} has no speakers; it has {list(features)}.")
    named = getattr(features[key], "names", None)

    def name_of(example):
        value = example[key]
        if named:
            return tf.gather(tf.constant(named), value)
        return value if value.dtype == tf.string else tf.strings.as_string(value)

    if speakers is not True:
        names = speakers
    elif named:
        names = list(named)
    else:
        names = sorted({name.decode() for name in examples.map(name_of).as_numpy_iterator()})
    numbers = tf.range(len(names), dtype=tf.int32)
    table = tf.lookup.StaticHashTable(
        tf.lookup.KeyValueTensorInitializer(tf.constant(names), numbers), -1
    )

    def number_of(example):
        name = name_of(example)
        number = table.lookup(name)
        said = tf.strings.join(["`speakers` lacks the speaker ", name])
        with tf.control_dependencies([tf.debugging.Assert(number >= 0, [said])]):
            return tf.identity(number)

    return names, number_of
