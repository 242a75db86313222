"""`tf.data` pipelines of images: uint8 `(batch, height, width, channels)`, never floats.

Every pipeline keeps the last, smaller batch, prefetches, and knows its cardinality.

Order. With `seed=None` a pipeline goes through the data in order. With an integer it reshuffles
for each epoch, and epoch number k has the order that `(seed, k)` decides and nothing else: not the
global seed, not what ran before. Epochs count the iterations over the returned dataset from 0;
with `repeat=True` they count within one iterator.

Resuming. A seeded dataset has the function `start_at(epoch, batch)`: the next iteration is that of
number `epoch`, without its first `batch` batches, which are not even read; those after it are the
following epochs, whole. With `repeat=True` it is `start_at(0, batches since the beginning)`.
(`map` and the like make new datasets: keep the one that has `start_at`.)

Several workers. With `shard=(index, count)` a worker reads and decodes its own part of each global
batch only, for `fit` under `tf.distribute.MultiWorkerMirroredStrategy`; `data.this_worker()` says
which. `batch_size` and the cardinality are those of the global batches, which are row for row
those of one device.
"""

from __future__ import annotations

import concurrent.futures
import difflib
import os
import pathlib
import warnings
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_vqvae.data.extras import how_to_install, import_extra
from keras_vqvae.data.files import find_files
from keras_vqvae.data.image_files import SUFFIXES, ImageFile, decode, inspect, upright
from keras_vqvae.data.order import Order, check_batch_size, check_shard
from keras_vqvae.paths import any_path, local_path, shown

# TensorFlow Datasets are shuffled while still encoded, so this many take little memory.
_SHUFFLE_BUFFER = 16384


def from_array(
    images: np.ndarray,
    batch_size: int = 32,
    *,
    labels: np.ndarray | None = None,
    seed: int | None = None,
    repeat: bool = False,
    shard: tuple[int, int] | None = None,
) -> tf.data.Dataset:
    """Batches of images that are in memory.

    Args:
        images: uint8 `(n, height, width, channels)`, n > 0.
        batch_size: images in a batch.
        labels: integers `(n,)`, or None.
        seed: None for the order of `images`, an integer to reshuffle for each epoch.
        repeat: whether to go on without end; batches then run across the borders of epochs, so
            all have `batch_size` images.
        shard: `(index, count)` for this worker's part of every batch, or None for all of it.

    Returns:
        A dataset of uint8 `(batch, height, width, channels)`, or with `labels` of pairs of that
        and int32 `(batch,)`.

    Raises:
        ValueError: `images` has another rank or dtype or is empty, `labels` does not match, or
            another argument is out of range.
    """
    check_batch_size(batch_size)
    images = _check_images(images)
    # The data stays in host memory however large it is; batches are gathered from it.
    with tf.device("CPU"):
        arrays = [tf.convert_to_tensor(images)]
        if labels is not None:
            arrays.append(tf.convert_to_tensor(_check_labels(labels, len(images))))
    order = Order(len(images), batch_size, seed, repeat, shard)
    indices = order.elements(tf.data.Dataset.range(len(images)))

    def gather(rows):
        batch = tuple(tf.gather(array, rows) for array in arrays)
        return batch if labels is not None else batch[0]

    return order.finish(indices.batch(batch_size).map(gather, tf.data.AUTOTUNE))


