"""How the scripts begin: with the command line, before TensorFlow is imported.

Importing TensorFlow takes seconds; so `--help` and mistakes are answered first. Only the standard
library is needed here.
"""

import argparse
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

# What TensorFlow's C++ side and gRPC print. Errors that matter are raised in Python as well.
QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "GRPC_VERBOSITY": "NONE"}

# The extra of pyproject.toml to which a package belongs that scripts import by themselves.
EXTRAS = {
    "PIL": "examples",
    "flask": "examples",
    "jinja2": "examples",
    "matplotlib": "examples",
    "vizdoom": "examples",
    "av": "audio",
    "soundfile": "audio",
    "soxr": "audio",
}


class _Defaults(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults, but for flags and for options that are None unless they are given."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default is False:
            return action.help
        return super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """A parser whose `--help` shows defaults.

    Args:
        doc: the docstring of a script; its first line becomes the description.
        options: those of `argparse.ArgumentParser`.
    """

    def __init__(self, doc: str = "", **options) -> None:
        options.setdefault("description", doc.partition("\n")[0])
        super().__init__(formatter_class=_Defaults, **options)


def example_parser(doc: str) -> Parser:
    """A `Parser` with the option `--verbose`, which `begin` reads."""
    parser = Parser(doc)
    parser.add_argument(
        "--verbose", action="store_true", help="show TensorFlow's log, and tracebacks of errors"
    )
    return parser


def positive(text: str) -> int:
    """The type of options that count something: an integer of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be an integer of at least 1, got {text}")
    return int(text)


def local_path(text: str) -> Path:
    """The type of options that are paths: local ones, with `~` expanded."""
    if not text or re.match("[A-Za-z][A-Za-z0-9+.-]+:/", text):
        raise argparse.ArgumentTypeError(f"must be a local path, got {text!r}")
    return Path(text).expanduser()


def begin(arguments: Callable[[], argparse.Namespace]) -> None:
    """Reads the command line, ends where it asks for help or has a mistake, and sets up output.

    Call it before TensorFlow is imported. Without `--verbose` TensorFlow's log is off, and errors
    that a user can mend are one line.

    Args:
        arguments: parses `sys.argv`; the result has `verbose`.
    """
    if arguments().verbose:
        return
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    sys.excepthook = _in_one_line


def sentence(error: BaseException) -> str | None:
    """The line for an error that a user can mend, or None for any other error."""
    package = (getattr(error, "name", None) or "").partition(".")[0]
    if isinstance(error, ModuleNotFoundError) and package in EXTRAS:
        install = f'pip install ".[{EXTRAS[package]}]" in a checkout of keras_vqvae'
        return f"error: {package} is not installed: {install}"
    if isinstance(error, (ValueError, ImportError, OSError)):
        return f"error: {error}"
    return None


def _in_one_line(kind: type, error: BaseException, traceback: TracebackType | None) -> None:
    line = sentence(error)
    if line is None:
        sys.__excepthook__(kind, error, traceback)
    else:
        print(line, file=sys.stderr)
