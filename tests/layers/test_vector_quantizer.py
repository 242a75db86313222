"""VectorQuantizer, against plain numpy."""

from collections.abc import Iterator
from pathlib import Path

import hypothesis.strategies as st
import keras
import numpy as np
import pytest
from hypothesis import given
from keras import ops

from keras_vqvae import VectorQuantizer, backend
from keras_vqvae.layers.vector_quantizer import FRESH_USE
from tests.checks import POLICIES, assert_same, check_layer, floats, to_numpy
from tests.inside import inside
from tests.test_functional import gradient, numpy_nearest


def state(layer: VectorQuantizer) -> list:
    return [to_numpy(w).copy() for w in layer.weights]


@pytest.mark.parametrize("codebook", ["ema", "gradient"])
@pytest.mark.parametrize("shape", [(16, 4), (4, 5, 4), (3, 2, 3, 4)])
def test_shared_checks(codebook: str, shape: tuple, tmp_path: Path) -> None:
    trainable = 8 * 4 if codebook == "gradient" else 0
    check_layer(
        lambda **kw: VectorQuantizer(8, 4, codebook=codebook, seed=0, **kw),
        shape,
        tmp_path,
        trainable=trainable,
        frozen=(8 * 4 * 2 + 8 + 1)
        - trainable,  # embeddings, sums (not with gradient), counts, started
        frozen_moves=True,
        float32_inside=True,
    )


@pytest.mark.locked
@given(
    st.lists(st.integers(1, 4), min_size=0, max_size=3),
    st.integers(0, 3),
    st.integers(1, 5),
    st.booleans(),
)
def test_any_rank(axes: list, batch: int, code_dim: int, training: bool) -> None:
    layer = VectorQuantizer(7, code_dim, seed=0)
    z = floats((batch, *axes, code_dim))
    quantized, codes, loss = layer(z, training=training, return_info=True)
    assert quantized.shape == z.shape and codes.shape == z.shape[:-1] and loss.shape == (batch,)
    assert keras.backend.standardize_dtype(codes.dtype) == "int32"
    assert keras.backend.standardize_dtype(loss.dtype) == "float32"
    assert all(np.isfinite(array).all() for array in state(layer))
    if batch and not training:
        expected = numpy_nearest(z.reshape(-1, code_dim), to_numpy(layer.embeddings))
        np.testing.assert_array_equal(to_numpy(codes).reshape(-1), expected)
        np.testing.assert_allclose(
            to_numpy(quantized), to_numpy(layer.embeddings)[to_numpy(codes)], atol=1e-6
        )
        np.testing.assert_array_equal(to_numpy(layer.encode(z)), to_numpy(codes))
        np.testing.assert_allclose(to_numpy(layer.decode(codes)), to_numpy(quantized), atol=1e-6)


class NumpyEMA:
    """The layer's rule, as its docstring states it, in numpy and float64."""

    def __init__(self, layer: VectorQuantizer) -> None:
        self.layer = layer
        self.started = False
        self.restarts = 0

    def rows(self, z: np.ndarray) -> np.ndarray:
        """The rows that the next step will start and restart codes from."""
        k = self.layer.num_codes
        u = to_numpy(backend.uniforms((k,), inside(self.layer).seed_generator.state.value))
        place = (np.arange(k, dtype="float32") + u) / np.float32(k)
        index = np.floor(place * np.float32(len(z))).astype(int)
        return z[np.minimum(index, len(z) - 1)].astype("float64")

    def step(self, z: np.ndarray, rows: np.ndarray) -> np.ndarray:
        k, d, mean_use = self.layer.num_codes, self.layer.decay, len(z) / self.layer.num_codes
        if not self.started:
            self.codes, self.counts = rows.copy(), np.full(k, FRESH_USE)
            self.sums = rows * FRESH_USE
            self.started = True
        nearest = numpy_nearest(z, self.codes)
        quantized = self.codes[nearest]
        count, total = np.zeros(k), np.zeros_like(self.sums)
        np.add.at(count, nearest, 1)
        np.add.at(total, nearest, z)
        self.counts = d * self.counts + (1 - d) * count / mean_use
        self.sums = d * self.sums + (1 - d) * total / mean_use
        n = self.counts.sum()
        eps = self.layer.epsilon
        smoothed = (self.counts + eps) / (n + k * eps) * n
        self.codes += (self.sums - self.counts[:, None] * self.codes) / smoothed[:, None]
        dead = self.counts < self.layer.expiry
        self.codes[dead], self.counts[dead] = rows[dead], FRESH_USE
        self.sums[dead] = rows[dead] * FRESH_USE
        self.restarts += dead.sum()
        return quantized


