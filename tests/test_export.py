"""SavedModels: the same numbers, named errors, nothing written, no foreign op."""

from collections.abc import Callable, Iterator
from pathlib import Path

import keras
import numpy as np
import pytest

pytestmark = pytest.mark.tensorflow

if keras.backend.backend() != "tensorflow":  # the JAX run deselects this file by the mark
    pytest.skip("SavedModels are TensorFlow's", allow_module_level=True)

import tensorflow as tf  # noqa: E402

from keras_vqvae import (  # noqa: E402
    ImageVQVAE,
    PixelCNN,
    VectorQuantizer,
    export_savedmodel,
)
from keras_vqvae.export import checks  # noqa: E402
from keras_vqvae.export.graphs import ops_of  # noqa: E402
from tests.checks import floats  # noqa: E402
from tests.serving.graphs import forbidden  # noqa: E402

SHAPE = (16, 24, 3)


def pictures(n: int = 10) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, *SHAPE)).astype("uint8")


def trained(**options: object) -> ImageVQVAE:
    keras.utils.set_random_seed(0)
    quantizer = VectorQuantizer(20, 8, seed=0, **options)
    vqvae = ImageVQVAE(SHAPE, hidden=16, quantizer=quantizer)
    vqvae.compile("adam")
    vqvae.fit(pictures(), verbose=0)
    return vqvae


@pytest.fixture(scope="module", params=["ema", "gradient"])
def exported(request, tmp_path_factory) -> Iterator[tuple]:
    vqvae = trained(codebook=request.param)
    path = tmp_path_factory.mktemp("served") / "model" / "1"
    export_savedmodel(vqvae, path)
    yield vqvae, tf.saved_model.load(str(path)), path


@pytest.mark.parametrize("batch", [0, 1, 7])
def test_same_numbers(exported: tuple, batch: int) -> None:
    vqvae, served, _ = exported
    images = pictures()[:batch]
    codes = vqvae.encode(images)
    got = served.signatures["encode"](images=tf.constant(images))
    assert got["codes"].dtype == tf.int32
    np.testing.assert_array_equal(got["codes"], codes)
    decoded = served.signatures["decode"](codes=got["codes"])["images"]
    assert decoded.dtype == tf.uint8 and decoded.shape == (batch, *SHAPE)
    np.testing.assert_array_equal(decoded, vqvae.decode(codes))
    for name in ("reconstruct", "serving_default"):
        both = served.signatures[name](images=tf.constant(images))
        np.testing.assert_array_equal(both["images"], decoded)
        np.testing.assert_array_equal(both["codes"], codes)


def test_training_on_does_not_change_what_was_exported(tmp_path: Path) -> None:
    vqvae = trained()
    export_savedmodel(vqvae, tmp_path / "1")
    served = tf.saved_model.load(str(tmp_path / "1"))
    before = vqvae.encode(pictures())
    vqvae.fit(pictures(), epochs=3, verbose=0)
    np.testing.assert_array_equal(served.encode(pictures())["codes"], before)


@pytest.mark.parametrize(
    ("endpoint", "feed", "message"),
    [
        ("encode", lambda: {"images": np.zeros((2, 16, 20, 3), "uint8")}, "images must have shape"),
        ("encode", lambda: {"images": np.zeros((2, 16, 24, 1), "uint8")}, "images must have shape"),
        (
            "reconstruct",
            lambda: {"images": np.zeros((16, 24, 3), "uint8")},
            "images must have shape",
        ),
        ("decode", lambda: {"codes": np.full((1, 4, 6), 20, "int32")}, r"codes must be in \[0, 20"),
        ("decode", lambda: {"codes": np.full((1, 4, 6), -1, "int32")}, r"codes must be in \[0, 20"),
        ("decode", lambda: {"codes": np.zeros((1, 6, 4), "int32")}, "codes must have shape"),
    ],
)
def test_bad_requests(
    exported: tuple, endpoint: str, feed: Callable[[], dict], message: str
) -> None:
    _, served, _ = exported
    feeds = {name: tf.constant(value) for name, value in feed().items()}
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        served.signatures[endpoint](**feeds)
    # and the next good request is served
    assert served.encode(pictures(2))["codes"].shape == (2, 4, 6)


