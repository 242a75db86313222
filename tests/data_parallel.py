"""Training under `keras.distribution.DataParallel` equals training without, under JAX.

Run as a program, `python -m tests.data_parallel [long]`, with the short or the long cases of
`tests/replicas.py`, with KERAS_BACKEND=jax and XLA_FLAGS=--xla_force_host_platform_device_count=4.
Prints one line of JSON a case and number of devices, as `tests/replicas.py` does.
"""

import dataclasses
import json
import sys
from typing import Any

import keras
import numpy as np

from tests.checks import to_numpy
from tests.replicas import CASES as OF_REPLICAS
from tests.replicas import differences, train

DEVICES = (2, 4)
# 60 = 3*16 + 12: the last batch is smaller, and divides by the devices, which JAX wants.
# Arrays are global under JAX, so that also Keras's own losses are logged right.
CASES = {
    name: dataclasses.replace(case, count=60 if case.steps > 1 else 12, compare_logs=True)
    for name, case in OF_REPLICAS.items()
    # With 60 examples they are others' equals.
    if name not in ("ema_restarts_empty_replica", "gradient_codebook_adapted")
}
# By number of devices. The other cases are long.
SHORT = {
    2: ("ema_restarts", "layer_alone"),
    4: ("gradient_codebook", "prior_of_classes"),
}
LONG = {devices: tuple(n for n in CASES if n not in names) for devices, names in SHORT.items()}
BATCHES = "batches that do not divide"


def _distribution(devices: int) -> keras.distribution.DataParallel:
    return keras.distribution.DataParallel(devices=keras.distribution.list_devices("cpu")[:devices])


def _any_number(vqvae: keras.Model, prior: keras.Model, images: np.ndarray) -> dict:
    """What works for batches of any size, whatever the distribution."""
    codes = vqvae.encode(images, batch_size=5)
    return {
        "encode": codes,
        "decode": vqvae.decode(codes, batch_size=5),
        "reconstruct": vqvae.reconstruct(images, batch_size=5),
        "call": vqvae(images[:3])["outputs"],
        "sample": prior.sample(5, seed=0),
        "inpaint": prior.inpaint(prior.sample(3, seed=1), np.eye(3, 5) > 0, seed=0),
        "log_prob": prior.log_prob(prior.sample(5, seed=0), batch_size=3),
    }


def _keras_own(vqvae: keras.Model, images: np.ndarray) -> dict:
    """What is Keras's own, and works for batches of any size without distribution."""
    return {
        "evaluate": vqvae.evaluate(images, batch_size=16, verbose=0),
        "predict": vqvae.predict(images, batch_size=16, verbose=0)["outputs"],
    }


def batches_that_do_not_divide(devices: int) -> dict:
    case, of_prior = CASES["ema_restarts"], CASES["prior"]
    images = case.data(57)

    def make(weights: list | None = None) -> list[keras.Model]:
        keras.utils.set_random_seed(0)
        models = [case.make(), of_prior.make()]
        for model, values in zip(models, weights or [None, None], strict=True):
            model.compile(optimizer=keras.optimizers.SGD(0.05))
            if values:
                model.set_weights(values)
        return models

    with _distribution(devices).scope():
        distributed, error = make(), ""
        distributed[0].fit(images[:48], batch_size=16, verbose=0)
        inside: dict[str, Any] = _any_number(*distributed, images)
        try:
            make()[0].fit(images, batch_size=16, verbose=0)
        except ValueError as raised:
            error = str(raised)
    inside |= _keras_own(distributed[0], images)
    alone = make([model.get_weights() for model in distributed])
    outside = {**_any_number(*alone, images), **_keras_own(alone[0], images)}

    def difference(one: Any, other: Any) -> float:
        one, other = (np.asarray(to_numpy(keras.ops.convert_to_tensor(x))) for x in (one, other))
        return float(np.max(np.abs(one.astype("float64") - other)))

    return {"error": error, **{n: difference(inside[n], outside[n]) for n in outside}}


def main(long: bool) -> None:
    cases = LONG if long else SHORT
    for name in CASES:
        several = [devices for devices in DEVICES if name in cases[devices]]
        one = train(CASES[name]) if several else {}
        for devices in several:
            with _distribution(devices).scope():
                many = train(CASES[name], one["initial"])
            found = differences(one, many)
            print(json.dumps({"case": name, "devices": devices, **found}), flush=True)
    for devices in (4,) if long else (2,):
        found = batches_that_do_not_divide(devices)
        print(json.dumps({"case": BATCHES, "devices": devices, **found}), flush=True)


if __name__ == "__main__":
    main(long="long" in sys.argv[1:])
