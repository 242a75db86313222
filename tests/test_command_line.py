"""The command lines of all scripts: `--help` is quick, and errors are one sentence."""

import argparse
import builtins
import runpy
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "examples"))

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
    options = parsers[0]._option_string_actions
    assert ("--verbose" in options) == (path.parent.name in ("examples", "zoo"))
    for parser in parsers:
        shown = "".join(parser.format_help().split())
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                parsers += action.choices.values()
            else:
                assert action.help, f"{action.dest} has no help"
                kept = action.default not in (None, False, argparse.SUPPRESS)
                default = "".join(f"(default: {action.default})".split())
                assert not kept or default in shown, f"{action.dest} does not show its default"
