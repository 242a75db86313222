"""PixelCNN: what sees what, sampling, log-probabilities, conditioning, bad input."""

import itertools
import re
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from keras_vqvae import Autoregressive, GatedMaskedConv2D, PixelCNN, sampling
from keras_vqvae.models import autoregressive, progress
from tests.checks import (
    assert_same,
    check_model,
    check_steps,
    copy_by_config,
    dependencies,
    floats,
    naive_sample,
    to_numpy,
)
from tests.inside import inside

GRID = (4, 6)


def make(grid: tuple = GRID, num_codes: int = 7, *args: Any, **options: Any) -> PixelCNN:
    return PixelCNN(grid, num_codes, *args, **{"hidden": 8, "num_layers": 3, **options})


def codes(n: int = 5, grid: tuple = GRID, num_codes: int = 7, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, num_codes, (n, *grid)).astype("int32")


def sharpened(model: PixelCNN, scale: float = 0.5) -> PixelCNN:
    """Random weights large enough for distributions far from uniform."""
    model.set_weights([floats(w.shape, i) * scale for i, w in enumerate(model.weights)])
    return model


KINDS: dict[str, dict] = {
    "none": {},
    "classes": {"num_classes": 3},
    "maps": {"condition_channels": 2},
}


# For what does not differ between kinds.
ONE_KIND = ["classes", *(pytest.param(kind, marks=pytest.mark.long) for kind in ("none", "maps"))]


def conditions(kind: str, n: int) -> np.ndarray | None:
    if kind == "classes":
        return np.arange(n, dtype="int32") % 3
    return floats((n, *GRID, 2)) if kind == "maps" else None


def data(kind: str, n: int = 5) -> Any:
    condition = conditions(kind, n)
    return codes(n) if condition is None else {"codes": codes(n), "condition": condition}


@pytest.mark.parametrize("kind", KINDS)
def test_shared_checks(kind: str, tmp_path: Path) -> None:
    # A layer: windows of 2x3 and 1x2, up to the horizontal stack, and out of it.
    layer = (6 * 8 * 16 + 16) + 2 * 8 * 16 + (16 * 16 + 16) + (8 * 8 + 8)
    condition = {"none": 0, "classes": 8 * 32, "maps": 2 * 32}[kind]
    rest = 7 * 8 + 24 * 8 + (8 * 7 + 7) + (3 * 8 if kind == "classes" else 0)
    check_model(
        lambda **kw: make(**KINDS[kind], **kw),
        data(kind),
        tmp_path,
        trainable=3 * (layer + condition) + rest,
        float32_layers=lambda model: [],
    )


def seen(grid: tuple, reach: int) -> np.ndarray:
    """Which positions each should see: all before it, at most `reach` rows or columns further
    than its neighbour above or to the left."""
    positions = list(itertools.product(*map(range, grid)))
    return np.array(
        [
            [
                (0 < r - y <= reach + 1 and abs(c - x) <= reach)
                or (r == y and 0 < c - x <= reach + 1)
                for y, x in positions
            ]
            for r, c in positions
        ]
    )


