"""The examples' reports, from made-up results: what is bold, labelled, and in which table."""

import csv
import json
import re
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

if keras.backend.backend() != "tensorflow":
    pytest.skip("the examples run on TensorFlow", allow_module_level=True)
pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
from support import fitting, page, report, runs, scores, video_report

from tests.checks import images

pytestmark = pytest.mark.tensorflow


def write_history(path: Path, unseen: list[float]) -> None:
    names = ["loss", "perplexity", "code_use"]
    with path.open("w") as file:
        writer = csv.DictWriter(file, ["epoch", *names, *(f"val_{name}" for name in names)])
        writer.writeheader()
        for epoch, value in enumerate(unseen):
            row = {name: value + 1 for name in names} | {f"val_{name}": value for name in names}
            writer.writerow({"epoch": epoch, **row})


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a run in which the unigram model is better than the prior on one set."""
    monkeypatch.setattr(sys, "argv", ["examples/image_reconstruction.py", "--data", "my photos"])
    runs.open_run(tmp_path, {"data": "my photos"})
    shown = images(5, (8, 8, 3))
    np.savez(tmp_path / "pictures_0.npz", images=shown, **{"VQ-VAE": shown, "WebP": shown})
    codecs = {"VQ-VAE": (20.0, 0.9, 288.0), "WebP": (30.0, 0.8, 284.0)}
    usage = {"loss": 2.0, "perplexity": 12.0, "code_use": 0.5, "bits_per_code": 4.0}
    metrics = {
        "data": "my photos",
        "epoch": "7 steps of 8 images",
        "parameters": 1234,
        "image_shape": (8, 8, 3),
        "grid_shape": (2, 2),
        "num_codes": 16,
        "compression_ratio": 10.0,
        "bytes_per_picture": 19.2,
        "unseen": {
            "<held out>": {
                codec: {"PSNR": psnr, "SSIM": ssim, "bytes": size}
                for codec, (psnr, ssim, size) in codecs.items()
            }
        },
        "codes": {"training images": usage, "unseen images": usage},
    }
    runs.write_json(tmp_path / "metrics.json", metrics)
    write_history(tmp_path / "history.csv", [5.0, 2.0, 3.0])
    (tmp_path / "prior").mkdir()
    np.savez(tmp_path / "prior" / "samples.npz", samples=shown, nearest=shown)
    write_history(tmp_path / "prior" / "history.csv", [6.0, 5.5, 5.25])
    prior = {
        "epoch": "9 steps",
        "parameters": 77,
        "temperature": 0.9,
        "bits_per_code": {
            "training images": {"uniform": 9.0, "unigram": 2.68, "PixelCNN": 6.29},
            "all unseen images": {"uniform": 9.0, "unigram": 8.0, "PixelCNN": 5.25},
        },
        "codes_per_sample": 4,
        "seconds_per_sample": 0.1,
        "forward_passes_per_sample": 5.0,
        "greatest_share_of_codes_in_common": {"mean": 0.1, "max": 0.2},
    }
    runs.write_json(tmp_path / "prior" / "metrics.json", prior)
    return tmp_path


def bold(text: str) -> list[str]:
    return re.findall(r'<td class="number best">([^<]*)', text)


def test_the_best_figures_are_bold_and_the_page_says_what_it_is_of(run: Path) -> None:
    text = report.write_report(run).read_text()
    assert [x.strip() for x in bold(text)] == ["0.9", "30.0", "2.68", "5.25"]
    assert "<title>VQ-VAE of my photos: images of 8×8 pixels as 2×2 codes of 16</title>" in text
    assert "python examples/image_reconstruction.py --data &#39;my photos&#39;" in text
    assert re.search(r"Written on \d+ \w+ \d{4}, \d\d:\d\d UTC", text)
    assert "&lt;held out&gt;" in text and "<held out>" not in text
    assert 'name="viewport"' in text  # or a telephone shows a wide page, made small
    # Every curve's dot is at a number of a table, on the weights that were kept.
    assert "The dot marks epoch 3" in text and "“all unseen images” has the dot" in text
    plots = {"loss": ("loss", "nats")}
    assert page.curves(run / "history.csv", plots, best=True)[1] == 2


def test_rows_of_images_have_labels(run: Path) -> None:
    shown = images(3, (8, 8, 1))
    picture = np.asarray(scores.labelled([("originals", shown), ("VQ-VAE", shown)], zoom=2))
    assert picture.shape == (2 * (16 + 22), 3 * 16, 3)
    assert picture[:22].min() < 100 and picture[:22].max() == 255  # dark text on white
    big = shown.repeat(2, 1).repeat(2, 2)
    np.testing.assert_array_equal(picture[22:38], np.repeat(np.concatenate(big, 1), 3, -1))


def test_an_interrupted_start_is_no_run_and_notes_its_last_command(tmp_path: Path) -> None:
    runs.open_run(tmp_path, {"a": 1})
    runs.open_run(tmp_path, {"a": 2})
    assert json.loads((tmp_path / "arguments.json").read_text()) == {"a": 2}
    assert runs.command_of(tmp_path / "nowhere") == []
    (tmp_path / "model.keras").write_text("")
    runs.open_run(tmp_path, {"a": 2, "verbose": True})  # changes no result
    with pytest.raises(ValueError, match="other arguments"):
        runs.open_run(tmp_path, {"a": 3})


def test_training_ends_early_and_keeps_the_best_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tensorflow as tf

    monkeypatch.setattr(fitting, "STEPS_PER_EPOCH", 1)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.layers[0].kernel.assign([[0.0]])
    model.compile(keras.optimizers.SGD(0.05), "mse")
    x = np.ones((8, 1), "float32")
    train = tf.data.Dataset.from_tensors((x, 2 * x)).repeat()  # away from the held-out target
    each = fitting.fit(model, train, tf.data.Dataset.from_tensors((x, x)), 40, tmp_path / "h.csv")
    rows = list(csv.DictReader((tmp_path / "h.csv").open()))
    losses = [float(row["val_loss"]) for row in rows]
    best = int(np.argmin(losses))
    assert each == 1 and len(rows) == best + 1 + fitting.PATIENCE < 40
    assert float(model.evaluate(x, x, verbose=0)) == pytest.approx(losses[best], abs=1e-6)


def test_a_report_of_video_shows_what_could_not_be_compared(tmp_path: Path) -> None:
    import video_prediction

    results = Path(__file__).parents[1] / "examples" / "results" / "video_prediction_tiny.json"
    metrics = json.loads(results.read_text())
    metrics["figures"] = dict(list(metrics["figures"].items())[:1])
    row = next(iter(metrics["aims"].values()))
    row.update(lowest=None, highest=None, met=None)
    (sets,) = metrics["figures"].values()
    sets["after 100 frames"]["contrast / reconstructions"] = None
    runs.write_json(tmp_path / "metrics.json", metrics)
    frames = images(6, (8, 8, 3)).reshape(2, 3, 8, 8, 3)
    shown = {"a map, all": {"what happened": frames, "prediction": frames}}
    video_prediction.write_pictures(tmp_path, shown, brightened=False)
    text = video_report.write_report(tmp_path, list(shown)).read_text()
    assert "– to –" in text and "nothing to compare with" in text
    for name in ("curve_0_all_PSNR.png", "predicted/a_map__all.png", "predicted/a_map__all.gif"):
        assert f'src="{name}"' in text and (tmp_path / name).exists()
    with Image.open(tmp_path / "predicted" / "a_map__all.png") as picture:
        assert picture.size == (3 * 16, 4 * (16 + 22))  # two examples, two labelled rows each
