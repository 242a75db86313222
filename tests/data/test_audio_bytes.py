"""Sound files whose headers or decoders err: all is read, or the error names the file."""

import os
import pathlib
import struct
import sys
import warnings

import numpy as np
import pytest
import tensorflow as tf

from keras_vqvae.data import audio

pytestmark = pytest.mark.tensorflow  # pipelines know no backend

soundfile = pytest.importorskip("soundfile", reason="the extra `audio` is not installed")
pytest.importorskip("soxr", reason="the extra `audio` is not installed")
pytest.importorskip("av", reason="the extra `audio` is not installed")

RATE = 16000
SAMPLES = np.round(9000 * np.sin(np.arange(2000) / 6)).astype("<i2")
PCM, WAVEFORM = SAMPLES.tobytes(), SAMPLES.astype("float32") / 32768
ONES = 2**32 - 1


def chunk(name, content, order="<", size=None):
    size = len(content) if size is None else size
    return name + struct.pack(f"{order}I", size) + content + b"\0" * (len(content) % 2)


def form(tag=1, bits=16, channels=1, rate=RATE, order="<", more=b""):
    block = channels * bits // 8
    numbers = (tag, channels, rate, rate * block % 2**32, block, bits)
    return chunk(b"fmt ", struct.pack(f"{order}HHIIHH", *numbers) + more, order)


FORM = form()


def wav(riff=None, data=None, form=FORM, sound=PCM, kind=b"RIFF", order="<", after=b""):
    """A WAV file whose header says the sizes `riff` and `data`; by default the true ones."""
    body = b"WAVE" + form + chunk(b"data", sound, order, data) + after
    return kind + struct.pack(f"{order}I", len(body) if riff is None else riff) + body


def rf64(size, sound=PCM, kind=b"RF64"):
    sizes = chunk(b"ds64", struct.pack("<QQQI", size, size, size, 0))
    return wav(ONES, ONES, sizes + form(), sound, kind)


def written(path, samples=SAMPLES, **options):
    soundfile.write(path, samples, RATE, **options)
    return path.read_bytes()


def patched(content, *places):
    content = bytearray(content)
    for place, value in places:
        content[place : place + len(value)] = value
    return bytes(content)