def from_folder(
    folder: str | os.PathLike,
    image_size: Sequence[int],
    batch_size: int = 32,
    *,
    channels: int = 3,
    seed: int | None = None,
    skip_corrupt: bool = False,
    labels: bool = False,
    shard: tuple[int, int] | None = None,
) -> tf.data.Dataset:
    """Batches of the JPEG, PNG, BMP, GIF and WebP files in a folder and all folders below it.

    Every file is decoded once beforehand, so that a corrupt one is reported by name now and does
    not end a training run later. An image is turned upright as its EXIF data says, cropped at its
    centre to the aspect ratio of `image_size` and resized by area averaging, which does not alias.
    The first image of an animation is taken, transparency is dropped, and the upper 8 of 16 bits
    are kept; a warning counts files of 16 bits that are nearly black because they hold 12.
    Hidden files and folders are left out; a warning counts files of other kinds by their ending.
    BMP, GIF and WebP files need Pillow: `pip install ".[examples]"` in a checkout.

    Args:
        folder: where the files are.
        image_size: `(height, width)`.
        batch_size: images in a batch.
        channels: 3 for RGB or 1 for grey.
        seed: None for the order of the sorted paths, an integer to reshuffle for each epoch.
        skip_corrupt: whether to leave out corrupt files, with a warning that counts them.
        labels: whether to yield labels too. The class of a file is the first folder below
            `folder` on the way to it; classes are numbered in sorted order, whether or not their
            files are corrupt, and are the attribute `class_names` of the returned dataset.
        shard: `(index, count)` for this worker's part of every batch, or None for all of it.

    Returns:
        A dataset of uint8 `(batch, height, width, channels)`, or with `labels` of pairs of that
        and int32 `(batch,)`.

    Raises:
        ValueError: the folder is missing or has no usable image; a file is corrupt and not
            `skip_corrupt`; `labels` is asked for and a file lies in no sub-folder; or an argument
            is out of range. The message names the folder or files.
        ImportError: Pillow is needed and is not installed.
    """
    check_batch_size(batch_size)
    check_shard(shard, batch_size)
    size = _check_image_size(image_size)
    if channels not in (1, 3):
        raise ValueError(f"`channels` must be 1 or 3, got {channels!r}.")
    folder = local_path(folder, "folder")
    files = find_files(folder, SUFFIXES, "image")
    class_names = _class_names(folder, files) if labels else []
    found = _inspect_all(files)
    _report_corrupt(folder, found, skip_corrupt)
    usable = {file: image for file, image in found.items() if image.problem is None}
    if not usable:
        raise ValueError(f"`folder` {shown(folder)} holds no image that can be decoded.")
    _report_dark(folder, usable)

    elements: list[Any] = [
        [os.fsencode(file) for file in usable],  # names need not be UTF-8
        np.array([image.orientation for image in usable.values()], np.int32),
    ]
    if labels:
        ids = [class_names.index(_class_of(folder, file)) for file in usable]
        elements.append(np.array(ids, np.int32))
    with_pillow = any(image.needs_pillow for image in usable.values())

    def load(path, orientation, *label):
        image = upright(decode(tf.io.read_file(path), with_pillow), orientation)
        image = _crop_and_resize(_as_channels(image, channels), size)
        image = tf.ensure_shape(image, (*size, channels))
        return (image, *label) if label else image

    order = Order(len(usable), batch_size, seed, shard=shard)
    dataset = order.elements(tf.data.Dataset.from_tensor_slices(tuple(elements)))
    dataset = order.finish(dataset.map(load, tf.data.AUTOTUNE).batch(batch_size))
    if labels:
        dataset.class_names = class_names
    return dataset


def check_folder(
    folder: str | os.PathLike,
) -> tuple[list[pathlib.Path], list[pathlib.Path]]:
    """Decodes every image in a folder and all folders below it.

    Args:
        folder: where the files are.

    Returns:
        `(good, corrupt)`: the sorted paths of the files that can be decoded, and of the others.

    Raises:
        ValueError: the folder is missing or holds no image file; the message names it.
    """
    found = _inspect_all(find_files(local_path(folder, "folder"), SUFFIXES, "image"))
    corrupt = [file for file, image in found.items() if image.problem is not None]
    return [file for file in found if file not in set(corrupt)], corrupt


def from_tfds(
    name: str,
    split: str = "train",
    image_size: Sequence[int] | None = None,
    batch_size: int = 32,
    *,
    data_dir: str | os.PathLike | None = None,
    seed: int | None = None,
    labels: bool = False,
    shard: tuple[int, int] | None = None,
) -> tf.data.Dataset:
    """Batches of the feature `image` of one of the TensorFlow Datasets.

    The data set is downloaded and prepared if it is not there yet.

    Args:
        name: as TensorFlow Datasets has it, for example `"cifar10"`.
        split: for example `"train"` or `"train[:90%]"`.
        image_size: `(height, width)` to crop and resize to, as in `from_folder`; needed where the
            images differ in size.
        batch_size: images in a batch.
        data_dir: where the data sets are kept; by default where TensorFlow Datasets keeps them.
        seed: None for the order on disk, an integer to reshuffle for each epoch, through a buffer
            of 16,384 images where there are more.
        labels: whether to yield the feature `label` too.
        shard: `(index, count)` for this worker's part of every batch, or None for all of it.

    Returns:
        A dataset of uint8 `(batch, height, width, channels)`, or with `labels` of pairs of that
        and int32 `(batch,)`.

    Raises:
        ValueError: there is no such data set, split or feature, its images are not uint8, or they
            differ in size and `image_size` is None; or an argument is out of range.
        ImportError: TensorFlow Datasets is not installed, or cannot be imported.
    """
    check_batch_size(batch_size)
    check_shard(shard, batch_size)
    builder = tfds_builder(name, data_dir)
    _check_feature(builder, "image")
    builder.download_and_prepare()
    size = _tfds_image_size(builder, image_size)
    keys = ("image", "label") if labels else ("image",)
    for key in keys:
        _check_feature(builder, key)
    # Images stay encoded until after the shuffling: its buffer is then small.
    encoded = _tfds_encoded(builder, split)
    encoded = encoded.map(lambda example: {key: example[key] for key in keys})
    feature = builder.info.features["image"]
    channels = feature.shape[-1] or 3

    def load(example):
        image = _as_channels(feature.decode_example(example["image"]), channels)
        if image_size is not None:
            image = _crop_and_resize(image, size)
        image = tf.ensure_shape(image, (*size, channels))
        return (image, tf.cast(example["label"], tf.int32)) if labels else image

    order = Order(int(encoded.cardinality()), batch_size, seed, shard=shard)
    dataset = order.elements(encoded, _SHUFFLE_BUFFER)
    return order.finish(dataset.map(load, tf.data.AUTOTUNE).batch(batch_size))


