"""The zoo: every model loads from its folder, is small, and does its work on a folder of data."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import h5py
import keras
import numpy as np
import pytest
from PIL import Image

from keras_vqvae import AudioVQVAE, ImageVQVAE, VideoPredictor, spectral
from tests.models.test_video import make

pytestmark = pytest.mark.tensorflow  # the runner reads files through tf.data
if keras.backend.backend() != "tensorflow":
    pytest.skip("the runner needs TensorFlow", allow_module_level=True)

ZOO = Path(__file__).parents[1] / "zoo"
NAMES = sorted(path.parent.name for path in ZOO.glob("*/config.json"))


@pytest.fixture(scope="module")
def run() -> ModuleType:
    spec = importlib.util.spec_from_file_location("zoo_run", ZOO / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", NAMES)
def test_each_has_its_files_and_is_small(name: str) -> None:
    folder = ZOO / name
    card = (folder / "README.md").read_text()
    assert "licence" in card.lower() or "BSD" in card or "CC-BY" in card
    assert (folder / "metrics.json").exists()
    assert (folder / "model.weights.h5").stat().st_size < 5e6
    assert f"({name}/)" in (ZOO / "README.md").read_text()


@pytest.mark.parametrize("name", NAMES)
def test_each_runs_on_a_folder(
    name: str, run: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = run.load(name)
    rng = np.random.default_rng(0)
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    if isinstance(model, ImageVQVAE):
        out = out.with_suffix(".png")
        for i in range(3):
            keras.utils.save_img(data / f"{i}.png", rng.integers(0, 255, model.image_shape))
    elif isinstance(model, VideoPredictor):
        out = out.with_suffix(".gif")
        length = model.context_frames + run.STEPS
        # Each another one: a GIF keeps those alike as one.
        frames = rng.integers(0, 255, (length, *model.image_shape), "uint8")
        actions = rng.integers(0, model.num_actions, length).astype("int32")
        np.savez(data / "0.npz", frames=frames, actions=actions)
        assert len(json.loads((ZOO / name / "actions.json").read_text())) == model.num_actions
    else:
        soundfile = pytest.importorskip("soundfile", reason="sound files need soundfile")
        for i in range(2):
            tone = 0.3 * np.sin(np.arange(model.sample_rate) * (0.05 + 0.01 * i))
            soundfile.write(data / f"{i}.wav", tone, model.sample_rate)
    monkeypatch.setattr(sys, "argv", ["run.py", name, str(data), str(out)])
    run.main()
    if isinstance(model, ImageVQVAE):
        assert np.asarray(keras.utils.load_img(out)).shape == (128, 3 * 64, 3)
    elif isinstance(model, VideoPredictor):
        with Image.open(out) as file:
            assert file.n_frames == length
    else:
        assert isinstance(model, AudioVQVAE)
        files = sorted(out.glob("*.wav"))
        assert len(files) == 2 * len(run.voices_of(model))
        sounds = [soundfile.read(file)[0] for file in files]
        assert all(len(sound) == model.sample_rate and np.any(sound) for sound in sounds)


def test_speech_is_said_as_in_the_sounds_beside_the_weights(run: ModuleType) -> None:
    """Other weights, and other voices, are farther off."""
    soundfile = pytest.importorskip("soundfile", reason="sound files need soundfile")
    sounds = ZOO / "speech_conversion" / "sounds"

    def read(name: str) -> np.ndarray:
        return soundfile.read(sounds / f"{name}.flac", dtype="float32")[0][None]

    model = run.load("speech_conversion")
    original = read("carlo_original")
    made = {name: model.convert(original, name, verbose=0) for name in run.voices_of(model)}
    rate = model.sample_rate
    for name, sound in made.items():
        there = read(f"carlo_as_{name}")
        far = {
            other: float(spectral.log_mel_distance(there, one[:, : there.shape[1]], rate)[0])
            for other, one in made.items()
        }
        assert sound.shape == original.shape
        assert min(far, key=far.get) == name and far[name] < 0.15
    assert len(np.unique(model.encode(original))) > 50


def test_a_world_turns_as_it_is_told(run: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ZOO.parent / "examples"))
    from support import video_scores

    model = run.load("vizdoom_world")
    actions = json.loads((ZOO / "vizdoom_world" / "actions.json").read_text())
    context = np.load(ZOO / "vizdoom_world" / "contexts.npz")["frames"][::4]
    seen = model.vqvae.reconstruct(context[:, -1])
    left, right = actions.index("left"), actions.index("right")
    for turn in (left, right):
        led = np.full((len(context), 4), turn, "int32")
        made = model.predict_frames(context, led, seed=0, verbose=0)
        assert video_scores.obedience(seen, made, led, left, right)["share"] > 0.9


def test_a_predictor_runs_on_a_folder_of_episodes(
    run: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make(sharp=0.4)
    model.save(tmp_path / "predictor.keras")
    (tmp_path / "actions.json").write_text('["a", "b", "c"]')
    data = tmp_path / "data"
    data.mkdir()
    pack(monkeypatch, str(tmp_path / "predictor.keras"), str(tmp_path / "world"), "--float16")
    assert json.loads((tmp_path / "world" / "actions.json").read_text()) == ["a", "b", "c"]
    monkeypatch.setattr(run, "__file__", str(tmp_path / "run.py"))
    monkeypatch.setattr(sys, "argv", ["run.py", "world", str(data), str(tmp_path / "out.gif")])
    shape, first = model.image_shape, model.context_frames
    rng = np.random.default_rng(0)
    lengths = (first + run.STEPS - 1, first + run.STEPS, 3 * first + run.STEPS)
    for number, length in enumerate(lengths):
        actions = rng.integers(0, model.num_actions, length).astype("int32")
        frames = rng.integers(0, 255, (length, *shape), "uint8")
        np.savez(data / f"{number}.npz", frames=frames, actions=actions)
        if number == 0:  # too short
            with pytest.raises(ValueError, match=f"no episode of {first + run.STEPS} frames"):
                run.main()
    run.main()
    with Image.open(tmp_path / "out.gif") as file:
        assert file.n_frames == first + run.STEPS
        assert file.size == (2 * shape[1], 2 * shape[0])


def pack(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    spec = importlib.util.spec_from_file_location("zoo_pack", ZOO / "pack.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(sys, "argv", ["pack.py", *arguments])
    module.main()


def test_packing_in_half_precision_keeps_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ImageVQVAE((8, 8, 3), 16, 4, hidden=8, residual_hidden=4)
    model.compile("adam")
    model.fit(np.zeros((4, 8, 8, 3), "uint8"), verbose=0)
    model.save(tmp_path / "m.keras")
    for number, options in enumerate([[], ["--float16"]]):
        folder = tmp_path / str(number)
        pack(monkeypatch, str(tmp_path / "m.keras"), str(folder), *options)
        with h5py.File(folder / "model.weights.h5") as file:
            assert "optimizer" not in file
        config = (folder / "config.json").read_text()
        again = keras.saving.deserialize_keras_object(json.loads(config))
        again.load_weights(folder / "model.weights.h5")
        for old, new in zip(model.weights, again.weights, strict=True):
            np.testing.assert_allclose(old, new, rtol=2**-9 * number, atol=1e-6 * number)


def test_what_is_left_out_is_said(
    run: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    for i in range(3):
        keras.utils.save_img(tmp_path / f"{i}.png", np.full((8, 8, 3), 80.0 * i), scale=False)
    model = ImageVQVAE((8, 8, 3), 16, 4, hidden=8, residual_hidden=4)
    run.show_pictures(model, str(tmp_path), tmp_path / "out.gif", 2)
    said = capsys.readouterr().out
    assert "the first 2 of 3 are taken; --most 3 takes all" in said and "2 pictures" in said
    run.show_pictures(model, str(tmp_path), tmp_path / "out.gif", 12)
    assert "are taken" not in capsys.readouterr().out
    # Without soundfile the error says what to install.
    sound = AudioVQVAE(8000, 16, decoder="parallel", hidden=8, finest_hidden=4)
    (tmp_path / "a.wav").write_bytes(b"RIFF")
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(ImportError, match=r'need soundfile: pip install "\.\[audio\]"'):
        run.say_in_every_voice(sound, str(tmp_path), tmp_path / "out", 12)
