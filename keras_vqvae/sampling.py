"""Ancestral sampling, for every autoregressive model.

A model is sampled through four methods, which see one position at a time:

- `initial_cache(batch, condition)`: any nest of tensors;
- `begin_row(cache, previous_row, row)`: what a row of positions needs once, given the codes of
  the row before, `(batch, columns)` (for row 0 there is none, and what is given means nothing);
- `step(cache, previous, position) -> (logits, cache)`: given the code before, `(batch,)` (for
  position 0 there is none), the logits `(batch, num_codes)` of a position in raster order;
- `draw(logits, u, options)`, int32 `(batch,)`: the function `draw` below, where the logits are
  logits, and something else where they are the parameters of another distribution.

They are those of `model.sampler()`, which may have prepared weights outside of the loop.

The uniform numbers are arguments, drawn before the loop: so a seed means the same samples eagerly,
compiled, and in a SavedModel, and fast and slow sampling compare number by number.
"""

import math
from typing import Any, NamedTuple

from keras import ops

from keras_vqvae import backend, functional
from keras_vqvae.backend import Tensor


class Options(NamedTuple):
    """How a distribution is changed before it is drawn from; scalars or scalar tensors.

    Attributes:
        temperature: float32; logits are divided by it.
        top_k: int32; only the `top_k` most likely codes (and equals of the last) can be drawn.
        top_p: float32; of these, only the most likely ones that together reach a probability of
            `top_p` (and equals of the last).
    """

    temperature: Any
    top_k: Any
    top_p: Any


def weights(logits: Tensor, options: Options) -> Tensor:
    """Probabilities, up to a factor, of the codes after temperature, top-k and top-p.

    Args:
        logits: `(batch, num_codes)`.
        options: scalars or scalar tensors.

    Returns:
        float32 `(batch, num_codes)`; 1 for the most likely code, 0 for what cannot be drawn.
    """
    # bfloat16 would not do: there a sum of 512 equal probabilities ends at a half.
    logits = ops.cast(logits, "float32")
    num_codes = logits.shape[-1]
    top_k = ops.cast(options.top_k, "int32")
    top_p = ops.cast(options.top_p, "float32")
    relative = ops.exp(
        (logits - ops.max(logits, -1, keepdims=True)) / ops.cast(options.temperature, "float32")
    )

    known = isinstance(options.top_k, int) and isinstance(options.top_p, float)
    if known and options.top_k >= num_codes and options.top_p >= 1.0:
        return relative  # without a branch, which costs a loop some percent

    def restricted() -> Tensor:
        ordered = ops.flip(ops.sort(relative, -1), -1)
        ordered = ops.where(ops.arange(num_codes, dtype="int32") < top_k, ordered, 0.0)
        before = ops.cumsum(ordered, -1) - ordered
        # In float32 the sum of the others can be the whole sum: 1 must mean all nevertheless.
        reached = before >= top_p * ops.sum(ordered, -1, keepdims=True)
        kept = (ordered > 0) & ((top_p >= 1.0) | ~reached)
        least = ops.min(ops.where(kept, ordered, 1.0), -1, keepdims=True)
        return ops.where(relative >= least, relative, 0.0)

    return ops.cond((top_k < num_codes) | (top_p < 1.0), restricted, lambda: relative)


def draw(logits: Tensor, u: Tensor, options: Options) -> Tensor:
    """Codes drawn by inverse cumulative distribution.

    Args:
        logits: `(batch, num_codes)`.
        u: `(batch,)`, uniform numbers in [0, 1).
        options: scalars or scalar tensors.

    Returns:
        int32 `(batch,)`: of the codes whose probability, after `options`, is not zero.
    """
    relative = weights(logits, options)
    cumulative = functional.prefix_sums(relative)
    target = u[:, None] * cumulative[:, -1:]
    index = ops.arange(logits.shape[-1], dtype="int32")
    # A compiler may add in another order: sums may rise, or fall, where nothing is added.
    allowed = relative > 0
    first = ops.min(ops.where(allowed & (cumulative > target), index, index[-1]), -1)
    # And their last need not be the greatest: beyond all it is the last code that can be drawn.
    return ops.minimum(first, ops.max(ops.where(allowed, index, 0), -1))


class Positions(NamedTuple):
    """What is given for some positions, here `(batch, columns)` or `(batch, rows, columns)`.

    Attributes:
        u: float32, uniform numbers in [0, 1).
        known: int32, codes where `keep`, anything elsewhere.
        keep: bool.
    """

    u: Tensor
    known: Tensor
    keep: Tensor