@pytest.mark.locked
def test_ema_is_that_of_numpy_over_50_steps_with_restarts() -> None:
    layer = VectorQuantizer(16, 3, decay=0.8, expiry=0.3, epsilon=1e-3, seed=5)
    layer.build((None, 3))
    reference = NumpyEMA(layer)
    random = np.random.default_rng(0)
    for step in range(50):
        # A moving cloud, in batches of different sizes: codes are left behind and die.
        z = random.normal(step / 10, 1, (40 + step % 7, 3)).astype("float32")
        expected = reference.step(z, reference.rows(z))
        quantized = layer(z, training=True)
        np.testing.assert_allclose(to_numpy(quantized), expected, atol=2e-5, err_msg=f"{step}")
        np.testing.assert_allclose(to_numpy(inside(layer).counts), reference.counts, rtol=1e-5)
        np.testing.assert_allclose(
            to_numpy(inside(layer).sums), reference.sums, rtol=1e-4, atol=1e-4
        )
        np.testing.assert_allclose(to_numpy(layer.embeddings), reference.codes, atol=2e-5)
    assert reference.restarts >= 20, "the test is to cover restarts"


def test_first_batch_starts_the_codebook_with_distinct_rows() -> None:
    layer = VectorQuantizer(16, 3, seed=0, decay=0.0, expiry=0.0)
    z = floats((64, 3)) + 100
    quantized, codes, _ = layer(z, training=True, return_info=True)
    assert len(np.unique(to_numpy(codes))) == 16
    rows = {tuple(np.round(row, 3)) for row in z}
    assert all(tuple(np.round(row, 3)) in rows for row in to_numpy(quantized))
    assert float(inside(layer).started) == 1.0


def test_start_is_saved(tmp_path: Path) -> None:
    # A loaded codebook must not be started again by the first batch it sees.
    model = keras.Sequential([keras.Input((3,)), VectorQuantizer(4, 3)])
    model.layers[0](floats((64, 3)), training=True)
    model.save_weights(tmp_path / "a.weights.h5")
    again = keras.Sequential([keras.Input((3,)), VectorQuantizer(4, 3)])
    again.load_weights(tmp_path / "a.weights.h5")
    before = to_numpy(again.layers[0].embeddings)
    again.layers[0](floats((64, 3), 1) + 50, training=True)
    # All rows are nearest to one code, so that the others stay; a new start would move all.
    moved = np.abs(to_numpy(again.layers[0].embeddings) - before).max(1)
    assert (moved < 1e-3).sum() == 3


def blobs(random: np.random.Generator, centres: np.ndarray, rows: int) -> np.ndarray:
    chosen = centres[random.integers(len(centres), size=rows)]
    return (chosen + random.normal(size=chosen.shape)).astype("float32")


@pytest.mark.locked
def test_blobs_use_95_percent_of_the_codes() -> None:
    """64 Gaussian blobs, 512 codes; beside the usual start, whose codebook collapses."""
    random = np.random.default_rng(0)
    centres = random.normal(0, 10, (64, 16))
    layer = VectorQuantizer(512, 16, seed=0)
    layer.build((None, 16))
    step = backend.jit(lambda z: layer.encode(z), layer)

    # Counts of zero and sums of the embeddings, drawn from a normal distribution.
    codes = random.normal(size=(512, 16))
    counts, sums, d = np.zeros(512), codes.copy(), 0.99
    for _ in range(200):
        z = blobs(random, centres, 2048)
        layer(z, training=True)
        scores = z @ codes.T - 0.5 * (codes**2).sum(1)
        nearest = scores.argmax(1)
        count, total = np.bincount(nearest, minlength=512), np.zeros_like(sums)
        np.add.at(total, nearest, z)
        counts, sums = d * counts + (1 - d) * count, d * sums + (1 - d) * total
        n = counts.sum()
        codes = sums / ((counts + 1e-5) / (n + 512 * 1e-5) * n)[:, None]
    z = blobs(random, centres, 8192)
    ours = len(np.unique(to_numpy(step(ops.convert_to_tensor(z)))))
    theirs = len(np.unique((z @ codes.T - 0.5 * (codes**2).sum(1)).argmax(1)))
    assert ours >= 0.95 * 512, f"{ours} of 512 codes in use"
    assert theirs < 0.25 * 512, f"{theirs} of 512: the reference was to collapse"


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("codebook", ["ema", "gradient"])
def test_batches_that_are_not_finite_leave_the_state_untouched(bad: float, codebook: str) -> None:
    layer = VectorQuantizer(8, 3, codebook=codebook, expiry=0.9, seed=0)
    z = floats((32, 3))
    broken = z.copy()
    broken[5, 1] = bad
    layer.build(z.shape)
    before = state(layer)
    # First as the very first batch, which must not start the codebook with such rows.
    all_bad = np.full_like(z, bad)
    layer(all_bad, training=True)
    assert_arrays_equal(state(layer), before)
    layer(z, training=True)
    before = state(layer)
    for batch in (broken, all_bad):
        layer(batch, training=True)
        assert_arrays_equal(state(layer), before)


