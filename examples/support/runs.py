"""The folder of a run: one set of arguments, files that are whole or not there."""

import datetime
import json
import shlex
import sys
from pathlib import Path


def write_json(path: Path, content: dict) -> None:
    """Writes `content` in one move: an interruption leaves no half file."""
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(content, indent=2, default=str))
    unfinished.replace(path)


def open_run(out: Path, arguments: dict) -> Path:
    """Makes the folder, or makes sure that the folder there is of the same arguments.

    Raises:
        ValueError: it cannot be written, or it holds another run.
    """
    free = ("out", "run", "skip_corrupt", "verbose")  # they change no result
    arguments = json.loads(json.dumps({k: v for k, v in arguments.items() if k not in free}))
    path, command = out / "arguments.json", out / "command.json"
    try:
        out.mkdir(parents=True, exist_ok=True)
        # What ended before it made anything, as of a mistyped argument, is no run.
        if not path.exists() or set(out.iterdir()) <= {path, command}:
            write_json(path, arguments)
            note_command(out)
    except OSError as problem:
        raise ValueError(f"--out: cannot write to {out}: {problem}") from problem
    before = json.loads(path.read_text())
    if before != arguments:
        changed = {k: before.get(k) for k in arguments if before.get(k) != arguments[k]}
        raise ValueError(
            f"{out} holds a run with other arguments, {changed}; name another folder or remove it"
        )
    return out


def note_command(out: Path) -> None:
    """Keeps the command by which a run is started, and when, for its report."""
    when = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    command = {"command": shlex.join(["python", *sys.argv]), "started": when}
    write_json(out / "command.json", command)


def command_of(out: Path) -> list[str]:
    """A line that says by which command a run was started, and when; none of an older run."""
    path = out / "command.json"
    if not path.exists():
        return []
    noted = json.loads(path.read_text())
    return [f"{noted['command']}  # started on {noted['started']}"]
