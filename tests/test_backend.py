"""What differs between the backends behaves alike on both."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_vqvae import backend
from tests.checks import floats, gradient, to_numpy

SEEDS = {"int": 7, "vector": np.array([3, 4], "uint32")}


@pytest.mark.parametrize("seed", SEEDS.values(), ids=SEEDS)
def test_uniforms(seed: object) -> None:
    u = to_numpy(backend.uniforms((1000, 5), seed))
    assert u.shape == (1000, 5) and u.dtype == "float32"
    assert 0 <= u.min() and u.max() < 1
    # Mean and variance of 5000 numbers, within 4 standard errors.
    assert abs(u.mean() - 0.5) < 4 * np.sqrt(1 / 12 / 5000)
    assert abs(u.var() - 1 / 12) < 4 * np.sqrt(1 / 180 / 5000)
    np.testing.assert_array_equal(to_numpy(backend.uniforms((1000, 5), seed)), u)
    assert (to_numpy(backend.uniforms((1000, 5), 8)) != u).mean() > 0.99


def test_uniforms_of_consecutive_generator_states() -> None:
    generator = keras.random.SeedGenerator(1)
    a, b = (to_numpy(backend.uniforms((100,), generator.next())) for _ in range(2))
    assert (a != b).mean() > 0.9


@pytest.mark.tensorflow
@pytest.mark.parametrize("seed", SEEDS.values(), ids=SEEDS)
def test_uniforms_are_the_same_eagerly_in_graphs_and_under_xla(seed: object) -> None:
    import tensorflow as tf

    expected = backend.uniforms((50, 3), seed)
    for jit_compile in (False, True):
        compiled = tf.function(lambda s: backend.uniforms((50, 3), s), jit_compile=jit_compile)
        np.testing.assert_array_equal(compiled(tf.constant(seed)), expected)
    # The shape may be known only when the graph runs.
    compiled = tf.function(lambda n: backend.uniforms((n, 3), seed))
    np.testing.assert_array_equal(compiled(tf.constant(50)), expected)


def test_jit_sees_new_values_of_variables() -> None:
    layer = keras.layers.Dense(2)
    layer.build((None, 3))
    traces = []

    def fn(x: object) -> object:
        traces.append(1)
        return layer(x)

    run = backend.jit(fn, layer)
    x = ops.convert_to_tensor(floats((4, 3)))
    for scale in (1.0, 2.0, 3.0):
        layer.kernel.assign(np.full((3, 2), scale, "float32"))
        np.testing.assert_allclose(to_numpy(run(x)), to_numpy(layer(x)), rtol=1e-5)
    assert len(traces) == 1, "compiled more than once"


def test_argmax() -> None:
    scores = np.array([[1.0, 3.0, 3.0], [0.0, -1.0, -2.0]], "float32")
    found = backend.argmax(ops.convert_to_tensor(scores))
    np.testing.assert_array_equal(to_numpy(found), [1, 0])
    assert keras.backend.standardize_dtype(found.dtype) == "int32"
    more = floats((5, 6, 7))
    np.testing.assert_array_equal(to_numpy(backend.argmax(more)), more.argmax(-1))


def test_global_mean_of_one_device() -> None:
    x = floats((5,))
    assert float(backend.global_mean(ops.convert_to_tensor(x))) == pytest.approx(x.mean(), abs=1e-6)
    assert float(backend.global_mean(ops.zeros((0,)))) == 0.0


def test_weighted_mean_of_one_device() -> None:
    x, weights = floats((5,)), np.array([3, 0, 1, 0.5, 2], "float32")
    found = backend.global_mean(ops.convert_to_tensor(x), ops.convert_to_tensor(weights))
    assert float(found) == pytest.approx(np.average(x, weights=weights), abs=1e-6)
    slope = gradient(lambda x: backend.global_mean(x, weights), x)
    np.testing.assert_allclose(slope, weights / weights.sum(), rtol=1e-6)
    # What does not count at all gives neither a value nor a gradient.
    none = np.zeros(5, "float32")
    assert float(backend.global_mean(ops.convert_to_tensor(x), none)) == 0.0
    assert not gradient(lambda x: backend.global_mean(x, none), x).any()
    assert float(backend.global_mean(ops.zeros((0,)), ops.zeros((0,)))) == 0.0


def test_uniforms_by_place() -> None:
    """A slice is decided by the seed, its row and its example, whatever else is asked for."""
    rows, examples = np.array([0, 3, 70000], "int32"), np.array([0, 5, 70000], "int32")
    u = to_numpy(backend.uniforms_by_place((40,), 7, rows, examples))
    assert u.shape == (3, 3, 40) and u.dtype == "float32"
    assert len(np.unique(u)) > 0.99 * u.size
    part = to_numpy(backend.uniforms_by_place((40,), 7, rows[1:], examples[1:2]))
    np.testing.assert_array_equal(part, u[1:, 1:2])
    assert (to_numpy(backend.uniforms_by_place((40,), 8, rows, examples)) != u).mean() > 0.99


@pytest.mark.tensorflow
def test_uniforms_by_place_are_the_same_in_graphs_and_under_xla() -> None:
    import tensorflow as tf

    rows, examples = tf.constant([0, 70000]), tf.constant([3, 70000, 1])
    expected = backend.uniforms_by_place((9,), 7, rows, examples)
    for jit_compile in (False, True):
        compiled = tf.function(
            lambda *args: backend.uniforms_by_place((9,), *args), jit_compile=jit_compile
        )
        np.testing.assert_array_equal(compiled(tf.constant(7), rows, examples), expected)


def test_outside_a_strategy_there_is_one_replica() -> None:
    assert backend.num_replicas() == 1
    first, total = backend.global_rows(7)
    assert (int(first), int(total)) == (0, 7)
    assert float(backend.all_reduce_sum(ops.ones(()))) == 1.0
