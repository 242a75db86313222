"""Synthetic speech. Where flite is neither installed nor to be had, a small program stands in."""

import re
import sys

import numpy as np
import pytest

from keras_vqvae.data import cache, flite
from tests.inside import inside

pytestmark = pytest.mark.tensorflow  # pipelines know no backend

STAND_IN = f"""#!{sys.executable}
import sys, wave
arguments = sys.argv[1:]
text, file = arguments[arguments.index("-t") + 1], arguments[arguments.index("-o") + 1]
if "fail" in text:
    sys.exit("cannot")
with wave.open(file, "wb") as stream:
    stream.setparams((1, 2, 16000, 0, "NONE", ""))
    stream.writeframes(bytes(2 * 160 * len(text)))
print("pau:0.010 a:0.020 pau:9.000")
"""


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "flite"
    program.write_text(STAND_IN)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv(cache.ENVIRONMENT_VARIABLE, str(tmp_path / "cache"))
    inside(flite).flite.cache_clear()
    yield program
    inside(flite).flite.cache_clear()


def test_sentences_are_different_and_always_the_same():
    first = flite.sentences(300)
    assert len(set(first)) == 300 and first == flite.sentences(301)[:300]
    assert all(re.fullmatch(r"[A-Z].*[a-z][.?!]", sentence) for sentence in first)
    assert "{" not in " ".join(first)
    for count in (0, 10_001, 1.5):
        with pytest.raises(ValueError, match="`count` must be"):
            flite.sentences(count)


def test_clip_with_phones(stand_in):
    clip = flite.synthesize("so it is", "rms")
    assert clip.text == clip.name == "so it is" and clip.speaker == "rms"
    assert clip.waveform.dtype == np.float32 and clip.waveform.ndim == 1
    # The last end is that of the sound, where flite says more.
    assert clip.phones == ((0.01, "pau"), (0.02, "a"), (len(clip.samples) / 16000, "pau"))
    with pytest.raises(ValueError, match="`voice` must be one of slt"):
        flite.synthesize("so", "nobody")
    with pytest.raises(ValueError, match="`text` must have something to say"):
        flite.synthesize(" -- ")
    with pytest.raises(ValueError, match="flite cannot speak 'to fail': cannot"):
        flite.synthesize("to fail")
    with pytest.raises(ValueError, match="`sample_rate` must be"):
        flite.synthesize("so", sample_rate=0)


def test_other_rates(stand_in):
    pytest.importorskip("soxr", reason="the extra `audio` is not installed")
    assert len(flite.synthesize("so it is", sample_rate=8000).samples) == 80 * 9


def test_corpus_is_kept(stand_in):
    corpus = flite.load(num_sentences=20, voices=["slt", "kal16"])
    assert corpus.speaker_names == ("slt", "kal16") and len(corpus.clips) == 40
    texts = [[c.text for c in corpus.part(speakers=[v]).clips] for v in corpus.speaker_names]
    assert texts[0] == texts[1] == flite.sentences(20)
    assert all(corpus.licences.values())
    stand_in.write_text("#!/bin/sh\nexit 1\n")
    assert len(flite.load(num_sentences=20, voices=["slt", "kal16"], split="train").clips) < 40
    with pytest.raises(ValueError, match="`num_sentences`"):
        flite.load(num_sentences=0)
    with pytest.raises(ValueError, match="`speakers` must be"):
        flite.load(voices=["nobody"])


def test_the_real_flite():
    try:
        slt, awb = (flite.synthesize("The judge was happy.", voice) for voice in ("slt", "awb"))
    except RuntimeError as error:
        pytest.skip(f"flite cannot be had here: {error}")
    assert [phone for _, phone in slt.phones] == [phone for _, phone in awb.phones]
    assert "jh" in [phone for _, phone in slt.phones]
    for clip in (slt, awb):
        ends = [end for end, _ in clip.phones]
        assert ends == sorted(ends) and abs(ends[-1] - len(clip.samples) / 16000) < 0.02
        assert 0.1 < np.abs(clip.waveform).max() <= 1
