"""KServe's model server, of the package `kserve`, on 127.0.0.1: what `test_kserve.py` talks to.

    python kserve_server.py PORT NAME=FOLDER [NAME=FOLDER ...]

Runs in an environment of its own (`make .venv-kserve/installed`) and imports nothing of this
package. HTTP, its parsing and both protocols, V1 and V2, are KServe's; from there to the SavedModel
it is the few lines below, so that this checks clients and signatures, not TensorFlow Serving.
"""

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import numpy as np
import tensorflow as tf
from kserve import InferOutput, InferRequest, InferResponse, Model
from kserve.errors import InvalidInput
from kserve.model_repository import ModelRepository
from kserve.protocol.dataplane import DataPlane
from kserve.protocol.model_repository_extension import ModelRepositoryExtension
from kserve.protocol.rest.server import RESTServer
from kserve.utils.numpy_codec import from_np_dtype
from kserve.utils.utils import generate_uuid


class SavedModel(Model):
    """A SavedModel; `signature_name` of a V1 body, or of V2's parameters, says what is run."""

    def __init__(self, name: str, folder: str) -> None:
        super().__init__(name)
        self.loaded = tf.saved_model.load(folder)
        self.ready = True

    def predict(self, payload, headers=None, response_headers=None):
        if isinstance(payload, InferRequest):
            signature = (payload.parameters or {}).get("signature_name", "serving_default")
            outputs = self.run(signature, {each.name: each.as_numpy() for each in payload.inputs})
            made = []
            for key, array in outputs.items():
                output = InferOutput(key, list(array.shape), from_np_dtype(array.dtype))
                output.set_data_from_numpy(array, binary_data=False)
                made.append(output)
            return InferResponse(payload.id or generate_uuid(), self.name, made)
        signature = payload.get("signature_name", "serving_default")
        if "inputs" in payload:
            outputs = self.run(signature, payload["inputs"])
            made = {key: array.tolist() for key, array in outputs.items()}
            return {"outputs": made if len(made) > 1 else next(iter(made.values()))}
        names = payload["instances"][0].keys()
        rows = {key: [row[key] for row in payload["instances"]] for key in names}
        outputs = {key: array.tolist() for key, array in self.run(signature, rows).items()}
        return {
            "predictions": [
                dict(zip(outputs, row, strict=True)) for row in zip(*outputs.values(), strict=True)
            ]
        }

    def run(self, signature: str, inputs: dict) -> dict[str, np.ndarray]:
        try:
            function = self.loaded.signatures[signature]
            specs = function.structured_input_signature[1]
            tensors = {key: tf.constant(x, specs[key].dtype) for key, x in inputs.items()}
            return {key: np.asarray(x) for key, x in function(**tensors).items()}
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidInput(str(error)) from error
        except tf.errors.InvalidArgumentError as error:
            raise InvalidInput(error.message) from error


if __name__ == "__main__":
    port, *served = sys.argv[1:]
    models = ModelRepository()
    for each in served:
        models.update(SavedModel(*each.split("=", 1)))
    server = RESTServer(
        "kserve.model_server:app",
        DataPlane(model_registry=models),
        ModelRepositoryExtension(model_registry=models),
        http_port=int(port),
    )
    server.config.host = "127.0.0.1"  # as it comes it listens on all addresses
    server.run()
