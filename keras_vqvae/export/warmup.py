"""Requests that TensorFlow Serving runs when it loads a version, so that no client waits."""

import warnings
from pathlib import Path

import tensorflow as tf

from keras_vqvae.data.extras import how_to_install
from keras_vqvae.export.endpoints import Endpoint

FILE = Path("assets.extra") / "tf_serving_warmup_requests"


def write_warmup(folder: Path, name: str, signatures: dict[str, Endpoint]) -> None:
    """Writes the example of each signature; warns where TensorFlow Serving's protos are missing.

    Args:
        folder: of the version.
        name: of the model.
        signatures: by name.
    """
    try:
        from tensorflow_serving.apis import predict_pb2, prediction_log_pb2
    except ImportError as error:
        warnings.warn(
            "warm-up requests are left out: they need tensorflow-serving-api, "
            f"{how_to_install('serving')} ({error})",
            stacklevel=5,  # who called `export_savedmodel`
        )
        return
    (folder / FILE).parent.mkdir()
    with tf.io.TFRecordWriter(str(folder / FILE)) as records:
        for signature, endpoint in signatures.items():
            request = predict_pb2.PredictRequest()
            request.model_spec.name = name
            request.model_spec.signature_name = signature
            for field in endpoint.inputs:
                value = tf.make_tensor_proto(endpoint.example[field.name], field.dtype)
                request.inputs[field.name].CopyFrom(value)
            log = prediction_log_pb2.PredictionLog(
                predict_log=prediction_log_pb2.PredictLog(request=request)
            )
            records.write(log.SerializeToString())
