"""Seconds of every test, of the processes that tests start, and of each leg of CI.

As a pytest plugin (`-p tests.durations --durations-to FOLDER`) it writes one line of JSON a test.
The script makes the tables of docs/testing.md, and docs/durations.csv, from such a folder:

    make durations                              # runs every leg and writes the tables
    python -m tests.durations runs/durations    # writes the tables of an earlier run
"""

import collections
import csv
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "testing.md"
NUMBERS = ("wall", "cpu", "children", "processes")  # seconds, and processes started
SLOWEST = 30  # tests in the table

BEGAN = pytest.StashKey[float]()  # when pytest began
started: list[str] = []  # what this process has started


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--durations-to", metavar="FOLDER", help="write seconds of each test there")
    parser.addoption("--leg", default="tests", help="name of this run in the tables")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[BEGAN] = time.monotonic()
    if config.getoption("--durations-to"):
        sys.addaudithook(
            lambda event, args: started.append(event) if event == "subprocess.Popen" else None
        )


def _cpu() -> tuple[float, float]:
    times = os.times()
    return times.user + times.system, times.children_user + times.children_system


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    folder = item.config.getoption("--durations-to")
    if not folder:
        yield
        return
    wall, (own, children), processes = time.monotonic(), _cpu(), len(started)
    yield
    now_own, now_children = _cpu()
    row = {
        "leg": item.config.getoption("--leg"),
        "test": item.nodeid,
        "wall": round(time.monotonic() - wall, 2),
        "cpu": round(now_own - own, 2),
        "children": round(now_children - children, 2),
        "processes": len(started) - processes,
    }
    Path(folder).mkdir(parents=True, exist_ok=True)
    with open(Path(folder) / f"{row['leg']}-{os.getpid()}.jsonl", "a") as file:
        file.write(json.dumps(row) + "\n")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Adds a leg's own line: all of it, imports and collection included."""
    folder = session.config.getoption("--durations-to")
    if not folder or os.environ.get("PYTEST_XDIST_WORKER"):
        return
    wall = time.monotonic() - session.config.stash[BEGAN]
    leg = session.config.getoption("--leg")
    Path(folder).mkdir(parents=True, exist_ok=True)
    (Path(folder) / f"{leg}.leg").write_text(json.dumps({"leg": leg, "wall": round(wall, 1)}))


def _table(head: list[str], rows: list[list]) -> list[str]:
    cells = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return ["| " + " | ".join(map(str, row)) + " |" for row in cells]


def rows_of(folder: Path) -> list[dict]:
    """Returns a dict for each test that the plugin has timed."""
    files = sorted(folder.glob("*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def write_all(rows: list[dict]) -> None:
    """Writes a line for each test function and leg, with the sums over its cases."""
    sums: dict = collections.defaultdict(collections.Counter)
    for row in rows:
        sums[row["test"].partition("[")[0], row["leg"]].update({"cases": 1, **_numbers(row)})
    with PAGE.with_name("durations.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["test", "leg", "cases", *NUMBERS])
        for (test, leg), found in sorted(sums.items()):
            values = (f"{found[name]:.2f}".removesuffix(".00") for name in ("cases", *NUMBERS))
            writer.writerow([test, leg, *values])


def _numbers(row: dict) -> dict:
    return {name: row[name] for name in NUMBERS}


def tables(folder: Path) -> str:
    """The Markdown of a folder that the plugin has written."""
    rows = rows_of(folder)
    legs = [json.loads(f.read_text()) for f in sorted(folder.glob("*.leg"))]

    def total(key: str, **only: str) -> float:
        return sum(r[key] for r in rows if all(r[k] == v for k, v in only.items()))

    lines = ["### Legs", ""]
    lines += _table(
        ["leg", "tests", "wall seconds", "CPU seconds", "of processes", "processes"],
        [
            [
                leg["leg"], sum(r["leg"] == leg["leg"] for r in rows), f"{leg['wall']:.0f}",
                *(f"{total(key, leg=leg['leg']):.0f}" for key in ("cpu", "children", "processes")),
            ]
            for leg in legs
        ],
    )  # fmt: skip
    files: dict = collections.defaultdict(lambda: collections.defaultdict(float))
    for row in rows:
        files[row["test"].split("::")[0]][row["leg"]] += row["cpu"] + row["children"]
    order = sorted(files, key=lambda f: -sum(files[f].values()))
    lines += ["", "### CPU seconds of each file", ""]
    names = [leg["leg"] for leg in legs]
    lines += _table(
        ["file", *names],
        [
            [f"`{f}`", *(f"{files[f][n]:.1f}" if n in files[f] else "" for n in names)]
            for f in order
        ],
    )
    slowest = sorted(rows, key=lambda r: -(r["cpu"] + r["children"]))[:SLOWEST]
    lines += ["", f"### The {SLOWEST} slowest tests", ""]
    lines += _table(
        ["test", "leg", "CPU seconds", "of processes", "processes"],
        [[f"`{r['test']}`", r["leg"], r["cpu"], r["children"], r["processes"]] for r in slowest],
    )
    return "\n".join(lines) + "\n"


def write_section(name: str, text: str) -> None:
    """Replaces what stands between the comments `name: begin` and `name: end` of the page."""
    begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->\n"
    before, rest = PAGE.read_text().split(begin)
    PAGE.write_text(f"{before}{begin}\n{text}\n{end}{rest.split(end)[1]}")


if __name__ == "__main__":
    write_section("durations", tables(Path(sys.argv[1])))
    write_all(rows_of(Path(sys.argv[1])))
