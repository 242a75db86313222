"""`benchmarks/gpu.py` runs on either backend, here with tiny sizes on a CPU.

On JAX it runs where TensorFlow cannot be imported, as on a machine that has none.
"""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import pytest

pytestmark = pytest.mark.programs

ROOT = Path(__file__).parents[1]
BACKEND = keras.backend.backend()
WITHOUT_TENSORFLOW = """
import runpy, sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "tensorflow":
            raise ImportError(f"{name} is blocked")

if sys.argv[1] == "jax":
    sys.meta_path.insert(0, Block())
sys.argv[:2] = ["benchmarks/gpu.py"]
sys.path.insert(0, "benchmarks")
runpy.run_path("benchmarks/gpu.py", run_name="__main__")
"""
SIZES = {
    "product_side": 64, "image_side": 16, "batch": 2, "hidden": 8, "rows": 64,
    "codes": [16, 0, 32], "grid": 4, "layers": 2, "channels": 8, "sample_batches": [1, 2],
    "rounds": 2, "seconds": 0.01,
}  # fmt: skip


def numbers(found: Any) -> list:
    """All numbers in a nest of dicts and lists."""
    if isinstance(found, dict):
        found = list(found.values())
    if isinstance(found, list):
        return [number for each in found for number in numbers(each)]
    return [found] if isinstance(found, (int, float)) and not isinstance(found, bool) else []


def test_gpu_benchmark(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    arguments = ["--small", "--json", str(path)]
    for name, value in SIZES.items():
        values = value if isinstance(value, list) else [value]
        arguments += ["--" + name.replace("_", "-"), *map(str, values)]
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT_TENSORFLOW, BACKEND, *arguments],
        cwd=ROOT,
        env={**os.environ, "KERAS_BACKEND": BACKEND},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    result = json.loads(path.read_text())
    assert result["backend"] == BACKEND
    assert result["device"] == {"kind": "cpu", "name": result["machine"]["cpu"]}
    assert result["machine"]["versions"][BACKEND]
    assert result["sizes"] == SIZES

    # A case that fails is named, and those after it run. No quantizer has 0 codes.
    cases = result["cases"]
    assert "num_codes must be" in cases.pop("quantizer K=0")["failed"]
    assert list(cases) == [
        "product float32", "training float32", "product bfloat16", "training bfloat16",
        "quantizer K=16", "quantizer K=32", "sampling batch=1", "sampling batch=2",
    ]  # fmt: skip
    for name, case in cases.items():
        assert "failed" not in case, (name, case)
        assert all(math.isfinite(x) and x > 0 for x in numbers(case)), (name, case)

    assert cases["product float32"]["tf32"] is False
    hidden, code_dim = SIZES["hidden"], 64
    blocks = 2 * 4 * 4 * (9 + 1) * hidden**2
    encoder = 8 * 8 * 16 * 3 * hidden + 4 * 4 * 16 * hidden**2 + blocks + 4 * 4 * hidden * code_dim
    decoder = 4 * 4 * 9 * code_dim * hidden + blocks + 4 * 4 * 16 * hidden**2
    decoder += 8 * 8 * 16 * hidden * 3
    for dtype, policy in {"float32": "float32", "bfloat16": "mixed_bfloat16"}.items():
        case = cases[f"training {dtype}"]
        assert case["policy"] == policy
        assert math.isclose(case["gflop_per_image"], 3 * 2 * (encoder + decoder) / 1e9)
    for name, sides in {
        "quantizer K=16": 3,
        "sampling batch=1": 2 if BACKEND == "jax" else 4,
    }.items():
        assert len(cases[name]["times"]) == sides
