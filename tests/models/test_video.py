"""VideoPredictor: what sees what, cached equals naive rollout, learning, actions, bad input."""

import itertools
import json
import re
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from keras_vqvae import ImageVQVAE, VideoPredictor, backend, sampling
from keras_vqvae.models.video import guided
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

TIME, CONTEXT = 5, 2
GRID = (2, 3)


def frames(n: int = 4, time: int = TIME, seed: int = 0) -> np.ndarray:
    return images(n * time, (8, 12, 3), seed).reshape(n, time, 8, 12, 3)


def vqvae(**options: Any) -> ImageVQVAE:
    keras.utils.set_random_seed(0)
    return ImageVQVAE((8, 12, 3), 7, 4, hidden=8, residual_hidden=4, **options)


KINDS = {"none": 0, "discrete": 3, "buttons": 2, "continuous": 2}


def make(kind: str = "discrete", sharp: float = 0.0, **options: Any) -> VideoPredictor:
    actions = {} if kind == "none" else {"actions": kind}
    sizes = {"context_frames": CONTEXT, "hidden": 8, "past_dilations": (1, 2), "num_layers": 3}
    model = VideoPredictor(vqvae(), KINDS[kind], **actions, **{**sizes, **options})
    return sharpened(model, sharp) if sharp else model


def actions(kind: str, n: int = 4, time: int = TIME, seed: int = 0) -> np.ndarray | None:
    rng = np.random.default_rng(seed)
    return {
        "none": None,
        "discrete": rng.integers(0, 3, (n, time)).astype("int32"),
        "buttons": rng.integers(0, 2, (n, time, 2)).astype("int32"),
        "continuous": rng.normal(size=(n, time, 2)).astype("float32"),
    }[kind]


def codes(n: int = 4, time: int = TIME, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 7, (n, time, *GRID)).astype("int32")


def data(kind: str, x: np.ndarray) -> Any:
    name = "frames" if x.ndim == 5 else "codes"
    given = actions(kind, len(x), x.shape[1])
    return x if given is None else {name: x, "actions": given}


# What differs between kinds of actions, other tests see.
SHORT_KINDS = [
    "discrete",
    *(pytest.param(k, marks=pytest.mark.long) for k in KINDS if k != "discrete"),
]


@pytest.mark.parametrize("kind", SHORT_KINDS)
def test_shared_checks(kind: str, tmp_path: Path) -> None:
    model = make(kind)
    parts = (inside(model).past, inside(model).changes, inside(model).scale, model.frame_model)
    own = sum(num_entries(part.trainable_weights) for part in parts)
    check_model(
        lambda **kw: make(kind, **kw),
        data(kind, frames() if kind in ("none", "discrete") else codes()),
        tmp_path,
        trainable=own,
        float32_layers=lambda model: [model.vqvae.quantizer],
    )


def test_frames_and_their_codes_are_the_same_data() -> None:
    model, x = make(sharp=0.5), frames()
    encoded = to_numpy(model.vqvae.encode(x.reshape(-1, 8, 12, 3))).reshape(4, TIME, *GRID)
    by_frames, by_codes = (model(data("discrete", given)) for given in (x, encoded))
    assert_same(by_frames, by_codes)
    np.testing.assert_array_equal(to_numpy(by_codes["codes"]), encoded[:, CONTEXT:])
    assert tuple(by_codes["outputs"].shape) == (4, TIME - CONTEXT, *GRID, 7)


def test_training_leaves_the_vqvae_alone() -> None:
    model = make()
    before = to_numpy(model.vqvae.weights)
    model.compile(keras.optimizers.SGD(0.1))
    model.fit(data("discrete", frames()), verbose=0)
    assert_same(model.vqvae.weights, before)


