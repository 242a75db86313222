"""What tests of serving share."""

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def export_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Gives the export of one of `MODELS`: made once, by the worker that asks first."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # each worker has a folder in the session's
    folder = folder / "served"
    folder.mkdir(exist_ok=True)

    def get(name: str) -> Path:
        from tests.serving.models import export  # needs TensorFlow: not for the run under JAX

        with (folder / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            path = folder / name / "1"
            return path if path.exists() else export(name, folder)

    return get
