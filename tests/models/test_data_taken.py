"""What the models' methods take: datasets that never end, tuples of one, lists of numbers."""

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import pytest

from keras_vqvae import AudioVQVAE, ImageVQVAE, PixelCNN
from tests.checks import images

pytestmark = pytest.mark.tensorflow

if keras.backend.backend() != "tensorflow":  # the JAX run deselects this file by the mark
    pytest.skip("datasets need TensorFlow", allow_module_level=True)

import tensorflow as tf  # noqa: E402

PICTURES = images(16)
CODES = np.random.default_rng(0).integers(0, 8, (16, 2, 2), dtype="int32")
SOUND = np.random.default_rng(0).uniform(-0.5, 0.5, (16, 80)).astype("float32")


@pytest.fixture(scope="module")
def vqvae() -> ImageVQVAE:
    model = ImageVQVAE((8, 8, 3), 8, 4, hidden=4, residual_blocks=0)
    model.compile("sgd")
    return model


@pytest.fixture(scope="module")
def prior() -> PixelCNN:
    model = PixelCNN((2, 2), 8, hidden=4, num_layers=1)
    model.compile("sgd")
    return model


@pytest.fixture(scope="module")
def audio() -> AudioVQVAE:
    model = AudioVQVAE(
        6400, 8, 4, downsampling=4, decoder="parallel", hidden=4, finest_hidden=2,
        residual_blocks=0,
    )  # fmt: skip
    model.compile("sgd")
    return model


def dataset(x: Any) -> Any:
    return tf.data.Dataset.from_tensor_slices(x).batch(8)


NEVER_END: dict[str, Callable] = {
    "encode": lambda vqvae, prior, audio: vqvae.encode(dataset(PICTURES).repeat()),
    "decode": lambda vqvae, prior, audio: vqvae.decode(dataset(CODES).repeat()),
    "reconstruct": lambda vqvae, prior, audio: vqvae.reconstruct(dataset(PICTURES).repeat()),
    "log_prob": lambda vqvae, prior, audio: prior.log_prob(dataset(CODES).repeat()),
    "encode sound": lambda vqvae, prior, audio: audio.encode(dataset(SOUND).repeat()),
    "fit": lambda vqvae, prior, audio: prior.fit(dataset(CODES).repeat()),
    "evaluate": lambda vqvae, prior, audio: prior.evaluate(dataset(CODES).repeat()),
    "predict": lambda vqvae, prior, audio: prior.predict(dataset(CODES).repeat()),
    "validation": lambda vqvae, prior, audio: prior.fit(
        CODES, validation_data=dataset(CODES).repeat(), verbose=0
    ),
}


@pytest.mark.parametrize("what", NEVER_END)
def test_endless_data_is_refused(what: str, vqvae: Any, prior: Any, audio: Any) -> None:
    """Fault 45: it ran for ever."""
    with pytest.raises(ValueError, match="must have an end, got an endless dataset"):
        NEVER_END[what](vqvae, prior, audio)


def test_steps_bound_endless_data(prior: PixelCNN) -> None:
    endless = dataset(CODES).repeat()
    prior.evaluate(endless, steps=2, verbose=0)
    assert prior.predict(endless, steps=2, verbose=0).shape == (16, 2, 2, 8)
    prior.fit(CODES, validation_data=endless, validation_steps=1, verbose=0)


def test_adapt_reads_what_it_needs(vqvae: ImageVQVAE, audio: AudioVQVAE) -> None:
    read = []

    def batches() -> Iterator[np.ndarray]:
        for number in range(1000):
            read.append(number)
            yield np.repeat(PICTURES, 8, 0)

    spec = tf.TensorSpec((None, 8, 8, 3), "uint8")
    vqvae.adapt(tf.data.Dataset.from_generator(batches, output_signature=spec))
    assert len(read) < 30
    vqvae.adapt(dataset(PICTURES).repeat())
    audio.adapt(dataset(SOUND).repeat())


def test_adapt_is_of_examples_from_all_over_an_array(vqvae: ImageVQVAE) -> None:
    """Of sorted pictures the first would not do."""
    dark, bright = np.zeros((600, 8, 8, 3), "uint8"), np.full((600, 8, 8, 3), 255, "uint8")
    vqvae.adapt(np.concatenate([dark, bright]))
    latents = keras.ops.convert_to_numpy(
        vqvae.latents(keras.ops.array(np.stack([dark[0], bright[0]])))
    )
    codebook = keras.ops.convert_to_numpy(vqvae.quantizer.embeddings)
    distances = np.square(latents[:, 0, 0, None] - codebook).sum(-1).min(-1)
    apart = float(np.square(latents[0, 0, 0] - latents[1, 0, 0]).sum())
    np.testing.assert_allclose(distances, 0, atol=1e-3 * apart)


@pytest.mark.locked
def test_tuples_of_one(vqvae: ImageVQVAE, prior: PixelCNN, audio: AudioVQVAE) -> None:
    """`fit` takes a dataset of `(x,)`, and so does all else."""
    np.testing.assert_array_equal(vqvae.encode(dataset((PICTURES,))), vqvae.encode(PICTURES))
    np.testing.assert_array_equal(vqvae.decode(dataset((CODES,))), vqvae.decode(CODES))
    np.testing.assert_array_equal(audio.encode(dataset((SOUND,))), audio.encode(SOUND))
    np.testing.assert_allclose(prior.log_prob(dataset((CODES,))), prior.log_prob(CODES), rtol=1e-5)
    vqvae.adapt(dataset((PICTURES,)))
    audio.adapt(dataset((SOUND,)))
    prior.fit(dataset((CODES,)), validation_data=dataset((CODES,)), verbose=0)
    prior.evaluate(dataset((CODES,)), verbose=0)


def test_codes_in_lists(vqvae: ImageVQVAE, audio: AudioVQVAE) -> None:
    np.testing.assert_array_equal(vqvae.decode(CODES.tolist()), vqvae.decode(CODES))
    np.testing.assert_array_equal(vqvae.decode([CODES[:8], CODES[8:]]), vqvae.decode(CODES))
    line = CODES.reshape(16, 4)
    np.testing.assert_array_equal(audio.decode(line.tolist()), audio.decode(line))
    for decode in (vqvae.decode, audio.decode):
        with pytest.raises(ValueError, match="codes must be an array or lists of equal lengths"):
            decode([[1, 2], [3]])
        with pytest.raises(ValueError, match="codes must be integers"):
            decode([[0.5]])
    with pytest.raises(ValueError, match="takes arrays, not a dataset"):
        audio.decode(dataset(line))
