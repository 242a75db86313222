"""Codes kept as records: they are the model's, take two bytes, and are made once."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_vqvae import VQVAE, ImageVQVAE, PixelCNN, VectorQuantizer, data

pytestmark = pytest.mark.tensorflow

PICTURES = np.random.default_rng(0).integers(0, 256, (70, 8, 8, 3), np.uint8)
LABELS = np.arange(70, dtype=np.int32) % 3


@pytest.fixture(scope="module")
def vqvae():
    keras.utils.set_random_seed(0)
    vqvae = ImageVQVAE((8, 8, 3), 16, 4, hidden=8, residual_hidden=8, residual_blocks=1)
    vqvae.compile("adam")
    vqvae.fit(PICTURES, verbose=0)
    return vqvae


def read(folder):
    (whole,) = data.from_records(folder, len(PICTURES))
    return whole


def test_codes_are_the_models_in_two_bytes(vqvae, tmp_path):
    expected = vqvae.encode(PICTURES)
    data.encode_to_records(vqvae, PICTURES, tmp_path / "array", 2)
    data.encode_to_records(vqvae, data.from_array(PICTURES, 32), tmp_path / "dataset", 3)
    for name in ("array", "dataset"):
        codes = read(tmp_path / name)
        assert codes.dtype == "int32"
        np.testing.assert_array_equal(codes, expected)
    sizes = [file.stat().st_size for file in (tmp_path / "array").glob("*.tfrecord")]
    assert sum(sizes) < 70 * (2 * 2 * 2 + 64)


def test_labels_become_the_condition_and_a_prior_takes_it_all(vqvae, tmp_path):
    pairs = data.from_array(PICTURES, 32, labels=LABELS, seed=0)
    data.encode_to_records(vqvae, pairs, tmp_path / "r", 4)
    found = read(tmp_path / "r")
    assert found["condition"].dtype == "int32" and set(found) == {"codes", "condition"}
    # In the order of the dataset's first epoch.
    pairs.start_at(0, 0)
    images, labels = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    np.testing.assert_array_equal(found["condition"], labels)
    np.testing.assert_array_equal(found["codes"], vqvae.encode(images))
    prior = PixelCNN(vqvae.grid_shape, vqvae.num_codes, 3, hidden=8, num_layers=1)
    prior.compile("adam")
    history = prior.fit(data.from_records(tmp_path / "r", 32, seed=0), epochs=2, verbose=0)
    assert np.isfinite(history.history["loss"]).all()


def test_codes_are_made_once(vqvae, tmp_path):
    folder = tmp_path / "r"
    data.encode_to_records(vqvae, PICTURES, folder, 2)
    written = {file: file.stat().st_mtime_ns for file in folder.iterdir()}
    vqvae.save(tmp_path / "vqvae.keras")
    again = keras.models.load_model(tmp_path / "vqvae.keras")
    # Read, it would be refused.
    data.encode_to_records(again, np.zeros((70, 1)), folder)
    assert {file: file.stat().st_mtime_ns for file in folder.iterdir()} == written
    with pytest.raises(ValueError, match="another model or other data"):
        data.encode_to_records(vqvae, PICTURES[1:], folder)
    again.fit(PICTURES, verbose=0)
    with pytest.raises(ValueError, match="another model or other data"):
        data.encode_to_records(again, PICTURES, folder)
    data.write_records(PICTURES, tmp_path / "other")
    with pytest.raises(ValueError, match="other records"):
        data.encode_to_records(vqvae, PICTURES, tmp_path / "other")


def test_an_interrupted_encoding_is_done_again(vqvae, tmp_path):
    def damaged(images):
        with tf.control_dependencies([tf.debugging.assert_equal(images[0], PICTURES[0])]):
            return tf.identity(images)

    with pytest.raises(tf.errors.InvalidArgumentError):
        data.encode_to_records(vqvae, data.from_array(PICTURES).map(damaged), tmp_path / "r", 2)
    with pytest.raises(ValueError, match="not finished"):
        data.from_records(tmp_path / "r")
    data.encode_to_records(vqvae, PICTURES, tmp_path / "r", 2)
    np.testing.assert_array_equal(read(tmp_path / "r"), vqvae.encode(PICTURES))


def test_wrong_data_is_named(vqvae, tmp_path):
    pairs = data.from_array(PICTURES, labels=LABELS)
    for wrong, message in [
        (PICTURES.astype("float32"), "uint8"),
        (data.from_array(PICTURES, repeat=True), "endless"),
        (pairs.map(lambda x, y: (x, y, y)), "labels.*3"),
        (data.from_array(PICTURES[:, :4]), "shape"),
        (PICTURES[:0], "no example"),
    ]:
        with pytest.raises(ValueError, match=message):
            data.encode_to_records(vqvae, wrong, tmp_path / "r")
    layers = keras.layers
    unbuilt = VQVAE(layers.Conv2D(4, 2, 2), VectorQuantizer(16, 4), layers.Conv2DTranspose(3, 2, 2))
    with pytest.raises(ValueError, match="built"):
        data.encode_to_records(unbuilt, PICTURES, tmp_path / "r")
