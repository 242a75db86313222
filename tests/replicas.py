"""Training on replicas equals training on one device.

Run as a program, `python -m tests.replicas DEVICES`, with all cases or those named after it: a
process can hold one `MirroredStrategy` only, so that each number of devices is a process of its
own. Prints one line of JSON a case: the greatest differences found, and how many codes were
restarted.

A new model joins by one entry in `CASES`; `tests/data_parallel.py` trains the same cases under JAX.
"""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_vqvae import (
    VQVAE,
    AudioVQVAE,
    ImageVQVAE,
    ParallelDecoder,
    PixelCNN,
    VectorQuantizer,
    VideoPredictor,
    WaveNet,
    WaveNetDecoder,
)
from keras_vqvae.layers.vector_quantizer import FRESH_USE
from tests.inside import inside

STEPS = 20
TOLERANCE = 1e-5


@dataclasses.dataclass(frozen=True)
class Case:
    """A model and its data.

    Attributes:
        make: builds the model; every source of randomness seeded.
        data: gives `x`, or `(x, y)`, of so many examples.
        count: how many.
        batch_size: of the global batch.
        steps: of training.
        rate: of learning.
        compare_logs: whether logged losses and metrics must agree too.
        restarts: whether codes must have been restarted on the way.
        adapt: whether `adapt` sets the codebook before training.
        loss: for models that are not their own target.
    """

    make: Callable[[], keras.Model]
    data: Callable[[int], Any]
    count: int = 57
    batch_size: int = 16
    steps: int = STEPS
    rate: float = 0.05
    compare_logs: bool = True
    restarts: bool = False
    adapt: bool = False
    loss: str | None = None


def _images(count: int) -> np.ndarray:
    # Later pictures are brighter, so that codes die and are restarted.
    noise = np.random.default_rng(0).uniform(0, 128, (count, 8, 8, 3))
    return (noise + np.linspace(0, 127, count)[:, None, None, None]).astype("uint8")


def _rows(count: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, 5)).astype("float32")


def _rows_and_targets(count: int) -> tuple:
    return _rows(count), _rows(count)[:, :2]


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


def _codes(condition: Callable[[int], np.ndarray] | None = None) -> Callable[[int], dict]:
    def make(count: int) -> dict:
        codes = np.random.default_rng(0).integers(0, 16, (count, 3, 5)).astype("int32")
        return {"codes": codes, **({"condition": condition(count)} if condition else {})}

    return make


def _labels(count: int) -> np.ndarray:
    return np.arange(count, dtype="int32") % 4


def _maps(count: int) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(count, 3, 5, 2)).astype("float32")


def _prior(**options: Any) -> Callable[[], keras.Model]:
    return lambda: PixelCNN((3, 5), 16, hidden=8, num_layers=3, **options)


def _sound(count: int) -> dict:
    """Tones that grow higher, of three speakers, some padded."""
    random = np.random.default_rng(0)
    pitch = np.linspace(0.02, 0.2, count)[:, None]
    tones = 0.5 * np.sin(2 * np.pi * pitch * np.arange(64)) + random.normal(0, 0.05, (count, 64))
    return {
        "waveform": tones.astype("float32"),
        "speaker": np.arange(count, dtype="int32") % 3,
        "length": np.where(np.arange(count) % 4, 64, 40).astype("int32"),
    }


def _audio(parallel: bool) -> Callable[[], keras.Model]:
    def make() -> keras.Model:
        decoder: Any = WaveNetDecoder(8, channels=6, skip_channels=8, dilations=(1, 2, 4))
        if parallel:
            decoder = ParallelDecoder((4, 2), 8, finest_hidden=6, dilations=(1,))
        quantizer = VectorQuantizer(16, 4, seed=1, **_RESTARTING)
        networks: dict = {"hidden": 8, "residual_blocks": 1, "decoder": decoder}
        return AudioVQVAE(8000, downsampling=8, num_speakers=3, quantizer=quantizer, **networks)

    return make


def _sequences(count: int) -> dict:
    codes = np.random.default_rng(0).integers(0, 16, (count, 12)).astype("int32")
    return {"codes": codes, "condition": _labels(count), "length": 6 + _labels(count)}


def _wavenet() -> keras.Model:
    small: dict = {"channels": 8, "skip_channels": 8, "dilations": (1, 2, 4)}
    return WaveNet(16, num_classes=4, burn_in=2, **small)


