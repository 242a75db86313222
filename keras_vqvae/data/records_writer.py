"""Writing TFRecord files of examples of any kind; `records` says what is in them."""

from __future__ import annotations

import array
import contextlib
import json
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_vqvae.data.order import is_integer
from keras_vqvae.data.records import ALONE, CONSECUTIVE, IN_TURN, SIDECAR
from keras_vqvae.models.base import check_ends
from keras_vqvae.paths import AnyPath, any_path, file_size

_UNFINISHED = f"{SIDECAR}.unfinished"
_SPOOL = "records.unfinished"
# More files than these are not open at a time: a process may often open 256 (macOS) or 1,024.
_OPEN_FILES = 64
_COPIED = 2**20
_FRAME = 16  # bytes of a record's length and checksums in a TFRecord file
_FILE = re.compile(r"records-\d{5}-of-\d{5}\.tfrecord")
_DTYPES = "bool uint8 int8 uint16 int16 int32 int64 float16 float32 float64".split()


def write_records(examples: Any, folder: str | os.PathLike, num_files: int = 16) -> None:
    """Writes examples into TFRecord files, in turn, or into more than 64 one after another.

    Args:
        examples: an array `(n, ...)`; a dict of arrays of equal length; a `tf.data.Dataset` of
            batches of either, as all pipelines here give; or, for examples that differ in shape,
            an iterable of single examples, arrays or dicts of arrays: waveforms `(samples,)`,
            episodes `{"frames": (t, h, w, c), "actions": (t,)}`. All examples have the same names,
            dtypes and ranks.
        folder: a new or empty folder, or one with unfinished records, which are overwritten; here
            or where TensorFlow writes, such as `gs://bucket/records`.
        num_files: how many files; as many workers can share the records. Of more than 64 only a
            few are open at a time, and the folder needs twice the space while they are written.

    Raises:
        ValueError: there is no example; one has another structure, dtype or rank than the first,
            or a dtype that cannot be stored; or the folder holds something else. The folder then
            counts as unfinished.
    """
    total = len(examples) if hasattr(examples, "shape") and examples.shape else None
    write(_rows_of(examples), any_path(folder, "folder"), num_files, total=total)


def write(
    rows: Iterable[Mapping[str, np.ndarray]],
    folder: AnyPath,
    num_files: int,
    *,
    total: int | None = None,
    stored: Mapping[str, str] = MappingProxyType({}),
    fingerprint: str | None = None,
) -> None:
    """Writes examples, dicts by feature; see `write_records`.

    Args:
        total: number of examples where it is known, for the progress bar.
        stored: the smaller dtypes in which features are stored.
        fingerprint: kept in `records.json`.
    """
    if not is_integer(num_files, 1) or num_files > 99999:
        raise ValueError(f"`num_files` must be an integer from 1 to 99999, got {num_files!r}.")
    _prepare(folder)
    paths = [folder / f"records-{i:05}-of-{num_files:05}.tfrecord" for i in range(num_files)]
    in_turn = num_files <= _OPEN_FILES
    spool = folder / _SPOOL
    features: dict[str, dict] = {}
    sizes = array.array("Q")  # bytes of each record in the spool
    progress = _Progress(total)
    with contextlib.ExitStack() as stack:
        writers = [
            stack.enter_context(tf.io.TFRecordWriter(os.fsencode(path)))
            for path in (paths if in_turn else [spool])
        ]
        number = 0
        for number, row in enumerate(rows, 1):
            if not features:
                features = _features_of(row, stored)
            _match(features, row, number - 1)
            record = _serialize(features, row)
            writers[(number - 1) % len(writers)].write(record)
            sizes.append(len(record) + _FRAME)
            progress.add()
    progress.end()
    if not features:
        raise ValueError("`examples` holds no example.")
    counts = [number // num_files + (i < number % num_files) for i in range(num_files)]
    if not in_turn:
        _cut(spool, sizes, paths, counts)
    files = [
        {"name": path.name, "examples": count, "bytes": file_size(path)}
        for path, count in zip(paths, counts, strict=True)
    ]
    form = IN_TURN if in_turn else CONSECUTIVE
    sidecar = {"format": form, "features": features, "files": files}
    if fingerprint is not None:
        sidecar["fingerprint"] = fingerprint
    unfinished = folder / _UNFINISHED
    unfinished.write_bytes(json.dumps(sidecar, indent=1).encode() + b"\n")
    unfinished.replace(folder / SIDECAR)


def _cut(spool: AnyPath, sizes: Sequence[int], paths: list, counts: list[int]) -> None:
    """Cuts a file of all records into files of consecutive ones, one open at a time."""
    done = 0
    with spool.open("rb") as source:
        for path, count in zip(paths, counts, strict=True):
            left = sum(sizes[done : done + count])
            done += count
            with path.open("wb") as target:
                while part := source.read(min(left, _COPIED)):
                    target.write(part)
                    left -= len(part)
    spool.unlink()


def _prepare(folder: AnyPath) -> None:
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"`folder` {folder} is a file.")
    found = [path.name for path in folder.iterdir()] if folder.exists() else []
    if SIDECAR in found:
        raise ValueError(f"`folder` {folder} holds records already: remove it or name another.")
    ours = (_UNFINISHED, _SPOOL)
    others = [name for name in found if name not in ours and not _FILE.fullmatch(name)]
    if others:
        raise ValueError(
            f"`folder` {folder} holds other files, for example {min(others)}: name a new one."
        )
    folder.mkdir(parents=True, exist_ok=True)
    for name in found:
        (folder / name).unlink()