@pytest.mark.parametrize("grid", [(4, 6), (6, 4), (1, 5), (5, 1)])
@pytest.mark.parametrize(("num_layers", "kernel_size"), [(1, 3), (2, 3), (6, 3), (2, 5), (1, 7)])
def test_causality_and_no_blind_spot(grid: tuple, num_layers: int, kernel_size: int) -> None:
    """Before any training step."""
    model = make(grid, num_layers=num_layers, kernel_size=kernel_size)
    inside(model).embedding = lambda x: x  # what is differentiated by are embedded codes
    found = dependencies(model.logits, grid, model.hidden)
    reach = num_layers * (kernel_size // 2)
    np.testing.assert_array_equal(found, seen(grid, reach))
    if reach >= max(grid) - 1:
        np.testing.assert_array_equal(found, np.tri(len(found), k=-1, dtype=bool))


def test_the_check_of_causality_can_fail() -> None:
    model = make()
    kernel = floats((9, 8, 7)).reshape(3, 3, 8, 7)
    found = dependencies(
        lambda x: ops.conv(x, kernel, padding="same"), model.grid_shape, model.hidden
    )
    assert (found & ~np.tri(len(found), k=-1, dtype=bool)).any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("kernel_size", [3, 5])
def test_steps_equal_call(kind: str, kernel_size: int) -> None:
    model = sharpened(make(**KINDS[kind], kernel_size=kernel_size))
    check_steps(model, data(kind))


@pytest.mark.locked
@settings(max_examples=8)
@given(
    grid=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    num_codes=st.integers(1, 9),
    num_layers=st.integers(1, 3),
    kernel_size=st.sampled_from([3, 5, 7]),
    n=st.integers(1, 3),
)
def test_steps_equal_call_for_any_shape(
    grid: tuple, num_codes: int, num_layers: int, kernel_size: int, n: int
) -> None:
    model = sharpened(make(grid, num_codes, num_layers=num_layers, kernel_size=kernel_size), 0.3)
    check_steps(model, codes(n, grid, num_codes))


@pytest.mark.locked
@pytest.mark.parametrize("kind", KINDS)
def test_cached_sampling_equals_naive_sampling(kind: str) -> None:
    model = sharpened(make(**KINDS[kind]))
    condition = conditions(kind, 5)
    drawn = model.sample(5, condition, seed=3)
    np.testing.assert_array_equal(drawn, naive_sample(model, 5, 3, condition))
    assert drawn.dtype == np.int32 and len(np.unique(drawn)) > 3
    for options in ({"top_k": 3}, {"top_p": 0.6}, {"temperature": 1.7}):
        expected = naive_sample(model, 5, 3, condition, **options)
        np.testing.assert_array_equal(model.sample(5, condition, seed=3, **options), expected)


def test_any_order_of_the_batch() -> None:
    model, order = sharpened(make(condition_channels=2)), np.array([3, 0, 4, 1, 2])
    maps, known, keep = floats((5, *GRID, 2)), codes(5), np.zeros((5, *GRID), bool)
    keep[:, 1:3, 2:] = True
    # Examples have numbers of their own, by place: leave nothing to them.
    straight = model.inpaint(known, keep, maps, top_k=1, seed=0)
    other = model.inpaint(known[order], keep, maps[order], top_k=1, seed=0)
    np.testing.assert_array_equal(other, straight[order])
    assert len(np.unique(straight.reshape(5, -1), axis=0)) == 5


class Bigram(Autoregressive):
    """The next code in raster order depends on the one before, whatever the grid; no caches."""

    def build(self, input_shape: Any = None) -> None:
        shape = (self.num_codes + 1, self.num_codes)
        self.table = self.add_weight(
            shape=shape, initializer=keras.initializers.RandomNormal(seed=1)
        )
        self.built = True

    def logits(self, codes: Any, condition: Any = None) -> Any:
        flat = ops.reshape(codes, (-1, self.num_positions))
        first = ops.full_like(flat[:, :1], self.num_codes)
        before = ops.concatenate([first, flat[:, :-1]], 1)
        grid = (-1, *self.grid_shape, self.num_codes)
        return ops.reshape(ops.take(self.table, before, axis=0), grid)

    def initial_cache(self, batch: Any, condition: Any = None) -> Any:
        return ops.zeros((batch,))

    def step(self, cache: Any, previous: Any, position: Any) -> tuple:
        previous = ops.where(position > 0, previous, self.num_codes)
        return ops.take(self.table, previous, axis=0), cache


@pytest.mark.locked
@pytest.mark.parametrize("grid", [(4, 5), (20,), (2, 3, 4)])
def test_a_model_of_ones_own(grid: tuple) -> None:
    model = Bigram(grid, 6)
    model.build()
    model.set_weights([floats(model.table.shape) * 2])
    x = codes(5, grid, 6)
    check_steps(model, x)
    np.testing.assert_array_equal(model.sample(5, seed=2), naive_sample(model, 5, 2))
    model.compile("adam")
    model.fit(x, verbose=0)
    assert model.sample(2, prompt=x[:2, :1], seed=0).shape == (2, *grid)


def test_what_a_model_of_ones_own_must_have() -> None:
    model = Autoregressive((2, 3), 4)
    with pytest.raises(NotImplementedError, match="must implement initial_cache"):
        model.sample(1)
    with pytest.raises(NotImplementedError, match="must implement logits"):
        model(codes(1, (2, 3), 4))


def test_batches_and_their_order_change_no_sample() -> None:
    model = sharpened(make(num_classes=3))
    labels = np.array([2, 0, 1, 1, 0])
    whole = model.sample(5, labels, seed=1)
    np.testing.assert_array_equal(model.sample(5, labels, seed=1, batch_size=2), whole)
    np.testing.assert_array_equal(model.sample(3, labels[:3], seed=1), whole[:3])
    for label in range(3):
        same = model.sample(5, label, seed=1)
        np.testing.assert_array_equal(same[labels == label], whole[labels == label])
    assert (model.sample(5, labels, seed=2) != whole).any()
    assert (model.sample(5, labels) != model.sample(5, labels)).any()


def test_seed_none_is_decided_by_set_random_seed() -> None:
    model = sharpened(make())
    keras.utils.set_random_seed(4)
    first = model.sample(3)
    keras.utils.set_random_seed(4)
    np.testing.assert_array_equal(model.sample(3), first)


@pytest.mark.locked
@pytest.mark.tensorflow
@pytest.mark.parametrize("kind", ONE_KIND)
def test_eager_graph_and_xla_agree(kind: str) -> None:
    import tensorflow as tf

    model = sharpened(make(**KINDS[kind]))
    x = data(kind)
    every: list[dict] = [{}, {"top_k": 3}, {"top_p": 0.7, "temperature": 0.8}]
    every.append({"prompt": codes(5)[:, :2], "top_k": 5, "top_p": 0.9})
    every = [{"seed": 9, "condition": conditions(kind, 5), **options} for options in every]
    graph, log_prob = [model.sample(5, **options) for options in every], model.log_prob(x)
    model.compile("adam", jit_compile=True)
    for options, expected in zip(every, graph, strict=True):
        np.testing.assert_array_equal(model.sample(5, **options), expected)
    compiled = tf.function(inside(model).log_prob, jit_compile=True, autograph=False)(x)
    np.testing.assert_allclose(compiled, log_prob, rtol=1e-5)
    tf.config.run_functions_eagerly(True)
    try:
        np.testing.assert_array_equal(model.sample(5, **every[1]), graph[1])
    finally:
        tf.config.run_functions_eagerly(False)


@pytest.mark.tensorflow
def test_other_options_and_batches_compile_nothing_anew() -> None:
    model = make()
    model.sample(10, seed=0, batch_size=4)
    (name,) = [key for key in inside(model).compiled_functions if "rows" in key[0]]
    function = inside(model).compiled_functions[name]
    count = function.experimental_get_tracing_count()
    for options in ({"temperature": 0.5}, {"top_k": 2}, {"top_p": 0.5}, {"seed": 4}):
        model.sample(7, **options, batch_size=4)
    assert function.experimental_get_tracing_count() == count == 1


def test_prompts_are_kept() -> None:
    model = sharpened(make())
    given = codes(4)
    whole = model.sample(4, prompt=given[:, :2], seed=0)
    np.testing.assert_array_equal(whole[:, :2], given[:, :2])
    flat = given.reshape(4, -1)[:, :8]
    drawn = model.sample(4, prompt=flat, seed=0)
    np.testing.assert_array_equal(drawn.reshape(4, -1)[:, :8], flat)
    assert (drawn[:, 2:] != given[:, 2:]).any()
    # The prompt is heard: with a prompt that was drawn, the rest is drawn as it was.
    free = model.sample(4, seed=0)
    np.testing.assert_array_equal(model.sample(4, prompt=free[:, :3], seed=0), free)
    np.testing.assert_array_equal(model.sample(4, prompt=given, seed=0), given)
    nothing = np.zeros((4, 0), "int32")
    np.testing.assert_array_equal(model.sample(4, prompt=nothing, seed=0), free)


def test_inpainting_keeps_what_is_known() -> None:
    model = sharpened(make(num_classes=3))
    given = codes(4)
    mask = np.random.default_rng(1).random((4, *GRID)) < 0.5
    drawn = model.inpaint(given, mask, condition=1, seed=0)
    np.testing.assert_array_equal(drawn[mask], given[mask])
    assert (drawn[~mask] != given[~mask]).any()
    free = model.sample(4, 1, seed=0)
    np.testing.assert_array_equal(model.inpaint(free, mask, 1, seed=0), free)
    np.testing.assert_array_equal(model.inpaint(given, np.zeros(GRID, bool), 1, seed=0), free)


@pytest.fixture(scope="module")
def enumerable() -> tuple[PixelCNN, np.ndarray, np.ndarray]:
    """A model with 81 possible grids, and their probabilities."""
    model = sharpened(make((2, 2), 3), 0.4)
    every = np.array(list(itertools.product(range(3), repeat=4)), "int32").reshape(-1, 2, 2)
    return model, every, np.exp(model.log_prob(every).astype("float64"))


def test_probabilities_sum_to_one(enumerable: tuple) -> None:
    _, _, p = enumerable
    assert abs(p.sum() - 1) < 1e-5
    assert p.max() > 3 / 81  # far from uniform


@pytest.mark.locked
def test_sampled_frequencies_are_the_models(enumerable: tuple) -> None:
    model, _, p = enumerable
    n = 20_000
    drawn = model.sample(n, seed=0, batch_size=n)
    common = n * p >= 5  # the others are counted together

    def counted(x: np.ndarray) -> np.ndarray:
        return np.append(x[common], x[~common].sum())

    def statistic(drawn: np.ndarray) -> float:
        counts = np.bincount(drawn.reshape(n, 4) @ [27, 9, 3, 1], minlength=81)
        expected = np.maximum(counted(n * p), 1e-9)
        return float(np.sum((counted(counts) - expected) ** 2 / expected))

    freedoms = int(common.sum())
    # 99.9 % quantile of chi-square (Wilson and Hilferty).
    limit = freedoms * (1 - 2 / (9 * freedoms) + 3.09 * (2 / (9 * freedoms)) ** 0.5) ** 3
    assert statistic(drawn) < limit
    # And the test can fail: not for a temperature that is a little higher.
    warm = model.sample(n, seed=0, batch_size=n, temperature=1.1)
    assert statistic(warm) > limit


def test_top_k_of_one_is_the_most_likely_code_of_each_position() -> None:
    model = sharpened(make())
    drawn = model.sample(2, top_k=1, seed=0)
    np.testing.assert_array_equal(drawn, to_numpy(model(drawn)).argmax(-1))
    np.testing.assert_array_equal(model.sample(2, top_p=1e-6, seed=5), drawn)
    cold = model.sample(2, temperature=1e-4, seed=0)
    np.testing.assert_array_equal(cold, drawn)


def test_log_prob_is_what_fit_minimises() -> None:
    model = sharpened(make(num_classes=3))
    x = data("classes", 10)
    log_prob = model.log_prob(x, batch_size=4)
    assert log_prob.shape == (10,) and log_prob.dtype == np.float32
    logits = to_numpy(model(x)).astype("float64")
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    expected = np.log(np.take_along_axis(p, x["codes"][..., None], -1)).sum((1, 2, 3))
    np.testing.assert_allclose(log_prob, expected, rtol=1e-4)
    model.compile("sgd")
    bits = -expected.mean() / np.log(2) / np.prod(GRID)
    found = model.evaluate(x, verbose=0, return_dict=True)
    assert set(found) == {"loss"}
    np.testing.assert_allclose(found["loss"], bits, rtol=1e-5)
    tensors = keras.tree.map_structure(ops.convert_to_tensor, x)
    assert ops.is_tensor(model.log_prob(tensors))


@pytest.mark.locked
@pytest.mark.graph
def test_learns_what_can_be_learnt() -> None:
    """Each code is the one above plus the class; the first row is uniform."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 2048)
    x = (random.integers(0, 7, (2048, 1, 6)) + labels[:, None, None] * np.arange(4)[:, None]) % 7
    model = make(num_classes=3, hidden=16)
    model.compile(keras.optimizers.Adam(1e-2))
    train, test = (
        {"codes": x[part], "condition": labels[part]} for part in (slice(1792), slice(1792, None))
    )
    model.fit(train, epochs=5, batch_size=32, verbose=0)
    floor = np.log2(7) / 4
    assert floor - 0.01 < model.evaluate(test, verbose=0) < floor + 0.1
    drawn = model.sample(40, condition=2, seed=0)
    assert (drawn[:, 1:] == (drawn[:, :-1] + 2) % 7).mean() > 0.95


def test_weights_that_are_not_finite_are_named() -> None:
    model = make()
    model.set_weights([w * np.nan for w in model.get_weights()])
    with pytest.raises(ValueError, match="not finite: training has diverged"):
        model.sample(1)


@pytest.mark.tensorflow
@pytest.mark.parametrize("kind", ONE_KIND)
def test_kerass_own_export(kind: str, tmp_path: Path) -> None:
    import tensorflow as tf

    model, x = sharpened(make(**KINDS[kind])), data(kind)
    model.export(tmp_path / "1", verbose=False)
    served = tf.saved_model.load(str(tmp_path / "1"))
    got = served.serve(keras.tree.map_structure(tf.constant, x))
    np.testing.assert_allclose(got, model(x), atol=1e-4)


@pytest.mark.tensorflow
def test_sampling_in_a_graph_names_what_to_call() -> None:
    import tensorflow as tf

    model = make()
    with pytest.raises(ValueError, match=r"keras_vqvae\.sampling\.sample"):
        tf.function(lambda: model.sample(2, seed=0), autograph=False)()
    options = sampling.Options(1.0, 7, 1.0)
    inside = tf.function(lambda: sampling.sample(model, 2, 0, None, options), autograph=False)()
    np.testing.assert_array_equal(inside, model.sample(2, seed=0))


@pytest.mark.tensorflow
def test_datasets_of_one_entry_are_taken() -> None:
    import tensorflow as tf

    model = make()
    model.compile("adam")
    model.fit(tf.data.Dataset.from_tensor_slices((codes(4),)).batch(2), verbose=0)


def test_what_fit_does_not_take_is_named() -> None:
    model = make(num_classes=3)
    model.compile("adam")
    nothing = {"codes": codes(0), "condition": np.zeros(0, "int32")}
    with pytest.raises(ValueError, match="at least one example"):
        model.fit(nothing)
    x = data("classes")
    for name in ("sample_weight", "class_weight"):
        with pytest.raises(ValueError, match=f"{name} is not supported"):
            model.fit(x, **{name: np.ones(5)})
    with pytest.raises(ValueError, match="sample_weight is not supported"):
        model.evaluate(x, sample_weight=np.ones(5))
    model.compile("adam", metrics=["accuracy"])
    with pytest.raises(ValueError, match="has its own metrics"):
        model.fit(x)
    model.compile("adam", loss="mse")
    with pytest.raises(ValueError, match=r"has its own loss.*Leave it out"):
        model.fit(x)
    with pytest.raises(ValueError, match="batch_size must be a positive integer"):
        make().log_prob(codes(2), batch_size=0)


def test_integers_of_numpy_are_integers() -> None:
    model = make((np.int64(4), np.int32(6)), np.int64(7), np.int64(3), hidden=np.int64(8))
    copy = copy_by_config(model)
    assert copy.num_classes == 3 and type(copy.num_codes) is int
    assert model.sample(np.int64(2), np.int64(1), seed=np.int32(0)).shape == (2, *GRID)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_sampling_under_mixed_precision(policy: str) -> None:
    model = sharpened(make(dtype=policy))
    drawn = model.sample(20, seed=0)
    assert drawn.min() >= 0 and drawn.max() < 7
    same = (drawn == naive_sample(model, 20, 0)).mean()
    assert same > 0.7  # what is rounded otherwise once goes another way from there


def test_empty_batches() -> None:
    model = make(num_classes=3)
    assert model.sample(0, condition=1).shape == (0, *GRID)
    nothing = {"codes": codes(0), "condition": np.zeros(0, "int32")}
    assert model.log_prob(nothing).shape == (0,)
    assert model(nothing).shape == (0, *GRID, 7)


def test_saved_model_samples_the_same(tmp_path: Path) -> None:
    model = sharpened(make(num_classes=3))
    model.compile("adam")
    model.save(tmp_path / "prior.keras")
    loaded = keras.saving.load_model(tmp_path / "prior.keras")
    np.testing.assert_array_equal(loaded.sample(3, 2, seed=0), model.sample(3, 2, seed=0))


def test_weights_set_after_sampling_count() -> None:
    model = sharpened(make())
    before = model.sample(3, seed=0)
    sharpened(model, 0.3)
    assert (model.sample(3, seed=0) != before).any()


@pytest.mark.tensorflow
def test_trains_on_datasets_of_dicts() -> None:
    import tensorflow as tf

    x = data("classes", 10)
    model = make(num_classes=3)
    model.compile("adam")
    dataset = tf.data.Dataset.from_tensor_slices(x).batch(4)
    model.fit(dataset, verbose=0, validation_data=dataset)
    np.testing.assert_allclose(model.log_prob(dataset), model.log_prob(x), rtol=1e-5)
    pairs = tf.data.Dataset.from_tensor_slices((x["codes"], x["condition"])).batch(4)
    with pytest.raises(ValueError, match='"codes": .*"condition"'):
        model.fit(pairs, verbose=0)


def test_progress_is_shown_when_asked_for(capsys: pytest.CaptureFixture) -> None:
    model = make()
    model.sample(2, seed=0)
    assert capsys.readouterr().out == ""
    model.sample(2, seed=0, batch_size=1, verbose=1)
    assert "2/2" in capsys.readouterr().out


def test_work_in_parts_draws_the_same(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    model = sharpened(make(num_classes=3))
    whole = model.sample(5, 1, seed=1)
    monkeypatch.setattr(progress, "SHOW_PROGRESS_AFTER_SECONDS", 0.0)
    for codes_a_call, parts in {20: 4, 60: 2}.items():
        monkeypatch.setattr(autoregressive, "CODES_A_CALL", codes_a_call)
        np.testing.assert_array_equal(model.sample(5, 1, seed=1), whole)
        assert f"{parts}/{parts}" in capsys.readouterr().out


def floats32(*shape: int) -> np.ndarray:
    return np.zeros(shape, "float32")


BAD_DATA = {
    "codes of another grid": ({}, codes(2, (4, 5)), "codes must have shape (batch, 4, 6)"),
    "no batch": ({}, codes(1)[0], "codes must have shape"),
    "codes too large": ({}, np.full((1, *GRID), 7), "codes must be in [0, 7)"),
    "codes below zero": ({}, np.full((1, *GRID), -1), "codes must be in [0, 7)"),
    "floats": ({}, floats32(1, *GRID), "codes must be integers"),
    "a list": ({}, [[1, 2]], 'codes or {"codes"'),
    "condition missing": ({"num_classes": 3}, codes(2), "condition is missing"),
    "condition of a model without": ({}, data("classes"), "num_classes"),
    "another key": ({}, {"codes": codes(2), "labels": np.zeros(2)}, "labels"),
    "class too large": (
        {"num_classes": 3},
        {"codes": codes(2), "condition": np.array([0, 3])},
        "in [0, 3)",
    ),
    "classes as floats": (
        {"num_classes": 3},
        {"codes": codes(2), "condition": floats32(2)},
        "got dtype float32",
    ),
    "one-hot classes": (
        {"num_classes": 3},
        {"codes": codes(2), "condition": np.zeros((2, 3), int)},
        "got shape (2, 3)",
    ),
    "too few classes": (
        {"num_classes": 3},
        {"codes": codes(2), "condition": np.zeros(1, int)},
        "of the 2 examples",
    ),
    "maps of another grid": (
        {"condition_channels": 2},
        {"codes": codes(2), "condition": floats32(2, 4, 5, 2)},
        "floats (batch, 4, 6, 2)",
    ),
    "classes for maps": (
        {"condition_channels": 2},
        {"codes": codes(2), "condition": np.zeros(2, int)},
        "floats (batch, 4, 6, 2)",
    ),
    "NaN in maps": (
        {"condition_channels": 2},
        {"codes": codes(2), "condition": np.full((2, *GRID, 2), np.nan, "float32")},
        "finite",
    ),
}


@pytest.mark.parametrize("tensors", [False, True])
@pytest.mark.parametrize("name", BAD_DATA)
def test_bad_data_is_named(name: str, tensors: bool) -> None:
    options, x, message = BAD_DATA[name]
    if tensors and not isinstance(x, list):
        x = keras.tree.map_structure(ops.convert_to_tensor, x)
    model = make(**options)
    model.compile("adam")
    before = to_numpy(model.weights)
    for call in (model.fit, model.evaluate, model.predict, model.log_prob):
        with pytest.raises(ValueError, match=re.escape(message)):
            call(x)
    assert_same(model.weights, before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": -1}, "n must be"),
        ({"n": 2.5}, "n must be"),
        ({"n": True}, "n must be"),
        ({"seed": 2**31}, "seed must be an integer of 32 bits"),
        ({"seed": 1.5}, "seed must be an integer of 32 bits"),
        ({"seed": "a"}, "seed must be an integer of 32 bits"),
        ({"batch_size": 0}, "batch_size must be a positive integer"),
        ({"batch_size": -1}, "batch_size must be a positive integer"),
        ({"temperature": 1e-50}, "temperature must be positive"),
        ({"temperature": None}, "temperature must be positive"),
        ({"temperature": np.ones(2)}, "temperature must be positive"),
        ({"top_k": True}, "top_k must be"),
        ({"top_p": None}, "top_p must be in (0, 1]"),
        ({"condition": "cat"}, "condition must be numbers"),
        ({"temperature": 0.0}, "temperature must be positive"),
        ({"temperature": float("nan")}, "temperature must be positive"),
        ({"top_k": 0}, "top_k must be"),
        ({"top_k": 2.5}, "top_k must be"),
        ({"top_p": 0.0}, "top_p must be in (0, 1]"),
        ({"top_p": 1.1}, "top_p must be in (0, 1]"),
        ({"condition": None}, "condition is missing"),
        ({"condition": 3}, "in [0, 3)"),
        ({"condition": [0, 1, 2]}, "of the 2 examples"),
        ({"condition": 0.5}, "got dtype float"),
        ({"prompt": np.zeros((2, 5, 6), int)}, "more than the grid's 24"),
        ({"prompt": np.zeros((2, 25), int)}, "more than the grid's 24"),
        ({"prompt": np.zeros((3, 2), int)}, "prompt must have shape (2, positions)"),
        ({"prompt": np.zeros((2, 2, 5), int)}, "prompt must have shape (2, positions)"),
        ({"prompt": np.full((2, 2), 7)}, "prompt must be in [0, 7)"),
        ({"prompt": np.zeros((2, 2))}, "prompt must be integers"),
    ],
)
def test_bad_arguments_of_sample_are_named(options: dict, message: str) -> None:
    model = make(num_classes=3)
    with pytest.raises(ValueError, match=re.escape(message)):
        model.sample(**{"n": 2, "condition": 1, **options})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mask": np.zeros(GRID)}, "mask must be bool"),
        ({"mask": np.zeros((3, 3), bool)}, "mask must be bool of shape"),
        ({"codes": np.full((2, *GRID), 7)}, "codes must be in [0, 7)"),
        ({"top_p": 0}, "top_p"),
    ],
)
def test_bad_arguments_of_inpaint_are_named(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        make().inpaint(**{"codes": codes(2), "mask": np.zeros(GRID, bool), **arguments})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"grid": (4,)}, "grid_shape must be (height, width)"),
        ({"grid": (4, 0)}, "grid_shape must be a positive integer"),
        ({"num_codes": 0}, "num_codes must be a positive"),
        ({"num_classes": 0}, "num_classes must be a positive"),
        ({"num_classes": 2, "condition_channels": 2}, "exclude each other"),
        ({"kernel_size": 4}, "kernel_size must be odd"),
        ({"kernel_size": 1}, "kernel_size must be odd"),
        ({"num_layers": 0}, "num_layers must be"),
        ({"hidden": 0}, "hidden must be"),
    ],
)
def test_bad_constructor_arguments_are_named(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        make(**options)


def test_the_layer_alone() -> None:
    layer = GatedMaskedConv2D(4, kernel_size=5)
    copy = copy_by_config(layer)
    inputs = (floats((2, 3, 5, 4)), floats((2, 3, 5, 4), 1))
    vertical, horizontal = layer(inputs)
    assert vertical.shape == horizontal.shape == (2, 3, 5, 4)
    symbolic = copy(tuple(keras.KerasTensor((None, 3, 5, 4), "float32") for _ in range(2)))
    assert [tuple(x.shape) for x in symbolic] == [(None, 3, 5, 4)] * 2
    with pytest.raises(ValueError, match="was built without a condition"):
        layer(inputs, floats((2, 1, 1, 3)))
    with pytest.raises(ValueError, match="two tensors"):
        GatedMaskedConv2D(4)((floats((2, 3, 5, 3)), floats((2, 3, 5, 3))))


def test_the_layer_against_numpy() -> None:
    """Equation 2 of van den Oord et al. 2016 and the wiring of its figure 2, term by term."""
    layer = GatedMaskedConv2D(2, kernel_size=3)
    v, h = floats((1, 3, 4, 2)), floats((1, 3, 4, 2), 1)
    condition = floats((1, 3, 4, 5), 2)
    found = [to_numpy(x)[0] for x in layer((v, h), condition)]
    w = {x.path.split("/", 1)[1]: to_numpy(x) for x in layer.weights}
    kernels = [x for name, x in w.items() if "kernel" in name]
    up, to_horizontal, left, out, conditioning = kernels
    biases = [x for name, x in w.items() if "bias" in name]

    def gate(x: np.ndarray) -> np.ndarray:
        return np.tanh(x[:2]) / (1 + np.exp(-x[2:]))

    for r, c in itertools.product(range(3), range(4)):
        summed = biases[0].copy()
        for i, j in itertools.product(range(2), range(3)):
            y, x = r - 1 + i, c - 1 + j
            if y >= 0 and 0 <= x < 4:
                summed += v[0, y, x] @ up[i, j]
        both = condition[0, r, c] @ conditioning
        across = summed @ to_horizontal + biases[1] + both[4:]
        for j in range(2):
            if c - 1 + j >= 0:
                across += h[0, r, c - 1 + j] @ left[2 * j : 2 * j + 2]
        expected = v[0, r, c] + gate(summed + both[:4])
        np.testing.assert_allclose(found[0][r, c], expected, rtol=1e-4, atol=1e-6)
        expected = h[0, r, c] + gate(across) @ out + biases[2]
        np.testing.assert_allclose(found[1][r, c], expected, rtol=1e-4, atol=1e-6)
