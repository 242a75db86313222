"""SavedModels of video: the same answers as Python, steps equal to the whole, bad requests."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

if keras.backend.backend() != "tensorflow":
    pytest.skip("SavedModels are TensorFlow's", allow_module_level=True)

import tensorflow as tf

from keras_vqvae import PixelCNN, VideoPredictor, export_savedmodel
from tests.models.test_video import CONTEXT, actions, frames, make

pytestmark = [pytest.mark.programs, pytest.mark.tensorflow]
HOW = {"seed": 3, "temperature": np.float32(0.8), "top_k": 5, "top_p": np.float32(0.95)}


def export(model: VideoPredictor, folder: Path) -> Any:
    export_savedmodel(model, folder / "1")
    return tf.saved_model.load(folder / "1")


def answer(served: Any, endpoint: str, **inputs: Any) -> dict:
    tensors = {name: tf.constant(x) for name, x in inputs.items() if x is not None}
    return {k: v.numpy() for k, v in served.signatures[endpoint](**tensors).items()}


@pytest.mark.parametrize(
    ("kind", "guidance"),
    [
        ("discrete", 0.7),
        ("continuous", 0.0),
        ("none", 0.0),
        *(pytest.param(kind, 0.0, marks=pytest.mark.long) for kind in ("discrete", "buttons")),
    ],
)
def test_predict_and_steps_are_those_of_python(kind: str, guidance: float, tmp_path: Path) -> None:
    model, context, steps = make(kind, sharp=0.4), frames(3, CONTEXT + 1), 4
    model.guidance = guidance
    served = export(model, tmp_path)
    given = actions(kind, 3, steps, seed=1)
    length = {"steps": steps} if given is None else {}
    expected = model.predict_frames(
        context, given, **length, seed=3, temperature=0.8, top_k=5, top_p=0.95
    )
    got = answer(served, "predict", frames=context, actions=given, **length, **HOW)
    np.testing.assert_array_equal(got["frames"], expected)

    state = answer(served, "start", frames=context)
    python = model.start(context)
    np.testing.assert_array_equal(state["codes"], python["codes"])
    for step in range(steps):
        action = None if given is None else given[:, step]
        got = answer(served, "step", **state, actions=action, **HOW)
        np.testing.assert_array_equal(got.pop("frames"), expected[:, step])
        state = got
        frame, python = model.step(python, action, seed=3, temperature=0.8, top_k=5, top_p=0.95)
        np.testing.assert_array_equal(frame, expected[:, step])

    empty = answer(
        served, "predict", frames=context[:0],
        actions=None if given is None else given[:0], **length, **HOW,
    )  # fmt: skip
    assert empty["frames"].shape == (0, steps, 8, 12, 3)
    np.testing.assert_array_equal(
        answer(served, "encode", images=context[:, 0])["codes"], model.vqvae.encode(context[:, 0])
    )


BAD: dict[str, tuple] = {
    "short context": ("predict", {"frames": frames(3, CONTEXT - 1)}, "frames must be at least 2"),
    "another size": ("predict", {"frames": frames(3, 3)[:, :, :4]}, "frames must have shape"),
    "action": ("predict", {"actions": np.full((3, 2), 3, "int32")}, r"actions must be in \[0, 3\)"),
    "too much": (
        "predict",
        {"frames": frames(175, CONTEXT), "actions": np.zeros((175, 1024), "int32")},
        r"batch \* steps must be of at most 1048576 codes in all, got\] \[1075200\]",
    ),
    "examples": (
        "predict",
        {"actions": np.zeros((2, 2), "int32")},
        r"of as many examples as frames, got\] \[2\] \[of\] \[3\]",
    ),
    "temperature": ("predict", {"temperature": np.float32(0)}, "temperature must be positive"),
    "top_p": ("predict", {"top_p": np.float32(2)}, "top_p must be"),
    "no actions": ("predict", {"actions": np.zeros((3, 0), "int32")}, "actions must be a positive"),
    "number": ("step", {"number": -1}, "number must be at least 0"),
    "codes": ("step", {"codes": np.full((3, 2, 2, 3), 7, "int32")}, r"codes must be in \[0, 7\)"),
    "state": ("step", {"codes": np.zeros((3, 1, 2, 3), "int32")}, "codes must be of at least 2"),
    "grid": ("step", {"codes": np.zeros((3, 2, 3, 3), "int32")}, "codes must have shape"),
}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return export(make(), tmp_path_factory.mktemp("served"))


@pytest.mark.parametrize("name", BAD)
def test_bad_requests_are_invalid_arguments(name: str, served: Any) -> None:
    endpoint, spoiled, message = BAD[name]
    good = {"frames": frames(3, 3), "actions": actions("discrete", 3, 2), **HOW}
    if endpoint == "step":
        state = {"codes": np.zeros((3, 2, 2, 3), "int32"), "number": 0}
        good = {**state, "actions": np.zeros(3, "int32"), **HOW}
    answer(served, endpoint, **good)
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        answer(served, endpoint, **{**good, **spoiled})
    answer(served, endpoint, **good)


def test_vectors_are_checked(tmp_path: Path) -> None:
    served = export(make("continuous"), tmp_path)
    good = {"frames": frames(2, 2), "actions": np.zeros((2, 1, 2), "float32"), **HOW}
    for wrong, message in (
        (np.full((2, 1, 2), np.nan, "float32"), "actions must be finite"),
        (np.zeros((2, 1, 3), "float32"), r"actions must have shape \(batch, steps, 2\)"),
        (np.zeros((2, 1025, 2), "float32"), "actions must be at most 1024, got"),
    ):
        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            answer(served, "predict", **{**good, "actions": wrong})


def test_bad_exports_are_refused_by_name(tmp_path: Path) -> None:
    model = make()
    with pytest.raises(ValueError, match="prior: a VideoPredictor is one itself"):
        export_savedmodel(model, tmp_path / "1", prior=PixelCNN((2, 3), 7))
    model.frame_model.weights[0].assign(model.frame_model.weights[0] * np.nan)
    with pytest.raises(ValueError, match="not finite"):
        export_savedmodel(model, tmp_path / "1")
    assert not (tmp_path / "1").exists()


def test_actions_that_half_precision_cannot_hold(tmp_path: Path) -> None:
    served = export(make("continuous", dtype="mixed_float16"), tmp_path)
    large = np.full((1, 2, 2), 1e5, "float32")
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"actions must be in \[-65504, 65504"):
        answer(served, "predict", frames=frames(1, CONTEXT), actions=large, **HOW)
