"""The speaker-conversion example at minute size, on voices made here."""

import json
import shutil
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

pytestmark = [pytest.mark.programs, pytest.mark.tensorflow]

if keras.backend.backend() != "tensorflow":  # the JAX run deselects this file by the mark
    pytest.skip("the example needs TensorFlow", allow_module_level=True)
pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")
pytest.importorskip("av")

import speaker_conversion  # noqa: E402
from support import checks, conversion, judges, listening  # noqa: E402
from support.speech_networks import PRESETS, Preset, Recipe  # noqa: E402

from keras_vqvae import AudioVQVAE, ParallelDecoder, WaveNet, WaveNetDecoder  # noqa: E402
from keras_vqvae.data import debian_speech  # noqa: E402
from keras_vqvae.data.audio_corpus import Clip, Corpus  # noqa: E402

RATE = 8000
VOICES = {"low": 100, "middle": 150, "high": 230}  # pitch in Hz


def clip(speaker: str, number: int) -> Clip:
    """A buzz that is louder in its second half, as two phones."""
    samples = RATE + 37 * number
    t = np.arange(samples) / RATE
    pitch = VOICES[speaker] * (1 + 0.01 * (number % 7))
    sound = sum(np.sin(2 * np.pi * k * pitch * t) / k for k in range(1, 9))
    sound = 0.2 * sound * np.where(t < t[-1] / 2, 0.4, 1.0) * np.sin(np.pi * t / t[-1])
    phones = ((0.5 * samples / RATE, "a"), (samples / RATE, "i")) if speaker == "low" else ()
    samples16 = (32767 * sound).astype("int16")
    return Clip(f"buzz/{number}", speaker, "xx", samples16, phones=phones)


def voices(sample_rate: int, speakers: list | None = None, split: str | None = None) -> Corpus:
    assert sample_rate == RATE
    clips = [
        clip(speaker, i)
        for speaker, count in zip(VOICES, (30, 30, 60), strict=True)
        for i in range(count)
    ]
    licences = dict.fromkeys(VOICES, "made here")
    return Corpus(clips, sample_rate, tuple(VOICES), licences).part(split, speakers)


def wavenet(speakers: list[str], downsampling: int) -> AudioVQVAE:
    decoder = WaveNetDecoder(downsampling, channels=4, skip_channels=4, dilations=(1, 2, 4))
    options = {"hidden": 8, "finest_hidden": 4, "code_dim": 4, "downsampling": downsampling}
    return AudioVQVAE(RATE, 16, speaker_names=speakers, decoder=decoder, **options)


def parallel(speakers: list[str], downsampling: int) -> AudioVQVAE:
    decoder = ParallelDecoder((8, 8), 8, finest_hidden=4, dilations=(1,))
    options = {"hidden": 8, "finest_hidden": 4, "code_dim": 4, "downsampling": downsampling}
    return AudioVQVAE(RATE, 16, speaker_names=speakers, decoder=decoder, **options)


def unconditional(speakers: list[str], _: int) -> WaveNet:
    return WaveNet(256, len(speakers), channels=4, skip_channels=4, dilations=(1, 2, 4))


def prior(speakers: list[str], _: int) -> WaveNet:
    return WaveNet(16, len(speakers), channels=4, skip_channels=4, dilations=(1, 2), burn_in=0)


MINUTE = Preset(
    RATE,
    64,
    {
        "wavenet": Recipe(wavenet, 1024, 2, 3, 1e-3),
        "parallel": Recipe(parallel, 1024, 2, 3, 1e-3),
        "unconditional": Recipe(unconditional, 1024, 2, 3, 1e-3),
        "prior": Recipe(prior, 1024, 2, 3, 1e-3),
    },
    shown_seconds=0.3,
)


