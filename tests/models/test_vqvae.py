"""VQVAE with a person's own encoder and decoder."""

import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from keras_vqvae import VQVAE, ImageVQVAE, VectorQuantizer
from keras_vqvae.models import base
from keras_vqvae.models.base import Model
from tests.checks import assert_same, check_model, images, to_numpy
from tests.inside import inside

layers = keras.layers


def own(encoder: object = None, decoder: object = None, **kw: object) -> VQVAE:
    dtype = kw.get("dtype")
    encoder = encoder or keras.Sequential(
        [layers.Conv2D(6, 4, 4, activation="gelu", dtype=dtype), layers.Conv2D(4, 1, dtype=dtype)]
    )
    decoder = decoder or keras.Sequential([layers.Conv2DTranspose(3, 4, 4, dtype=dtype)])
    return VQVAE(encoder, VectorQuantizer(16, 4, seed=0, dtype=dtype), decoder, **kw)


def test_shared_checks(tmp_path: Path) -> None:
    encoder = (16 * 3 * 6 + 6) + (6 * 4 + 4)
    check_model(lambda **kw: own(**kw), images(6), tmp_path, trainable=encoder + 16 * 4 * 3 + 3)


def test_functional_networks() -> None:
    x = keras.Input((8, 8, 3))
    encoder = keras.Model(x, layers.Conv2D(4, 4, 4)(x))
    z = keras.Input((2, 2, 4))
    model = own(encoder, keras.Model(z, layers.Conv2DTranspose(3, 4, 4)(z)))
    model.compile(optimizer="adam")
    model.fit(images(8), verbose=0)
    assert model.grid_shape == (2, 2) and model.image_shape == (8, 8, 3)
    np.testing.assert_array_equal(model.encode(images(4)), to_numpy(model(images(4))["codes"]))


def test_networks_that_behave_otherwise_in_training() -> None:
    encoder = keras.Sequential(
        [
            layers.Conv2D(8, 4, 4),
            layers.BatchNormalization(),
            layers.Dropout(0.5),
            layers.Conv2D(4, 1),
        ]
    )
    model = own(encoder)
    model.compile(optimizer="adam")
    model.fit(images(16), epochs=2, verbose=0)
    x = images(8)
    np.testing.assert_array_equal(model.encode(x), model.encode(x))
    np.testing.assert_array_equal(model.encode(x), to_numpy(model(x, training=False)["codes"]))
    moving = encoder.layers[1].moving_mean
    before = to_numpy(moving).copy()
    model.encode(x)
    model.reconstruct(x)
    np.testing.assert_array_equal(to_numpy(moving), before)


def test_regularizers_count() -> None:
    def loss(strength: float) -> dict:
        keras.utils.set_random_seed(0)
        regularizer = keras.regularizers.L2(strength)
        encoder = keras.Sequential([layers.Conv2D(4, 4, 4, kernel_regularizer=regularizer)])
        model = own(encoder)
        model.compile(optimizer="sgd")
        logs = model.evaluate(images(8), verbose=0, return_dict=True)
        return logs | {"norm": float(np.square(to_numpy(encoder.layers[0].kernel)).sum())}

    none, some = loss(0.0), loss(0.1)
    assert some["loss"] == pytest.approx(none["loss"] + 0.1 * none["norm"], rel=1e-5)


def test_trains_what_is_trainable() -> None:
    model = own()
    model(images(2))
    model.encoder.trainable = False
    before = to_numpy(model.encoder.weights)
    model.compile(optimizer="sgd")
    model.fit(images(8), verbose=0)
    assert_same(model.encoder.weights, before)


def test_what_is_known_only_when_built() -> None:
    model = own()
    for name in ("grid_shape", "compression_ratio"):
        with pytest.raises(ValueError, match=f"{name} is known once the model is built"):
            getattr(model, name)
    assert model.num_codes == 16
    model.build((None, 8, 8, 3))
    assert model.grid_shape == (2, 2)


def test_encode_of_a_model_not_yet_built() -> None:
    assert own().encode(images(3)).shape == (3, 2, 2)


BAD_NETWORKS = {
    "decoder": ({"decoder": layers.Conv2DTranspose(1, 4, 4)}, (8, 8, 3),
                r"decoder must give shape \(None, 8, 8, 3\) .*Gaussian, got \(None, 8, 8, 1\)"),
    "divisible": ({}, (9, 8, 3), "sides of 9×8 must be divisible by the encoder's downsampling"),
    "code_dim": ({"encoder": layers.Conv2D(5, 4, 4)}, (8, 8, 3),
                 r"code_dim=4, got shape \(None, 2, 2, 5\)"),
    "unknown side": ({}, (None, 8, 3), "height, width and channels known"),
    "rank": ({}, (8, 8), r"shape \(batch, height, width, channels\)"),
}  # fmt: skip