def _video(count: int) -> dict:
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 16, (count, 4, 2, 2)).astype("int32")
    return {"codes": codes, "actions": rng.integers(0, 3, (count, 4)).astype("int32")}


def _predictor() -> keras.Model:
    small: dict = {"hidden": 8, "past_dilations": (1, 2), "num_layers": 2}
    # Which frames lose their context is another thing on each replica.
    vqvae = ImageVQVAE((8, 8, 3), 16, 4, hidden=8, residual_hidden=4)
    return VideoPredictor(vqvae, 3, context_frames=2, context_dropout=0.0, **small)


_RESTARTING = {"expiry": 0.09, "decay": 0.5}

# 57 = 3*16 + 9: the last batch is uneven. 49 = 3*16 + 1: it leaves replicas without an example.
CASES = {
    "ema_restarts": Case(_image_vqvae(**_RESTARTING), _images, restarts=True),
    "ema_restarts_empty_replica": Case(
        _image_vqvae(**_RESTARTING), _images, count=49, restarts=True
    ),
    "ema_adapted": Case(_image_vqvae(**_RESTARTING), _images, restarts=True, adapt=True),
    "gradient_codebook": Case(
        _image_vqvae(codebook="gradient", **_RESTARTING), _images, restarts=True
    ),
    "gradient_codebook_adapted": Case(
        _image_vqvae(codebook="gradient", **_RESTARTING), _images, count=49, adapt=True
    ),
    "prior": Case(_prior(), _codes()),
    "prior_of_classes": Case(_prior(num_classes=4), _codes(_labels), count=49),
    "prior_of_maps": Case(_prior(condition_channels=2), _codes(_maps)),
    "sound_by_wavenet": Case(_audio(parallel=False), _sound, restarts=True),
    # One step: in bins near silence the loss of spectra has a gradient of whatever direction
    # rounding gives it, which from step to step amplifies differences a hundred times.
    "sound_in_parallel": Case(_audio(parallel=True), _sound, count=9, steps=1, rate=0.01),
    "prior_of_sound": Case(_wavenet, _sequences, count=49),
    "video": Case(_predictor, _video, count=49),
    "own_networks_with_regularizers": Case(_own_networks, _images, count=49),
    # With `add_loss`: Keras logs a wrong loss, and its own "mse" is a mean of the replicas' means,
    # right only for even batches.
    "layer_alone": Case(_alone(), _rows_and_targets, count=64, compare_logs=False, loss="mse"),
    "layer_alone_restarts": Case(
        _alone(codebook="gradient", expiry=0.09, decay=0.2),
        _rows,
        compare_logs=False,
        restarts=True,
    ),
}


