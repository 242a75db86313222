"""What differs between TensorFlow and JAX; the only core file that knows which of them runs.

Collectives are written for `tf.distribute` (one program a replica). Under JAX's
`keras.distribution` arrays are global, so a plain sum already is the sum over all devices.
"""

import contextlib
import json
import math
import os
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

BACKEND = keras.backend.backend()
if BACKEND == "tensorflow":
    import tensorflow as tf
elif BACKEND == "jax":
    import jax
else:
    raise ImportError(
        f"keras_vqvae runs on the Keras backends 'tensorflow' and 'jax', not on {BACKEND!r}. "
        "Set the environment variable KERAS_BACKEND before Keras is imported."
    )

Tensor = Any


def jit(fn: Callable, layer: keras.layers.Layer, xla: bool = False) -> Callable:
    """Compiles `fn(*tensors)`, a function that reads the variables of `layer` and writes none.

    The compiled function always sees the variables' present values (a plain `jax.jit` would
    freeze the values of the first call into the program). With `xla` TensorFlow compiles by XLA;
    JAX always does.
    """
    if BACKEND == "tensorflow":
        return tf.function(fn, autograph=False, reduce_retracing=True, jit_compile=xla or None)

    @jax.jit
    def pure(values: list, *args: Tensor) -> Any:
        with keras.StatelessScope(state_mapping=list(zip(layer.variables, values, strict=True))):
            return fn(*args)

    return lambda *args: pure([v.value for v in layer.variables], *args)


def is_compiled_by_size(xla: bool) -> bool:
    """Whether what `jit` returns is compiled anew for each size of its arguments."""
    return xla or BACKEND == "jax"


def uniforms(shape: tuple, seed: Tensor) -> Tensor:
    """Uniform float32 numbers in [0, 1), decided by `shape` and `seed` alone.

    Args:
        shape: shape of the result; entries may be scalar tensors on TensorFlow.
        seed: an int, or a tensor of two integers.

    The same seed gives the same numbers eagerly, in a graph, under XLA and in a SavedModel:
    TensorFlow would pick another generator under XLA if it were not pinned to Philox. Bits are
    drawn, not floats: XLA makes floats of the high bits, TensorFlow's own kernels of the low ones.
    """
    scalar = len(getattr(seed, "shape", ())) == 0
    if BACKEND == "tensorflow":
        seed = tf.cast(tf.stack([seed, 0]) if scalar else seed, "int64")
        bits = tf.random.stateless_uniform(
            shape, seed, minval=None, maxval=None, dtype="uint32", alg="philox"
        )
        return tf.cast(tf.bitwise.right_shift(bits, tf.constant(8, "uint32")), "float32") * 2.0**-24
    if scalar:
        key = jax.random.PRNGKey(seed)
    else:
        key = jax.numpy.asarray(seed).astype("uint32")
    return jax.random.uniform(key, shape, dtype="float32")


def uniforms_by_place(shape: tuple, seed: Tensor, rows: Tensor, examples: Tensor) -> Tensor:
    """Uniform numbers, of which each slice is decided by the seed, its row and its example.

    Args:
        shape: of a slice.
        seed: an integer or an integer scalar tensor, of 32 bits.
        rows: int32 `(n,)`, the rows' numbers.
        examples: int32 `(batch,)`, the examples' numbers.

    Returns:
        float32 `(n, batch, *shape)`.
    """
    if BACKEND == "tensorflow":
        seed, rows, examples = (tf.cast(x, "int64") for x in (seed, rows, examples))
        places = rows[:, None] * 2**32 + examples + 1  # of 0 they would be `uniforms` of the seed
        u = tf.map_fn(
            lambda place: uniforms(shape, tf.stack([seed, place])),
            tf.reshape(places, (-1,)),
            fn_output_signature="float32",
        )
        return tf.reshape(u, (*tf.unstack(tf.shape(places)), *shape))
    seed, rows, examples = (jax.numpy.asarray(x).astype("uint32") for x in (seed, rows, examples))

    def one(row: Tensor, example: Tensor) -> Tensor:
        return uniforms(shape, jax.random.fold_in(jax.numpy.stack([seed, row]), example))

    return jax.vmap(lambda row: jax.vmap(lambda example: one(row, example))(examples))(rows)


