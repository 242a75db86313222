"""Requests answered by another process: `python PROGRAM REQUESTS ANSWERS`, two pickles.

Requests are a list of `(path of a SavedModel, signature, inputs by name)`; answers a list of
outputs by name, or of `(code, message)` where there was an error.
"""

import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

Request = tuple[str, str, dict]


def ask(program: str, requests: list[Request], folder: Path) -> list:
    """The answers of a program of this folder.

    Args:
        program: name of the module.
        requests: as above.
        folder: for the two files.
    """
    asked, answered = folder / "requests.pickle", folder / "answers.pickle"
    asked.write_bytes(pickle.dumps(requests))
    answered.unlink(missing_ok=True)
    script = Path(__file__).with_name(f"{program}.py")
    run = subprocess.run(
        [sys.executable, script, asked, answered],
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert run.returncode == 0, f"{program}: {run.returncode}\n{run.stderr[-4000:]}"
    return pickle.loads(answered.read_bytes())


def main(answer: Callable[[list[Request]], list]) -> None:
    """What such a program does."""
    answers = answer(pickle.loads(Path(sys.argv[1]).read_bytes()))
    Path(sys.argv[2]).write_bytes(pickle.dumps(answers))
