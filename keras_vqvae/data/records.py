"""Reading TFRecord files of examples of any kind: pictures, sound, episodes, codes.

A folder of records holds TFRecord files and `records.json`, which is written last: names, dtypes
and shapes of the features, and how many examples and bytes each file has. A folder without it is
unfinished. Up to 64 files hold the examples in turn (format 1); more files hold consecutive
examples (format 2), because in-turn files must all be open at once to be read in order.

Each example is a `tf.train.Example` that has for each feature the bytes of its values, little
end first (`value/<name>`), and its shape (`shape/<name>`).
"""

from __future__ import annotations

import json
import os
import warnings
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_vqvae.data.order import Order, check_batch_size, check_shard
from keras_vqvae.paths import AnyPath, any_path, file_size

SIDECAR = "records.json"
IN_TURN, CONSECUTIVE = 1, 2
# The name of the only feature where examples are arrays.
ALONE = ""
# Elements of the shuffle buffer: at most so many, and about so many bytes.
_SHUFFLE_BUFFER, _SHUFFLE_BYTES = 16384, 256 * 2**20
_OPEN_FILES = 16
_AUTOTUNE = tf.data.AUTOTUNE


def from_records(
    folder: str | os.PathLike,
    batch_size: int | None = 32,
    *,
    seed: int | None = None,
    repeat: bool = False,
    shard: tuple[int, int] | None = None,
) -> tf.data.Dataset:
    """Batches of the examples that `write_records` wrote, read from the files as they are needed.

    Args:
        folder: what `write_records` wrote, here or where TensorFlow reads it, such as
            `gs://bucket/records`.
        batch_size: examples in a batch, or None for single examples.
        seed: None for the order in which they were written, an integer to reorder them for each
            epoch: the files are shuffled, up to 16 of them are read in turn, and the examples are
            shuffled through a buffer of 16,384 examples or about 256 MiB, whichever is less.
        repeat: whether to go on without end; batches then run across the borders of epochs.
        shard: `(index, count)` for this worker's files `index, index + count, ...`, or None for
            all of them. The global batches then hold other examples than on one device.

    Returns:
        A dataset of what was written: tensors `(batch, ...)`, or dicts of them. With a seed it has
        `start_at`, as described in `keras_vqvae.data.images`; what is left out is read but not
        decoded. Without, the graph is free of Python, so that tf.data service can serve it (with
        `repeat=True`: a server's part of an epoch has not the number of examples that is asserted).

    Raises:
        ValueError: the folder is missing or unfinished, a file is missing or of another size, the
            examples differ in shape and cannot be batched, there are fewer files than workers, or
            an argument is out of range. The message names the folder or file.
    """
    if batch_size is not None:
        check_batch_size(batch_size)
    index, count = check_shard(shard, batch_size or 0)
    folder = any_path(folder, "folder")
    sidecar = read_sidecar(folder)
    if len(sidecar["files"]) < count:
        raise ValueError(
            f"`shard`: {count} workers need as many files, but {folder} has "
            f"{len(sidecar['files'])}. Write it with `num_files={count}` or more."
        )
    features = sidecar["features"]
    ragged = [name or "examples" for name, f in features.items() if None in f["shape"]]
    if batch_size is not None and ragged:
        raise ValueError(
            f"The examples in {folder} differ in shape ({', '.join(ragged)}) and cannot be "
            "batched. Take them one by one with `batch_size=None`, crop them to one shape with "
            "`map` and call `batch`, or call `padded_batch`."
        )
    if len(sidecar["files"]) % count:
        warnings.warn(
            f"the {len(sidecar['files'])} files of {folder} do not go evenly to {count} workers: "
            "some will wait for others at the end of an epoch. Write a multiple of it",
            stacklevel=2,
        )
    files = sidecar["files"][index::count]
    _check_sizes(folder, files)
    if not _total(files):
        raise ValueError(f"`shard`: the files of worker {index} in {folder} hold no example.")

    # Workers' files may differ by an example; `fit` counts the steps of the worker with the most.
    most = max(_total(sidecar["files"][i::count]) for i in range(count))
    order = Order(count * most, batch_size, seed, repeat, shard)
    paths = [os.fsencode(folder / file["name"]) for file in files]  # names need not be UTF-8
    sources = tf.data.Dataset.from_tensor_slices(paths)
    if seed is not None:
        serialized = _reordered(order, sources, files)
    else:
        in_turn = len(files) if sidecar["format"] == IN_TURN else 1
        serialized = _read_in_turn(sources, in_turn)
        if repeat:
            serialized = serialized.repeat()
        elif count == 1:
            serialized = serialized.apply(tf.data.experimental.assert_cardinality(order.size))
    if batch_size is None:
        examples = serialized.map(lambda one: _first(_parse(features, one[None])), _AUTOTUNE)
    else:
        examples = serialized.batch(batch_size).map(lambda x: _parse(features, x), _AUTOTUNE)
    return order.finish(examples)


