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


@pytest.mark.long
def test_codes_are_compared_with_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "examples")]
    import video as benchmark
    import video_prediction as example

    from tests.test_video_prediction import turning_world

    monkeypatch.setattr(example, "LONG", 30)
    data, run = tmp_path / "data", tmp_path / "run"
    data.mkdir()
    turning_world(data, 4, 24)
    line = ["--data", str(data), "--size", "32", "--steps", "2"]
    example.main([*line, "--actions", "forward,left,right", "--out", str(run)])
    found = benchmark.sharpness(run, None, 4)
    assert found["steps"] == 2
    codes, pixels = (found["parameters"][way] for way in ("codes", "pixels"))
    assert pixels == pytest.approx(codes, rel=0.2)
    [ways] = found["figures"].values()
    for way in ("codes", "pixels"):
        assert len(ways[way]["PSNR"]) == example.STEPS
        assert ways[way]["gradient energy at the last step / reconstructions"] > 0