# Checks of arguments.


def _check_image_size(image_size: Sequence[int]) -> tuple[int, int]:
    is_pair = isinstance(image_size, Sequence) and len(image_size) == 2
    if not is_pair or any(not isinstance(n, (int, np.integer)) or n < 1 for n in image_size):
        raise ValueError(
            f"`image_size` must be (height, width), two positive integers, got {image_size!r}."
        )
    return int(image_size[0]), int(image_size[1])


def _check_images(images: np.ndarray) -> np.ndarray:
    images = np.asarray(images)
    if images.dtype != np.uint8:
        raise ValueError(
            f"`images` must be uint8, got {images.dtype}. {_cure(images)} The models scale images "
            "themselves, so that it is part of what they export."
        )
    if images.ndim != 4:
        hint = " For grey images use `images[..., None]`." if images.ndim == 3 else ""
        raise ValueError(
            f"`images` must have the shape (n, height, width, channels), got {images.shape}.{hint}"
        )
    if images.size == 0:
        raise ValueError(f"`images` must not be empty, got the shape {images.shape}.")
    return images


def _cure(images: np.ndarray) -> str:
    if not np.issubdtype(images.dtype, np.floating):
        return "Cast them with `images.astype('uint8')` if all values are from 0 to 255."
    low, high = (float(images.min()), float(images.max())) if images.size else (0.0, 1.0)
    if low >= 0 and high <= 1:
        how, code = "multiply by 255", "(images * 255)"
    elif low >= -1 and high <= 1:
        how, code = "add 1 and multiply by 127.5", "((images + 1) * 127.5)"
    else:
        how, code = "bring them into 0..255", "images.clip(0, 255)"
    return (
        f"The values run from {low:g} to {high:g}: {how}, round and cast to uint8, "
        f"`{code}.round().astype('uint8')`."
    )


def _check_labels(labels: np.ndarray, count: int) -> np.ndarray:
    labels = np.asarray(labels)
    if labels.shape != (count,) or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"`labels` must be integers of shape ({count},), one an image, "
            f"got {labels.dtype} of shape {labels.shape}."
        )
    return labels.astype(np.int32)


# These run in the graph of the pipeline.


def _as_channels(image: tf.Tensor, channels: int) -> tf.Tensor:
    if image.shape[-1] == channels:
        return image
    if image.shape[-1] != 3:  # grey or RGB, with or without alpha; mostly known only when it runs
        image = tf.cond(
            tf.shape(image)[-1] < 3,
            lambda: tf.repeat(image[..., :1], 3, axis=-1),
            lambda: image[..., :3],
        )
        image = tf.ensure_shape(image, (None, None, 3))
    return tf.image.rgb_to_grayscale(image) if channels == 1 else image


