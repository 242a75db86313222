"""`RestClient` and V2 requests, answered by KServe's model server: another's HTTP and parsing.

The server runs in an environment of its own, made by `make .venv-kserve/installed`; without it the
test is skipped. KSERVE_VENV names another one.
"""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import keras
import numpy as np
import pytest

pytestmark = [pytest.mark.programs, pytest.mark.tensorflow, pytest.mark.long]

if keras.backend.backend() != "tensorflow":  # the JAX run deselects this file by the mark
    pytest.skip("SavedModels are TensorFlow's", allow_module_level=True)

import requests  # noqa: E402
import tensorflow as tf  # noqa: E402
from google.protobuf.json_format import MessageToDict  # noqa: E402
from tensorflow.core.protobuf import saved_model_pb2  # noqa: E402

from tests.serving import models  # noqa: E402

ROOT = Path(__file__).parents[2]
PYTHON = Path(os.environ.get("KSERVE_VENV", ROOT / ".venv-kserve")) / "bin" / "python"
if not PYTHON.exists():
    pytest.skip("needs `make .venv-kserve/installed`", allow_module_level=True)

sys.path.insert(0, str(ROOT / "examples" / "serving"))
import client as example  # noqa: E402

NAME = "image_prior"
V2_TYPES = {"uint8": "UINT8", "int32": "INT32", "float32": "FP32"}


@pytest.fixture(scope="module")
def path(export_once: Callable[[str], Path]) -> Path:
    return export_once(NAME)


@pytest.fixture(scope="module")
def url(path: Path, tmp_path_factory) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("kserve") / "log"
    with log.open("w") as file:
        server = subprocess.Popen(
            [PYTHON, ROOT / "tests" / "serving" / "kserve_server.py", NAME, path, str(port)],
            stdout=file,
            stderr=file,
            cwd=log.parent,  # where this package is not
        )
    url = f"http://127.0.0.1:{port}"
    try:
        end = time.monotonic() + 300
        while True:
            assert server.poll() is None and time.monotonic() < end, log.read_text()[-3000:]
            try:
                if requests.get(f"{url}/v2/models/{NAME}/ready", timeout=5).json()["ready"]:
                    break
            except requests.ConnectionError:
                time.sleep(0.5)
        yield url
    finally:
        server.terminate()
        server.wait(60)


@pytest.fixture(scope="module")
def signatures(path: Path) -> dict:
    """Read from the file: KServe cannot be asked for them."""
    saved = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    known = saved.meta_graphs[0].signature_def
    return example.parse_signatures(
        {name: MessageToDict(x, preserving_proto_field_name=True) for name, x in known.items()}
    )


def expected(path: Path, signature: str, inputs: dict) -> dict[str, np.ndarray]:
    served = tf.saved_model.load(str(path))
    tensors = {name: tf.constant(x) for name, x in inputs.items()}
    return {name: x.numpy() for name, x in served.signatures[signature](**tensors).items()}


def assert_same(got: dict[str, np.ndarray], want: dict[str, np.ndarray]) -> None:
    """Codes exactly, pictures to a level: the server's TensorFlow is another version."""
    assert got.keys() == want.keys()
    for name, array in want.items():
        assert got[name].shape == array.shape and got[name].dtype == array.dtype
        most = 1 if array.dtype == np.uint8 else 0
        assert np.abs(got[name].astype(int) - array).max() <= most, name


@pytest.mark.parametrize("signature", ["encode", "reconstruct", "sample"])
def test_v1(url: str, path: Path, signatures: dict, signature: str) -> None:
    inputs = models.requests(NAME, path)[signature]
    with example.RestClient(url, NAME, signatures=signatures) as client:
        assert_same(client.predict(signature, **inputs), expected(path, signature, inputs))
        bad = {
            name: x[:, :4] if name == "images" else x - 99
            for name, x in inputs.items()
            if name in ("images", "number")
        }
        with pytest.raises(example.InvalidArgumentError, match="must"):
            client.predict(signature, **{**inputs, **bad})
        client.predict(signature, **inputs)


def test_v1_by_row(url: str, path: Path) -> None:
    inputs = models.requests(NAME, path)["reconstruct"]
    body = {
        "signature_name": "reconstruct",
        "instances": [{"images": x} for x in inputs["images"].tolist()],
    }
    answer = requests.post(f"{url}/v1/models/{NAME}:predict", json=body, timeout=60).json()
    want = expected(path, "reconstruct", inputs)
    got = {
        name: np.array([row[name] for row in answer["predictions"]], x.dtype)
        for name, x in want.items()
    }
    assert_same(got, want)


@pytest.mark.parametrize("signature", ["encode", "reconstruct", "sample"])
def test_v2(url: str, path: Path, signature: str) -> None:
    inputs = models.requests(NAME, path)[signature]
    body = {
        "parameters": {"signature_name": signature},
        "inputs": [
            {
                "name": name,
                "shape": list(x.shape),
                "datatype": V2_TYPES[x.dtype.name],
                "data": x.ravel().tolist(),
            }
            for name, x in inputs.items()
        ],
    }
    answer = requests.post(f"{url}/v2/models/{NAME}/infer", json=body, timeout=60)
    assert answer.ok, answer.text
    types = {kserve: numpy for numpy, kserve in V2_TYPES.items()}
    got = {
        x["name"]: np.array(x["data"], types[x["datatype"]]).reshape(x["shape"])
        for x in answer.json()["outputs"]
    }
    assert_same(got, expected(path, signature, inputs))
