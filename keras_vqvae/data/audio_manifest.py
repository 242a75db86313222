"""Manifests: tables of sound files with their speakers, texts and labels, as CSV or JSONL."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import os
import pathlib
from typing import Any

from keras_vqvae.paths import local_path

_COLUMNS = ("path", "speaker", "text", "segments")


@dataclasses.dataclass(frozen=True)
class Row:
    """One sound file of a manifest.

    Attributes:
        path: the file; paths in a manifest are relative to its own folder.
        speaker: name, or "".
        text: what is said, or "".
        segments: `(end in seconds, label)` in order of time, or empty.
        line: where it stands in the manifest, from 1.
    """

    path: pathlib.Path
    speaker: str = ""
    text: str = ""
    segments: tuple[tuple[float, str], ...] = ()
    line: int = 0


def read_manifest(path: str | os.PathLike) -> list[Row]:
    """Reads a manifest, without looking at the sound files.

    A CSV file has a first line with the names of its columns, a JSONL file one object a line.
    `path` is needed; `speaker`, `text` and `segments` are optional; others are not read.
    `segments` is a list of `[end in seconds, label]`, in a CSV file as JSON.

    Args:
        path: a file whose name ends in `.csv`, `.jsonl` or `.json`.

    Returns:
        Its rows, in order.

    Raises:
        ValueError: the file is missing, empty or of neither kind, or a row is wrong; the message
            names the line.
    """
    path = local_path(path)
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".jsonl", ".json"):
        raise ValueError(f"The manifest {path} must be a .csv or a .jsonl file.")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"The manifest {path} cannot be read: {error}") from error
    found = _csv_rows(path, text) if suffix == ".csv" else _json_rows(path, text)
    rows = [_row(path, line, fields) for line, fields in found]
    if not rows:
        raise ValueError(f"The manifest {path} has no row.")
    return rows


def _csv_rows(path: pathlib.Path, text: str) -> list[tuple[int, dict[str, Any]]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), skipinitialspace=True)
    reader.fieldnames = [name.strip() for name in reader.fieldnames or []]
    if "path" not in (reader.fieldnames or []):
        raise ValueError(
            f"The first line of {path} must name its columns, among them `path`; "
            f"it names {reader.fieldnames}."
        )
    if len(set(reader.fieldnames)) < len(reader.fieldnames):
        raise ValueError(f"{path} must name each column once, got {reader.fieldnames}.")
    rows = []
    try:
        for fields in reader:
            if None in fields.values():
                raise ValueError(
                    f"{path}, line {reader.line_num}: it has fewer fields than the first line "
                    "names columns: write a comma before an empty field, too."
                )
            if None in fields:
                raise ValueError(
                    f"{path}, line {reader.line_num}: it has more fields than the first line names "
                    'columns: a text with a comma goes in quotes ("Hello, world").'
                )
            rows.append((reader.line_num, fields))
    except csv.Error as error:  # of fields beyond 131,072 characters, too
        raise ValueError(
            f"{path}, line {reader.line_num + 1}: it cannot be read ({error}); a JSONL file may "
            "have fields of any length."
        ) from error
    return rows


def _json_rows(path: pathlib.Path, text: str) -> list[tuple[int, dict[str, Any]]]:
    rows = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{path}, line {number}: must be one JSON object a line (JSONL): {error}."
            ) from error
        if not isinstance(fields, dict):
            raise ValueError(f"{path}, line {number}: must be an object, got {line[:60]!r}.")
        rows.append((number, fields))
    return rows


def _row(manifest: pathlib.Path, line: int, fields: dict[str, Any]) -> Row:
    where = f"{manifest}, line {line}"
    # JSON may have numbers as speakers.
    values = {name: fields.get(name) for name in _COLUMNS}
    for name in _COLUMNS[:3]:
        if isinstance(values[name], (list, dict)):
            raise ValueError(f"{where}: `{name}` must be a text, got {values[name]!r:.60}.")
    file, speaker, text = (
        "" if values[name] is None else str(values[name]).strip() for name in _COLUMNS[:3]
    )
    if not file:
        raise ValueError(f"{where}: it has no `path`.")
    segments = _segments(where, values["segments"])
    try:
        place = manifest.parent / local_path(file, "path")
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    return Row(place, speaker, text, segments, line)


def _segments(where: str, value: Any) -> tuple[tuple[float, str], ...]:
    if value is None or value == "":
        return ()
    try:
        pairs = json.loads(value) if isinstance(value, str) else value
        if isinstance(pairs, str) or any(isinstance(pair, str) for pair in pairs):
            raise ValueError("no pairs, but text")
        if any(isinstance(end, bool) for end, _ in pairs):
            raise ValueError("no number")
        segments = tuple((float(end), str(label)) for end, label in pairs)
    except (TypeError, ValueError) as error:  # JSON's errors are ValueErrors
        raise ValueError(
            f"{where}: `segments` must be a list of [end in seconds, label], got {value!r}."
        ) from error
    ends = [end for end, _ in segments]
    if ends != sorted(ends) or not all(math.isfinite(end) and end >= 0 for end in ends):
        raise ValueError(f"{where}: the ends of `segments` must not decrease, got {ends}.")
    return segments
