"""Finding the files of a folder."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Sequence


def files_below(folder: pathlib.Path) -> list[pathlib.Path]:
    """All files in a folder and the folders below it, sorted; folders that are links are entered.

    A link to a folder that it lies in is left out, and so are hidden files.
    """

    def walk(folder: pathlib.Path, above: frozenset[pathlib.Path]) -> Iterator[pathlib.Path]:
        real = folder.resolve()
        if real in above:
            return
        for path in folder.iterdir():
            if path.is_dir():
                yield from walk(path, above | {real})
            elif not path.name.startswith("."):
                yield path

    return sorted(walk(folder, frozenset()))


def find_files(folder: pathlib.Path, suffixes: Sequence[str], what: str) -> list[pathlib.Path]:
    """Those of `files_below` with such endings.

    Args:
        folder: where to look.
        suffixes: the endings of their names, in lower case.
        what: they are, for the message: "image".

    Raises:
        ValueError: the folder is missing or holds none; the message names it.
    """
    if not folder.is_dir():
        raise ValueError(f"`folder` {folder} is not a folder that exists.")
    files = [file for file in files_below(folder) if file.suffix.lower() in suffixes]
    if not files:
        raise ValueError(f"`folder` {folder} holds no {what} file ({', '.join(suffixes)}).")
    return files
