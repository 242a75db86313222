"""The folder of a version: whether it can be written, and writing it in one move."""

import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path


def check_folder(path: Path, overwrite: bool) -> None:
    """Raises `ValueError` where a version cannot be written; warns where nothing will serve it."""
    try:
        taken = path.exists() and (not path.is_dir() or any(path.iterdir()))
        there = next(folder for folder in path.parents if folder.exists())
    except OSError as error:
        raise ValueError(f"path: cannot write a SavedModel to {path}: {error}") from error
    if path.exists() and not path.is_dir():
        raise ValueError(f"path: cannot write a SavedModel to {path}: it is a file")
    if taken and not overwrite:
        raise ValueError(
            f"path: {path} is not empty; give the next version, {_next_version(path)}, or "
            "overwrite=True to replace it"
        )
    if not there.is_dir():
        raise ValueError(f"path: cannot write a SavedModel to {path}: {there} is a file")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ValueError(f"path: cannot write a SavedModel to {path}: {there} is not writable")
    if not path.name.isdecimal():
        warnings.warn(
            f"path: TensorFlow Serving looks for versions, folders whose names are numbers, and "
            f"will not see {path.name!r}: give NAME/1",
            stacklevel=3,
        )


def _next_version(path: Path) -> Path:
    versions = [int(x.name) for x in path.parent.iterdir() if x.name.isdecimal()]
    return path.with_name(str(max(versions, default=0) + 1))


def write_version(path: Path, write: Callable[[Path], None]) -> None:
    """Has a folder written, which appears when it is whole, in the place of an older one.

    Whatever goes wrong, everything is as it was before.

    Args:
        path: of the folder.
        write: fills the folder that it is given.
    """
    # Names that no server takes for a version.
    unfinished, old = (path.with_name(f".{path.name}.{what}") for what in ("unfinished", "old"))
    missing = [folder for folder in path.parents if not folder.exists()]
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(unfinished)
        _put(unfinished, path, old)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        for folder in missing:
            if folder.exists() and not any(folder.iterdir()):
                folder.rmdir()
        raise
    shutil.rmtree(old, ignore_errors=True)


def _put(new: Path, path: Path, old: Path) -> None:
    """Renames `new` to `path`; what is there to `old`, or back if that fails."""
    if not path.exists():
        new.rename(path)
        return
    shutil.rmtree(old, ignore_errors=True)
    path.rename(old)
    try:
        new.rename(path)
    except OSError:
        old.rename(path)
        raise
