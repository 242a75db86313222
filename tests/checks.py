"""What every layer and every model of the package must pass.

A new layer or model joins with one call:

    check_layer(lambda **kw: MyLayer(4, **kw), (2, 8, 8, 4), trainable=10, frozen=0)
    check_model(lambda **kw: MyModel(4, **kw), images)

and a new model with one line in `CASES` of `tests/replicas.py`. An autoregressive model also joins
`check_causality` and `check_steps`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras.src.testing import test_case as keras_test

from keras_vqvae import Autoregressive, backend, sampling
from tests.inside import inside

POLICIES = ("float32", "mixed_bfloat16", "mixed_float16")


def to_numpy(nest: Any) -> Any:
    """Tensors of a nest as arrays; floats as float32, so that bfloat16 compares."""

    def convert(x: Any) -> np.ndarray:
        array = keras.ops.convert_to_numpy(x)
        is_float = "float" in keras.backend.standardize_dtype(x.dtype)
        return array.astype("float32") if is_float else array

    return keras.tree.map_structure(convert, nest)


def assert_same(actual: Any, expected: Any) -> None:
    """Two nests are equal, bit for bit."""
    keras.tree.map_structure(
        lambda a, b: np.testing.assert_array_equal(a, b), to_numpy(actual), to_numpy(expected)
    )


def assert_finite(variables: list) -> None:
    for variable in variables:
        assert np.isfinite(to_numpy(variable)).all(), f"{variable.path} is not finite"


def num_entries(variables: list) -> int:
    return sum(int(np.prod(v.shape)) for v in variables)


def copy_by_config(thing: Any) -> Any:
    """Serialises and deserialises; fails where the configuration does not survive."""
    config = keras.saving.serialize_keras_object(thing)
    copy = keras.saving.deserialize_keras_object(config)
    assert type(copy) is type(thing)
    assert keras.saving.serialize_keras_object(copy)["config"] == config["config"]
    return copy


def floats(shape: tuple, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def sharpened(model: Any, by: float = 0.4) -> Any:
    """The model, with random weights large enough for distributions far from uniform."""
    for number, weight in enumerate(model.trainable_weights):
        weight.assign(floats(tuple(weight.shape), number) * by)
    if hasattr(model, "_scale"):  # of a predictor of video; large ones leave one code a chance
        inside(model).scale.set_weights(
            [np.zeros_like(w) - i * 4.0 for i, w in enumerate(inside(model).scale.get_weights())]
        )
    return model


def images(count: int, shape: tuple = (8, 8, 3), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype="uint8")


def check_by_keras(make: Callable[..., keras.layers.Layer], input_shape: tuple | dict) -> None:
    """Runs the check that Keras's own layers pass.

    Configuration, `build`, symbolic and eager calls; under mixed_float16 the spec's dtype and
    weights of float32. Its training is left out: it compiles by XLA, and `check_layer` trains.

    Args:
        make: as for `check_layer`.
        input_shape: with batch size; of several inputs a dict of names as `build` has them.
    """
    keras_test.TestCase().run_layer_test(make, {}, input_shape, run_training_check=False)


def check_layer(
    make: Callable[..., keras.layers.Layer],
    input_shape: tuple,
    directory: Path,
    *,
    trainable: int,
    frozen: int = 0,
    frozen_moves: bool = False,
    float32_inside: bool = False,
    low_precision: float = 0.1,
    output_dtype: str | None = None,
) -> None:
    """Serialisation, symbolic and eager call, weight counts, `fit`, saving, precision policies.

    Args:
        make: builds the layer from keyword arguments of `keras.layers.Layer`.
        input_shape: with batch size.
        directory: an empty folder.
        trainable: expected number of entries of the trainable weights.
        frozen: the same of all others, the states of seed generators left out.
        frozen_moves: whether training writes the others.
        low_precision: how much bfloat16 and float16 may differ from float32.
        output_dtype: of the output under every policy; None for what the policy computes in.
        float32_inside: whether the output equals that of the policy float32 but for the cast.
    """
    check_by_keras(make, input_shape)
    x = floats(input_shape)
    layer = make()
    eager = layer(x)

    # The batch size need not be known.
    assert layer.compute_output_shape((None, *input_shape[1:])) == (None, *eager.shape[1:])
    symbolic = make()(keras.KerasTensor((None, *input_shape[1:]), "float32"))
    assert tuple(symbolic.shape) == (None, *eager.shape[1:])
    assert eager.shape[0] == input_shape[0]

    assert num_entries(layer.trainable_weights) == trainable
    assert num_entries(layer.non_trainable_weights) == frozen

    # A training step moves all that should move, and nothing but that.
    layer = make(name="layer")
    model = keras.Sequential([keras.Input(input_shape[1:]), layer, keras.layers.Flatten()])
    before = to_numpy(layer.weights)
    model.compile(optimizer=keras.optimizers.SGD(0.1), loss="mse")
    target = floats((input_shape[0], *model.output_shape[1:]), seed=1)
    model.fit(x, target, batch_size=input_shape[0], epochs=1, verbose=0)
    assert_finite(layer.variables)
    for old, weight in zip(before, layer.weights, strict=True):
        moved = bool(np.any(old != to_numpy(weight)))
        if weight.trainable:
            assert moved, f"{weight.path} did not train"
        elif not frozen_moves:
            assert not moved, f"{weight.path} moved"
    if frozen_moves:
        pairs = zip(before, layer.weights, strict=True)
        assert any(np.any(a != to_numpy(b)) for a, b in pairs if not b.trainable)

    _check_saving(model, x, directory)

    # Precision policies.
    full = make(dtype="float32")
    full.build(input_shape)
    for policy in POLICIES:
        low = make(dtype=policy)
        low.build(input_shape)
        low.set_weights(full.get_weights())
        output = low(x)
        compute = keras.DTypePolicy(policy).compute_dtype
        assert keras.backend.standardize_dtype(output.dtype) == (output_dtype or compute)
        if float32_inside:
            # The input was cast to the policy's dtype; from there on all is float32.
            rounded = keras.ops.cast(keras.ops.cast(x, compute), "float32")
            assert_same(output, keras.ops.cast(full(rounded), compute))
        else:
            np.testing.assert_allclose(
                to_numpy(output), to_numpy(full(x)), atol=low_precision, rtol=0.1
            )


def _check_saving(model: keras.Model, x: Any, directory: Path) -> None:
    expected = model(x)
    model.save(directory / "whole.keras")
    loaded = keras.saving.load_model(directory / "whole.keras")
    assert_same(loaded(x), expected)
    assert_same(loaded.weights, model.weights)
    model.save_weights(directory / "only.weights.h5")
    fresh = type(model).from_config(model.get_config())
    if not fresh.built:
        fresh(x)
    assert any(
        np.any(to_numpy(a) != to_numpy(b))
        for a, b in zip(fresh.weights, model.weights, strict=True)
    ), "nothing to load: a fresh model already has these weights"
    fresh.load_weights(directory / "only.weights.h5")
    assert_same(fresh(x), expected)
    # Training goes on from where it was saved.
    if loaded.optimizer is not None:
        assert int(loaded.optimizer.iterations) == int(model.optimizer.iterations)


def check_model(
    make: Callable[..., keras.Model],
    data: Any,
    directory: Path,
    *,
    trainable: int,
    float32_layers: Callable[[keras.Model], list] = lambda model: [model.quantizer],
    output_dtype: str | None = None,
) -> None:
    """The same for models that train by `compile()` and `fit(data)`.

    Args:
        make: builds the model, not compiled, from keyword arguments of `keras.Model`.
        data: a batch, as given to `fit`.
        directory: an empty folder.
        trainable: expected number of entries of the trainable weights.
        float32_layers: those that compute in float32 under every policy.
        output_dtype: of the outputs under every policy; None for what the policy computes in.
    """
    model = make()
    copy = copy_by_config(model)

    eager = model(data)
    count = len(keras.tree.flatten(data)[0])
    spec = keras.tree.map_structure(
        lambda a: keras.KerasTensor((None, *a.shape[1:]), a.dtype), data
    )

    def same_spec(symbolic: keras.KerasTensor, tensor: Any) -> None:
        assert tuple(symbolic.shape) == (None, *tensor.shape[1:])
        assert tensor.shape[0] == count, "not batch-first"
        assert symbolic.dtype == keras.backend.standardize_dtype(tensor.dtype)

    keras.tree.map_structure(same_spec, copy(spec), eager)
    assert num_entries(model.trainable_weights) == trainable

    # One step of `fit`, without targets.
    before = to_numpy(model.trainable_weights)
    model.compile(optimizer=keras.optimizers.Adam(1e-3))
    history = model.fit(data, batch_size=count, epochs=1, verbose=0).history
    assert all(np.isfinite(values).all() for values in history.values()), history
    assert_finite(model.variables)
    for old, weight in zip(before, model.trainable_weights, strict=True):
        assert np.any(old != to_numpy(weight)), f"{weight.path} did not train"

    # Evaluation writes no weight, and `predict` gives what a call gives.
    frozen = to_numpy(model.weights)
    model.evaluate(data, batch_size=count, verbose=0)
    predicted = model.predict(data, batch_size=count, verbose=0)
    assert_same(model.weights, frozen)
    keras.tree.assert_same_structure(predicted, eager)
    _check_saving(model, data, directory)

    # Precision policies.
    for policy in POLICIES:
        low = make(dtype=policy)
        outputs = low(data)
        compute = keras.DTypePolicy(policy).compute_dtype
        named = outputs if isinstance(outputs, dict) else {"outputs": outputs}
        dtype = keras.backend.standardize_dtype(named["outputs"].dtype)
        assert dtype == (output_dtype or compute)
        for name, tensor in named.items():
            if name.endswith("loss"):
                assert keras.backend.standardize_dtype(tensor.dtype) == "float32"
        for layer in float32_layers(low):
            assert all(keras.backend.standardize_dtype(w.dtype) == "float32" for w in layer.weights)
    # One step in the precision that overflows soonest; `low` is of the last policy, float16.
    low.compile(optimizer="sgd")
    history = low.fit(data, batch_size=count, verbose=0).history
    assert all(np.isfinite(values).all() for values in history.values()), history
    assert_finite(low.trainable_weights)


def gradient(fn: Callable, x: Any) -> np.ndarray:
    """Gradient of the scalar `fn(x)`."""
    if keras.backend.backend() == "jax":
        import jax

        return np.asarray(jax.grad(fn)(x))
    import tensorflow as tf

    x = tf.convert_to_tensor(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = fn(x)
    return tape.gradient(value, x).numpy()


def dependencies(logits: Callable, grid_shape: tuple, channels: int) -> np.ndarray:
    """Which positions the logits of a position depend on.

    Args:
        logits: from *embedded* codes `(batch, *grid_shape, channels)` to
            `(batch, *grid_shape, num_codes)`.

    Returns:
        bool `(positions, positions)`: [i, j] is whether the logits at i depend on the code at j,
        both in raster order. One example a position goes through at once, so that a model that
        mixes examples fails too.
    """
    count = int(np.prod(grid_shape))
    x = floats((count, *grid_shape, channels))

    def chosen(x: Any) -> Any:
        out = logits(x)
        flat = keras.ops.reshape(out, (count, count, out.shape[-1]))
        # Weights at random, so that no gradients cancel.
        weights = np.eye(count)[..., None] * np.random.default_rng(1).normal(size=out.shape[-1])
        return keras.ops.sum(flat * weights.astype("float32"))

    found = gradient(chosen, x).reshape(count, count, channels)
    return np.any(found != 0, -1)


def check_steps(model: keras.Model, x: Any, tolerance: float = 1e-5) -> None:
    """The logits of `step` equal those of `call` at every position.

    Args:
        model: autoregressive.
        x: codes, or a dict of codes and condition, as `fit` takes them.
    """
    codes, condition = (x["codes"], x["condition"]) if isinstance(x, dict) else (x, None)
    batch, columns = len(codes), codes.shape[-1]
    rows = codes.reshape(batch, -1, columns)
    expected = to_numpy(model(x)).reshape(*rows.shape, -1)
    cache = model.initial_cache(batch, condition)
    # Where there is nothing before, what is given must not be looked at: junk, within range.
    junk = np.full((batch, columns), model.num_codes - 1, "int32")
    by_rows = type(model).begin_row is not Autoregressive.begin_row
    flat = codes.reshape(batch, -1)
    for row in range(rows.shape[1]):
        cache = model.begin_row(cache, rows[:, row - 1] if row else junk, row)
        for column in range(columns):
            position = row * columns + column
            unknown = column == 0 if by_rows else position == 0
            previous = junk[:, 0] if unknown else flat[:, position - 1]
            logits, cache = model.step(cache, previous, np.int32(position))
            np.testing.assert_allclose(
                to_numpy(logits), expected[:, row, column], atol=tolerance, rtol=tolerance
            )


def naive_sample(
    model: keras.Model,
    n: int,
    seed: int,
    condition: Any = None,
    temperature: float = 1.0,
    top_k: int = 10**6,
    top_p: float = 1.0,
) -> np.ndarray:
    """Samples by running the whole network again for every position, from the same numbers."""
    options = sampling.Options(np.float32(temperature), np.int32(top_k), np.float32(top_p))
    u = to_numpy(sampling.given_positions(model.grid_shape, n, seed).u).reshape(n, -1)
    codes = np.zeros((n, *model.grid_shape), "int32")
    network = backend.jit(model, model)
    for position in range(model.num_positions):
        x = codes if condition is None else {"codes": codes, "condition": condition}
        logits = to_numpy(network(x)).reshape(n, -1, model.num_codes)[:, position]
        drawn = to_numpy(sampling.draw(logits, u[:, position], options))
        codes.reshape(n, -1)[:, position] = drawn
    return codes
