"""`RestClient` and V2 requests, answered by KServe's model server: another's HTTP and parsing.

The server runs in an environment of its own, made by `make .venv-kserve/installed`; without it the
test is skipped. KSERVE_VENV names another one.
"""

import json
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

NAMES = ("image_prior", "sound_source", "video_discrete")
V2_TYPES = {"uint8": "UINT8", "int32": "INT32", "float32": "FP32", "bool": "BOOL"}


@pytest.fixture(scope="module")
def paths(export_once: Callable[[str], Path]) -> dict[str, Path]:
    return {name: export_once(name) for name in NAMES}


@pytest.fixture(scope="module")
def url(paths: dict[str, Path], tmp_path_factory) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("kserve") / "log"
    served = [f"{name}={path}" for name, path in paths.items()]
    with log.open("w") as file:
        server = subprocess.Popen(
            [PYTHON, ROOT / "tests" / "serving" / "kserve_server.py", str(port), *served],
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
                if requests.get(f"{url}/v2/models/{NAMES[-1]}/ready", timeout=5).json()["ready"]:
                    break
            except requests.ConnectionError:
                time.sleep(0.5)
        yield url
    finally:
        server.terminate()
        server.wait(60)


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
        most = {"uint8": 1, "float32": 1e-5}.get(array.dtype.name, 0)
        np.testing.assert_allclose(got[name].astype("f8"), array, 0, most, err_msg=name)


@pytest.mark.parametrize("name", NAMES)
def test_v1(url: str, paths: dict[str, Path], name: str) -> None:
    path = paths[name]
    fields = json.loads((path / "signature.json").read_text(encoding="utf-8"))["signatures"]
    with example.RestClient(url, name, signatures=signatures(path)) as client:
        for signature, inputs in models.requests(name, path).items():
            want = expected(path, signature, inputs)
            assert_same(client.predict(signature, **inputs), want)
            if signature == "serving_default":  # it is `reconstruct`
                continue
            bad, message = next(
                (bad, message)
                for bad, message in models.bad_requests(inputs, fields[signature]["inputs"])
                if "must" in message
            )
            with pytest.raises(example.InvalidArgumentError, match=message):
                client.predict(signature, **bad)


def test_v1_by_row(url: str, paths: dict[str, Path]) -> None:
    name = "image_prior"
    inputs = models.requests(name, paths[name])["reconstruct"]
    body = {
        "signature_name": "reconstruct",
        "instances": [{"images": x} for x in inputs["images"].tolist()],
    }
    answer = requests.post(f"{url}/v1/models/{name}:predict", json=body, timeout=60).json()
    want = expected(paths[name], "reconstruct", inputs)
    got = {
        key: np.array([row[key] for row in answer["predictions"]], x.dtype)
        for key, x in want.items()
    }
    assert_same(got, want)


@pytest.mark.parametrize("name", NAMES)
def test_v2(url: str, paths: dict[str, Path], name: str) -> None:
    types = {kserve: numpy for numpy, kserve in V2_TYPES.items()}
    for signature, inputs in models.requests(name, paths[name]).items():
        body = {
            "parameters": {"signature_name": signature},
            "inputs": [
                {
                    "name": key,
                    "shape": list(x.shape),
                    "datatype": V2_TYPES[x.dtype.name],
                    "data": x.ravel().tolist(),
                }
                for key, x in inputs.items()
            ],
        }
        answer = requests.post(f"{url}/v2/models/{name}/infer", json=body, timeout=60)
        assert answer.ok, answer.text
        got = {
            x["name"]: np.array(x["data"], types[x["datatype"]]).reshape(x["shape"])
            for x in answer.json()["outputs"]
        }
        assert_same(got, expected(paths[name], signature, inputs))
