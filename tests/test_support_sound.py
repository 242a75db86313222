"""Scores of sound, the judges' features and the listening page, on sounds made here."""

import sys
import wave
from pathlib import Path

import keras
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

pytestmark = pytest.mark.tensorflow

if keras.backend.backend() != "tensorflow":  # the JAX run deselects this file by the mark
    pytest.skip("the examples' support needs TensorFlow", allow_module_level=True)
pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

from support import conversion, figures, judges, listening, psola, sound_scores  # noqa: E402

from keras_vqvae import spectral  # noqa: E402
from keras_vqvae.data.audio_corpus import Clip  # noqa: E402

RATE = 16000


def vowel(pitch: float, formant: float, seconds: float, rate: int = RATE) -> np.ndarray:
    """Harmonics around a formant, with a slow beat so that no two parts are alike."""
    t = np.arange(int(seconds * rate)) / rate
    harmonics = np.arange(1, int(0.45 * rate / pitch)) * pitch
    weights = np.exp(-0.5 * ((harmonics - formant) / 300) ** 2) + 0.02
    sound = (weights[:, None] * np.sin(2 * np.pi * harmonics[:, None] * t)).sum(0)
    return (0.3 * sound / np.abs(sound).max() * (0.6 + 0.4 * np.sin(7 * t))).astype("float32")


def clip(speaker: str, number: int, rate: int = RATE) -> Clip:
    """Two phones between silences; the speakers differ in pitch."""
    pitch = {"low": 100, "high": 220}[speaker] * (1 + 0.02 * (number % 5))
    parts = [(0.1, "pau"), (0.3, "a"), (0.2 + 0.02 * (number % 4), "i"), (0.1, "pau")]
    formants = {"a": 800, "i": 2200}
    sounds = [
        vowel(pitch, formants[phone], seconds, rate)
        if phone in formants
        else np.zeros(int(seconds * rate), "float32")
        for seconds, phone in parts
    ]
    ends = np.cumsum([seconds for seconds, _ in parts])
    phones = tuple((float(end), phone) for end, (_, phone) in zip(ends, parts, strict=True))
    samples = (32767 * np.concatenate(sounds)).astype("int16")
    return Clip(str(number), speaker, "xx", samples, phones=phones)


def test_distances_of_clips() -> None:
    x = vowel(120, 900, 0.5)
    assert sound_scores.log_mel(x, x, RATE) == 0 == sound_scores.multi_scale(x, x)
    quieter = sound_scores.log_mel(x, x / 2, RATE)
    assert 0.5 < quieter < np.log(2)
    # The longer one is cut.
    longer = np.concatenate([x, np.ones(30, "float32")])
    assert sound_scores.log_mel(x, longer, RATE) == 0


def test_hold() -> None:
    x = np.linspace(-1, 1, 200).astype("float32")
    held = sound_scores.hold(x, 64)
    assert held.shape == x.shape and len(np.unique(held)) == 4
    np.testing.assert_allclose(held[:128:64], x[:128].reshape(2, 64).mean(1), atol=0.02)
    assert (held[64:128] == held[64]).all()


@pytest.mark.parametrize("rate", [8000, 16000])
def test_opus_is_in_time_and_as_small_as_it_says(rate: int) -> None:
    pytest.importorskip("av")
    pytest.importorskip("soxr")
    t = np.arange(2 * rate) / rate
    x = (0.3 * np.sin(2 * np.pi * (200 + 300 * t) * t)).astype("float32")  # no two periods alike
    sound, num_bytes = sound_scores.opus(x, rate)
    assert sound.shape == x.shape and sound.dtype == "float32"
    assert 3000 < 8 * num_bytes / (len(x) / rate) < 8000
    lags = np.arange(-200, 201)
    inner = x[400:-400]
    products = [inner @ sound[400 + lag : len(x) - 400 + lag] for lag in lags]
    assert abs(lags[np.argmax(products)]) <= 3


def test_compare() -> None:
    pytest.importorskip("av")
    pytest.importorskip("soxr")
    originals = [vowel(110, 700, 0.9), vowel(200, 1500, 0.4)]
    figures, sounds = sound_scores.compare(
        originals, {"perfect": originals, "silent": [0 * x for x in originals]}, RATE,
        {"perfect": 256000},
    )  # fmt: skip
    assert list(figures) == list(sounds) == ["perfect", "silent", "8-bit, held for 64", "Opus"]
    distances = ("log_mel below 4 kHz", "multi_scale below 4 kHz")
    assert figures["perfect"] == {**dict.fromkeys(distances, 0), "bits_per_second": 256000}
    assert figures["8-bit, held for 64"]["bits_per_second"] == 2000
    assert "bits_per_second" not in figures["silent"]
    for name in distances:
        assert 0 < figures["Opus"][name] < figures["8-bit, held for 64"][name]
        assert figures["Opus"][name] < figures["silent"][name]


