"""Speech from Debian's packages: reading is tested on packages made here, fetching for real."""

import subprocess

import numpy as np
import pytest

from keras_vqvae.data import audio_corpus, audio_packages, cache, debian_speech
from tests.inside import inside

pytestmark = pytest.mark.tensorflow  # pipelines know no backend

soundfile = pytest.importorskip("soundfile", reason="the extra `audio` is not installed")
av = pytest.importorskip("av", reason="the extra `audio` is not installed")


def clip(name, speaker="ann", samples=100):
    values = (np.arange(samples) * 7).astype(np.int16)
    return audio_corpus.Clip(name, speaker, "en", values, "said", ((0.5, "a"), (1.0, "b")))


def write_g722(path, waveform, rate=16000):
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format="g722") as container:
        stream = container.add_stream("g722", rate=rate)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(waveform[None], format="s16", layout="mono")
        frame.sample_rate = rate
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def tone(seconds=0.5, rate=16000):
    times = np.arange(int(seconds * rate)) / rate
    return audio_corpus.quantized(0.3 * np.sin(2 * np.pi * 220 * times))


def test_clips_are_kept_as_they_are(tmp_path):
    clips = [clip("one"), clip("zwei/ü", samples=3)]
    audio_corpus.write_clips(tmp_path / "kept", clips)
    audio_corpus.write_clips(tmp_path / "kept", clips[:1])  # another process was quicker
    again = audio_corpus.read_clips(tmp_path / "kept")
    assert [c.name for c in again] == ["one", "zwei/ü"] and again[0].phones == clips[0].phones
    for old, new in zip(clips, again, strict=True):
        np.testing.assert_array_equal(old.samples, new.samples)
        assert new.waveform.dtype == np.float32
        np.testing.assert_allclose(new.waveform, old.samples / 32768)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_splits_are_decided_by_the_name_alone():
    names = [f"digits/{i}" for i in range(2000)]
    splits = [clip(name).split for name in names]
    assert splits == [clip(name, "bob").split for name in names]
    shares = {split: splits.count(split) / 2000 for split in audio_corpus.SPLITS}
    assert shares == pytest.approx({"train": 0.85, "validation": 0.05, "test": 0.1}, abs=0.02)
    # Written down, for them never to change.
    names = ["0", "1", "19", "29", "6", "30"]
    assert [clip(name).split for name in names] == [
        "train",
        "train",
        "validation",
        "validation",
        "test",
        "test",
    ]


def test_parts_of_a_corpus():
    clips = [clip(f"{i}", speaker) for speaker in ("ann", "bob") for i in range(40)]
    corpus = audio_corpus.Corpus(clips, 100, ("ann", "bob"), {"ann": "free", "bob": "free"})
    assert corpus.seconds() == 80 and corpus.seconds("bob") == 40
    parts = [corpus.part(split) for split in audio_corpus.SPLITS]
    assert sum(len(part.clips) for part in parts) == 80
    assert all(part.speaker_names == ("ann", "bob") for part in parts)
    swapped = corpus.part(speakers=["bob", "ann"])
    assert swapped.speaker_ids.tolist() == [0] * 40 + [1] * 40
    assert swapped.clips[0].speaker == "bob"
    for speakers in (["eve"], [], "ann", ["ann", "ann"]):
        with pytest.raises(ValueError, match="`speakers` must be a list of different names"):
            corpus.part(speakers=speakers)
    with pytest.raises(ValueError, match="`split` must be one of"):
        corpus.part("dev")


