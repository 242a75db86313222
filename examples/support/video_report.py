"""A run of video prediction as one HTML page: figures, curves, frames still and moving."""

import json
from pathlib import Path

import jinja2
from matplotlib import pyplot as plt

PAGE = jinja2.Environment(autoescape=True).from_string(
    """<!doctype html><html lang="en"><meta charset="utf-8"><title>Video prediction</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 1300px; margin: 2rem auto; color: #222;
       padding: 0 1rem }
img { max-width: 100%; image-rendering: pixelated } .plot { image-rendering: auto }
table { border-collapse: collapse; margin-bottom: 1rem } td, th { padding: .2rem 1rem .2rem 0;
        text-align: left; border-bottom: 1px solid #ddd } td { font-variant-numeric: tabular-nums }
.small { color: #555; font-size: 14px } .set { display: flex; gap: 1rem; align-items: start }
</style>
<h1>Video prediction</h1>
<p>{{ metrics.context }} frames and the actions to come, to {{ metrics.predicted }} frames; codes
alone, {{ metrics.grid[0] }}×{{ metrics.grid[1] }} of {{ metrics.num_codes }} a frame. The VQ-VAE
has {{ "{:,}".format(metrics.parameters.vqvae) }} parameters, the predictor
{{ "{:,}".format(metrics.parameters.predictor) }}.</p>
<table><tr><th>figure<th>reached, lowest and highest<th>at least<th>at most</tr>
{% for name, row in metrics.aims.items() %}<tr><td>{{ name }}<td>{{ "%.3f"|format(row.lowest) }} to
{{ "%.3f"|format(row.highest) }} {{ "" if row.met else "missed" }}<td>{{ row.least }}
<td>{{ "" if row.most is none else row.most }}</tr>{% endfor %}</table>
{% for name, set in metrics.figures.items() %}<h2>{{ name }}</h2>
<img class="plot" src="{{ curves[name] }}" alt="PSNR and SSIM by step">
<p>{{ "%.1f"|format(set["bits a frame"]) }} bits a frame.</p>
{% if set.turning %}<table><tr><th>turns that the picture obeys<th>share<th>pixels, median</tr>
{% for what, row in set.turning["turns obeyed"].items() %}<tr><td>{{ what }}
<td>{{ "%.3f"|format(row.share) }}<td>{{ row["median pixels"] }}</tr>{% endfor %}</table>{% endif %}
<table>{% for what, rows in set.items() if what.startswith("after") %}{% for k, v in rows.items() %}
<tr><td>{{ what }}: {{ k }}<td>{{ "%.2f"|format(v) }}</tr>{% endfor %}{% endfor %}</table>
{% endfor %}
<h2>Frames</h2>
<p class="small">Where there are two rows of each example, the upper one is what happened; so
it is in the moving pictures. Of the long predictions every tenth frame.{% if metrics.brightened %}
Brightened (gamma 2) for display; figures are of the frames as they are.{% endif %}</p>
{% for name, file in shown.items() %}<h3>{{ name }}</h3><div class="set">
<img src="predicted/{{ file }}.png" alt="frames in a row">
<img src="predicted/{{ file }}.gif" alt="the same, moving"></div>{% endfor %}
</html>"""
)


def file_of(name: str) -> str:
    """A file's name for a set of frames."""
    return "".join(c if c.isalnum() else "_" for c in name)


def _curve(sets: dict, path: Path) -> None:
    groups = [name for name in ("all", "turning") if name in sets]
    measures = {"PSNR": "PSNR, dB", "SSIM": "SSIM"}
    figure, axes = plt.subplots(
        2, len(groups), figsize=(5 * len(groups), 5.6), layout="constrained", squeeze=False
    )
    for column, group in zip(axes.T, groups, strict=True):
        for axis, (measure, title) in zip(column, measures.items(), strict=True):
            for what, row in sets[group].items():
                if isinstance(row, dict) and measure in row:
                    axis.plot(range(1, len(row[measure]) + 1), row[measure], label=what)
            axis.set(title=f"{group}: {title}", xlabel="step")
            axis.grid(alpha=0.3)
    handles, labels = axes[0][-1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize="small")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def write_report(out: Path, shown: list[str]) -> Path:
    """Writes report.html into `out`, the folder of a run with metrics.json and `predicted`."""
    metrics = json.loads((out / "metrics.json").read_text())
    curves = {}
    for number, (name, sets) in enumerate(metrics["figures"].items()):
        curves[name] = f"curve_{number}.png"
        _curve(sets, out / curves[name])
    path = out / "report.html"
    files = {name: file_of(name) for name in shown}
    path.write_text(PAGE.render(metrics=metrics, curves=curves, shown=files))
    return path
