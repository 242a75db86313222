"""The clients of `examples/serving`, against the test double or against any server.

Any: with KERAS_VQVAE_SERVING_GRPC (HOST:PORT), KERAS_VQVAE_SERVING_REST (a URL) and
KERAS_VQVAE_SERVING_MODELS (the folder that it serves, NAME/1 for names of `models.MODELS`), as
`examples/serving/run_tensorflow_serving.sh` sets them for the official container.
"""

import os
import socket
import subprocess
import sys
import threading
import time
import wave
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest

pytestmark = [pytest.mark.programs, pytest.mark.tensorflow]

if keras.backend.backend() != "tensorflow":  # the JAX run deselects this file by the mark
    pytest.skip("SavedModels are TensorFlow's", allow_module_level=True)

import grpc  # noqa: E402
import requests  # noqa: E402
import tensorflow as tf  # noqa: E402
from tensorflow_serving.apis import get_model_status_pb2, model_service_pb2_grpc  # noqa: E402
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog  # noqa: E402

from tests.inside import inside, replace  # noqa: E402
from tests.serving import models  # noqa: E402
from tests.serving.double import Double, grpc_server  # noqa: E402

sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "serving"))
import client as example  # noqa: E402

ADDRESS = os.environ.get("KERAS_VQVAE_SERVING_GRPC"), os.environ.get("KERAS_VQVAE_SERVING_REST")
EXPORTED = os.environ.get("KERAS_VQVAE_SERVING_MODELS")
QUICK = ("image_classes", "sound_source", "video_discrete")
NAMES = [
    name if name in QUICK or EXPORTED else pytest.param(name, marks=pytest.mark.long)
    for name in models.MODELS
]


class Served(NamedTuple):
    name: str
    path: Path
    grpc_address: str
    rest_url: str

    def client(self, protocol: str, **options: Any) -> example.Client:
        if protocol == "grpc":
            return example.GrpcClient(self.grpc_address, self.name, **options)
        return example.RestClient(self.rest_url, self.name, **options)


@pytest.fixture(scope="module", params=NAMES)
def served(request, export_once: Callable[[str], Path]) -> Iterator[Served]:
    name = request.param
    if EXPORTED and not Path(EXPORTED, name).exists():
        pytest.skip(f"{name} is not among the exported")
    path = Path(EXPORTED, name, "1") if EXPORTED else export_once(name)
    if all(ADDRESS):
        yield Served(name, path, *ADDRESS)
        return
    with Double(path.parents[1], only=[name]) as double:
        yield Served(name, path, double.grpc_address, double.rest_url)


@pytest.fixture(scope="module", params=["grpc", "rest"])
def client(request, served: Served) -> Iterator[example.Client]:
    with served.client(request.param) as client:
        client.wait_until_ready(60)
        yield client


@pytest.fixture(scope="module")
def reference(served: Served) -> Any:
    return tf.saved_model.load(str(served.path))


@pytest.fixture(scope="module")
def good(served: Served) -> dict[str, dict[str, np.ndarray]]:
    return models.requests(served.name, served.path)


def answer(reference: Any, signature: str, inputs: dict) -> dict[str, np.ndarray]:
    tensors = {name: tf.constant(x) for name, x in inputs.items()}
    return {name: x.numpy() for name, x in reference.signatures[signature](**tensors).items()}


