"""The codes of a data set, encoded once and kept as records."""

from __future__ import annotations

import hashlib
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_vqvae.data.records import ALONE, is_finished, read_sidecar
from keras_vqvae.data.records_writer import rows_of_batch, write

_BATCH = 64


def encode_to_records(
    vqvae: Any, data: Any, folder: str | os.PathLike, num_files: int = 16
) -> None:
    """Encodes pictures batch by batch, and keeps their codes as records.

    `from_records(folder, 32, seed=0)` is then what `PixelCNN.fit` takes. Called again with the same
    weights and as much data it returns at once.

    Args:
        vqvae: a built `VQVAE`.
        data: uint8 `(n, height, width, channels)`; a `tf.data.Dataset` of batches of such; or one
            of batches of pairs (pictures, labels).
        folder: a new or empty folder, or what an earlier call left there.
        num_files: as in `write_records`.

    Writes examples int32 `(*grid_shape,)`, or `{"codes", "condition"}` where there are labels.
    Where there are at most 65,536 codes they take two bytes each.

    Raises:
        ValueError: `data` is no data for `vqvae` or endless, or `folder` holds codes of another
            model or other data, or something else.
    """
    folder = pathlib.Path(folder)
    is_dataset = isinstance(data, tf.data.Dataset)
    count = int(data.cardinality()) if is_dataset else len(data)
    if is_dataset and count == tf.data.INFINITE_CARDINALITY:
        raise ValueError("`data` is an endless dataset: `take` as many batches as are wanted.")
    of_what = fingerprint(vqvae, count)
    if is_finished(folder):
        if read_sidecar(folder).get("fingerprint") == of_what:
            return
        raise ValueError(
            f"`folder` {folder} holds the codes of another model or other data, or other records: "
            "remove it or name another."
        )
    labelled = is_dataset and isinstance(data.element_spec, tuple)
    stored = {"codes" if labelled else ALONE: "uint16" if vqvae.num_codes <= 65536 else "int32"}
    total = None if is_dataset else count
    rows = _rows(vqvae, data if is_dataset else _slices(data))
    write(rows, folder, num_files, total=total, stored=stored, fingerprint=of_what)


def _slices(images: np.ndarray) -> Iterator[np.ndarray]:
    return (images[start : start + _BATCH] for start in range(0, len(images), _BATCH))


def _rows(vqvae: Any, batches: Any) -> Iterator[dict[str, np.ndarray]]:
    for batch in batches:
        images, *labels = batch if isinstance(batch, tuple) else (batch,)
        codes = keras.ops.convert_to_numpy(vqvae.encode(images))
        if len(labels) > 1:
            raise ValueError(f"`data` must give pictures or (pictures, labels), got {len(batch)}.")
        yield from rows_of_batch({"codes": codes, "condition": labels[0]} if labels else codes)


def fingerprint(vqvae: Any, count: int) -> str:
    """Of what decides the codes: the networks' weights, and how much data there is.

    `count` is a number of pictures, or of batches, below zero where it is not known.
    """
    digest = hashlib.sha256(f"{vqvae.num_codes} {vqvae.grid_shape} {count}".encode())
    for weight in (*vqvae.encoder.weights, *vqvae.quantizer.weights):
        values = keras.ops.convert_to_numpy(weight)
        digest.update(f"{values.dtype} {values.shape}".encode())
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()