def _features_of(row: Mapping[str, np.ndarray], stored: Mapping[str, str]) -> dict[str, dict]:
    features = {}
    for name, values in row.items():
        if values.dtype.name not in _DTYPES:
            raise ValueError(
                f"{_label(name)} has the dtype {values.dtype}; records hold {', '.join(_DTYPES)}."
            )
        dtype, shape = values.dtype.name, list(values.shape)
        features[name] = {"dtype": dtype, "stored": stored.get(name, dtype), "shape": shape}
    return features


def _match(features: dict[str, dict], row: Mapping[str, np.ndarray], number: int) -> None:
    """Checks a row against the first, and notes which axes differ in length."""
    if row.keys() != features.keys():
        raise ValueError(
            f"Example {number} has the features {sorted(row)}, the first {sorted(features)}."
        )
    for name, values in row.items():
        feature = features[name]
        rank = len(feature["shape"])
        if values.dtype.name != feature["dtype"] or values.ndim != rank:
            raise ValueError(
                f"{_label(name)} number {number} is {values.dtype.name} of shape {values.shape}, "
                f"the first is {feature['dtype']} of rank {rank}."
            )
        feature["shape"] = [
            side if side == known else None
            for side, known in zip(values.shape, feature["shape"], strict=True)
        ]


def _label(name: str) -> str:
    return "The example" if name == ALONE else f"The feature {name!r} of example"


def _serialize(features: dict[str, dict], row: Mapping[str, np.ndarray]) -> bytes:
    example = tf.train.Example()
    for name, values in row.items():
        little = np.dtype(features[name]["stored"]).newbyteorder("<")
        content = np.ascontiguousarray(values, little).tobytes()
        example.features.feature[f"value/{name}"].bytes_list.value.append(content)
        example.features.feature[f"shape/{name}"].int64_list.value.extend(values.shape)
    return example.SerializeToString()


class _Progress:
    """A progress bar, shown where the work takes more than a moment."""

    def __init__(self, total: int | None) -> None:
        self._bar = keras.utils.Progbar(total, unit_name="example")
        self._start = time.monotonic()
        self._done = 0

    def add(self) -> None:
        self._done += 1
        if self._done % 256 == 0 and self._shown():
            self._bar.update(self._done)

    def end(self) -> None:
        if self._shown():
            self._bar.update(self._done, finalize=True)

    def _shown(self) -> bool:
        return time.monotonic() - self._start > 2


# What can be written, as dicts by feature.

_PAIRS_CURE = (
    "Give the parts names, for example "
    'dataset.map(lambda image, label: {"image": image, "label": label}).'
)


def _rows_of(examples: Any) -> Iterator[dict[str, np.ndarray]]:
    if isinstance(examples, tf.data.Dataset):
        _check_dataset(examples)
        for batch in examples:
            yield from rows_of_batch(batch)
    elif hasattr(examples, "shape") or isinstance(examples, Mapping):
        yield from rows_of_batch(examples)
    elif isinstance(examples, tuple) or not isinstance(examples, Iterable):
        raise ValueError(
            "`examples` must be an array, a dict of arrays, a tf.data.Dataset of batches or an "
            f"iterable of examples, got a {type(examples).__name__}."
        )
    else:
        yield from map(_as_arrays, examples)


def rows_of_batch(batch: Any) -> Iterator[dict[str, np.ndarray]]:
    """The examples of a batch, an array or a dict of arrays of equal length."""
    arrays = _as_arrays(batch)
    lengths = {name: array.shape[:1] for name, array in arrays.items()}
    if len(set(lengths.values())) != 1 or () in lengths.values():
        raise ValueError(f"The arrays must have a first axis of one length, got {lengths}.")
    for i in range(next(iter(lengths.values()))[0]):
        yield {name: array[i] for name, array in arrays.items()}


def _as_arrays(values: Any) -> dict[str, np.ndarray]:
    if isinstance(values, tuple):
        raise ValueError(
            f"An example must be an array or a dict of arrays, no tuple. {_PAIRS_CURE}"
        )
    if not isinstance(values, Mapping):
        values = {ALONE: values}
    elif not values or not all(isinstance(name, str) and name for name in values):
        raise ValueError(f"The names of features must be strings, got {list(values)}.")
    return {name: np.asarray(value) for name, value in values.items()}


def _check_dataset(dataset: tf.data.Dataset) -> None:
    if isinstance(dataset.element_spec, tuple):
        raise ValueError(
            f"`examples` is a dataset of tuples, whose parts have no names. {_PAIRS_CURE}"
        )
    check_ends("`examples`", dataset)
