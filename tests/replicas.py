"""Training on replicas equals training on one device.

Run as a program, `python -m tests.replicas DEVICES`, with all cases or those named after it: a
process can hold one `MirroredStrategy` only, so that each number of devices is a process of its
own. Prints one line of JSON a case: the greatest differences found, and how many codes were
restarted.

A new model joins by one entry in `CASES`.
"""

import dataclasses
import json
import sys
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_vqvae import VQVAE, ImageVQVAE, PixelCNN, VectorQuantizer
from keras_vqvae.layers.vector_quantizer import FRESH_USE

STEPS = 20


@dataclasses.dataclass(frozen=True)
class Case:
    """A model and its data.

    Attributes:
        make: builds the model; every source of randomness seeded.
        data: gives `x`, or `(x, y)`.
        batch_size: of the global batch.
        compare_logs: whether logged losses and metrics must agree too.
        restarts: whether codes must have been restarted on the way.
        loss: for models that are not their own target.
    """

    make: Callable[[], keras.Model]
    data: Callable[[], Any]
    batch_size: int = 16
    compare_logs: bool = True
    restarts: bool = False
    loss: str | None = None


def _images(count: int) -> Callable[[], np.ndarray]:
    def make() -> np.ndarray:
        # Later pictures are brighter, so that codes die and are restarted.
        noise = np.random.default_rng(0).uniform(0, 128, (count, 8, 8, 3))
        return (noise + np.linspace(0, 127, count)[:, None, None, None]).astype("uint8")

    return make


def _rows(count: int) -> Callable[[], tuple]:
    def make() -> tuple:
        x = np.random.default_rng(0).normal(size=(count, 5)).astype("float32")
        return x, x[:, :2]

    return make


def _image_vqvae(**options: Any) -> Callable[[], keras.Model]:
    def make() -> keras.Model:
        quantizer = VectorQuantizer(32, 4, seed=1, **options)
        return ImageVQVAE((8, 8, 3), quantizer=quantizer, hidden=8, residual_blocks=1)

    return make


def _own_networks() -> keras.Model:
    layers = keras.layers
    encoder = keras.Sequential(
        [
            layers.Conv2D(8, 4, 4, activation="gelu", kernel_regularizer="l2"),
            layers.Conv2D(4, 1, kernel_regularizer="l2"),
        ]
    )
    decoder = keras.Sequential([layers.Conv2DTranspose(3, 4, 4, bias_regularizer="l1")])
    return VQVAE(encoder, VectorQuantizer(16, 4, seed=1), decoder)


def _alone(**options: Any) -> Callable[[], keras.Model]:
    def make() -> keras.Model:
        quantizer = VectorQuantizer(16, 4, seed=1, **options)
        dense = keras.layers.Dense
        return keras.Sequential([keras.Input((5,)), dense(4), quantizer, dense(2)])

    return make


def _codes(count: int, **condition: Callable[[int], np.ndarray]) -> Callable[[], Any]:
    def make() -> Any:
        codes = np.random.default_rng(0).integers(0, 16, (count, 3, 5)).astype("int32")
        return {"codes": codes, **{k: fn(count) for k, fn in condition.items()}}

    return make


def _prior(**options: Any) -> Callable[[], keras.Model]:
    return lambda: PixelCNN((3, 5), 16, hidden=8, num_layers=3, **options)


# 57 = 3*16 + 9: the last batch is uneven. 49 = 3*16 + 1: it leaves replicas without an example.
CASES = {
    "ema_restarts_uneven": Case(_image_vqvae(expiry=0.09, decay=0.5), _images(57), restarts=True),
    "ema_restarts_empty_replica": Case(
        _image_vqvae(expiry=0.09, decay=0.5), _images(49), restarts=True
    ),
    "gradient_codebook": Case(
        _image_vqvae(codebook="gradient", expiry=0.09, decay=0.5), _images(57), restarts=True
    ),
    "prior_uneven": Case(_prior(), _codes(57)),
    "prior_of_classes_empty_replica": Case(
        _prior(num_classes=4),
        _codes(49, condition=lambda n: np.arange(n, dtype="int32") % 4),
    ),
    "own_networks_with_regularizers": Case(_own_networks, _images(49)),
    # With `add_loss`: Keras logs a wrong loss, and its own "mse" is a mean of the replicas' means,
    # right only for even batches.
    "layer_alone": Case(_alone(), _rows(64), compare_logs=False, loss="mse"),
    "layer_alone_uneven": Case(
        _alone(codebook="gradient", expiry=0.09, decay=0.2),
        lambda: _rows(57)()[0],
        compare_logs=False,
        restarts=True,
    ),
}