def assert_arrays_equal(one: list, other: list) -> None:
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


def with_padding(z: np.ndarray, extra: int, filler: float) -> tuple[np.ndarray, np.ndarray]:
    """`z`, `(batch, steps, dim)`, with further vectors between; and which are those of `z`."""
    batch, steps, dim = z.shape
    mask = np.zeros((batch, steps + extra), bool)
    for row in mask:
        row[np.random.default_rng(0).choice(steps + extra, steps, replace=False)] = True
    padded = np.full((*mask.shape, dim), filler, "float32")
    padded[mask] = z.reshape(-1, dim)
    return padded, mask


@pytest.mark.locked
@pytest.mark.parametrize("codebook", ["ema", "gradient"])
@pytest.mark.parametrize("filler", [0.0, 40.0])
def test_what_a_mask_leaves_out_does_not_count(codebook: str, filler: float) -> None:
    """Neither in the start, nor in statistics, restarts, losses and gradients."""
    plain, masked = (
        VectorQuantizer(12, 3, codebook=codebook, decay=0.6, expiry=0.4, seed=0) for _ in range(2)
    )
    for layer in (plain, masked):
        layer.build((None, None, 3))
        layer.set_weights(plain.get_weights())
    restarted = 0
    for step in range(6):
        z = floats((4, 5, 3), seed=step) + step
        padded, mask = with_padding(z, 20, filler)
        quantized, codes, loss = plain(z, training=True, return_info=True)
        restarted += int(np.sum(to_numpy(inside(plain).counts) == np.float32(FRESH_USE)))
        others = masked(padded, training=True, return_info=True, mask=mask)
        np.testing.assert_array_equal(to_numpy(others[1])[mask], to_numpy(codes).reshape(-1))
        np.testing.assert_allclose(
            to_numpy(others[0])[mask].reshape(z.shape), to_numpy(quantized), atol=1e-5
        )
        np.testing.assert_allclose(to_numpy(others[2]), to_numpy(loss), rtol=1e-5)
        for a, b in zip(state(plain), state(masked), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)
        slope = gradient(lambda z: ops.sum(plain(z, return_info=True)[2]), z)
        other = gradient(lambda z: ops.sum(masked(z, return_info=True, mask=mask)[2]), padded)  # noqa: B023
        np.testing.assert_allclose(other[mask].reshape(z.shape), slope, rtol=1e-4, atol=1e-6)
        assert not other[~mask].any()
    assert restarted >= 3, "the test is to cover restarts"


@pytest.mark.parametrize("codebook", ["ema", "gradient"])
@pytest.mark.parametrize("shape", [(6, 3), (2, 4, 3), (0, 4, 3)])
def test_a_mask_that_leaves_out_all(codebook: str, shape: tuple) -> None:
    layer = VectorQuantizer(8, 3, codebook=codebook, expiry=0.9, seed=0)
    layer.build(shape)
    for _ in range(2):  # before the codebook has started, and after
        before = state(layer)
        loss = layer(
            floats(shape), training=True, return_info=True, mask=np.zeros(shape[:-1], bool)
        )[2]
        np.testing.assert_array_equal(to_numpy(loss), np.zeros(shape[0], "float32"))
        assert_arrays_equal(state(layer), before)
        layer(floats((16, 3)), training=True)


