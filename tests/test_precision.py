"""Training under mixed precision: everything stays finite, and as good as in float32."""

import functools
from typing import Any

import keras
import numpy as np
import pytest

from keras_vqvae import (
    VQVAE,
    AudioVQVAE,
    Autoencoder,
    ImageVQVAE,
    ParallelDecoder,
    PixelCNN,
    VectorQuantizer,
    WaveNetDecoder,
    backend,
)
from tests.checks import assert_finite, to_numpy
from tests.inside import inside

# Hundreds of steps are faster compiled.
pytestmark = pytest.mark.graph

KINDS = ("ema", "gradient", "prior", "prior_of_classes", "sound_by_wavenet", "sound_in_parallel")
LOW = ("mixed_bfloat16", "mixed_float16")
REST = {
    ("ema", "mixed_bfloat16"),
    ("gradient", "mixed_float16"),
    ("sound_by_wavenet", "mixed_float16"),
    ("sound_by_wavenet", "mixed_bfloat16"),
    ("sound_in_parallel", "mixed_bfloat16"),
    ("sound_in_parallel", "mixed_float16"),
    ("gradient", "mixed_bfloat16"),
    ("prior", "mixed_float16"),
    ("prior", "mixed_bfloat16"),
    ("prior_of_classes", "mixed_bfloat16"),
}
COUNT, BATCH, EPOCHS = 160, 16, 20  # 200 steps


