"""VideoVQVAE: codes of beginnings are beginnings of codes; a VideoPredictor over them."""

import itertools
import re
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from keras_vqvae import VideoPredictor, VideoVQVAE, sampling
from tests.checks import (
    assert_same,
    check_model,
    floats,
    gradient,
    images,
    num_entries,
    sharpened,
    to_numpy,
)
from tests.inside import inside
from tests.models import test_video

SHAPE, GRID, EACH = (8, 12, 3), (2, 3), 2
NUM_ACTIONS = test_video.KINDS


def frames(n: int = 3, time: int = 8, seed: int = 0) -> np.ndarray:
    return images(n * time, SHAPE, seed).reshape(n, time, *SHAPE)


def make(**options: Any) -> VideoVQVAE:
    keras.utils.set_random_seed(0)
    sizes = {"hidden": 8, "residual_hidden": 4, "residual_blocks": 1}
    return VideoVQVAE(SHAPE, 7, 4, **{**sizes, **options})


def test_shared_checks(tmp_path: Path) -> None:
    block = 27 * 8 * 4 + 4 + 4 * 8 + 8
    encoder = (64 * 3 * 8 + 8) + (48 * 8 * 8 + 8) + block + (8 * 4 + 4)
    decoder = (27 * 4 * 8 + 8) + block + (48 * 8 * 8 + 8) + (64 * 8 * 3 + 3)
    check_model(lambda **kw: make(**kw), frames(6, 4), tmp_path, trainable=encoder + decoder)


def test_shapes_and_config() -> None:
    model = make()
    codes = model.encode(frames())
    assert codes.dtype == np.int32 and codes.shape == (3, 4, *GRID)
    assert model.decode(codes).shape == frames().shape
    assert model.grid_shape == (None, *GRID) and model.frames_per_code == EACH
    assert model.compression_ratio == pytest.approx(2 * 8 * 12 * 3 * 8 / (6 * np.log2(7)))
    assert model.image_shape == SHAPE
    assert model.encode(frames()[:0]).shape == (0, 4, *GRID)
    other = VideoVQVAE((16, 8, 1), 7, 4, hidden=4, downsampling=(3, 8, 2))
    assert other.encode(images(6, (16, 8, 1))[None]).shape == (1, 2, 2, 4)


def test_a_beginning_is_coded_and_decoded_as_in_the_whole() -> None:
    model, x = make(), frames()
    codes = model.encode(x)
    np.testing.assert_array_equal(model.encode(x[:, :4]), codes[:, :2])
    np.testing.assert_array_equal(model.decode(codes[:, :2]), model.decode(codes)[:, :4])


def test_causality_by_gradient() -> None:
    """Code t sees frames up to its last, and all of its own; frame t sees codes up to its own."""
    model = make()
    steps = 4
    x, z = floats((1, steps * EACH, *SHAPE)), floats((1, steps, *GRID, 4))
    for step in range(steps):
        seen = gradient(lambda x, s=step: ops.sum(model.encoder(x)[:, s]), x)
        seen = np.any(seen != 0, (0, 2, 3, 4))
        assert not seen[(step + 1) * EACH :].any() and seen[step * EACH : (step + 1) * EACH].all()
        for frame in range(step * EACH, (step + 1) * EACH):
            seen = gradient(lambda z, f=frame: ops.sum(model.decoder(z)[:, f]), z)
            seen = np.any(seen != 0, (0, 2, 3, 4))
            assert not seen[step + 1 :].any() and seen[step]