@pytest.mark.programs
def test_phone_judge(tmp_path: Path) -> None:
    train = [clip("low", n) for n in range(20)]
    judge = judges.PhoneJudge.fit(RATE, train, steps=40)
    test = [clip("low", n) for n in (20, 21, 22, 23)]
    found = judge.accuracy(test)
    assert found["frames"] > 0.8 and found["speech"] > 0.8 > found["most_frequent"]
    # Other sound under the same labels: the labels do not give the answer.
    backwards = judge.accuracy(test, [c.waveform[::-1] for c in test])
    assert backwards["speech"] < 0.4
    judge.save(tmp_path / "judge")
    again = judges.PhoneJudge.load(tmp_path / "judge")
    assert again.labels == ("a", "i", "pau") and again.accuracy(test) == found
    # What is heard of a clip depends neither on the others nor on how many they are.
    waveforms = [c.waveform for c in test] + [vowel(100, 800, 5.0)]
    together = judge.predict(waveforms)
    for one, waveform in zip(together, waveforms, strict=True):
        assert len(one) == len(waveform) // 160 + 1
        np.testing.assert_array_equal(one, judge.predict([waveform])[0])


def test_phone_judge_needs_phones() -> None:
    with pytest.raises(ValueError, match="needs clips with phones"):
        judges.PhoneJudge.fit(RATE, [Clip("a", "low", "xx", np.zeros(500, "int16"))])


@pytest.mark.programs
def test_speaker_judge(tmp_path: Path) -> None:
    train = [clip(speaker, n, 8000) for n in range(10) for speaker in ("low", "high")]
    judge = judges.SpeakerJudge.load_or_fit(tmp_path / "judge", 8000, train, steps=40)
    again = judges.SpeakerJudge.load_or_fit(tmp_path / "judge", 8000, [])
    test = [clip(speaker, n, 8000) for n in (11, 12) for speaker in ("low", "high")]
    waveforms, names = [c.waveform for c in test], [c.speaker for c in test]
    assert again.accuracy(waveforms, names) == {"clips": 1, "high": 1, "low": 1}
    # Neither loudness nor pauses nor length change what it hears.
    quiet = [np.concatenate([np.zeros(4000), 0.2 * x, 0.2 * x]) for x in waveforms]
    assert again.predict(quiet) == names
    np.testing.assert_allclose(
        judge.probabilities(waveforms), again.probabilities(waveforms), atol=1e-6
    )


def test_judges_take_the_shortest_clips() -> None:
    for kind in (judges.PhoneJudge, judges.SpeakerJudge):
        judge = kind(RATE, ["a", "pau"])
        assert len(judge.predict([np.full(320, 0.1, "float32"), np.zeros(500, "float32")])) == 2


def test_listening_page(tmp_path: Path) -> None:
    originals = [vowel(110, 700, 0.5), vowel(200, 1500, 0.4)]
    page = listening.write_page(
        tmp_path / "listen",
        RATE,
        {"original": originals, "to <high>": [x / 2 for x in originals]},
        rows=["one", "two"],
        figures={"Distances": {"model": {"log_mel": 0.51, "bits_per_second": 2000}}},
    )
    text = page.read_text()
    for i, original in enumerate(originals):
        names = [f"clip{i}_column{column}" for column in range(2)]
        for name, scale in zip(names, (1, 2), strict=True):
            assert f'src="{name}.wav"' in text and f'src="{name}.png"' in text
            with wave.open(str(page.parent / f"{name}.wav")) as file:
                assert file.getframerate() == RATE
                pcm = np.frombuffer(file.readframes(file.getnframes()), "<i2")
            np.testing.assert_allclose(pcm / 32768, original / scale, atol=1e-4)
    assert "to &lt;high&gt;" in text and "0.51" in text and "2,000" in text
    assert str(tmp_path) not in text


