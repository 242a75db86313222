"""The command lines of all scripts: `--help` is quick, and errors are one sentence."""

import argparse
import builtins
import os
import re
import runpy
import symtable
import sys
from pathlib import Path
from types import ModuleType

import pytest
import tomllib

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "examples"))
from support import command  # noqa: E402

from tests.inside import inside  # noqa: E402

SCRIPTS = [
    path
    for folder in ("examples", "examples/serving", "zoo", "benchmarks")
    for path in sorted((ROOT / folder).glob("*.py"))
    if "__main__" in path.read_text()
]
SLOW = {"tensorflow", "keras", "jax", "keras_vqvae", "matplotlib", "vizdoom", "tensorflow_datasets"}


def parser_of(path: Path, monkeypatch: pytest.MonkeyPatch) -> argparse.ArgumentParser:
    """The parser by which a script answers `--help`, where importing a slow package fails."""
    original = builtins.__import__
    asked: list[argparse.ArgumentParser] = []

    def fast(name: str, *rest, **named) -> ModuleType:
        assert name.partition(".")[0] not in SLOW, f"{path.name} imports {name} before --help"
        return original(name, *rest, **named)

    with monkeypatch.context() as patch:
        patch.setattr(sys, "argv", [str(path), "--help"])
        patch.setattr(sys, "path", [str(path.parent), *sys.path])
        patch.setattr(builtins, "__import__", fast)
        patch.setattr(argparse.ArgumentParser, "print_help", lambda self: asked.append(self))
        with pytest.raises(SystemExit, match="0"):
            runpy.run_path(str(path), run_name="__main__")
    return asked[0]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_help_is_quick_and_shows_defaults(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parsers = [parser_of(path, monkeypatch)]
    options = inside(parsers[0]).option_string_actions
    assert ("--verbose" in options) == (path.parent.name in ("examples", "zoo"))
    for parser in parsers:
        shown = "".join(parser.format_help().split())
        for action in inside(parser).actions:
            if isinstance(action, inside(argparse).SubParsersAction):
                parsers += action.choices.values()
            else:
                assert action.help, f"{action.dest} has no help"
                kept = action.default not in (None, False, argparse.SUPPRESS)
                default = "".join(f"(default: {action.default})".split())
                assert not kept or default in shown, f"{action.dest} does not show its default"


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_the_command_line_needs_nothing_that_comes_later(path: Path) -> None:
    """`arguments` runs before the rest of its module, and is run to its end without `--help`."""
    before, begin, _ = path.read_text().partition('if __name__ == "__main__":\n    begin(')
    if begin and "def arguments" in before:
        table = symtable.symtable(before, str(path), "exec")
        (function,) = (child for child in table.get_children() if child.get_name() == "arguments")
        there = {symbol.get_name() for symbol in table.get_symbols() if not symbol.is_referenced()}
        there |= {symbol.get_name() for symbol in table.get_symbols() if symbol.is_assigned()}
        there |= {symbol.get_name() for symbol in table.get_symbols() if symbol.is_imported()}
        assert set(function.get_globals()) <= there | set(dir(builtins)) | {"__doc__"}


def test_errors_that_a_user_can_mend_are_one_sentence() -> None:
    missing = ModuleNotFoundError("No module named 'soundfile'", name="soundfile")
    said = command.sentence(missing)
    assert said == (
        'error: soundfile is not installed: pip install ".[audio]" in a checkout of keras_vqvae'
    )
    assert command.sentence(ValueError("`steps` must be 1")) == "error: `steps` must be 1"
    assert command.sentence(ImportError("Sound files need soxr")) == "error: Sound files need soxr"
    assert command.sentence(ZeroDivisionError("a fault of ours keeps its traceback")) is None
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    for package, extra in command.EXTRAS.items():
        names = [re.split(r"[^\w-]", text)[0] for text in extras[extra]]
        assert {"PIL": "pillow"}.get(package, package) in names


@pytest.mark.parametrize("verbose", [False, True])
def test_a_script_is_quiet_unless_it_is_verbose(
    verbose: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(sys, "argv", ["script.py", *["--verbose"] * verbose])
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    for name in command.QUIET:
        monkeypatch.setenv(name, "")  # so that it is set back
        monkeypatch.delenv(name)
    command.begin(command.example_parser("A script.").parse_args)
    assert all((name in os.environ) != verbose for name in command.QUIET)
    if not verbose:
        sys.excepthook(ValueError, ValueError("wrong"), None)
        assert capsys.readouterr().err == "error: wrong\n"


def test_counts_are_at_least_one() -> None:
    """A count of 0 was divided by, after minutes."""
    assert command.positive("12") == 12
    for text in ("0", "-1", "1.5", "many"):
        with pytest.raises(argparse.ArgumentTypeError, match="at least 1, got"):
            command.positive(text)


def test_paths_are_local_and_of_home() -> None:
    """A folder `gs:` was made in silence."""
    assert command.local_path("~/runs") == Path.home() / "runs"
    for text in ("gs://bucket/run", "hdfs:/run", ""):
        with pytest.raises(argparse.ArgumentTypeError, match="must be a local path, got"):
            command.local_path(text)
