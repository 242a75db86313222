"""Where downloaded and recorded data is kept between runs."""

from __future__ import annotations

import os
import pathlib
import tempfile

ENVIRONMENT_VARIABLE = "KERAS_VQVAE_CACHE"


def cache_dir() -> pathlib.Path:
    """The folder for cached data; it is created if it does not exist.

    The environment variable `KERAS_VQVAE_CACHE` names it, otherwise it is
    `~/.cache/keras_vqvae`.

    Returns:
        An absolute path to a folder that can be written to.

    Raises:
        ValueError: the folder cannot be created or written to; the message names it.
    """
    chosen = os.environ.get(ENVIRONMENT_VARIABLE) or "~/.cache/keras_vqvae"
    folder = pathlib.Path(chosen).expanduser().absolute()
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
