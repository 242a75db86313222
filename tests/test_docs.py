"""The Python blocks of README, `docs/` and the zoo's cards run as they stand.

A page's blocks run in order in one namespace, in a folder that holds stand-ins for a reader's data
(`photos/`, `voices/`, ...). Two things are smaller than the page says: the default sizes of the
networks and the number of epochs. Functions that would download or record are replaced by ones with
the same signature. A block that cannot run here follows a comment `<!-- skip: next "reason" -->`.
"""

import functools
import inspect
import subprocess
import sys
import unittest
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

pytestmark = pytest.mark.tensorflow  # pages use tf.data and export
if keras.backend.backend() != "tensorflow":  # the JAX run deselects this file by the mark
    pytest.skip("the pages are for the TensorFlow backend", allow_module_level=True)

import tensorflow as tf  # noqa: E402
from sybil import Lexeme, Sybil  # noqa: E402
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser  # noqa: E402

import keras_vqvae  # noqa: E402
from keras_vqvae import data  # noqa: E402
from keras_vqvae.data import audio, audio_corpus, video, vizdoom_recorder  # noqa: E402

soundfile = pytest.importorskip("soundfile", reason="the extra `audio` is not installed")

ROOT = Path(__file__).parents[1]
FOUND = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "zoo").glob("*/README.md")]
PAGES = sorted(str(path.relative_to(ROOT)) for path in FOUND if "```python" in path.read_text())
# More than 15 CPU seconds on quiet cores; `make test` has 40 for all other pages.
EXPENSIVE = {"README.md", "docs/input.md", "docs/sound.md", "docs/video.md"}
SKIPPED_BLOCKS = 2  # in all pages

DEFAULT_SIZES = {
    keras_vqvae.ImageVQVAE: {"hidden": 8},
    keras_vqvae.AudioVQVAE: {"hidden": 8, "finest_hidden": 8},
    keras_vqvae.PixelCNN: {"hidden": 8, "num_layers": 2},
    keras_vqvae.ParallelDecoder: {"dilations": (1,)},
    keras_vqvae.VideoPredictor: {"hidden": 8, "num_layers": 2, "past_dilations": (1, 2)},
    keras_vqvae.WaveNet: {"channels": 8, "skip_channels": 8, "dilations": (1, 2)},
}
MOST = {"epochs": 1, "steps_per_epoch": 2}
RATE = 16000
SPEAKERS = ("ann", "bob", "carlo", "dora")


# What readers have in their folder.


