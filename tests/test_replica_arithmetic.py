"""What replicas compute together equals what one device computes, with threads for replicas.

`tests/test_replicas.py` trains under real strategies, each in a process of its own. Here the
collectives alone are replaced, so that a dropped or doubled one is noticed in milliseconds.
"""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest

pytestmark = pytest.mark.tensorflow

if keras.backend.backend() != "tensorflow":  # JAX has global arrays and no collectives
    pytest.skip("tf.distribute is TensorFlow's", allow_module_level=True)

import tensorflow as tf  # noqa: E402

from keras_vqvae import VectorQuantizer, backend  # noqa: E402
from keras_vqvae.metrics import CodeUsage  # noqa: E402
from tests.checks import floats  # noqa: E402
from tests.inside import replace  # noqa: E402


class Replica:
    """The context of a replica: its number, and sums over all."""

    def __init__(self, number: int, shared: list, barrier: threading.Barrier) -> None:
        self.replica_id_in_sync_group = number
        self.num_replicas_in_sync = barrier.parties
        self._shared, self._barrier = shared, barrier

    def all_reduce(self, op: tf.distribute.ReduceOp, tensors: object) -> object:
        assert op is tf.distribute.ReduceOp.SUM
        self._shared[self.replica_id_in_sync_group] = tensors
        self._barrier.wait(60)
        every = list(self._shared)
        self._barrier.wait(60)  # before the next value is put there
        return tf.nest.map_structure(lambda *parts: sum(parts[1:], parts[0]), *every)


def on_replicas(monkeypatch: pytest.MonkeyPatch, run: Callable, parts: list) -> list:
    """`run(part)` of each part, each on a replica of its own."""
    shared, barrier = [None] * len(parts), threading.Barrier(len(parts))
    contexts = threading.local()
    replace(monkeypatch, backend, "replica_context", lambda: getattr(contexts, "own", None))

    def one(number: int) -> object:
        contexts.own = Replica(number, shared, barrier)
        try:
            return run(parts[number])
        except BaseException:
            barrier.abort()  # or the others would wait
            raise

    with ThreadPoolExecutor(len(parts)) as pool:
        return list(pool.map(one, range(len(parts))))


@pytest.mark.parametrize("sizes", [(3, 1), (2, 2, 0)])
@pytest.mark.parametrize("weighted", [False, True])
def test_gradient_and_logged_value_are_those_of_the_global_mean(
    weighted: bool, sizes: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, ends = floats((sum(sizes),)), np.cumsum(sizes)[:-1]
    weights = np.array([1.0, 0.0, 2.0, 0.5], "float32") if weighted else np.ones(4, "float32")

    def step(part: tuple) -> tuple:
        x, weights = map(tf.constant, part)
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = backend.global_mean(x * x, weights if weighted else None)
        return loss, tape.gradient(loss, x)

    parts = list(zip(np.split(x, ends), np.split(weights, ends), strict=True))
    made = on_replicas(monkeypatch, step, parts)
    mean = np.sum(x * x * weights) / weights.sum()
    gradient = 2 * x * weights / weights.sum()
    np.testing.assert_allclose(np.concatenate([g for _, g in made]), gradient, rtol=1e-5)
    # Keras logs each replica's value times the number of replicas, weighted by its examples.
    logged = sum(v * len(sizes) * n for (v, _), n in zip(made, sizes, strict=True)) / sum(sizes)
    np.testing.assert_allclose(logged, mean, rtol=1e-5)


def test_where_each_replicas_rows_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    made = on_replicas(monkeypatch, backend.global_rows, [3, 0, 2])
    assert [tuple(map(int, rows)) for rows in made] == [(0, 5), (3, 5), (3, 5)]


@pytest.mark.parametrize("masked, codebook", [(True, "ema"), (False, "ema"), (False, "gradient")])
def test_codebooks_move_as_on_one_device(
    masked: bool, codebook: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = [floats((8, 3, 2), seed=seed) for seed in (0, 1)]
    mask = np.random.default_rng(0).random((8, 3)) < 0.7 if masked else np.ones((8, 3), bool)

    def train(rows: slice) -> list:
        # With an expiry of almost 1 codes are restarted in every step.
        layer = VectorQuantizer(4, 2, codebook=codebook, decay=0.5, expiry=0.9, seed=0)
        for x in steps:
            layer(x[rows], training=True, return_info=True, mask=mask[rows] if masked else None)
        return [weight.numpy() for weight in layer.weights]

    expected = train(slice(None))
    for weights in on_replicas(monkeypatch, train, [slice(0, 5), slice(5, 8)]):
        for weight, wanted in zip(weights, expected, strict=True):
            np.testing.assert_allclose(weight, wanted, rtol=1e-5, atol=1e-6)


def test_use_of_codes_is_that_of_the_global_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    def counted(codes: list) -> np.ndarray:
        metric = CodeUsage(4)
        metric.update_state(np.array(codes, "int32"))
        return metric.counts.numpy()

    for counts in on_replicas(monkeypatch, counted, [[0, 1, 1], [3]]):
        np.testing.assert_array_equal(counts, [1, 2, 0, 1])
