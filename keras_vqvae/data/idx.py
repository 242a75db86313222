"""Fashion-MNIST, and the idx file format in which it comes."""

from __future__ import annotations

import gzip
import hashlib
import os
import pathlib
import shutil
import struct
import subprocess
import tempfile
import zlib
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_vqvae.data.cache import cache_dir
from keras_vqvae.paths import local_path

_IDX_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}

_FASHION_MNIST = "usr/share/datasets/fashion-mnist"
_DEBIAN_PACKAGE = "dataset-fashion-mnist"

# SHA-256 of the files' contents without gzip: packages compress them anew.
_FASHION_MNIST_SHA256 = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}


def fashion_mnist(
    folder: str | os.PathLike | None = None,
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Fashion-MNIST: 60,000 and 10,000 grey pictures of clothes in ten classes.

    Without a folder it is taken from the Debian package where that is installed, from the cache
    if `fetch_debian_fashion_mnist` has run, and otherwise from `keras.datasets`, which downloads.

    Args:
        folder: holds the four idx files, gzipped or not, or the unpacked Debian package.

    Returns:
        `(x_train, y_train), (x_test, y_test)`: images uint8 `(n, 28, 28, 1)`, labels int32 `(n,)`.

    Raises:
        ValueError: the folder lacks one of the files, or one is corrupt; the message names it.
        RuntimeError: it cannot be downloaded; the message says where else to get it.
    """
    if folder is not None:
        return _read_fashion_mnist(local_path(folder, "folder"))
    for place in (pathlib.Path("/", _FASHION_MNIST), _fetched_fashion_mnist()):
        if place.is_dir():
            return _read_fashion_mnist(place)
    try:
        (x_train, y_train), (x_test, y_test) = keras.datasets.fashion_mnist.load_data()
    except Exception as error:  # Keras raises nothing narrower
        raise RuntimeError(
            "Fashion-MNIST cannot be downloaded by keras.datasets. On Debian or Ubuntu run "
            "keras_vqvae.data.fetch_debian_fashion_mnist() once; elsewhere give a folder with its "
            "four idx files."
        ) from error
    return (
        (x_train[..., None], y_train.astype(np.int32)),
        (x_test[..., None], y_test.astype(np.int32)),
    )


def fetch_debian_fashion_mnist() -> pathlib.Path:
    """Takes Fashion-MNIST from Debian's package of it into the cache; no root is needed.

    The package is downloaded with `apt-get download` and unpacked, not installed, and its contents
    are verified. `fashion_mnist()` finds it from then on.

    Returns:
        The folder that holds the four files.

    Raises:
        RuntimeError: this is no Debian or Ubuntu, apt does not know or get the package, or the
            contents are not the expected ones.
    """
    target = _fetched_fashion_mnist()
    if target.is_dir():
        return target
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise RuntimeError(f"This needs Debian or Ubuntu: there is no `{tool}` here.")
    # A folder beside the target, so that the move at the end is one atomic step.
    with tempfile.TemporaryDirectory(dir=target.parent) as work:
        hint = "if it does not know the package, `apt-get update` (as root) may be due"
        _call(["apt-get", "download", _DEBIAN_PACKAGE], work, hint)
        (package,) = pathlib.Path(work).glob("*.deb")
        _call(["dpkg-deb", "-x", package.name, "unpacked"], work, "the download is incomplete")
        found = pathlib.Path(work, "unpacked", _FASHION_MNIST)
        for name, expected in _FASHION_MNIST_SHA256.items():
            if hashlib.sha256(_read_bytes(_idx_file(found, name))).hexdigest() != expected:
                raise RuntimeError(f"{name} from {package.name} has unexpected contents.")
        os.replace(found, target)
    return target


def read_idx(path: str | os.PathLike) -> np.ndarray:
    """Reads an array from an idx file, gzipped if its name ends in `.gz`.

    Args:
        path: the file, in the format of the MNIST data sets.

    Returns:
        An array of the file's shape and dtype, in the machine's byte order.

    Raises:
        ValueError: the file is missing or is no complete idx file; the message names it.
    """
    path = local_path(path)
    data = _read_bytes(path)
    zeros, code, rank = struct.unpack(">HBB", data[:4]) if len(data) >= 4 else (1, 0, 0)
    if zeros != 0 or code not in _IDX_TYPES or len(data) < 4 + 4 * rank:
        raise ValueError(f"{path} is not an idx file: it begins with {data[:4].hex(' ')!r}.")
    shape = struct.unpack(f">{rank}I", data[4 : 4 + 4 * rank])
    dtype = np.dtype(_IDX_TYPES[code])
    # Python's integers: a corrupt shape may well be larger than any of NumPy's.
    expected = dtype.itemsize
    for length in shape:
        expected *= length
    body = data[4 + 4 * rank :]
    if len(body) != expected:
        raise ValueError(
            f"{path} is corrupt: its shape {shape} needs {expected} bytes, it has {len(body)}."
        )
    # A copy, so that the result can be written to.
    return np.frombuffer(body, dtype).reshape(shape).astype(dtype.newbyteorder("="))


def _read_bytes(path: pathlib.Path) -> bytes:
    opener: Callable[..., Any] = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rb") as stream:
            return stream.read()
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error


def _fetched_fashion_mnist() -> pathlib.Path:
    return cache_dir() / "fashion-mnist"


def _idx_file(folder: pathlib.Path, name: str) -> pathlib.Path:
    for file in (folder / f"{name}.gz", folder / name):
        if file.is_file():
            return file
    raise ValueError(f"The folder {folder} has neither {name}.gz nor {name}.")


def _read_fashion_mnist(folder: pathlib.Path):
    unpacked = folder / _FASHION_MNIST
    folder = unpacked if unpacked.is_dir() else folder
    parts = []
    for part in ("train", "t10k"):
        image_file = _idx_file(folder, f"{part}-images-idx3-ubyte")
        label_file = _idx_file(folder, f"{part}-labels-idx1-ubyte")
        images, labels = read_idx(image_file), read_idx(label_file)
        if images.dtype != np.uint8 or images.shape[1:] != (28, 28):
            raise ValueError(
                f"{image_file} must hold uint8 (n, 28, 28), got {images.dtype} {images.shape}."
            )
        if labels.dtype != np.uint8 or labels.shape != images.shape[:1]:
            raise ValueError(
                f"{label_file} must hold uint8 ({len(images)},), got {labels.dtype} {labels.shape}."
            )
        parts.append((images[..., None], labels.astype(np.int32)))
    return tuple(parts)


def _call(command: list[str], folder: str, hint: str) -> None:
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if result.returncode != 0:
        said = result.stderr.strip()[-500:]
        raise RuntimeError(f"`{' '.join(command)}` failed ({hint}): {said}")