@pytest.fixture
def reader(tmp_path: Path) -> Path:
    write_photos(tmp_path)
    write_sound(tmp_path)
    write_episodes(tmp_path)
    for folder in ("examples", "zoo"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    return tmp_path


def write_photos(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for parent in ("photos", "shared/photos"):
        for number in range(28):
            path = folder / parent / f"class{number % 4}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            keras.utils.save_img(path, rng.integers(0, 255, (64, 64, 3)), scale=False)


def write_sound(folder: Path) -> None:
    names = ["hello.wav", "LibriSpeech/dev-clean/84/121/84-121-0000.flac"]
    names += ["VCTK-Corpus-0.92/wav48/p225/p225_001_mic1.flac"]
    names += [f"{parent}/{who}/a.wav" for parent in ("voices", "recordings") for who in SPEAKERS]
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / name, tone(number, 1.1), RATE)
    lines = [f"recordings/{who}/a.wav,{who}\n" for who in SPEAKERS]
    (folder / "list.csv").write_text("path,speaker\n" + "".join(lines))


def tone(number: int, seconds: float) -> np.ndarray:
    times = np.arange(int(seconds * RATE)) / RATE
    return (0.3 * np.sin(2 * np.pi * (110 + 20 * number) * times)).astype("float32")


def write_episodes(folder: Path) -> None:
    rng = np.random.default_rng(0)
    (folder / "episodes").mkdir()
    frames = rng.integers(0, 255, (80, 64, 64, 3), "uint8")
    buttons = rng.integers(0, 2, (80, 2)).astype("int32")
    np.savez(folder / "episodes" / "0.npz", frames=frames, actions=buttons)


def write_trained_models(folder: Path) -> None:
    """`vqvae.keras` and `prior.keras`, of Fashion-MNIST."""
    vqvae = keras_vqvae.ImageVQVAE((28, 28, 1))
    vqvae.save(folder / "vqvae.keras")
    keras_vqvae.PixelCNN(vqvae.grid_shape, vqvae.num_codes).save(folder / "prior.keras")


# In place of what is downloaded, recorded or needs several machines.


def recording(actions: tuple, **_: Any) -> vizdoom_recorder.Recording:
    count, rng = 80, np.random.default_rng(0)
    return vizdoom_recorder.Recording(
        frames=rng.integers(0, 255, (count, 64, 64, 3), "uint8"),
        actions=rng.integers(0, len(actions), count).astype("int32"),
        episode_starts=np.arange(count) == 0,
        map_ids=np.zeros(count, "int32"),
        maps=("my_way_home",),
        action_names=tuple(actions),
    )


def clothes(**_: Any) -> tuple:
    images = np.random.default_rng(0).integers(0, 255, (16, 28, 28, 1), "uint8")
    labels = np.arange(16, dtype="int32") % 10
    return (images, labels), (images, labels)


def photo_dataset(batch_size: int, seed: int | None, **_: Any) -> tf.data.Dataset:
    return data.from_array(clothes()[0][0], batch_size, seed=seed)


def sound_dataset(crop: int | None, batch_size: int, seed: int | None, **_: Any) -> tf.data.Dataset:
    return audio.from_arrays([tone(1, 2.0)], crop=crop, batch_size=batch_size, seed=seed)


def clip(speaker: str = "slt", **_: Any) -> audio_corpus.Clip:
    samples = audio_corpus.quantized(tone(0, 1.0))
    return audio_corpus.Clip("one", speaker, "en", samples, "said", ((0.5, "a"), (1.0, "b")))


def corpus(speakers: list | None = None, **_: Any) -> audio_corpus.Corpus:
    names = tuple(speakers or ["slt"])
    licences = dict.fromkeys(names, "free")
    return audio_corpus.Corpus([clip(name) for name in names], RATE, names, licences)


REPLACED: dict[tuple[Any, str], Callable] = {
    (data, "record"): recording,
    (data, "fashion_mnist"): clothes,
    (data, "from_tfds"): photo_dataset,
    (audio, "from_tfds"): sound_dataset,
    (data.debian_speech, "load"): corpus,
    (data.flite, "load"): corpus,
    (data.flite, "synthesize"): clip,
    (video, "read_tfds"): lambda **_: video.episodes_of(recording(vizdoom_recorder.ACTIONS)),
}


class OneMachine:
    """In place of `MultiWorkerMirroredStrategy`, which wants to be made before all else runs."""

    def __new__(cls) -> tf.distribute.MirroredStrategy:
        return tf.distribute.MirroredStrategy()


def with_signature_of(original: Callable, replacement: Callable) -> Callable:
    """`replacement`, which gets by name what `original` would and takes nothing else."""
    signature = inspect.signature(original)

    @functools.wraps(original)
    def replaced(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return replacement(**bound.arguments)

    return replaced


def briefly(fit: Callable) -> Callable:
    @functools.wraps(fit)
    def short(*args: Any, **kwargs: Any) -> Any:
        for name in MOST.keys() & kwargs.keys():
            kwargs[name] = min(kwargs[name], MOST[name])
        return fit(*args, **kwargs)

    return short


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for model, sizes in DEFAULT_SIZES.items():
        for name, size in sizes.items():
            assert name in model.__init__.__kwdefaults__
            monkeypatch.setitem(model.__init__.__kwdefaults__, name, size)
    for (module, name), replacement in REPLACED.items():
        original = getattr(module, name)
        monkeypatch.setattr(module, name, with_signature_of(original, replacement))
    monkeypatch.setattr(tf.distribute, "MultiWorkerMirroredStrategy", OneMachine)
    monkeypatch.setattr(keras.Model, "fit", briefly(keras.Model.fit))


def blocks(page: str) -> Iterator[Any]:
    return Sybil([PythonCodeBlockParser(), SkipParser()]).parse(ROOT / page).examples()


def test_few_blocks_are_skipped() -> None:
    pages = [(ROOT / page).read_text() for page in PAGES]
    assert sum(page.count("<!-- skip: ") for page in pages) == SKIPPED_BLOCKS
    assert not any("skip: start" in page for page in pages)


def test_names_are_defined_and_imported(tmp_path: Path) -> None:
    """In a second, of all pages: what the pages that take long would find out last."""
    for page in PAGES:
        code = [str(block.parsed) for block in blocks(page) if isinstance(block.parsed, Lexeme)]
        assert code
        (tmp_path / f"{page.replace('/', '_')}.py").write_text("\n".join(code))
    line = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "E9,F821,F811"]
    found = subprocess.run([*line, str(tmp_path)], capture_output=True, text=True)
    assert found.returncode == 0, found.stdout


@pytest.mark.parametrize(
    "page",
    [pytest.param(p, marks=pytest.mark.programs if p in EXPENSIVE else ()) for p in PAGES],
)
def test_blocks_run(page: str, reader: Path, small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    if page == "docs/serving.md":
        write_trained_models(reader)
    monkeypatch.chdir(reader)
    monkeypatch.setattr(sys, "path", list(sys.path))  # a card adds to it
    for block in blocks(page):
        try:
            block.evaluate()
        except unittest.SkipTest:
            continue
