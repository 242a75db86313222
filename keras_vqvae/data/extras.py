"""Packages that are needed for some of the data only: the extras of `pyproject.toml`."""

from __future__ import annotations

import importlib
from typing import Any


def how_to_install(extra: str) -> str:
    """What to type for an extra; the package is installed from a checkout, as the README says."""
    return f'pip install ".[{extra}]" in a checkout of keras_vqvae'


def import_extra(name: str, what: str, extra: str = "audio") -> Any:
    """A module of an extra.

    Args:
        name: of the module.
        what: it is needed for, as a subject in the plural: "Sound files".
        extra: which extra it belongs to.

    Raises:
        ImportError: it is not installed or does not load; the message says how to install it.
    """
    try:
        return importlib.import_module(name)
    except (ImportError, OSError) as error:  # OSError: soundfile does not find its library
        raise ImportError(f"{what} need {name}: {how_to_install(extra)} ({error})") from error
