"""Sound callback: the files and summaries it writes."""

import wave
from pathlib import Path

import keras
import numpy as np
import pytest

pytestmark = pytest.mark.tensorflow

if keras.backend.backend() != "tensorflow":  # the JAX run deselects this file by the mark
    pytest.skip("callbacks need TensorFlow", allow_module_level=True)

import tensorflow as tf  # noqa: E402
from tensorboard.backend.event_processing.event_accumulator import (  # noqa: E402
    EventAccumulator,
)

from keras_vqvae.callbacks import CodebookHistogram, ReconstructionSound  # noqa: E402
from keras_vqvae.callbacks.sound import decibels, sound_picture  # noqa: E402
from keras_vqvae.models.audio import AudioVQVAE  # noqa: E402

RATE = 8000


class Louder(keras.Model):
    """A stand-in: its reconstruction is the sound times a weight, and speakers are signs."""

    sample_rate = RATE

    def __init__(self) -> None:
        super().__init__()
        self.gain = self.add_weight(shape=(), initializer="ones")

    def call(self, waveform: tf.Tensor) -> tf.Tensor:
        return waveform * self.gain

    def check_data(self, data: object) -> None:
        clips = data["waveform"] if isinstance(data, dict) else data
        if clips.shape[1] != 4000:
            raise ValueError("waveform must have 4000 samples")

    def reconstruct(self, data: object) -> np.ndarray:
        if isinstance(data, dict):
            return -data["waveform"] * data["speaker"][:, None]
        return 0.5 * data


def clips(n: int = 2, samples: int = 4000) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (n, samples)).astype("float32")


def fit(callback: keras.callbacks.Callback, model: keras.Model | None = None) -> None:
    model = model or Louder()
    model.compile("sgd", "mse")
    model.fit(clips(), clips(), epochs=2, verbose=0, callbacks=[callback])


def read(path: Path) -> np.ndarray:
    with wave.open(str(path)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (RATE, 1, 2)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32768


def test_files_and_summaries(tmp_path: Path) -> None:
    fit(ReconstructionSound(clips(), tmp_path, RATE))
    files = sorted(p.name for p in tmp_path.iterdir() if "events" not in p.name)
    assert files == [
        "original_0.wav",
        "original_1.wav",
        "reconstruction_0_0001.wav",
        "reconstruction_0_0002.wav",
        "reconstruction_1_0001.wav",
        "reconstruction_1_0002.wav",
        "sound_0001.png",
        "sound_0002.png",
    ]
    for i, clip in enumerate(clips()):
        np.testing.assert_allclose(read(tmp_path / f"original_{i}.wav"), clip, atol=2e-4)
        found = read(tmp_path / f"reconstruction_{i}_0002.wav")
        np.testing.assert_allclose(found, clip / 2, atol=2e-4)
    steps: dict[str, list] = {}
    for file in tmp_path.glob("events*"):
        events = EventAccumulator(str(file))
        events.Reload()
        for tag in events.Tags()["tensors"]:
            for event in events.Tensors(tag):
                steps.setdefault(tag, []).append(event.step)
                if tag != "sound":  # each clip is a WAV file and its label
                    assert tf.make_ndarray(event.tensor_proto).shape[0] == 2
    assert steps == {"original": [0], "reconstruction": [1, 2], "sound": [1, 2]}
    png = tf.io.decode_png((tmp_path / "sound_0002.png").read_bytes()).numpy()
    expected = sound_picture({"original": clips(), "reconstruction": clips() / 2}, RATE)
    np.testing.assert_array_equal(png, expected)


def test_speakers_and_every(tmp_path: Path) -> None:
    speaker = np.array([1, -1], "int32")
    fit(ReconstructionSound(2 * clips(), tmp_path, RATE, speaker=speaker, every=2))
    assert sorted(p.name for p in tmp_path.glob("*[_0-9]000*")) == [
        "reconstruction_0_0002.wav",
        "reconstruction_1_0002.wav",
        "sound_0002.png",
    ]
    # What is louder than a WAV file can be is clipped.
    expected = np.clip(clips() * 2 * -speaker[:, None], -1, 1)
    for i in range(2):
        found = read(tmp_path / f"reconstruction_{i}_0002.wav")
        np.testing.assert_allclose(found, expected[i], atol=2e-4)


def test_of_a_vqvae(tmp_path: Path) -> None:
    vqvae = AudioVQVAE(RATE, 8, 4, num_speakers=2, decoder="parallel", hidden=8, finest_hidden=8)
    vqvae.compile("adam")
    data = {"waveform": clips(4, 640), "speaker": np.array([0, 1, 0, 1], "int32")}
    sound = ReconstructionSound(clips(1, 1000), tmp_path, RATE, speaker=np.array([1], "int32"))
    vqvae.fit(data, epochs=1, verbose=0, callbacks=[sound, CodebookHistogram(tmp_path)])
    expected = vqvae.reconstruct(clips(1, 1000), speaker=1)[0]
    assert expected.shape == (1000,)
    found = read(tmp_path / "reconstruction_0_0001.wav")
    np.testing.assert_allclose(found, expected, atol=2e-4)
    assert (tmp_path / "codebook_0001.png").exists()
    # Without the speakers that the model wants, it says so before it trains.
    with pytest.raises(ValueError, match="speaker is missing"):
        vqvae.fit(data, verbose=0, callbacks=[ReconstructionSound(clips(1, 1000), tmp_path, RATE)])


def test_decibels() -> None:
    sine = np.sin(2 * np.pi * 1000 * np.arange(RATE) / RATE).astype("float32")
    found = decibels(sine, RATE)
    assert found.shape == (RATE // 64 + 1, 129)
    middle = found[len(found) // 2]
    assert middle.argmax() == 32 and abs(middle.max()) < 0.1 and middle.min() >= -80
    assert decibels(np.zeros(10, "float32"), RATE).max() == -80


def test_bad_arguments(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"waveforms must be \(n, samples\)"):
        ReconstructionSound(clips()[0], tmp_path, RATE)
    with pytest.raises(ValueError, match="speaker must be one of each waveform"):
        ReconstructionSound(clips(), tmp_path, RATE, speaker=np.zeros(3, "int32"))
    with pytest.raises(ValueError, match="at 16000 Hz, but the model's sample_rate is 8000"):
        fit(ReconstructionSound(clips(), tmp_path, 16000))
    with pytest.raises(ValueError, match="4000 samples"):
        fit(ReconstructionSound(clips(2, 500), tmp_path, RATE))
    other = keras.Sequential([keras.layers.Dense(4000)])
    with pytest.raises(ValueError, match="shows a model of sound, but the model is a Sequential"):
        fit(ReconstructionSound(clips(), tmp_path, RATE), other)
