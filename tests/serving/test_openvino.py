"""OpenVINO, another runtime, reads the SavedModels itself and answers the same.

All signatures but those that draw: their loops and random numbers it does not know.
"""

import importlib.util
import re
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest

pytestmark = [pytest.mark.programs, pytest.mark.tensorflow]

if keras.backend.backend() != "tensorflow":  # the JAX run deselects this file by the mark
    pytest.skip("SavedModels are TensorFlow's", allow_module_level=True)

from tensorflow.core.protobuf import saved_model_pb2  # noqa: E402

from tests.needed import skip_or_fail  # noqa: E402
from tests.serving import children, loaded  # noqa: E402
from tests.serving.models import MODELS, requests  # noqa: E402

FEW = ["image_prior", "sound_source", "video_codes_predictor"]
# It reads no files of pictures or sound, and no constants in bfloat16; it has no XLA.
REST = [name for name in MODELS if not (name in FEW or name.endswith(("encoded", "mixed", "xla")))]
# Ops that OpenVINO has no rule for, and in which signatures.
UNKNOWN = {"SparseSoftmaxCrossEntropyWithLogits": {"log_prob"}}


def with_default(path: Path, signature: str, folder: Path) -> tuple[str, dict[str, str]]:
    """A copy of a SavedModel whose `serving_default` is another signature, and its outputs."""
    folder.mkdir(parents=True)
    saved = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    signatures = saved.meta_graphs[0].signature_def
    chosen = signatures[signature].SerializeToString()
    signatures["serving_default"].ParseFromString(chosen)
    (folder / "saved_model.pb").write_bytes(saved.SerializeToString())
    (folder / "variables").symlink_to(path / "variables")
    outputs = {name: x.name for name, x in signatures[signature].outputs.items()}
    if signature == "start":
        del outputs["number"]  # always 0, and OpenVINO leaves constants out
    return str(folder), outputs


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(FEW, id="few"),
        pytest.param(REST, id="rest", marks=[pytest.mark.long, pytest.mark.timeout(1800)]),
    ],
)
def test_openvino_agrees(export_once: Callable, tmp_path: Path, names: list[str]) -> None:
    if importlib.util.find_spec("openvino") is None:
        skip_or_fail("OPENVINO", "openvino is not installed")
    asked, wanted = [], []
    for name in names:
        path = export_once(name)
        for signature, inputs in requests(name, path).items():
            if "seed" in inputs:
                continue
            copy = with_default(path, signature, tmp_path / name / signature)
            asked.append((*copy, inputs))
            wanted.append((str(path), signature, inputs))
    answers = children.ask("openvino_runtime", asked, tmp_path)
    agreed = 0
    for request, expected, got in zip(wanted, loaded.answer(wanted), answers, strict=True):
        signature = request[1]
        if isinstance(got, tuple):
            (ops,) = re.findall(r"No conversion rule found for operations: (.*)", got[1])
            assert all(signature in UNKNOWN.get(op, ()) for op in ops.split(", ")), (
                request[:2],
                got,
            )
            continue
        agreed += 1
        for output, x in expected.items():
            if (signature, output) == ("start", "number"):
                continue
            assert got[output].dtype == x.dtype and got[output].shape == x.shape
            np.testing.assert_allclose(
                got[output].astype("float64"), x, 0, 1e-5, err_msg=f"{request[:2]} {output}"
            )
    assert agreed >= 12
