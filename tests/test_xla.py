"""TensorFlow compiled by XLA, `compile(jit_compile=True)`, gives the numbers of its graphs.

JAX compiles always. Samples compiled by XLA are also in `tests/models/test_pixelcnn.py`.
"""

import dataclasses

import keras
import numpy as np
import pytest

from keras_vqvae import VQVAE
from tests.inside import inside
from tests.replicas import CASES, check_differences, differences, train

pytestmark = pytest.mark.tensorflow

# The others differ in what is not compiled.
TRAINED = [name for name in CASES if "adapted" not in name and "replica" not in name]


SHORT = ("ema_restarts", "prior_of_classes")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in SHORT else pytest.mark.long) for n in TRAINED]
)
def test_training(name: str) -> None:
    """20 steps of SGD, the last batch of an epoch uneven; then `evaluate` and `predict`."""
    case = dataclasses.replace(CASES[name], compare_logs=True)  # wrong on replicas only
    graph = train(case, jit_compile=False)
    xla = train(case, graph["initial"], jit_compile=True)
    check_differences(name, case, 1, differences(graph, xla))


@pytest.mark.parametrize("codebook", ["ema", "gradient"])
def test_coding(codebook: str) -> None:
    import tensorflow as tf

    case = CASES["ema_restarts" if codebook == "ema" else "gradient_codebook"]
    model = case.make()
    assert isinstance(model, VQVAE)
    images = case.data(9)
    model.adapt(images)

    def compiled(fn: object) -> object:
        return tf.function(fn, jit_compile=True, autograph=False)

    codes = model.encode(images)
    assert len(np.unique(codes)) > 4
    np.testing.assert_array_equal(compiled(inside(model).encode)(images), codes)
    pictures = model.decode(codes).astype(int)
    # Whole grey levels, where rounding may decide.
    assert np.abs(compiled(inside(model).decode)(codes).numpy() - pictures).max() <= 1
    assert np.abs(compiled(inside(model).reconstruct)(images).numpy() - pictures).max() <= 1


@pytest.mark.parametrize("name", ["prior", "prior_of_classes", "prior_of_maps"])
def test_inpainting(name: str) -> None:
    x = CASES[name].data(5)
    given = (x["codes"], np.random.default_rng(0).random(x["codes"].shape) < 0.5)
    drawn = []
    for jit_compile in (False, True):
        keras.utils.set_random_seed(0)
        model = CASES[name].make()
        model.compile("sgd", jit_compile=jit_compile)
        drawn.append(model.inpaint(*given, condition=x.get("condition"), seed=0))
    np.testing.assert_array_equal(*drawn)
    assert (drawn[0] != x["codes"]).any()
