"""A run's folder as one HTML page: pictures, curves, figures."""

import base64
import csv
import json
from pathlib import Path

import jinja2
import numpy as np
from matplotlib import pyplot as plt
from PIL import Image

from support import scores

PAGE = jinja2.Template(
    """<!doctype html><html lang="en"><meta charset="utf-8"><title>VQ-VAE report</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2rem auto; color: #222;
       padding: 0 1rem }
img { max-width: 100%; image-rendering: pixelated } .plot { image-rendering: auto }
table { border-collapse: collapse } td, th { padding: .2rem 1rem .2rem 0; text-align: left;
       border-bottom: 1px solid #ddd } td { font-variant-numeric: tabular-nums }
.best { font-weight: 700 } figcaption, .small { color: #555; font-size: 14px }
</style>
<h1>VQ-VAE: {{ parameters }} parameters, {{ "%.1f"|format(ratio) }}:1</h1>
<p>{{ "%.0f"|format(num_bytes) }} bytes a picture.</p>
<table><tr><th>codes<th>used<th>perplexity<th>bits a code</tr>
{% for name, u in usage.items() %}<tr><td>{{ name }}<td>{{ "%.1f"|format(100 * u.code_use) }}&nbsp;%
<td>{{ "%.0f"|format(u.perplexity) }}<td>{{ "%.2f"|format(u.bits_per_code) }}</tr>{% endfor %}
</table>
{% for s in sets %}
<h2>{{ s.name }}</h2>
<table><tr><th>codec<th>PSNR, dB<th>SSIM</tr>
{% for codec, v in s.scores.items() %}<tr><td>{{ codec }}{% if v.bytes %}
 ({{ "%.0f"|format(v.bytes) }} bytes){% endif %}<td>{{ "%.2f"|format(v.PSNR) }}
<td>{{ "%.3f"|format(v.SSIM) }}</tr>{% endfor %}</table>
<figure><img src="{{ s.picture }}" alt="originals and reconstructions">
<figcaption>From top to bottom: {{ s.rows|join(", ") }}.{% if brightened %} The pictures are
brightened (gamma 2) for display; all figures are of the pictures as they are.{% endif %}
</figcaption></figure>
{% endfor %}
{% if prior %}
<h2>Generation</h2>
<p>A PixelCNN of {{ "{:,}".format(prior.parameters) }} parameters, drawn from at temperature
{{ prior.temperature }}: {{ "%.0f"|format(1000 * prior.seconds_per_sample) }} ms a picture in a
batch of {{ num_samples }}, the cost of {{ "%.1f"|format(prior.forward_passes_per_sample) }} forward
passes. Running the network again for every code would cost {{ prior.codes_per_sample }}.</p>
<figure><img src="{{ samples }}" alt="samples and the training pictures nearest to them">
<figcaption>Samples, and below each the training picture nearest to it, so that copying would show.
With the training picture most like it, a sample shares
{{ "%.0f"|format(100 * prior.greatest_share_of_codes_in_common.mean) }}&nbsp;% of its codes in the
mean, and at most {{ "%.0f"|format(100 * prior.greatest_share_of_codes_in_common.max) }}&nbsp;%.
{% if brightened %}Brightened for display.{% endif %}</figcaption></figure>
<table><tr><th>bits a code, unseen pictures<th>uniform<th>unigram<th>PixelCNN</tr>
{% for name, bits in prior.bits_per_code.items() %}<tr><td>{{ name }}
<td>{{ "%.2f"|format(bits.uniform) }}<td>{{ "%.2f"|format(bits.unigram) }}
<td class="best">{{ "%.2f"|format(bits.PixelCNN) }}</tr>{% endfor %}</table>
<img class="plot" src="{{ prior_curve }}" alt="bits a code by epoch">
{% endif %}
<h2>Training</h2>
<img class="plot" src="{{ curves }}" alt="loss, perplexity and code use by epoch">
<p class="small">The SavedModel in <code>savedmodel/{{ 2 if prior else 1 }}</code> was reloaded in a
process that cannot import keras_vqvae and gave the same codes and
pictures{{ ", samples included" if prior }}.</p>
</html>"""
)