def check_records(folder: str | os.PathLike) -> None:
    """Reads all records once, against their checksums.

    Args:
        folder: what `write_records` wrote.

    Raises:
        ValueError: the folder is missing or unfinished, or a file is missing or damaged; the
            message names it.
    """
    folder = any_path(folder, "folder")
    files = read_sidecar(folder)["files"]
    _check_sizes(folder, files)
    damaged = []
    bar = keras.utils.Progbar(len(files), unit_name="file")
    for file in files:
        records = tf.data.TFRecordDataset([os.fsencode(folder / file["name"])])
        try:
            found = int(records.reduce(np.int64(0), lambda count, _: count + 1))
            if found != file["examples"]:
                damaged.append(f"{file['name']} ({found} of {file['examples']} examples)")
        except tf.errors.DataLossError as error:
            damaged.append(f"{file['name']} ({str(error.message).splitlines()[0]})")
        bar.add(1)
    if damaged:
        raise ValueError(f"{folder} holds damaged records: {'; '.join(damaged)}.")


# Reading.


def _total(files: list[dict]) -> int:
    return sum(file["examples"] for file in files)


def _read_in_turn(paths: tf.data.Dataset, open_files: int) -> tf.data.Dataset:
    # All in-turn files open, this is the order in which they were written. Not in parallel: threads
    # that come and go allocate from many arenas, and glibc keeps what each had at its most (one
    # and a half gigabytes after ten read through the shuffle buffer), for no gain in speed.
    return paths.interleave(tf.data.TFRecordDataset, open_files)


def _reordered(order: Order, paths: tf.data.Dataset, files: list[dict]) -> tf.data.Dataset:
    own = _total(files)
    bytes_each = sum(file["bytes"] for file in files) // own
    buffer = max(1, min(_SHUFFLE_BUFFER, _SHUFFLE_BYTES // bytes_each))

    def epoch(number):
        shuffled = order.shuffled(paths, number, len(files))
        examples = _read_in_turn(shuffled, min(len(files), _OPEN_FILES))
        return order.shuffled(examples, number, buffer)

    # Of each global batch these files give this worker's part.
    return order.epochs(epoch, own, (order.batch_size or order.count) // order.count)


def _parse(features: dict[str, dict], serialized: tf.Tensor) -> Any:
    """Examples `(batch, ...)` of `(batch,)` strings; of one string where shapes differ."""
    wanted = {}
    for name, feature in features.items():
        wanted[f"value/{name}"] = tf.io.FixedLenFeature((), tf.string)
        if None in feature["shape"]:
            rank = len(feature["shape"])
            wanted[f"shape/{name}"] = tf.io.FixedLenFeature((rank,), tf.int64)
    parsed = tf.io.parse_example(serialized, wanted)
    batch = tf.shape(serialized, tf.int64)
    examples = {}
    for name, feature in features.items():
        values = tf.io.decode_raw(parsed[f"value/{name}"], feature["stored"])
        shape = parsed[f"shape/{name}"][0] if None in feature["shape"] else feature["shape"]
        values = tf.reshape(values, tf.concat([batch, tf.cast(shape, tf.int64)], 0))
        values = tf.ensure_shape(values, (None, *feature["shape"]))
        examples[name] = tf.cast(values, feature["dtype"])
    return examples.get(ALONE, examples)


def _first(examples: Any) -> Any:
    return tf.nest.map_structure(lambda leaf: leaf[0], examples)


def is_finished(folder: AnyPath) -> bool:
    """Whether `folder` holds records, written to their end."""
    return (folder / SIDECAR).is_file()


def read_sidecar(folder: AnyPath) -> dict:
    """What `records.json` says; `ValueError` where it is missing, damaged or of another format."""
    path = folder / SIDECAR
    if not is_finished(folder):
        raise ValueError(
            f"{folder} holds no {SIDECAR}: it is no folder of records, or writing them was not "
            "finished. Write them (again) with `write_records`."
        )
    try:
        sidecar = json.loads(path.read_bytes())
        found = sidecar["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error!r}). Write the records again.") from error
    if found not in (IN_TURN, CONSECUTIVE):
        raise ValueError(
            f"{path} has the format {found!r}; this version reads {IN_TURN} and {CONSECUTIVE}."
        )
    return sidecar


def _check_sizes(folder: AnyPath, files: list[dict]) -> None:
    for file in files:
        path = folder / file["name"]
        if not path.is_file():
            raise ValueError(f"{path} is missing. Copy the folder whole, or write it again.")
        size = file_size(path)
        if size != file["bytes"]:
            raise ValueError(
                f"{path} has {size} bytes instead of {file['bytes']}: it was cut off or changed. "
                "Copy it again, or write the records again."
            )