def argmax(scores: Tensor) -> Tensor:
    """Index (int32) of the greatest entry along the last axis; of equal ones the first."""
    if BACKEND == "tensorflow":
        # Two to three times faster on CPU than argmax, and unlike Keras's argmax free of the
        # `Bitcast` op, which other runtimes of SavedModels do not know.
        return tf.math.top_k(scores, 1).indices[..., 0]
    return jax.numpy.argmax(scores, -1).astype("int32")


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """Matrix product of float32, in full precision on JAX.

    On NVIDIA GPUs TensorFlow rounds factors to TF32 unless a program turns that off for all:
    `tf.config.experimental.enable_tensor_float_32_execution(False)`.
    """
    if BACKEND == "tensorflow":
        return tf.matmul(a, b)
    return jax.numpy.matmul(a, b, precision="highest")


def map_rows(fn: Callable, x: Tensor, size: int) -> Tensor:
    """Applies `fn` to `size` rows of `x` at a time, and leaves out the rows that are left over.

    Args:
        fn: gives an int32 for each of `size` rows.
        x: `(rows, any)`, at least one row.
        size: an int, because TFLite converts only a loop whose results have a known shape.

    Returns:
        int32 `(rows // size * size,)`.

    Keras's `ops.map` runs the function once more on the first slice and so fails for none; a
    loop with `ops.slice_update` would put an op of XLA's into SavedModels.
    """
    if BACKEND == "jax":
        count = x.shape[0] // size
        return jax.lax.map(fn, x[: count * size].reshape(count, size, -1)).reshape(-1)
    count = tf.shape(x)[0] // size

    def body(i: Tensor, found: Any) -> tuple:
        # XLA, which compiles this for loops without a turn too, allows a gather beyond the end.
        return i + 1, found.write(i, fn(tf.gather(x, i * size + tf.range(size))))

    found = tf.TensorArray("int32", tf.maximum(count, 1), element_shape=(size,))
    _, found = tf.while_loop(lambda i, _: i < count, body, (0, found))
    return tf.reshape(found.stack(), (-1,))[: count * size]


def concrete(x: Any) -> np.ndarray | None:
    """The values of an array or tensor; None where they are not known yet, in a graph or trace."""
    if isinstance(x, np.ndarray):
        return x
    if BACKEND == "tensorflow":
        known = isinstance(x, tf.Tensor) and hasattr(x, "numpy")
    else:
        known = isinstance(x, jax.Array) and not isinstance(x, jax.core.Tracer)
    return ops.convert_to_numpy(x) if known else None


def native(data: Any) -> Any:
    """Returns data with its numpy arrays in this machine's order of bytes: no backend has both."""

    def convert(x: Any) -> Any:
        is_array = isinstance(x, np.ndarray)
        return x.astype(x.dtype.newbyteorder("="), copy=False) if is_array else x

    return keras.tree.map_structure(convert, data)


def checked_range(name: str, x: Tensor, stop: int) -> Tensor:
    """`x`, integers, after a check within TensorFlow's graph that they are in [0, `stop`).

    It fails with `InvalidArgumentError`. A part that XLA compiles drops it, and on JAX there is
    none: no value is known there.
    """
    if not in_graph():
        return x
    wide = tf.cast(x, tf.int64)  # of bytes all are below 256, and 256 is none
    inside = tf.reduce_all((wide >= 0) & (wide < stop))
    message = f"{name} must be in [0, {stop}), got values between"
    return _asserted(x, inside, message, tf.reduce_min(x), tf.reduce_max(x))


def checked_length(length: Tensor, least: int, steps: Tensor, cure: str = "") -> Tensor:
    """`length`, integers, after a check that they are in [`least`, `steps`]; see `checked_range`.

    Args:
        length: `(batch,)`, or a scalar.
        least: so many at least.
        steps: what there are, at most; an int32 scalar.
        cure: what to do about shorter ones, for the message.
    """
    if not in_graph():
        return length
    inside = tf.reduce_all((length >= least) & (length <= tf.cast(steps, length.dtype)))
    wanted = f"{least}, one code{cure and f' ({cure})'}, and at most that of the batch"
    message = f"length must be at least {wanted}, got from"
    return _asserted(length, inside, message, tf.reduce_min(length), tf.reduce_max(length))


