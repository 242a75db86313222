"""Checks of what is exported, and, inside graphs, of what endpoints are given."""

import os
import shutil
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf


def check_folder(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        taken = path.exists() and (not path.is_dir() or any(path.iterdir()))
    except OSError as error:
        raise ValueError(f"path: cannot write a SavedModel to {path}: {error}") from error
    if taken:
        raise ValueError(f"path: {path} is not empty; give a new folder, such as the next version")
    if not os.access(path.parent, os.W_OK):
        raise ValueError(f"path: {path.parent} is not writable")


def write_out(archive: keras.export.ExportArchive, path: str | os.PathLike) -> None:
    """Writes the archive to a folder, which appears when it is whole."""
    path = Path(path)
    # Renamed when whole: an interrupted export leaves nothing that looks like a model.
    unfinished = path.with_name(f".{path.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        archive.write_out(str(unfinished), verbose=False)
        unfinished.replace(path)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def checked_shape(name: str, x: tf.Tensor, shape: Any) -> tf.Tensor:
    """`x`, after a check that it is `(batch, *shape)`, where None is any number."""
    # Compared as text: numbers of a wrong rank would fail on the way with a message of their own.
    got = tf.strings.reduce_join(tf.strings.as_string(tf.shape(x)), separator=", ")
    pattern = ", ".join([r"\d+", *(r"\d+" if side is None else str(side) for side in shape)])
    expected = ", ".join(["batch", *("any" if side is None else str(side) for side in shape)])
    message = f"{name} must have shape ({expected}), got ("
    fits = tf.strings.regex_full_match(got, pattern)
    # Not the reshape waits for the check: TensorFlow drops one where another one follows.
    x = with_checks(x, [asserted(fits, message, got, tf.constant(")"))])
    sides = [tf.shape(x)[i] if side is None else side for i, side in enumerate((None, *shape))]
    return tf.reshape(x, sides)


def with_checks(x: tf.Tensor, checks: list) -> tf.Tensor:
    """`x`, once the checks have been made."""
    with tf.control_dependencies(checks):
        return tf.identity(x)


def asserted(condition: tf.Tensor, message: str, *values: tf.Tensor) -> Any:
    return tf.debugging.Assert(condition, [message, *values])


def checked_range(name: str, x: tf.Tensor, stop: int) -> tf.Tensor:
    inside = tf.reduce_all((x >= 0) & (x < stop))
    message = f"{name} must be in [0, {stop}), got values between"
    return with_checks(x, [asserted(inside, message, tf.reduce_min(x), tf.reduce_max(x))])


def checked_codes(codes: tf.Tensor, vqvae: Any) -> tf.Tensor:
    """Codes of the grid of a model, after a check of their shape and range."""
    codes = checked_shape("codes", codes, vqvae.grid_shape)
    return checked_range("codes", codes, vqvae.num_codes)