def _embedded(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def _curves(history: Path, path: Path, plots: dict[str, str]) -> None:
    rows = list(csv.DictReader(history.open()))
    series = {name: [float(row[name]) for row in rows] for name in rows[0]}
    size = (4 * len(plots), 3.5)
    figure, row_of_axes = plt.subplots(1, len(plots), figsize=size, layout="constrained")
    axes = np.atleast_1d(row_of_axes)
    for axis, (name, title) in zip(axes, plots.items(), strict=True):
        axis.plot(series[name], label="training")
        axis.plot(series[f"val_{name}"], label="unseen")
        axis.set(title=title, xlabel="epoch")
        axis.grid(alpha=0.3)
    if len(rows) > 2:  # the first epochs would flatten the rest
        axes[0].set_ylim(top=max(series["loss"][1], series["val_loss"][1]), auto=None)
    axes[0].legend()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _save_rows(rows: list[np.ndarray], path: Path, brightened: bool) -> None:
    grid = scores.grid([scores.brightened(row) if brightened else row for row in rows])
    Image.fromarray(grid[..., 0] if grid.shape[-1] == 1 else grid).save(path)


def _generation(prior: Path, brightened: bool) -> dict:
    """What the page says of a prior; nothing where there is none."""
    if not (prior / "metrics.json").exists():
        return {}
    _curves(prior / "history.csv", prior / "curves.png", {"loss": "bits a code"})
    pictures = dict(np.load(prior / "samples.npz"))
    rows = []
    count = len(pictures["samples"])
    columns = min(8, count)
    for start in range(0, count, columns):
        some = np.arange(start, start + columns).clip(max=count - 1)  # the last row is filled up
        rows += [pictures[name][some] for name in ("samples", "nearest")]
    _save_rows(rows, prior / "samples.png", brightened)
    return {
        "prior": json.loads((prior / "metrics.json").read_text()),
        "num_samples": len(pictures["samples"]),
        "samples": _embedded(prior / "samples.png"),
        "prior_curve": _embedded(prior / "curves.png"),
    }


def write_report(out: Path, brightened: bool | None = None) -> Path:
    """Writes `report.html` and its pictures into `out`, the folder of a run.

    Args:
        out: folder with metrics.json, history.csv and pictures_NUMBER.npz, and a folder `prior`
            with metrics.json, history.csv and samples.npz where a prior was trained.
        brightened: whether to brighten pictures for display; None for dark sets only.
    """
    metrics = json.loads((out / "metrics.json").read_text())
    plots = {"loss": "loss, nats an entry", "perplexity": "perplexity", "code_use": "codes used"}
    _curves(out / "history.csv", out / "curves.png", plots)
    sets = []
    for number, (name, figures) in enumerate(metrics["unseen"].items()):
        pictures = dict(np.load(out / f"pictures_{number}.npz"))
        if brightened is None:
            brightened = bool(pictures["images"].mean() < 64)
        some = np.linspace(0, len(pictures["images"]) - 1, 10).astype(int)
        rows = {"originals" if k == "images" else k: v[some] for k, v in pictures.items()}
        png = out / f"reconstructions_{number}.png"
        _save_rows(list(rows.values()), png, brightened)
        sets.append(
            {"name": name, "scores": figures, "rows": list(rows), "picture": _embedded(png)}
        )
    page = PAGE.render(
        parameters=f"{metrics['parameters']:,}",
        ratio=metrics["compression_ratio"],
        num_bytes=metrics["bytes_per_picture"],
        usage=metrics["codes"],
        sets=sets,
        brightened=brightened,
        curves=_embedded(out / "curves.png"),
        **_generation(out / "prior", bool(brightened)),
    )
    path = out / "report.html"
    path.write_text(page)
    return path