@pytest.mark.locked
@pytest.mark.parametrize("kind", KINDS)
def test_causality_over_time_space_and_actions(kind: str) -> None:
    """By gradient, before any training: each code of a frame sees the frames of its context
    whole, of its own frame what comes before in raster order, the one action that led to it, and
    nothing later."""
    model = make(kind, past_dilations=(1, 2, 1))
    height, width = GRID
    per_frame = height * width
    positions = [(t, p) for t in range(TIME - CONTEXT) for p in range(per_frame)]
    count = len(positions)
    embedded = floats((count, TIME, *GRID, 4 + 8))
    given = None
    if kind != "none":
        given = floats((count, TIME, KINDS[kind]), 1)
    inside(model).nearness = lambda maps, moved: (
        (moved + inside(model).changes(maps)) @ floats((4, 7), 3)
    )
    # What is differentiated by are vectors of codes, and actions as vectors.
    inside(model).vectors = lambda x: x[..., :4]
    inside(model.frame_model).embedding = lambda x: x[..., 4:]
    inside(model).features = lambda x: x
    inside(model).codes_and_actions = lambda x: (
        (x["codes"], x["actions"]) if isinstance(x, dict) else (x, None)
    )
    model.check_data, model.checked = lambda x: None, lambda x: x
    weights = np.random.default_rng(2).normal(size=7).astype("float32")
    select = np.zeros((count, TIME - CONTEXT, per_frame, 1), "float32")
    for row, (t, p) in enumerate(positions):
        select[row, t, p] = 1.0

    def chosen(x: Any, actions: Any) -> Any:
        inputs = x if actions is None else {"codes": x, "actions": actions}
        out = ops.reshape(model(inputs)["outputs"], (count, TIME - CONTEXT, per_frame, 7))
        return ops.sum(out * select * weights)

    seen = gradient(lambda x: chosen(x, given), embedded)
    as_past = np.any(seen[..., :4] != 0, -1).reshape(count, TIME, per_frame)
    within = np.any(seen[..., 4:] != 0, -1).reshape(count, TIME, per_frame)
    for row, (t, p) in enumerate(positions):
        frame = t + CONTEXT
        past = np.zeros((TIME, per_frame), bool)
        past[t:frame] = True
        np.testing.assert_array_equal(as_past[row], past)
        own = np.zeros((TIME, per_frame), bool)
        own[frame, :p] = True
        np.testing.assert_array_equal(within[row], own)
    if kind != "none":
        by_action = gradient(lambda a: chosen(embedded, a), given)
        for row, (t, _) in enumerate(positions):
            led = np.zeros((TIME, KINDS[kind]), bool)
            led[t + CONTEXT - 1] = True
            np.testing.assert_array_equal(by_action[row] != 0, led)


def test_the_nearest_code_is_the_likeliest() -> None:
    """Of likeness alone, without changes, the code that was moved there; as in the formula."""
    model = make("none")
    vectors = to_numpy(inside(model).vectors(np.arange(7, dtype="int32")[None, None]))[0, 0]
    inside(model).changes.set_weights(
        [np.zeros_like(w) for w in inside(model).changes.get_weights()]
    )
    inside(model).scale.set_weights([np.zeros((8, 1), "float32"), np.array([0.5], "float32")])
    codes = np.arange(6).reshape(1, *GRID)
    near = to_numpy(inside(model).nearness(floats((1, *GRID, 8)), vectors[codes]))
    np.testing.assert_array_equal(near.argmax(-1), codes)
    spread = np.mean(np.sum((vectors - vectors.mean(0)) ** 2, -1))
    squares = np.sum((vectors[codes][..., None, :] - vectors) ** 2, -1)
    wanted = -squares / 2 * np.exp(1.4 + 0.5) / spread
    np.testing.assert_allclose(
        near - near.max(-1, keepdims=True), wanted - wanted.max(-1, keepdims=True), atol=1e-4
    )


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_likeness_in_low_precision(policy: str) -> None:
    """With a codebook far from 0 and the largest scale: the order is that of float32."""
    coded = vqvae()
    coded.quantizer.trainable = True
    inside(coded.quantizer).base.assign(inside(coded.quantizer).base + 30.0)
    made = [
        VideoPredictor(
            coded, context_frames=CONTEXT, hidden=8, past_dilations=(1,), num_layers=1, dtype=dtype
        )
        for dtype in ("float32", policy)
    ]
    expected = to_numpy(inside(made[0]).vectors(np.arange(6, dtype="int32").reshape(1, 1, *GRID)))[
        0
    ]
    near = []
    for model in made:
        inside(model).changes.set_weights(
            [np.zeros_like(w) for w in inside(model).changes.get_weights()]
        )
        inside(model).scale.set_weights([np.zeros((8, 1), "float32"), np.array([9.0], "float32")])
        maps = np.zeros((1, *GRID, 8), model.compute_dtype)
        near.append(
            to_numpy(inside(model).nearness(maps, expected.astype("float32"))).astype("float32")
        )
    assert np.isfinite(near[1]).all()
    np.testing.assert_array_equal(near[1].argmax(-1), near[0].argmax(-1))
    np.testing.assert_allclose(near[1], near[0], rtol=0.05, atol=0.5)


