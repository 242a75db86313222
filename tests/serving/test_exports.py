"""What is true of every endpoint of every model: its graph, its description, good and bad requests.

What is good and bad is taken from `signature.json`, so that a new model or endpoint is tested by
being in `MODELS`.
"""

import json
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest

pytestmark = [pytest.mark.programs, pytest.mark.tensorflow]

if keras.backend.backend() != "tensorflow":  # the JAX run deselects this file by the mark
    pytest.skip("SavedModels are TensorFlow's", allow_module_level=True)

import tensorflow as tf  # noqa: E402

from keras_vqvae.export.graphs import ops_of  # noqa: E402
from tests.serving.graphs import forbidden  # noqa: E402
from tests.serving.models import MODELS, bad_requests, emptied, requests  # noqa: E402


class Exported:
    """An export, loaded."""

    def __init__(self, name: str, path: Path) -> None:
        self.path = path
        self.served = tf.saved_model.load(str(path))
        self.described = json.loads((path / "signature.json").read_text(encoding="utf-8"))
        self.requests = requests(name, path)

    def ask(self, signature: str, request: dict) -> dict[str, np.ndarray]:
        fields = self.described["signatures"][signature]["inputs"]
        tensors = {k: tf.constant(v, fields[k]["dtype"]) for k, v in request.items()}
        return {k: v.numpy() for k, v in self.served.signatures[signature](**tensors).items()}


# One of each family and of each form of condition, actions and files; the others are long.
SHORT = (
    "image_classes",
    "image_encoded",
    "sound_source",
    "sound_any_prior",
    "video_buttons",
    "video_codes_encoded",
)


@pytest.fixture(
    scope="module",
    params=[pytest.param(n, marks=() if n in SHORT else pytest.mark.long) for n in MODELS],
)
def exported(request: pytest.FixtureRequest, export_once: Callable) -> Exported:
    return Exported(request.param, export_once(request.param))


def test_no_variable_is_written_no_python_called_and_all_ops_are_tensorflows(
    exported: Exported,
) -> None:
    found = ops_of(exported.path)
    assert set(found) == set(exported.described["signatures"])
    for signature, ops in found.items():
        assert "ReadVariableOp" in ops and "Assert" in ops, "it was not walked"
        assert not forbidden(ops), signature


def test_the_description_is_that_of_the_graph(exported: Exported) -> None:
    signatures = exported.described["signatures"]
    assert set(signatures) == set(exported.served.signatures) == set(exported.requests)
    card = (exported.path / "README.md").read_text(encoding="utf-8")
    for name, function in exported.served.signatures.items():
        inputs = function.structured_input_signature[1]
        specs = {"inputs": inputs, "outputs": function.structured_outputs}
        for way, fields in specs.items():
            described = signatures[name][way]
            assert described.keys() == fields.keys()
            for tensor, spec in fields.items():
                field = described[tensor]
                assert field["dtype"] == spec.dtype.name and field["meaning"]
                assert len(field["shape"]) == spec.shape.rank
                assert f"`{tensor}`" in card
        assert f"### `{name}`" in card


def test_example_requests_are_answered_as_described(exported: Exported) -> None:
    for signature, request in exported.requests.items():
        described = exported.described["signatures"][signature]
        answer = exported.ask(signature, request)
        assert answer.keys() == described["outputs"].keys()
        for tensor, x in answer.items():
            field = described["outputs"][tensor]
            assert len(x.shape) == len(field["shape"])
            for got, side in zip(x.shape, field["shape"], strict=True):
                assert got == (2 if side in ("batch", "number") else got)
                assert got == (side if isinstance(side, int) else got), (signature, tensor)
            if x.dtype != object and x.size:
                assert np.isfinite(x).all()
                assert x.min() >= field.get("minimum", -np.inf)
                assert x.max() <= field.get("maximum", np.inf)


def test_an_empty_batch_is_answered_by_one(exported: Exported) -> None:
    for signature, request in exported.requests.items():
        described = exported.described["signatures"][signature]
        full = exported.ask(signature, request)
        empty = emptied(request, described["inputs"])
        for tensor, x in exported.ask(signature, empty).items():
            batched = described["outputs"][tensor]["shape"][:1] in (["batch"], ["number"])
            assert x.dtype == full[tensor].dtype
            expected = (0, *full[tensor].shape[1:]) if batched else ()
            if "waveform_bytes" in request and tensor == "codes":
                expected = (0, 1)  # no file says how long it is
            assert x.shape == expected, (signature, tensor)


def test_bad_requests_are_named_and_the_next_is_served(exported: Exported) -> None:
    tried = 0
    for signature, request in exported.requests.items():
        if signature == "serving_default":  # `reconstruct`
            continue
        described = exported.described["signatures"][signature]["inputs"]
        good = exported.ask(signature, request)
        for bad, message in bad_requests(request, described):
            with pytest.raises(tf.errors.InvalidArgumentError, match=message):
                exported.ask(signature, bad)
            tried += 1
        again = exported.ask(signature, request)
        assert all(np.array_equal(again[name], good[name]) for name in good)
    assert tried > 5


def test_forbidden_ops_are_found_wherever_they_are(tmp_path: Path) -> None:
    module = tf.Module()
    module.count = tf.Variable(0.0)

    def inner(x: tf.Tensor) -> tf.Tensor:
        return tf.cond(
            x > 0,
            lambda: x + tf.random.uniform(()),
            lambda: tf.ensure_shape(tf.numpy_function(lambda x: x, [x], tf.float32), ()),
        )

    @tf.function(input_signature=[tf.TensorSpec((), tf.float32, "x")], autograph=False)
    def bad(x: tf.Tensor) -> dict:
        (x,) = tf.while_loop(lambda x: x < 3, lambda x: [inner(x)], [x])
        return {"y": module.count.assign_add(x)}

    @tf.function(input_signature=[tf.TensorSpec((), tf.float32, "x")])
    def good(x: tf.Tensor) -> dict:
        return {"y": module.count * x}

    module.bad, module.good = bad, good
    tf.saved_model.save(module, str(tmp_path), signatures={"bad": bad, "good": good})
    found = {name: forbidden(ops) for name, ops in ops_of(tmp_path).items()}
    assert found == {
        "bad": {"AssignAddVariableOp", "RandomUniform", "PyFunc"},
        "good": set(),
    }
    assert forbidden({"Assign", "ScatterUpdate", "ReadFile"}) == {
        "Assign",
        "ScatterUpdate",
        "ReadFile",
    }
    assert not forbidden({"ScatterNd", "TensorScatterUpdate"})
