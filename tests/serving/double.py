"""A test double of TensorFlow Serving: the same two APIs, over sessions of loaded SavedModels.

It is not TensorFlow Serving. What it shares with it is that a SavedModel is loaded by TensorFlow's
session, by its tag and its signatures, without this package; its checks of requests and its words
for errors are its own. It serves the newest version of each model of a folder, on 127.0.0.1:

    with Double(folder) as double:              # folder/NAME/VERSION
        GrpcClient(double.grpc_address, "doom"); RestClient(double.rest_url, "doom")

    python -m tests.serving.double FOLDER       # prints both addresses, and serves until killed
"""

import argparse
import base64
import binascii
import threading
import time
from collections.abc import Collection
from concurrent import futures
from pathlib import Path
from typing import Any

import flask
import grpc
import numpy as np
import tensorflow as tf
from google.protobuf.json_format import MessageToDict
from tensorflow.core.protobuf import config_pb2
from werkzeug.serving import make_server

from tests.inside import inside

Code = grpc.StatusCode
HTTP = {
    Code.INVALID_ARGUMENT: 400,
    Code.NOT_FOUND: 404,
    Code.FAILED_PRECONDITION: 400,
    Code.UNAUTHENTICATED: 401,
    Code.UNAVAILABLE: 503,
    Code.DEADLINE_EXCEEDED: 504,
}


class RefusedError(Exception):
    """An answer that is an error of gRPC."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


class Servable:
    """A version of a model, in a session.

    Args:
        path: folder of the version.
        threads: that run a request's operations side by side; 0 for as many as there are cores, -1
            for none but the one that asks.
    """

    def __init__(self, path: Path, threads: int = 0) -> None:
        self.path, self.version = path, int(path.name)
        config = config_pb2.ConfigProto(inter_op_parallelism_threads=threads)
        self._session = tf.compat.v1.Session(graph=tf.Graph(), config=config)
        with self._session.graph.as_default():
            loaded = tf.compat.v1.saved_model.load(self._session, ["serve"], str(path))
        self.signatures = {
            name: signature
            for name, signature in loaded.signature_def.items()
            if not name.startswith("__")
        }
        # Not session.run: it would cast arrays, and compare shapes, before the graph sees them.
        self._calls = {name: self._callable(each) for name, each in self.signatures.items()}

    def _callable(self, signature: Any) -> Any:
        options = config_pb2.CallableOptions()
        options.feed.extend(info.name for info in signature.inputs.values())
        options.fetch.extend(info.name for info in signature.outputs.values())
        return inside(self._session).make_callable_from_options(options)

    def warm_up(self) -> list[str]:
        """Makes the requests that the export left for it; returns the names of their signatures."""
        path = self.path / "assets.extra" / "tf_serving_warmup_requests"
        if not path.exists():
            return []
        from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

        done = []
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            request = PredictionLog.FromString(record).predict_log.request
            done.append(request.model_spec.signature_name or "serving_default")
            inputs = {key: tf.make_ndarray(x) for key, x in request.inputs.items()}
            self.predict(done[-1], inputs)
        return done

    def signature(self, name: str) -> Any:
        if name not in self.signatures:
            raise RefusedError(
                Code.FAILED_PRECONDITION, f"no signature {name!r}, but {sorted(self.signatures)}"
            )
        return self.signatures[name]

    def predict(self, name: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The outputs of a signature, as arrays; raises `RefusedError`."""
        signature = self.signature(name)
        if inputs.keys() != signature.inputs.keys():
            raise RefusedError(
                Code.INVALID_ARGUMENT,
                f"{name} takes {sorted(signature.inputs)}, got {sorted(inputs)}",
            )
        try:
            made = self._calls[name](*(inputs[key] for key in signature.inputs))
        except tf.errors.OpError as error:
            codes = {code.value[0]: code for code in Code}
            raise RefusedError(codes[error.error_code], error.message) from error
        return dict(zip(signature.outputs, made, strict=True))

    def close(self) -> None:
        self._session.close()


