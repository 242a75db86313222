"""Codes kept as records: they are the model's, take two bytes, and are made once."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_vqvae import (
    VQVAE,
    AudioVQVAE,
    ImageVQVAE,
    PixelCNN,
    VectorQuantizer,
    WaveNet,
    data,
)
from keras_vqvae.data import audio

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
    for part in (again.encoder, again.quantizer):
        weight = next(w for w in part.weights if w.shape)
        before = weight.numpy()
        weight.assign(before + 0.01)
        with pytest.raises(ValueError, match="another model or other data"):
            data.encode_to_records(again, PICTURES, folder)
        weight.assign(before)
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


# Sound


@pytest.fixture(scope="module")
def sound_vqvae():
    keras.utils.set_random_seed(0)
    return small_vqvae(num_speakers=3)


def small_vqvae(**speakers):
    small = {"hidden": 4, "finest_hidden": 4, "residual_blocks": 1}
    return AudioVQVAE(8000, 16, 4, downsampling=8, decoder="parallel", **small, **speakers)


def waveforms(lengths):
    random = np.random.default_rng(1)
    return [random.uniform(-0.5, 0.5, n).astype("float32") for n in lengths]


def small_prior(num_classes=None):
    sizes = {"channels": 2, "skip_channels": 2, "dilations": (1, 2), "burn_in": 0}
    prior = WaveNet(16, num_classes, **sizes)
    prior.compile("adam")
    return prior


def test_codes_of_crops_of_speakers_are_what_a_prior_takes(sound_vqvae, tmp_path):
    clips, speakers = waveforms([400] * 6), np.array([0, 1, 2] * 2)
    crops = audio.from_arrays(clips, 160, 4, speakers=speakers)
    data.encode_to_records(sound_vqvae, crops, tmp_path / "dataset", 2)
    sound = {"waveform": np.stack(clips)[:, 120:280], "speaker": speakers.astype("int32")}
    data.encode_to_records(sound_vqvae, sound, tmp_path / "dict", 2)
    for name in ("dataset", "dict"):
        (found,) = data.from_records(tmp_path / name, 6)
        np.testing.assert_array_equal(found["codes"], sound_vqvae.encode(sound["waveform"]))
        np.testing.assert_array_equal(found["condition"], speakers)
        records = data.from_records(tmp_path / name, 3, seed=0)
        losses = small_prior(3).fit(records, epochs=2, verbose=0).history["loss"]
        assert len(losses) == 2 and np.isfinite(losses).all()


def test_sound_of_another_rate_or_speakers_is_refused(sound_vqvae, tmp_path):
    crops = audio.from_arrays(waveforms([400] * 4), 160, 4, speakers=["ann", "cy", "bob", "ann"])
    for model, rate, message in (
        (sound_vqvae, 16000, "the dataset is of 16000 Hz, the model of sample_rate=8000"),
        (
            small_vqvae(speaker_names=["cy", "ann", "bob"]),
            8000,
            r"speaker_names are .'ann', 'bob', 'cy'., the model's .'cy', 'ann'",
        ),
    ):
        crops.sample_rate = rate
        with pytest.raises(ValueError, match=message):
            data.encode_to_records(model, crops, tmp_path / "r")
    bare = audio.from_arrays(waveforms([400] * 4), 160, 4)
    bare.sample_rate = 16000
    with pytest.raises(ValueError, match="the dataset is of 16000 Hz"):
        data.encode_to_records(sound_vqvae, bare, tmp_path / "r")
    sound = {"waveform": np.stack(waveforms([160] * 4))}
    for speakers, message in (
        (np.array([0, 7, 0, 1], "int32"), r"speaker must be in \[0, 3\), got values from 0 to 7"),
        (np.array([0, 0.5, 0, 1]), r"speaker must be integers .* got float64"),
    ):
        with pytest.raises(ValueError, match=message):
            data.encode_to_records(sound_vqvae, {**sound, "speaker": speakers}, tmp_path / "r")
    sound["speaker"] = np.array([0, 2, 0, 1], "int32")
    data.encode_to_records(sound_vqvae, sound, tmp_path / "r")  # and nothing is in the way
    assert sorted(int(one["condition"]) for one in data.from_records(tmp_path / "r", None)) == [
        0, 0, 1, 2,
    ]  # fmt: skip


def test_codes_of_padding_are_left_out(sound_vqvae, tmp_path):
    lengths = [401, 400, 90, 8]
    clips = waveforms(lengths)
    whole = audio.from_arrays(clips, None, 2, speakers=[2, 1, 0, 1])
    data.encode_to_records(sound_vqvae, whole, tmp_path / "r", 1)
    found = list(data.from_records(tmp_path / "r", None))
    assert [len(one["codes"]) for one in found] == [51, 50, 12, 1]
    assert [int(one["condition"]) for one in found] == [2, 1, 0, 1]
    for one, clip in zip(found, clips, strict=True):  # but for what the encoder sees of padding
        np.testing.assert_array_equal(one["codes"][:-4], sound_vqvae.encode(clip[None])[0][:-4])
    with pytest.raises(ValueError, match="differ in shape .codes.*`padded_batch`"):
        data.from_records(tmp_path / "r", 2)
    # The recipe of docs/input.md.
    records = data.from_records(tmp_path / "r", None, seed=0)
    batches = records.map(lambda one: {**one, "length": tf.size(one["codes"])}).padded_batch(4)
    (batch,) = batches
    assert sorted(batch["length"].numpy()) == [1, 12, 50, 51]
    assert np.isfinite(small_prior(3).fit(batches, verbose=0).history["loss"]).all()


def test_codes_are_those_of_encode_whatever_padding_holds(sound_vqvae, tmp_path):
    lengths = np.array([400, 100], "int32")
    waveform = np.stack(waveforms([400, 400]))
    sound = {"waveform": waveform, "length": lengths, "speaker": np.array([0, 1], "int32")}
    data.encode_to_records(sound_vqvae, sound, tmp_path / "r", 1)
    wanted = sound_vqvae.encode({"waveform": waveform, "length": lengths})
    for one, codes, length in zip(
        data.from_records(tmp_path / "r", None), wanted, lengths, strict=True
    ):
        np.testing.assert_array_equal(one["codes"], codes[: -(-length // 8)])


def test_codes_of_sound_without_speakers_are_bare(sound_vqvae, tmp_path):
    crops = audio.from_arrays(waveforms([400] * 4), 160)
    data.encode_to_records(sound_vqvae, crops, tmp_path / "crops", 1)
    (codes,) = data.from_records(tmp_path / "crops", 4)
    assert codes.shape == (4, 20) and codes.dtype == "int32"
    assert np.isfinite(small_prior().fit(codes, verbose=0).history["loss"]).all()
    whole = audio.from_arrays(waveforms([400, 90]))
    data.encode_to_records(sound_vqvae, whole, tmp_path / "whole", 1)
    assert [len(codes) for codes in data.from_records(tmp_path / "whole", None)] == [50, 12]
    # The same number of batches, but another kind of example.
    with pytest.raises(ValueError, match="another model or other data"):
        data.encode_to_records(
            sound_vqvae, crops.map(lambda x: {"waveform": x}), tmp_path / "whole"
        )
    with pytest.raises(ValueError, match="`data`: a dict must be of sound, .*got .'codes'"):
        data.encode_to_records(sound_vqvae, {"codes": codes}, tmp_path / "other")