def test_a_mask_weights_the_added_loss_by_vectors() -> None:
    layer = VectorQuantizer(8, 3)
    z, mask = floats((2, 4, 3)), np.array([[1, 1, 1, 0], [1, 0, 0, 0]], bool)
    loss = to_numpy(layer(z, return_info=True, mask=mask)[2])
    layer(z, mask=mask)
    assert float(layer.losses[0]) == pytest.approx((3 * loss[0] + loss[1]) / 4, rel=1e-5)
    with pytest.raises(ValueError, match=r"mask must have .* \(2, 4\), got \(2, 3\)"):
        layer(z, mask=mask[:, 1:])


def test_a_mask_of_kerass_masking_layer() -> None:
    z = floats((2, 6, 3))
    z[0, 4:] = z[1, 2:] = 0.0
    layer = VectorQuantizer(8, 3, seed=0)
    model = keras.Sequential([keras.layers.Masking(), layer])
    model(z)
    (found,) = map(float, model.losses)
    layer(z, mask=np.any(z != 0, -1))
    assert found == pytest.approx(float(layer.losses[0]), rel=1e-6)
    layer(z)
    assert found != pytest.approx(float(layer.losses[0]), rel=0.01)


@pytest.mark.parametrize("codebook", ["ema", "gradient"])
def test_an_empty_batch_leaves_the_state_untouched(codebook: str) -> None:
    layer = VectorQuantizer(8, 3, codebook=codebook, expiry=0.9, seed=0)
    layer.build((None, 3))
    for _ in range(2):
        before = state(layer)
        quantized, codes, loss = layer(np.zeros((0, 3), "float32"), training=True, return_info=True)
        assert quantized.shape == (0, 3) and codes.shape == (0,) and loss.shape == (0,)
        assert_arrays_equal(state(layer), before)
        layer(floats((16, 3)), training=True)


@pytest.mark.parametrize("codebook", ["ema", "gradient"])
def test_the_codebook_moves_only_when_training_and_trainable(codebook: str) -> None:
    layer = VectorQuantizer(8, 3, codebook=codebook, seed=0)
    layer(floats((16, 3)), training=True)
    before = state(layer)
    for training in (False, None):
        layer(floats((16, 3), 1), training=training)
        assert_arrays_equal(state(layer), before)
    layer.trainable = False
    layer(floats((16, 3), 1), training=True)
    assert_arrays_equal(state(layer), before)
    assert not layer.trainable_weights
    layer.trainable = True
    layer(floats((16, 3), 1), training=True)
    assert any(np.any(a != b) for a, b in zip(state(layer), before, strict=True))


def test_frozen_in_fit() -> None:
    quantizer = VectorQuantizer(8, 3, seed=0)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3), quantizer])
    quantizer.trainable = False
    model.compile(optimizer="sgd", loss="mse")
    before = state(quantizer)
    kernel = to_numpy(model.layers[0].kernel).copy()
    model.fit(floats((32, 3)), floats((32, 3), 1), verbose=0)
    assert_arrays_equal(state(quantizer), before)
    assert np.any(kernel != to_numpy(model.layers[0].kernel))


def test_losses_and_gradients_of_the_ema_codebook() -> None:
    layer = VectorQuantizer(8, 3, commitment=0.7)
    z, weights = floats((5, 2, 3)), floats((5, 2, 3), 1)
    _, codes, loss = layer(z, return_info=True)
    quantized = to_numpy(layer.embeddings)[to_numpy(codes)]
    np.testing.assert_allclose(to_numpy(loss), 0.7 * ((z - quantized) ** 2).mean((1, 2)), rtol=1e-5)

    by_loss = gradient(lambda z: ops.sum(layer(z, return_info=True)[2]), z)
    np.testing.assert_allclose(by_loss, 0.7 * 2 * (z - quantized) / 6, rtol=1e-4, atol=1e-6)
    by_output = gradient(lambda z: ops.sum(layer(z, return_info=True)[0] * weights), z)
    np.testing.assert_allclose(by_output, weights, rtol=1e-5)


