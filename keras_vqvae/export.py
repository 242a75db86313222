"""SavedModels that answer the same numbers without this package."""

import os
import shutil
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from keras_vqvae.models.vqvae import VQVAE


def export_savedmodel(vqvae: VQVAE, path: str | os.PathLike) -> None:
    """Writes a SavedModel with the endpoints `encode`, `decode` and `reconstruct`.

    Endpoints take and give named tensors of any batch size, an empty one included:

    - `encode`: `images` uint8 `(batch, height, width, channels)` to `codes` int32
      `(batch, *grid_shape)`;
    - `decode`: `codes` to `images`, uint8;
    - `reconstruct` (also `serving_default`): `images` to `images` and `codes`.

    Shapes and the range of codes are checked inside the graph: a bad request is answered
    INVALID_ARGUMENT, with a message that says what came and what was expected. No endpoint writes
    a variable or calls Python, and all ops are TensorFlow's own.

    ```python
    export_savedmodel(vqvae, "served/doom/1")
    served = tf.saved_model.load("served/doom/1")
    codes = served.signatures["encode"](images=tf.constant(images))["codes"]
    ```

    Call the `signatures`, with tensors, as a server does: `served.encode(array)` works too, but
    there TensorFlow casts an array of another dtype in silence.

    Args:
        vqvae: a built model.
        path: folder to write; must not exist or be empty. TensorFlow Serving expects
            `name/version`.

    Raises:
        ValueError: the model is not built, or `path` is not empty or cannot be written.
    """
    if not isinstance(vqvae, VQVAE) or not vqvae.built:
        raise ValueError(
            f"vqvae must be a built VQVAE (fit it, or call it on a batch), got {vqvae!r}"
        )
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            "export_savedmodel needs the TensorFlow backend: save the weights, and export from a "
            "process with KERAS_BACKEND=tensorflow"
        )
    path = Path(path)
    _check_folder(path)

    def encode(images: tf.Tensor) -> dict:
        return {"codes": vqvae.encode(_checked_images(images, vqvae))}

    def decode(codes: tf.Tensor) -> dict:
        return {"images": vqvae.decode(_checked_codes(codes, vqvae))}

    def reconstruct(images: tf.Tensor) -> dict:
        codes = vqvae.encode(_checked_images(images, vqvae))
        return {"images": vqvae.decode(codes), "codes": codes}

    # Sides are left open so that a wrong one reaches the check and its message.
    images = tf.TensorSpec((None, None, None, None), tf.uint8, "images")
    codes = tf.TensorSpec((None,) * (1 + len(vqvae.grid_shape)), tf.int32, "codes")
    archive = keras.export.ExportArchive()
    archive.track(vqvae)
    archive.add_endpoint("reconstruct", reconstruct, [images])  # the first is serving_default
    archive.add_endpoint("encode", encode, [images])
    archive.add_endpoint("decode", decode, [codes])
    # Renamed when whole: an interrupted export leaves nothing that looks like a model.
    unfinished = path.with_name(f".{path.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        archive.write_out(str(unfinished), verbose=False)
        unfinished.replace(path)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _check_folder(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        taken = path.exists() and (not path.is_dir() or any(path.iterdir()))
    except OSError as error:
        raise ValueError(f"path: cannot write a SavedModel to {path}: {error}") from error
    if taken:
        raise ValueError(f"path: {path} is not empty; give a new folder, such as the next version")
    if not os.access(path.parent, os.W_OK):
        raise ValueError(f"path: {path.parent} is not writable")


def _checked_shape(name: str, x: tf.Tensor, shape: Any) -> tf.Tensor:
    expected = ", ".join(map(str, shape))
    # Compared as text: numbers of a wrong rank would fail on the way with a message of their own.
    got = tf.strings.reduce_join(tf.strings.as_string(tf.shape(x)[1:]), separator=", ")
    message = f"{name} must have shape (batch, {expected}), got (batch, "
    check: Any = tf.debugging.Assert(got == expected, [message, got, ")"])
    with tf.control_dependencies([check]):
        return tf.reshape(x, (tf.shape(x)[0], *shape))


def _checked_images(images: tf.Tensor, vqvae: VQVAE) -> tf.Tensor:
    return _checked_shape("images", images, vqvae.image_shape)


def _checked_codes(codes: tf.Tensor, vqvae: VQVAE) -> tf.Tensor:
    codes = _checked_shape("codes", codes, vqvae.grid_shape)
    inside = tf.reduce_all((codes >= 0) & (codes < vqvae.num_codes))
    message = f"codes must be in [0, {vqvae.num_codes}), got values between"
    low, high = tf.reduce_min(codes), tf.reduce_max(codes)
    check: Any = tf.debugging.Assert(inside, [message, low, high])
    with tf.control_dependencies([check]):
        return tf.identity(codes)
