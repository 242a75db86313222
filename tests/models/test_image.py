"""ImageVQVAE: training, coding, bad input."""

import io
from contextlib import redirect_stdout
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

from keras_vqvae import Gaussian, ImageVQVAE, VectorQuantizer
from tests.checks import assert_same, check_model, images, to_numpy

SMALL = {"num_codes": 16, "code_dim": 4, "hidden": 8, "residual_blocks": 1}


def small(shape: tuple = (8, 8, 3), **options: object) -> ImageVQVAE:
    return ImageVQVAE(shape, **{**SMALL, **options})


def test_shared_checks(tmp_path: Path) -> None:
    # encoder: two windows of 4x4, a residual block, a window of 1; the decoder mirrors it.
    block = 9 * 8 * 8 + 8 + 8 * 8 + 8
    encoder = (16 * 3 * 8 + 8) + (16 * 8 * 8 + 8) + block + (8 * 4 + 4)
    decoder = (9 * 4 * 8 + 8) + block + (16 * 8 * 8 + 8) + (16 * 8 * 3 + 3)
    check_model(lambda **kw: small(**kw), images(6), tmp_path, trainable=encoder + decoder)


def test_shared_checks_of_another_form(tmp_path: Path) -> None:
    def make(**kw: object) -> ImageVQVAE:
        quantizer = VectorQuantizer(16, 4, codebook="gradient")
        return small((4, 8, 1), quantizer=quantizer, likelihood=Gaussian(0.5),
                     downsampling=(2, 4), **kw)  # fmt: skip

    model = make()
    assert model.grid_shape == (2, 2)
    weights = sum(int(np.prod(w.shape)) for w in model.trainable_weights)
    check_model(make, images(6, (4, 8, 1)), tmp_path, trainable=weights)
    copy = ImageVQVAE.from_config(model.get_config())
    assert copy.quantizer.codebook == "gradient" and copy.likelihood.scale == 0.5
    assert copy.encoder.downsampling in ((2, 4), [2, 4])


@pytest.mark.graph
def test_fit_lowers_the_loss_and_logs() -> None:
    # Another seed than all other tests': from some a network of 8 channels does not get away.
    keras.utils.set_random_seed(1)
    model = small()
    model.compile(optimizer=keras.optimizers.Adam(1e-2))
    # Pictures of one grey level each.
    x = np.broadcast_to(np.arange(0, 256, 8, dtype="uint8")[:, None, None, None], (32, 8, 8, 3))
    history = model.fit(x, batch_size=16, epochs=20, verbose=0, validation_data=x[:8]).history
    names = {
        "loss",
        "reconstruction_loss",
        "quantizer_loss",
        "perplexity",
        "code_use",
        "bits_per_code",
    }
    assert set(history) == names | {f"val_{name}" for name in names}
    assert history["loss"][-1] < history["loss"][0] - 1
    sums = np.add(history["reconstruction_loss"], history["quantizer_loss"])
    np.testing.assert_allclose(history["loss"], sums, rtol=1e-5)
    assert all(1 <= p <= 16 for p in history["perplexity"])
    error = np.abs(model.reconstruct(x).astype(float) - x).mean()
    assert error < 40, "a mean grey level would be off by 64"


def test_logged_reconstruction_loss_is_the_likelihoods_nats() -> None:
    model = small()
    model.compile(optimizer="sgd")
    x = images(10)
    logged = model.evaluate(x, batch_size=4, verbose=0, return_dict=True)
    params = model.predict(x, verbose=0)["outputs"]
    target = x / 127.5 - 1
    nats = (
        0.5 * ((params - target) / 0.22) ** 2 + np.log(0.22 * np.sqrt(2 * np.pi)) - np.log(2 / 255)
    )
    assert logged["reconstruction_loss"] == pytest.approx(nats.mean(), rel=1e-4)


@pytest.mark.graph
def test_validation_split_and_early_stopping() -> None:
    model = small()
    model.quantizer.trainable = False
    model.compile(optimizer=keras.optimizers.SGD(0.0))  # nothing improves
    stop = keras.callbacks.EarlyStopping("val_reconstruction_loss", patience=2, mode="min")
    history = model.fit(images(16), epochs=20, validation_split=0.25, callbacks=[stop], verbose=0)
    assert len(history.history["val_loss"]) == 3


def test_is_built_at_once() -> None:
    model = small()
    text = io.StringIO()
    with redirect_stdout(text):
        model.summary(print_fn=lambda line, **_: text.write(line))
    assert "ConvEncoder" in text.getvalue()
    assert model.built and model.grid_shape == (2, 2) and model.num_codes == 16


def test_the_papers_compression_ratio() -> None:
    # Section 4.2: 128x128x3x8 bits to 32x32x9 bits.
    model = ImageVQVAE((128, 128, 3), hidden=4)
    assert model.grid_shape == (32, 32)
    assert model.compression_ratio == pytest.approx(42.67, abs=0.01)


