"""The example of tf.data service at tiny size, in a network of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.namespace import in_namespace, require_namespaces
from tests.test_class_conditional import write_fashion

pytestmark = [pytest.mark.programs, pytest.mark.tensorflow]

EXAMPLE = Path(__file__).parents[2] / "examples" / "data_service.py"
# Of how many pictures there are, one server's share alone would not fill an epoch.
TINY = ["--pictures", "100", "--batch-size", "8", "--steps", "20", "--workers", "2"]


def test_training_is_fed_by_servers(tmp_path):
    require_namespaces()
    write_fashion(tmp_path / "cache" / "fashion-mnist")
    line = [sys.executable, str(EXAMPLE), *TINY, "--out", str(tmp_path / "run")]
    environment = os.environ | {"KERAS_VQVAE_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        in_namespace(line), env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    rates = json.loads((tmp_path / "run" / "rates.json").read_text())
    assert set(rates) == {"without the service", "with the service"}
    for rate in rates.values():
        assert rate["training"] > 0 and rate["input_alone"] > 0
    assert "with the service: " in done.stdout and "images/s" in done.stdout


@pytest.mark.parametrize("role", [["worker"], ["dispatcher", "--dispatcher", "a:1"]])
def test_wrong_roles_are_named(role):
    line = [sys.executable, str(EXAMPLE), "--role", *role]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "--dispatcher" in done.stderr.splitlines()[-1]
