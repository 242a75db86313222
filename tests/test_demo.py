"""The demo at tiny size: all its results, and going on after an interruption."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_vqvae import ImageVQVAE

pytestmark = pytest.mark.tensorflow

EXAMPLE = Path(__file__).parents[1] / "examples" / "image_reconstruction.py"
TINY = ["--frames", "300", "--hidden", "8", "--steps", "4"]


def command(out: Path, *arguments: str, data: str = "vizdoom") -> tuple[list[str], dict]:
    environment = os.environ | {"KERAS_VQVAE_CACHE": str(out.parent / "cache")}
    options = [*TINY, "--data", data, "--out", str(out), *arguments]
    return [sys.executable, str(EXAMPLE), *options], environment


def run(out: Path, *arguments: str, data: str = "vizdoom") -> subprocess.CompletedProcess:
    line, environment = command(out, *arguments, data=data)
    return subprocess.run(line, env=environment, capture_output=True, text=True, timeout=300)


def rows(out: Path) -> list[dict]:
    path = out / "history.csv"
    return list(csv.DictReader(path.open())) if path.exists() else []


def test_demo_is_whole_and_resumes(tmp_path: Path) -> None:
    out = tmp_path / "run"
    line, environment = command(out, "--epochs", "30")
    process = subprocess.Popen(line, env=environment, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 240
        while len(rows(out)) < 3 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.2)
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    before = len(rows(out))
    assert 3 <= before < 30 and not (out / "model.keras").exists()

    finished = run(out, "--epochs", "30")
    assert finished.returncode == 0, finished.stderr[-3000:]
    epochs = [int(row["epoch"]) for row in rows(out)]
    # It went on where it was: at most the epoch that was being backed up is done twice.
    assert set(epochs) == set(range(30)) and len(epochs) <= 31
    assert "keras_vqvae cannot be imported here" in finished.stdout
    assert len(re.findall(r"values, 0 differ$", finished.stdout, re.MULTILINE)) == 3

    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["bytes_per_picture"] == 288 and len(metrics["unseen"]) == 2
    for figures in metrics["unseen"].values():
        assert set(figures) == {"VQ-VAE", "thumbnail", "WebP"}
        assert all(5 < f["PSNR"] < 60 and 0 < f["SSIM"] < 1 for f in figures.values())
    page = (out / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 3
    for name in metrics["unseen"]:
        assert name in page
    assert (out / "savedmodel" / "1" / "saved_model.pb").exists()
    model = keras.models.load_model(out / "model.keras")
    assert isinstance(model, ImageVQVAE) and model.grid_shape == (16, 16)

    # A finished run is not trained again, and lost results are made anew.
    (out / "report.html").unlink()
    (out / "metrics.json").unlink()
    again = run(out, "--epochs", "30")
    assert again.returncode == 0 and len(rows(out)) == len(epochs)
    assert json.loads((out / "metrics.json").read_text()) == metrics
    assert (out / "report.html").exists()

    # An interruption after training, before the model was saved, does not train again either.
    (out / "model.keras").unlink()
    again = run(out, "--epochs", "30")
    assert again.returncode == 0 and len(rows(out)) == len(epochs), again.stderr[-3000:]

    # Another run does not pass for this one.
    refused = run(out, "--epochs", "31")
    assert refused.returncode != 0 and "'epochs': 30" in refused.stderr


def test_a_folder_of_pictures(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(24):
        picture = random.integers(0, 256, (20, 30, 3)).astype("uint8")
        keras.utils.save_img(folder / f"{number}.png", picture, scale=False)
    (folder / "broken.png").write_bytes(b"no picture")
    refused = run(tmp_path / "run", "--epochs", "1", "--size", "16", data=str(folder))
    assert refused.returncode != 0 and "broken.png" in refused.stderr
    arguments = ["--epochs", "1", "--size", "16", "--skip-corrupt"]
    finished = run(tmp_path / "run", *arguments, data=str(folder))
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert "held-out tenth" in json.loads((tmp_path / "run" / "metrics.json").read_text())["unseen"]


def test_unknown_data_and_unwritable_output(tmp_path: Path) -> None:
    refused = run(tmp_path / "run", data="no_such_dataset")
    assert refused.returncode != 0 and "no_such_dataset" in refused.stderr
    (tmp_path / "file").write_text("in the way")
    refused = run(tmp_path / "file" / "run")
    assert refused.returncode != 0 and "--out" in refused.stderr
