"""Training on several workers, to be compared with training on one device.

    python -m keras_vqvae.distribute --workers 2 -m tests.workers FOLDER TASK...
    python -m tests.workers FOLDER TASK...               # the same on one device

A task is a function below. What it finds is written to `FOLDER/NAME-WORKER.npz`, on one device to
`NAME-alone.npz`. TensorFlow's servers listen on every address: run several workers in a network
namespace of their own.
"""

import contextlib
import json
import os
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_vqvae import VQVAE, ImageVQVAE, VectorQuantizer, callbacks, data
from tests.inside import inside
from tests.replicas import CASES, Case

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
import multi_worker_loop

EPOCHS = 3
CLUSTER = json.loads(os.environ.get("TF_CONFIG") or "{}")
WORKER = str(CLUSTER["task"]["index"]) if CLUSTER else "alone"
COMPARED = (
    "ema_restarts_empty_replica",
    "prior_of_classes",
    "gradient_codebook_adapted",
    "own_networks_with_regularizers",
)
COMPARED_ON_3 = COMPARED[:2]


def scope() -> contextlib.AbstractContextManager:
    return STRATEGY.scope() if STRATEGY else contextlib.nullcontext()


def store(folder: Path, name: str, model: keras.Model, **found: Any) -> None:
    for i, variable in enumerate([*model.weights, *model.optimizer.variables]):
        found[f"{i} {variable.path}"] = variable.numpy()
    np.savez(folder / f"{name}-{WORKER}.npz", **found)


def build(case: Case) -> keras.Model:
    with scope():
        keras.utils.set_random_seed(0)
        model = case.make()
        # No momentum, no adaptivity: those amplify rounding.
        model.compile(keras.optimizers.SGD(0.05))
    return model


def fit(model: keras.Model, x: Any, epochs: int = EPOCHS, **options: Any) -> dict:
    history = model.fit(x, epochs=epochs, verbose=0, **options).history
    return {f"logged {name}": np.array(values) for name, values in history.items()}


def compare(folder: Path) -> None:
    """`fit` with validation, `evaluate`, `predict`: all that the user calls."""
    for name in COMPARED_ON_3 if data.this_worker()[1] == 3 else COMPARED:
        case = CASES[name]
        model, x = build(case), case.data(case.count)
        if case.adapt:
            model.adapt(x)
        logs = fit(
            model, x, batch_size=16, shuffle=False, validation_data=x, validation_batch_size=19
        )
        evaluated = model.evaluate(x, batch_size=16, return_dict=True, verbose=0)
        predicted = keras.tree.flatten(model.predict(x, batch_size=16, verbose=0))
        store(
            folder, name, model, **logs,
            **{f"evaluate {k}": v for k, v in evaluated.items()},
            **{f"predict {i}": v for i, v in enumerate(predicted)},
        )  # fmt: skip


def pipelines(folder: Path) -> None:
    """Data in a seeded order, which each worker reads whole, or its part of; with callbacks."""
    case = CASES["ema_restarts"]
    x = case.data(case.count)
    for name, shard in (("whole", None), ("part", data.this_worker())):
        model = build(case)
        shown = [
            callbacks.ReconstructionPictures(x[:4], folder / f"{name}-{WORKER}-pictures"),
            callbacks.CodebookHistogram(folder / f"{name}-{WORKER}-pictures"),
        ]
        logs = fit(
            model, data.from_array(x, 16, seed=3, shard=shard), callbacks=shown,
            validation_data=data.from_array(x, 16),
        )  # fmt: skip
        store(folder, name, model, **logs)


def records(folder: Path) -> None:
    """Files that each worker reads whole: TensorFlow is not to share them out by itself."""
    case = CASES["ema_restarts"]
    data.write_records(case.data(case.count), folder / f"records-{WORKER}", num_files=4)
    model = build(case)
    logs = fit(model, data.from_records(folder / f"records-{WORKER}", 16))
    store(folder, "records", model, **logs)


def adapt(folder: Path) -> None:
    """Networks that are not built, no seed, each worker its part, outside the scope."""
    with scope():
        encoder, decoder = keras.layers.Conv2D(4, 4, 4), keras.layers.Conv2DTranspose(3, 4, 4)
        model = VQVAE(encoder, VectorQuantizer(16, 4), decoder)
        model.compile(keras.optimizers.SGD(0.05))
    pictures = CASES["ema_restarts"].data(64)
    own = data.from_array(pictures, 16, seed=0, shard=data.this_worker())
    model.adapt(own)
    adapted = model.quantizer.embeddings.numpy()
    fit(model, own)
    store(folder, "adapt", model, adapted=adapted)