def test_losses_and_gradients_of_the_gradient_codebook() -> None:
    """Eq. 3 of the paper, its codebook term and its commitment term, and one SGD step of it."""
    beta, rate = 0.7, 0.1
    layer = VectorQuantizer(30, 3, codebook="gradient", commitment=beta, expiry=0.0)
    layer.build((None, 3))
    inside(layer).started.assign(1.0)
    z = floats((20, 3))
    before = to_numpy(layer.embeddings).astype("float64")
    nearest = numpy_nearest(z, before)
    error = z - before[nearest]
    _, _, loss = layer(z, return_info=True)
    np.testing.assert_allclose(to_numpy(loss), (1 + beta) * (error**2).mean(1), rtol=1e-5)
    by_z = gradient(lambda z: ops.sum(layer(z, return_info=True)[2]), z)
    np.testing.assert_allclose(by_z, beta * 2 * error / 3, rtol=1e-4, atol=1e-6)

    model = keras.Sequential([keras.Input((3,)), layer])
    model.compile(optimizer=keras.optimizers.SGD(rate))
    model.fit(z, batch_size=20, verbose=0)
    slope = np.zeros_like(before)
    np.add.at(slope, nearest, -2 * error / 3 / 20)
    np.testing.assert_allclose(to_numpy(layer.embeddings), before - rate * slope, atol=1e-6)
    unused = np.setdiff1d(np.arange(30), nearest)
    assert unused.size, "the test is to cover a code without gradient"
    np.testing.assert_array_equal(
        to_numpy(layer.embeddings)[unused], before[unused].astype("float32")
    )


@pytest.mark.tensorflow
def test_adam_sees_one_gradient_a_code_and_not_one_a_row() -> None:
    """Of slices TensorFlow's Adam would sum the squares, where rows share a code."""
    layer = VectorQuantizer(2, 3, codebook="gradient", expiry=0.0)
    rows = floats((64, 3))
    layer(rows)
    model = keras.Sequential([keras.Input((3,)), layer])
    optimizer = keras.optimizers.Adam(1e-3, beta_2=0.9)
    model.compile(optimizer, "mse")
    inside(layer).started.assign(1.0)
    codebook = keras.ops.convert_to_numpy(layer.embeddings)
    codes = numpy_nearest(rows, codebook)
    model.fit(rows, np.zeros_like(rows), batch_size=64, verbose=0)
    # Of the codebook's own loss, |sg[z] - e|^2; that of "mse" reaches the input alone.
    sums = np.stack([np.sum(codebook[c] - rows[codes == c], 0) for c in range(2)])
    gradient_of_codes = 2 * sums / rows.size
    velocity = optimizer.variables[-1].numpy()
    np.testing.assert_allclose(velocity, 0.1 * gradient_of_codes**2, rtol=1e-4)


def test_gradient_codebook_restarts_dead_codes_from_rows() -> None:
    layer = VectorQuantizer(16, 3, codebook="gradient", decay=0.0, expiry=0.5, seed=0)
    layer(floats((64, 3)), training=True)
    # All of this batch falls on one code, the others die at once.
    z = (np.full((64, 3), 40) + floats((64, 3)) * 0.01).astype("float32")
    winner = int(to_numpy(layer.encode(z))[0])
    layer(z, training=True)
    codes = np.delete(to_numpy(layer.embeddings), winner, axis=0)
    distances = np.abs(codes[:, None] - z[None]).max(-1).min(1)
    assert distances.max() < 1e-4, "restarted codes are rows of the batch"
    np.testing.assert_array_equal(
        np.delete(to_numpy(inside(layer).counts), winner), np.float32(FRESH_USE)
    )


def test_add_loss_is_the_mean_of_the_losses_of_the_examples() -> None:
    layer = VectorQuantizer(8, 3)
    z = floats((5, 2, 3))
    layer(z)
    loss = layer(z, return_info=True)[2]
    assert len(layer.losses) == 0, "return_info adds none"
    layer(z)
    assert len(layer.losses) == 1
    assert float(layer.losses[0]) == pytest.approx(float(np.mean(to_numpy(loss))), rel=1e-6)


@pytest.mark.graph
def test_in_a_sequential_model() -> None:
    model = keras.Sequential(
        [
            keras.Input((5,)),
            keras.layers.Dense(3),
            VectorQuantizer(8, 3, seed=0),
            keras.layers.Dense(5),
        ]
    )
    model.compile(optimizer=keras.optimizers.Adam(0.01), loss="mse")
    x = floats((64, 5))
    kernel = to_numpy(model.layers[0].kernel).copy()
    history = model.fit(x, x, epochs=20, verbose=0).history["loss"]
    assert history[-1] < history[0]
    assert np.any(kernel != to_numpy(model.layers[0].kernel)), "straight-through to the encoder"