def checked_sound(name: str, x: Tensor, least: int) -> Tensor:
    """`x`, `(batch, samples)` floats, after a check that they are in [-1, 1], and no NaN.

    And that there are `least` samples; see `checked_range`.
    """
    if not in_graph():
        return x
    size, samples = tf.abs(x), tf.shape(x)[1]
    message = f"{name} must be finite and in [-1, 1], got values of size up to"
    x = _asserted(x, tf.reduce_all(size <= 1.0), message, tf.reduce_max(size))
    if x.shape[1] is not None and x.shape[1] >= least:
        return x
    message = f"{name} must be of at least {least} samples, one code, got"
    return _asserted(x, samples >= least, message, samples)


def checked_finite(name: str, x: Tensor) -> Tensor:
    """`x`, floats, after a check that there is no NaN or infinity; see `checked_range`."""
    if not in_graph():
        return x
    finite = tf.reduce_all(tf.math.is_finite(x))
    return _asserted(x, finite, f"{name} must be finite, got NaN or infinity")


def _asserted(x: Tensor, holds: Tensor, *said: Any) -> Tensor:
    with tf.control_dependencies([tf.debugging.Assert(holds, list(said))]):
        return tf.identity(x)


def shape_is_of_data(x: Tensor) -> bool:
    """Whether sizes in a tensor's shape are those of data.

    In symbolic calls JAX puts numbers of its own where Keras knows none.
    """
    return BACKEND == "tensorflow" or not isinstance(x, jax.core.Tracer)


def in_graph() -> bool:
    """Whether TensorFlow is building a graph, in which no value is known."""
    return BACKEND == "tensorflow" and not tf.executing_eagerly()


def scan(fn: Callable, carry: Any, xs: Any) -> tuple[Any, Tensor]:
    """A compiled loop: `carry, y = fn(carry, x)` for the slices `x` of `xs` along axis 0.

    Keras's `ops.scan` keeps `carry` in TensorArrays and wants `y` to be of its shape.

    Args:
        fn: gives a `carry` of unchanged shapes, and `y`, int32.
        carry: a nest of tensors.
        xs: a nest of tensors of equally many slices; their number may be unknown on TensorFlow.

    Returns:
        the last `carry`, and the `y` stacked along axis 0.
    """
    if BACKEND == "jax":
        return jax.lax.scan(fn, carry, xs)
    first = keras.tree.flatten(xs)[0]
    steps = tf.shape(first)[0] if first.shape[0] is None else first.shape[0]

    def body(i: Tensor, carry: Any, ys: Any) -> tuple:
        carry, y = fn(carry, keras.tree.map_structure(lambda x: tf.gather(x, i), xs))
        return i + 1, carry, ys.write(i, y)

    _, carry, ys = tf.while_loop(
        lambda i, *_: i < steps, body, (0, carry, tf.TensorArray("int32", steps))
    )
    return carry, ys.stack()


def _replica_context() -> Any:
    if BACKEND != "tensorflow":
        return None
    context = tf.distribute.get_replica_context()  # None while Keras builds under a strategy
    return context if context is not None and context.num_replicas_in_sync > 1 else None


def num_replicas() -> int:
    """How many replicas run the present step together; 1 outside a strategy."""
    context = _replica_context()
    return context.num_replicas_in_sync if context else 1


def strategy_scope(model: keras.Model) -> Any:
    """The scope in which variables of `model` are to be made."""
    if BACKEND != "tensorflow":
        return contextlib.nullcontext()
    return model.distribute_strategy.scope()


def has_replicas(model: keras.Model) -> bool:
    """Whether a strategy of several replicas trains `model`; asked outside of a step."""
    return BACKEND == "tensorflow" and model.distribute_strategy.num_replicas_in_sync > 1


def has_workers(model: keras.Model) -> bool:
    """Whether several processes train `model` together."""
    return BACKEND == "tensorflow" and _is_multi_worker(model.distribute_strategy)