def naive(model: VideoPredictor, context: np.ndarray, given: Any, steps: int, seed: int) -> Any:
    """Runs all of the network again for every code, from the same numbers."""
    n = len(context)
    options = sampling.Options(np.float32(0.8), np.int32(5), np.float32(0.95))
    numbers = sampling.given_frames(GRID, np.arange(steps), np.arange(n), seed)
    u = to_numpy(numbers.u).reshape(steps, n, -1)
    known = np.concatenate([context, np.zeros((n, steps, *GRID), "int32")], 1)
    network = backend.jit(lambda x: model(x)["outputs"], model)
    for step, place in itertools.product(range(steps), range(u.shape[2])):
        x: Any = known
        if given is not None:
            # Actions of the context are not looked at.
            early = np.zeros((n, CONTEXT - 1, *given.shape[2:]), given.dtype)
            late = np.zeros((n, 1, *given.shape[2:]), given.dtype)
            x = {"codes": known, "actions": np.concatenate([early, given, late], 1)}
        logits = to_numpy(network(x))[:, step].reshape(n, -1, 7)[:, place]
        if model.guidance:
            frame = known[:, CONTEXT + step]
            maps = np.zeros((n, *GRID, 8), "float32")
            without = to_numpy(model.frame_model.logits(frame, maps)).reshape(n, -1, 7)[:, place]
            plausible = logits >= logits.max(-1, keepdims=True) - 6
            logits = logits + model.guidance * (logits - without)
            logits = np.where(plausible, logits, -np.inf).astype("float32")
        drawn = to_numpy(sampling.draw(logits, u[step, :, place], options))
        known[:, CONTEXT + step].reshape(n, -1)[:, place] = drawn
    return known[:, CONTEXT:]


@pytest.mark.locked
@pytest.mark.parametrize(
    ("kind", "guidance"),
    [
        ("discrete", 0.0),
        ("discrete", 0.7),
        ("continuous", 0.0),
        *(pytest.param(kind, 0.0, marks=pytest.mark.long) for kind in ("none", "buttons")),
    ],
)
def test_the_cached_rollout_is_the_naive_one(kind: str, guidance: float) -> None:
    """Number by number, beyond the length of the context."""
    model, context, steps = make(kind, sharp=0.4), codes(3, CONTEXT), 4
    model.guidance = guidance
    given = actions(kind, 3, steps, seed=1)
    options: dict = {"temperature": 0.8, "top_k": 5, "top_p": 0.95, "seed": 3}
    length = {"steps": steps} if given is None else {}
    drawn = model.imagine(context, given, **options, **length)
    np.testing.assert_array_equal(drawn, naive(model, context, given, steps, 3))
    assert len(np.unique(drawn)) > 3


@pytest.mark.locked
def test_fewer_steps_examples_or_a_longer_context_change_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, context, given = make(sharp=0.4), codes(5, 4), actions("discrete", 5, 6)
    whole = model.imagine(context, given, seed=1)
    np.testing.assert_array_equal(model.imagine(context, given[:, :2], seed=1), whole[:, :2])
    np.testing.assert_array_equal(model.imagine(context[:2], given[:2], seed=1), whole[:2])
    np.testing.assert_array_equal(model.imagine(context[:, -CONTEXT:], given, seed=1), whole)
    np.testing.assert_array_equal(model.imagine(context, given, seed=1, batch_size=2), whole)
    monkeypatch.setattr("keras_vqvae.models.video.CODES_A_CALL", 1)
    np.testing.assert_array_equal(model.imagine(context, given, seed=1), whole)
    assert np.any(model.imagine(context, given, seed=2) != whole)


