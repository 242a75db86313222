"""What the benchmarks share: interleaved timing, the peer's process, tables and JSON."""

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
# The two sides' threads spin for some milliseconds after work; let them fall asleep.
REST_SECONDS = 0.05
LOAD_AT_START = os.getloadavg()[0] if hasattr(os, "getloadavg") else None

sys.path.insert(0, str(ROOT))
sys.path.append(str(ROOT / "examples"))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from support.command import Parser  # noqa: F401 - the benchmarks' command lines


def peers_python() -> Path:
    """The Python of the environment in which the peers live."""
    scripts = "Scripts/python.exe" if os.name == "nt" else "bin/python"
    python = Path(os.environ.get("PEERS_VENV", ROOT / ".venv-peers")) / scripts
    if not python.exists():
        raise SystemExit("the peers are not installed: run `make .venv-peers/installed`")
    return python


def milliseconds(fn: Callable[[], Any], repeats: int = 1) -> float:
    """Time of a call, after one that is not timed and wakes threads and caches."""
    fn()
    start = time.perf_counter()
    for _ in range(repeats):
        fn()
    return (time.perf_counter() - start) * 1e3 / repeats


class Peer:
    """A child process that answers one JSON request a line; it sleeps while we work.

    Use as a context manager; `peer.ask(op="time", ...)` returns the answer, a dict.
    """

    def __init__(self, script: str) -> None:
        self._process = subprocess.Popen(
            [peers_python(), HERE / "peers" / script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, **request: Any) -> dict:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the peer ended during {request}")
        return json.loads(answer)

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, *_: Any) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(timeout=60)


def interleave(sides: dict[str, Callable[[], float]], rounds: int) -> dict[str, dict]:
    """Takes one time of each side, in turn, `rounds` times.

    Args:
        sides: for each name, a function that measures once and returns milliseconds.

    Returns:
        For each name `{"ms": median, "quartiles": [low, high], "samples": [...]}`.
    """
    samples: dict[str, list[float]] = {name: [] for name in sides}
    for measure in sides.values():  # compiles and warms up
        measure()
    for _ in range(rounds):
        for name, measure in sides.items():
            time.sleep(REST_SECONDS)
            samples[name].append(measure())
    return {name: summary(values) for name, values in samples.items()}


def summary(values: list[float]) -> dict:
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return {
        "ms": round(middle, 3),
        "quartiles": [round(low, 3), round(high, 3)],
        "samples": [round(value, 3) for value in values],
    }


def ratio(theirs: dict, ours: dict) -> dict:
    """theirs / ours: of the medians, and the quartiles of the ratios round by round."""
    rounds = [a / b for a, b in zip(theirs["samples"], ours["samples"], strict=True)]
    low, _, high = statistics.quantiles(rounds, n=4, method="inclusive")
    return {
        "ratio": round(theirs["ms"] / ours["ms"], 3),
        "quartiles": [round(low, 3), round(high, 3)],
    }


MATMUL_SIDE = 2048
MATMUL_GFLOP = 2 * MATMUL_SIDE**3 / 1e9


def matmul_timer() -> Callable[[], float]:
    """Measures a 2048 x 2048 x 2048 float32 product: the machine's matrix-product rate."""
    import tensorflow as tf

    a = tf.random.normal((MATMUL_SIDE, MATMUL_SIDE))
    b = tf.random.normal((MATMUL_SIDE, MATMUL_SIDE))
    product = tf.function(lambda: tf.matmul(a, b))
    return lambda: milliseconds(product)


def machine() -> dict:
    """The machine and the versions, without names of hosts, persons or places."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [x for x in info.read_text().splitlines() if x.startswith("model name")]
        model = names[0].split(":", 1)[1].strip() if names else model
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    versions = {"python": platform.python_version()}
    for name in ("tensorflow", "jax", "keras", "numpy"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            pass
    return {
        "cpu": model,
        "cores": cores,
        "system": platform.system(),
        "load_average_at_start": LOAD_AT_START,
        "versions": versions,
    }


def table(headers: list[str], rows: list[list]) -> str:
    """A Markdown table, numbers to three digits."""
    cells = [headers] + [[_cell(value) for value in row] for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(headers))]
    padded = [[c.rjust(w) for c, w in zip(row, widths, strict=True)] for row in cells]
    lines = ["| " + " | ".join(row) + " |" for row in padded]
    lines.insert(1, "|" + "|".join("-" * (w + 1) + ":" for w in widths) + "|")
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return "" if value is None else str(value)


def write(name: str, results: dict) -> None:
    """Stores `results`, with the machine, as benchmarks/results/<name>.json."""
    path = HERE / "results" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"machine": machine(), **results}, indent=1) + "\n")
    if LOAD_AT_START and LOAD_AT_START > 0.5:
        print(f"\nDO NOT QUOTE: load {LOAD_AT_START:.1f} at the start. Other work slows the sides")
        print("unequally (PyTorch's threads wait for each other): run on a quiet machine.")
    print(f"\nstored as {path.relative_to(ROOT)}")