class Double:
    """Serves the models of a folder, from threads of this process, until `close`.

    Args:
        folder: with a folder NAME/VERSION for each model.
        threads: how many gRPC requests are answered at a time.
        only: names of the models to serve; all, if None.
        certificate: files of a certificate and its key, for TLS; none, if None.
        token: what predictions and questions for signatures must have as the header
            `authorization`; nothing, if None.

    Attributes:
        predictions: how many were asked for.
        warmed_up: for each model the signatures that it was warmed up by.
        unavailable: how many predictions to come are refused as UNAVAILABLE.
        delay: seconds that a prediction waits before it is made.
    """

    def __init__(
        self,
        folder: Path,
        threads: int = 4,
        only: Collection[str] | None = None,
        certificate: tuple[Path, Path] | None = None,
        token: str | None = None,
    ) -> None:
        self.predictions, self.unavailable, self.delay = 0, 0, 0.0
        self.token = token
        self._lock = threading.Lock()
        self.servables: dict[str, Servable] = {}
        self.warmed_up: dict[str, list[str]] = {}
        for model in sorted(path for path in Path(folder).iterdir() if path.is_dir()):
            versions = [path for path in model.iterdir() if path.name.isdigit()]
            if versions and (only is None or model.name in only):
                newest = max(versions, key=lambda path: int(path.name))
                self.servables[model.name] = Servable(newest)
                self.warmed_up[model.name] = self.servables[model.name].warm_up()
        app, tls = _rest_app(self), certificate and tuple(map(str, certificate))
        self._rest = make_server("127.0.0.1", 0, app, threaded=True, ssl_context=tls)
        self.rest_url = f"http{'s' if tls else ''}://127.0.0.1:{self._rest.server_port}"
        self._thread = threading.Thread(target=self._rest.serve_forever, daemon=True)
        self._thread.start()
        self._grpc = grpc_server(self, threads)
        if certificate is None:
            port = self._grpc.add_insecure_port("127.0.0.1:0")
        else:
            chain, key = (file.read_bytes() for file in certificate)
            credentials = grpc.ssl_server_credentials([(key, chain)])
            port = self._grpc.add_secure_port("127.0.0.1:0", credentials)
        self.grpc_address = f"127.0.0.1:{port}"
        self._grpc.start()

    def __enter__(self) -> "Double":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def close(self) -> None:
        self._grpc.stop(grace=None).wait()
        self._rest.shutdown()
        self._thread.join()
        self._rest.server_close()
        for servable in self.servables.values():
            servable.close()

    def check(self, token: str | None) -> None:
        if self.token not in (None, token):
            raise RefusedError(Code.UNAUTHENTICATED, "the double was told of another token")

    def find(self, name: str, version: int | None) -> Servable:
        servable = self.servables.get(name)
        if servable is None or version not in (None, servable.version):
            raise RefusedError(Code.NOT_FOUND, f"no version {version or 'at all'} of {name!r} here")
        return servable

    def predict(
        self, name: str, version: int | None, signature: str, inputs: dict[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        with self._lock:
            self.predictions += 1
            refuse = self.unavailable > 0
            self.unavailable -= refuse
        if refuse:
            raise RefusedError(Code.UNAVAILABLE, "the double was told to be unavailable")
        time.sleep(self.delay)
        return self.find(name, version).predict(signature, inputs)


def grpc_server(double: Double, threads: int) -> grpc.Server:
    """One more server of what a double serves; to be given a port and started."""

    from tensorflow_serving.apis import (
        get_model_metadata_pb2,
        get_model_status_pb2,
        model_service_pb2_grpc,
        predict_pb2,
        prediction_service_pb2_grpc,
    )

    def version_of(spec: Any) -> int | None:
        return spec.version.value if spec.HasField("version") else None

    def check(context: Any) -> None:
        double.check(dict(context.invocation_metadata()).get("authorization"))

    class Prediction(prediction_service_pb2_grpc.PredictionServiceServicer):
        def Predict(self, request: Any, context: Any) -> Any:  # noqa: N802  # gRPC's name
            spec, response = request.model_spec, predict_pb2.PredictResponse()
            try:
                check(context)
                inputs = {name: tf.make_ndarray(tensor) for name, tensor in request.inputs.items()}
                signature = spec.signature_name or "serving_default"
                outputs = double.predict(spec.name, version_of(spec), signature, inputs)
                version = double.find(spec.name, version_of(spec)).version
            except RefusedError as error:
                context.abort(error.code, error.message)
            for name in request.output_filter or outputs:
                response.outputs[name].CopyFrom(tf.make_tensor_proto(outputs[name]))
            response.model_spec.CopyFrom(spec)
            response.model_spec.version.value = version
            return response

        def GetModelMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
            spec, response = request.model_spec, get_model_metadata_pb2.GetModelMetadataResponse()
            try:
                check(context)
                servable = double.find(spec.name, version_of(spec))
            except RefusedError as error:
                context.abort(error.code, error.message)
            found = get_model_metadata_pb2.SignatureDefMap(signature_def=servable.signatures)
            response.metadata["signature_def"].Pack(found)
            response.model_spec.CopyFrom(spec)
            response.model_spec.version.value = servable.version
            return response

    class Status(model_service_pb2_grpc.ModelServiceServicer):
        def GetModelStatus(self, request: Any, context: Any) -> Any:  # noqa: N802
            response = get_model_status_pb2.GetModelStatusResponse()
            spec = request.model_spec
            try:
                version = double.find(spec.name, version_of(spec)).version
            except RefusedError as error:
                context.abort(error.code, error.message)
            available = get_model_status_pb2.ModelVersionStatus.AVAILABLE
            response.model_version_status.add(version=version, state=available)
            return response

    limits = [(f"grpc.max_{way}_message_length", -1) for way in ("send", "receive")]
    server = grpc.server(futures.ThreadPoolExecutor(threads), options=limits)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Prediction(), server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(Status(), server)
    return server


def _rest_app(double: Double) -> flask.Flask:
    app = flask.Flask("double")
    places = ("/v1/models/<name>", "/v1/models/<name>/versions/<int:version>")

    @app.errorhandler(RefusedError)
    def refused(error: RefusedError) -> tuple:
        return {"error": error.message}, HTTP.get(error.code, 500)

    @app.before_request
    def check() -> None:
        double.check(flask.request.headers.get("authorization"))

    def predict(name: str, version: int | None = None) -> dict:
        body = flask.request.get_json(force=True, silent=True)
        if not isinstance(body, dict) or ("inputs" in body) == ("instances" in body):
            raise RefusedError(
                Code.INVALID_ARGUMENT, "the body must be a JSON object with inputs or instances"
            )
        signature = body.get("signature_name", "serving_default")
        infos = double.find(name, version).signature(signature).inputs
        by_row = "instances" in body
        columns = _columns(body["instances"]) if by_row else body["inputs"]
        if not isinstance(columns, dict) or set(columns) == {"b64"}:
            if len(infos) > 1:
                raise RefusedError(Code.INVALID_ARGUMENT, f"name the inputs: {sorted(infos)}")
            columns = {next(iter(infos)): columns}
        inputs = {
            key: _from_json(key, value, infos[key].dtype if key in infos else None)
            for key, value in columns.items()
        }
        outputs = double.predict(name, version, signature, inputs)
        made = {key: _to_json(key, value) for key, value in outputs.items()}
        if not by_row:
            return {"outputs": made if len(made) > 1 else next(iter(made.values()))}
        if len({len(value) if np.ndim(value) else None for value in outputs.values()}) > 1:
            raise RefusedError(Code.INVALID_ARGUMENT, "the outputs are not of as many rows: inputs")
        rows = [dict(zip(made, row, strict=True)) for row in zip(*made.values(), strict=True)]
        return {"predictions": rows if len(made) > 1 else next(iter(made.values()))}

    def metadata(name: str, version: int | None = None) -> dict:
        servable = double.find(name, version)
        signatures = {
            key: MessageToDict(signature, preserving_proto_field_name=True)
            for key, signature in servable.signatures.items()
        }
        return {
            "model_spec": {"name": name, "version": str(servable.version)},
            "metadata": {"signature_def": {"signature_def": signatures}},
        }

    def status(name: str, version: int | None = None) -> dict:
        found = double.find(name, version).version
        ok = {"error_code": "OK", "error_message": ""}
        states = [{"version": str(found), "state": "AVAILABLE", "status": ok}]
        return {"model_version_status": states}

    for place in places:
        app.add_url_rule(f"{place}:predict", view_func=predict, methods=["POST"])
        app.add_url_rule(f"{place}/metadata", view_func=metadata)
        app.add_url_rule(place, view_func=status)
    return app


def _columns(instances: Any) -> Any:
    """Rows, each the value of the one input or an object with all, as columns."""
    if not isinstance(instances, list) or not instances:
        raise RefusedError(Code.INVALID_ARGUMENT, "instances must be a list of at least one")
    named = [isinstance(row, dict) and set(row) != {"b64"} for row in instances]
    if not any(named):
        return instances
    if not all(named) or any(row.keys() != instances[0].keys() for row in instances):
        raise RefusedError(Code.INVALID_ARGUMENT, "instances must all have the same names")
    return {key: [row[key] for row in instances] for key in instances[0]}


def _from_json(name: str, value: Any, dtype: int | None) -> np.ndarray:
    """An array of the dtype of an input; None, for an unknown one, is any."""

    def wrong(what: str) -> RefusedError:
        return RefusedError(Code.INVALID_ARGUMENT, f"{name}: {what}")

    def decoded(value: Any) -> Any:
        if isinstance(value, list):
            return [decoded(each) for each in value]
        if isinstance(value, dict) and set(value) == {"b64"}:
            return base64.b64decode(value["b64"], validate=True)
        if isinstance(value, str):
            return value.encode()
        raise wrong("a string, or an object with b64, was expected")

    wanted = None if dtype is None else tf.dtypes.as_dtype(dtype)
    try:
        if wanted == tf.string:
            return np.array(decoded(value), dtype=object)
        array = np.array(value)
        if wanted is None:
            return array
        cast = array.astype(wanted.as_numpy_dtype)
    except (ValueError, TypeError, binascii.Error) as error:
        raise wrong(str(error)) from error
    kinds = {"f": "iuf", "i": "iu", "u": "iu", "b": "b"}[cast.dtype.kind]
    if array.size and array.dtype.kind not in kinds:
        raise wrong(f"values must be {wanted.name}, got such as {value!r:.40}")
    if cast.dtype.kind in "iu" and not np.array_equal(cast, array):
        raise wrong(f"values are out of the range of {wanted.name}")
    return cast


def _to_json(name: str, array: np.ndarray) -> Any:
    """Lists of numbers; of strings too, as b64 where the name ends in _bytes."""

    def encoded(value: Any) -> Any:
        if isinstance(value, list):
            return [encoded(each) for each in value]
        if not isinstance(value, bytes):
            return value
        if name.endswith("_bytes"):
            return {"b64": base64.b64encode(value).decode()}
        return value.decode()

    return encoded(array.tolist())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    with Double(parser.parse_args().folder) as served:
        print(served.grpc_address, served.rest_url, flush=True)
        threading.Event().wait()
