"""The codes of a data set, of pictures or of sound, encoded once and kept as records."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_vqvae.data.records import ALONE, is_finished, read_sidecar
from keras_vqvae.data.records_writer import rows_of_batch, write
from keras_vqvae.models.base import check_ends
from keras_vqvae.paths import any_path

_BATCH = 64


def encode_to_records(
    vqvae: Any, data: Any, folder: str | os.PathLike, num_files: int = 16
) -> None:
    """Encodes pictures or sound batch by batch, and keeps their codes as records.

    `from_records(folder, 32, seed=0)` is then what `PixelCNN.fit` or `WaveNet.fit` takes. Called
    again with the same weights and as much data it returns at once.

    Args:
        vqvae: a built `VQVAE` or an `AudioVQVAE`.
        data: what `vqvae` takes, whole or as a `tf.data.Dataset` of batches. Pictures: uint8
            `(n, height, width, channels)`; in a dataset also pairs (pictures, labels). Sound:
            float32 `(n, samples)`, or a dict of `waveform` and perhaps `speaker` and `length`.
        folder: a new or empty folder, or what an earlier call left there.
        num_files: as in `write_records`.

    Writes examples int32 `(*grid_shape,)`, of sound `(codes,)`; or `{"codes", "condition"}` where
    there are labels or speakers. Where `length` says what of a clip is no padding, only the codes
    of that are kept, and examples may differ in length: docs/input.md shows how they become
    batches. Where there are at most 65,536 codes they take two bytes each.

    Raises:
        ValueError: `data` is no data for `vqvae` or endless, its rate or speakers are not the
            model's, or `folder` holds codes of another model or other data, or something else.
    """
    place = any_path(folder, "folder")
    is_dataset = isinstance(data, tf.data.Dataset)
    check_ends("`data`", data)
    count = int(data.cardinality()) if is_dataset else len(_main_part(data))
    vqvae.check_facts(data)
    spec = data.element_spec if is_dataset else data
    of_what = fingerprint(vqvae, count, sorted(spec) if isinstance(spec, Mapping) else ())
    if is_finished(place):
        if read_sidecar(place).get("fingerprint") == of_what:
            return
        raise ValueError(
            f"`folder` {place} holds the codes of another model or other data, or other records: "
            "remove it or name another."
        )
    labelled = isinstance(spec, tuple) or (isinstance(spec, Mapping) and "speaker" in spec)
    stored = {"codes" if labelled else ALONE: "uint16" if vqvae.num_codes <= 65536 else "int32"}
    total = None if is_dataset else count
    rows = _rows(vqvae, data if is_dataset else _slices(data))
    write(rows, place, num_files, total=total, stored=stored, fingerprint=of_what)


def _main_part(data: Any) -> Any:
    if not isinstance(data, Mapping):
        return data
    if "waveform" not in data or not set(data) <= {"waveform", "speaker", "length"}:
        raise ValueError(
            "`data`: a dict must be of sound, with `waveform` and perhaps `speaker` and `length`, "
            f"got {sorted(map(str, data))}."
        )
    return data["waveform"]


def _slices(data: Any) -> Iterator[Any]:
    for start in range(0, len(_main_part(data)), _BATCH):
        part = slice(start, start + _BATCH)
        if isinstance(data, Mapping):
            yield {name: values[part] for name, values in data.items()}
        else:
            yield data[part]


def _rows(vqvae: Any, batches: Any) -> Iterator[dict[str, np.ndarray]]:
    for batch in batches:
        if isinstance(batch, Mapping):
            yield from _rows_of_sound(vqvae, batch)
            continue
        images, *labels = batch if isinstance(batch, tuple) else (batch,)
        codes = keras.ops.convert_to_numpy(vqvae.encode(images))
        if len(labels) > 1:
            raise ValueError(f"`data` must give pictures or (pictures, labels), got {len(batch)}.")
        yield from rows_of_batch({"codes": codes, "condition": labels[0]} if labels else codes)


def _rows_of_sound(vqvae: Any, batch: Mapping[str, Any]) -> Iterator[dict[str, np.ndarray]]:
    given = {name: batch[name] for name in ("waveform", "length") if name in batch}
    codes = keras.ops.convert_to_numpy(vqvae.encode(given))
    if vqvae.num_speakers is not None and "speaker" in batch:
        vqvae.check_speaker(batch["speaker"], len(codes))
    parts = {name: keras.ops.convert_to_numpy(batch[name]) for name in batch if name != "waveform"}
    examples = {"codes": codes, "condition": parts["speaker"]} if "speaker" in parts else codes
    for number, row in enumerate(rows_of_batch(examples)):
        if "length" in parts:  # the last code may stand for a part only
            name = "codes" if "codes" in row else ALONE
            row[name] = row[name][: -(-int(parts["length"][number]) // vqvae.downsampling)]
        yield row


def fingerprint(vqvae: Any, count: int, parts: Sequence[str] = ()) -> str:
    """Of what decides the codes: the networks' weights, and how much data there is.

    `count` is a number of pictures, or of batches, below zero where it is not known; `parts` are
    what an example has, where it is a dict.
    """
    described = [str(vqvae.num_codes), str(vqvae.grid_shape), str(count), *parts]
    digest = hashlib.sha256(" ".join(described).encode())
    for weight in (*vqvae.encoder.weights, *vqvae.quantizer.weights):
        values = keras.ops.convert_to_numpy(weight)
        digest.update(f"{values.dtype} {values.shape}".encode())
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()
