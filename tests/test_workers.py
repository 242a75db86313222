"""Several workers do what one device does, and a killed training ends as if it had not been.

What the workers run is in `tests/workers.py`; the launcher starts them.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

pytestmark = [pytest.mark.programs, pytest.mark.tensorflow]

if keras.backend.backend() != "tensorflow":  # the JAX run deselects this file by the mark
    pytest.skip("tf.distribute is TensorFlow's", allow_module_level=True)

from tests.namespace import in_namespace, require_namespaces  # noqa: E402
from tests.workers import COMPARED, COMPARED_ON_3, DEATHS, EPOCHS  # noqa: E402

ROOT = Path(__file__).parents[1]
TOLERANCE = 1e-5


def run(folder: Path, workers: int, *tasks: str, restarts: int = 0) -> str:
    """Runs tasks on so many workers, or on one device for 0; returns what was printed."""
    command = [sys.executable]
    if workers:
        require_namespaces()
        launcher = ["-m", "keras_vqvae.distribute", "--workers", workers, "--restarts", restarts]
        command = in_namespace([*command, *map(str, launcher)])
    environment = {k: v for k, v in os.environ.items() if k != "TF_CONFIG"}
    result = subprocess.run(
        [*command, "-m", "tests.workers", str(folder), *tasks],
        cwd=ROOT,
        env={**environment, "KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": "-1"},
        capture_output=True,
        text=True,
        timeout=500,
    )
    killed_itself = not workers and tasks == ("resume",)
    assert result.returncode == 0 or killed_itself, result.stderr[-4000:]
    return result.stdout + result.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all tasks but the killed ones have been run, on 2 workers and on one device."""
    folder = tmp_path_factory.mktemp("workers")
    run(folder, 0, "compare", "pipelines", "records", "loop")
    # Keras's failure comes last: who knows in what state it leaves the workers.
    run(folder, 2, "compare", "pipelines", "records", "loop", "adapt", "messages", "keras_alone")
    return folder


def differences(folder: Path, one: str, other: str) -> dict[str, float]:
    with np.load(folder / f"{one}.npz") as a, np.load(folder / f"{other}.npz") as b:
        assert set(a.files) == set(b.files)
        found = {}
        for key in a.files:
            assert a[key].shape == b[key].shape, key
            found[key] = float(np.max(np.abs(a[key].astype("float64") - b[key]), initial=0.0))
    return found


def assert_close(folder: Path, name: str, workers: int) -> None:
    for worker in range(workers):
        # `not <=` rather than `>`, for NaN.
        found = differences(folder, f"{name}-{worker}", f"{name}-alone")
        wrong = {key: value for key, value in found.items() if not value <= TOLERANCE}
        assert not wrong, (name, worker, wrong)


def test_fit_evaluate_and_predict_are_those_of_one_device(folder: Path) -> None:
    for name in COMPARED:
        assert_close(folder, name, 2)
        found = differences(folder, f"{name}-0", f"{name}-alone")
        assert {"logged val_loss", "evaluate loss", "predict 0"} <= set(found), name


@pytest.mark.long
def test_three_workers(folder: Path, tmp_path: Path) -> None:
    for alone in folder.glob("*-alone.npz"):
        shutil.copy(alone, tmp_path)
    run(tmp_path, 3, "compare")
    for name in COMPARED_ON_3:
        assert_close(tmp_path, name, 3)


def test_seeded_pipelines_and_callbacks(folder: Path) -> None:
    for name in ("whole", "part"):
        assert_close(folder, name, 2)
        pictures = sorted(path.name for path in (folder / f"{name}-0-pictures").glob("*.png"))
        assert len(pictures) == 2 * EPOCHS
        assert not (folder / f"{name}-1-pictures").exists(), "only the chief writes"


def test_records_that_are_not_shared_out(folder: Path) -> None:
    assert_close(folder, "records", 2)


def test_adapt_gives_all_the_same_codebook(folder: Path) -> None:
    found = differences(folder, "adapt-0", "adapt-1")
    assert "adapted" in found and set(found.values()) == {0.0}, found


def test_loop_for_models_of_ones_own(folder: Path) -> None:
    assert_close(folder, "loop", 2)


def test_messages(folder: Path) -> None:
    for worker in range(2):
        found = json.loads((folder / f"messages-{worker}.json").read_text())
        first, second, outside = found["said"]
        for text in ("jit_compile=True is ignored", "steps_per_execution=2 is ignored"):
            assert any(text in said for said in first)
            assert not any(text in said for said in second), "said once"
        assert any("made outside the scope of a MultiWorkerMirrored" in text for text in outside)
        assert any("each worker shuffles an array in an order of its own" in text for text in first)
        unbuilt, cut = found["refused"]
        assert "on several workers the model must be built before fit" in unbuilt
        assert "Batch it once more: dataset.unbatch().batch(GLOBAL_BATCH_SIZE)" in cut


def test_keras_still_needs_our_help(folder: Path) -> None:
    """Fails when Keras's own `fit` has learned to run on several workers."""
    for worker in range(2):
        said = (folder / f"keras_alone-{worker}.txt").read_text()
        assert "PerReplica" in said, (
            f"Keras's fit under MultiWorkerMirroredStrategy now says {said!r}. If it works, remove "
            "`_maybe_symbolic_build` and `compute_metrics` of keras_vqvae/models/base.py, the note "
            "in docs/scaling.md and this test; if it fails otherwise, see whether ours still works."
        )


@pytest.mark.parametrize("workers", [pytest.param(0, marks=pytest.mark.long), 2])
def test_killed_training_ends_bit_for_bit(tmp_path: Path, workers: int) -> None:
    """SIGKILL of one worker, then of all, then of the chief while it writes a backup."""
    run(tmp_path, workers, "undisturbed")
    for path in tmp_path.glob("starts-*"):
        path.unlink()
    if workers:
        printed = run(tmp_path, workers, "resume", restarts=len(DEATHS) - 1)
    else:
        printed = "".join(run(tmp_path, 0, "resume") for _ in DEATHS)
    for worker in [str(worker) for worker in range(workers)] or ["alone"]:
        assert len((tmp_path / f"starts-{worker}").read_bytes()) == len(DEATHS)
        found = differences(tmp_path, f"disturbed-{worker}", f"undisturbed-{worker}")
        assert set(found.values()) == {0.0}, found
    assert "was being written when the training was interrupted" in printed