def pictures() -> np.ndarray:
    """A disc of one colour on a gradient of colours."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[:8, :8] / 8
    made = []
    for _ in range(COUNT):
        start, right, down, colour = random.uniform(-1, 1, (4, 3))
        gradient = 0.5 * (start + right * x[..., None] + down * y[..., None])
        (column, row), radius = random.uniform(0.2, 0.8, 2), random.uniform(0.1, 0.4)
        disc = (x - column) ** 2 + (y - row) ** 2 < radius**2
        made.append(np.where(disc[..., None], colour, gradient))
    return np.clip(127.5 * (np.array(made) + 1), 0, 250).astype("uint8")


def codes() -> dict:
    """Counts up by one more than the class, with a tenth of the codes wrong."""
    random = np.random.default_rng(0)
    labels = np.arange(COUNT, dtype="int32") % 4
    right = random.integers(16, size=(COUNT, 1)) + (labels[:, None] + 1) * np.arange(20)
    wrong = random.random(right.shape) < 0.1
    grids = (right + wrong * random.integers(1, 16, right.shape)) % 16
    return {"codes": grids.reshape(COUNT, 4, 5).astype("int32"), "condition": labels}


def tones() -> np.ndarray:
    random = np.random.default_rng(0)
    pitch, loud = random.uniform(0.01, 0.1, (COUNT, 1)), random.uniform(0.2, 0.8, (COUNT, 1))
    return (loud * np.sin(2 * np.pi * pitch * np.arange(128))).astype("float32")


def make_sound(kind: str, policy: str) -> tuple[keras.Model, Any]:
    decoder: Any = WaveNetDecoder(
        8, channels=16, skip_channels=32, dilations=(1, 2, 4), dtype=policy
    )
    if kind == "sound_in_parallel":
        decoder = ParallelDecoder((4, 2), 16, finest_hidden=8, dilations=(1, 3), dtype=policy)
    quantizer = VectorQuantizer(16, 4, seed=0, dtype=policy)
    options: dict = {"hidden": 16, "residual_blocks": 1, "dtype": policy}
    model = AudioVQVAE(8000, downsampling=8, quantizer=quantizer, decoder=decoder, **options)
    return model, tones()


def make(kind: str, policy: str) -> tuple[keras.Model, Any]:
    """A model and its data."""
    if kind.startswith("sound"):
        return make_sound(kind, policy)
    if kind in ("ema", "gradient"):
        commitment = 0.25 if kind == "ema" else 1.0  # for the codebook to keep up with the encoder
        quantizer = VectorQuantizer(
            16, 4, codebook=kind, commitment=commitment, seed=0, dtype=policy
        )
        options: dict = {"downsampling": 2, "hidden": 12, "residual_blocks": 1, "dtype": policy}
        return ImageVQVAE((8, 8, 3), quantizer=quantizer, **options), pictures()
    options = {"hidden": 12, "num_layers": 3, "dtype": policy}
    if kind == "prior":
        return PixelCNN((4, 5), 16, **options), codes()["codes"]
    return PixelCNN((4, 5), 16, num_classes=4, **options), codes()


@functools.cache
def trained(kind: str, policy: str, seed: int = 0) -> tuple[keras.Model, dict, dict]:
    """The model after 200 steps, what `fit` logged, what `evaluate` gives."""
    keras.utils.set_random_seed(seed)
    model, x = make(kind, policy)
    model.compile(optimizer=keras.optimizers.Adam(0.003))
    history = model.fit(x, batch_size=BATCH, epochs=EPOCHS, verbose=0).history
    return model, history, model.evaluate(x, batch_size=COUNT, verbose=0, return_dict=True)


def assert_state_is_float32(quantizer: VectorQuantizer) -> None:
    assert {v.name for v in quantizer.weights} >= {"embeddings", "counts", "started"}
    for tensor in (*quantizer.weights, quantizer.embeddings):
        assert keras.backend.standardize_dtype(tensor.dtype) == "float32"


@pytest.mark.parametrize(
    "kind, policy",
    [
        pytest.param(kind, policy, marks=[pytest.mark.long] if (kind, policy) in REST else [])
        for kind in KINDS
        for policy in LOW
    ],
)
def test_200_steps_stay_finite(kind: str, policy: str) -> None:
    model, history, evaluated = trained(kind, policy)
    assert model.compute_dtype == keras.DTypePolicy(policy).compute_dtype != "float32"
    assert_finite(model.weights)
    assert_finite(model.optimizer.variables)
    for logs in (history, evaluated):
        assert all(np.isfinite(values).all() for values in logs.values()), logs
    name = "reconstruction_loss" if isinstance(model, Autoencoder) else "loss"
    assert evaluated[name] < history[name][0] - 0.5, "nothing was learned"
    if isinstance(model, Autoencoder):
        assert_state_is_float32(model.quantizer)
        assert evaluated["perplexity"] > (2 if kind.startswith("sound") else 5)


@pytest.mark.long
@pytest.mark.parametrize("policy", LOW)
@pytest.mark.parametrize("kind", KINDS)
def test_loss_is_within_2_percent_of_float32(kind: str, policy: str) -> None:
    """After 200 steps, medians of three seeds."""
    low, full = (
        np.median([trained(kind, p, seed)[2]["loss"] for seed in range(3)])
        for p in (policy, "float32")
    )
    assert low == pytest.approx(full, rel=0.02)


@pytest.mark.parametrize("policy", LOW)
def test_distances_are_float32(policy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    argmax = backend.argmax

    def watched(scores: Any) -> Any:
        seen.append(keras.backend.standardize_dtype(scores.dtype))
        return argmax(scores)

    monkeypatch.setattr(backend, "argmax", watched)
    model, x = make("ema", policy)
    model(x[:2], training=True)
    model.encode(x[:2])
    assert len(seen) >= 2 and set(seen) == {"float32"}


class Overflow(keras.layers.Layer):
    """Infinite where a picture is white, in every precision."""

    def call(self, x: Any) -> Any:
        return x * keras.ops.exp(30_000 * keras.ops.relu(x - 0.99))


def make_overflowing(codebook: str, policy: str) -> VQVAE:
    layers, options = keras.layers, {"dtype": policy}
    encoder = keras.Sequential([Overflow(**options), layers.Conv2D(4, 4, 4, **options)])
    decoder = keras.Sequential([layers.Conv2DTranspose(3, 4, 4, **options)])
    # Codes that would be restarted at every step, also from rows that are not finite.
    quantizer = VectorQuantizer(16, 4, codebook=codebook, expiry=0.5, seed=0, **options)
    model = VQVAE(encoder, quantizer, decoder, **options)
    model.compile(optimizer=keras.optimizers.Adam(0.01))
    return model


def white(x: np.ndarray, every: bool) -> np.ndarray:
    x = x.copy()
    x[slice(None) if every else 3] = 255
    return x


def state(quantizer: VectorQuantizer) -> list[np.ndarray]:
    return [to_numpy(v) for v in (*quantizer.weights, quantizer.embeddings)]


@pytest.mark.parametrize(
    "codebook, every",
    [
        ("ema", False),
        ("gradient", True),
        pytest.param("ema", True, marks=pytest.mark.long),
        pytest.param("gradient", False, marks=pytest.mark.long),
    ],
)
def test_float16_goes_on_after_a_batch_that_overflows(codebook: str, every: bool) -> None:
    model, x = make_overflowing(codebook, "mixed_float16"), pictures()[:64]
    model.fit(x, batch_size=BATCH, epochs=2, verbose=0)
    before = [to_numpy(v) for v in model.weights]
    scale = float(model.optimizer.dynamic_scale)
    # Optimizer's step and codebook's are both skipped.
    logs = model.fit(white(x[:BATCH], every), batch_size=BATCH, verbose=0).history
    assert not np.isfinite(logs["loss"][0]), "the test is to overflow"
    for weight, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(to_numpy(weight), value, err_msg=weight.path)
    assert float(model.optimizer.dynamic_scale) < scale
    logs = model.fit(x, batch_size=BATCH, epochs=10, verbose=0).history
    assert_finite(model.weights)
    assert np.isfinite(logs["loss"]).all()
    assert logs["reconstruction_loss"][-1] < logs["reconstruction_loss"][0] - 0.01


@pytest.mark.parametrize(
    "codebook, policy",
    [
        ("ema", "float32"),
        ("ema", "mixed_float16"),
        ("gradient", "float32"),
        pytest.param("ema", "mixed_bfloat16", marks=pytest.mark.long),
        *(pytest.param("gradient", policy, marks=pytest.mark.long) for policy in LOW),
    ],
)
def test_what_is_not_finite_never_reaches_the_codebook(codebook: str, policy: str) -> None:
    """Also where the encoder is lost: no optimiser but float16's skips a step."""
    model, x = make_overflowing(codebook, policy), pictures()[:64]
    model.fit(white(x, every=True), batch_size=BATCH, verbose=0)  # not a start from such rows
    assert float(inside(model.quantizer).started) == 0
    model = make_overflowing(codebook, policy)
    model.fit(x, batch_size=BATCH, epochs=2, verbose=0)
    assert float(inside(model.quantizer).started) == 1
    for every in (False, True):
        logs = model.fit(white(x, every), batch_size=BATCH, verbose=0).history
        assert not np.isfinite(logs["loss"][0]), "the test is to overflow"
        assert all(np.isfinite(array).all() for array in state(model.quantizer))
    encoder = [to_numpy(v) for v in model.encoder.weights]
    assert all(np.isfinite(w).all() for w in encoder) == (policy == "mixed_float16")
