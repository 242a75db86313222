"""Where downloaded and recorded data is kept between runs."""

from __future__ import annotations

import os
import pathlib
import tempfile

from keras_vqvae.paths import local_path

ENVIRONMENT_VARIABLE = "KERAS_VQVAE_CACHE"
_ZIP = b"PK\x03\x04"


def cache_dir() -> pathlib.Path:
    """The folder for cached data; it is created if it does not exist.

    The environment variable `KERAS_VQVAE_CACHE` names it, otherwise it is `keras_vqvae` in
    `$XDG_CACHE_HOME`, which is `~/.cache` unless it is set to an absolute path.

    Returns:
        An absolute path to a folder that can be written to.

    Raises:
        ValueError: the folder cannot be created or written to; the message names it.
    """
    chosen = os.environ.get(ENVIRONMENT_VARIABLE)
    if not chosen:
        caches = os.environ.get("XDG_CACHE_HOME", "")
        chosen = os.path.join(caches if os.path.isabs(caches) else "~/.cache", "keras_vqvae")
    folder = local_path(chosen, ENVIRONMENT_VARIABLE).absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # os.access says yes to root on read-only mounts; only writing tells.
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(
            f"The cache folder {folder} cannot be created or written to ({error}). "
            f"Set the environment variable {ENVIRONMENT_VARIABLE} to a folder that can."
        ) from error
    return folder


def check_free(file: pathlib.Path, what: str) -> None:
    """Raises `ValueError` where a file is there that is no .npz, be it damaged: somebody's.

    Args:
        file: that `what` is to be kept in.
        what: for the message.
    """
    if file.is_dir():
        raise ValueError(f"`path` {file} is a folder: name a file for {what} in it.")
    if file.exists():
        with open(file, "rb") as stream:
            begin = stream.read(len(_ZIP))
        if not _ZIP.startswith(begin):  # an empty file, or what is left of one, is no loss
            raise ValueError(f"`path` {file} is no .npz file with {what}: name another file.")
