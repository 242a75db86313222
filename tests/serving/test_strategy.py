"""The strategy that a model was trained under does not show in its export.

Run as a program, `python -m tests.serving.test_strategy NAME`, it trains a model for a step under a
MirroredStrategy of two CPUs, exports it, and prints what `tests.replicas.run_program` reads.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

pytestmark = [pytest.mark.programs, pytest.mark.tensorflow]

if keras.backend.backend() != "tensorflow":  # the JAX run deselects this file by the mark
    pytest.skip("SavedModels are TensorFlow's", allow_module_level=True)

import tensorflow as tf  # noqa: E402

from keras_vqvae import export_savedmodel  # noqa: E402
from keras_vqvae.export.graphs import ops_of  # noqa: E402
from tests.checks import images  # noqa: E402
from tests.models import test_audio  # noqa: E402
from tests.replicas import run_program  # noqa: E402
from tests.serving import loaded  # noqa: E402
from tests.serving.graphs import forbidden  # noqa: E402
from tests.serving.models import MODELS, requests  # noqa: E402

DATA = {"image_prior": lambda: images(8, (8, 12, 3)), "sound_parallel": test_audio.sound}


@pytest.mark.parametrize(
    "name", ["image_prior", pytest.param("sound_parallel", marks=pytest.mark.long)]
)
def test_a_model_trained_on_replicas_is_exported_as_any_other(name: str) -> None:
    (found,) = run_program("tests.serving.test_strategy", name)
    assert found["case"] == name and found["replicas"] == 2 and found["moved"] > 1e-4
    assert not found["forbidden"]
    assert len(found["different"]) >= 6  # signatures
    # The same numbers as from an export of a model that never saw a strategy.
    assert set(found["different"].values()) == {0}, found["different"]


def compare(name: str, strategy: Any, folder: Path) -> dict:
    """Exports a model trained under a strategy, and one outside it with the same weights."""
    with strategy.scope():
        trained, prior = MODELS[name]()
        before = trained.get_weights()
        trained.compile(keras.optimizers.SGD(0.01))
        trained.fit(DATA[name](), batch_size=4, steps_per_epoch=1, verbose=0)
        weights = trained.get_weights()
        path = folder / "mirrored" / name / "1"
        export_savedmodel(trained, path, prior=prior)
    plain, plain_prior = MODELS[name]()
    plain.set_weights(weights)
    plain_prior.set_weights(prior.get_weights())
    other = folder / "plain" / name / "1"
    export_savedmodel(plain, other, prior=plain_prior)
    asked = requests(name, other).items()
    answers = [loaded.answer([(str(p), *request) for request in asked]) for p in (path, other)]
    return {
        "case": name,
        "replicas": strategy.num_replicas_in_sync,
        "moved": max(
            float(np.max(np.abs(a - b))) for a, b in zip(before, weights, strict=True) if a.size
        ),
        "forbidden": sorted(set().union(*map(forbidden, ops_of(path).values()))),
        "different": {
            signature: int(sum(np.sum(a[output] != b[output]) for output in b))
            for (signature, _), a, b in zip(asked, *answers, strict=True)
        },
    }


if __name__ == "__main__":
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    mirrored = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with tempfile.TemporaryDirectory() as exports:
        print(json.dumps(compare(sys.argv[1], mirrored, Path(exports))))