def test_encode_decode_reconstruct() -> None:
    model = small((8, 12, 3))
    x = images(7, (8, 12, 3))
    codes = model.encode(x, batch_size=3)
    assert isinstance(codes, np.ndarray) and codes.dtype == "int32" and codes.shape == (7, 2, 3)
    assert codes.min() >= 0 and codes.max() < 16
    np.testing.assert_array_equal(codes, model.encode(x))
    np.testing.assert_array_equal(codes, to_numpy(model(x)["codes"]))
    pictures = model.decode(codes, batch_size=2)
    assert (
        isinstance(pictures, np.ndarray) and pictures.dtype == "uint8" and pictures.shape == x.shape
    )
    np.testing.assert_array_equal(pictures, model.reconstruct(x))
    expected = np.round((np.clip(to_numpy(model(x)["outputs"]), -1, 1) + 1) * 127.5)
    assert np.abs(pictures - expected).max() <= 1  # a half may round either way
    tensor = model.encode(ops.convert_to_tensor(x))
    assert ops.is_tensor(tensor)
    np.testing.assert_array_equal(to_numpy(tensor), codes)
    # Other integers than int32 are welcome.
    np.testing.assert_array_equal(model.decode(codes.astype("int64")), pictures)


def test_encode_follows_training() -> None:
    # The compiled function must see new weights and a new codebook.
    model = small()
    x = images(16)
    model.encode(x)
    model.decode(model.encode(x))
    model.compile(optimizer=keras.optimizers.SGD(0.1))
    model.fit(x, epochs=3, verbose=0)
    np.testing.assert_array_equal(model.encode(x), to_numpy(model(x)["codes"]))
    outputs = to_numpy(model(x)["outputs"])
    expected = np.round((np.clip(outputs, -1, 1) + 1) * 127.5)
    assert np.abs(model.reconstruct(x).astype(int) - expected).max() <= 1


def test_empty_batches() -> None:
    model = small()
    x = images(0)
    codes = model.encode(x)
    assert codes.shape == (0, 2, 2) and codes.dtype == "int32"
    assert model.decode(codes).shape == (0, 8, 8, 3) and model.reconstruct(x).dtype == "uint8"
    assert model(x)["outputs"].shape == (0, 8, 8, 3)


def test_adapt() -> None:
    model = small()
    for bad, message in ((images(4)[0], "shape"), (images(4) / 255.0, "uint8")):
        with pytest.raises(ValueError, match=message):
            model.adapt(bad)
    model.adapt(images(32))
    assert len(np.unique(model.encode(images(32)))) >= 8
    before = to_numpy(model.quantizer.embeddings)
    model.compile(optimizer=keras.optimizers.SGD(0.0))
    model.fit(images(32), verbose=0)
    assert np.abs(to_numpy(model.quantizer.embeddings) - before).max() < 0.5 * np.abs(before).max()


def test_weights_go_from_one_model_to_another(tmp_path: Path) -> None:
    one, other = small(), small()
    one.save_weights(tmp_path / "a.weights.h5")
    other.load_weights(tmp_path / "a.weights.h5")
    x = images(4)
    assert_same(one(x), other(x))


@pytest.mark.tensorflow
def test_datasets() -> None:
    import tensorflow as tf

    model = small()
    x = images(24)
    dataset = tf.data.Dataset.from_tensor_slices(x).batch(10)
    model.compile(optimizer="adam")
    history = model.fit(dataset, epochs=2, validation_data=dataset, verbose=0).history
    assert np.isfinite(history["loss"]).all() and len(history["val_loss"]) == 2
    np.testing.assert_array_equal(model.encode(dataset), model.encode(x))
    codes = dataset.map(model.encode)
    assert codes.element_spec.shape.as_list() == [None, 2, 2]
    np.testing.assert_array_equal(np.concatenate(list(codes)), model.encode(x))
    pictures = np.concatenate(list(codes.map(model.decode))).astype(int)
    # Batches of other sizes add in another order, so half a gray level may be rounded either way.
    assert np.abs(pictures - model.reconstruct(x)).max() <= 1


@pytest.mark.tensorflow
def test_fit_refuses_datasets() -> None:
    import tensorflow as tf

    model = small()
    model.compile(optimizer="adam")
    dataset = tf.data.Dataset.from_tensor_slices(images(8)).batch(4)
    with pytest.raises(ValueError, match=r"trains without targets, but got y.*dataset.map"):
        model.fit(dataset.map(lambda x: (x, x)), verbose=0)
    with pytest.raises(ValueError, match="at least one example, got an empty x"):
        model.fit(dataset.take(0), verbose=0)
    with pytest.raises(ValueError, match=r"encode\(\) got an empty dataset"):
        model.encode(dataset.take(0))
    with pytest.raises(
        ValueError, match=r"images must be uint8, got float32: .*multiplying by 255"
    ):
        model.fit(dataset.map(lambda x: tf.cast(x, "float32") / 255), verbose=0)
    with pytest.raises(ValueError, match="rank 4"):
        model.fit(dataset.unbatch(), verbose=0)