@pytest.mark.long
def test_all_results_and_resuming(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(debian_speech, "load", voices)
    monkeypatch.setitem(speaker_conversion.PRESETS, "tiny", MINUTE)
    out = tmp_path / "run"
    # So little training reaches nothing, and the exit status says so.
    assert speaker_conversion.main(["--out", str(out)]) == 1
    assert "MISSED: bits a sample lost by shuffling codes" in capsys.readouterr().out

    written = (out / "metrics.json").read_text()
    figures = json.loads(written)
    assert set(figures["floors"]) == {
        "bits a sample that codes save",
        "bits a sample lost by shuffling codes",
        "spectral loss, codes shuffled / in order",
    }
    bits = figures["bits a sample"]
    assert len(bits) == 3 and all(5 < value < 9 for value in bits.values())
    saved = bits["a WaveNet without codes"] - bits["wavenet decoder"]
    floor = figures["floors"]["bits a sample that codes save"]
    assert floor["reached"] == saved and floor["met"] == (saved >= floor["floor"])
    assert figures["prior, bits a code"]["uniform"] == 4
    assert {"wavenet", "parallel", "Opus"} < set(figures["reconstruction"])
    for streamed in figures["streaming"].values():
        assert streamed["codes that differ"] == streamed["of which near-ties"] <= 1
        assert streamed["largest difference of a sample"] < 1e-5
        assert streamed["latency in samples"] > 0

    # Every voice in every voice, and from the first model new sound too.
    for name, columns in (("wavenet", 5), ("parallel", 4)):
        assert len(list((out / name).glob("*.wav"))) == 3 * columns
        page = (out / name / "listening.html").read_text()
        assert "as middle" in page and "made here" in page
        assert (out / "savedmodel" / name / "1" / "saved_model.pb").exists()

    # Nothing is done again but what was lost, and that comes out the same.
    kept = {path: path.stat().st_mtime_ns for path in [*out.glob("*.keras"), out / "metrics.json"]}
    assert {path.stem for path in kept} == {*MINUTE.recipes, "metrics"}
    clips = {path.name: path.read_bytes() for path in (out / "wavenet").glob("*.wav")}
    shutil.rmtree(out / "wavenet")
    monkeypatch.setattr(checks, "check_sound_without_package", lambda *_: None)  # done before
    monkeypatch.setattr(listening, "write_picture", lambda *_: None)  # slow
    assert speaker_conversion.main(["--out", str(out)]) == 1
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert {path.name: path.read_bytes() for path in (out / "wavenet").glob("*.wav")} == clips

    with pytest.raises(ValueError, match="other arguments"):
        speaker_conversion.main(["--out", str(out), "--steps", "5"])


def test_crops_are_balanced_by_the_root_and_come_in_one_order() -> None:
    train = voices(RATE)
    batches = [
        list(conversion.balanced(train, 1000, 8).take(60).as_numpy_iterator()) for _ in range(2)
    ]
    for one, other in zip(*batches, strict=True):
        np.testing.assert_array_equal(one["waveform"], other["waveform"])
        assert one["waveform"].shape == (8, 1000) and np.abs(one["waveform"]).max() > 0.01
    counts = np.bincount(np.concatenate([batch["speaker"] for batch in batches[0]]))
    seconds = np.array([train.seconds(name) for name in VOICES])
    wanted = np.sqrt(seconds / seconds.sum())
    np.testing.assert_allclose(counts / counts.sum(), wanted / wanted.sum(), atol=0.06)


@pytest.mark.long
def test_judges_hear_what_is_converted(tmp_path: Path, monkeypatch) -> None:
    for judge in (judges.PhoneJudge, judges.SpeakerJudge):
        fit = judge.fit
        monkeypatch.setattr(judge, "fit", lambda rate, clips, fit=fit: fit(rate, clips, steps=2))
    train = Corpus([clip(name, i) for name in VOICES for i in range(2)], RATE, tuple(VOICES), {})
    given: list = []

    def converted(vqvae, waveforms, speakers):
        """Tells the sounds apart by their targets."""
        given.extend(speakers)
        return [clip(list(VOICES)[speaker], 0).waveform[: len(x)]
                for x, speaker in zip(waveforms, speakers, strict=True)]  # fmt: skip

    monkeypatch.setattr(conversion, "spoken", converted)
    # A judge that knows the voices by heart.
    monkeypatch.setattr(
        judges.SpeakerJudge,
        "predict",
        lambda self, sounds: [self.labels[int(np.argmin([
            np.abs(clip(name, 0).waveform[: len(x)] - x[: len(clip(name, 0).waveform)]).sum()
            for name in self.labels]))] for x in sounds],
    )  # fmt: skip
    held_out = Corpus([clip(name, 0) for name in VOICES], RATE, tuple(VOICES), {})
    speakers, phones = conversion.judged(None, train, held_out, tmp_path, each=2)
    assert speakers["originals"] == speakers["conversions"] == speakers["reconstructions"] == 1
    assert speakers["conversions heard as the source"] == 0
    assert speakers["number of conversions"] == 6 and given[:6] == [0, 0, 1, 1, 2, 2]
    assert phones["reconstructions / originals"] == 1
    assert phones["conversions"] == pytest.approx(
        (phones["conversions to middle"] + phones["conversions to high"]) / 2
    )
    assert {path.name for path in tmp_path.iterdir()} == {"speaker8000", "phone8000"}


def test_the_loss_is_what_training_logs_and_shuffled_codes_change_it() -> None:
    keras.utils.set_random_seed(0)
    sound = conversion.evenly(voices(RATE), 1024, 2)
    assert sound["waveform"].shape == (6, 1024)
    assert sound["speaker"].tolist() == [0, 0, 1, 1, 2, 2]
    names = list(VOICES)
    for vqvae, unit in ((parallel(names, 64), 1.0), (wavenet(names, 64), np.log(2))):
        vqvae(sound, training=True)  # the codebook becomes rows of the batch
        vqvae.compile(jit_compile=False)
        logged = vqvae.evaluate(sound, batch_size=6, verbose=0, return_dict=True)
        found = conversion.loss(vqvae, sound)
        assert found == pytest.approx(logged["reconstruction_loss"] / unit, rel=1e-4)
        assert conversion.loss(vqvae, sound, shuffled=True) != found
        # With one code for all there is nothing to shuffle.
        for weight in vqvae.quantizer.weights:
            if weight.shape == (16, 4):
                weight.assign(np.ones((16, 4)))
        same = conversion.loss(vqvae, sound)
        assert conversion.loss(vqvae, sound, shuffled=True) == pytest.approx(same, rel=1e-6)


def test_a_folder_of_speakers(tmp_path: Path) -> None:
    pytest.importorskip("soundfile")
    for speaker in ("high", "low"):
        (tmp_path / speaker).mkdir()
        for i in range(11):
            listening.write_wav(tmp_path / speaker / f"{i:02}.wav", clip(speaker, i).waveform, RATE)
    long = np.tile(clip("low", 0).waveform, 25)
    listening.write_wav(tmp_path / "low" / "long.wav", long, RATE)
    train, held_out = conversion.read_folder(tmp_path, RATE, skip_corrupt=False)
    assert train.speaker_names == ("high", "low")
    counts = [[sum(c.speaker == n for c in part.clips) for n in ("high", "low")]
              for part in (train, held_out)]  # fmt: skip
    assert counts == [[10, 13], [1, 1]]  # the long one is three
    assert max(len(c.samples) for c in train.clips) <= 10 * RATE
    (tmp_path / "third").mkdir()
    listening.write_wav(tmp_path / "third" / "a.wav", clip("low", 0).waveform, RATE)
    with pytest.raises(ValueError, match="too short: third"):
        conversion.read_folder(tmp_path, RATE, skip_corrupt=False)


def test_bad_arguments_are_refused(tmp_path: Path, capsys) -> None:
    for arguments, message in (
        (["--minutes", "5"], "--minutes is for the preset small"),
        (["--steps", "0"], "--steps: must be an integer of at least 1"),
        (["--data", str(tmp_path), "--speakers", "june"], "without --data"),
    ):
        with pytest.raises(SystemExit) as refused:
            speaker_conversion.main([*arguments, "--out", str(tmp_path / "run")])
        assert refused.value.code == 2
        assert message in capsys.readouterr().err
    # The first does not stand in the way of the second.
    for names, message in (
        ("nobody,june", "nobody"),
        ("noone,june", "noone"),
        ("june", "must name at least two, got june"),
    ):
        with pytest.raises(ValueError, match=message):
            speaker_conversion.main(["--speakers", names, "--out", str(tmp_path / "run")])


def test_the_paper_says_its_cost_first(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(debian_speech, "load", voices)
    recipes = {"wavenet": Recipe(wavenet, 1024, 2, 1000, 1e-3)}
    paper = Preset(RATE, 64, recipes, shown_seconds=0.3)
    monkeypatch.setitem(speaker_conversion.PRESETS, "paper", paper)
    assert speaker_conversion.main(["--preset", "paper", "--out", str(tmp_path)]) == 1
    said = capsys.readouterr().out
    assert "not yet run" in said and "days" in said and "--yes" in said
    assert not list(tmp_path.glob("*.keras"))


def test_a_model_of_other_speakers_is_refused(tmp_path: Path, monkeypatch) -> None:
    """One that was trained elsewhere, by train_on_jax.py."""
    monkeypatch.setattr(debian_speech, "load", voices)
    recipes = {"parallel": Recipe(parallel, 1024, 2, 3, 1e-3)}
    monkeypatch.setitem(PRESETS, "small", Preset(RATE, 64, recipes, shown_seconds=0.3))
    vqvae = parallel(list(VOICES)[::-1], 64)
    vqvae(conversion.evenly(voices(RATE), 1024, 2))
    vqvae.save(tmp_path / "parallel.keras")
    with pytest.raises(ValueError, match=r"parallel.keras has the speakers .*'high', 'middle'"):
        speaker_conversion.main(["--preset", "small", "--out", str(tmp_path)])