def test_packages_are_read(tmp_path, monkeypatch):
    """All of `load` but the download, on small packages with the same layout."""
    prompts = (
        tmp_path / "asterisk-core-sounds-it-g722" / inside(debian_speech).ASTERISK / "it_IT_m_Carlo"
    )
    for name in ("digits/1", "beep", "silence/1", "hello"):
        write_g722(prompts / f"{name}.g722", tone())
    write_g722(prompts / "quiet.g722", tone() // 200)
    (prompts / "is.g722").write_bytes(b"")
    festival = tmp_path / "festvox-ru" / inside(debian_speech).FESTIVAL
    for part in ("wav", "lab", "etc"):
        (festival / part).mkdir(parents=True)
    soundfile.write(festival / "wav" / "ru_0001.wav", tone(), 16000)
    (festival / "lab" / "ru_0001.lab").write_text("#\n0.2 125 pau\n0.5 125 ay\n")
    (festival / "etc" / "txt.done.data").write_text('( ru_0001 "Что, это?" )\n')
    voices = tmp_path / "fillets-ng-data-cs" / inside(debian_speech).FILLETS / "sound/city/cs"
    voices.mkdir(parents=True)
    soundfile.write(voices / "vit-m-klid.ogg", tone(1, 22050), 22050)
    soundfile.write(voices / "vit-v-proc.ogg", np.stack([tone(1, 44100)] * 2, 1), 44100)
    soundfile.write(voices / "vit-hs-x.ogg", tone(1, 22050), 22050)
    script = tmp_path / "fillets-ng-data" / inside(debian_speech).FILLETS / "script/city"
    script.mkdir(parents=True)
    (script / "dialogs_cs.lua").write_text(
        'dialogId("vit-m-klid", "font_small", "Quiet (please)")\ndialogStr("Ticho \\"prosím\\"")\n'
    )

    monkeypatch.setenv(cache.ENVIRONMENT_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(
        debian_speech, "fetch_packages", lambda names, _: {n: tmp_path / n for n in names}
    )
    with pytest.raises(RuntimeError, match="Debian's package asterisk.* another version"):
        debian_speech.load(speakers=["carlo"])
    monkeypatch.setattr(debian_speech, "check_contents", lambda *_: None)

    speakers = ["carlo", "msu_nsh", "fillets_cs_v", "fillets_cs_m"]
    corpus = debian_speech.load(speakers=speakers)
    assert corpus.speaker_names == tuple(speakers) and set(corpus.licences) == set(speakers)
    carlo, hello, msu, big, small = sorted(corpus.clips, key=lambda c: speakers.index(c.speaker))
    assert [carlo.name, hello.name] == ["digits/1", "hello"] and carlo.language == "it"
    assert abs(len(carlo.samples) - 8000) <= 2
    np.testing.assert_allclose(np.abs(carlo.waveform).max(), 0.3, atol=0.02)
    assert msu.text == "Что, это?" and msu.phones == ((0.2, "pau"), (0.5, "ay"))
    assert small.text == 'Ticho "prosím"' and small.name == "city/vit-m-klid" and big.text == ""
    # The one at 44.1 kHz, too, has its pitch: 220 periods in a second.
    for voice in (big, small):
        assert len(voice.samples) == 16000
        assert np.argmax(np.abs(np.fft.rfft(voice.waveform))) == 220

    def refuse(*_):
        raise AssertionError("fetched twice")

    monkeypatch.setattr(debian_speech, "fetch_packages", refuse)
    assert len(debian_speech.load(speakers=speakers).clips) == 5
    (voice,) = debian_speech.load(8000, ["fillets_cs_m"]).clips
    assert len(voice.samples) == 8000


def test_arguments_out_of_range():
    with pytest.raises(ValueError, match="`sample_rate` must be"):
        debian_speech.load(0)
    with pytest.raises(ValueError, match="`speakers` must be"):
        debian_speech.load(speakers=["eve"])
    with pytest.raises(ValueError, match="`split` must be"):
        debian_speech.load(split="dev")


def test_packages_that_cannot_be_had(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match="there is no `apt-get`"):
        audio_packages.fetch_packages(["festvox-ru"], tmp_path)
    script = tmp_path / "apt-get"
    script.write_text("#!/bin/sh\necho no such package >&2; exit 1\n")
    script.chmod(0o755)
    (tmp_path / "dpkg-deb").symlink_to(script)
    with pytest.raises(RuntimeError, match="`apt-get download x` failed.*no such package"):
        audio_packages.fetch_packages(["x"], tmp_path)


@pytest.mark.long
def test_the_real_packages(tmp_path, monkeypatch):
    """A small package from Debian, downloaded, verified and decoded."""
    monkeypatch.setenv(cache.ENVIRONMENT_VARIABLE, str(tmp_path))
    try:
        simulated = ["apt-get", "download", "--print-uris", "asterisk-core-sounds-it-g722"]
        subprocess.run(simulated, check=True, capture_output=True)
        corpus = debian_speech.load(speakers=["carlo"])
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"apt is not here or does not know the package: {error}")
    except RuntimeError as error:
        if "unexpected" in str(error) or "are not those" in str(error):
            raise
        pytest.skip(f"no network: {error}")
    assert len(corpus.clips) == 581 and 22 < corpus.seconds() / 60 < 23
    assert all(len(c.samples) > 320 for c in corpus.clips)
