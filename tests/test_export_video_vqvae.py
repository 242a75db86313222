"""SavedModels of a VideoVQVAE, and of a predictor over its codes."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

if keras.backend.backend() != "tensorflow":
    pytest.skip("SavedModels are TensorFlow's", allow_module_level=True)

import tensorflow as tf

from keras_vqvae import export_savedmodel
from tests.models.test_video_vqvae import (
    CONTEXT,
    EACH,
    GRID,
    SHAPE,
    actions,
    frames,
    make,
    predictor,
    sharpened,
)
from tests.test_export_video import HOW, answer

pytestmark = [pytest.mark.programs, pytest.mark.tensorflow]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("served")
    model = sharpened(predictor())
    export_savedmodel(model, folder / "1")
    return model, tf.saved_model.load(folder / "1")


def test_codes_and_frames_of_any_length(tmp_path: Path) -> None:
    model = make()
    export_savedmodel(model, tmp_path / "1")
    loaded = tf.saved_model.load(tmp_path / "1")
    for time in (2, 8):
        x = frames(3, time)
        codes = answer(loaded, "encode", frames=x)["codes"]
        np.testing.assert_array_equal(codes, model.encode(x))
        decoded = answer(loaded, "decode", codes=codes)["frames"]
        np.testing.assert_array_equal(decoded, model.decode(codes))
        np.testing.assert_array_equal(
            answer(loaded, "serving_default", frames=x)["frames"], decoded
        )
    assert answer(loaded, "encode", frames=frames()[:0])["codes"].shape == (0, 4, *GRID)


@pytest.mark.parametrize("context_frames", [4, 7])
def test_predict_and_steps_are_those_of_python(served: Any, context_frames: int) -> None:
    model, loaded = served
    steps = model.codes_kept + 2
    context = frames(2, context_frames)
    given = actions("discrete", 2, steps * EACH)
    how = {"seed": 3, "temperature": 0.8, "top_k": 5, "top_p": 0.95}
    expected = model.predict_frames(context, given, **how)
    got = answer(loaded, "predict", frames=context, actions=given, **HOW)
    np.testing.assert_array_equal(got["frames"], expected)
    state = answer(loaded, "start", frames=context)
    for step in range(steps):
        at = slice(step * EACH, (step + 1) * EACH)
        state = answer(loaded, "step", **state, actions=given[:, at], **HOW)
        np.testing.assert_array_equal(state.pop("frames"), expected[:, at])
    empty = answer(loaded, "predict", frames=context[:0], actions=given[:0], **HOW)
    assert empty["frames"].shape == (0, steps * EACH, *SHAPE)


def test_without_actions_the_steps_are_whole_ones(tmp_path: Path) -> None:
    model = predictor("none")
    export_savedmodel(model, tmp_path / "1")
    loaded = tf.saved_model.load(tmp_path / "1")
    x = frames(2, CONTEXT)
    got = answer(loaded, "predict", frames=x, steps=2 * EACH, **HOW)
    assert got["frames"].shape == (2, 2 * EACH, *SHAPE)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"multiple of 2 frames, got\] \[3\]"):
        answer(loaded, "predict", frames=x, steps=3, **HOW)


BAD: dict[str, tuple] = {
    "odd": ("encode", {"frames": frames(1, 3)}, "frames must be a positive multiple of 2"),
    "none": ("encode", {"frames": frames(1, 0)}, "frames must be a positive multiple of 2"),
    "sides": ("encode", {"frames": frames()[:, :, :4]}, r"\(batch, time, 8, 12, 3\)"),
    "no codes": ("decode", {"codes": np.zeros((1, 0, *GRID), "int32")}, "positive multiple of 1"),
    "grid": ("decode", {"codes": np.zeros((1, 2, 3, 3), "int32")}, "codes must have shape"),
    "context": ("predict", {"frames": frames(3, 2)}, f"at least {CONTEXT}"),
    "odd actions": ("predict", {"actions": np.zeros((3, 3), "int32")}, "a positive multiple of 2"),
    "actions of two steps": (
        "step",
        {"actions": np.zeros((3, 4), "int32")},
        r"must have shape \(batch, 2\)",
    ),
    "too few codes": ("step", {"codes": np.zeros((3, 1, *GRID), "int32")}, "at least 2 steps"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_requests_are_invalid_arguments(name: str, served: Any) -> None:
    loaded = served[1]
    endpoint, spoiled, message = BAD[name]
    good = {
        "encode": {"frames": frames()},
        "decode": {"codes": np.zeros((3, 2, *GRID), "int32")},
        "predict": {"frames": frames(), "actions": actions("discrete", 3, 2), **HOW},
        "step": {"codes": np.zeros((3, 2, *GRID), "int32"), "number": 0,
                 "actions": actions("discrete", 3, 2), **HOW},
    }[endpoint]  # fmt: skip
    answer(loaded, endpoint, **good)
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        answer(loaded, endpoint, **{**good, **spoiled})
    answer(loaded, endpoint, **good)
