"""Training on JAX alone, in one program, is what `fit` does."""

import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

pytestmark = pytest.mark.programs

if keras.backend.backend() != "jax":
    pytest.skip("it trains on JAX", allow_module_level=True)
soundfile = pytest.importorskip("soundfile")

import jax  # noqa: E402
import train_on_jax  # noqa: E402
from support import speech_networks  # noqa: E402
from support.speech_networks import Preset, Recipe  # noqa: E402

from keras_vqvae import AudioVQVAE, ParallelDecoder, WaveNetDecoder  # noqa: E402
from keras_vqvae.data.audio_corpus import Clip, Corpus  # noqa: E402

RATE, CROP = 8000, 512
NAMES = ["high", "low"]
SIZES = {"hidden": 8, "finest_hidden": 4, "code_dim": 4, "downsampling": 64}


def wavenet(speakers: list[str], downsampling: int) -> AudioVQVAE:
    decoder = WaveNetDecoder(downsampling, channels=4, skip_channels=4, dilations=(1, 2, 4))
    return AudioVQVAE(RATE, 16, speaker_names=speakers, decoder=decoder, **SIZES)


def parallel(speakers: list[str], downsampling: int) -> AudioVQVAE:
    decoder = ParallelDecoder((8, 8), 8, finest_hidden=4, dilations=(1,))
    return AudioVQVAE(RATE, 16, speaker_names=speakers, decoder=decoder, **SIZES)


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    """Of one speaker all samples are positive, of the other negative."""
    t = np.arange(4 * RATE) / RATE
    buzz = 0.4 * (1 + np.sin(2 * np.pi * 130 * t) * np.sin(2 * np.pi * 3 * t))
    soundfile.write(tmp_path / "high.flac", buzz, RATE)
    soundfile.write(tmp_path / "low.flac", -buzz[: RATE + 17], RATE)
    (tmp_path / "sound.json").write_text(json.dumps({"speakers": NAMES, "bits": 16}))
    return tmp_path


def test_sound_is_written_by_speaker_and_rounded(tmp_path: Path, monkeypatch) -> None:
    from support import conversion  # with TensorFlow

    rng = np.random.default_rng(0)
    sounds = [rng.integers(-32768, 32768, n).astype("int16") for n in (900, 500, 40)]
    owners = ("low", "high", "low")
    clips = [
        Clip(str(i), who, "xx", x) for i, (x, who) in enumerate(zip(sounds, owners, strict=True))
    ]
    corpus = Corpus(clips, 16000, tuple(NAMES), {})
    monkeypatch.setattr(conversion, "read_debian", lambda speakers, rate: (corpus, None))
    for bits in (16, 12):
        train_on_jax.main(["write", str(tmp_path), "--bits", str(bits)])
        names, read, of_bits = train_on_jax.read(tmp_path)
        assert (names, of_bits) == (NAMES, bits)
        whole = [sounds[1], np.concatenate([sounds[0], sounds[2]])]
        step = 2 ** (16 - bits)
        for one, other in zip(whole, read, strict=True):
            assert (other % step == 0).all()
            off = one.astype(int) - other
            # The topmost have no step above them.
            assert np.abs(off[one < 32768 - step]).max() <= step // 2 and off.max() < step


def test_crops_are_of_one_speaker_each_and_balanced_by_the_root(sound: Path) -> None:
    names, sounds, bits = train_on_jax.read(sound)
    assert names == NAMES and bits == 16 and [len(x) for x in sounds] == [4 * RATE, RATE + 17]
    crops, on_device = train_on_jax.crops_of(sounds, CROP, 600)
    batch = crops(jax.random.PRNGKey(0), on_device)
    waveform, speaker = np.asarray(batch["waveform"]), np.asarray(batch["speaker"])
    assert waveform.shape == (600, CROP) and waveform.dtype == "float32"
    # A crop that reached from one speaker into the other would have both signs.
    signs = np.where(speaker == 0, 1, -1)[:, None]
    assert (waveform * signs).min() >= 0 and np.abs(waveform).max() > 0.5
    assert np.mean(speaker == 0) == pytest.approx(2 / 3, abs=0.06)
    assert len({row.tobytes() for row in waveform}) > 550
    # Every place is reached, the last too.
    crops, on_device = train_on_jax.crops_of([np.arange(CROP + 1, dtype="int16")] * 2, CROP, 50)
    first = np.asarray(crops(jax.random.PRNGKey(1), on_device)["waveform"])[:, 0] * 32768
    assert set(first.tolist()) == {0, 1}


def test_a_speaker_of_too_little_sound_is_named() -> None:
    with pytest.raises(ValueError, match="511 samples of sound, and a crop needs 512"):
        train_on_jax.crops_of([np.zeros(9000, "int16"), np.zeros(511, "int16")], CROP, 2)


