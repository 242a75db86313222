"""`benchmarks/video.py` runs, here with tiny sizes."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

ROOT = Path(__file__).parents[1]

if keras.backend.backend() != "tensorflow":
    pytest.skip("it times TensorFlow's graphs", allow_module_level=True)


@pytest.mark.long
def test_video_benchmark(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    arguments = ["--side", "16", "--batches", "1", "2", "--rounds", "2", "--frames", "2"]
    run = subprocess.run(
        [sys.executable, "benchmarks/video.py", *arguments, "--json", str(path)],
        cwd=ROOT,
        env={**os.environ, "KERAS_BACKEND": "tensorflow"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    assert "x re-running" in run.stdout
    result = json.loads(path.read_text())["rollout"]
    for name, codes in {"fine": 16, "tiny": 4, "small": 4}.items():
        assert result[name]["step"]["frames_per_second"] > 0
        for cost in result[name]["cost"]:
            assert math.prod(cost["grid"]) == codes
            forward = min(cost["times"][f"forward, {how}"]["ms"] for how in ("graph", "XLA"))
            assert cost["naive_frame_ms"] > forward * codes / 2
