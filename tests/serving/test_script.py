"""`examples/serving/run_tensorflow_serving.sh`, with a `docker` that is none: it was not run with
the real container here."""

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import keras
import pytest

pytestmark = [pytest.mark.programs, pytest.mark.tensorflow]

if keras.backend.backend() != "tensorflow":  # the JAX run deselects this file by the mark
    pytest.skip("SavedModels are TensorFlow's", allow_module_level=True)
if not shutil.which("bash"):
    pytest.skip("needs bash", allow_module_level=True)

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "examples" / "serving" / "run_tensorflow_serving.sh"

# Writes down how it was called; `run` also keeps what the container would have been given.
DOCKER = """#!/usr/bin/env bash
echo "docker $*" >>"$RECORD/calls"
case $1 in
run) all=$*; source=${all#*source=}; cp "${source%%,*}/models.config" "$RECORD"; echo c0ffee;;
port) echo "127.0.0.1:1${3%/tcp}";;
esac
"""
PYTHON = """#!/usr/bin/env bash
echo "python ${*//$TMPDIR/TMP} grpc=${KERAS_VQVAE_SERVING_GRPC-}" \
    "rest=${KERAS_VQVAE_SERVING_REST-}" >>"$RECORD/calls"
if [[ $1 == - && $2 == "$TMPDIR"/* ]]; then mkdir -p "$2"/{doom,voices}/1; fi
if [[ $1 == -m ]]; then exit "$PYTEST_STATUS"; fi
"""


def executable(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path


def run(
    folder: Path, docker: str, *arguments: str, **environment: str
) -> subprocess.CompletedProcess:
    """The script, with a TMPDIR of its own, in `folder`."""
    executable(folder / "docker", docker)
    (folder / "tmp").mkdir()
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    environment |= {"PATH": path, "TMPDIR": str(folder / "tmp"), "RECORD": str(folder)}
    return subprocess.run(
        ["bash", SCRIPT, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=500,
    )


@pytest.mark.parametrize("status", [0, 3])
def test_how_the_container_is_started_and_removed(tmp_path: Path, status: int) -> None:
    python = executable(tmp_path / "python", PYTHON)
    done = run(tmp_path, DOCKER, "doom", "voices", PYTHON=str(python), PYTEST_STATUS=str(status))
    assert done.returncode == status, done.stderr
    calls = (tmp_path / "calls").read_text().splitlines()
    starts = [" ".join(call.split()[:2]) for call in calls]
    ends = ["docker logs"] if status else []
    assert starts == [
        "python -", "docker run", "docker port", "docker port", "python -", "python -m", *ends,
        "docker rm",
    ]  # fmt: skip
    assert calls[0].split()[3:5] == ["doom", "voices"]
    options = calls[1].split()
    published = [options[i + 1] for i, x in enumerate(options) if x == "--publish"]
    assert published == ["127.0.0.1::8500", "127.0.0.1::8501"]
    assert "target=/models,readonly" in calls[1]
    assert options[-2:] == [
        "tensorflow/serving:2.17.0", "--model_config_file=/models/models.config"
    ]  # fmt: skip
    tests = calls[5]
    assert "tests/serving/test_clients.py" in tests
    assert "grpc=127.0.0.1:18500 rest=http://127.0.0.1:18501" in tests
    assert calls[-1] == "docker rm --force c0ffee"
    config = (tmp_path / "models.config").read_text()
    for name in ("doom", "voices"):
        assert f"name: '{name}' base_path: '/models/{name}' model_platform: 'tensorflow'" in config
    assert not list((tmp_path / "tmp").iterdir())


def test_without_docker_nothing_is_left(tmp_path: Path) -> None:
    python = executable(tmp_path / "python", PYTHON)
    done = run(tmp_path, "#!/usr/bin/env bash\nexit 7\n", PYTHON=str(python), PYTEST_STATUS="0")
    assert done.returncode == 7
    assert not list((tmp_path / "tmp").iterdir())


# In place of the container the test double serves what the container would have been given.
DOCKER_WITH_DOUBLE = """#!/usr/bin/env bash
set -eu
case $1 in
run)
    all=$*; source=${all#*source=}
    "$PYTHON" -m tests.serving.double "${source%%,*}" >"$RECORD/addresses" 2>"$RECORD/log" &
    echo $! >"$RECORD/pid"
    for _ in {1..600}; do [[ -s $RECORD/addresses ]] && break; sleep 0.2; done
    echo c0ffee;;
port)
    read -r grpc rest <"$RECORD/addresses"
    if [[ $3 == 8500* ]]; then echo "$grpc"; else echo "${rest#http://}"; fi;;
logs) cat "$RECORD/log";;
rm) kill "$(cat "$RECORD/pid")";;
esac
"""


@pytest.mark.long
def test_the_whole_way_with_the_double_as_container(tmp_path: Path) -> None:
    pytest.importorskip("tensorflow_serving")
    done = run(tmp_path, DOCKER_WITH_DOUBLE, "image", "video_encoded", PYTHON=sys.executable)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" in done.stdout and "failed" not in done.stdout
    host, port = (tmp_path / "addresses").read_text().split()[0].split(":")
    end = time.monotonic() + 30
    while True:  # what was started has ended, or is about to
        try:
            socket.create_connection((host, int(port)), timeout=5).close()
        except ConnectionRefusedError:
            break
        assert time.monotonic() < end
        time.sleep(0.2)
