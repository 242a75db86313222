"""The benchmark of input at tiny size."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.programs, pytest.mark.tensorflow]

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "input.py"


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
def test_it_reads_and_draws_the_curve_of_memory():
    line = [sys.executable, str(BENCHMARK), "--data-mib", "4", "--total-gb", "0.02", "--no-store"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = [
        [cell.strip() for cell in row.strip("| ").split("|")] for row in done.stdout.split("\n")
    ]
    speeds = {row[0]: row[1:] for row in rows if row[0] in ("in order", "shuffled")}
    assert len(speeds) == 2 and all(float(cell) >= 0 for cell in speeds["shuffled"][:4])
    curve = [row for row in rows if len(row) == 3 and row[0][:1].isdigit()]
    assert len(curve) == 20 and all(float(mib) > 50 for row in curve for mib in row[1:])
