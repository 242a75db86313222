"""The table of mutants fits the tree; `tests/mutants.py` runs them."""

import ast
import shlex

import pytest

from tests import mutants

pytestmark = pytest.mark.tensorflow  # knows no backend: once is enough


def test_each_mutant_changes_one_place_in_one_line() -> None:
    for mutant in mutants.MUTANTS:
        assert "\n" not in mutant.old + mutant.new, mutant.name
        text = mutants.mutated(mutant)  # raises unless `old` is there once
        ast.parse(text)
        files = mutants.test_files(mutant)
        assert files and all((mutants.ROOT / file).is_file() for file in files), mutant.name


def test_names_are_different_and_kinds_are_spread() -> None:
    assert len({mutant.name for mutant in mutants.MUTANTS}) == len(mutants.MUTANTS) >= 40
    assert len({mutant.file for mutant in mutants.MUTANTS}) >= 20


def test_what_is_not_there_once_is_an_error() -> None:
    for old in ("no such text", "import"):
        mutant = mutants.MUTANTS[0]._replace(old=old)
        with pytest.raises(ValueError, match=f"'{old}' occurs"):
            mutants.mutated(mutant)


def test_commands_are_those_of_the_makefile() -> None:
    commands = mutants.commands_of("test")
    assert commands[0].env == {"KERAS_BACKEND": "tensorflow"}
    assert "not programs" in commands[0].options[-1]
    files = ["tests/test_functional.py"]
    assert mutants.files_in(commands[0], files) == files
    # `.ci/run` runs all of `make test`, under variables of its own.
    of_ci = [command._replace(env={}) for command in mutants.commands_of("ci")]
    assert all(command._replace(env={}) in of_ci for command in commands)


def test_commands_are_parsed_as_a_shell_would() -> None:
    words = ["KERAS_BACKEND=jax", ".venv/bin/python", "-m", "pytest", "-n", "2", "-q"]
    words += ["--durations=60", "-m", "not long", "--ignore=tests/models/test_audio.py"]
    words += ["-k", "not slow", "tests/models", "tests/test_metrics.py::test_code_usage_reset"]
    command = mutants.parse(shlex.join(words), {"A": "1"})
    assert command is not None
    assert command.env == {"A": "1", "KERAS_BACKEND": "jax"}
    assert command.options == ["-q", "-m", "not long", "-k", "not slow"]
    files = ["tests/models/test_audio.py", "tests/models/test_image.py", "tests/test_metrics.py"]
    assert mutants.files_in(command, files) == [files[1], words[-1]]
    assert mutants.files_in(command, ["tests/test_backend.py"]) == []
    assert mutants.parse("touch .venv/installed", {}) is None