def sample_row(
    model: Any, cache: Any, previous_row: Tensor, row: Tensor, given: Positions, options: Options
) -> tuple[Any, Tensor]:
    """Draws the codes of one row.

    Args:
        model: has the methods that this module's docstring names.
        cache: its cache.
        previous_row: int32 `(batch, columns)`.
        row: int32 scalar.
        given: of this row, `(batch, columns)`.
        options: scalars or scalar tensors.

    Returns:
        the cache, and int32 codes `(batch, columns)`.
    """
    columns = ops.shape(given.u)[1]
    cache = model.begin_row(cache, previous_row, row)

    def one(carry: tuple, x: tuple) -> tuple:
        cache, previous = carry
        column, given = x
        logits, cache = model.step(cache, previous, row * columns + column)
        drawn = model.draw(logits, given.u, options)
        code = ops.where(given.keep, given.known, drawn)
        return (cache, code), code

    xs = (ops.arange(columns, dtype="int32"), Positions(*(ops.transpose(x) for x in given)))
    (cache, _), codes = backend.scan(one, (cache, previous_row[:, -1]), xs)
    return cache, ops.transpose(codes)


def sample_rows(
    model: Any, cache: Any, previous_row: Tensor, first: Tensor, given: Positions, options: Options
) -> tuple[Any, Tensor]:
    """Draws the codes of some rows, one after the other.

    Args:
        model, cache, previous_row, options: as for `sample_row`.
        first: int32 scalar, the first of the rows.
        given: of these rows, `(batch, rows, columns)`.

    Returns:
        the cache, and int32 codes `(batch, rows, columns)`.
    """

    def one(carry: tuple, x: tuple) -> tuple:
        (cache, previous_row), (row, given) = carry, x
        cache, codes = sample_row(model, cache, previous_row, row, given, options)
        return (cache, codes), codes

    rows = first + ops.arange(ops.shape(given.u)[1], dtype="int32")
    by_row = Positions(*(ops.transpose(x, (1, 0, 2)) for x in given))
    (cache, _), codes = backend.scan(one, (cache, previous_row), (rows, by_row))
    return cache, ops.transpose(codes, (1, 0, 2))


def sample_frames(
    model: Any, past: Tensor, actions: Tensor, given: Positions, options: Options
) -> tuple[Tensor, Tensor]:
    """Draws the codes of frames, one after the other.

    Args:
        model: has `begin_frame(past, action)`, which gives the cache for a frame, and the methods
            that this module's docstring names.
        past: int32 `(batch, time, rows, columns)`, the codes of the frames before.
        actions: `(batch, frames, any)`, what is done in the frame before each.
        given: of these frames, `(frames, batch, rows, columns)`.
        options: scalars or scalar tensors.

    Returns:
        the codes of the last frames, as many as were given as `past`, and those of the drawn ones,
        int32 `(batch, frames, rows, columns)`.
    """

    def one(past: Tensor, x: tuple) -> tuple:
        action, given = x
        cache = model.begin_frame(past, action)
        # There is no row before the first: what is given for it is not looked at.
        _, codes = sample_rows(model, cache, past[:, -1, 0], 0, given, options)
        return ops.concatenate([past[:, 1:], codes[:, None]], 1), codes

    past, codes = backend.scan(one, past, (ops.swapaxes(actions, 0, 1), given))
    return past, ops.swapaxes(codes, 0, 1)


def given_positions(grid_shape: tuple, n: Any, seed: Any) -> Positions:
    """Uniform numbers for `n` examples of a grid, and no code known.

    Args:
        grid_shape: shape of an example's codes.
        n: how many; an int, or an int32 scalar tensor on TensorFlow.
        seed: an int, or an integer scalar tensor.

    Returns:
        tensors `(n, rows, columns)`, where the columns are the grid's last axis. What an example
        gets depends on its place in the batch and not on `n`.
    """
    columns = grid_shape[-1]
    shape = (n, math.prod(grid_shape[:-1]), columns)
    u = backend.uniforms(shape, seed)
    known = ops.zeros_like(u, dtype="int32")
    return Positions(u, known, known > 0)


def given_frames(grid_shape: tuple, frames: Any, examples: Any, seed: Any) -> Positions:
    """Uniform numbers for frames of codes, and no code known.

    Args:
        grid_shape: (rows, columns) of a frame's codes.
        frames: int32 `(frames,)`, the frames' numbers.
        examples: int32 `(batch,)`, the examples' numbers.
        seed: an integer, or an integer scalar tensor.

    Returns:
        tensors `(frames, batch, rows, columns)`. What a frame of an example gets depends on the
        seed and the two numbers alone.
    """
    u = backend.uniforms_by_place(grid_shape, seed, frames, examples)
    known = ops.zeros_like(u, dtype="int32")
    return Positions(u, known, known > 0)


def sample(
    model: Any, n: Any, seed: Any, condition: Any, options: Options, length: Any = None
) -> Tensor:
    """Draws whole grids in one loop, for use in a compiled function.

    Args:
        model: has `grid_shape` and the methods that this module's docstring names.
        n: how many, at least 1.
        seed: an integer.
        condition: as `model.initial_cache` takes it, of `n` examples.
        options: scalars or scalar tensors.
        length: for models of sequences of any length, an integer or an int32 scalar.

    Returns:
        int32 `(n, *grid_shape)`.
    """
    grid = model.grid_shape if length is None else (length,)
    given = given_positions(grid, n, seed)
    cache = model.initial_cache(n, condition)
    _, codes = sample_rows(model.sampler(), cache, given.known[:, 0], 0, given, options)
    return ops.reshape(codes, (-1, *grid))