def test_graph_writes_nothing_and_holds_only_tensorflows_ops(exported: tuple) -> None:
    _, _, path = exported
    found = ops_of(path)
    assert set(found) == {"serving_default", "encode", "decode", "reconstruct"}
    for name, ops in found.items():
        assert "Conv2D" in ops and ("TopKV2" in ops or name == "decode")  # all was walked
        assert not forbidden(ops) and not any("Random" in op for op in ops)


PRIORS: dict[str, dict] = {
    "none": {},
    "classes": {"num_classes": 3},
    "maps": {"condition_channels": 2},
}


def prior_of(kind: str) -> PixelCNN:
    prior = PixelCNN((4, 6), 20, hidden=8, num_layers=3, **PRIORS[kind])
    prior.set_weights([floats(w.shape, i) * 0.4 for i, w in enumerate(prior.weights)])
    return prior


def condition_of(kind: str, n: int) -> dict:
    value = {
        "none": None,
        "classes": np.arange(n, dtype="int32") % 3,
        "maps": floats((n, 4, 6, 2)),
    }[kind]
    return {} if value is None else {"condition": value}


@pytest.fixture(
    scope="module",
    params=["classes", *(pytest.param(k, marks=pytest.mark.long) for k in ("none", "maps"))],
)
def with_prior(request, tmp_path_factory) -> Iterator[tuple]:
    vqvae, prior = trained(), prior_of(request.param)
    path = tmp_path_factory.mktemp("served") / "model" / "1"
    export_savedmodel(vqvae, path, prior=prior)
    yield request.param, vqvae, prior, tf.saved_model.load(str(path)), path


def request(n: int = 3, **changed: object) -> dict:
    scalars = {"number": n, "seed": 5, "top_k": 20, "temperature": 1.0, "top_p": 1.0} | changed
    return {
        name: tf.constant(value, "float32" if name in ("temperature", "top_p") else "int32")
        for name, value in scalars.items()
    }


def tensors(arrays: dict) -> dict:
    return {name: tf.constant(x) for name, x in arrays.items()}


@pytest.mark.parametrize(
    "options",
    [{}, {"temperature": 0.5}, {"top_k": 3}, {"top_p": 0.6}, {"seed": 6}, {"top_k": 1000}],
    ids=str,
)
def test_sample_gives_the_models_samples(with_prior: tuple, options: dict) -> None:
    kind, vqvae, prior, served, _ = with_prior
    condition = condition_of(kind, 3)
    got = served.signatures["sample"](**request(**options), **tensors(condition))
    expected = prior.sample(3, **condition, **{"seed": 5, **options})
    assert got["codes"].dtype == tf.int32
    np.testing.assert_array_equal(got["codes"], expected)
    np.testing.assert_array_equal(got["images"], vqvae.decode(expected))


@pytest.mark.parametrize("n", [0, 1, 7])
def test_sample_of_any_number_and_one_condition_for_all(with_prior: tuple, n: int) -> None:
    kind, _, prior, served, _ = with_prior
    one = condition_of(kind, 1)
    got = served.signatures["sample"](**request(n), **tensors(one))
    expected = prior.sample(n, seed=5, **{k: x[0] for k, x in one.items()})
    assert got["codes"].shape == (n, 4, 6) and got["images"].shape == (n, *SHAPE)
    np.testing.assert_array_equal(got["codes"], expected)


@pytest.mark.parametrize("n", [0, 5])
def test_log_prob_gives_the_models_numbers(with_prior: tuple, n: int) -> None:
    kind, _, prior, served, _ = with_prior
    x = {"codes": np.random.default_rng(0).integers(0, 20, (n, 4, 6)).astype("int32")}
    x |= condition_of(kind, n)
    got = served.signatures["log_prob"](**tensors(x))["log_prob"]
    assert got.dtype == tf.float32 and got.shape == (n,)
    np.testing.assert_allclose(got, prior.log_prob(x), rtol=1e-5)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"number": -1}, "number must be at least 0"),
        ({"temperature": 0.0}, "temperature must be positive"),
        ({"temperature": float("nan")}, "temperature must be positive"),
        ({"top_k": 0}, "top_k must be at least 1"),
        ({"top_p": 0.0}, r"top_p must be in \(0, 1\]"),
        ({"top_p": 1.5}, r"top_p must be in \(0, 1\]"),
    ],
)
def test_bad_requests_for_samples(with_prior: tuple, changed: dict, message: str) -> None:
    kind, _, _, served, _ = with_prior
    condition = tensors(condition_of(kind, 1))
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        served.signatures["sample"](**request(**changed), **condition)
    assert served.signatures["sample"](**request(), **condition)["codes"].shape == (3, 4, 6)