BIG = SAMPLES.astype(">i2").tobytes()
RIFX = {"form": form(order=">"), "sound": BIG, "kind": b"RIFX", "order": ">"}
LIST = chunk(b"LIST", b"INFOISFT\3\0\0\0abc\0")
TRUE = 36 + len(PCM)
GUID = bytes.fromhex("0100000000001000800000aa00389b71")
THREE_BYTES = b"".join(struct.pack("<i", int(x) << 8)[:3] for x in SAMPLES)
WHOLE = {
    "plain": wav(),
    "ffmpeg": wav(ONES, ONES),
    "ffmpeg with a list": wav(ONES, ONES, form() + LIST),
    "sox": wav(0x7FFFF024, 0x7FFFF000),
    "2 GiB": wav(0x7FFFFFFF, 0x7FFFFFFF - 36),
    "arecord": wav(0x80000024, 0x80000000),
    "never closed": wav(0, 0),
    "no data": wav(TRUE, 0),
    "RIFF counts itself": wav(TRUE + 8, len(PCM)),
    "data counts its header": wav(TRUE, len(PCM) + 8),
    "no RIFF": wav(0, len(PCM)),
    "list after": wav(after=LIST),
    "list behind the RIFF": wav(TRUE, after=LIST),
    "list cut off": wav(TRUE + len(LIST), after=LIST[:-9]),
    "tag": wav(TRUE, after=b"TAG" + b"x" * 125),
    "filled up": wav(TRUE, after=bytes(4096)),
    "24 bits": wav(0, 0, form(bits=24), THREE_BYTES),
    "floats": wav(0, 0, form(3, 32), WAVEFORM.tobytes()),
    "doubles": wav(ONES, ONES, form(3, 64), WAVEFORM.astype("<f8").tobytes()),
    "extensible": wav(0, 0, form(0xFFFE, more=struct.pack("<HHI", 22, 16, 4) + GUID)),
    "RF64": rf64(len(PCM)),
    "RF64 unknown": rf64(2**64 - 1),
    "RF64 empty": rf64(0),
    "BW64": rf64(2**64 - 1, kind=b"BW64"),
    "RIFX": wav(**RIFX),
    "RIFX never closed": wav(0, 0, **RIFX),
}
BROKEN = {  # and what the error says
    "cut": (wav()[:-8], "is cut off"),
    "cut in half": (wav()[: len(PCM) // 2], "is cut off"),
    "cut, RIFF right": (wav(len(PCM) + 36, 2 * len(PCM)), "is cut off"),
    "cut, RIFF 0": (wav(0, 2 * len(PCM)), "is cut off"),
    "24 bits cut": (wav(form=form(bits=24), sound=THREE_BYTES)[:-999], "is cut off"),
    "RF64 cut": (rf64(2 * len(PCM)), "is cut off"),
    "RIFX cut": (wav(**RIFX)[:-999], "is cut off"),
    "joined": (wav() * 3, "behind its sound"),
    "two chunks of data": (wav(after=chunk(b"data", PCM)), "behind its sound"),
    "more than it says": (wav(TRUE - 2000, len(PCM) - 2000), "behind its sound"),
    "empty": (wav(sound=b""), "is empty"),
    "empty with a list": (wav(sound=b"", after=LIST), "is empty"),
    "0 Hz": (wav(form=form(rate=0)), "cannot be read"),
    "1 Hz": (wav(form=form(rate=1)), "sample rate of 1 Hz"),
    "2 GHz": (wav(form=form(rate=2 * 10**9)), "sample rate of 2000000000 Hz"),
    "no channel": (wav(form=form(channels=0)), "cannot be read"),
    "no chunk": (b"RIFF\x04\0\0\0WAVE", "cannot be read"),
    "3 bytes": (b"RIF", "cannot be read"),
}  # fmt: skip


@pytest.mark.parametrize("decoder", ["auto", "soundfile"])
def test_headers_that_do_not_know_the_length(tmp_path, decoder):
    for i, (name, content) in enumerate(WHOLE.items()):
        path = tmp_path / f"{i:02}.wav"
        path.write_bytes(content)
        got = audio.read(path)
        assert len(got) == len(WAVEFORM), name
        np.testing.assert_allclose(got, WAVEFORM, atol=1e-7, err_msg=name)
    assert audio.check_folder(tmp_path)[1] == {}
    for check in (True, False):
        (batch,) = audio.from_folder(tmp_path, RATE, 2000, 99, decoder=decoder, check=check)
        np.testing.assert_allclose(batch, [WAVEFORM] * len(WHOLE), atol=1e-7)


@pytest.mark.parametrize("check", [True, False])
def test_wav_that_is_cut_off_or_holds_more(tmp_path, check):
    (tmp_path / "good").mkdir()
    (tmp_path / "good" / "a.wav").write_bytes(wav())
    for name, (content, message) in BROKEN.items():
        path = tmp_path / f"{name}.wav"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"{name}\.wav.*{message}"):
            audio.read(path)
    assert len(audio.check_folder(tmp_path)[1]) == len(BROKEN)
    with pytest.warns(UserWarning, match=f"{len(BROKEN)} sound files cannot be used"):
        clips = audio.from_folder(tmp_path, RATE, 2000, skip_corrupt=True, check=check)
    assert next(iter(clips)).shape == (1, 2000)


def test_aiff_au_and_others(tmp_path):
    formats = {"aiff": "AIFF", "au": "AU", "caf": "CAF", "w64": "W64"}
    contents = {}
    for suffix, name in formats.items():
        contents[suffix] = written(tmp_path / f"a.{suffix}", format=name, subtype="PCM_16")
        (tmp_path / f"cut.{suffix}").write_bytes(contents[suffix][:-2000])
    au, aiff = contents["au"], contents["aiff"]
    (tmp_path / "unknown.au").write_bytes(patched(au, (8, b"\xff" * 4)))
    # Sizes of FORM, COMM (in samples) and SSND.
    places = 4, aiff.index(b"COMM") + 10, aiff.index(b"SSND") + 4
    for size in (0, 2**31 - 1):
        stale = patched(au, (8, struct.pack(">I", size)))
        (tmp_path / f"unknown {size}.au").write_bytes(stale)
    caf_size = contents["caf"].index(b"data") + 4
    endless = patched(contents["caf"], (caf_size, b"\xff" * 8))
    (tmp_path / "until the end.caf").write_bytes(endless)
    for suffix, content in contents.items():
        (tmp_path / f"joined.{suffix}").write_bytes(content * 2)
        (tmp_path / f"tagged.{suffix}").write_bytes(content + b"TAG" + b"x" * 125)
    (tmp_path / "short.au").write_bytes(au[:9])
    w64 = contents["w64"]
    at = w64.index(b"data") + 16
    (tmp_path / "unknown.w64").write_bytes(patched(w64, (at, bytes(8))))
    (tmp_path / "less.au").write_bytes(patched(au, (8, struct.pack(">I", 100))))
    (tmp_path / "less.aiff").write_bytes(patched(aiff, (places[2], struct.pack(">I", 100))))
    less = patched(contents["caf"], (caf_size, struct.pack(">q", 100)))
    (tmp_path / "less.caf").write_bytes(less)
    for name, size in (("unknown", b"\xff" * 4), ("closed never", bytes(4))):
        stale = patched(aiff, *((place, size) for place in places))
        (tmp_path / f"{name}.aiff").write_bytes(stale)
    good, problems = audio.check_folder(tmp_path)
    bad = {f"{what}.{suffix}" for what in ("cut", "joined") for suffix in formats}
    assert {path.name for path in problems} == bad | {
        "less.au",
        "less.aiff",
        "less.caf",
        "short.au",
    }
    assert len(good) == 15
    for path in good:
        np.testing.assert_array_equal(audio.read(path), WAVEFORM, err_msg=str(path))
    (batch,) = audio.from_folder(tmp_path, RATE, 2000, 99, skip_corrupt=True)
    np.testing.assert_array_equal(batch, [WAVEFORM] * 15)


def joined(folder):
    """Files that are several, or hold more than their header says; whole ones beside them."""
    parts = [0.3 * np.sin(np.arange(8000) * step) for step in (0.1, 0.2)]
    for suffix, options in {
        "mp3": {},
        "ogg": {},
        "opus": {"format": "OGG", "subtype": "OPUS"},
    }.items():
        contents = [written(folder / f"a.{suffix}", part, **options) for part in parts]
        (folder / f"joined.{suffix}").write_bytes(b"".join(contents))
        (folder / f"twice.{suffix}").write_bytes(contents[0] * 2)
        (folder / f"tagged.{suffix}").write_bytes(contents[0] + b"TAG" + b"x" * 125)
    flac = [written(folder / "a.flac", part) for part in parts]
    (folder / "joined.flac").write_bytes(b"".join(flac))
    (folder / "fewer.flac").write_bytes(patched(flac[0], (22, struct.pack(">I", 4000))))
    (folder / "tagged.flac").write_bytes(flac[0] + b"TAG" + b"x" * 125)
    mp3 = (folder / "a.mp3").read_bytes()
    (folder / "tags.mp3").write_bytes(
        (b"ID3\4\0\0\0\0\1\2" + bytes(130) + mp3 + b"TAG" + b"x" * 125) * 2
    )
    frame = mp3[mp3.index(mp3[:2], 2) :]  # without the header of all
    (folder / "frames.mp3").write_bytes(frame * 2)
    return {path.name for path in folder.iterdir() if path.stem not in ("a", "tagged")}


def test_joined_files_are_named(tmp_path):
    bad = joined(tmp_path)
    good, problems = audio.check_folder(tmp_path)
    assert {path.name for path in problems} == bad and len(bad) == 10
    for path in good:
        assert abs(len(audio.read(path)) - 8000) < 4 * 576
    with pytest.raises(ValueError, match=r"joined\.mp3.*files were joined.*ffmpeg"):
        audio.read(tmp_path / "joined.mp3")


@pytest.mark.parametrize("name", ["joined.mp3", "joined.ogg", "fewer.flac"])
def test_joined_files_are_named_when_they_come(tmp_path, name):
    joined(tmp_path)
    (tmp_path / "one").mkdir()
    (tmp_path / name).rename(tmp_path / "one" / name)
    clips = audio.from_folder(tmp_path / "one", RATE, check=False)
    with pytest.raises(tf.errors.InvalidArgumentError, match=name):
        list(clips)


@pytest.mark.parametrize(
    "error",
    [KeyError("x"), ZeroDivisionError(), MemoryError("4 TiB"), StopIteration(), AssertionError()],
)
def test_errors_of_any_class_name_the_file(tmp_path, monkeypatch, error):
    for name in ("a.wav", "b.wav"):
        (tmp_path / name).write_bytes(wav())
    read = soundfile.SoundFile.read

    def fails(stream, *arguments, **options):
        if b"b.wav" in os.fsencode(stream.name):
            raise error
        return read(stream, *arguments, **options)

    monkeypatch.setattr(soundfile.SoundFile, "read", fails)
    with pytest.raises(ValueError, match=r"b\.wav cannot be read"):
        audio.read(tmp_path / "b.wav")
    assert [path.name for path in audio.check_folder(tmp_path)[1]] == ["b.wav"]
    with pytest.warns(UserWarning, match=r"1 sound files cannot be used: .*b\.wav"):
        clips = audio.from_folder(tmp_path, RATE, 100, skip_corrupt=True, decoder="soundfile")
    assert next(iter(clips)).shape == (1, 100)


def test_what_is_not_installed_is_no_damaged_file(tmp_path, monkeypatch):
    written(tmp_path / "a.mp3")
    monkeypatch.setitem(sys.modules, "av", None)
    for call in (audio.read, lambda path: audio.check_folder(path.parent)):
        with pytest.raises(ImportError, match=r'Sound files need av: pip install "\.\[audio\]"'):
            call(tmp_path / "a.mp3")
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(ImportError, match=r'need soundfile: pip install "\.\[audio\]"'):
        audio.read(tmp_path / "a.mp3")


def test_gsm_can_be_read_and_its_crops(tmp_path):
    """It cannot be sought in, which had ended the whole folder."""
    written(tmp_path / "a.wav", format="WAV", subtype="GSM610")
    whole = audio.read(tmp_path / "a.wav")
    assert np.corrcoef(whole[: len(WAVEFORM)], WAVEFORM)[0, 1] > 0.9
    (crop,) = audio.from_folder(tmp_path, RATE, 1000)
    start = (len(whole) - 1000) // 2
    np.testing.assert_array_equal(crop[0], whole[start : start + 1000])


@pytest.mark.parametrize("decoder", ["auto", "soundfile"])
def test_names_that_are_not_utf8(tmp_path, decoder):
    folder = os.path.join(os.fsencode(tmp_path), b"Jos\xe9")
    os.mkdir(folder)
    for name, content in {b"\xe9.wav": wav(), b"\xe9.mp3": written(tmp_path / "x.mp3")}.items():
        pathlib.Path(os.fsdecode(os.path.join(folder, name))).write_bytes(content)
    (tmp_path / "x.mp3").unlink()
    dataset = audio.from_folder(tmp_path, RATE, 1000, speakers=True, decoder=decoder)
    assert next(iter(dataset))["waveform"].shape == (2, 1000)
    assert dataset.speaker_names == [r"Jos\xe9"]
    with open(os.path.join(folder, b"\xe9.wav"), "wb") as file:
        file.write(wav(form=form(3, 32), sound=np.full(2000, np.nan, "<f4").tobytes()))
    late = audio.from_folder(tmp_path, RATE, 1000, decoder=decoder, check=False)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"xe9.wav holds NaN"):
        list(late)
    with open(os.path.join(folder, b"bad\xe9.wav"), "wb") as file:
        file.write(b"no sound")
    with pytest.raises(ValueError) as raised:
        audio.from_folder(tmp_path, RATE, 1000)
    assert r"bad\xe9.wav cannot be read" in str(raised.value).encode().decode()


