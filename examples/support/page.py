"""The parts of a run's HTML page: tables, pictures, curves of training."""

import base64
import csv
import datetime
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import jinja2
import numpy as np
from markupsafe import Markup
from matplotlib import pyplot as plt

from support.figures import short

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2rem auto; color: #222;
       padding: 0 1rem; overflow-wrap: break-word }
h1 { line-height: 1.2 } code { font-size: 14px } figure { margin: 1rem 0 }
.wide { overflow-x: auto } .plot { max-width: 100% } .pixels { image-rendering: pixelated }
table { border-collapse: collapse; margin: 1rem 0 } caption { text-align: left; font-weight: 600 }
td, th { padding: .25rem 1.2rem .25rem 0; text-align: left; border-bottom: 1px solid #ddd;
         vertical-align: top }
td { font-variant-numeric: tabular-nums } .number { text-align: right }
.best { font-weight: 700 } figcaption, .small { color: #555; font-size: 14px; max-width: 50rem }
audio { width: 320px; height: 34px; display: block } .clip { width: 320px; display: block }
.name { max-width: 16rem; color: #555; font-size: 14px }
@media (max-width: 600px) {
  body { margin: 1rem auto } table { font-size: 14px } td, th { padding-right: .6rem }
  .name { max-width: 6rem } h1 { font-size: 1.5rem }
  audio, .clip { width: 250px } td:first-child { overflow-wrap: anywhere; min-width: 5rem }
}"""

_PARTS = {
    "page": """<!doctype html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title><style>{{ style }}
</style>
<h1>{{ title }}</h1>
<p class="small">Written on {{ when }}{% if commands %}, by{% endif %}
{% for command in commands %}<br><code>{{ command }}</code>{% endfor %}</p>
{{ body }}
</html>
""",
    "table": """<div class="wide"><table>{% if title %}<caption>{{ title }}</caption>{% endif %}
<tr><th>{{ corner }}{% for column in columns %}<th class="number">{{ column }}{% endfor %}</tr>
{% for name, cells in rows.items() %}<tr><td>{{ name }}{% for cell, best in cells %}
<td class="number{{ " best" if best }}">{{ cell }}{% endfor %}</tr>
{% endfor %}</table></div>
""",
    "figure": """<figure><div class="wide">{% for source in sources %}<img class="{{ kind }}"
src="{{ source }}" alt="{{ alt }}">{% endfor %}</div>
<figcaption>{{ caption }}</figcaption></figure>
""",
}
_ENVIRONMENT = jinja2.Environment(loader=jinja2.DictLoader(_PARTS), autoescape=True)

Cells = Mapping[str, float | str | None]


def _part(name: str, **values: object) -> Markup:
    return Markup(_ENVIRONMENT.get_template(name).render(**values))


def heading(text: str) -> Markup:
    return Markup("<h2>{}</h2>\n").format(text)


def paragraph(text: str) -> Markup:
    return Markup('<p class="small">{}</p>\n').format(text)


def table(
    corner: str,
    rows: Mapping[str, Cells],
    title: str = "",
    best_of_column: Mapping[str, Callable] | None = None,
    best_of_row: Callable | None = None,
    cell: Callable[[float | str | None], str] = short,
) -> Markup:
    """A table with its best figures in bold.

    Args:
        corner: heading of the column of names.
        rows: figures by column, by name of the row; a row may lack some.
        title: caption above it.
        best_of_column: `min` or `max`, by column.
        best_of_row: `min` or `max`, where rows are to be compared each in itself.
        cell: how a figure is written.
    """
    columns = list(dict.fromkeys(name for row in rows.values() for name in row))
    best = {
        name: [choose(_numbers(row.get(name) for row in rows.values()))]
        for name, choose in (best_of_column or {}).items()
    }

    def is_best(row: Cells, column: str) -> bool:
        if best_of_row:
            return row.get(column) == best_of_row(_numbers(row.values()))
        return row.get(column) in best.get(column, ())

    cells = {
        name: [(cell(row[c]) if c in row else "", is_best(row, c)) for c in columns]
        for name, row in rows.items()
    }
    return _part("table", title=title, corner=corner, columns=columns, rows=cells)


def _numbers(values: Iterable[float | str | None]) -> list[float]:
    return [value for value in values if isinstance(value, (int, float))]


def figure(
    paths: Sequence[Path], alt: str, caption: str, kind: str = "pixels", linked: bool = False
) -> Markup:
    """PNG files with a caption.

    Args:
        paths: the files.
        alt: what they show.
        caption: below them.
        kind: "pixels" for images, whose pixels stay sharp, or "plot".
        linked: whether the page links to the files, whose paths are from its folder, and does not
            hold them.
    """
    sources = [
        str(path)
        if linked
        else "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
        for path in paths
    ]
    return _part("figure", sources=sources, alt=alt, caption=caption, kind=kind)


def write(path: Path, title: str, commands: Sequence[str], *parts: Markup) -> Path:
    """Writes a page of `parts`, which says when, and after which commands."""
    when = f"{datetime.datetime.now(datetime.timezone.utc):%d %B %Y, %H:%M UTC}".lstrip("0")
    body = Markup("").join(parts)
    page = _part("page", title=title, commands=commands, body=body, when=when, style=Markup(STYLE))
    path.write_text(page)
    return path


def plot(
    path: Path,
    lines: Mapping[str, Sequence[float]],
    title: str,
    xlabel: str,
    ylabel: str,
    dot: int | None = None,
    top: float | None = None,
) -> Path:
    """Draws lines over 1, 2, 3 ... into a PNG file.

    Args:
        path: the file to write.
        lines: values by label.
        title: above the plot.
        xlabel: what is counted from 1.
        ylabel: with the unit.
        dot: where the last line gets a dot.
        top: where the axis ends.
    """
    figure, axis = plt.subplots(figsize=(4.6, 3.9), layout="constrained")
    for label, values in lines.items():
        (line,) = axis.plot(range(1, len(values) + 1), values, ".-", label=label)
    if dot is not None:
        axis.plot(dot, values[dot - 1], "o", color=line.get_color())
    axis.set(title=title, xlabel=xlabel, ylabel=ylabel, xlim=(0.5, len(values) + 0.5))
    axis.set_ylim(top=top, auto=None)
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.grid(alpha=0.3)
    figure.legend(loc="outside lower center", fontsize="small")
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def curves(
    history: Path, plots: Mapping[str, tuple[str, str]], best: bool = False
) -> tuple[list[Path], int]:
    """Draws what `CSVLogger` wrote, on training and unseen data, with a dot on what is kept.

    Args:
        history: the CSV file; a PNG file for each plot is written beside it.
        plots: a title and the unit of the axis, by name of the column.
        best: whether the weights with the least `val_loss` are kept, not the last.

    Returns:
        the files, and the epoch with the dot, counted from 1.
    """
    rows = list(csv.DictReader(history.open()))
    series = {name: [float(row[name]) for row in rows] for name in rows[0]}
    kept = int(np.argmin(series["val_loss"])) + 1 if best else len(rows)
    paths = []
    for name, (title, unit) in plots.items():
        both = series[name], series[f"val_{name}"]
        labels = ("training, mean over the epoch", "unseen, at the end of the epoch")
        # The first epochs would flatten the rest.
        top = max(x[1] for x in both) if name == "loss" and len(rows) > 2 else None
        lines = dict(zip(labels, both, strict=True))
        path = history.with_name(f"curve_{name}.png")
        paths.append(plot(path, lines, title, "epoch", unit, kept, top))
    return paths, kept