def test_in_a_functional_model() -> None:
    images = keras.Input((8, 8, 2))
    z = keras.layers.Conv2D(3, 2, 2)(images)
    model = keras.Model(images, keras.layers.Conv2DTranspose(2, 2, 2)(VectorQuantizer(8, 3)(z)))
    assert model.output_shape == (None, 8, 8, 2)
    model.compile(optimizer="sgd", loss="mse")
    x = floats((8, 8, 8, 2))
    assert np.isfinite(model.fit(x, x, verbose=0).history["loss"]).all()
    assert model.predict(x, verbose=0).shape == x.shape


def test_float32_inside_under_every_policy() -> None:
    z = (1000 + floats((64, 3))).astype("float32")
    for policy in POLICIES:
        layer = VectorQuantizer(8, 3, seed=0, dtype=policy)
        quantized, _, loss = layer(z, training=True, return_info=True)
        compute = keras.DTypePolicy(policy).compute_dtype
        assert keras.backend.standardize_dtype(quantized.dtype) == compute
        assert keras.backend.standardize_dtype(loss.dtype) == "float32"
        assert np.isfinite(to_numpy(loss)).all()
        assert keras.backend.standardize_dtype(layer.embeddings.dtype) == "float32"
        assert keras.backend.standardize_dtype(layer.decode(layer.encode(z)).dtype) == compute


def test_encode_and_decode_agree() -> None:
    layer = VectorQuantizer(8, 3)
    z = floats((4, 5, 6, 3))
    codes = layer.encode(z)
    assert codes.shape == (4, 5, 6)
    assert_same(layer.encode(layer.decode(codes)), codes)
    every = np.arange(8, dtype="int32")
    assert_same(layer.encode(layer.decode(every)), every)


def distortion(layer: VectorQuantizer, z: np.ndarray) -> float:
    return float(np.square(z - to_numpy(layer.decode(layer.encode(z)))).sum(-1).mean())


def test_adapt_is_better_than_random_rows() -> None:
    random = np.random.default_rng(0)
    z = blobs(random, random.normal(0, 10, (16, 4)), 2000)
    started = VectorQuantizer(16, 4, seed=0, decay=0.999, expiry=0.0)
    started(z, training=True)
    adapted = VectorQuantizer(16, 4, seed=0)
    adapted.adapt(z)
    assert distortion(adapted, z) < 0.8 * distortion(started, z)
    # The first batch must not overwrite it.
    before = to_numpy(adapted.embeddings)
    adapted(z[:100], training=True)
    assert np.abs(to_numpy(adapted.embeddings) - before).max() < 1
    assert float(inside(adapted).started) == 1.0


@pytest.mark.locked
@pytest.mark.parametrize(
    "rows_a_code", [16, *(pytest.param(n, marks=pytest.mark.long) for n in (1, 1000))]
)
def test_a_step_of_any_size_keeps_what_adapt_or_training_found(rows_a_code: int) -> None:
    random = np.random.default_rng(0)
    centres = random.normal(0, 10, (16, 4))
    layer = VectorQuantizer(16, 4, seed=0)
    layer.adapt(blobs(random, centres, 4000))
    before = to_numpy(layer.embeddings)
    layer(blobs(random, centres, 16 * rows_a_code), training=True)
    moved = np.abs(to_numpy(layer.embeddings) - before).max(-1)
    assert (moved < 1).all()  # an expired code would have jumped to another row
    for _ in range(300):
        layer(blobs(random, centres, 64), training=True)
    before = to_numpy(layer.embeddings)
    layer(blobs(random, centres, 16 * rows_a_code), training=True)
    assert np.mean(np.abs(to_numpy(layer.embeddings) - before).max(-1) < 1) > 0.9


@pytest.mark.parametrize("codebook", ["ema", "gradient"])
def test_adapt_ends_where_codes_are_the_means_of_their_rows(codebook: str) -> None:
    z = (np.eye(4)[np.arange(400) % 4] * 20 + floats((400, 4))).astype("float32")
    layer = VectorQuantizer(4, 4, codebook=codebook, seed=1)
    layer.adapt(z, iterations=30)
    codes = to_numpy(layer.encode(z))
    for code in np.unique(codes):
        np.testing.assert_allclose(
            to_numpy(layer.embeddings)[code], z[codes == code].mean(0), atol=1e-4
        )


