"""SavedModels that answer the same numbers without this package."""

import os
import shutil
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from keras_vqvae import functional, sampling
from keras_vqvae.models.autoregressive import Autoregressive
from keras_vqvae.models.vqvae import VQVAE


def export_savedmodel(
    vqvae: VQVAE, path: str | os.PathLike, prior: Autoregressive | None = None
) -> None:
    """Writes a SavedModel with the endpoints `encode`, `decode` and `reconstruct`.

    With a prior also `sample` and `log_prob`.

    Endpoints take and give named tensors of any batch size, an empty one included:

    - `encode`: `images` uint8 `(batch, height, width, channels)` to `codes` int32
      `(batch, *grid_shape)`;
    - `decode`: `codes` to `images`, uint8;
    - `reconstruct` (also `serving_default`): `images` to `images` and `codes`;
    - `sample`: the scalars `number` int32, `seed` int32, `temperature` float32, `top_k` int32
      (`num_codes` for all) and `top_p` float32 (1 for all) to `codes` and `images`; the same
      samples that `prior.sample` gives. With a conditioned prior also `condition`, as the prior
      takes it: one example, which counts for all, or `number` of them;
    - `log_prob`: `codes`, and `condition` where the prior has one, to `log_prob` float32
      `(batch,)`, in nats.

    Shapes, and the range of codes, classes and scalars, are checked inside the graph: a bad
    request is answered INVALID_ARGUMENT, with a message that says what came and what was expected.
    No endpoint writes a variable or calls Python, and all ops are TensorFlow's own.

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
        prior: a `PixelCNN` or another autoregressive model over the codes of `vqvae`.

    Raises:
        ValueError: the model is not built, the prior is of another grid or number of codes, or
            `path` is not empty or cannot be written.
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
    if prior is not None:
        _check_prior(prior, vqvae)
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
    if prior is not None:
        _add_prior(archive, vqvae, prior, codes)
    # Renamed when whole: an interrupted export leaves nothing that looks like a model.
    unfinished = path.with_name(f".{path.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        archive.write_out(str(unfinished), verbose=False)
        unfinished.replace(path)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _check_prior(prior: Autoregressive, vqvae: VQVAE) -> None:
    if not isinstance(prior, Autoregressive):
        raise ValueError(f"prior must be an autoregressive model over codes, got {prior!r}")
    if not prior.built:
        raise ValueError("prior is not built: fit it, or call it on a batch of codes")
    prior.check_weights()
    ours, theirs = (
        {"grid_shape": tuple(model.grid_shape), "num_codes": model.num_codes}
        for model in (prior, vqvae)
    )
    if ours != theirs:
        raise ValueError(f"prior does not fit the VQ-VAE: it has {ours}, the VQ-VAE {theirs}")


def _add_prior(
    archive: keras.export.ExportArchive, vqvae: VQVAE, prior: Autoregressive, codes: tf.TensorSpec
) -> None:
    def sample(
        number: tf.Tensor,
        seed: tf.Tensor,
        temperature: tf.Tensor,
        top_k: tf.Tensor,
        top_p: tf.Tensor,
        *condition: tf.Tensor,
    ) -> dict:
        checks: Any = [
            _asserted(number >= 0, "number must be at least 0, got", number),
            _asserted(temperature > 0, "temperature must be positive, got", temperature),
            _asserted(top_k >= 1, "top_k must be at least 1, got", top_k),
            _asserted((top_p > 0) & (top_p <= 1), "top_p must be in (0, 1], got", top_p),
        ]
        with tf.control_dependencies(checks):
            n = tf.maximum(number, 1)  # convolutions do not take an empty batch
        one_each = None
        for given in condition:
            checked = _checked_condition(given, prior)
            count = tf.shape(checked)[0]
            fits: Any = _asserted(
                (count == 1) | (count == number),
                "condition must be of 1 example or of number, got",
                count,
            )
            with tf.control_dependencies([fits]):
                padded = functional.never_empty(checked)
            one_each = tf.gather(padded, tf.range(n) % tf.shape(padded)[0])
        options = sampling.Options(temperature, top_k, top_p)
        drawn = sampling.sample(prior, n, seed, one_each, options)[:number]
        return {"codes": drawn, "images": vqvae.decode(drawn)}

    def log_prob(codes: tf.Tensor, *condition: tf.Tensor) -> dict:
        x: Any = _checked_codes(codes, vqvae)
        for given in condition:
            checked = _checked_condition(given, prior)
            count, wanted = tf.shape(checked)[0], tf.shape(codes)[0]
            same: Any = _asserted(
                count == wanted, "condition must be of as many examples as codes, got", count
            )
            with tf.control_dependencies([same]):
                x = {"codes": x, "condition": tf.identity(checked)}
        return {"log_prob": prior.log_prob(x)}

    conditions = []
    if prior.num_classes:
        conditions = [tf.TensorSpec((None,), tf.int32, "condition")]
    elif prior.condition_channels:
        rank = len(prior.grid_shape) + 2
        conditions = [tf.TensorSpec((None,) * rank, tf.float32, "condition")]
    scalars = [
        tf.TensorSpec((), dtype, name)
        for name, dtype in {
            "number": tf.int32,
            "seed": tf.int32,
            "temperature": tf.float32,
            "top_k": tf.int32,
            "top_p": tf.float32,
        }.items()
    ]
    archive.track(prior)
    archive.add_endpoint("sample", sample, [*scalars, *conditions])
    archive.add_endpoint("log_prob", log_prob, [codes, *conditions])


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
    with tf.control_dependencies([_asserted(got == expected, message, got, tf.constant(")"))]):
        return tf.reshape(x, (tf.shape(x)[0], *shape))


def _checked_images(images: tf.Tensor, vqvae: VQVAE) -> tf.Tensor:
    return _checked_shape("images", images, vqvae.image_shape)


def _asserted(condition: tf.Tensor, message: str, *values: tf.Tensor) -> Any:
    return tf.debugging.Assert(condition, [message, *values])


def _checked_codes(codes: tf.Tensor, vqvae: VQVAE) -> tf.Tensor:
    codes = _checked_shape("codes", codes, vqvae.grid_shape)
    return _checked_range("codes", codes, vqvae.num_codes)


def _checked_condition(condition: tf.Tensor, prior: Autoregressive) -> tf.Tensor:
    if prior.num_classes:
        return _checked_range("condition", condition, prior.num_classes)
    shape = (*prior.grid_shape, prior.condition_channels)
    condition = _checked_shape("condition", condition, shape)
    finite = tf.reduce_all(tf.math.is_finite(condition))
    with tf.control_dependencies([_asserted(finite, "condition must be finite")]):
        return tf.identity(condition)


def _checked_range(name: str, x: tf.Tensor, stop: int) -> tf.Tensor:
    inside = tf.reduce_all((x >= 0) & (x < stop))
    message = f"{name} must be in [0, {stop}), got values between"
    check = _asserted(inside, message, tf.reduce_min(x), tf.reduce_max(x))
    with tf.control_dependencies([check]):
        return tf.identity(x)
