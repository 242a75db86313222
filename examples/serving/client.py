"""Clients of a model server, TensorFlow Serving or one that speaks as it does: numpy in, numpy out.

    from client import GrpcClient, RestClient

    client = GrpcClient("127.0.0.1:8500", "doom")     # RestClient("http://127.0.0.1:8501", "doom")
    codes = client.predict("encode", images=images)["codes"]
    pictures = client.predict("decode", codes=codes)["images"]

Copy this file. `RestClient` needs numpy and requests only. `GrpcClient` needs
tensorflow-serving-api, of the version of your TensorFlow, which it brings otherwise; its messages
are several times smaller, and it can say empty batches. The script needs Pillow for pictures.

As a script it runs every signature, on the requests that an export left for warming up, or those
that your pictures and WAV files are enough for, and writes the answers:

    python client.py doom --grpc 127.0.0.1:8500 --rest http://127.0.0.1:8501 \\
        --warmup served/doom/1/assets.extra/tf_serving_warmup_requests --out answers/
    python client.py doom --grpc 127.0.0.1:8500 picture.png --set temperature=0.9 --out answers/
"""

import argparse
import base64
import io
import itertools
import json
import queue
import random
import threading
import time
import wave
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np


class ServingError(Exception):
    """What a server answered instead of a result.

    Attributes:
        code: gRPC's name of the error, such as "INTERNAL", or HTTP's number; None if it had none.
    """

    code: str | int | None = None


class InvalidArgumentError(ServingError, ValueError):
    """The request is wrong; the message is the server's. Sent again it fails again."""


class NotFoundError(ServingError):
    """The server has no such model or version."""


class UnavailableError(ServingError):
    """No server there, or one that is not ready; all retries were of no use."""


class ResourceExhaustedError(ServingError):
    """The server has no memory for it, or a limit of requests is reached: not retried."""


class DeadlineExceededError(ServingError, TimeoutError):
    """No answer in time."""


class Tensor(NamedTuple):
    """An input or output of a signature; -1 is a side of any size, object a dtype of bytes."""

    dtype: np.dtype
    shape: tuple[int, ...]


class Signature(NamedTuple):
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]