@pytest.mark.parametrize("networks, shape, message", BAD_NETWORKS.values(), ids=BAD_NETWORKS)
def test_refuses_networks_that_do_not_fit(networks: dict, shape: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        own(**networks).build((None, *shape))


def test_what_subclasses_must_have() -> None:
    with pytest.raises(NotImplementedError):
        Model().per_example_loss(None, {})
    with pytest.raises(NotImplementedError):
        Model().check_data(None)


def test_encode_inside_another_models_training_is_inference() -> None:
    encoder = keras.Sequential(
        [
            keras.layers.Conv2D(8, 4, 4),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.5),
            keras.layers.Conv2D(4, 1),
        ]
    )
    decoder = keras.Sequential([keras.layers.Conv2DTranspose(3, 4, 4)])
    vqvae = VQVAE(encoder, VectorQuantizer(32, 4), decoder)
    images = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3)).astype("uint8")
    vqvae.build((None, 16, 16, 3))
    codes = vqvae.encode(images)

    class Outer(keras.Model):
        def call(self, x: object) -> object:
            return vqvae.encode(x)

    np.testing.assert_array_equal(keras.ops.convert_to_numpy(Outer()(images, training=True)), codes)
    np.testing.assert_array_equal(vqvae.encode(images), codes)


def test_the_loss_is_the_models_own() -> None:
    vqvae = ImageVQVAE((8, 8, 1), 4, 2, hidden=4)
    vqvae.compile("adam", loss="mse")
    with pytest.raises(ValueError, match="has its own loss, but compile\\(\\) got loss='mse'"):
        vqvae.fit(np.zeros((2, 8, 8, 1), "uint8"))


@pytest.mark.parametrize("call", ["fit", "evaluate", "predict"])
def test_empty_and_foreign_inputs_are_named(call: str) -> None:
    vqvae = ImageVQVAE((8, 8, 1), 4, 2, hidden=4)
    vqvae.compile("adam")
    with pytest.raises(ValueError, match="at least one example"):
        getattr(vqvae, call)(np.zeros((0, 8, 8, 1), "uint8"))
    with pytest.raises(ValueError, match="images must be one uint8 array"):
        getattr(vqvae, call)({"image": np.zeros((2, 8, 8, 1), "uint8")})
    with pytest.raises(ValueError, match="must be uint8, got float32"):
        getattr(vqvae, call)(np.zeros((2, 8, 8, 1), "float32"))


def test_codes_of_any_integer_type_are_decoded() -> None:
    vqvae = ImageVQVAE((8, 8, 1), 4, 2, hidden=4)
    codes = np.array([[[0, 1], [2, 3]]])
    expected = vqvae.decode(codes.astype("int32"))
    for dtype in ("uint8", "uint16", "int64"):
        np.testing.assert_array_equal(vqvae.decode(codes.astype(dtype)), expected)


def test_a_quantizer_contradicted_by_arguments_is_refused() -> None:
    with pytest.raises(ValueError, match="num_codes=64 contradicts the quantizer's 32"):
        ImageVQVAE((8, 8, 1), 64, quantizer=VectorQuantizer(32, 64))


class Signs(keras.layers.Layer):
    """A quantizer without codebook, size of code or commitment: the signs of two numbers."""

    num_codes = 4

    def call(self, z: Any, training: bool = False, return_info: bool = False, mask: Any = None):
        codes = self.encode(z)
        quantized = z + keras.ops.stop_gradient(self.decode(codes) - z)
        return (quantized, codes, keras.ops.zeros_like(z[:, 0, 0, 0])) if return_info else quantized

    def encode(self, z: Any) -> Any:
        bits = keras.ops.cast(z > 0, "int32")
        return bits[..., 0] + 2 * bits[..., 1]

    def decode(self, codes: Any) -> Any:
        bits = keras.ops.stack([codes % 2, codes // 2], -1)
        return 2.0 * keras.ops.cast(bits, "float32") - 1.0


def test_a_quantizer_of_ones_own_needs_no_more_than_the_contract() -> None:
    model = ImageVQVAE((8, 8, 1), 4, 2, hidden=4, commitment=0.5, quantizer=Signs())
    model.compile("adam")
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 1)).astype("uint8")
    model.fit(images, verbose=0)
    codes = model.encode(images)
    assert codes.shape == (4, 2, 2) and codes.max() < 4
    with pytest.raises(ValueError, match="num_codes=8 contradicts the quantizer's 4"):
        ImageVQVAE((8, 8, 1), 8, 2, quantizer=Signs())


@pytest.mark.tensorflow
class TestKerasThatWasNotTried:
    """What `fit` on several workers says of it."""

    @pytest.mark.parametrize("version", ["3.8.0", "3.99.1", "4.0.0"])
    def test_another_version(self, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
        monkeypatch.setattr(keras, "version", lambda: version)
        with pytest.warns(UserWarning, match=f"tried with Keras 3.15, this is {version}"):
            inside(base).check_keras()

    def test_without_what_it_needs(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Without:
            pass

        monkeypatch.setattr(keras, "Model", Without)
        with pytest.raises(RuntimeError, match="has no _maybe_symbolic_build. Use Keras 3.15"):
            inside(base).check_keras()

    def test_this_one(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            inside(base).check_keras()