def test_adapt_takes_batches_of_any_rank_and_fewer_rows_than_codes() -> None:
    layer = VectorQuantizer(8, 3, seed=0)
    z = floats((5, 3))
    layer.adapt([z[:2], z[2:]])
    # Every row is a code of its own.
    np.testing.assert_allclose(to_numpy(layer.decode(layer.encode(z))), z, atol=1e-5)
    layer.adapt(floats((2, 4, 4, 3)))


@pytest.mark.tensorflow
def test_adapt_takes_a_dataset() -> None:
    import tensorflow as tf

    z = floats((50, 3))
    one, other = VectorQuantizer(8, 3, seed=0), VectorQuantizer(8, 3, seed=0)
    one.adapt(tf.data.Dataset.from_tensor_slices(z).batch(16))
    other.adapt(z)
    np.testing.assert_array_equal(one.embeddings, other.embeddings)


BAD_ADAPT = {
    "empty": (np.zeros((0, 3), "float32"), "at least one vector, got an empty dataset"),
    "no batch": ([], "at least one vector, got an empty dataset"),
    "size": (np.zeros((4, 5), "float32"), r"code_dim=3.*\(4, 5\)|size 3.*\(4, 5\)"),
    "nan": (np.full((4, 3), np.nan, "float32"), "finite vectors, got NaN"),
}


@pytest.mark.parametrize("data, message", BAD_ADAPT.values(), ids=BAD_ADAPT)
@pytest.mark.parametrize("built", [False, True])
def test_adapt_refuses(data: object, message: str, built: bool) -> None:
    layer = VectorQuantizer(4, 3)
    if built:
        layer.build((None, 3))
    with pytest.raises(ValueError, match=message):
        layer.adapt(data)


BAD_ARGUMENTS = [
    ({"num_codes": 0}, "num_codes must be an integer of at least 1, got 0"),
    ({"code_dim": -1}, "code_dim must be an integer of at least 1, got -1"),
    ({"codebook": "mean"}, "codebook must be 'ema' or 'gradient', got 'mean'"),
    ({"decay": 1.0}, r"decay must be in \[0, 1\), got 1.0"),
    ({"expiry": -0.1}, r"expiry must be in \[0, 1\), got -0.1"),
]


@pytest.mark.parametrize("arguments, message", BAD_ARGUMENTS)
def test_refuses_bad_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VectorQuantizer(**{"num_codes": 4, "code_dim": 3, **arguments})


@pytest.mark.parametrize("shape", [(4,), (2, 1, 1, 1, 1, 4), (2, 5)])
def test_refuses_bad_shapes(shape: tuple) -> None:
    with pytest.raises(ValueError, match=r"rank 2 to 5 and a last axis of size code_dim=4, got"):
        VectorQuantizer(8, 4)(np.zeros(shape, "float32"))
    # The same layer, built before.
    layer = VectorQuantizer(8, 4)
    layer(np.zeros((2, 4), "float32"))
    with pytest.raises(ValueError):
        layer(np.zeros(shape, "float32"))


def test_decode_before_there_is_a_codebook() -> None:
    with pytest.raises(ValueError, match="no codebook yet"):
        VectorQuantizer(8, 4).decode(np.zeros((2,), "int32"))


def test_seed_decides_the_start() -> None:
    def codes(seed: int) -> np.ndarray:
        layer = VectorQuantizer(8, 3, seed=seed)
        layer(floats((500, 3)), training=True)
        return to_numpy(layer.embeddings)

    np.testing.assert_array_equal(codes(1), codes(1))
    assert np.any(codes(1) != codes(2))


def test_defaults_are_those_that_models_were_measured_with() -> None:
    """Another commitment or decay trains too, and worse, which no other test would notice."""
    config = VectorQuantizer(4, 2).get_config()
    wanted = {"codebook": "ema", "commitment": 0.25, "decay": 0.99, "expiry": 0.05, "epsilon": 1e-5}
    assert {name: config[name] for name in wanted} == wanted


