"""Finding the files of a folder."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence


def find_files(folder: pathlib.Path, suffixes: Sequence[str], what: str) -> list[pathlib.Path]:
    """The files in a folder and all folders below it, sorted; hidden ones are left out.

    Args:
        folder: where to look.
        suffixes: the endings of their names, in lower case.
        what: they are, for the message: "image".

    Raises:
        ValueError: the folder is missing or holds none; the message names it.
    """
    if not folder.is_dir():
        raise ValueError(f"`folder` {folder} is not a folder that exists.")
    files = sorted(
        file
        for file in folder.rglob("*")
        if file.suffix.lower() in suffixes and not file.name.startswith(".") and not file.is_dir()
    )
    if not files:
        raise ValueError(f"`folder` {folder} holds no {what} file ({', '.join(suffixes)}).")
    return files
