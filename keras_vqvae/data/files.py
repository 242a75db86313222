"""Finding the files of a folder."""

from __future__ import annotations

import collections
import pathlib
import warnings
from collections.abc import Iterator, Sequence

from keras_vqvae.paths import shown

# Copies and thumbnails that programs leave beside the files: of macOS, Synology and Windows.
_LITTER = {"__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information"}


def files_below(folder: pathlib.Path) -> list[pathlib.Path]:
    """Returns all files in a folder and the folders below it, sorted.

    Folders that are links are entered, but not one that the link lies in. Hidden files and folders
    (`._x.jpg`, `.ipynb_checkpoints`, `.git`, `.Trash`) and `__MACOSX` are left out, and so is what
    is no file, such as a pipe, which would never end.
    """

    def walk(folder: pathlib.Path, above: frozenset[pathlib.Path]) -> Iterator[pathlib.Path]:
        real = folder.resolve()
        if real in above:
            return
        for path in folder.iterdir():
            if path.name.startswith(".") or path.name in _LITTER:
                continue
            if path.is_dir():
                yield from walk(path, above | {real})
            elif path.is_file() or not path.exists():  # readers name links that lead nowhere
                yield path

    return sorted(walk(folder, frozenset()))


def find_files(
    folder: pathlib.Path, suffixes: Sequence[str], what: str, beside: Sequence[str] = ()
) -> list[pathlib.Path]:
    """Returns those of `files_below` with such endings; a warning counts all others by ending.

    Args:
        folder: where to look.
        suffixes: the endings of their names, in lower case.
        what: they are, for the message: "image".
        beside: endings of files that belong to them and are not counted, such as tables.

    Raises:
        ValueError: the folder is missing, cannot be read or holds none; the message names it.
    """
    if not folder.is_dir():
        raise ValueError(f"`folder` {shown(folder)} is not a folder that exists.")
    try:
        files = files_below(folder)
    except OSError as error:  # it names the folder below that it is of
        raise ValueError(f"`folder` {shown(folder)} cannot be read: {error}") from error
    found = [file for file in files if file.suffix.lower() in suffixes]
    others = collections.Counter(file.suffix.lower() for file in files)
    for suffix in (*suffixes, *beside):
        del others[suffix]
    counts = [f"{count} {suffix or 'without a suffix'}" for suffix, count in others.most_common()]
    left_out = shown(", ".join(counts))
    if not found:
        but = f", but {left_out}" if left_out else ""
        raise ValueError(
            f"`folder` {shown(folder)} holds no {what} file ({', '.join(suffixes)}){but}."
        )
    if left_out:
        warnings.warn(
            f"{shown(folder)}: files of other kinds than {', '.join(suffixes)} are left out: "
            f"{left_out}",
            stacklevel=3,
        )
    return found