class Client:
    """What the clients of both protocols share.

    Args:
        model: its name on the server.
        version: the newest, if None.
        timeout: the deadline of a call, in seconds; retries included, and asking what the model
            can be asked, which the first call does.
        retries: how often a call is made again while the server is unavailable. No other error is
            worth a retry. Calls have no effects, so that one made twice does no harm.
        backoff: pause before the first retry, in seconds; each next one is twice as long.
        signatures: what the model can be asked, for servers that cannot tell.
        headers: sent with every call, such as `{"authorization": "Bearer ..."}`.
    """

    def __init__(
        self,
        model: str,
        version: int | None = None,
        timeout: float = 30.0,
        retries: int = 5,
        backoff: float = 0.1,
        signatures: dict[str, Signature] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        self.model, self.version = model, version
        self.timeout, self.retries, self.backoff = timeout, retries, backoff
        self._signatures, self._told = signatures, signatures is not None
        self._headers = headers or {}

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection."""
        raise NotImplementedError

    @property
    def signatures(self) -> dict[str, Signature]:
        """What the model can be asked, by name; asked of the server once."""
        return self._known(time.monotonic() + self.timeout)

    def _known(self, end: float) -> dict[str, Signature]:
        if self._signatures is None:
            self._signatures = parse_signatures(self._retried(self._metadata, end)[0])
        return self._signatures

    def served_version(self) -> int | None:
        """The version that answers now; None of a server that cannot tell."""
        if self.version is not None or self._told:
            return self.version
        return self._retried(self._metadata, time.monotonic() + self.timeout)[1]

    def signature(self, name: str) -> Signature:
        """What a signature takes and gives; `InvalidArgumentError` where there is none."""
        return self._signature(name, time.monotonic() + self.timeout)

    def _signature(self, name: str, end: float) -> Signature:
        known = self._known(end)
        if name not in known:
            raise InvalidArgumentError(f"{self.model} has no {name!r}, but {sorted(known)}")
        return known[name]

    def predict(
        self,
        signature: str = "serving_default",
        timeout: float | None = None,
        version: int | None = None,
        **inputs: Any,
    ) -> dict[str, np.ndarray]:
        """The outputs of a signature, by name.

        Args:
            inputs: arrays, numbers or lists; they get the signature's dtype where that keeps their
                values. Bytes (files of pictures or sound) as a list of `bytes`.
            timeout: in place of the client's.
            version: in place of the client's.

        Raises:
            InvalidArgumentError, NotFoundError, UnavailableError, DeadlineExceededError: by name;
            ServingError: what else a server answers.
        """
        end = time.monotonic() + (self.timeout if timeout is None else timeout)
        known = self._signature(signature, end).inputs
        if inputs.keys() != known.keys():
            raise InvalidArgumentError(f"{signature} takes {sorted(known)}, got {sorted(inputs)}")
        arrays = {name: _array(name, value, known[name]) for name, value in inputs.items()}
        request = self._request(signature, arrays, self.version if version is None else version)
        return self._retried(lambda left: self._predict(request, left), end)

    def wait_until_ready(self, seconds: float = 60.0) -> None:
        """Returns once the model is served; raises what it last heard if it is not in time."""
        end = time.monotonic() + seconds
        while True:
            try:
                self._metadata(min(self.timeout, 5.0))
                return
            except (UnavailableError, NotFoundError, DeadlineExceededError):
                if time.monotonic() > end:
                    raise
                time.sleep(self.backoff)

    def _retried(self, call: Callable[[float], Any], end: float) -> Any:
        heard = None
        for attempt in itertools.count():
            try:
                return call(max(end - time.monotonic(), 0.001))
            except UnavailableError as error:
                heard = error
                # At random, so that clients that failed together do not come back together.
                pause = self.backoff * 2**attempt * random.uniform(0.5, 1.5)
                if attempt >= self.retries or time.monotonic() + pause > end:
                    raise
                time.sleep(pause)
            except DeadlineExceededError:
                if heard is not None:  # the last try had hardly any time: this says more
                    raise heard from None
                raise

    def _metadata(self, timeout: float) -> tuple[dict, int | None]:
        """The model's signature_def, as JSON says it, and its version."""
        raise NotImplementedError

    def _request(self, signature: str, inputs: dict[str, np.ndarray], version: int | None) -> Any:
        raise NotImplementedError

    def _predict(self, request: Any, timeout: float) -> dict[str, np.ndarray]:
        raise NotImplementedError


class GrpcClient(Client):
    """Over gRPC.

    Args:
        address: "host:port".
        credentials: of TLS, such as `grpc.ssl_channel_credentials()`; None for no TLS.
    """

    def __init__(
        self, address: str, model: str, credentials: Any | None = None, **shared: Any
    ) -> None:
        super().__init__(model, **shared)
        try:
            import grpc
            import tensorflow as tf
            from tensorflow_serving.apis import get_model_metadata_pb2, predict_pb2
            from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub
        except ImportError as error:
            raise ImportError(
                "GrpcClient needs TensorFlow and tensorflow-serving-api of the same version, such "
                "as tensorflow-serving-api==2.17.*. RestClient needs neither"
            ) from error
        self._grpc, self._tf = grpc, tf
        self._messages = predict_pb2, get_model_metadata_pb2
        options = [(f"grpc.max_{way}_message_length", -1) for way in ("send", "receive")]
        # Or gRPC looks for a server that is away only every two minutes, whatever is asked.
        waits = {"initial": 100, "min": 100, "max": 1000}
        options += [(f"grpc.{which}_reconnect_backoff_ms", ms) for which, ms in waits.items()]
        if credentials is None:
            self._channel = grpc.insecure_channel(address, options=options)
        else:
            self._channel = grpc.secure_channel(address, credentials, options=options)
        self._sent = [(name.lower(), value) for name, value in self._headers.items()]
        self._stub = PredictionServiceStub(self._channel)

    def close(self) -> None:
        self._channel.close()

    def _call(self, method: Callable, request: Any, timeout: float) -> Any:
        try:
            return method(request, timeout=timeout, metadata=self._sent)
        except self._grpc.RpcError as error:
            raise _error(error.code().name, error.details()) from error
        except ValueError as error:  # of a client that was closed
            raise ServingError(str(error)) from error

    def _fill(self, spec: Any, version: int | None) -> None:
        spec.name = self.model
        if version is not None:
            spec.version.value = version

    def _metadata(self, timeout: float) -> tuple[dict, int | None]:
        from google.protobuf.json_format import MessageToDict

        metadata_pb2 = self._messages[1]
        request = metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
        self._fill(request.model_spec, self.version)
        answer = self._call(self._stub.GetModelMetadata, request, timeout)
        found = metadata_pb2.SignatureDefMap()
        if not answer.metadata["signature_def"].Unpack(found) or not found.signature_def:
            raise ServingError(f"the server tells no signatures of {self.model}")
        signatures = MessageToDict(found, preserving_proto_field_name=True)["signature_def"]
        return signatures, answer.model_spec.version.value or None

    def _request(self, signature: str, inputs: dict[str, np.ndarray], version: int | None) -> Any:
        request = self._messages[0].PredictRequest()
        self._fill(request.model_spec, version)
        request.model_spec.signature_name = signature
        for name, array in inputs.items():
            request.inputs[name].CopyFrom(self._tf.make_tensor_proto(array))
        return request

    def _predict(self, request: Any, timeout: float) -> dict[str, np.ndarray]:
        answer = self._call(self._stub.Predict, request, timeout)
        try:
            return {name: self._tf.make_ndarray(tensor) for name, tensor in answer.outputs.items()}
        except (TypeError, ValueError) as error:
            raise ServingError(f"the server answers no tensors: {error}") from error


class RestClient(Client):
    """Over REST, in the column form, which also takes inputs that have no batch.

    JSON has no word for the sides of an array without entries but its last: an empty batch of
    pictures needs `GrpcClient`.

    Args:
        url: such as "http://127.0.0.1:8501", or of https.
        verify: of https, the file of the certificate authorities to trust; True for those that
            requests trusts.
    """

    def __init__(self, url: str, model: str, verify: str | bool = True, **options: Any) -> None:
        super().__init__(model, **options)
        import requests

        if not url.startswith(("http://", "https://")):
            raise ValueError(f'url must be such as "http://127.0.0.1:8501", got {url!r}')
        self._requests = requests
        self._session, self._verify = requests.Session(), verify
        self._session.headers.update(self._headers)
        if any(name.lower() == "authorization" for name in self._headers):
            # Or requests would send what .netrc has for the host in its place.
            self._session.auth = lambda request: request
        self._url = f"{url.rstrip('/')}/v1/models/{quote(model, safe='')}"

    def close(self) -> None:
        self._session.close()

    def _call(
        self, method: str, path: str, version: int | None, timeout: float, **what: Any
    ) -> dict:
        place = "" if version is None else f"/versions/{version}"
        url, errors = f"{self._url}{place}{path}", self._requests.exceptions

        def ask() -> Any:
            # A redirection would make a GET of a POST, and may lead to where headers must not go.
            options = {"verify": self._verify, "allow_redirects": False}
            options["timeout"] = timeout + 1  # of each wait: `_in_time` is to be the first
            return self._session.request(method, url, **options, **what)

        try:
            answer = _in_time(ask, timeout)
        except errors.Timeout as error:
            raise DeadlineExceededError(f"no answer in {timeout:.3g} s") from error
        except (errors.ConnectionError, errors.ChunkedEncodingError) as error:
            # Half an answer among them.
            raise UnavailableError(str(error)) from error
        except errors.RequestException as error:
            raise ServingError(str(error)) from error
        try:
            said = answer.json()
        except ValueError:  # a proxy's page
            said = None
        if answer.ok and isinstance(said, dict):
            return said
        known = isinstance(said, dict) and "error" in said  # not another server's form
        message = str(said["error"]) if known else answer.text
        if answer.ok:
            message = f"{url} answers something else: {message:.200}"
        raise _error(answer.status_code, message)

    def _metadata(self, timeout: float) -> tuple[dict, int | None]:
        answer = self._call("GET", "/metadata", self.version, timeout)
        try:
            signatures = answer["metadata"]["signature_def"]["signature_def"]
            return signatures, int(answer["model_spec"]["version"])
        except (KeyError, TypeError, ValueError) as error:
            raise ServingError(f"{self._url}/metadata answers no signatures") from error

    def _request(self, signature: str, inputs: dict[str, np.ndarray], version: int | None) -> Any:
        for name, array in inputs.items():
            if not in_json(array):
                raise InvalidArgumentError(
                    f"{name}: JSON cannot say the shape {array.shape}; use gRPC"
                )
        columns = {name: _to_json(array.tolist()) for name, array in inputs.items()}
        body = {"signature_name": signature, "inputs": columns}
        return signature, version, json.dumps(body, separators=(",", ":"))

    def _predict(self, request: Any, timeout: float) -> dict[str, np.ndarray]:
        signature, version, body = request
        headers = {"Content-Type": "application/json"}
        answer = self._call("POST", ":predict", version, timeout, data=body, headers=headers)
        known = self.signature(signature).outputs
        try:
            made = answer["outputs"]
            if len(known) == 1:  # then the server leaves out its name
                made = {next(iter(known)): made}
            return {name: _from_json(value, known[name]) for name, value in made.items()}
        except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
            raise ServingError(f"{signature} answers something else: {answer!r:.200}") from error


_ERRORS: dict[str | int, type[ServingError]] = {
    "INVALID_ARGUMENT": InvalidArgumentError,
    "NOT_FOUND": NotFoundError,
    "UNAVAILABLE": UnavailableError,
    "RESOURCE_EXHAUSTED": ResourceExhaustedError,
    "DEADLINE_EXCEEDED": DeadlineExceededError,
    400: InvalidArgumentError,
    404: NotFoundError,
    429: ResourceExhaustedError,
    502: UnavailableError,
    503: UnavailableError,
    504: DeadlineExceededError,
}


def _error(code: str | int, message: str) -> ServingError:
    error = _ERRORS.get(code, ServingError)(message or f"the server answers {code}")
    error.code = code
    return error


def _in_time(call: Callable[[], Any], seconds: float) -> Any:
    """What `call` returns or raises; `DeadlineExceededError` where that takes longer.

    requests' own timeout is of each wait for data: one that comes in drops is never too late.
    """
    done: queue.SimpleQueue = queue.SimpleQueue()

    def run() -> None:
        try:
            done.put((call(), None))
        except Exception as error:
            done.put((None, error))

    threading.Thread(target=run, daemon=True).start()
    try:
        result, error = done.get(timeout=seconds)
    except queue.Empty:
        raise DeadlineExceededError(f"no whole answer in {seconds:.3g} s") from None
    if error is not None:
        raise error
    return result


def parse_signatures(signature_def: dict) -> dict[str, Signature]:
    """Signatures of a SavedModel's `signature_def`, as JSON says it."""
    names = {"DT_FLOAT": "float32", "DT_DOUBLE": "float64", "DT_STRING": "object"}

    def tensors(infos: dict) -> dict[str, Tensor]:
        found = {}
        for name, info in infos.items():
            dtype = names.get(info["dtype"], info["dtype"].removeprefix("DT_").lower())
            sides = info.get("tensor_shape", {}).get("dim", [])
            # JSON leaves out what is 0.
            sizes = tuple(int(side.get("size", 0)) for side in sides)
            try:
                found[name] = Tensor(np.dtype(dtype), sizes)
            except TypeError as error:
                raise ServingError(f"{name} is of {info['dtype']}, no dtype of numpy") from error
        return found

    return {
        name: Signature(tensors(given.get("inputs", {})), tensors(given["outputs"]))
        for name, given in signature_def.items()
        if not name.startswith("__")
    }


def _array(name: str, value: Any, known: Tensor) -> np.ndarray:
    if known.dtype == object:  # numpy's own strings drop zeros at the end
        files = np.array(value, dtype=object)
        if not all(isinstance(file, (bytes, str)) for file in files.flat):
            raise InvalidArgumentError(f"{name} must be files, bytes, in rows of one length")
        return files
    try:
        given = np.asarray(value)
    except ValueError as error:  # rows of different lengths
        raise InvalidArgumentError(f"{name}: {error}") from error
    if given.dtype == known.dtype:
        return given
    if given.dtype.kind in "biuf":
        with np.errstate(invalid="ignore", over="ignore"):
            cast = given.astype(known.dtype)
        if known.dtype.kind == "f" or np.array_equal(cast, given):
            return cast
    raise InvalidArgumentError(f"{name} must be {known.dtype}, got {given.dtype} {value!r:.60}")


def in_json(array: np.ndarray) -> bool:
    """Whether JSON can say an array: of one without entries only the last side may be 0."""
    return 0 not in array.shape[:-1]


def _to_json(value: Any) -> Any:
    if isinstance(value, list):
        return [_to_json(each) for each in value]
    if isinstance(value, bytes):
        return {"b64": base64.b64encode(value).decode()}
    return value


def _from_json(value: Any, known: Tensor) -> np.ndarray:
    def decoded(value: Any) -> Any:
        if isinstance(value, list):
            return [decoded(each) for each in value]
        return base64.b64decode(value["b64"])

    if known.dtype == object:
        return np.array(decoded(value), dtype=object)
    array = np.array(value, known.dtype)
    if array.size == 0:  # sides that JSON has no word for, as far as they are known
        sides = (*array.shape, *known.shape[array.ndim :])
        array = array.reshape([max(side, 0) for side in sides])
    return array


def encode_stream(client: Client, chunks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Codes of sound, chunk by chunk; together those of the whole.

    Args:
        chunks: float32 `(batch, any)`, in [-1, 1].

    Yields:
        int32 `(batch, any)`, for each chunk and for what was held back at the end.
    """
    return _stream(client, "encode_stream", "waveform", "codes", chunks, {})


def decode_stream(
    client: Client, chunks: Iterable[np.ndarray], **others: Any
) -> Iterator[np.ndarray]:
    """Sound of codes, chunk by chunk; together that of the whole.

    Args:
        chunks: int32 `(batch, any)`.
        others: `speaker` where the model has some; `seed` and `temperature` of a WaveNet.

    Yields:
        float32 `(batch, any)`, for each chunk and for what was held back at the end.
    """
    return _stream(client, "decode_stream", "codes", "waveform", chunks, others)


def _stream(
    client: Client, signature: str, given: str, made: str, chunks: Iterable, others: dict
) -> Iterator[np.ndarray]:
    known = client.signature(signature)
    version = client.served_version()  # another one's state would be nonsense
    held_back = "last" in known.inputs  # an end must be told, and brings what was held back
    state: dict | None = None
    chunk = None
    for chunk in map(np.asarray, chunks):
        if chunk.ndim != 2:
            raise InvalidArgumentError(f"{given} must be (batch, any), got shape {chunk.shape}")
        if state is None:
            kept = {name: tensor for name, tensor in known.outputs.items() if name != made}
            state = {name: _beginning(tensor, len(chunk)) for name, tensor in kept.items()}
        if held_back:
            others = {**others, "last": False}
        elif chunk.shape[1] == 0:
            continue
        state = client.predict(signature, version=version, **{given: chunk}, **state, **others)
        yield state.pop(made)
    if held_back and chunk is not None and state is not None:
        last = {given: chunk[:, :0], **state, **others, "last": True}
        yield client.predict(signature, version=version, **last)[made]


def _beginning(state: Tensor, batch: int) -> np.ndarray:
    """A stream begins with zeros, and with none of what is kept in any number."""
    sides = [max(side, 0) for side in state.shape[1:]]
    return np.zeros((batch, *sides) if state.shape else (), state.dtype)


def play(
    client: Client,
    frames: np.ndarray,
    actions: Iterable[Any],
    seed: int = 0,
    temperature: float = 1.0,
    top_k: int = 1_000_000,
    top_p: float = 1.0,
) -> Iterator[np.ndarray]:
    """The frames that follow, one action after another.

    Args:
        frames: what was seen: uint8 `(batch, time, height, width, channels)`, or of an export with
            `encoded=True` files, `bytes`, `(batch, time)`.
        actions: for each step an array as the signature `step` takes it; or, of a model without
            actions, anything, as often as there shall be steps.

    Yields:
        What `step` gives for each action: uint8 `(batch, height, width, channels)`; of a model with
        codes of several frames `(batch, frames, height, width, channels)`; files likewise.
    """
    how = {"seed": seed, "temperature": temperature, "top_k": top_k, "top_p": top_p}
    [name] = client.signature("start").inputs  # frames, or frames_bytes
    version = client.served_version()  # another one's state would be nonsense
    state = client.predict("start", version=version, **{name: frames})
    for action in actions:
        taken = {"actions": action} if "actions" in client.signature("step").inputs else {}
        state = client.predict("step", version=version, **state, **taken, **how)
        yield state.pop(name)


# As a script.


def warmup_requests(path: Path) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Signature and inputs of each request of a file `tf_serving_warmup_requests`."""
    import tensorflow as tf
    from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

    for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
        request = PredictionLog.FromString(record).predict_log.request
        inputs = {name: tf.make_ndarray(tensor) for name, tensor in request.inputs.items()}
        yield request.model_spec.signature_name or "serving_default", inputs


def read_wav(path: Path) -> tuple[np.ndarray, int]:
    """Samples, float32 in [-1, 1], channels mixed, and their rate in Hz."""
    with wave.open(str(path)) as file:
        if file.getsampwidth() != 2:
            raise ValueError(f"{path}: WAV files of 16 bits are read, got {file.getparams()}")
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        mixed = samples.reshape(-1, file.getnchannels()).mean(1) / 32768.0
        return mixed.astype("float32"), file.getframerate()


def read(path: Path, size: list[int] | None, mode: str = "RGB") -> dict[str, Any]:
    """A picture or WAV file under the names of the inputs that may take it, a batch of one."""
    if path.suffix.lower() == ".wav":
        waveform, _ = read_wav(path)
        return {"waveform": waveform[None], "waveform_bytes": [path.read_bytes()]}
    from PIL import Image

    picture, file = Image.open(path).convert(mode), path.read_bytes()
    if size is not None:
        picture = picture.resize((size[1], size[0]))
        file = png(np.asarray(picture))
    pixels = np.asarray(picture).reshape(*picture.size[::-1], -1)
    return {"images": pixels[None], "images_bytes": [file]}


def png(pixels: np.ndarray) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2:] == (1,) else pixels).save(file, "png")
    return file.getvalue()