@pytest.mark.parametrize("codebook", ["ema", "gradient"])
def test_vectors_far_from_zero_are_those_around_it(codebook: str) -> None:
    """Start, search, statistics, smoothing, restarts, `adapt`: all are moved with the data."""
    near, far = (
        VectorQuantizer(16, 3, codebook=codebook, decay=0.8, expiry=0.3, epsilon=1e-3, seed=5)
        for _ in range(2)
    )
    offset, restarts = np.float32(2048), 0
    for step in range(12):
        # In steps that float32 has at 2048 too. The cloud moves, so that codes die.
        z = np.round((floats((40, 3), step) + step / 2) * 1024).astype("float32") / 1024
        one = near(z, training=True, return_info=True)
        other = far(z + offset, training=True, return_info=True)
        np.testing.assert_array_equal(to_numpy(one[1]), to_numpy(other[1]))
        np.testing.assert_allclose(to_numpy(one[2]), to_numpy(other[2]), rtol=0.01)
        restarts += int(np.sum(to_numpy(inside(near).counts) == np.float32(FRESH_USE)))
    assert restarts >= 5, "the test is to cover restarts"
    # float32 has 1/4096 there.
    np.testing.assert_allclose(
        to_numpy(far.embeddings) - offset, to_numpy(near.embeddings), 0, 2e-3
    )
    np.testing.assert_array_equal(to_numpy(far.encode(z + offset)), to_numpy(near.encode(z)))
    near.adapt(z)
    far.adapt(z + offset)
    np.testing.assert_allclose(
        to_numpy(far.embeddings) - offset, to_numpy(near.embeddings), 0, 1e-3
    )


def test_adapt_finds_the_means_of_clusters_far_apart() -> None:
    z = floats((400, 3)) * 0.01
    z[200:] += 3000
    layer = VectorQuantizer(2, 3, seed=0)
    layer.adapt(z)
    expected = [z[:200].mean(0), z[200:].astype("float64").mean(0)]
    np.testing.assert_allclose(np.sort(to_numpy(layer.embeddings), 0), expected, atol=3e-4)


def test_adapt_reads_and_copies_what_it_needs() -> None:
    """An array of 120 GB, were it copied; and an endless pipeline."""
    large = np.broadcast_to(floats((1, 3)).astype("float64"), (5 * 10**9, 3))
    layer = VectorQuantizer(4, 3, seed=0)
    layer.adapt(large, iterations=1, rows_per_code=8)
    np.testing.assert_allclose(to_numpy(layer.embeddings), np.repeat(large[:1], 4, 0), rtol=1e-6)
    read = []

    def batches() -> Iterator:
        while True:
            read.append(floats((5, 3), len(read)))
            yield read[-1]

    layer.adapt(batches(), rows_per_code=8)
    assert len(read) == 7  # 32 vectors


@pytest.mark.parametrize("policy", POLICIES)
def test_symbolic_calls_say_what_eager_ones_give(policy: str) -> None:
    layer = VectorQuantizer(8, 4, dtype=policy)
    z = floats((2, 5, 4))
    symbolic = layer(keras.KerasTensor((None, 5, 4)), return_info=True)
    codes = layer.encode(keras.KerasTensor((None, 5, 4)))
    symbolic = [*symbolic, codes, layer.decode(codes), layer(keras.KerasTensor((None, 5, 4)))]
    codes = layer.encode(z)
    eager = [*layer(z, return_info=True), codes, layer.decode(codes), layer(z)]
    for said, found in zip(symbolic, eager, strict=True):
        assert tuple(said.shape) == (None, *found.shape[1:])
        assert said.dtype == keras.backend.standardize_dtype(found.dtype)
    # Of float32 vectors the codes are those of float32, whichever way they are asked for.
    assert_same(eager[1], codes)


def test_encode_and_decode_in_functional_models(tmp_path: Path) -> None:
    """The layer is part of such a model: its codebook is trained, saved and loaded with it."""
    layer = VectorQuantizer(8, 4, seed=0)
    z = floats((3, 5, 4))
    x, codes = keras.Input((5, 4)), keras.Input((5,), dtype="int32")
    quantized, found, loss = layer(x, return_info=True)
    whole = keras.Model(x, [quantized, found, loss, layer.encode(x)])
    back = keras.Model(codes, layer.decode(codes))
    layer.adapt(z)
    for number, (model, data) in enumerate([(whole, z), (back, to_numpy(layer.encode(z)))]):
        assert layer in model.layers
        model.save(tmp_path / f"{number}.keras")
        loaded = keras.saving.load_model(tmp_path / f"{number}.keras")
        assert_same(loaded(data), model(data))
    assert_same(whole(z), [*layer(z, return_info=True), layer.encode(z)])
    assert_same(back(layer.encode(z)), layer.decode(layer.encode(z)))
    assert keras.models.clone_model(back)(data).shape == (3, 5, 4)