def test_manifests_with_names_that_no_file_can_have(tmp_path):
    (tmp_path / "a.wav").write_bytes(wav())
    lines = [
        '{"path": "a.wav"}',
        r'{"path": "\ud800.wav"}',
        r'{"path": "a\u0000.wav"}',
        '{"path": "."}',
    ]
    (tmp_path / "list.jsonl").write_text("\n".join(lines))
    with pytest.warns(UserWarning, match="3 rows of .* point to no file: line 2"):
        clips = audio.from_manifest(tmp_path / "list.jsonl", RATE, 100, skip_corrupt=True)
    assert next(iter(clips)).shape == (1, 100)


def test_hidden_folders_and_other_kinds_of_files(tmp_path):
    for name in (
        "ann/p225_1.wav",
        ".ipynb_checkpoints/p225_2.wav",
        "ann/.git/p225_3.wav",
        "ann/._x.wav",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(wav())
    (tmp_path / "ann" / "p225_1.txt").write_text("what is said")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # texts belong to the files
        dataset = audio.from_folder(tmp_path, RATE, 100, speakers=True)
        assert dataset.speaker_names == ["ann"] and len(audio.check_folder(tmp_path)[0]) == 1
        assert next(iter(audio.from_vctk(tmp_path, RATE, 100))).shape == (1, 100)
    for name in ("b.m4a", "c.M4A", "d.wma"):
        (tmp_path / name).touch()
    with pytest.warns(UserWarning, match=r"left out: 2 \.m4a, 1 \.wma"):
        audio.from_folder(tmp_path, RATE, 100)


def test_paths(tmp_path, monkeypatch):
    (tmp_path / "a.wav").write_bytes(wav())
    (tmp_path / "list.csv").write_text("path\na.wav\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    calls = {
        "read": audio.read,
        "check_folder": audio.check_folder,
        "read_manifest": audio.read_manifest,
        "from_folder": lambda path: audio.from_folder(path, RATE, 100),
        "from_manifest": lambda path: audio.from_manifest(path, RATE, 100),
        "from_vctk": audio.from_vctk,
        "from_librispeech": audio.from_librispeech,
    }
    for call in calls.values():
        with pytest.raises(ValueError, match="must be a local path, got 'gs:"):
            call("gs://bucket/a")
    assert len(audio.read("~/a.wav")) == len(audio.read(b"~/a.wav")) == 2000
    assert len(audio.check_folder("~")[0]) == len(audio.read_manifest("~/list.csv")) == 1
    assert next(iter(calls["from_folder"](pathlib.Path("~")))).shape == (1, 100)
    assert next(iter(calls["from_manifest"]("~/list.csv"))).shape == (1, 100)


def test_mixing_that_loses_the_sound_is_counted(tmp_path):
    silence, other = np.zeros_like(WAVEFORM), np.roll(WAVEFORM, 9)
    for name, right in {
        "opposite": -WAVEFORM,
        "empty": silence,
        "same": WAVEFORM,
        "wide": other,
    }.items():
        stereo = np.stack([WAVEFORM, right], axis=1)
        soundfile.write(tmp_path / f"{name}.wav", stereo, RATE, subtype="FLOAT")
    with pytest.warns(UserWarning, match=r"half of the level .* 2 of 4 sound files, .*empty\.wav"):
        audio.from_folder(tmp_path, RATE, 100, channels="mix")
    with pytest.warns(UserWarning, match=r"1 of 1 sound files, .*opposite\.wav"):
        audio.read(tmp_path / "opposite.wav", channels="mix")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        audio.read(tmp_path / "same.wav", channels="mix")


@pytest.mark.parametrize("dtype", [">f4", ">i2"])
def test_big_endian_arrays(dtype):
    waveform = WAVEFORM.astype(dtype) if dtype == ">f4" else SAMPLES.astype(dtype)
    (batch,) = audio.from_arrays([waveform, waveform], 2000, speakers=np.array([1, 0], ">i4"))
    np.testing.assert_array_equal(batch["waveform"], [WAVEFORM, WAVEFORM])
    assert batch["speaker"].numpy().tolist() == [1, 0]
    (batch,) = audio.from_arrays([waveform, WAVEFORM if dtype == ">f4" else SAMPLES], 2000)
    np.testing.assert_array_equal(batch, [WAVEFORM, WAVEFORM])


def test_a_file_that_changes_before_it_is_read_is_named(tmp_path):
    for decoder in ("auto", "soundfile"):
        (tmp_path / "a.wav").write_bytes(wav())
        clips = audio.from_folder(tmp_path, RATE, decoder=decoder)
        (tmp_path / "a.wav").write_bytes(b"something else")
        with pytest.raises(tf.errors.OpError, match=r"a\.wav"):
            list(clips)