@pytest.mark.tensorflow
def test_encode_in_a_graph_of_unknown_batch_even_empty() -> None:
    import tensorflow as tf

    model = small()
    encode = tf.function(model.encode, input_signature=[tf.TensorSpec((None, 8, 8, 3), "uint8")])
    for batch in (0, 1, 5):
        x = images(batch)
        assert encode(x).shape == (batch, 2, 2)
        np.testing.assert_array_equal(encode(x), model.encode(x))


def built(**options: object) -> ImageVQVAE:
    model = small(**options)
    model.compile(optimizer="adam")
    return model


PICTURES = images(2)
CODES = np.zeros((2, 2, 2), "int32")

# `evaluate` meets the data in a graph, where the batch size is not known.
BAD_DATA = {
    "float": (PICTURES / 255.0, r"images must be uint8, got float(32|64): .*multiplying by 255"),
    "float32": (PICTURES.astype("float32"), "images must be uint8, got float32: round and cast"),
    "int32": (PICTURES.astype("int32"), "images must be uint8, got int32: cast to uint8"),
    "one picture": (
        PICTURES[0],
        r"rank 4 \(batch, height, width, channels\), got shape \((8|None), 8, 3\)",
    ),
    "rank 5": (PICTURES[None], r"rank 4 .* got shape \((1|None), 2, 8, 8, 3\)"),
    "channels": (PICTURES[..., :1], r"shape \(batch, 8, 8, 3\), got \((2|None), 8, 8, 1\)"),
    "sides": (images(2, (8, 12, 3)), r"shape \(batch, 8, 8, 3\), got \((2|None), 8, 12, 3\)"),
}


@pytest.mark.parametrize("data, message", BAD_DATA.values(), ids=BAD_DATA)
@pytest.mark.parametrize(
    "method", ["fit", "encode", "reconstruct", "adapt", "evaluate", "__call__"]
)
def test_refuses_bad_pictures(method: str, data: np.ndarray, message: str) -> None:
    model = built()
    with pytest.raises(ValueError, match=message):
        getattr(model, method)(data)


BAD_CODES = {
    "float": (CODES.astype("float32"), r"codes must be integers \(int32\), got float32"),
    "rank": (CODES[0], r"codes must have shape \(batch, 2, 2\), got \(2, 2\)"),
    "grid": (
        np.zeros((2, 3, 2), "int32"),
        r"codes must have shape \(batch, 2, 2\), got \(2, 3, 2\)",
    ),
    "negative": (CODES - 1, r"codes must be in \[0, 16\), got values from -1 to -1"),
    "great": (
        CODES + np.array([[0, 16], [1, 2]]),
        r"codes must be in \[0, 16\), got values from 0 to 16",
    ),
}


@pytest.mark.parametrize("codes, message", BAD_CODES.values(), ids=BAD_CODES)
def test_refuses_bad_codes(codes: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small().decode(codes)


def test_fit_refuses() -> None:
    model = built()
    with pytest.raises(
        ValueError, match=r"ImageVQVAE trains without targets, but got y. Use fit\(x\)"
    ):
        model.fit(PICTURES, PICTURES)
    with pytest.raises(
        ValueError, match=r"at least one example, got an empty x: .*shape=\(0, 8, 8, 3\)"
    ):
        model.fit(images(0))
    with pytest.raises(ValueError, match="sample_weight is not supported"):
        model.fit(PICTURES, sample_weight=np.ones(2), verbose=0)


BAD_ARGUMENTS = {
    "rank": (
        {"image_shape": (8, 8)},
        r"image_shape must be \(height, width, channels\), got \(8, 8\)",
    ),
    "side": ({"image_shape": (8, 10, 3)}, "side 10 must be divisible by downsampling=4"),
    "sides": ({"image_shape": (6, 8, 3), "downsampling": (4, 2)}, "side 6 .* downsampling=4"),
    "downsampling": ({"downsampling": 11}, "an integer, a product of 2.* got 11"),
    "num_codes": ({"num_codes": 0}, "num_codes must be an integer of at least 1, got 0"),
}


@pytest.mark.parametrize("arguments, message", BAD_ARGUMENTS.values(), ids=BAD_ARGUMENTS)
def test_refuses_bad_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ImageVQVAE(**{"image_shape": (8, 8, 3), **SMALL, **arguments})


def test_one_code_takes_no_bits() -> None:
    model = ImageVQVAE((8, 8, 3), 1, 4, hidden=4, residual_blocks=0)
    assert model.compression_ratio == float("inf")