def test_what_was_rounded_is_made_even_by_noise() -> None:
    """Else a WaveNet learns which levels never come, and cannot be used for any other sound."""
    rounded = (np.random.default_rng(0).integers(-8, 8, 6000) * 16).astype("int16")  # 12 bits
    crops, on_device = train_on_jax.crops_of([rounded] * 2, CROP, 40, bits=12)
    waveform = np.asarray(crops(jax.random.PRNGKey(0), on_device)["waveform"]) * 32768
    off = waveform - np.round(waveform / 16) * 16
    assert np.abs(off).max() <= 8 and off.std() == pytest.approx(16 / 12**0.5, rel=0.02)
    assert set((np.round(waveform / 16) * 16).ravel()) <= set(range(-128, 129, 16))


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("name", ["wavenet", "parallel"])
def test_the_model_learns_and_is_written_in_float32(
    name: str, dtype: str, sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = Recipe({"wavenet": wavenet, "parallel": parallel}[name], CROP, 2, 200, 3e-3)
    preset = Preset(RATE, 64, {name: recipe}, shown_seconds=0.3)
    monkeypatch.setitem(speech_networks.PRESETS, "small", preset)
    monkeypatch.setattr(train_on_jax, "CHUNK", 20)
    path = tmp_path / "models" / f"{name}.keras"
    arguments = ["train", str(sound), str(path), "--steps", "70", "--dtype", dtype]
    train_on_jax.main(arguments)
    took = json.loads(path.with_suffix(".json").read_text())
    assert took["steps"] == took["of"] == 70 and took["recipe"] == name
    curve = [row["loss"] for row in took["curve"]]
    assert len(curve) == 4 and curve[-1] < 0.95 * curve[0]

    vqvae = keras.models.load_model(path)
    assert vqvae.speaker_names == tuple(NAMES) and vqvae.dtype_policy.name == "float32"
    assert all(weight.dtype != "bfloat16" for weight in vqvae.weights)
    _, (high, _), _ = train_on_jax.read(sound)
    waveform = high[None, : 8 * CROP].astype("float32").reshape(8, CROP) / 32768
    x = {"waveform": waveform, "speaker": np.zeros(8, "int32")}
    vqvae.compile()
    # What was learnt is in the file: a mean over two losses of crops beside one over others.
    learnt = vqvae.evaluate(x, verbose=0, return_dict=True)["loss"]
    assert learnt < (curve[0] + curve[-1]) / 2


def test_steps_are_those_of_fit(sound: Path, tmp_path: Path, monkeypatch) -> None:
    """The same crops through `fit` give the same weights."""
    recipe = Recipe(wavenet, CROP, 2, 6, 1e-3)
    preset = Preset(RATE, 64, {"wavenet": recipe}, shown_seconds=0.3)
    monkeypatch.setitem(speech_networks.PRESETS, "small", preset)
    monkeypatch.setattr(train_on_jax, "CHUNK", 4)
    path = tmp_path / "wavenet.keras"
    train_on_jax.main(["train", str(sound), str(path), "--seed", "3"])
    scanned = keras.models.load_model(path)

    names, sounds, _ = train_on_jax.read(sound)
    crops, on_device = train_on_jax.crops_of(sounds, CROP, 2)
    keys = [jax.random.fold_in(jax.random.PRNGKey(3), i) for i in range(6)]
    batches = [crops(key, on_device) for key in keys]
    keras.utils.set_random_seed(3)
    model = speech_networks.compiled(wavenet(names, 64), recipe, 6, True)
    data = {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]}
    model.fit(data, batch_size=2, shuffle=False, verbose=0)
    for one, other in zip(scanned.trainable_weights, model.trainable_weights, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)


def test_training_stops_in_time_and_a_diverged_one_at_once(
    sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    preset = Preset(RATE, 64, {"wavenet": Recipe(wavenet, CROP, 2, 10**6, 1e-3)}, shown_seconds=0.3)
    monkeypatch.setitem(speech_networks.PRESETS, "small", preset)
    monkeypatch.setattr(train_on_jax, "CHUNK", 5)
    path = tmp_path / "wavenet.keras"
    train_on_jax.main(["train", str(sound), str(path), "--seconds", "0.1"])
    took = json.loads(path.with_suffix(".json").read_text())
    assert took["steps"] == 5 and took["of"] == 10**6 and took["seconds a step"] > 0
    path.unlink()
    worse = Preset(RATE, 64, {"wavenet": Recipe(wavenet, CROP, 2, 50, 1e30)}, shown_seconds=0.3)
    monkeypatch.setitem(speech_networks.PRESETS, "small", worse)
    with pytest.raises(ValueError, match="the loss is nan after"):
        train_on_jax.main(["train", str(sound), str(path)])
    assert not path.exists()


def test_it_needs_no_tensorflow() -> None:
    """Nor does reading the networks' recipes."""
    blocked = (
        "import sys; sys.modules['tensorflow'] = None; sys.path.insert(0, 'examples');"
        "import keras_vqvae; from support import speech_networks; import train_on_jax;"
        "print(sorted(speech_networks.PRESETS))"
    )
    root = Path(__file__).parents[1]
    run = subprocess.run(
        [sys.executable, "-c", blocked], cwd=root, capture_output=True, text=True, check=False
    )
    assert run.stdout.strip() == "['paper', 'small', 'tiny']", run.stderr