def test_predicted_frames_are_decoded_codes() -> None:
    model, context, given = make(sharp=0.4), frames(3, 3), actions("discrete", 3, 2)
    predicted = model.predict_frames(context, given, seed=0)
    assert predicted.dtype == np.uint8
    assert predicted.shape == (3, 2, 8, 12, 3)
    encoded = to_numpy(model.vqvae.encode(context.reshape(-1, 8, 12, 3))).reshape(3, 3, *GRID)
    drawn = model.imagine(encoded, given, seed=0)
    expected = to_numpy(model.vqvae.decode(drawn.reshape(-1, *GRID)))
    np.testing.assert_array_equal(predicted.reshape(-1, 8, 12, 3), expected)
    assert model.predict_frames(context[:0], given[:0]).shape == (0, 2, 8, 12, 3)
    assert model.predict_frames(context, given[:, :0]).shape == (3, 0, 8, 12, 3)


def moving(n: int, time: int, seed: int) -> dict[str, np.ndarray]:
    """A mark that goes left, stays, or goes right, as it is told, and around the edge."""
    rng = np.random.default_rng(seed)
    given = rng.integers(0, 3, (n, time)).astype("int32")
    place = (rng.integers(0, 3, (n, 1)) + np.cumsum(given - 1, 1) - (given - 1)) % 3
    x = np.zeros((n, time, *GRID), "int32")
    x[:, :, 1] = 1 + (place[..., None] == np.arange(3))
    return {"codes": x, "actions": given}


def test_dropout_hides_the_context_in_training_only() -> None:
    model, x = make(context_dropout=0.5, seed=1), data("discrete", codes(64))
    alone = to_numpy(model.frame_model.logits(x["codes"][:, -1], np.zeros((64, *GRID, 8))))
    whole, dropped = (to_numpy(model(x, training=t)["outputs"])[:, -1] for t in (False, True))
    hidden = np.isclose(dropped, alone, atol=1e-5).all((1, 2, 3))
    kept = np.isclose(dropped, whole, atol=1e-5).all((1, 2, 3))
    assert np.all(hidden != kept)
    assert 0.3 < hidden.mean() < 0.7
    never = make(context_dropout=0.0)
    assert_same(never(x, training=True), never(x))


@pytest.mark.locked
@pytest.mark.tensorflow  # JAX compiles always
@pytest.mark.parametrize("guidance", [0.7, pytest.param(0.0, marks=pytest.mark.long)])
def test_what_xla_draws_is_what_a_graph_draws(guidance: float) -> None:
    model, context, given = make(sharp=0.4), codes(3, CONTEXT), actions("discrete", 3, 10)
    model.guidance = guidance
    drawn = []
    for jit_compile in (False, True):
        model.compile("sgd", jit_compile=jit_compile)
        drawn.append(model.imagine(context, given, seed=0, batch_size=2, verbose=0))
    np.testing.assert_array_equal(*drawn)
    assert len(np.unique(drawn[0])) > 3


def test_guidance_speaks_for_what_the_context_speaks_for() -> None:
    """With logits of which all is known; and it is kept in the file."""
    known, without = np.log([0.6, 0.3, 0.1, 1e-4]), np.log([0.6, 0.1, 0.3, 1e-6])
    made = to_numpy(guided(known, without, 1.0))
    wanted = np.log([0.6, 0.9, 0.1 / 3])  # p²/q; the last one stays out
    np.testing.assert_allclose(made[:3], wanted, atol=1e-5)
    assert made[3] < -1e6
    model = make(guidance=0.25)
    again = VideoPredictor.from_config(model.get_config())
    assert again.guidance == 0.25
    model.guidance = 0
    assert model.get_config()["guidance"] == 0.0
    with pytest.raises(ValueError, match="guidance must be a number of at least 0, got -1"):
        model.guidance = -1
    with pytest.raises(ValueError, match="needs a model that was trained with context_dropout"):
        make(context_dropout=0.0, guidance=0.3)
    with pytest.raises(ValueError, match=r"context_dropout must be in \[0, 1\), got 1.0"):
        make(context_dropout=1.0)


