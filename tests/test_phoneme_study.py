"""`examples/phoneme_study.py`: its steps on made-up sounds, whose phones are tones."""

import argparse
import importlib
import sys
from pathlib import Path
from types import ModuleType

import keras
import numpy as np
import pytest

from keras_vqvae.data.audio_corpus import Clip, Corpus

if keras.backend.backend() != "tensorflow":
    pytest.skip("the example reads sound by tf.data", allow_module_level=True)

EXAMPLES = Path(__file__).parents[1] / "examples"
HERTZ = {"pau": 0, "a": 300, "i": 900, "s": 3000}


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    yield importlib.import_module("phoneme_study")
    sys.modules.pop("phoneme_study")


def corpus(clips: int = 6) -> Corpus:
    """Clips of a second by two speakers, of ten tones of 0.1 s each."""
    made = []
    for speaker in ("high", "low"):
        for i in range(clips):
            phones = np.random.default_rng(i).choice(list(HERTZ), 10)
            pitch = 1.0 if speaker == "low" else 1.05
            times = np.arange(1600) / 16000
            waves = [0.3 * np.sin(2 * np.pi * HERTZ[p] * pitch * times) for p in phones]
            samples = np.round(32767 * np.concatenate(waves)).astype("int16")
            ends = [(0.1 * (n + 1), str(phone)) for n, phone in enumerate(phones)]
            made.append(Clip(f"clip-{i}", speaker, "", samples, phones=tuple(ends)))
    return Corpus(made, 16000, ("high", "low"), dict.fromkeys(("high", "low"), ""))


def test_no_sentence_is_in_both_halves(example: ModuleType) -> None:
    clips = example.in_halves(corpus(7).clips)
    assert len(clips) == 12  # of seven sentences one has no other
    learns, tests = ({clip.name for clip in clips[first::2]} for first in range(2))
    assert len(learns) == len(tests) == 3 and not learns & tests


@pytest.mark.parametrize("rate", [25, 50, 100])
def test_kmeans_tells_tones(example: ModuleType, rate: int) -> None:
    clips = example.in_halves(corpus().clips)
    codes = example.kmeans(16, 16000 // rate, clips, clips)
    assert {c.shape for c in codes} == {(rate,)}
    found = example.study(codes, clips, 16000 // rate)
    assert found["all"]["accuracy"] > 0.7 > 2 * found["all"]["baseline"]
    assert found["speech"]["positions"] < found["all"]["positions"] == 12 * rate


def test_frames_of_a_clip_that_ends_within_a_code(example: ModuleType) -> None:
    silence = np.zeros(1000, "float32")
    assert example.mel_frames(silence, 640).shape == (2, 80)
    assert example.mel_frames(silence, 160).shape == (7, 80)


@pytest.mark.long
def test_the_whole_run(
    example: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    data = corpus()
    small = argparse.Namespace(hidden=8)
    monkeypatch.setattr(example, "corpora", lambda name: (data, example.in_halves(data.clips)))
    whole = example.AudioVQVAE
    monkeypatch.setattr(
        example, "AudioVQVAE", lambda *a, **k: whole(*a, **{**k, "hidden": small.hidden})
    )
    decoder = example.ParallelDecoder
    monkeypatch.setattr(
        example, "ParallelDecoder", lambda strides, *a, **k: decoder(strides, 8, finest_hidden=4)
    )
    arguments = ["--out", str(tmp_path), "--data", "flite", "--rates", "50", "--codes", "16"]
    arguments += ["--minutes", "0.02", "--batch", "2", "--crop", "6400", "--encoder", "waveform"]
    monkeypatch.setattr(sys, "argv", ["phoneme_study.py", *arguments])
    example.main()
    shown = capsys.readouterr().out
    assert "waveform" in shown and "k-means" in shown
    models = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.keras")}
    assert len(models) == 1
    (tmp_path / "metrics.json").unlink()  # what was trained is not trained again
    example.main()
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.keras")} == models
    assert "training at" not in capsys.readouterr().out