def _is_multi_worker(strategy: Any) -> bool:
    return (
        isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
        and strategy.extended._in_multi_worker_mode()  # what Keras itself asks
    )


def is_cut_right(dataset: Any) -> bool:
    """Whether TensorFlow can cut the batches of a dataset for the workers.

    Of one that is a worker's own part, every global batch's size must be known, which it is where
    `batch` comes last; else an uneven end is cut into too many steps.
    """
    own = tf.data.experimental.AutoShardPolicy.OFF
    if dataset.options().experimental_distribute.auto_shard_policy != own:
        return True
    variant = tf.data.experimental.to_variant(dataset)
    return int(tf.raw_ops.ComputeBatchSize(input_dataset=variant)) > 0


def batch_shares() -> int:
    """Into how many equal parts each batch of `fit` must go: JAX's devices under DataParallel."""
    distribution = keras.distribution.distribution() if BACKEND == "jax" else None
    if not isinstance(distribution, keras.distribution.DataParallel):
        return 1
    return math.prod(distribution.device_mesh.shape)


def is_chief(model: keras.Model) -> bool:
    """Whether this process is the one that writes files."""
    return not has_workers(model) or model.distribute_strategy.extended.should_checkpoint


def chiefs(value: np.ndarray, variable: keras.Variable) -> np.ndarray:
    """`value` as the chief has it, where several workers hold copies of `variable`."""
    strategy: Any = getattr(variable.value, "distribute_strategy", None)
    if BACKEND != "tensorflow" or not _is_multi_worker(strategy):
        return value
    return strategy.gather(tf.constant(value)[None], axis=0)[0].numpy()


def in_cluster() -> bool:
    """Whether the environment says that this process is one of several workers."""
    cluster = json.loads(os.environ.get("TF_CONFIG") or "{}").get("cluster", {})
    return BACKEND == "tensorflow" and sum(len(cluster.get(k, [])) for k in ("chief", "worker")) > 1


def all_reduce_sum(tensors: Any) -> Any:
    """Sums a tensor, or each of a list of tensors, over all replicas of the step.

    Every replica must call this at every step, never under a data-dependent condition.
    """
    context = _replica_context()
    return context.all_reduce(tf.distribute.ReduceOp.SUM, tensors) if context else tensors


def global_rows(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Where this replica's rows lie in the global batch.

    Args:
        rows: int32 scalar, number of rows on this replica.

    Returns:
        (index of this replica's first row, number of rows over all replicas), int32 scalars.
    """
    rows = ops.cast(rows, "int32")
    context = _replica_context()
    if context is None:
        return ops.zeros((), "int32"), rows
    replicas = ops.arange(context.num_replicas_in_sync, dtype="int32")
    mine = ops.cast(context.replica_id_in_sync_group, "int32")
    every = all_reduce_sum(ops.where(replicas == mine, rows, 0))
    return ops.sum(ops.where(replicas < mine, every, 0)), ops.sum(every)


def global_mean(per_example: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean over the examples of all replicas, to be returned by `compute_loss`.

    Args:
        per_example: `(batch,)` losses of this replica's examples, float32. May be empty.
        weights: `(batch,)`, how much each counts, not negative; None for all alike.

    Returns:
        A scalar whose gradients, which Keras sums over the replicas, are those of the mean over
        the global batch, also where replicas hold different numbers of examples; and whose
        value is what Keras needs to log that mean (it weights each replica's value, times the
        number of replicas, by its number of examples). 0, with gradients of 0, where all weights
        are 0.
    """
    count = ops.cast(ops.shape(per_example)[0], "float32")
    # A replica without examples has a sum of zero; dividing it by one keeps it finite.
    share = ops.maximum(count, 1.0) * num_replicas()
    if weights is None:
        total = ops.sum(per_example)
        value = total / share
        exact = total / ops.maximum(all_reduce_sum(count), 1.0)
    else:
        weights = ops.cast(weights, "float32")
        whole, everyone = all_reduce_sum([ops.sum(weights), count])
        exact = ops.sum(per_example * weights) / ops.where(whole > 0, whole, 1.0)
        value = exact * everyone / share
    return exact + ops.stop_gradient(value - exact)
