"""The folder of a version: whether it can be written, and writing it in one move."""

import contextlib
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import tensorflow as tf


def check_folder(path: Path, overwrite: bool) -> None:
    """Raises `ValueError` where a version cannot be written; warns where nothing will serve it."""
    try:
        taken = path.exists() and (not path.is_dir() or any(path.iterdir()))
        there = next((folder for folder in path.parents if folder.exists()), path)
    except OSError as error:
        raise ValueError(f"path: cannot write a SavedModel to {path}: {error}") from error
    if path.is_symlink() and not path.exists():
        raise ValueError(f"path: cannot write a SavedModel to {path}: it links to nothing")
    if path.exists() and not path.is_dir():
        raise ValueError(f"path: cannot write a SavedModel to {path}: it is a file")
    if taken and not overwrite:
        raise _taken(path)
    if taken and not (path / "saved_model.pb").is_file():
        raise ValueError(
            f"path: {path} holds no SavedModel, and overwrite=True replaces nothing else; give "
            "NAME/VERSION"
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


def _taken(path: Path) -> ValueError:
    versions = [int(x.name) for x in path.parent.iterdir() if x.name.isdecimal()]
    following = path.with_name(str(max(versions, default=0) + 1))
    return ValueError(
        f"path: {path} is not empty; give the next version, {following}, or overwrite=True to "
        "replace it"
    )


def write_version(path: Path, write: Callable[[Path], None], overwrite: bool) -> None:
    """Has a folder written, which appears when it is whole, in the place of an older one.

    Whatever goes wrong, everything is as it was before; only a process that is killed may leave
    a folder `.VERSION.` and some letters, which no server takes for a version. Between the two
    renames that replace an older one nothing is there, and one that is killed then leaves both in
    that folder, as `old` and `new`.

    Args:
        path: of the folder.
        write: fills the folder that it is given.
        overwrite: whether what is there by then may be replaced.

    Raises:
        ValueError: no folder can be made or filled there, or something is there by then.
    """
    missing = [folder for folder in path.parents if not folder.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # One for each export: two at a time must not write into each other's.
        place = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    except OSError as error:
        _remove_empty(missing)
        raise ValueError(f"path: cannot write a SavedModel to {path}: {error}") from error
    try:
        try:
            write(place / "new")
            _put_in_turn(place / "new", path, place / "old", overwrite)
        except (OSError, tf.errors.OpError) as error:
            raise ValueError(f"path: cannot write a SavedModel to {path}: {error}") from error
    except BaseException:
        _put_back(place / "old", path)
        if not (place / "old").exists() or path.exists():
            shutil.rmtree(place, ignore_errors=True)
        _remove_empty(missing)
        raise
    shutil.rmtree(place, ignore_errors=True)


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        with contextlib.suppress(OSError):  # it was not made, or another export is in it
            folder.rmdir()


def _put_in_turn(new: Path, path: Path, old: Path, overwrite: bool) -> None:
    """`_put`, which fails while another export is between its two renames."""
    for _ in range(10):
        with contextlib.suppress(OSError):
            return _put(new, path, old, overwrite)
        _put_back(old, path)
        if path.exists():
            shutil.rmtree(old, ignore_errors=True)
    return _put(new, path, old, overwrite)


def _put_back(old: Path, path: Path) -> None:
    """What was moved away and not replaced, by an error or an interruption."""
    if old.exists() and not path.exists():
        with contextlib.suppress(OSError):
            old.rename(path)


def _put(new: Path, path: Path, old: Path, overwrite: bool) -> None:
    """Renames `new` to `path`, and what is there to `old`."""
    try:
        new.rename(path)  # also onto an empty folder
        return
    except OSError:
        if not path.is_dir():
            raise
    if any(path.iterdir()) and not overwrite:  # another export was faster
        raise _taken(path)
    path.rename(old)
    new.rename(path)
