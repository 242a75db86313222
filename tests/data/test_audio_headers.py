"""WAV files whose chunks are laid out in every way, MP3 files that do not say how long they are."""

import struct

import numpy as np
import pytest

from keras_vqvae.data import audio, audio_files, audio_headers
from tests.inside import inside

pytestmark = pytest.mark.tensorflow  # pipelines know no backend

soundfile = pytest.importorskip("soundfile", reason="the extra `audio` is not installed")
pytest.importorskip("soxr", reason="the extra `audio` is not installed")

RATE = 16000
SAMPLES = np.random.default_rng(0).integers(-9000, 9000, 3001).astype("<i2")
EXPECTED = SAMPLES.astype("float32") / 32768
FORMAT = (b"fmt ", struct.pack("<HHIIHH", 1, 1, RATE, 2 * RATE, 2, 16))
DATA = (b"data", SAMPLES.tobytes())
UNKNOWN = b"\xff" * 4  # the size in a stream whose length was not known

needs_native = pytest.mark.skipif(
    bool(audio_files.native_problem()), reason=f"tensorflow-io: {audio_files.native_problem()}"
)
DECODERS = ["auto", pytest.param("tensorflow-io", marks=needs_native), "soundfile"]


def riff(*chunks):
    """A WAV file; chunks of odd length are followed by a byte that counts for nothing."""
    body = b"WAVE"
    for name, content in chunks:
        body += name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def streamed(size):
    content = bytearray(riff(FORMAT, DATA))
    content[4:8] = content[40:44] = size
    return bytes(content)


LAYOUTS = {  # and whether tensorflow-io reads them right
    "plain": (riff(FORMAT, DATA), True),
    "list before": (riff(FORMAT, (b"LIST", b"INFOISFT\2\0\0\0ab"), DATA), True),
    "list after": (riff(FORMAT, DATA, (b"LIST", b"INFO" + b"x" * 40)), True),
    "odd last": (riff(FORMAT, DATA, (b"junk", b"abc")), False),
    "bytes after": (riff(FORMAT, DATA) + b"abcde", False),
    "longer format": (riff((b"fmt ", FORMAT[1] + b"\0\0"), DATA), True),
    "odd before": (riff(FORMAT, (b"junk", b"abc"), DATA), False),
    "odd first": (riff((b"junk", b"abc"), FORMAT, DATA), False),
    "odd after": (riff(FORMAT, DATA, (b"junk", b"abc"), (b"LIST", b"INFO")), False),
    "streamed": (streamed(UNKNOWN), False),
}


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_of_chunks_gives_the_same_samples(tmp_path, name, decoder):
    content, is_plain = LAYOUTS[name]
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    assert audio_headers.is_plain(path, len(SAMPLES)) == is_plain
    np.testing.assert_array_equal(audio.read(path), EXPECTED)
    for check in (True, False):
        (batch,) = audio.from_folder(tmp_path, RATE, decoder=decoder, check=check)
        np.testing.assert_array_equal(batch["waveform"][0], EXPECTED)


def test_plain_is_what_libsndfile_finds_too(tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(riff(FORMAT, DATA))
    assert not audio_headers.is_plain(path, len(SAMPLES) - 1)
    for twice in ((FORMAT, FORMAT, DATA), (FORMAT, DATA, DATA), (DATA,), (FORMAT,)):
        path.write_bytes(riff(*twice))
        assert not audio_headers.is_plain(path, len(SAMPLES))
    path.write_bytes(b"RIFX" + riff(FORMAT, DATA)[4:])
    assert not audio_headers.is_plain(path, len(SAMPLES))


@needs_native
def test_what_tensorflow_io_does_not_understand_is_no_silence(tmp_path, monkeypatch):
    (tmp_path / "odd.wav").write_bytes(LAYOUTS["odd before"][0])
    monkeypatch.setattr(audio_headers, "is_plain", lambda *_: True)
    dataset = audio.from_folder(tmp_path, RATE, 1000, decoder="tensorflow-io")
    with pytest.raises(Exception, match=r"odd\.wav: tensorflow-io decodes 0 of 3001 samples"):
        list(dataset)


@pytest.mark.parametrize("check", [True, False])
def test_a_wav_file_that_is_cut_off_is_found_by_its_header(tmp_path, check):
    content = riff(FORMAT, DATA)
    (tmp_path / "cut.wav").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"cut\.wav cannot be read \(is cut off: its header says"):
        audio.from_folder(tmp_path, RATE, check=check)


def mp3_without_a_header(path, waveform):
    """An MP3 file without its first frame, which says how many samples there are."""
    soundfile.write(path, waveform, RATE)
    content = path.read_bytes()
    size = content.index(content[:2], 2)  # where the next frame begins
    assert b"Xing" in content[:size] or b"Info" in content[:size]
    path.write_bytes(content[size:])
    return path


def tone(samples):
    return (0.4 * np.sin(np.arange(samples) * 0.3)).astype("float32")


def test_samples_of_mp3_frames(tmp_path):
    soundfile.write(tmp_path / "a.mp3", tone(50000), RATE)
    samples, frame, is_told = inside(audio_headers).packets(tmp_path / "a.mp3")
    assert is_told and 0 <= samples - 50000 < 4 * frame == 4 * 576  # with the encoder's delay
    path = mp3_without_a_header(tmp_path / "b.mp3", tone(50000))
    assert inside(audio_headers).packets(path) == (samples, 576, False)
    tagged = b"ID3\4\0\0\0\0\1\2" + b"\xff" * 130 + path.read_bytes() + b"TAG" + b"x" * 125
    path.write_bytes(tagged)
    assert inside(audio_headers).packets(path) == (samples, 576, False)


@pytest.mark.parametrize("decoder", DECODERS)
def test_an_mp3_file_of_which_too_much_is_guessed_is_as_long_as_what_is_decoded(tmp_path, decoder):
    # Of silence the first frames are small: by them the file would be twice as long.
    waveform = np.concatenate([np.zeros(32000, "float32"), tone(32000)])
    path = mp3_without_a_header(tmp_path / "a.mp3", waveform)
    assert soundfile.info(path).frames > 80000
    assert 0 <= len(audio.read(path)) - 64000 < 3 * 1152
    assert audio.check_folder(tmp_path)[1] == {}
    (batch,) = audio.from_folder(tmp_path, RATE, decoder=decoder)
    assert 0 <= int(batch["length"][0]) - 64000 < 3 * 1152
    with pytest.raises(ValueError, match="shorter than `min_samples`"):
        audio.from_folder(tmp_path, RATE, min_samples=70000, decoder=decoder)


def test_an_mp3_file_of_which_libsndfile_would_leave_out_the_rest_is_refused(tmp_path):
    waveform = np.concatenate([tone(32000), np.zeros(32000, "float32")])
    path = mp3_without_a_header(tmp_path / "a.mp3", waveform)
    assert soundfile.info(path).frames < 32000
    with pytest.raises(ValueError, match=r"a\.mp3 .*samples: .* an MP3 file of variable bit rate"):
        audio.read(path)


@pytest.mark.parametrize("decoder", DECODERS)
def test_three_bytes_a_sample_and_an_odd_number_of_samples(tmp_path, decoder):
    soundfile.write(tmp_path / "a.wav", EXPECTED, RATE, subtype="PCM_24")
    (batch,) = audio.from_folder(tmp_path, RATE, decoder=decoder)
    np.testing.assert_array_equal(batch["waveform"][0], EXPECTED)
