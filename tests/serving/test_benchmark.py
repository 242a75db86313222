"""`benchmarks/serving.py` runs, here with tiny models and few requests."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.programs, pytest.mark.tensorflow, pytest.mark.long]

if keras.backend.backend() != "tensorflow":
    pytest.skip("SavedModels are TensorFlow's", allow_module_level=True)


@pytest.mark.timeout(1800)
def test_serving_benchmark(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    arguments = ["--small", "--rounds", "2", "--batches", "2", "--clients", "1", "3"]
    arguments += ["--seconds", "0.1", "--soak", "300", "--soak-grpc", "60", "--json", str(path)]
    run = subprocess.run(
        [sys.executable, "benchmarks/serving.py", *arguments],
        cwd=ROOT,
        env={**os.environ, "KERAS_BACKEND": "tensorflow"},
        capture_output=True,
        text=True,
        timeout=1500,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    assert "/ tf.function" in run.stdout and "not intended" in run.stdout
    result = json.loads(path.read_text())
    assert set(result["exports"]) == {"image", "files", "sound", "wavenet", "video"}
    for export in result["exports"].values():
        assert export["megabytes"] > 4e-6 * export["parameters"]
    asked = {(case["model"], case["signature"]) for case in result["overhead"]}
    assert {("image", "sample"), ("sound", "convert"), ("video", "step")} <= asked
    assert {("sound", "sample"), ("wavenet", "decode_stream"), ("files", "decode")} <= asked
    for case in result["overhead"]:
        for ours, others in case["ratios"].items():
            for name, ratio in others.items():
                one, other = (case["times"][x]["samples"] for x in (ours, name))
                low, high = sorted(a / b for a, b in zip(one, other, strict=True))
                assert math.isclose(ratio["median"], (low + high) / 2, rel_tol=1e-6)
    for case in result["load"]:
        assert case["requests"] >= case["clients"] and case["p50_ms"] > 0
        assert (case["p99_ms"] is None) == (case["requests"] < 100)
        assert case["p50_ms"] <= (case["p99_ms"] or math.inf)
    for name, count in {"session": 300, "gRPC, the server": 60}.items():
        soak = result["soak"][name]
        assert set(soak["answers"]) == {"good: answered", "bad: INVALID_ARGUMENT"}
        assert sum(soak["answers"].values()) == count and soak["not_intended"] == 0
        assert min(soak["answers"].values()) > count / 6
        assert soak["growth"] < 0.2  # so few requests only show what leaks much
