"""Checks, inside graphs, of what endpoints are given.

A failed one is answered INVALID_ARGUMENT, and its message says what was expected and what came.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_vqvae.export.fields import MOST_CODES_IN_ALL, Field, shape_text


def checked(fields: Sequence[Field], tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """The tensors, after checks that they are of the fields' shapes, ranges and batch."""
    given = [_in_range(f, _of_shape(f, x)) for f, x in zip(fields, tensors, strict=True)]
    batched = [i for i, field in enumerate(fields) if field.is_batched]
    for i in batched[1:]:
        first = batched[0]
        count, wanted = tf.shape(given[i])[0], tf.shape(given[first])[0]
        message = f"{fields[i].name} must be of as many examples as {fields[first].name}, got"
        same = asserted(count == wanted, message, count, tf.constant("of"), wanted)
        given[i] = with_checks(given[i], [same])
    return given


def one_for_each(name: str, x: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """`x` with `count` rows, after a check that it has one, which counts for all, or so many."""
    given = tf.shape(x)[0]
    fits = asserted(
        (given == 1) | (given == count),
        f"{name} must be one, or one for each example, got",
        given,
        tf.constant("of"),
        count,
    )
    return tf.gather(with_checks(x, [fits]), tf.range(count) % tf.maximum(given, 1))


def at_least_one_code(codes: tf.Tensor) -> tf.Tensor:
    """Codes `(batch, any, ...)`, after a check that there are some."""
    some = asserted(tf.shape(codes)[1] > 0, "codes must be at least one code, got none")
    return with_checks(codes, [some])


def whole_steps(name: str, x: tf.Tensor, unit: int) -> tf.Tensor:
    """`x` `(batch, time, ...)`, after a check that its time is whole steps, and at least one."""
    time, message = tf.shape(x)[1], f"{name} must be a positive multiple of {unit} in time, got"
    return with_checks(x, [asserted((time > 0) & (time % unit == 0), message, time)])


def few_codes(name: str, *factors: Any) -> Any:
    """A check that a request asks for no more codes in all, a product, than it may."""
    total = tf.constant(1, tf.int64)
    for factor in factors:
        total *= tf.cast(factor, tf.int64)
    message = f"{name} must be of at most {MOST_CODES_IN_ALL} codes in all, got"
    return asserted(total <= MOST_CODES_IN_ALL, message, total)


def with_checks(x: tf.Tensor, checks: list) -> tf.Tensor:
    """`x`, once the checks have been made."""
    with tf.control_dependencies(checks):
        return tf.identity(x)


def asserted(condition: tf.Tensor, message: str, *values: tf.Tensor) -> Any:
    return tf.debugging.Assert(condition, [message, *values], summarize=8)


def _of_shape(field: Field, x: tf.Tensor) -> tf.Tensor:
    seen = x
    if not field.shape:
        # TensorFlow takes the rank of the signature for the rank that comes, though a server feeds
        # any; of what was parsed it knows none.
        seen = tf.io.parse_tensor(tf.io.serialize_tensor(x), x.dtype)
    # Compared as text: numbers of a wrong rank would fail on the way with a message of their own.
    got = tf.strings.reduce_join(tf.strings.as_string(tf.shape(seen)), separator=", ")
    sides = [str(side) if isinstance(side, int) else r"\d+" for side in field.shape]
    fits = tf.strings.regex_full_match(got, ", ".join(sides))
    message = f"{field.name} must have shape {shape_text(field.shape)}, got ("
    # Not the reshape waits for the check: TensorFlow drops one where another one follows.
    x = with_checks(x, [asserted(fits, message, got, tf.constant(")"))])
    return tf.reshape(
        x, [side if isinstance(side, int) else tf.shape(x)[i] for i, side in enumerate(field.shape)]
    )


def _in_range(field: Field, x: tf.Tensor) -> tf.Tensor:
    is_float = field.dtype == "float32"
    if not is_float and (field.dtype != "int32" or field.low is None):
        return x
    message = f"{field.name} must be {field.range_text}, got"
    if not field.shape:
        return with_checks(x, [asserted(_inside(field, x, x), message, x)])
    least, greatest = tf.reduce_min(x), tf.reduce_max(x)
    # Of nothing the least is above the greatest: it is in every range.
    inside, checks = _inside(field, least, greatest), []
    if is_float:
        finite = tf.reduce_all(tf.math.is_finite(x))
        checks = [asserted(finite, f"{field.name} must be finite, got NaN or infinity")]
        inside |= ~finite | (tf.size(x) == 0)
    if field.low is not None:
        checks.append(asserted(inside, f"{message} values between", least, greatest))
    return with_checks(x, checks)


def _inside(field: Field, least: tf.Tensor, greatest: tf.Tensor) -> tf.Tensor:
    inside = tf.constant(True)
    if field.dtype == "float32":
        inside &= tf.math.is_finite(least) & tf.math.is_finite(greatest)
    if field.low is not None:
        # Smaller positive numbers than the normal ones are 0 to some processors.
        low = field.low + float(np.finfo("float32").tiny) if field.above else field.low
        inside &= least >= low
    if field.high is not None:
        inside &= greatest <= field.high
    return inside