@pytest.mark.parametrize("blocks", [1, 2])
def test_context_is_what_is_seen(blocks: int) -> None:
    model = make(residual_blocks=blocks)
    steps = 16
    x, z = floats((1, steps * EACH, *SHAPE)), floats((1, steps, *GRID, 4))
    seen = gradient(lambda x: ops.sum(model.encoder(x)[:, -1]), x)
    first = int(np.flatnonzero(np.any(seen != 0, (0, 2, 3, 4)))[0])
    assert model.encoder.context == (steps - 1 - first // EACH, 0)
    seen = gradient(lambda z: ops.sum(model.decoder(z)[:, -EACH:]), z)
    first = int(np.flatnonzero(np.any(seen != 0, (0, 2, 3, 4)))[0])
    assert model.decoder.context == (steps - 1 - first, 0)


@pytest.mark.long
@pytest.mark.tensorflow  # XLA takes half a minute
def test_it_learns() -> None:
    keras.utils.set_random_seed(1)
    model = VideoVQVAE(SHAPE, 16, 4, hidden=8, residual_blocks=1)
    model.compile(keras.optimizers.Adam(3e-3))
    levels = np.arange(0, 256, 8, dtype="uint8")[:, None, None, None, None]
    x = np.broadcast_to(levels, (32, 4, *SHAPE))
    history = model.fit(x, batch_size=8, epochs=40, verbose=0).history
    assert history["loss"][-1] < history["loss"][0] - 1
    error = np.abs(model.reconstruct(x).astype(float) - x).mean()
    assert error < 20, "a mean grey level would be off by 64"


@pytest.mark.parametrize(
    "x, message",
    [
        (frames()[0], "frames must have shape (batch, time, 8, 12, 3), got (8, 8, 12, 3)"),
        (frames()[:, :, :4], "frames must have shape (batch, time, 8, 12, 3)"),
        (frames()[:, :5], "a multiple of 2 (frames_per_code) in number, got 5"),
        (frames()[:, :0], "a multiple of 2 (frames_per_code) in number, got 0"),
        (frames().astype("float32"), "frames must be uint8"),
        ([1, 2], "frames must be one uint8 array"),
    ],
)
def test_bad_frames_are_refused_by_name(x: Any, message: str) -> None:
    model = make()
    model.compile("sgd")
    with pytest.raises(ValueError, match=re.escape(message)):
        model.fit(x, verbose=0)
    if hasattr(x, "shape"):
        with pytest.raises(ValueError, match=re.escape(message)):
            model.encode(x)


def test_bad_arguments_and_codes_are_refused_by_name() -> None:
    for wrong in (4, (4, 4)):
        with pytest.raises(ValueError, match=r"downsampling must be \(time, height, width\)"):
            make(downsampling=wrong)
    with pytest.raises(ValueError, match="side 8 must be divisible by downsampling=16"):
        make(downsampling=(2, 16, 4))
    with pytest.raises(ValueError, match=r"codes must have shape \(batch, any, 2, 3\)"):
        make().decode(np.zeros((1, 2, 3), "int32"))
    with pytest.raises(ValueError, match=r"codes must be in \[0, 7\)"):
        make().decode(np.full((1, 2, 2, 3), 7, "int32"))


# A predictor over its codes.

CONTEXT, TIME = 4, 8
PAST, STEPS = CONTEXT // EACH, (TIME - CONTEXT) // EACH


def predictor(kind: str = "discrete", **options: Any) -> VideoPredictor:
    given = {} if kind == "none" else {"actions": kind}
    sizes = {"context_frames": CONTEXT, "hidden": 8, "past_dilations": (1, 2), "num_layers": 3}
    return VideoPredictor(make(), NUM_ACTIONS[kind], **given, **{**sizes, **options})


def actions(kind: str, n: int = 3, time: int = TIME, seed: int = 0) -> np.ndarray | None:
    return test_video.actions(kind, n, time, seed)


def codes(n: int = 3, steps: int = TIME // EACH, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 7, (n, steps, *GRID)).astype("int32")


def data(kind: str, x: np.ndarray) -> Any:
    given = actions(kind, len(x))
    return x if given is None else {"frames" if x.ndim == 5 else "codes": x, "actions": given}


@pytest.mark.parametrize("kind", ["buttons", pytest.param("none", marks=pytest.mark.long)])
def test_shared_checks_of_its_predictor(kind: str, tmp_path: Path) -> None:
    model = predictor(kind)
    parts = (inside(model).past, inside(model).changes, inside(model).scale, model.frame_model)
    check_model(
        lambda **kw: predictor(kind, **kw),
        data(kind, frames(4) if kind == "none" else codes(4)),
        tmp_path,
        trainable=sum(num_entries(part.trainable_weights) for part in parts),
        float32_layers=lambda model: [model.vqvae.quantizer],
    )


def test_frames_and_their_codes_are_the_same_data() -> None:
    model, x = sharpened(predictor()), frames()
    encoded = model.vqvae.encode(x)
    by_frames, by_codes = (model(data("discrete", given)) for given in (x, encoded))
    assert_same(by_frames, by_codes)
    np.testing.assert_array_equal(to_numpy(by_codes["codes"]), encoded[:, PAST:])
    assert tuple(by_codes["outputs"].shape) == (3, STEPS, *GRID, 7)


@pytest.mark.locked
def test_a_step_sees_the_actions_that_lead_to_its_frames() -> None:
    """By gradient: step s stands for frames 2s and 2s + 1, led to by the actions before them."""
    model, given = predictor("continuous"), floats((STEPS, TIME, 2))
    x = codes(STEPS)
    select = np.eye(STEPS, dtype="float32")[:, :, None, None, None]
    weights = floats((7,), 1)

    def chosen(actions: Any) -> Any:
        return ops.sum(model({"codes": x, "actions": actions})["outputs"] * select * weights)

    seen = np.any(gradient(chosen, given) != 0, -1)
    for step in range(STEPS):
        frame = CONTEXT + step * EACH
        expected = np.zeros(TIME, bool)
        expected[frame - 1 : frame - 1 + EACH] = True
        np.testing.assert_array_equal(seen[step], expected)


@pytest.mark.locked
@pytest.mark.parametrize(
    "kind",
    [
        "discrete",
        *(pytest.param(k, marks=pytest.mark.long) for k in NUM_ACTIONS if k != "discrete"),
    ],
)
def test_the_cached_rollout_is_the_naive_one(kind: str) -> None:
    model, context, steps = sharpened(predictor(kind)), codes(3, PAST), 3
    given = actions(kind, 3, steps * EACH, seed=1)
    how: dict = {"temperature": 0.8, "top_k": 5, "top_p": 0.95, "seed": 3}
    length = {"steps": steps * EACH} if given is None else {}
    drawn = model.imagine(context, given, **how, **length)
    options = sampling.Options(np.float32(0.8), np.int32(5), np.float32(0.95))
    u = sampling.given_frames(GRID, np.arange(steps), np.arange(3), 3).u
    u = to_numpy(u).reshape(steps, 3, -1)
    known = np.concatenate([context, np.zeros((3, steps, *GRID), "int32")], 1)
    for step, place in itertools.product(range(steps), range(u.shape[2])):
        x: Any = known
        if given is not None:  # those of the context are not looked at, nor is the last
            early = np.zeros((3, CONTEXT - 1, *given.shape[2:]), given.dtype)
            late = np.zeros((3, 1, *given.shape[2:]), given.dtype)
            x = {"codes": known, "actions": np.concatenate([early, given, late], 1)}
        logits = to_numpy(model(x)["outputs"])[:, step].reshape(3, -1, 7)[:, place]
        known[:, PAST + step].reshape(3, -1)[:, place] = to_numpy(
            sampling.draw(logits, u[step, :, place], options)
        )
    np.testing.assert_array_equal(drawn, known[:, PAST:])
    assert len(np.unique(drawn)) > 2  # or nothing could differ


@pytest.mark.locked
@pytest.mark.parametrize("context_frames", [7, pytest.param(4, marks=pytest.mark.long)])
def test_steps_are_the_whole(context_frames: int) -> None:
    """Beyond the number of codes that are kept, and from a context of an odd number of frames."""
    model, context = sharpened(predictor()), frames(2, context_frames)
    steps = model.codes_kept + 3
    given = actions("discrete", 2, steps * EACH)
    whole = model.predict_frames(context, given, seed=1)
    assert whole.dtype == np.uint8 and whole.shape == (2, steps * EACH, *SHAPE)
    assert len(np.unique(whole[0], axis=0)) > 3
    even = context[:, context_frames % EACH :]
    past = model.vqvae.encode(even)
    drawn = model.imagine(past, given, seed=1)
    decoded = model.vqvae.decode(np.concatenate([past, drawn], 1))
    np.testing.assert_array_equal(whole, decoded[:, even.shape[1] :])
    state = model.start(context)
    for step in range(steps):
        at = slice(step * EACH, (step + 1) * EACH)
        made, state = model.step(state, given[:, at], seed=1)
        np.testing.assert_array_equal(made, whole[:, at])
        assert state["codes"].shape[1] <= model.codes_kept
    assert model.predict_frames(context[:0], given[:0]).shape == (0, steps * EACH, *SHAPE)


def test_bits_are_told_by_frame() -> None:
    model, x = sharpened(predictor()), data("discrete", codes())
    model.compile("sgd")
    logs = model.evaluate(x, verbose=0, return_dict=True)
    bits = -np.mean(model.log_prob(x)) / np.log(2) / (TIME - CONTEXT)
    assert logs["bits_per_frame"] == pytest.approx(bits, rel=1e-5)


def test_bad_data_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="context_frames=3 must be a multiple of the 2 frames"):
        predictor(context_frames=3)
    model, x = predictor(), data("discrete", frames())
    model.compile("sgd")
    for wrong, message in (
        ({"frames": frames(3, 7), "actions": x["actions"][:, :7]}, "a multiple of 2"),
        ({"codes": codes(), "actions": x["actions"][:, :4]}, "of 3 examples and 8 frames"),
        ({"codes": codes(3, 2), "actions": x["actions"][:, :4]}, "more than context_frames=4"),
    ):
        with pytest.raises(ValueError, match=message):
            model.fit(wrong, verbose=0)
    with pytest.raises(ValueError, match="steps come by 2 frames"):
        model.predict_frames(frames(), actions("discrete", 3, 3))
    with pytest.raises(ValueError, match="at least context_frames=4 frames, got 2"):
        model.predict_frames(frames(3, 2), actions("discrete", 3, 2))
    with pytest.raises(ValueError, match="action must be of 2 frames, got 4"):
        model.step(model.start(frames()), actions("discrete", 3, 4))
    with pytest.raises(ValueError, match="steps come by 2 frames"):
        predictor("none").predict_frames(frames(), steps=3)


def test_one_code_takes_no_bits() -> None:
    assert VideoVQVAE(SHAPE, 1, 4, hidden=4).compression_ratio == float("inf")