def wav(samples: np.ndarray, sample_rate: int) -> bytes:
    held = io.BytesIO()
    with wave.open(held, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes(np.clip(samples * 32768.0, -32768, 32767).astype("<i2").tobytes())
    return held.getvalue()


def file_requests(client: Client, given: dict[str, Any]) -> Iterator[tuple[str, dict]]:
    """Signature and inputs, for all signatures that take no more than what is given.

    `encode` is the first, so that the codes that it answers can be put into `given` for others.
    """
    for name in sorted(client.signatures, key=lambda name: name != "encode"):
        signature = client.signatures[name]
        missing = signature.inputs.keys() - given.keys()
        if missing:
            print(f"{name}: left out, it needs {', '.join(sorted(missing))} (--set NAME=JSON)")
        else:
            yield name, {key: given[key] for key in signature.inputs}


def store(folder: Path, name: str, answer: dict[str, np.ndarray], sample_rate: int) -> None:
    """All outputs as `name.npz`; pictures and sound of the first example as files too."""
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / f"{name}.npz", **answer)
    for key, values in answer.items():
        kind, first = key.removesuffix("_bytes"), values[:1] if np.ndim(values) else values
        if kind not in ("images", "frames", "waveform"):
            continue
        if key != kind:
            files = first.ravel().tolist()
        elif kind == "waveform":
            files = [wav(x, sample_rate) for x in first]
        elif first.shape[-1] in (1, 3, 4):
            files = [png(x) for x in first.reshape(-1, *first.shape[-3:])]
        else:
            continue
        suffix = "wav" if kind == "waveform" else "png"
        for i, file in enumerate(files):
            number = f"_{i}" if len(files) > 1 else ""
            (folder / f"{name}{number}.{suffix}").write_bytes(file)


