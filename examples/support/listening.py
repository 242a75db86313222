"""Clips and what became of them as one HTML page: to hear, to see, and in figures."""

import io
import wave
from collections.abc import Mapping, Sequence
from pathlib import Path

import jinja2
import numpy as np
from PIL import Image

from keras_vqvae.callbacks.show import drawn, new_figure
from keras_vqvae.callbacks.sound import LOWEST_DB, decibels
from support.figures import short

PAGE = jinja2.Environment(autoescape=True).from_string(
    """<!doctype html><html lang="en"><meta charset="utf-8"><title>{{ title }}</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem; color: #222 }
.wide { overflow-x: auto } table { border-collapse: collapse; margin-bottom: 1.5rem }
td, th { padding: .3rem 1rem .3rem 0; text-align: left; border-bottom: 1px solid #ddd;
         vertical-align: top }
td { font-variant-numeric: tabular-nums } .number { text-align: right }
th.number { white-space: nowrap } audio { width: 320px; height: 34px; display: block }
img { width: 320px; display: block } .name { max-width: 16rem; color: #555; font-size: 14px }
p { max-width: 50rem } .small { color: #555; font-size: 14px }
</style>
<h1>{{ title }}</h1>
{% for paragraph in text %}<p>{{ paragraph }}</p>
{% endfor %}
<h2>Clips</h2>
<div class="wide"><table><tr><th>{% for column in columns %}<th>{{ column }}{% endfor %}</tr>
{% for row in rows %}<tr><td class="name">{{ row.name }}{% for file in row.files %}
<td><audio controls preload="none" src="{{ file }}.wav"></audio>
<img src="{{ file }}.png" alt="waveform and spectrogram" loading="lazy">{% endfor %}</tr>
{% endfor %}</table></div>
<p class="small">Above, the waveform; below, the spectrogram up to {{ kilohertz }} kHz, from
{{ lowest }} to 0 dB of a full sine. {{ sample_rate }} Hz, 16 bits.</p>
{% for name, table in tables.items() %}
<h2>{{ name }}</h2>
<div class="wide"><table><tr><th>{% for column in table.columns %}<th class="number">{{ column }}
{% endfor %}</tr>
{% for row, cells in table.rows.items() %}<tr><td>{{ row }}{% for cell in cells %}
<td class="number">{{ cell }}{% endfor %}</tr>
{% endfor %}</table></div>
{% endfor %}
</html>"""
)


def write_page(
    folder: Path,
    sample_rate: int,
    columns: Mapping[str, Sequence[np.ndarray]],
    rows: Sequence[str],
    figures: Mapping[str, Mapping[str, Mapping[str, float | str | None]]] | None = None,
    title: str = "Listening",
    text: Sequence[str] = (),
) -> Path:
    """Writes `listening.html` and its WAV and PNG files into `folder`, which is made.

    Args:
        folder: holds all that the page needs; it can be moved.
        sample_rate: Hz.
        columns: clips `(samples,)` in [-1, 1] by what was done to them, as many as `rows`.
        rows: a name, such as the words spoken, for each source clip.
        figures: tables by title, of rows by name, of figures by column; a column's underlines are
            shown as spaces.
        title: heading of the page.
        text: paragraphs below it.

    Returns:
        path of the page.
    """
    for name, clips in columns.items():
        if len(clips) != len(rows):
            raise ValueError(f"{name!r} has {len(clips)} clips for {len(rows)} rows")
    folder.mkdir(parents=True, exist_ok=True)
    shown: list[dict] = [{"name": name, "files": []} for name in rows]
    for number, clips in enumerate(columns.values()):
        for row, waveform in enumerate(clips):
            file = f"clip{row}_column{number}"
            write_wav(folder / f"{file}.wav", waveform, sample_rate)
            write_picture(folder / f"{file}.png", waveform, sample_rate)
            shown[row]["files"].append(file)
    page = PAGE.render(
        title=title,
        text=text,
        tables={name: _table(table) for name, table in (figures or {}).items()},
        columns=list(columns),
        rows=shown,
        kilohertz=f"{sample_rate / 2000:g}",
        lowest=f"{LOWEST_DB:g}",
        sample_rate=f"{sample_rate:,}",
    )
    path = folder / "listening.html"
    path.write_text(page)
    return path


def write_wav(path: Path, waveform: np.ndarray, sample_rate: int) -> None:
    """Writes a waveform `(samples,)` in [-1, 1], clipped to it, as 16-bit PCM."""
    pcm = np.round(np.clip(waveform, -1, 1) * 32767).astype("<i2")
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes(pcm.tobytes())
    path.write_bytes(buffer.getvalue())


def write_picture(path: Path, waveform: np.ndarray, sample_rate: int) -> None:
    """Draws a waveform, and below it its spectrogram, to the same scale for all clips."""
    figure = new_figure(3.6, 2.3)
    upper, lower = figure.subplots(2, 1, height_ratios=[2, 3], sharex=True)
    seconds = len(waveform) / sample_rate
    upper.plot(np.arange(len(waveform)) / sample_rate, waveform, linewidth=0.5)
    upper.set(xlim=(0, seconds), ylim=(-1, 1))
    lower.imshow(
        decibels(waveform, sample_rate).T,
        aspect="auto",
        origin="lower",
        extent=(0, seconds, 0, sample_rate / 2000),
        vmin=LOWEST_DB,
        vmax=0,
        cmap="magma",
    )
    lower.set(xlabel="seconds", ylabel="kHz")
    Image.fromarray(drawn(figure)).save(path)


def _table(figures: Mapping[str, Mapping[str, float | str | None]]) -> dict:
    """Columns in the order in which they are met; a row may lack some."""
    columns = list(dict.fromkeys(name for row in figures.values() for name in row))
    return {
        "columns": [name.replace("_", " ") for name in columns],
        "rows": {
            name: [short(row[column]) if column in row else "" for column in columns]
            for name, row in figures.items()
        },
    }