@pytest.mark.locked
def test_guided_predictions_are_other_ones_and_follow_the_attribute() -> None:
    model, context, given = make(sharp=0.4), codes(3, CONTEXT), actions("discrete", 3, 4)
    plain = model.imagine(context, given, seed=0)
    model.guidance = 1.0
    assert np.any(model.imagine(context, given, seed=0) != plain)
    model.guidance = 0.0
    np.testing.assert_array_equal(model.imagine(context, given, seed=0), plain)


@pytest.mark.long
@pytest.mark.tensorflow  # XLA takes a minute
def test_it_learns_to_obey() -> None:
    keras.utils.set_random_seed(0)
    model = make(hidden=16)
    model.compile(keras.optimizers.Adam(0.01))
    model.fit(moving(256, TIME, 0), batch_size=32, epochs=40, verbose=0)
    unseen = moving(32, 10, 1)
    assert model.evaluate(unseen, verbose=0, return_dict=True)["loss"] < 0.02
    drawn = model.imagine(
        unseen["codes"][:, :CONTEXT], unseen["actions"][:, CONTEXT - 1 : -1], seed=0
    )
    assert np.mean(drawn == unseen["codes"][:, CONTEXT:]) > 0.98
    other = (unseen["actions"][:, CONTEXT - 1 : -1] + 1) % 3
    swapped = model.imagine(unseen["codes"][:, :CONTEXT], other, seed=0)
    assert np.mean(swapped[:, 0] == unseen["codes"][:, CONTEXT]) < 0.9


@pytest.mark.locked
def test_bits_are_those_of_the_log_probability() -> None:
    model, x = make(sharp=0.4), data("discrete", codes())
    model.compile("sgd")
    logs = model.evaluate(x, verbose=0, return_dict=True)
    bits = -np.mean(model.log_prob(x)) / np.log(2) / (TIME - CONTEXT)
    assert logs["bits_per_frame"] == pytest.approx(bits, rel=1e-5)
    assert logs["loss"] == pytest.approx(bits / 6, rel=1e-5)
    logits = to_numpy(model(x)["outputs"])
    log_softmax = logits - np.log(np.sum(np.exp(logits), -1, keepdims=True))
    told = np.take_along_axis(log_softmax, x["codes"][:, CONTEXT:, ..., None], -1)
    np.testing.assert_allclose(model.log_prob(x), told.sum((1, 2, 3, 4)), rtol=1e-5)


@pytest.mark.locked
@pytest.mark.tensorflow
@pytest.mark.parametrize(
    "kind, xla", [("buttons", False), pytest.param("buttons", True, marks=pytest.mark.long)]
)
@pytest.mark.graph
def test_bad_actions_in_a_dataset_are_named(kind: str, xla: bool) -> None:
    import tensorflow as tf

    x = data(kind, codes())
    x["actions"] = x["actions"].copy()
    x["actions"].flat[-1] = 3  # the last one of a window leads beyond it, and is checked too
    model = make(kind)
    model.compile("sgd", jit_compile=xla)
    for name, bad in {"actions": x, "codes": data(kind, codes() + 99)}.items():
        with pytest.raises(tf.errors.InvalidArgumentError, match=rf"{name} must be in \[0, \d+\)"):
            model.fit(tf.data.Dataset.from_tensor_slices(bad).batch(2), verbose=0)


@pytest.mark.tensorflow
@pytest.mark.parametrize("xla", [False, True])
@pytest.mark.graph
def test_nan_in_a_dataset_is_named_before_it_does_harm(xla: bool) -> None:
    import tensorflow as tf

    x = data("continuous", codes())
    x["actions"] = x["actions"].copy()
    x["actions"][2, 3, 1] = np.nan
    model = make("continuous")
    model.compile("sgd", jit_compile=xla)
    before = model.get_weights()
    with pytest.raises(tf.errors.InvalidArgumentError, match="actions must be finite, got NaN"):
        model.fit(tf.data.Dataset.from_tensors(x), verbose=0)
    assert_same(model.get_weights(), before)


