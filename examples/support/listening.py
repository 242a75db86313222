"""Clips and what became of them as one HTML page: to hear, to see, and in figures."""

import io
import wave
from collections.abc import Mapping, Sequence
from pathlib import Path

import jinja2
import numpy as np
from markupsafe import Markup
from PIL import Image

from keras_vqvae.callbacks.show import drawn, new_figure
from keras_vqvae.callbacks.sound import LOWEST_DB, decibels
from support import page

CLIPS = jinja2.Environment(autoescape=True).from_string(
    """<div class="wide"><table><tr><th>clip{% for column in columns %}<th>{{ column }}
{% endfor %}</tr>
{% for row in rows %}<tr><td class="name">{{ row.name }}{% for file in row.files %}
<td><audio controls preload="none" src="{{ file }}.wav"></audio>
<img class="clip" src="{{ file }}.png" alt="waveform and spectrogram" loading="lazy">
{% endfor %}</tr>
{% endfor %}</table></div>
<p class="small">Above, the waveform; below, the spectrogram up to {{ kilohertz }} kHz, from
{{ lowest }} to 0 dB of a full sine. {{ sample_rate }} Hz, 16 bits.</p>
"""
)


def write_page(
    folder: Path,
    sample_rate: int,
    columns: Mapping[str, Sequence[np.ndarray]],
    rows: Sequence[str],
    figures: Mapping[str, Mapping[str, Mapping[str, float | str | None]]] | None = None,
    title: str = "Listening",
    text: Sequence[str] = (),
    commands: Sequence[str] = (),
    more: Sequence[Markup] = (),
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
        commands: by which the sound was made.
        more: parts of `support.page` at the end.

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
    clips = CLIPS.render(
        columns=list(columns),
        rows=shown,
        kilohertz=f"{sample_rate / 2000:g}",
        lowest=f"{LOWEST_DB:g}",
        sample_rate=f"{sample_rate:,}",
    )
    parts = [*map(page.paragraph, text), page.heading("Clips"), Markup(clips)]
    for name, table in (figures or {}).items():
        rows_of_table = {
            row: {column.replace("_", " "): value for column, value in cells.items()}
            for row, cells in table.items()
        }
        parts += [page.heading(name), page.table("", rows_of_table)]
    return page.write(folder / "listening.html", title, commands, *parts, *more)


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
    upper.set(xlim=(0, seconds), ylim=(-1, 1), ylabel="sample")
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
