"""20 steps of SGD on 2 and 4 replicas equal one device: see `tests/replicas.py`."""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.replicas import CASES

pytestmark = pytest.mark.tensorflow

ROOT = Path(__file__).parents[1]
TOLERANCE = 1e-5


@functools.cache
def results(devices: int) -> dict:
    """What a process with so many devices found, by case."""
    run = subprocess.run(
        [sys.executable, "-m", "tests.replicas", str(devices)],
        cwd=ROOT,
        env={**os.environ, "KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": "-1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    lines = [json.loads(line) for line in run.stdout.splitlines() if line.startswith('{"case"')]
    found = {line["case"]: line for line in lines}
    assert run.returncode == 0, f"finished {sorted(found)}, then:\n{run.stderr[-4000:]}"
    return found


# One worker runs all cases of a number of devices: with xdist, `--dist loadfile` keeps them
# together.
@pytest.mark.parametrize(
    "devices", [pytest.param(n, marks=pytest.mark.xdist_group(f"replicas{n}")) for n in (2, 4)]
)
class TestReplicas:
    def test_same_as_one_device(self, devices: int) -> None:
        found = results(devices)
        assert set(found) == set(CASES)
        failures = []
        for name, case in CASES.items():
            result = found[name]
            differences = {
                "codebook": result["codebook"],
                "between replicas": result["between_replicas"],
                **result["weights"],
            }
            if case.compare_logs:
                differences |= {f"logged {k}": v for k, v in result["logs"].items()}
                differences |= {f"evaluate {k}": v for k, v in result["evaluated"].items()}
                assert "loss" in result["logs"] and "loss" in result["evaluated"], name
            # `not <=` rather than `>`, for NaN.
            wrong = {k: v for k, v in differences.items() if not v <= TOLERANCE}
            if wrong:
                failures.append((name, wrong))
            # The comparison would be empty if nothing had been trained or restarted.
            assert result["moved"] > 0.01, name
            assert result["restarts"][0] == result["restarts"][1], name
            assert not case.restarts or result["restarts"][0] > 0, f"{name}: nothing restarted"
        assert not failures, failures