def _crop_and_resize(image: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    height, width = tf.shape(image)[0], tf.shape(image)[1]
    crop_height = tf.clip_by_value(_rounded_ratio(width * size[0], size[1]), 1, height)
    crop_width = tf.clip_by_value(_rounded_ratio(height * size[1], size[0]), 1, width)
    top, left = (height - crop_height) // 2, (width - crop_width) // 2
    image = image[top : top + crop_height, left : left + crop_width]
    resized = tf.image.resize(image, size, method="area")
    return tf.cast(tf.clip_by_value(tf.round(resized), 0, 255), tf.uint8)


def _rounded_ratio(numerator: tf.Tensor, denominator: int) -> tf.Tensor:
    return (2 * numerator + denominator) // (2 * denominator)


# Folders.


def _class_of(folder: pathlib.Path, file: pathlib.Path) -> str:
    return file.relative_to(folder).parts[0]


def _class_names(folder: pathlib.Path, files: list[pathlib.Path]) -> list[str]:
    loose = [file for file in files if file.parent == folder]
    if loose:
        raise ValueError(
            f"With `labels=True` every image must lie in a sub-folder of {folder} that is named "
            f"after its class; {len(loose)} do not, for example {loose[0].name}."
        )
    return sorted({_class_of(folder, file) for file in files})


def _inspect_all(files: list[pathlib.Path]) -> dict[pathlib.Path, ImageFile]:
    """Decodes all files, a few at a time."""
    bar = keras.utils.Progbar(len(files), unit_name="file")
    found = {}
    with concurrent.futures.ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for file, image in zip(files, pool.map(inspect, files), strict=True):
            found[file] = image
            bar.add(1)
    return found


def _report_corrupt(
    folder: pathlib.Path, found: dict[pathlib.Path, ImageFile], skip_corrupt: bool
) -> None:
    problems = [f"{file} ({image.problem})" for file, image in found.items() if image.problem]
    if not problems:
        return
    more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
    listed = shown("; ".join(problems[:3]))
    text = f"{len(problems)} image files in {shown(folder)} cannot be decoded: {listed}{more}."
    if not skip_corrupt:
        raise ValueError(f"{text} Repair or remove them, or leave them out: `skip_corrupt=True`.")
    warnings.warn(f"{text} They are left out; `check_folder` lists them.", stacklevel=3)


def _report_dark(folder: pathlib.Path, found: dict[pathlib.Path, ImageFile]) -> None:
    """Warns of files of 16 bits that use less than a quarter of them, such as 12 bits."""
    dark = {file: image.brightest for file, image in found.items() if image.brightest}
    dark = {file: value for file, value in dark.items() if value < 2**14}
    if dark:
        file, value = next(iter(dark.items()))
        warnings.warn(
            f"{len(dark)} PNG files of 16 bits in {shown(folder)} are nearly black, such as "
            f"{shown(file)}, whose greatest value is {value} of 65535. If they hold fewer bits, "
            "scale their values to 16.",
            stacklevel=3,
        )


# TensorFlow Datasets.


def import_tfds() -> Any:
    """Returns TensorFlow Datasets; raises `ImportError` where it cannot be imported."""
    tfds = import_extra("tensorflow_datasets", "TensorFlow Datasets", "examples")
    # Where one of its own imports fails it logs that, and leaves an empty module behind.
    if not hasattr(tfds, "builder"):
        raise ImportError(
            "tensorflow-datasets is installed but cannot be imported (its log message says why). "
            "With TensorFlow before 2.18 the usual reason is a tensorflow-metadata made for a "
            'newer protobuf: pip install "tensorflow-metadata<1.17". To install anew: '
            + how_to_install("examples")
        )
    return tfds


def tfds_builder(name: str, data_dir: str | os.PathLike | None) -> Any:
    """Returns the builder of one of the TensorFlow Datasets.

    Raises:
        ValueError: there is no such data set; the message names those of a similar name.
        ImportError: TensorFlow Datasets is not installed, or cannot be imported.
    """
    tfds = import_tfds()
    place = None if data_dir is None else str(any_path(data_dir, "data_dir"))
    try:
        return tfds.builder(name, data_dir=place)
    except tfds.core.DatasetNotFoundError:
        close = difflib.get_close_matches(name.partition("/")[0], tfds.list_builders(), n=3)
        hint = f" Close to it: {', '.join(close)}." if close else ""
        # Not "from" the error, which would print the names of all data sets.
        raise ValueError(f"`name` {name!r} is no TensorFlow Dataset.{hint}") from None


def _check_feature(builder, key: str) -> None:
    found = list(builder.info.features)
    if key not in found:
        raise ValueError(f"{builder.name} has no feature {key!r}; it has {found}.")


def _tfds_image_size(builder, image_size: Sequence[int] | None) -> tuple[int, int]:
    feature = builder.info.features["image"]
    if feature.dtype != np.uint8 or len(feature.shape) != 3:
        raise ValueError(
            f"The images of {builder.name} must be uint8 (height, width, channels), "
            f"got {np.dtype(feature.dtype)} of shape {feature.shape}."
        )
    if image_size is not None:
        return _check_image_size(image_size)
    if None in feature.shape[:2]:
        raise ValueError(
            f"The images of {builder.name} differ in size: give `image_size=(height, width)`, "
            "got None."
        )
    return feature.shape[:2]


def _tfds_encoded(builder, split: str) -> tf.data.Dataset:
    decoders = {"image": import_tfds().decode.SkipDecoding()}
    try:
        return builder.as_dataset(split=split, decoders=decoders, shuffle_files=False)
    except (ValueError, KeyError) as error:
        raise ValueError(
            f"`split` {split!r} is none of {builder.name}, which has "
            f"{list(builder.info.splits)}: {error}"
        ) from error