def assignment(text: str) -> tuple[str, Any]:
    """NAME=JSON."""
    name, _, value = text.partition("=")
    try:
        return name, json.loads(value)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"must be NAME=JSON, got {text!r}") from error


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("model", help="its name on the server")
    parser.add_argument("files", type=Path, nargs="*", help="pictures, or WAV files of 16 bits")
    parser.add_argument("--grpc", help="HOST:PORT")
    parser.add_argument("--rest", help="http://HOST:PORT")
    parser.add_argument("--warmup", type=Path, help="a file tf_serving_warmup_requests")
    parser.add_argument("--out", type=Path, default=Path("answers"), help="folder of the answers")
    parser.add_argument("--size", type=int, nargs=2, help="height and width that pictures get")
    modes = {"1": "L", "3": "RGB", "4": "RGBA"}
    parser.add_argument("--channels", choices=modes, default="3", help="of the model's pictures")
    parser.add_argument(
        "--sample-rate",
        type=int,
        help="the model's, in Hz; WAV files of another are refused, those written get it. "
        "Default: that of the file sent; 16000 where none was",
    )
    parser.add_argument(
        "--set",
        type=assignment,
        action="append",
        default=[],
        metavar="NAME=JSON",
        help="an input, such as speaker=[3]; may be given several times",
    )
    args = parser.parse_intermixed_args()  # files after options, too
    if not (args.grpc or args.rest) or not (args.files or args.warmup):
        parser.error("give --grpc or --rest, and files or --warmup")
    clients: dict[str, Client] = {}
    if args.grpc:
        clients["grpc"] = GrpcClient(args.grpc, args.model)
    if args.rest:
        clients["rest"] = RestClient(args.rest, args.model)
    scalars = {"seed": 0, "temperature": 1.0, "top_k": 1_000_000, "top_p": 1.0, "number": 4}
    scalars |= dict(args.set)
    given, rates = {}, {}
    for number, path in enumerate(args.files):
        name = path.stem if path.stem not in given else f"{path.stem}_{number}"
        try:
            given[name] = {**read(path, args.size, modes[args.channels]), **scalars}
            rates[name] = read_wav(path)[1] if path.suffix.lower() == ".wav" else None
        except (OSError, EOFError, ValueError, wave.Error) as error:
            parser.error(f"{path}: {error}")
        if args.sample_rate and rates[name] not in (None, args.sample_rate):
            parser.error(f"{path} is of {rates[name]} Hz, not {args.sample_rate}")

    def requests(client: Client) -> Iterator[tuple[str, str, dict]]:
        if args.warmup:
            for signature, inputs in warmup_requests(args.warmup):
                yield "warmup", signature, inputs
        for name, inputs_of_file in given.items():
            for signature, inputs in file_requests(client, inputs_of_file):
                yield name, signature, inputs

    refused = 0
    for protocol, client in clients.items():
        with client:
            try:
                _ = client.signatures
            except ServingError as error:
                refused += 1
                print(f"{protocol}: {type(error).__name__}: {error}")
                continue
            for source, signature, inputs in requests(client):
                if protocol == "rest" and not all(map(in_json, map(np.asarray, inputs.values()))):
                    print(f"{protocol} {source} {signature}: left out, JSON has no empty arrays")
                    continue
                start = time.perf_counter()
                try:
                    answer = client.predict(signature, **inputs)
                except ServingError as error:
                    refused += 1
                    print(f"{protocol} {source} {signature}: {type(error).__name__}: {error}")
                    continue
                took = (time.perf_counter() - start) * 1e3
                if signature == "encode" and source in given and "codes" not in dict(args.set):
                    given[source]["codes"] = answer["codes"]
                shapes = ", ".join(f"{k} {v.dtype} {v.shape}" for k, v in answer.items())
                print(f"{protocol} {source} {signature}: {took:.1f} ms, {shapes}")
                rate = args.sample_rate or rates.get(source) or 16000
                store(args.out, f"{protocol}_{source}_{signature}", answer, rate)
    if refused:
        raise SystemExit(f"{refused} requests failed")


if __name__ == "__main__":
    main()
