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
from keras_vqvae.data import images

pytestmark = [pytest.mark.programs, pytest.mark.tensorflow]

EXAMPLES = Path(__file__).parents[1] / "examples"
EXAMPLE = EXAMPLES / "image_reconstruction.py"
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
    assert page.count("data:image/png;base64,") == 2 + 3  # rows of images, and curves
    assert "python " in page and "--frames 300" in page  # by which command
    for name in metrics["unseen"]:
        assert name in page
    assert (out / "savedmodel" / "1" / "saved_model.pb").exists()
    model = keras.models.load_model(out / "model.keras")
    assert isinstance(model, ImageVQVAE) and model.grid_shape == (16, 16)

    # A finished training is not repeated, and lost results are made anew.
    for name in ("report.html", "metrics.json", "model.keras"):
        (out / name).unlink()
    again = run(out, "--epochs", "30")
    assert again.returncode == 0 and len(rows(out)) == len(epochs), again.stderr[-3000:]
    assert json.loads((out / "metrics.json").read_text()) == metrics
    assert (out / "report.html").exists()

    # Another run does not pass for this one.
    refused = run(out, "--epochs", "31")
    assert refused.returncode != 0 and "'epochs': 30" in refused.stderr

    check_generation(out, environment)


def generate(out: Path, environment: dict, *arguments: str) -> subprocess.CompletedProcess:
    tiny = ["--hidden", "8", "--layers", "2", "--epochs", "2", "--samples", "9", *arguments]
    line = [sys.executable, str(EXAMPLES / "image_generation.py"), str(out), *tiny]
    return subprocess.run(line, env=environment, capture_output=True, text=True, timeout=300)


def check_generation(out: Path, environment: dict) -> None:
    """The second stage of the demo, on the first one's folder."""
    finished = generate(out, environment, "--steps", "20")
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert re.search(r"^sample codes: \d+ values, 0 differ$", finished.stdout, re.MULTILINE)
    assert re.search(r"^log_prob log_prob: \d+ values, 0 differ$", finished.stdout, re.MULTILINE)
    metrics = json.loads((out / "prior" / "metrics.json").read_text())
    assert len(metrics["bits_per_code"]) == 5
    # The curve of unseen codes ends at a number of the table.
    last = float(rows(out / "prior")[-1]["val_loss"])
    assert metrics["bits_per_code"]["all unseen images"]["PixelCNN"] == pytest.approx(last, 1e-4)
    for bits in metrics["bits_per_code"].values():
        assert bits["uniform"] == 9 and 1 < bits["unigram"] < 10 and 1 < bits["PixelCNN"] < 10
    assert 0 < metrics["greatest_share_of_codes_in_common"]["max"] <= 1
    pictures = np.load(out / "prior" / "samples.npz")
    assert pictures["samples"].shape == pictures["nearest"].shape == (9, 64, 64, 3)
    page = (out / "report.html").read_text()
    assert "PixelCNN" in page and page.count("data:image/png;base64,") == 5 + 2
    assert (out / "savedmodel" / "2" / "saved_model.pb").exists()

    history = (out / "prior" / "history.csv").read_text()
    again = generate(out, environment, "--steps", "20")
    assert again.returncode == 0 and (out / "prior" / "history.csv").read_text() == history
    refused = generate(out, environment, "--steps", "22")
    assert refused.returncode != 0 and "'steps': 20" in refused.stderr
    refused = generate(out.parent, environment, "--steps", "20")
    assert refused.returncode != 0 and "no finished run" in refused.stderr


@pytest.mark.long
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


@pytest.mark.long
def test_your_own_images(tmp_path: Path) -> None:
    folder, out = tmp_path / "photos", tmp_path / "run"
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(30):
        picture = random.integers(0, 256, (20, 30, 3)).astype("uint8")
        keras.utils.save_img(folder / f"{number:02}.png", picture, scale=False)
    (folder / "broken.png").write_bytes(b"no picture")
    script = str(EXAMPLES / "your_own_images.py")
    options = ["--size", "16", "--num-codes", "8", "--hidden", "8", "--layers", "2"]
    line = [sys.executable, script, str(folder), "--out", str(out), *options, "--steps", "5"]
    finished = subprocess.run(line, capture_output=True, text=True, timeout=300)
    assert finished.returncode == 0, finished.stderr[-3000:]
    tokens = np.load(out / "tokens.npz")
    assert tokens["codes"].shape == (30, 4, 4) and tokens["codes"].dtype == np.int32
    assert [Path(f).name for f in tokens["files"]] == [f"{n:02}.png" for n in range(30)]
    # Tokens are of the pictures beside which their names stand.
    vqvae = keras.models.load_model(out / "vqvae.keras")
    dataset = images.from_folder(folder, (16, 16), skip_corrupt=True)
    np.testing.assert_array_equal(vqvae.encode(dataset), tokens["codes"])
    assert keras.models.load_model(out / "prior.keras").sample(1, seed=0).shape == (1, 4, 4)
    for name in ("reconstructions_0.png", "prior/samples.png", "savedmodel/1/saved_model.pb"):
        assert (out / name).exists()
    page = (out / "report.html").read_text()
    assert "held-out images of photos" in page and "unigram" in page and "PSNR, dB" in page
    assert re.search(r"bits a code, held out: \d+\.\d\d \(unigram", finished.stdout)
    refused = subprocess.run(line, capture_output=True, text=True, timeout=300)
    assert refused.returncode != 0 and "holds a finished run" in refused.stderr


def test_unknown_data_and_unwritable_output(tmp_path: Path) -> None:
    refused = run(tmp_path / "run", data="no_such_dataset")
    assert refused.returncode != 0 and "no_such_dataset" in refused.stderr
    (tmp_path / "file").write_text("in the way")
    refused = run(tmp_path / "file" / "run")
    assert refused.returncode != 0 and "--out" in refused.stderr
