"""The model card of an export, and examples of TensorFlow Serving's configuration."""

import json
from typing import Any
from urllib.parse import quote

from keras_vqvae.export.fields import shape_text

# The last one is the greatest batch.
_BATCH_SIZES = (1, 2, 4, 8, 16, 32)


def card(described: dict[str, Any]) -> str:
    """`README.md`, of what `description` gives."""
    name, signatures = described["name"], described["signatures"]
    data = described["training_data"] or "not stated"
    prior = f", with a {described['prior']} over its codes" if described["prior"] else ""
    facts = "\n".join(f"- {fact}: {value}" for fact, value in described["facts"].items())
    versions = ", ".join(
        f"{package} {version}" for package, version in described["versions"].items()
    )
    parts = [
        f"# {name}, version {described['version']}",
        f"A SavedModel of the class {described['model']}{prior}, for TensorFlow Serving or "
        "anything else that runs SavedModels. It writes no variable, calls no Python and needs no "
        f"other op than TensorFlow's own. Written by {versions}.",
        f"Training data, its source and licence: {data}.",
        facts,
        "## Signatures",
        *(_signature(signature, of) for signature, of in signatures.items()),
        "Named sides may be of any length: any batch size will do, 0 too. A scalar has the shape "
        "`()`. `serving_default` is `reconstruct`. What is out of its range, of a wrong shape, or "
        "no number is answered INVALID_ARGUMENT, with a message that names the input; a wrong "
        "dtype and a broken file are, in TensorFlow's own words. `signature.json` says all this to "
        "programs.",
        "## Use",
        _calls(described),
        "## Batching by the server",
        _batching(signatures),
    ]
    return "\n\n".join(parts) + "\n"


def models_config(name: str) -> str:
    """A ModelServerConfig."""
    return f"""\
# For tensorflow_model_server --model_config_file=models.config; in its container, where NAME is
# mounted as /models/NAME, --model_config_file=/models/NAME/VERSION/models.config.
# base_path is where the server sees the folder that the versions are in.
model_config_list {{
  config {{
    name: {json.dumps(name, ensure_ascii=False)}
    base_path: {json.dumps(f"/models/{name}", ensure_ascii=False)}
    model_platform: "tensorflow"
  }}
}}
"""


def batching_config() -> str:
    """BatchingParameters."""
    sizes = "\n".join(f"allowed_batch_sizes: {size}" for size in _BATCH_SIZES)
    return f"""\
# For tensorflow_model_server --enable_batching --batching_parameters_file=batching.config
# README.md says which signatures can then be called, and when warm-up must be off.
max_batch_size {{ value: {_BATCH_SIZES[-1]} }}
batch_timeout_micros {{ value: 2000 }}
max_enqueued_batches {{ value: 100 }}
num_batch_threads {{ value: 4 }}
# Batches are filled up to one of these. A request of more than the last one is refused.
{sizes}
"""


def _signature(name: str, of: dict[str, Any]) -> str:
    rows = [
        f"| {way} `{tensor}` | {field['dtype']} | {shape_text(field['shape'])} | "
        f"{_range(field)} | {_in_a_table(field['meaning'])} |"
        for way, key in (("in", "inputs"), ("out", "outputs"))
        for tensor, field in of[key].items()
    ]
    head = "| tensor | dtype | shape | range | meaning |\n|---|---|---|---|---|"
    return "\n".join([f"### `{name}`", "", head, *rows])


def _in_a_table(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def _range(field: dict[str, Any]) -> str:
    if "exclusiveMinimum" in field:
        return f"above {_number(field['exclusiveMinimum'])}" + (
            f", at most {_number(field['maximum'])}" if "maximum" in field else ""
        )
    limits = [field.get("minimum"), field.get("maximum")]
    if limits == [None, None]:
        return "any"
    return " to ".join("any" if limit is None else _number(limit) for limit in limits)


def _number(limit: float) -> str:
    return str(int(limit)) if limit == int(limit) else f"{limit:g}"


def _calls(described: dict[str, Any]) -> str:
    name = described["name"]
    ((tensor, _),) = described["signatures"]["encode"]["inputs"].items()
    to_json, array, begin = "x.tolist()", "x", ""
    if tensor.endswith("_bytes"):
        kind = "sound.wav" if tensor.startswith("waveform") else "picture.png"
        to_json = '[{"b64": base64.b64encode(file).decode()} for file in files]'
        array, begin = "np.array(files, object)", f'files = [open("{kind}", "rb").read()]\n'
        if tensor.startswith("frames"):  # (batch, time)
            to_json, array = f"[{to_json}]", "np.array([files], object)"
    for_rest, for_grpc = ("import base64\n", "import numpy as np\n") if begin else ("", "")
    return f"""\
REST takes all inputs by name, scalars as numbers; of one output it gives the values alone, of
several a dict by name. Bytes are `{{"b64": ...}}`, both ways.

```python
{for_rest}import requests
{begin}request = {{"signature_name": "encode", "inputs": {{"{tensor}": {to_json}}}}}
url = "http://localhost:8501/v1/models/{quote(name)}:predict"
answer = requests.post(url, json=request, timeout=10)
codes = answer.json()["outputs"]
```

gRPC sends arrays as bytes, not as text; it needs tensorflow-serving-api, of the version of your
TensorFlow:

```python
{for_grpc}import grpc, tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc
{begin}channel = grpc.insecure_channel("localhost:8500", [("grpc.max_receive_message_length", -1)])
request = predict_pb2.PredictRequest()
request.model_spec.name, request.model_spec.signature_name = {name!r}, "encode"
request.inputs["{tensor}"].CopyFrom(tf.make_tensor_proto({array}))
answer = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(request, timeout=10)
codes = tf.make_ndarray(answer.outputs["codes"])
```

Without a server: `tf.saved_model.load(folder).signatures["encode"]({tensor}=tf.constant(...))`.
`models.config` and `batching.config` are examples of TensorFlow Serving's configuration."""


def _batching(signatures: dict[str, Any]) -> str:
    can, cannot = (
        ", ".join(f"`{name}`" for name, of in signatures.items() if of["batching"] is yes)
        for yes in (True, False)
    )
    text = (
        "With `--enable_batching` TensorFlow Serving puts requests together along the first side. "
        f"{f'It can with {can}' if can else 'It can with none of these'}; all requests of a batch "
        "fail with the one that is bad. Send no empty batch to such a server: it cannot fill it "
        f"up; and no more rows at once than max_batch_size, {_BATCH_SIZES[-1]} in "
        "`batching.config`: it refuses them."
    )
    if cannot:
        text += (
            f" Not with {cannot}: they take scalars, one thing for all, or sides that may be any. "
            "Scalars are refused then (`Batching Run() input tensors must have at least one "
            "dimension`), in the warm-up requests too, so that such a version is not loaded: add "
            "`--enable_model_warmup=false`. And requests that differ in another side than the "
            "first fail each other. Serve these without batching, for example by a second server."
        )
    return text