class _Restarts(keras.callbacks.Callback):
    """Counts restarts."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        quantizer = _quantizer(self.model)  # `self.model` is up to date under JAX too
        if quantizer is not None:
            # A restart gives a code this count, to the bit; others reach it by no likely chance.
            fresh = np.isclose(inside(quantizer).counts.numpy(), FRESH_USE, rtol=1e-6, atol=0.0)
            self.count += int(fresh.sum())


def _quantizer(model: keras.Model) -> VectorQuantizer | None:
    found = [x for x in inside(model).flatten_layers() if isinstance(x, VectorQuantizer)]
    return found[0] if found else None


def train(case: Case, weights: list | None = None, jit_compile: bool | str = "auto") -> dict:
    """Trains a case, from the weights of another run if given, and says what came out."""
    keras.utils.set_random_seed(0)
    model = case.make()
    data = case.data(case.count)
    x, y = data if isinstance(data, tuple) else (data, None)
    model(keras.tree.map_structure(lambda a: a[:2], x))
    if weights is not None:
        model.set_weights(weights)
    initial = [v.numpy() for v in model.weights]
    if case.adapt:
        model.adapt(x)
    # No momentum, no adaptivity: those amplify rounding.
    sgd = keras.optimizers.SGD(case.rate)
    model.compile(optimizer=sgd, loss=case.loss, jit_compile=jit_compile)
    assert model.jit_compile == jit_compile or jit_compile == "auto"
    restarts = _Restarts()
    options = {"batch_size": case.batch_size, "verbose": 0}
    epochs = case.steps // -(-case.count // case.batch_size)
    targets = {} if y is None else {"y": y}
    # What `fit` logs at the end of an epoch. Within an epoch Keras averages the replicas' own
    # metrics, whatever their numbers of examples: an approximation that no model can change.
    history = model.fit(
        x, **targets, epochs=epochs, shuffle=False, callbacks=[restarts], **options
    ).history
    assert model.optimizer.iterations.numpy() == case.steps
    predicted = model.predict(x, **options)
    return {
        "initial": initial,
        "weights": {f"{i} {v.path}": v.numpy() for i, v in enumerate(model.weights)},
        "codebook": keras.ops.convert_to_numpy(_codebook(model)),
        "history": history,
        "evaluated": model.evaluate(x, y, return_dict=True, **options) if case.compare_logs else {},
        "predicted": predicted if isinstance(predicted, dict) else {"outputs": predicted},
        "restarts": restarts.count,
        "copies": max(len(_copies(v)) for v in model.weights),
        "between_replicas": max(_between_copies(v) for v in model.weights),
        "moved": max(
            float(np.max(np.abs(v.numpy() - before)))
            for v, before in zip(model.weights, initial, strict=True)
            if v.trainable
        ),
    }


def _codebook(model: keras.Model) -> np.ndarray:
    quantizer = _quantizer(model)
    if quantizer is None:
        return np.zeros(0)
    offset = inside(quantizer).offset.numpy() if quantizer.codebook == "gradient" else 0.0
    return inside(quantizer).base.numpy() + offset


def differences(one: dict, many: dict) -> dict:
    """The greatest differences between two results of `train`."""

    def logs(a: dict, b: dict) -> dict:
        assert set(a) == set(b), (set(a), set(b))
        return {n: float(np.max(np.abs(np.subtract(a[n], b[n])))) for n in a}

    return {
        "weights": {
            name: float(np.max(np.abs(a - b)))
            for (name, a), b in zip(one["weights"].items(), many["weights"].values(), strict=True)
        },
        "moved": one["moved"],
        "codebook": float(np.max(np.abs(one["codebook"] - many["codebook"]), initial=0.0)),
        "logs": logs(one["history"], many["history"]),
        "evaluated": logs(one["evaluated"], many["evaluated"]),
        "predicted": logs(one["predicted"], many["predicted"]),
        "between_replicas": many["between_replicas"],
        "copies": many["copies"],
        "restarts": [one["restarts"], many["restarts"]],
    }


def _copies(weight: keras.Variable) -> list:
    """A variable as each replica or device has it."""
    if hasattr(weight.value, "addressable_shards"):  # JAX
        return [np.asarray(shard.data) for shard in weight.value.addressable_shards]
    return [v.numpy() for v in getattr(weight.value, "values", [weight])]


def _between_copies(weight: keras.Variable) -> float:
    copies = _copies(weight)
    return max(float(np.max(np.abs(copy - copies[0]), initial=0.0)) for copy in copies)


def run_program(module: str, *arguments: str, **environment: str) -> list[dict]:
    """The lines of JSON that a module of tests prints, run as a program."""
    run = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=Path(__file__).parents[1],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1", **environment},
        capture_output=True,
        text=True,
        timeout=600,
    )
    lines = [json.loads(line) for line in run.stdout.splitlines() if line.startswith('{"case"')]
    finished = [line["case"] for line in lines]
    assert run.returncode == 0, f"finished {finished}, then:\n{run.stderr[-4000:]}"
    return lines


def check_differences(name: str, case: Case, devices: int, result: dict) -> None:
    """All `differences` are small, and there was something to compare."""
    assert result["copies"] == devices, name
    found = {
        "codebook": result["codebook"],
        "between replicas": result["between_replicas"],
        **result["weights"],
        **{f"predict {k}": v for k, v in result["predicted"].items()},
    }
    if case.compare_logs:
        found |= {f"logged {k}": v for k, v in result["logs"].items()}
        found |= {f"evaluate {k}": v for k, v in result["evaluated"].items()}
        assert "loss" in result["logs"] and "loss" in result["evaluated"], name
    # `not <=` rather than `>`, for NaN.
    wrong = {k: v for k, v in found.items() if not v <= TOLERANCE}
    assert not wrong, f"{name}: {wrong}"
    # The comparison would be empty if nothing had been trained or restarted.
    assert result["moved"] > 0.01, name
    assert result["restarts"][0] == result["restarts"][1], name
    assert not case.restarts or result["restarts"][0] > 0, f"{name}: nothing restarted"


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
        one = train(CASES[name])
        with strategy.scope():
            many = train(CASES[name], one["initial"])
        print(json.dumps({"case": name, **differences(one, many)}), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