class _Restarts(keras.callbacks.Callback):
    """Counts restarts."""

    def __init__(self, model: keras.Model) -> None:
        super().__init__()
        self.quantizer = _quantizer(model)
        self.count = 0

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        if self.quantizer is None:
            return
        # A restart gives a code this count, to the bit; other codes reach it by no likely chance.
        counts = self.quantizer._counts.numpy()
        self.count += int(np.isclose(counts, FRESH_USE, rtol=1e-6, atol=0.0).sum())


def _quantizer(model: keras.Model) -> VectorQuantizer | None:
    found = [x for x in model._flatten_layers() if isinstance(x, VectorQuantizer)]
    return found[0] if found else None


def _train(case: Case, weights: list | None) -> dict:
    keras.utils.set_random_seed(0)
    model = case.make()
    data = case.data()
    x, y = data if isinstance(data, tuple) else (data, None)
    model(keras.tree.map_structure(lambda a: a[:2], x))
    if weights is not None:
        model.set_weights(weights)
    initial = [v.numpy() for v in model.weights]
    # No momentum, no adaptivity: those amplify rounding.
    model.compile(optimizer=keras.optimizers.SGD(0.05), loss=case.loss)
    restarts = _Restarts(model)
    options = {"batch_size": case.batch_size, "verbose": 0}
    epochs = STEPS // -(-len(keras.tree.flatten(x)[0]) // case.batch_size)
    targets = {} if y is None else {"y": y}
    # What `fit` logs at the end of an epoch. Within an epoch Keras averages the replicas' own
    # metrics, whatever their numbers of examples: an approximation that no model can change.
    history = model.fit(
        x, **targets, epochs=epochs, shuffle=False, callbacks=[restarts], **options
    ).history
    assert model.optimizer.iterations.numpy() == STEPS
    return {
        "initial": initial,
        "weights": {f"{i} {v.path}": v.numpy() for i, v in enumerate(model.weights)},
        "codebook": keras.ops.convert_to_numpy(_codebook(model)),
        "history": history,
        "evaluated": model.evaluate(x, y, return_dict=True, **options) if case.compare_logs else {},
        "restarts": restarts.count,
        "between_replicas": _between_replicas(model),
    }


def _codebook(model: keras.Model) -> np.ndarray:
    quantizer = _quantizer(model)
    if quantizer is None:
        return np.zeros(0)
    offset = quantizer._offset.numpy() if quantizer.codebook == "gradient" else 0.0
    return quantizer._base.numpy() + offset


def _differences(one: dict, many: dict) -> dict:
    def logs(a: dict, b: dict) -> dict:
        assert set(a) == set(b), (set(a), set(b))
        return {n: float(np.max(np.abs(np.subtract(a[n], b[n])))) for n in a}

    return {
        "weights": {
            name: float(np.max(np.abs(a - b)))
            for (name, a), b in zip(one["weights"].items(), many["weights"].values(), strict=True)
        },
        "moved": float(max(np.max(np.abs(a - b)) for a, b in
                           zip(one["initial"], one["weights"].values(), strict=True))),
        "codebook": float(np.max(np.abs(one["codebook"] - many["codebook"]), initial=0.0)),
        "logs": logs(one["history"], many["history"]),
        "evaluated": logs(one["evaluated"], many["evaluated"]),
        "between_replicas": many["between_replicas"],
        "restarts": [one["restarts"], many["restarts"]],
    }  # fmt: skip


def _between_replicas(model: keras.Model) -> float:
    """Greatest difference between the replicas' own copies of a variable."""
    most = 0.0
    for weight in model.weights:
        copies = [v.numpy() for v in getattr(weight.value, "values", [weight])]
        most = max(most, *(float(np.max(np.abs(c - copies[0]), initial=0.0)) for c in copies))
    return most


def main(devices: int, names: list[str]) -> None:
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration()] * devices
    )
    tf.config.threading.set_intra_op_parallelism_threads(1)
    strategy = tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(devices)])
    assert strategy.num_replicas_in_sync == devices
    for name in names or CASES:
        one = _train(CASES[name], None)
        with strategy.scope():
            many = _train(CASES[name], one["initial"])
        print(json.dumps({"case": name, **_differences(one, many)}), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
