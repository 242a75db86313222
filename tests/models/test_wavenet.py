"""WaveNet over sequences: loss, sampling, likelihoods, bad input."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import scipy.special

from keras_vqvae import LogisticMixture, WaveNet, WaveNetDecoder, sampling
from keras_vqvae.models import wavenet
from tests.checks import (
    assert_same,
    check_model,
    check_steps,
    copy_by_config,
    dependencies,
    floats,
    to_numpy,
)
from tests.inside import inside

LENGTH = 12


def make(num_codes: int = 7, *args: Any, **options: Any) -> WaveNet:
    small = {"channels": 8, "skip_channels": 6, "dilations": (1, 2, 1), "burn_in": 0}
    return WaveNet(num_codes, *args, **{**small, **options})


def codes(n: int = 5, length: int = LENGTH, num_codes: int = 7, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, num_codes, (n, length)).astype("int32")


def sharpened(model: WaveNet, scale: float = 0.5) -> WaveNet:
    model.set_weights([floats(w.shape, i) * scale for i, w in enumerate(model.weights)])
    return model


KINDS: dict[str, tuple[dict, Any]] = {
    "none": ({}, codes()),
    "classes": ({"num_classes": 3}, {"codes": codes(), "condition": np.arange(5) % 3}),
    "mixture": ({"num_codes": 9000, "likelihood": LogisticMixture(2, 9000)}, codes() * 1000),
}


@pytest.mark.parametrize("kind", KINDS)
def test_shared_checks(kind: str, tmp_path: Path) -> None:
    options, data = KINDS[kind]
    block = 2 * 8 * 16 + 16 + 8 * 6 + 6
    stack = 3 * block + 2 * (8 * 8 + 8) + 6 * 6 + 6 + 6 * 7 + 7
    stack += 3 * 8 * 16 + 3 * 8 if kind == "classes" else 0
    trainable = stack + 7 * 8
    if kind == "mixture":
        trainable = stack - 7 * 7 + 7 * 6 + 2 * 8  # six outputs; a value instead of vectors
    check_model(
        lambda **kw: make(**options, **kw),
        data,
        tmp_path,
        trainable=trainable,
        float32_layers=lambda model: [],
    )


def test_causal() -> None:
    model = sharpened(make(kernel_size=3))
    found = dependencies(
        lambda x: inside(model).stack(wavenet.functional.causal_shift(x)), (LENGTH,), 8
    )
    assert model.receptive_field == 2 * 4 + 1
    expected = [[0 < i - j <= 9 for j in range(LENGTH)] for i in range(LENGTH)]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_steps_equal_the_whole(kind: str) -> None:
    options, data = KINDS[kind]
    check_steps(sharpened(make(**options, kernel_size=3)), data, tolerance=2e-4)


def slow(model: WaveNet, n: int, length: int, seed: int, condition: Any = None) -> np.ndarray:
    """Samples by running the whole network again for every position, from the same numbers."""
    u = to_numpy(sampling.given_positions((1, length), n, seed).u).reshape(n, length)
    options = sampling.Options(np.float32(1), np.int32(10**6), np.float32(1))
    drawn = np.zeros((n, length), "int32")
    for i in range(length):
        x = drawn if condition is None else {"codes": drawn, "condition": condition}
        drawn[:, i] = to_numpy(model.draw(model(x)[:, i], u[:, i], options))
    return drawn


@pytest.mark.parametrize("kind", KINDS)
def test_samples_equal_the_slow_way(kind: str) -> None:
    options, data = KINDS[kind]
    model = sharpened(make(**options))
    condition = data["condition"].astype("int32") if isinstance(data, dict) else None
    got = model.sample(5, condition=condition, length=20, seed=3)
    expected = slow(model, 5, 20, 3, condition)
    if kind == "mixture":  # of 9,000 levels rounding may decide for the one beside
        assert np.abs(got[:, :5] - expected[:, :5]).max() <= 1
    else:
        np.testing.assert_array_equal(got, expected)
    assert len(np.unique(got)) > 3


@pytest.mark.locked
def test_parts_prompts_and_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    model = sharpened(make())
    whole = model.sample(6, length=128, seed=1)
    assert whole.shape == (6, 128)
    monkeypatch.setattr("keras_vqvae.models.autoregressive.CODES_A_CALL", 64)
    monkeypatch.setattr("keras_vqvae.models.autoregressive._LEAST_A_CALL", 20)
    np.testing.assert_array_equal(model.sample(6, length=128, seed=1), whole)
    np.testing.assert_array_equal(model.sample(6, length=128, seed=1, batch_size=4), whole)
    again = model.sample(6, prompt=whole[:, :50], length=128, seed=1)
    np.testing.assert_array_equal(again, whole)


def test_loss_against_numpy() -> None:
    model = sharpened(make(burn_in=3))
    length = np.array([12, 12, 7, 4, 5], "int32")
    x = {"codes": codes(), "length": length}
    model.compile("sgd")
    log_p = scipy.special.log_softmax(to_numpy(model(codes())).astype("float64"), -1)
    log_p = np.take_along_axis(log_p, codes()[..., None], -1)[..., 0]
    # The mean over positions: a longer example counts for more.
    counted = np.concatenate([log_p[i, 3:n] for i, n in enumerate(length)])
    expected = -np.mean(counted) / np.log(2)
    assert model.evaluate(x, verbose=0) == pytest.approx(expected, rel=1e-5)
    sums = [log_p[i, :n].sum() for i, n in enumerate(length)]
    np.testing.assert_allclose(model.log_prob(x), sums, rtol=1e-5)
    # What padding holds makes no difference.
    junk = codes(seed=9)
    places = np.arange(LENGTH) < length[:, None]
    other = {"codes": np.where(places, codes(), junk).astype("int32"), "length": length}
    assert model.evaluate(other, verbose=0) == pytest.approx(expected, rel=1e-5)


def test_the_receptive_field_is_left_out() -> None:
    model = sharpened(make(burn_in=None))
    model.compile("sgd")
    assert model.receptive_field == 5
    other = sharpened(make(burn_in=5))
    other.compile("sgd")
    assert model.evaluate(codes(), verbose=0) == other.evaluate(codes(), verbose=0)
    with pytest.raises(ValueError, match="5 positions are no longer than the receptive field of 5"):
        model.fit(codes(length=5))
    assert make(sample_rate=1000).receptive_field_ms == 5.0
    with pytest.raises(ValueError, match="needs WaveNet"):
        _ = model.receptive_field_ms


def test_examples_that_are_left_out_do_not_count() -> None:
    model = sharpened(make(burn_in=4))
    model.compile(keras.optimizers.SGD(0.1))
    long = model.evaluate(codes(2), verbose=0)
    length = np.array([12, 12, 4, 1], "int32")
    x = {"codes": np.concatenate([codes(2), codes(2, seed=1)]), "length": length}
    assert model.evaluate(x, verbose=0) == pytest.approx(long, rel=1e-6)
    # Nor where they have a batch of their own, which moves nothing.
    assert model.evaluate(x, batch_size=2, verbose=0) == pytest.approx(long, rel=1e-6)
    logs = model.evaluate(x, batch_size=2, verbose=0, return_dict=True)
    assert set(logs) == {"loss"}
    before = to_numpy(model.trainable_weights)
    alone = {"codes": codes(4), "length": np.array([4, 1, 2, 12], "int32")}
    model.fit(alone, batch_size=3, epochs=1, shuffle=False, steps_per_epoch=1, verbose=0)
    assert_same(model.trainable_weights, before)
    nothing = {"codes": codes(2), "length": np.array([5, 4], "int32")}  # the first batch counts
    assert np.isfinite(model.evaluate(nothing, batch_size=1, verbose=0))
    with pytest.raises(ValueError, match="examples of 4 positions are no longer than burn_in of 4"):
        model.fit({"codes": codes(2), "length": np.array([4, 1], "int32")})


@pytest.mark.locked
@pytest.mark.graph
def test_it_learns_a_rule() -> None:
    """Counting up modulo 7 by one or by two; a wrong shift would make this too easy or too hard."""
    keras.utils.set_random_seed(0)
    start, by = np.random.default_rng(0).integers(0, 7, (2, 256, 1))
    x = ((start + (1 + by % 2) * np.arange(LENGTH)) % 7).astype("int32")
    model = make()
    model.compile(keras.optimizers.Adam(0.01))
    model.fit(x, batch_size=32, epochs=80, verbose=0)
    # The first costs log2(7) bits, the second 1 bit, the rest nothing.
    assert (np.log2(7) + 1) / LENGTH == pytest.approx(model.evaluate(x, verbose=0), abs=0.1)
    drawn = model.sample(20, length=LENGTH, seed=0)
    steps = np.diff(drawn) % 7
    share = np.mean((steps == steps[:, :1]) & np.isin(steps, (1, 2)))
    assert share > 0.6  # of 2/7 * 1/7 by chance


def test_saving_keeps_what_it_is() -> None:
    model = sharpened(make(num_classes=3, kernel_size=3, sample_rate=8000))
    copy = copy_by_config(model)
    copy.set_weights(model.get_weights())
    x = {"codes": codes(), "condition": np.arange(5, dtype="int32") % 3}
    assert_same(copy(x), model(x))
    assert copy.receptive_field_ms == model.receptive_field_ms


@pytest.mark.locked
@pytest.mark.tensorflow
@pytest.mark.parametrize("xla", [False, True])
@pytest.mark.graph
def test_what_is_out_of_range_in_a_dataset_is_named(xla: bool) -> None:
    import tensorflow as tf

    model = make(num_classes=3)
    model.compile("adam", jit_compile=xla)
    good = {"codes": codes(), "condition": np.zeros(5, "int32"), "length": np.full(5, 12, "int32")}
    model.fit(tf.data.Dataset.from_tensors(good), verbose=0)
    before = model.get_weights()
    for bad, message in [
        ({"condition": np.full(5, 9, "int32")}, r"condition must be in \[0, 3\), got"),
        ({"codes": codes() + 20}, r"codes must be in \[0, 7\), got"),
        ({"length": np.full(5, 13, "int32")}, "length must be at least 1"),
    ]:
        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            model.fit(tf.data.Dataset.from_tensors({**good, **bad}), verbose=0)
    assert_same(before, model.get_weights())


BAD = {
    "burn_in": (lambda: make(burn_in=-1), "burn_in must be an integer of at least 0"),
    "levels": (lambda: make(likelihood=LogisticMixture(2, 9)), "num_codes=7 contradicts.*9 levels"),
    "lengths of others": (
        lambda: make().log_prob({"codes": codes(), "length": np.array([3])}),
        "length must be of the 5 examples, got 1",
    ),
    "likeliest of a mixture": (
        lambda: make(likelihood=LogisticMixture(2, 7)).sample(2, length=3, top_k=1),
        "a LogisticMixture draws numbers and has no likeliest levels",
    ),
    "length missing": (lambda: make().sample(2), "length is missing"),
    "prompt": (lambda: make().sample(2, prompt=codes(2), length=5), "prompt has 12 codes, more"),
    "rank": (lambda: make().fit(codes()[..., None]), r"codes must have shape \(batch, any\)"),
    "keys": (lambda: make().fit({"codes": codes(), "lengths": 1}), "a dict must be .*length"),
    "length range": (
        lambda: make()({"codes": codes(), "length": np.full(5, 13)}),
        r"length must be in \[1, 12\], got values from 13",
    ),
    "length dtype": (
        lambda: make()({"codes": codes(), "length": np.ones(5)}),
        "length must be int",
    ),
    "all left out": (
        lambda: make(burn_in=20).fit(codes()),
        "12 positions are no longer than burn_in of 20",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_refuses(name: str) -> None:
    act, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        act()


def test_sound_of_up_to_256_levels_is_companded() -> None:
    assert WaveNetDecoder(4, dilations=(1,)).mu_law
    assert not WaveNetDecoder(4, dilations=(1,), likelihood=LogisticMixture(2, 65536)).mu_law


@pytest.mark.locked
def test_other_lengths_compile_nothing_anew() -> None:
    """Fault 38: each length kept a graph. The beginning is the same, whatever the length."""
    model = sharpened(make())
    longest = model.sample(1, length=90, seed=3)
    for length in (1, 20, 21, 33, 65, 70):
        np.testing.assert_array_equal(model.sample(1, length=length, seed=3), longest[:, :length])
    assert len([name for name, _ in inside(model).compiled_functions if "sample" in name]) == 1
    for length in (5, 9, 12):
        model.log_prob(codes(2, length))
    if keras.backend.backend() == "tensorflow":
        for function in inside(model).compiled_functions.values():
            assert function.experimental_get_tracing_count() <= 3


@pytest.mark.locked
def test_log_prob_of_few_sizes_is_that_of_each() -> None:
    """On JAX sequences and batches are made longer, so that fewer sizes are compiled."""
    model = sharpened(make())
    length = np.array([9, 3, 7, 1, 9], "int32")
    found = model.log_prob({"codes": codes(5, 9), "length": length}, batch_size=3)
    each = [model.log_prob(codes(5, 9)[i : i + 1, :n])[0] for i, n in enumerate(length)]
    np.testing.assert_allclose(found, each, rtol=1e-5)


def test_lists_of_numbers() -> None:
    model = sharpened(make())
    prompt = [[1, 2], [3, 4]]
    drawn = model.sample(2, prompt=prompt, length=4, seed=0)
    np.testing.assert_array_equal(drawn[:, :2], prompt)
    mask = [[True, True, False, False]] * 2
    np.testing.assert_array_equal(model.inpaint(drawn.tolist(), mask, seed=0), drawn)
    with pytest.raises(ValueError, match="prompt must be an array or lists of equal lengths"):
        model.sample(2, prompt=[[1, 2], [3]], length=4)