def pulses(pitch: float, formant: float, seconds: float) -> np.ndarray:
    """A damped oscillation each period, as the mouth answers to the throat."""
    sound = np.zeros(int(seconds * RATE))
    t = np.arange(RATE // 20) / RATE
    answer = np.exp(-300 * t) * np.cos(2 * np.pi * formant * t)
    for start in np.arange(0, len(sound) - len(t), RATE / pitch):
        sound[int(start) : int(start) + len(t)] += answer
    return 0.3 * sound


@pytest.mark.parametrize("factor", [0.75, 1.0, 1.8])
def test_psola_changes_the_pitch_and_nothing_else(factor: float) -> None:
    rng = np.random.default_rng(0)
    parts = [np.zeros(1600), pulses(120, 900, 0.5), rng.normal(0, 0.05, 3200)]
    x = np.concatenate([*parts, pulses(120, 2000, 0.5)]).astype("float32")
    y = psola.at_pitch(x, RATE, factor)
    assert y.shape == x.shape and y.dtype == np.float32
    before, after = (
        keras.ops.convert_to_numpy(spectral.pitch(sound[None], RATE, 160))[0] for sound in (x, y)
    )
    both = (before > 0) & (after > 0)
    assert both.sum() > 60
    assert np.median(after[both] / before[both]) == pytest.approx(factor, rel=0.02)
    # Formants: the centre of each vowel's power stays where it is.
    for start in (1600, 12800):
        part = slice(start + 800, start + 5600)
        power = [np.abs(np.fft.rfft(sound[part])) ** 2 for sound in (x, y)]
        hertz = np.fft.rfftfreq(4800, 1 / RATE)
        centres = [(p * hertz).sum() / p.sum() for p in power]
        assert centres[1] == pytest.approx(centres[0], rel=0.1)
    # What is no voice is left as it is.
    noise = slice(9600 + 800, 12800 - 800)
    np.testing.assert_allclose(y[noise], x[noise], atol=2e-3)


def test_judges_divide_by_no_count_of_nothing() -> None:
    judge = judges.PhoneJudge(RATE, ["a", "pau"])
    silent = Clip("a", "low", "xx", np.zeros(1600, "int16"), phones=((0.2, "pau"),))
    told = judge.accuracy([silent])
    assert told["speech"] is None and told["most_frequent"] is None and told["frames"] is not None
    unheard = Clip("a", "low", "xx", np.zeros(1600, "int16"), phones=((0.2, "o"),))
    assert judge.accuracy([unheard])["speech"] == 0  # the judge does not know this phone
    speakers = judges.SpeakerJudge(RATE, ["low"])
    assert speakers.predict([]) == [] and speakers.accuracy([], []) == {"clips": None}
    with pytest.raises(ValueError, match="must hold sound"):
        sound_scores.compare([], {}, RATE)


def test_floors_without_anything_to_compare_are_not_missed() -> None:
    rows = conversion.floors({"a": None, "b": 0.5, "c": 0.1}, {"a": 0.2, "b": 0.2, "c": 0.2})
    assert [row["met"] for row in rows.values()] == [None, True, False]
    said = [conversion.verdict(name, row) for name, row in rows.items()]
    assert [line.partition(":")[0] for line in said] == ["nothing to compare", "reached", "MISSED"]
    assert [figures.short(x) for x in (None, float("nan"), 0.5, 3.0)] == ["–", "–", "0.5", "3"]


def test_compare_leaves_out_what_opus_drops() -> None:
    """Over the whole band a codec of 4 kHz would lose to a worse one of 8 kHz."""
    pytest.importorskip("av")
    pytest.importorskip("soxr")
    x = vowel(110, 700, 0.9)
    hiss = 0.1 * np.sin(2 * np.pi * 6000 * np.arange(len(x)) / RATE).astype("float32")
    figures, _ = sound_scores.compare([x], {"with hiss": [x + hiss]}, RATE)
    whole = sound_scores.log_mel(x, x + hiss, RATE)
    assert figures["with hiss"]["log_mel below 4 kHz"] < 0.2 * whole


def test_buzz() -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 2 * RATE)
    repeated = np.tile(noise[: RATE // 100], 200)  # the same a hundred times a second
    assert abs(sound_scores.buzz(noise, RATE, 100)) < 1.5
    assert sound_scores.buzz(repeated, RATE, 100) > 20
    assert sound_scores.buzz(noise + 0.5 * repeated, RATE, 100) > 5


def test_pitch_error() -> None:
    low, high = vowel(110, 700, 0.5), vowel(110 * 2 ** (3 / 12), 700, 0.5)
    assert sound_scores.pitch_error([low, low], [low, low], RATE) == 0
    assert sound_scores.pitch_error([low], [high], RATE) == pytest.approx(3, abs=0.1)
    assert sound_scores.pitch_error([low], [0 * low], RATE) is None
    assert sound_scores.buzz(0 * low, RATE, 100) is None