def test_a_state_that_went_through_json() -> None:
    model, context = make(sharp=0.4), frames(2, CONTEXT)
    begin, action = model.start(context), np.array([1, 2])
    sent = json.loads(json.dumps({k: np.asarray(v).tolist() for k, v in begin.items()}))
    assert_same(model.step(sent, action, seed=0)[0], model.step(begin, action, seed=0)[0])
    for state, act, message in (
        (None, action, "state must be what start or step gave, got None"),
        ({"codes": begin["codes"]}, action, "state must be what start or step gave"),
        ({**begin, "number": -1}, action, "number must be an integer from 0 to .*, got -1"),
        ({**begin, "number": 2**31 - 1}, action, "number must be .*, got 2147483647"),
        ({**begin, "number": 0.5}, action, "number must be an integer from 0 to .*, got 0.5"),
        (begin, np.array([1]), "action must be of 2 examples"),
        (begin, 1, "action must be of 2 examples"),
    ):
        with pytest.raises(ValueError, match=message):
            model.step(state, act)


BAD_DATA: dict[str, tuple] = {
    "too few frames": ("discrete", lambda x: {k: v[:, :2] for k, v in x.items()}, "more than"),
    "no actions": ("discrete", lambda x: {"frames": x["frames"]}, "the keys ['frames']"),
    "both": ("discrete", lambda x: {**x, "codes": codes()}, "a dict must be"),
    "alone": ("discrete", lambda x: x["frames"], "data must be"),
    "actions not asked for": ("none", lambda x: {"frames": x, "actions": 1}, "got the keys"),
    "float frames": ("none", lambda x: x.astype("float32"), "must be uint8"),
    "another size": ("none", lambda x: x[:, :, :, :8], "must have shape (batch, time, 8, 12, 3)"),
    "one video": ("none", lambda x: x[0], "must have shape (batch, time, 8, 12, 3)"),
    "a list of frames": ("none", lambda x: {"frames": x.tolist()}, "frames must be an array"),
    "a list of codes": ("none", lambda _: {"codes": codes().tolist()}, "codes must be an array"),
    "codes out of range": ("none", lambda _: codes() + 1, "must be in [0, 7)"),
    "action out of range": (
        "discrete",
        lambda x: {**x, "actions": x["actions"] + 1},
        "values from 1 to 3",
    ),
    "action of wrong rank": (
        "discrete",
        lambda x: {**x, "actions": x["actions"][..., None]},
        "got shape (4, 5, 1)",
    ),
    "float actions": (
        "discrete",
        lambda x: {**x, "actions": x["actions"] * 1.0},
        "got dtype float64",
    ),
    "integers for vectors": (
        "continuous",
        lambda x: {**x, "actions": np.ones((4, 5, 2), "int32")},
        "got dtype int32",
    ),
    "NaN": (
        "continuous",
        lambda x: {**x, "actions": np.full((4, 5, 2), np.nan, "float32")},
        "must be finite",
    ),
    "a button of 2": (
        "buttons",
        lambda x: {**x, "actions": np.full((4, 5, 2), 2, "int32")},
        "values from 2 to 2",
    ),
    "too few actions": (
        "discrete",
        lambda x: {**x, "actions": x["actions"][:, :4]},
        "of 4 examples and 5 frames",
    ),
}


@pytest.mark.parametrize("name", BAD_DATA)
def test_bad_data_is_refused_by_name(name: str) -> None:
    kind, spoil, message = BAD_DATA[name]
    model = make(kind)
    model.compile("sgd")
    with pytest.raises(ValueError, match=re.escape(message)):
        model.fit(spoil(data(kind, frames())), verbose=0)


def test_buttons_may_be_bool() -> None:
    model, x, given = make("buttons", sharp=0.4), frames(3, 3), actions("buttons", 3, 2)
    of_integers, of_bools = (
        model.predict_frames(x, held, seed=0) for held in (given, given.astype(bool))
    )
    np.testing.assert_array_equal(of_integers, of_bools)
    model.compile("sgd")
    whole = data("buttons", frames())
    model.fit({**whole, "actions": whole["actions"].astype(bool)}, verbose=0)


