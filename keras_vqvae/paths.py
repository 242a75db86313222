"""The path arguments of the package: local ones, and those with a scheme that TensorFlow knows."""

from __future__ import annotations

import os
import pathlib
import re
from collections.abc import Iterator
from typing import TypeAlias

import tensorflow as tf

# Also what pathlib makes of a URL, which is gs:/bucket; a drive of Windows has a single letter.
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+")


def local_path(path: str | os.PathLike, name: str = "path") -> pathlib.Path:
    """Returns a path argument as a path of this machine, `~` expanded.

    Args:
        path: the argument.
        name: the argument's name, for messages.

    Raises:
        ValueError: `path` is no path, is empty, or has a scheme, such as `gs://bucket/folder`.
    """
    text = _text(path, name)
    if _SCHEME.match(text):
        raise ValueError(
            f"`{name}` must be a local path, got {text!r}. Copy or mount what is there first."
        )
    return pathlib.Path(os.path.expanduser(text))


def any_path(path: str | os.PathLike, name: str = "path") -> AnyPath:
    """Returns a path argument that may also have a scheme, where TensorFlow has its file system.

    Args:
        path: the argument, such as `~/records` or `gs://bucket/records`.
        name: the argument's name, for messages.

    Raises:
        ValueError: as `local_path`, or TensorFlow has no file system of that scheme.
    """
    text = _text(path, name)
    scheme = _SCHEME.match(text)
    if scheme is None or scheme[1] == "file":
        return local_path(path, name)
    known = sorted(filter(None, tf.io.gfile.get_registered_schemes()))
    if scheme[1] not in known:
        raise ValueError(
            f"`{name}` must be a local path or have a scheme that TensorFlow knows "
            f"({', '.join(known)}), got {text!r}. `import tensorflow_io` adds some."
        )
    if "://" not in text:  # of a Path
        text = text.replace(":/", "://", 1)
    return RemotePath(text)


def file_size(path: AnyPath) -> int:
    """Returns the bytes of a file."""
    return tf.io.gfile.stat(os.fsencode(path)).length


def shown(path: str | os.PathLike) -> str:
    """Returns a path as text that every stream can print: names need not be UTF-8."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _text(path: str | os.PathLike, name: str) -> str:
    if not isinstance(path, (str, bytes, os.PathLike)) or not os.fspath(path):
        raise ValueError(f"`{name}` must be a path (str or os.PathLike), got {path!r}.")
    return os.fsdecode(path)


class RemotePath(os.PathLike):
    """A file or folder with a scheme, reached by `tf.io.gfile`; has some of `pathlib.Path`.

    Errors are TensorFlow's (`tf.errors.OpError`) and name the path. `replace` is one step only
    where the file system has such a step.

    Example:
        (RemotePath("gs://bucket/runs") / "notes.txt").write_bytes(b"begun")
    """

    def __init__(self, url: str) -> None:
        self._url = url

    def __fspath__(self) -> str:
        return self._url

    def __str__(self) -> str:
        return self._url

    def __truediv__(self, name: str) -> RemotePath:
        return RemotePath(tf.io.gfile.join(self._url, name))

    @property
    def name(self) -> str:
        return self._url.rstrip("/").rpartition("/")[2]

    def with_suffix(self, suffix: str) -> RemotePath:
        return RemotePath(os.path.splitext(self._url)[0] + suffix)

    def exists(self) -> bool:
        return tf.io.gfile.exists(self._url)

    def is_dir(self) -> bool:
        return tf.io.gfile.isdir(self._url)

    def is_file(self) -> bool:
        return self.exists() and not self.is_dir()

    def iterdir(self) -> Iterator[RemotePath]:
        return (self / name.rstrip("/") for name in tf.io.gfile.listdir(self._url))

    def glob(self, pattern: str) -> Iterator[RemotePath]:
        return map(RemotePath, tf.io.gfile.glob(tf.io.gfile.join(self._url, pattern)))

    def mkdir(self, parents: bool = True, exist_ok: bool = True) -> None:
        """Makes the folder and those above it; both arguments are always true."""
        tf.io.gfile.makedirs(self._url)

    def open(self, mode: str) -> tf.io.gfile.GFile:
        return tf.io.gfile.GFile(self._url, mode)

    def read_bytes(self) -> bytes:
        with self.open("rb") as file:
            return file.read()

    def write_bytes(self, content: bytes) -> None:
        with self.open("wb") as file:
            file.write(content)

    def unlink(self) -> None:
        tf.io.gfile.remove(self._url)

    def replace(self, target: AnyPath) -> None:
        tf.io.gfile.rename(self._url, str(target), overwrite=True)


AnyPath: TypeAlias = pathlib.Path | RemotePath
