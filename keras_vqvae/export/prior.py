"""Endpoints of a prior over codes."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_vqvae import functional, sampling
from keras_vqvae.export.checks import at_least_one_code, few_codes, one_for_each, with_checks
from keras_vqvae.export.endpoints import Endpoints
from keras_vqvae.export.fields import (
    BATCH,
    MOST_CODES,
    MOST_EXAMPLES,
    SEED,
    TEMPERATURE,
    TOP_K,
    TOP_P,
    Field,
    drawing_example,
    finite_range,
)
from keras_vqvae.models.autoencoder import Autoencoder
from keras_vqvae.models.autoregressive import Autoregressive

NUMBER = Field("number", (), "int32", "how many examples to draw", 0, MOST_EXAMPLES)
LENGTH = Field("length", (), "int32", "how many codes each", 1, MOST_CODES)


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
    if speakers is not None and prior.num_classes not in (None, speakers):
        raise ValueError(
            f"prior must be conditioned on the model's speakers (num_classes={speakers}) or on no "
            f"classes, it has num_classes={prior.num_classes}"
        )


def add_endpoints(
    endpoints: Endpoints,
    prior: Autoregressive,
    codes: Field,
    drawn: Sequence[Field],
    decode: Callable,
    speaker: Sequence[Field],
    example: dict[str, Any],
) -> None:
    """Adds `sample` and `log_prob`.

    Args:
        codes: what they are.
        drawn: codes that `sample` draws, and what is made of them.
        decode: from codes, their speaker or None, seed and temperature to that.
        speaker: what `decode` takes, if anything. A prior of classes draws for speakers; what
            another draws is spoken by whom `sample` is told.
        example: with some codes.
    """
    any_length = None in prior.grid_shape
    condition = _condition(prior)
    if prior.num_classes:
        speaker = []
    of_each = [*condition, *speaker]

    def sample(
        number: tf.Tensor,
        seed: tf.Tensor,
        temperature: tf.Tensor,
        top_k: tf.Tensor,
        top_p: tf.Tensor,
        *more: tf.Tensor,
    ) -> dict:
        length: Any = None
        if any_length:
            length = with_checks(more[0], [few_codes("number * length", number, more[0])])
        else:
            number = with_checks(number, [few_codes("number", number, prior.num_positions)])
        each = {
            field.name: functional.never_empty(one_for_each(field.name, given, number))
            for field, given in zip(of_each, more[any_length:], strict=True)
        }
        n = tf.maximum(number, 1)  # convolutions do not take an empty batch
        options = sampling.Options(temperature, top_k, top_p)
        new = sampling.sample(prior, n, seed, each.get("condition"), options, length)
        made = decode(new, each.get("speaker", each.get("condition")), seed, temperature)
        answers = zip(drawn, (new, made), strict=True)
        return {field.name: answer[:number] for field, answer in answers}

    def log_prob(codes: tf.Tensor, *condition: tf.Tensor) -> dict:
        codes = at_least_one_code(codes) if any_length else codes
        x = {"codes": codes, "condition": condition[0]} if condition else codes
        return {"log_prob": prior.log_prob(x)}

    count = len(example["codes"])
    values = {**drawing_example(prior.num_codes), **example, "number": count}
    values["length"] = min(8, MOST_CODES)
    for field in of_each:
        values[field.name] = np.zeros((count, *field.shape[1:]), field.dtype)
    scalars = [NUMBER, SEED, TEMPERATURE, TOP_K, TOP_P, *([LENGTH] if any_length else [])]
    of_number = [field.shaped("1 or number", *field.shape[1:]) for field in of_each]
    total = Field("log_prob", (BATCH,), "float32", "log-probability of all codes, in nats")
    endpoints.add("sample", sample, [*scalars, *of_number], drawn, values)
    endpoints.add("log_prob", log_prob, [codes, *condition], [total], values)


def _condition(prior: Autoregressive) -> Sequence[Field]:
    """What the prior is conditioned on, if it is."""
    if prior.num_classes:
        meaning = "class, or speaker, of each"
        return [Field("condition", (BATCH,), "int32", meaning, 0, prior.num_classes - 1)]
    if prior.condition_channels:
        shape = (BATCH, *prior.grid_shape, prior.condition_channels)
        meaning = "maps that the prior was trained with"
        return [Field("condition", shape, "float32", meaning, **finite_range(prior.compute_dtype))]
    return []
