"""`benchmarks/audio.py` runs, here with tiny sizes."""

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
    pytest.skip("it measures TensorFlow's SavedModel too", allow_module_level=True)


@pytest.mark.long
def test_audio_benchmark(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    arguments = ["--channels", "4", "--skip-channels", "8", "--dilations", "1", "2", "--repeats"]
    arguments += ["2", "--upsampling", "4", "--codes", "3", "--batches", "1", "2", "--rounds", "2"]
    arguments += ["--memory-mib", "1", "--json", str(path)]
    run = subprocess.run(
        [sys.executable, "benchmarks/audio.py", *arguments],
        cwd=ROOT,
        env={**os.environ, "KERAS_BACKEND": "tensorflow"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    assert "x re-running" in run.stdout
    result = json.loads(path.read_text())
    assert result["receptive_field"] == 7
    blocks = 4 * (2 * 4 * 8 + 8 + 4 * 8 + 8) + 3 * (4 * 4 + 4)
    assert result["weights_a_step"] == blocks + 8 * 8 + 8 + 8 * 256 + 256
    assert [case["batch"] for case in result["cases"]] == [1, 2]
    for case in result["cases"]:
        assert case["samples"] == 12 and case["forward_samples"] == 8
        assert set(case["sides"]) == {
            "decode, XLA", "decode, graph", "endpoint, XLA", "endpoint, graph"
        }  # fmt: skip
        forward = min(side["ms"] for side in case["forward"].values())
        for side in case["sides"].values():
            assert math.isclose(
                side["times_rerunning"]["ratio"], 12 * forward / side["ms"], rel_tol=0.05
            )
            assert all(math.isfinite(share) and share > 0 for share in side["share"].values())
