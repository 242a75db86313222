"""Endpoints of a prior over codes."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from keras_vqvae import functional, sampling
from keras_vqvae.export.checks import asserted, checked_codes, checked_range, checked_shape
from keras_vqvae.models.autoencoder import Autoencoder
from keras_vqvae.models.autoregressive import Autoregressive


def check_prior(prior: Autoregressive, vqvae: Autoencoder) -> None:
    """Raises `ValueError` where a prior is none, or of other codes than a model's."""
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
    speakers = getattr(vqvae, "num_speakers", None)
    if speakers is not None and prior.num_classes != speakers:
        raise ValueError(
            f"prior must be conditioned on the model's speakers (num_classes={speakers}), "
            f"it has num_classes={prior.num_classes}"
        )


def add_endpoints(
    archive: keras.export.ExportArchive, vqvae: Autoencoder, prior: Autoregressive, decode: Callable
) -> None:
    """Adds `sample` and `log_prob`.

    Args:
        decode: from codes, their condition or None, seed and temperature to what `sample` answers
            besides the codes.
    """
    any_length = None in prior.grid_shape

    def sample(
        number: tf.Tensor,
        seed: tf.Tensor,
        temperature: tf.Tensor,
        top_k: tf.Tensor,
        top_p: tf.Tensor,
        *more: tf.Tensor,
    ) -> dict:
        length: Any = more[0] if any_length else None
        condition = more[1:] if any_length else more
        checks: Any = [
            asserted(number >= 0, "number must be at least 0, got", number),
            asserted(temperature > 0, "temperature must be positive, got", temperature),
            asserted(top_k >= 1, "top_k must be at least 1, got", top_k),
            asserted((top_p > 0) & (top_p <= 1), "top_p must be in (0, 1], got", top_p),
        ]
        if any_length:
            checks.append(asserted(length >= 1, "length must be at least 1, got", length))
        with tf.control_dependencies(checks):
            n = tf.maximum(number, 1)  # convolutions do not take an empty batch
        one_each = None
        for given in condition:
            checked = _checked_condition(given, prior)
            count = tf.shape(checked)[0]
            fits: Any = asserted(
                (count == 1) | (count == number),
                "condition must be of 1 example or of number, got",
                count,
            )
            with tf.control_dependencies([fits]):
                padded = functional.never_empty(checked)
            one_each = tf.gather(padded, tf.range(n) % tf.shape(padded)[0])
        options = sampling.Options(temperature, top_k, top_p)
        drawn = sampling.sample(prior, n, seed, one_each, options, length)
        answers = {"codes": drawn, **decode(drawn, one_each, seed, temperature)}
        return {name: answer[:number] for name, answer in answers.items()}

    def log_prob(codes: tf.Tensor, *condition: tf.Tensor) -> dict:
        x: Any = checked_codes(codes, vqvae)
        for given in condition:
            checked = _checked_condition(given, prior)
            count, wanted = tf.shape(checked)[0], tf.shape(codes)[0]
            same: Any = asserted(
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
            **({"length": tf.int32} if any_length else {}),
        }.items()
    ]
    codes = tf.TensorSpec((None,) * (1 + len(prior.grid_shape)), tf.int32, "codes")
    archive.track(prior)
    archive.add_endpoint("sample", sample, [*scalars, *conditions])
    archive.add_endpoint("log_prob", log_prob, [codes, *conditions])


def _checked_condition(condition: tf.Tensor, prior: Autoregressive) -> tf.Tensor:
    if prior.num_classes:
        return checked_range("condition", condition, prior.num_classes)
    shape = (*prior.grid_shape, prior.condition_channels)
    condition = checked_shape("condition", condition, shape)
    finite = tf.reduce_all(tf.math.is_finite(condition))
    with tf.control_dependencies([asserted(finite, "condition must be finite")]):
        return tf.identity(condition)
