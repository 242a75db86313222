"""The class-conditional example at tiny size, on made-up pictures in Fashion-MNIST's format."""

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_vqvae import PixelCNN

pytestmark = [pytest.mark.programs, pytest.mark.tensorflow]

EXAMPLE = Path(__file__).parents[1] / "examples" / "class_conditional.py"
TINY = ["--pictures", "100", "--codes", "16", "--vqvae-epochs", "1", "--epochs", "1"]
TINY += ["--hidden", "8", "--layers", "1", "--samples", "3", "--temperature", "0.8"]


def write_fashion(folder: Path) -> None:
    """Noise in the place where the cache keeps Fashion-MNIST."""
    random = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for part, n in {"train": 120, "t10k": 40}.items():
        for kind, shape, high in (("images-idx3", (n, 28, 28), 256), ("labels-idx1", (n,), 10)):
            header = struct.pack(f">HBB{len(shape)}I", 0, 8, len(shape), *shape)
            content = random.integers(0, high, shape, np.uint8).tobytes()
            (folder / f"{part}-{kind}-ubyte").write_bytes(header + content)


def run(out: Path) -> subprocess.CompletedProcess:
    environment = os.environ | {"KERAS_VQVAE_CACHE": str(out.parent / "cache")}
    line = [sys.executable, str(EXAMPLE), *TINY, "--out", str(out)]
    return subprocess.run(line, env=environment, capture_output=True, text=True, timeout=300)


@pytest.mark.long
def test_all_results_and_resuming(tmp_path: Path) -> None:
    write_fashion(tmp_path / "cache" / "fashion-mnist")
    out = tmp_path / "run"
    finished = run(out)
    assert finished.returncode == 0, finished.stderr[-3000:]

    written = (out / "metrics.json").read_text()
    metrics = json.loads(written)
    assert metrics["temperature"] == 0.8
    assert set(metrics["agreement"]) == {"real pictures", "reconstructions", "samples"}
    for agreement in metrics["agreement"].values():
        overall = agreement.pop("all")
        assert len(agreement) == 10 and {"Trouser", "Ankle boot"} <= set(agreement)
        assert 0 <= min(agreement.values()) <= overall <= max(agreement.values()) <= 1
    bits = metrics["bits_per_code"]
    assert bits["uniform"] == 4 and 0 < bits["unigram"] < 5 and 0 < bits["PixelCNN"] < 6
    assert 0 < metrics["seconds_per_sample"] < 10

    # The exported model draws what the example drew.
    samples = np.load(out / "samples.npz")
    assert samples["codes"].shape == (30, 7, 7) and samples["images"].shape == (30, 28, 28, 1)
    np.testing.assert_array_equal(samples["asked"], np.arange(10).repeat(3))
    served = tf.saved_model.load(out / "savedmodel" / "1").signatures["sample"](
        number=tf.constant(30),
        seed=tf.constant(0),
        temperature=tf.constant(0.8),
        top_k=tf.constant(16),
        top_p=tf.constant(1.0),
        condition=tf.constant(samples["asked"], tf.int32),
    )
    np.testing.assert_array_equal(served["codes"], samples["codes"])
    np.testing.assert_array_equal(served["images"], samples["images"])
    assert isinstance(keras.models.load_model(out / "prior.keras"), PixelCNN)
    assert (out / "samples.png").read_bytes().startswith(b"\x89PNG")

    # Models are not trained again, and lost results are made anew.
    trained = {path: path.stat().st_mtime_ns for path in out.glob("*.keras")}
    assert {path.stem for path in trained} == {"vqvae", "prior", "classifier"}
    (out / "metrics.json").unlink()
    (out / "samples.png").unlink()
    again = run(out)
    assert again.returncode == 0, again.stderr[-3000:]
    assert (out / "metrics.json").read_text() == written
    assert (out / "samples.png").exists()
    assert {path: path.stat().st_mtime_ns for path in trained} == trained