def assert_same(got: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    """Codes exactly, sound and numbers to 1e-5, pictures to one level."""
    assert got.keys() == expected.keys()
    for name, want in expected.items():
        assert got[name].dtype == want.dtype and got[name].shape == want.shape, name
        if want.dtype == np.uint8:
            assert np.abs(got[name].astype(int) - want).max(initial=0) <= 1, name
        elif want.dtype.kind == "f":
            np.testing.assert_allclose(got[name], want, atol=1e-5, rtol=1e-5, err_msg=name)
        else:
            np.testing.assert_array_equal(got[name], want, name)


def json_can_say(inputs: dict[str, np.ndarray]) -> bool:
    return not any(0 in x.shape[:-1] for x in inputs.values())


def test_answers_are_pythons(client, reference: Any, good: dict) -> None:
    assert client.signatures.keys() == good.keys()
    for signature, inputs in good.items():
        if isinstance(client, example.RestClient) and not json_can_say(inputs):
            with pytest.raises(example.InvalidArgumentError, match="JSON cannot say"):
                client.predict(signature, **inputs)
            continue
        assert_same(client.predict(signature, **inputs), answer(reference, signature, inputs))


def not_a_number(x: np.ndarray) -> np.ndarray:
    return np.full_like(x, np.nan)


SPOILED: dict[str, list[tuple[Callable, str]]] = {
    "images": [
        (lambda x: x[:, :4], "images must have shape"),
        (lambda x: x[0], "images must have shape"),
    ],
    "frames": [(lambda x: x[:, :, :4], "frames must have shape")],
    "waveform": [
        (not_a_number, "waveform must be finite"),
        (lambda x: x + 2, r"waveform must be in \[-1, 1\]"),
    ],
    "codes": [(lambda x: x + 1000, r"codes must be in \[0"), (lambda x: x - 99, "codes must be")],
    "speaker": [(lambda x: x + 99, r"speaker must be in \[0")],
    "temperature": [(np.zeros_like, "temperature must be positive")],
    "top_p": [(lambda x: x + 1, "top_p must be in")],
    "number": [(lambda x: x - 9, "number must be at least 0")],
}


def test_bad_requests_are_refused_and_the_next_is_served(client, good: dict) -> None:
    tried = 0
    for signature, inputs in good.items():
        if isinstance(client, example.RestClient) and not json_can_say(inputs):
            continue
        for name in inputs.keys() & SPOILED.keys():
            if (signature, name) == ("step", "number"):  # there it counts steps
                continue
            for spoil, message in SPOILED[name]:
                bad = {**inputs, name: spoil(inputs[name]).astype(inputs[name].dtype)}
                with pytest.raises(example.InvalidArgumentError, match=message):
                    client.predict(signature, **bad)
                tried += 1
        client.predict(signature, **inputs)
    assert tried >= 4


def test_wrong_dtypes_and_models_are_named_errors(client, served: Served, good: dict) -> None:
    name, x = next((k, v) for k, v in good["encode"].items())
    wrong: Any = x.astype("float32") + 0.5 if x.dtype == np.uint8 else x.astype("S8")
    if x.dtype == object:
        wrong = [b"not such a file"]
    with pytest.raises(example.InvalidArgumentError):
        client.predict("encode", **{name: wrong})
    with pytest.raises(example.InvalidArgumentError, match=r"no 'encore', but \['"):
        client.predict("encore", **{name: x})
    with pytest.raises(example.InvalidArgumentError, match="encode takes"):
        client.predict("encode")
    protocol = "rest" if isinstance(client, example.RestClient) else "grpc"
    with served._replace(name="nobody").client(protocol) as other:
        with pytest.raises(example.NotFoundError):
            other.predict("encode", **{name: x})
    with served.client(protocol, version=99) as other, pytest.raises(example.NotFoundError):
        other.predict("encode", **{name: x})
    with served.client(protocol, version=1) as other:
        assert_same(other.predict("encode", **{name: x}), client.predict("encode", **{name: x}))


def test_numbers_get_the_signatures_dtype(client, good: dict) -> None:
    signature = next((s for s in ("sample", "predict") if s in good), None)
    if signature is None or "seed" not in good[signature]:
        pytest.skip("draws nothing")
    scalars = {name: x.item() for name, x in good[signature].items() if x.ndim == 0}
    assert_same(
        client.predict(signature, **{**good[signature], **scalars}),
        client.predict(signature, **good[signature]),
    )
    with pytest.raises(example.InvalidArgumentError, match="seed must be int32, got float64 0.5"):
        client.predict(signature, **{**good[signature], "seed": 0.5})


def test_arrays_get_the_signatures_dtype_where_that_keeps_their_values(client, good: dict) -> None:
    [(name, x)] = good["encode"].items()
    if x.dtype == object:
        pytest.skip("takes files")
    codes = client.predict("encode", **{name: x})
    assert_same(client.predict("encode", **{name: x.astype("float64")}), codes)
    assert_same(client.predict("encode", **{name: x.tolist()}), codes)
    others = {k: v for k, v in good["decode"].items() if k != "codes"}
    wide = {k: v.astype("int64") if v.dtype == np.int32 else v for k, v in others.items()}
    assert_same(
        client.predict("decode", codes=codes["codes"].astype("int64"), **wide),
        client.predict("decode", **codes, **others),
    )
    with pytest.raises(example.InvalidArgumentError, match="codes must be int32, got int64") as got:
        client.predict("decode", codes=np.full((1000, 4), 2**40), **others)
    assert len(str(got.value)) < 200
    with pytest.raises(example.InvalidArgumentError, match="codes:"):
        client.predict("decode", codes=[[1, 2], [3]], **others)


def test_streams_of_sound_are_the_whole(client, reference: Any, good: dict) -> None:
    if "encode_stream" not in good or "waveform" not in good["encode"]:
        pytest.skip("has no streams, or takes whole files besides")
    x = good["encode"]["waveform"]
    codes = answer(reference, "encode", {"waveform": x})["codes"]
    for wrong in (x[0], x[..., None]):
        with pytest.raises(example.InvalidArgumentError, match=r"waveform must be \(batch, any\)"):
            list(example.encode_stream(client, [wrong]))
    pieces = np.split(x, [5, 30, 30], axis=1)
    got = np.concatenate(list(example.encode_stream(client, pieces)), 1)
    np.testing.assert_array_equal(got, codes)
    others = {k: v for k, v in good["decode"].items() if k != "codes"}
    whole = answer(reference, "decode", {"codes": codes, **others})["waveform"]
    pieces = np.split(codes, [1, 3, 3], axis=1)
    made = np.concatenate(list(example.decode_stream(client, pieces, **others)), 1)
    np.testing.assert_allclose(made, whole, atol=1e-5)


def test_steps_of_video_are_the_prediction(client, reference: Any, good: dict) -> None:
    if "step" not in good:
        pytest.skip("is no predictor")
    inputs = good["predict"]
    [(name, expected)] = [
        (name, x)
        for name, x in answer(reference, "predict", inputs).items()
        if name in ("frames", "frames_bytes")
    ]
    per_step = expected.shape[1]
    if "actions" in inputs:
        taken = good["step"]["actions"]
        if taken.ndim == inputs["actions"].ndim:  # steps of several frames
            per_step = taken.shape[1]
            actions = np.split(inputs["actions"], expected.shape[1] // per_step, axis=1)
        else:
            per_step, actions = 1, list(np.moveaxis(inputs["actions"], 1, 0))
    else:
        per_step, actions = 1, [None] * expected.shape[1]
    how = {k: inputs[k].item() for k in ("seed", "temperature", "top_k", "top_p")}
    made = list(example.play(client, inputs[name], actions, **how))
    made = np.concatenate(made, 1) if per_step > 1 else np.stack(made, 1)
    assert_same({name: made}, {name: expected})


def test_rows_versions_and_states_over_plain_rest(served: Served, reference, good: dict) -> None:
    """What `RestClient` does not use."""
    url = f"{served.rest_url}/v1/models/{served.name}"
    [(name, x)] = good["encode"].items()
    codes = answer(reference, "encode", good["encode"])["codes"].tolist()
    x = inside(example).to_json(x.tolist())
    for rows in (x, [{name: row} for row in x]):
        body = {"signature_name": "encode", "instances": rows}
        for place in (url, f"{url}/versions/1"):
            got = requests.post(f"{place}:predict", json=body, timeout=30)
            assert got.json() == {"predictions": codes}
    single = {"signature_name": "encode", "inputs": x}
    assert requests.post(f"{url}:predict", json=single, timeout=30).json() == {"outputs": codes}
    for body in ({"instances": []}, {"inputs": [[1, 2], [3]]}, {"inputs": {}, "instances": [1]}):
        bad = requests.post(f"{url}:predict", json=body, timeout=30)
        assert bad.status_code == 400 and bad.json()["error"]
    bad = requests.post(f"{url}:predict", data="{", timeout=30)
    assert bad.status_code == 400 and bad.json()["error"]
    [state] = requests.get(url, timeout=30).json()["model_version_status"]
    assert (state["version"], state["state"]) == ("1", "AVAILABLE")


def test_state_over_grpc(served: Served) -> None:
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = served.name
    with grpc.insecure_channel(served.grpc_address) as channel:
        stub = model_service_pb2_grpc.ModelServiceStub(channel)
        [state] = stub.GetModelStatus(request, timeout=30).model_version_status
    assert (state.version, state.state) == (1, get_model_status_pb2.ModelVersionStatus.AVAILABLE)


# What only a double does when told: here of a model that gives back what it gets.


class Echo(tf.Module):
    @tf.function(
        input_signature=[
            tf.TensorSpec((None,), tf.string, "images_bytes"),
            tf.TensorSpec((), tf.float32, "number"),
        ]
    )
    def echo(self, images_bytes, number):
        small = tf.debugging.Assert(number < 100, ["number must be small, got", number])
        with tf.control_dependencies([small]):
            return {"images_bytes": tf.identity(images_bytes), "number": number + 1}


FILES = [b"\x89PNG\r\n\x00\xff", b"zeros at the end\x00\x00"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("echo")
    module = Echo()
    tf.saved_model.save(module, folder / "echo" / "3", signatures=module.echo)
    log = PredictionLog()
    request = log.predict_log.request
    request.model_spec.name = "echo"
    request.inputs["images_bytes"].CopyFrom(tf.make_tensor_proto(FILES))
    request.inputs["number"].CopyFrom(tf.make_tensor_proto(1.5))
    extra = folder / "echo" / "3" / "assets.extra"
    extra.mkdir()
    with tf.io.TFRecordWriter(str(extra / "tf_serving_warmup_requests")) as writer:
        writer.write(log.SerializeToString())
    return folder


@pytest.fixture(scope="module")
def double(folder: Path) -> Iterator[Double]:
    with Double(folder) as double:
        yield double


@pytest.fixture(params=["grpc", "rest"])
def echo(request, double: Double) -> Iterator[Callable]:
    made: list[example.Client] = []

    def make(**options: Any) -> example.Client:
        served = Served("echo", Path(), double.grpc_address, double.rest_url)
        made.append(served.client(request.param, **options))
        return made[-1]

    yield make
    double.unavailable, double.delay = 0, 0.0
    for client in made:
        client.close()


def test_bytes_go_both_ways(echo: Callable) -> None:
    got = echo().predict(images_bytes=FILES, number=2)
    assert got["images_bytes"].tolist() == FILES and got["number"] == np.float32(3)


def test_unavailable_is_tried_again_and_nothing_else_is(echo: Callable, double: Double) -> None:
    client = echo(retries=2, backoff=0.01)
    client.signatures  # noqa: B018  # asked before
    double.unavailable = 2
    assert client.predict(images_bytes=FILES, number=0)["number"] == 1
    assert double.unavailable == 0
    double.unavailable = 5
    with pytest.raises(example.UnavailableError, match="told to be unavailable"):
        client.predict(images_bytes=FILES, number=0)
    assert double.unavailable == 2  # one call and two retries
    double.unavailable = 0
    before = double.predictions
    with pytest.raises(example.InvalidArgumentError, match="number must be small, got"):
        client.predict(images_bytes=FILES, number=1000)
    assert double.predictions == before + 1


def test_retries_end_at_the_deadline(echo: Callable, double: Double) -> None:
    client = echo(retries=1000, backoff=0.05, timeout=0.4)
    client.signatures  # noqa: B018
    double.unavailable = 10**6
    start = time.monotonic()
    with pytest.raises(example.UnavailableError):
        client.predict(images_bytes=FILES, number=0)
    assert time.monotonic() - start < 5


def test_a_try_cut_short_says_what_was_heard_before() -> None:
    """The last try has what is left of the deadline, perhaps too little for any answer."""

    class Failing(example.Client):
        def _request(self, *_):
            return None

        def _predict(self, *_):
            raise errors.pop(0)

    known = {"serving_default": example.Signature({}, {})}
    client = Failing("m", backoff=0.001, signatures=known)
    errors = [example.UnavailableError("not yet"), example.DeadlineExceededError("in 1 ms")]
    with pytest.raises(example.UnavailableError, match="not yet"):
        client.predict()
    errors = [example.DeadlineExceededError("in 1 ms")]
    with pytest.raises(example.DeadlineExceededError):
        client.predict()


def test_deadlines(echo: Callable, double: Double) -> None:
    client = echo()
    assert client.predict(images_bytes=FILES, number=0)["number"] == 1
    double.delay = 1.0
    with pytest.raises(example.DeadlineExceededError):
        client.predict(images_bytes=FILES, number=0, timeout=0.1)
    double.delay = 0.0
    assert client.predict(images_bytes=FILES, number=0)["number"] == 1


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("certificate")
    subprocess.run(
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=double "
        "-addext subjectAltName=IP:127.0.0.1 -keyout key.pem -out certificate.pem".split(),
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
    return folder / "certificate.pem", folder / "key.pem"


@pytest.mark.parametrize("protocol", ["grpc", "rest"])
def test_tls_and_headers(protocol: str, folder: Path, certificate: tuple[Path, Path]) -> None:
    def client(authority: Path | None, **options: Any) -> example.Client:
        options = {**options, "retries": 0, "timeout": 20}
        if protocol == "grpc":
            credentials = grpc.ssl_channel_credentials(authority and authority.read_bytes())
            return example.GrpcClient(double.grpc_address, "echo", credentials, **options)
        trusted = str(authority) if authority else True
        return example.RestClient(double.rest_url, "echo", trusted, **options)

    with Double(folder, certificate=certificate, token="Bearer secret") as double:
        with client(certificate[0], headers={"Authorization": "Bearer secret"}) as known:
            assert known.predict(images_bytes=FILES, number=1)["number"] == 2
        with client(certificate[0], headers={"Authorization": "Bearer guess"}) as stranger:
            with pytest.raises(example.ServingError, match="another token"):
                stranger.predict(images_bytes=FILES, number=1)
        with client(None) as untrusting, pytest.raises(example.UnavailableError):
            untrusting.predict(images_bytes=FILES, number=1)


def test_a_netrc_does_not_replace_headers(folder: Path, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password other\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with Double(folder, token="Bearer mine") as double:
        headers = {"authorization": "Bearer mine"}
        with example.RestClient(double.rest_url, "echo", retries=0, headers=headers) as client:
            assert client.predict(images_bytes=FILES, number=1)["number"] == 2


def test_out_of_memory_is_not_asked_for_again() -> None:
    for code in ("RESOURCE_EXHAUSTED", 429):
        error = inside(example).error(code, "OOM when allocating")
        assert type(error) is example.ResourceExhaustedError and error.code == code


def test_signatures_of_odd_tensors() -> None:
    def told(dtype: str) -> dict:
        side = {"dtype": dtype, "tensor_shape": {"dim": [{"size": "-1"}, {}]}}  # 0 is left out
        return {"f": {"inputs": {"x": side}, "outputs": {"y": side}}}

    known = example.parse_signatures(told("DT_FLOAT"))["f"]
    assert known.inputs["x"] == example.Tensor(np.dtype("float32"), (-1, 0))
    with pytest.raises(example.ServingError, match="x is of DT_VARIANT, no dtype of numpy"):
        example.parse_signatures(told("DT_VARIANT"))


def test_a_client_that_was_closed(double: Double) -> None:
    client = example.GrpcClient(double.grpc_address, "echo")
    client.close()
    with pytest.raises(example.ServingError, match="closed"):
        client.predict(images_bytes=FILES, number=0)


@pytest.mark.parametrize("protocol", ["grpc", "rest"])
def test_no_server(protocol: str) -> None:
    with socket.socket() as taken:  # a port on which nobody listens
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        served = Served("echo", Path(), address, f"http://{address}")
        with served.client(protocol, retries=1, backoff=0.01) as client:
            with pytest.raises(example.UnavailableError):
                client.predict(images_bytes=FILES, number=0)
            with pytest.raises(example.UnavailableError):
                client.wait_until_ready(0.1)


def test_the_deadline_is_of_the_first_call_too() -> None:
    """It asks for the signatures first, and has no more time for that."""
    waits: list[float] = []

    class Slow(example.Client):
        def _metadata(self, timeout: float) -> tuple:
            waits.append(timeout)
            raise example.UnavailableError("not yet")

    client = Slow("m", timeout=1000.0, backoff=0.001, retries=2)
    with pytest.raises(example.UnavailableError):
        client.predict(timeout=0.5)
    assert len(waits) == 3 and max(waits) <= 0.5
    waits.clear()
    with pytest.raises(example.UnavailableError):
        client.predict(timeout=0)  # not the client's
    assert max(waits) <= 0.001


@pytest.mark.parametrize(
    "answer, error, message",
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>", "ServingError", "<html>"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "ServingError", "no signatures"),
        (b"HTTP/1.1 502 Bad\r\nContent-Length: 4\r\n\r\nlost", "UnavailableError", "lost"),
        (b"HTTP/1.1 500 Bad\r\nContent-Length: 0\r\n\r\n", "ServingError", "answers 500"),
        (b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n", "ServingError", "/m"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", "UnavailableError", ""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", "DeadlineExceededError", "no whole"),
    ],
)
def test_whatever_a_server_answers_is_a_named_error(
    answer: bytes, error: str, message: str
) -> None:
    timeout = 0.2 if error == "DeadlineExceededError" else 30.0
    given_up = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)
                if timeout < 1:  # it stops halfway, and does not hang up
                    given_up.wait(30)

        thread = threading.Thread(target=serve)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        with example.RestClient(url, "m", retries=0, timeout=timeout) as client:
            with pytest.raises(example.ServingError, match=message) as got:
                client.predict("encode")
        given_up.set()
        thread.join()
    assert type(got.value).__name__ == error
    number = int(answer.split()[1])
    assert got.value.code in ((number,) if number > 400 else (None, number))


def test_the_deadline_is_of_answers_in_drops() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        given_up = threading.Event()

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n{")
                while not given_up.wait(0.1):
                    connection.sendall(b" ")

        thread = threading.Thread(target=serve)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        with example.RestClient(url, "m", retries=0, timeout=0.5) as client:
            with pytest.raises(example.DeadlineExceededError):
                client.predict("encode")  # all drops would take 99 seconds
        given_up.set()
        thread.join()


def test_a_server_that_comes_back_is_found_at_once(double: Double) -> None:
    """gRPC by itself would look for it after 1, 1.6, 2.6, ... and at last every 120 seconds."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
    with example.GrpcClient(address, "echo", retries=10**6, backoff=0.01) as client:
        with pytest.raises(example.UnavailableError):
            client.predict(timeout=11, images_bytes=FILES, number=1)
        server = grpc_server(double, 2)
        server.add_insecure_port(address)
        server.start()
        try:
            assert client.predict(timeout=3, images_bytes=FILES, number=1)["number"] == 2
        finally:
            server.stop(None).wait()


def test_streams_and_play_stay_with_one_version() -> None:
    """A state is a version's own: one that was loaded meanwhile would go on with nonsense."""
    asked: list[int | None] = []

    class Reloaded(example.Client):
        newest = 3

        def _metadata(self, timeout: float) -> tuple[dict, int]:
            grid = {"dtype": "DT_INT32", "tensor_shape": {"dim": [{"size": "-1"}] * 2}}
            drawing = ("seed", "temperature", "top_k", "top_p")
            how = {name: {"dtype": "DT_FLOAT"} for name in drawing}
            return {
                "decode_stream": {"inputs": {"codes": grid}, "outputs": {"waveform": grid}},
                "start": {"inputs": {"frames": grid}, "outputs": {"codes": grid}},
                "step": {
                    "inputs": {"codes": grid, **how},
                    "outputs": {"frames": grid, "codes": grid},
                },
            }, self.newest

        def _request(self, signature: str, inputs: dict, version: int | None) -> str:
            asked.append(version)
            return signature

        def _predict(self, request: str, timeout: float) -> dict:
            self.newest += 1
            return {name: np.zeros((1, 1)) for name in self.signature(request).outputs}

    client = Reloaded("m")
    assert len(list(example.decode_stream(client, [[[1]], [[2]], [[3]]]))) == 3
    assert asked == [3, 3, 3] and client.served_version() == 6
    known = example.parse_signatures(inside(client).metadata(1)[0])
    asked.clear()
    assert len(list(example.play(client, np.zeros((1, 1), "int32"), [None, None]))) == 2
    assert asked == [6, 6, 6]
    assert Reloaded("m", signatures=known).served_version() is None  # of one that cannot tell


def test_an_answer_without_outputs_is_a_named_error(monkeypatch) -> None:
    known = {"encode": example.Signature({}, {"codes": example.Tensor(np.dtype("int32"), (-1,))})}
    client = example.RestClient("http://127.0.0.1:1", "m", signatures=known)
    for said in ({}, {"outputs": [[1], [2, 3]]}, {"outputs": "none"}, {"outputs": [2**70]}):
        replace(monkeypatch, client, "call", lambda *_, said=said, **__: said)
        with pytest.raises(example.ServingError, match="encode answers something else"):
            client.predict("encode")
    with pytest.raises(ValueError, match='url must be such as "http'):
        example.RestClient("127.0.0.1:8501", "m")


def test_what_a_model_cannot_do_is_a_named_error(echo: Callable) -> None:
    client = echo()
    streams = (example.encode_stream, example.decode_stream)
    for ask in (
        lambda: next(example.play(client, np.zeros((1, 2)), [0])),
        *(lambda stream=stream: next(stream(client, [np.zeros((1, 2))])) for stream in streams),
    ):
        with pytest.raises(example.InvalidArgumentError, match=r"echo has no '.*', but \['serving"):
            ask()
    for files in ([[b"a"], [b"b", b"c"]], [1.0], [None]):
        with pytest.raises(example.InvalidArgumentError, match="images_bytes must be files, bytes"):
            client.predict(images_bytes=files, number=1)


def test_many_clients_at_once(double: Double) -> None:
    wrong = []

    def ask(number: int) -> None:
        with example.RestClient(double.rest_url, "echo") as client:
            for i in range(5):
                got = client.predict(images_bytes=[b"%d" % number], number=i)
                if got["images_bytes"] != [b"%d" % number] or got["number"] != i + 1:
                    wrong.append(got)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_requests_for_warming_up_are_replayed(double: Double) -> None:
    assert double.warmed_up == {"echo": ["serving_default"]}


def test_the_newest_version_is_served(folder: Path, double: Double) -> None:
    with example.RestClient(double.rest_url, "echo", version=3) as client:
        assert client.signatures["serving_default"].inputs["number"] == (np.dtype("float32"), ())
    with example.RestClient(double.rest_url, "echo", version=2) as client:
        with pytest.raises(example.NotFoundError, match="no version 2"):
            client.signatures  # noqa: B018


def test_script(double: Double, folder: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    """On the requests for warming up, and on a file, over both protocols."""
    picture = tf.io.encode_png(np.zeros((2, 3, 3), "uint8")).numpy()
    (tmp_path / "picture.png").write_bytes(picture)
    warmup = folder / "echo" / "3" / "assets.extra" / "tf_serving_warmup_requests"
    arguments = {"--grpc": double.grpc_address, "--rest": double.rest_url, "--set": "number=4"}
    arguments |= {"--warmup": warmup, "--out": tmp_path / "answers"}
    flat = [str(x) for pair in arguments.items() for x in pair]
    line = ["client.py", "echo", *flat[:4], str(tmp_path / "picture.png"), *flat[4:]]
    monkeypatch.setattr(sys, "argv", line)
    example.main()
    assert len(capsys.readouterr().out.splitlines()) == 4
    for protocol in ("grpc", "rest"):
        for source, files, number in (("warmup", FILES, 2.5), ("picture", [picture], 5)):
            path = tmp_path / "answers" / f"{protocol}_{source}_serving_default.npz"
            stored = np.load(path, allow_pickle=True)
            assert stored["images_bytes"].tolist() == files and stored["number"] == number
    written = {x.name: x.read_bytes() for x in (tmp_path / "answers").glob("*.png")}
    assert written["rest_picture_serving_default.png"] == picture
    assert written["grpc_warmup_serving_default.png"] == FILES[0]


@pytest.mark.parametrize("mode, channels", [("L", 1), ("RGB", 3), ("RGBA", 4)])
@pytest.mark.parametrize("size", [None, (4, 5)])
def test_script_sends_pictures_of_the_form_asked_for(
    tmp_path: Path, size, mode: str, channels: int
) -> None:
    (tmp_path / "picture.png").write_bytes(example.png(np.zeros((2, 3, 3), "uint8")))
    given = example.read(tmp_path / "picture.png", size, mode)
    sides = size or (2, 3)
    assert given["images"].shape == (1, *sides, channels)
    file = tf.io.decode_png(given["images_bytes"][0])
    assert file.shape == (*sides, channels if size else 3)  # the server makes a file's channels fit


def test_script_goes_on_after_a_refusal(double: Double, tmp_path, monkeypatch, capsys) -> None:
    for name in "ab":
        (tmp_path / f"{name}.png").write_bytes(example.png(np.zeros((2, 3, 3), "uint8")))
    files = [str(tmp_path / f"{name}.png") for name in "ab"]
    line = ["client.py", "echo", *files, "--rest", double.rest_url, "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", [*line, "--set", "number=1000"])
    with pytest.raises(SystemExit, match="2 requests failed"):
        example.main()
    said = capsys.readouterr().out
    assert (
        said.count("InvalidArgumentError: assertion failed: [number must be small, got] [1000") == 2
    )
    monkeypatch.setattr(sys, "argv", [*line, "--set", "number=x"])
    with pytest.raises(SystemExit):
        example.main()
    assert "must be NAME=JSON, got 'number=x'" in capsys.readouterr().err


def test_script_without_a_server_or_with_a_wrong_name(
    double: Double, tmp_path: Path, monkeypatch, capsys
) -> None:
    (tmp_path / "a.png").write_bytes(example.png(np.zeros((2, 3, 3), "uint8")))
    for model, url, error in (
        ("echo", "http://127.0.0.1:9", "UnavailableError"),
        ("nobody", double.rest_url, "NotFoundError"),
    ):
        line = ["client.py", model, str(tmp_path / "a.png"), "--rest", url]
        monkeypatch.setattr(sys, "argv", [*line, "--out", str(tmp_path / "out")])
        with pytest.raises(SystemExit, match="1 requests failed"):
            example.main()
        assert f"rest: {error}: " in capsys.readouterr().out


def test_script_leaves_out_what_json_cannot_say(
    export_once: Callable, tmp_path: Path, monkeypatch, capsys
) -> None:
    path = export_once("sound_wavenet")
    warmup = path / "assets.extra" / "tf_serving_warmup_requests"
    with Double(path.parents[1], only=["sound_wavenet"]) as double:
        line = ["client.py", "sound_wavenet", "--rest", double.rest_url, "--warmup", str(warmup)]
        monkeypatch.setattr(sys, "argv", [*line, "--out", str(tmp_path)])
        example.main()
    said = capsys.readouterr().out.splitlines()
    left_out = [line for line in said if "left out, JSON has no empty arrays" in line]
    assert len(left_out) == 1 and "decode_stream" in left_out[0] and len(said) > 3


def test_one_pixel_sides_are_pictures() -> None:
    for shape in ((1, 5, 3), (5, 1, 3), (1, 1, 1), (4, 5, 1), (4, 5, 4)):
        assert tf.io.decode_png(example.png(np.zeros(shape, "uint8"))).shape == shape


def test_inputs_may_be_set_one_by_one(double: Double, tmp_path, monkeypatch, capsys) -> None:
    (tmp_path / "a.png").write_bytes(example.png(np.zeros((2, 3, 3), "uint8")))
    line = ["client.py", "echo", "--set", "more=1", "--set", "number=4", str(tmp_path / "a.png")]
    monkeypatch.setattr(
        sys, "argv", [*line, "--rest", double.rest_url, "--out", str(tmp_path / "out")]
    )
    example.main()
    assert (
        np.load(tmp_path / "out" / "rest_a_serving_default.npz", allow_pickle=True)["number"] == 5
    )


def test_files_of_answers(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 5, 3), "uint8")
    waveform = np.linspace(-1, 1, 8, dtype="float32")[None]
    answer = {"frames": frames, "waveform": waveform, "codes": np.zeros((2, 3), "int32")}
    example.store(tmp_path, "of", answer, 8000)
    names = ["of.npz", "of.wav", "of_0.png", "of_1.png", "of_2.png"]
    assert sorted(x.name for x in tmp_path.iterdir()) == names
    np.testing.assert_array_equal(
        tf.io.decode_png((tmp_path / "of_1.png").read_bytes()), frames[0, 1]
    )
    samples, rate = example.read_wav(tmp_path / "of.wav")
    np.testing.assert_allclose(samples, waveform[0], atol=1 / 32768)
    assert rate == 8000


def test_script_says_what_is_missing(double: Double, tmp_path: Path, monkeypatch, capsys) -> None:
    with wave.open(str(tmp_path / "sound.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(20))
    arguments = ["client.py", "echo", str(tmp_path / "sound.wav"), "--rest", double.rest_url]
    monkeypatch.setattr(sys, "argv", [*arguments, "--out", str(tmp_path / "answers")])
    example.main()
    assert "serving_default: left out, it needs images_bytes" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", [*arguments, "--sample-rate", "16000"])
    with pytest.raises(SystemExit):
        example.main()
    assert "sound.wav is of 8000 Hz, not 16000" in capsys.readouterr().err