def test_bad_predictions_are_refused_by_name() -> None:
    model, x, given = make(), frames(3, 3), actions("discrete", 3, 2)
    for arguments, message in (
        ({"context": x[:, :1]}, "at least context_frames=2 frames, got 1"),
        ({"context": x[0]}, "must have shape (batch, time"),
        ({"actions": None}, "actions are missing"),
        ({"actions": given[:2]}, "of 3 examples"),
        ({"actions": given + 5}, "actions must be integers (batch, frames) in [0, 3)"),
        ({"steps": 2}, "steps is for models without actions"),
        ({"temperature": 0}, "temperature must be positive"),
        ({"seed": 0.5}, "seed must be an integer"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            model.predict_frames(**{"context": x, "actions": given, **arguments})
    state = model.start(x)
    for changed, action, message in (
        ({}, np.int32(2), "action must be of 3 examples, np.array([...]), got"),
        ({}, given[:2, 0], "action must be of 3 examples, np.array([...]), got"),
        ({"codes": state["codes"] + 7}, given[:, 0], "codes must be in [0, 7)"),
        ({"codes": state["codes"][:, :1]}, given[:, 0], "at least context_frames=2 frames, got 1"),
        ({"codes": state["codes"][..., :2]}, given[:, 0], "codes must have shape"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            model.step({**state, **changed}, action)
    model = make("none")
    with pytest.raises(ValueError, match="steps is missing"):
        model.predict_frames(x)
    with pytest.raises(ValueError, match="has none; give num_actions"):
        model.predict_frames(x, given)


def test_bad_arguments_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="vqvae must be a built VQVAE"):
        VideoPredictor(None)
    with pytest.raises(ValueError, match="actions must be one of"):
        VideoPredictor(vqvae(), 3, actions="keys")
    for wrong in (-1, 1.5, True):
        with pytest.raises(ValueError, match="num_actions must be an integer"):
            VideoPredictor(vqvae(), wrong)
    with pytest.raises(ValueError, match="context_frames must be a positive integer"):
        VideoPredictor(vqvae(), context_frames=0)
    for name, wrong in {
        "guidance": "x", "context_dropout": "a", "reach": ("a", 2), "past_dilations": (1.5,),
    }.items():  # fmt: skip
        with pytest.raises(ValueError, match=f"{name} must be"):
            VideoPredictor(vqvae(), 3, **{name: wrong})


def test_its_vqvae_does_not_train_on_by_mistake() -> None:
    frozen = vqvae()
    frozen.compile("sgd")
    x = frames().reshape(-1, *frames().shape[2:])
    frozen.fit(x, verbose=0)
    VideoPredictor(frozen, 3)
    before = frozen.get_weights()
    with pytest.raises(ValueError, match=r"is frozen \(trainable=False\), as the VQ-VAE of a Vid"):
        frozen.fit(x, verbose=0)
    assert_same(before, frozen.get_weights())


@pytest.mark.locked
def test_it_loads_without_a_warning_and_goes_on(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    trained, x = vqvae(), data("discrete", frames())
    trained.compile("adam")
    trained.fit(frames()[:, 0], verbose=0)
    model = VideoPredictor(trained, 3, context_frames=CONTEXT, hidden=8, num_layers=1)
    model.compile("adam")
    model.fit(x, verbose=0)
    model.save(tmp_path / "m.keras")
    recwarn.clear()
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert [
        str(warning.message) for warning in recwarn if "optimizer" in str(warning.message)
    ] == []
    assert_same(loaded.get_weights(), model.get_weights())
    assert_same([v.value for v in loaded.optimizer.variables], model.optimizer.variables)
    loaded.fit(x, verbose=0)


def test_what_is_no_float32_is_no_action() -> None:
    x = data("continuous", codes())
    x["actions"] = np.full(x["actions"].shape, 1e300)
    with pytest.raises(ValueError, match="actions must be finite, got NaN or infinity"):
        make("continuous").log_prob(x)
    x["actions"] = np.full(x["actions"].shape, 1e5, "float32")  # no float16
    assert np.isfinite(make("continuous").log_prob(x)).all()
    with pytest.raises(ValueError, match="got NaN or infinity, as float16"):
        make("continuous", dtype="mixed_float16").log_prob(x)


@pytest.mark.locked
@pytest.mark.tensorflow
@pytest.mark.parametrize("policy, value", [("float32", 1e300), ("mixed_float16", 1e5)])
@pytest.mark.graph
def test_what_is_no_number_of_the_networks_is_named_in_a_dataset(policy: str, value: float) -> None:
    import tensorflow as tf

    x = data("continuous", codes())
    x["actions"] = np.full(x["actions"].shape, value)
    model = make("continuous", dtype=policy)
    model.compile("sgd", jit_compile=False)
    before = model.get_weights()
    with pytest.raises(tf.errors.InvalidArgumentError, match="actions must be finite, got NaN"):
        model.fit(tf.data.Dataset.from_tensors(x), verbose=0)
    assert_same(model.get_weights(), before)


@pytest.mark.locked
@pytest.mark.tensorflow
@pytest.mark.graph
def test_actions_and_codes_of_few_and_of_many_bytes() -> None:
    import tensorflow as tf

    x = data("discrete", codes())
    model = VideoPredictor(vqvae(), 300, context_frames=CONTEXT, hidden=8, num_layers=1)
    model.compile("sgd", jit_compile=False)
    few = {**x, "actions": np.full(x["actions"].shape, 200, "uint8")}
    bits = model.evaluate(tf.data.Dataset.from_tensors(few), verbose=0)
    same = {**x, "actions": few["actions"].astype("int32")}
    assert bits == model.evaluate(tf.data.Dataset.from_tensors(same), verbose=0)
    for name in ("actions", "codes"):
        many = {**x, name: x[name].astype("int64") + 2**32}  # int32 would forget that
        with pytest.raises(tf.errors.InvalidArgumentError, match=rf"{name} must be in \[0, "):
            model.evaluate(tf.data.Dataset.from_tensors(many), verbose=0)


@pytest.mark.parametrize("part", ["_past", "_changes", "frame_model", "vqvae"])
def test_diverged_weights_are_named(part: str) -> None:
    model, context = make(), frames(2, CONTEXT)
    begin = model.start(context)
    weight = getattr(model, part).weights[0]
    weight.assign(np.full(weight.shape, np.nan))
    for wrong in (
        lambda: model.imagine(begin["codes"], np.zeros((2, 1), "int32")),
        lambda: model.step(begin, np.zeros(2, "int32")),
    ):
        with pytest.raises(ValueError, match="are not finite: training has diverged"):
            wrong()


def test_a_step_of_nobody() -> None:
    model = make()
    none = model.start(frames(0, CONTEXT))
    frame, state = model.step(none, np.zeros(0, "int32"))
    assert frame.shape == (0, 8, 12, 3) and frame.dtype == np.uint8
    assert state["codes"].shape == (0, CONTEXT, *GRID) and state["number"] == 1


def test_integers_of_numpy_are_arguments() -> None:
    one = np.int64(1)
    sizes = {"hidden": np.int64(8), "past_dilations": (one,), "reach": (one, np.int64(2))}
    model = make(**sizes, context_frames=np.int64(CONTEXT), num_layers=one, seed=one)
    same = make(hidden=8, past_dilations=(1,), reach=(1, 2), num_layers=1, seed=1)
    sent, expected = (json.loads(json.dumps(each.get_config())) for each in (model, same))
    for name in ("context_frames", "hidden", "past_dilations", "reach", "num_layers", "seed"):
        assert sent[name] == expected[name]


@pytest.mark.tensorflow
@pytest.mark.parametrize("kind", SHORT_KINDS)
def test_kerass_export(kind: str, tmp_path: Path) -> None:
    import tensorflow as tf

    model, x = make(kind, sharp=0.4), frames(2, CONTEXT + 1)
    given = {"frames": x}
    if kind != "none":
        given["actions"] = actions(kind, 2, CONTEXT + 1)
    model.export(tmp_path / "1", verbose=False)
    loaded = tf.saved_model.load(tmp_path / "1")
    served = loaded.serve({name: tf.constant(value) for name, value in given.items()})
    expected = model(given)
    np.testing.assert_array_equal(served["codes"], expected["codes"])
    np.testing.assert_allclose(served["outputs"], expected["outputs"], atol=1e-5)