def test_more_codes_than_a_request_may_draw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "MOST_CODES_IN_ALL", 100)
    export_savedmodel(trained(), tmp_path / "1", prior=prior_of("none"))
    served = tf.saved_model.load(str(tmp_path / "1"))
    assert served.signatures["sample"](**request(4))["codes"].shape == (4, 4, 6)
    message = r"number must be of at most 100 codes in all, got\] \[120\]"
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        served.signatures["sample"](**request(5))


def test_bad_conditions_in_requests(with_prior: tuple) -> None:
    kind, _, _, served, _ = with_prior
    sample, log_prob = served.signatures["sample"], served.signatures["log_prob"]
    codes = tf.zeros((3, 4, 6), tf.int32)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"codes must be in \[0, 20\)"):
        log_prob(codes=codes + 20, **tensors(condition_of(kind, 3)))
    bad = {
        "none": {},
        "classes": {
            r"condition must be in \[0, 3\)": np.full(3, 3, "int32"),
            "condition must be (one|of as many)": np.zeros(2, "int32"),
        },
        "maps": {
            "condition must have shape": floats((3, 4, 5, 2)),
            "condition must be finite": np.full((3, 4, 6, 2), np.nan, "float32"),
            "condition must be (one|of as many)": floats((2, 4, 6, 2)),
        },
    }[kind]
    for message, condition in bad.items():
        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            sample(**request(), condition=tf.constant(condition))
        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            log_prob(codes=codes, condition=tf.constant(condition))


def test_graph_with_a_prior_holds_only_tensorflows_ops(with_prior: tuple) -> None:
    *_, path = with_prior
    found = ops_of(path)
    assert {"sample", "log_prob"} < set(found)
    for name, ops in found.items():
        assert not forbidden(ops), name
    assert "StatelessRandomUniformFullIntV2" in found["sample"]
    assert found["sample"] & {"StatelessWhile", "While"}


def test_a_prior_that_does_not_fit(tmp_path: Path) -> None:
    vqvae = trained()
    for grid, num_codes in (((6, 4), 20), ((4, 6), 21)):
        prior = PixelCNN(grid, num_codes, hidden=4, num_layers=1)
        with pytest.raises(ValueError, match="prior does not fit the VQ-VAE"):
            export_savedmodel(vqvae, tmp_path / "1", prior=prior)
    with pytest.raises(ValueError, match="prior must be an autoregressive model"):
        export_savedmodel(vqvae, tmp_path / "1", prior=keras.Sequential())
    assert not list(tmp_path.iterdir())


def test_bad_destinations(exported: tuple, tmp_path: Path) -> None:
    vqvae, _, path = exported
    with pytest.raises(ValueError, match="is not empty"):
        export_savedmodel(vqvae, path)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ValueError, match="cannot write a SavedModel"):
        export_savedmodel(vqvae, tmp_path / "file" / "1")
    with pytest.raises(ValueError, match="vqvae must be a built VQVAE"):
        export_savedmodel(keras.Sequential(), tmp_path / "1")
    assert not (tmp_path / "1").exists()


def test_kerass_own_export(tmp_path: Path) -> None:
    vqvae = trained()
    vqvae.export(tmp_path / "keras", verbose=False)
    served = tf.saved_model.load(str(tmp_path / "keras"))
    np.testing.assert_array_equal(served.serve(pictures())["codes"], vqvae.encode(pictures()))


def test_encode_converts_to_tflite(exported: tuple) -> None:
    """With TFLite's own ops alone, and for batches of any size."""
    vqvae, _, path = exported
    converter = tf.lite.TFLiteConverter.from_saved_model(str(path), signature_keys=["encode"])
    encode = tf.lite.Interpreter(model_content=converter.convert()).get_signature_runner("encode")
    for batch in (1, 7, 2):
        images = pictures(batch)
        np.testing.assert_array_equal(encode(images=images)["codes"], vqvae.encode(images))