def messages(folder: Path) -> None:
    """What is said once, and what is refused."""
    case = CASES["prior"]
    x = case.data(case.count)
    said = []
    with scope():
        model = case.make()
        model.compile("sgd", jit_compile=True, steps_per_execution=2)
    outside = case.make()
    outside.compile("sgd")
    for _ in range(2):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model.fit(x, verbose=0)
        said.append([str(w.message) for w in caught if w.category is UserWarning])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        outside.fit(x, verbose=0)
    said.append([str(w.message) for w in caught if w.category is UserWarning])
    with scope():
        pictures = CASES["own_networks_with_regularizers"]
        unbuilt = pictures.make()
        unbuilt.compile("sgd")
    own = data.from_array(pictures.data(57), 16, shard=data.this_worker())
    refused = []
    for wrong in (((batch,) for batch in [pictures.data(4)]), own.map(lambda x: x)):
        try:
            unbuilt.fit(wrong, verbose=0)
        except ValueError as error:
            refused.append(str(error))
    unbuilt.fit(own.map(lambda x: x).unbatch().batch(16), verbose=0)
    (folder / f"messages-{WORKER}.json").write_text(json.dumps({"said": said, "refused": refused}))


def loop(folder: Path) -> None:
    """A person's own `Sequential`, by the loop that docs/scaling.md recommends."""
    rows = np.random.default_rng(0).normal(size=(64, 5)).astype("float32")
    strategy = STRATEGY or tf.distribute.get_strategy()
    with strategy.scope():
        keras.utils.set_random_seed(0)
        dense = keras.layers.Dense
        model = keras.Sequential(
            [keras.Input((5,)), dense(4), VectorQuantizer(16, 4, seed=1), dense(2)]
        )
        optimizer = keras.optimizers.SGD(0.05)
    batches = tf.data.Dataset.from_tensor_slices((rows, rows[:, :2])).batch(16)
    losses = multi_worker_loop.train(strategy, model, optimizer, batches, epochs=EPOCHS)
    model.optimizer = optimizer
    store(folder, "loop", model, losses=np.array(losses))


def keras_alone(folder: Path) -> None:
    """What Keras's own `fit` says on several workers."""
    with scope():
        model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(2)])
        model.compile("sgd", "mse")
    said = "nothing"
    try:
        model.fit(np.zeros((8, 5)), np.zeros((8, 2)), batch_size=4, shuffle=False, verbose=0)
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
    (folder / f"keras_alone-{WORKER}.txt").write_text(said)


class Kill(keras.callbacks.Callback):
    """Kills this process after `step` batches in all."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = step

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        if self.model.optimizer.iterations.numpy() == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def kill_while_writing(number: int) -> None:
    """Kills this process when it has written a backup of that number, but not yet renamed it."""
    real, calls = os.fsync, []

    def fsync(file: Any) -> None:
        real(file)
        calls.append(file)
        if len(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    os.fsync = fsync


# What happens to each start of the workers: which of them die, and when. 57 examples in batches of
# 16: 4 steps an epoch. Backups are written every 3 steps and after each epoch.
DEATHS: list[Callable[[], list]] = [
    lambda: [Kill(5)] if WORKER in ("1", "alone") else [],  # within epoch 1: one of them
    lambda: [Kill(11)],  # all of them
    lambda: kill_while_writing(2) or [] if WORKER in ("0", "alone") else [],  # the one who writes
    lambda: [],
]


def resume(folder: Path, disturbed: bool = True) -> None:
    """Is killed three times, and started again by the launcher, or by the test."""
    starts = folder / f"starts-{WORKER}"
    start = len(starts.read_bytes()) if starts.exists() else 0
    starts.write_bytes(b"." * (start + 1))
    tf.config.experimental.enable_op_determinism()
    x = CASES["ema_restarts"].data(57)
    with scope():
        keras.utils.set_random_seed(0)
        quantizer = VectorQuantizer(32, 4, expiry=0.09, decay=0.5)
        model = ImageVQVAE((8, 8, 3), quantizer=quantizer, hidden=8, residual_blocks=1)
        model.compile(keras.optimizers.Adam(1e-3))
    deaths = DEATHS[start]() if disturbed else []
    name = "disturbed" if disturbed else "undisturbed"
    backup = callbacks.BackupAndRestore(folder / f"{name}-backup", save_freq=3)
    pictures = data.from_array(x, 16, seed=3)
    logs = fit(model, pictures, epochs=5, callbacks=[backup, *deaths])
    last = {key: values[-1:] for key, values in logs.items()}
    store(
        folder, name, model, **last, seed=np.asarray(inside(quantizer).seed_generator.state.numpy())
    )


def undisturbed(folder: Path) -> None:
    resume(folder, disturbed=False)


STRATEGY: Any = None
TASKS = (compare, pipelines, records, adapt, messages, loop, keras_alone, resume, undisturbed)


def main(folder: str, *names: str) -> None:
    global STRATEGY
    tf.config.threading.set_intra_op_parallelism_threads(1)
    if CLUSTER:
        STRATEGY = tf.distribute.MultiWorkerMirroredStrategy()
    tasks = {task.__name__: task for task in TASKS}
    for name in names:
        tasks[name](Path(folder))


if __name__ == "__main__":
    main(*sys.argv[1:])
