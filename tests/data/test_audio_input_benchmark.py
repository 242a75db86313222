"""The benchmark of sound input at tiny size."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("soxr", reason="the extra `audio` is not installed")
pytestmark = [pytest.mark.programs, pytest.mark.tensorflow]

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "audio_input.py"


@pytest.mark.long
def test_it_measures_every_kind_of_file():
    line = [sys.executable, str(BENCHMARK), "--files", "16", "--seconds", "1.1"]
    done = subprocess.run(
        [*line, "--rounds", "2", "--no-store"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for kind in ("WAV", "FLAC", "Ogg", "MP3"):
        assert f"{kind}, 16 kHz" in done.stdout or f"{kind} Vorbis, 16 kHz" in done.stdout
    assert done.stdout.count("Python loop") == 6  # five kinds, and the heading
