"""SavedModels that take and give pictures and sound as files: the same as of arrays."""

import io
import json
import struct
import wave
import zlib
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

pytestmark = [pytest.mark.programs, pytest.mark.tensorflow]

if keras.backend.backend() != "tensorflow":  # the JAX run deselects this file by the mark
    pytest.skip("SavedModels are TensorFlow's", allow_module_level=True)

import tensorflow as tf  # noqa: E402

from keras_vqvae import ImageVQVAE, export_savedmodel  # noqa: E402
from tests.checks import images  # noqa: E402
from tests.models import test_audio, test_video  # noqa: E402
from tests.serving.models import image, sound  # noqa: E402
from tests.test_export_video import HOW  # noqa: E402

SHAPE = (8, 12, 3)


def png(pictures: np.ndarray) -> np.ndarray:
    return tf.io.encode_png(pictures).numpy()


def wav(clip: np.ndarray, rate: int = 8000, channels: int = 1, width: int = 2) -> bytes:
    """By Python's own writer: TensorFlow's reader is told by another."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(channels)
        out.setsampwidth(width)
        out.setframerate(rate)
        out.writeframes(np.round(np.repeat(clip, channels) * 32767).astype("<i2").tobytes())
    return file.getvalue()


def pcm(encoded: bytes) -> np.ndarray:
    with wave.open(io.BytesIO(encoded)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 8000)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32768


# The header of a PNG of 50,000 × 40,000 pixels, of which nothing follows: it need not be read.
HUGE = png(images(1, SHAPE))[0][:16] + (50000).to_bytes(4, "big") + (40000).to_bytes(4, "big")


def served(model: Any, folder: Path) -> tuple:
    """The signatures with bytes and those without; and what keeps them alive."""
    export_savedmodel(model, folder / "bytes" / "1", encoded=True)
    export_savedmodel(model, folder / "numbers" / "1")
    loaded = [tf.saved_model.load(str(folder / x / "1")) for x in ("bytes", "numbers")]
    return (*(x.signatures for x in loaded), loaded)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: Any) -> tuple:
    return served(image(), tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def clips(tmp_path_factory: Any) -> tuple:
    return served(sound("parallel"), tmp_path_factory.mktemp("served"))


@pytest.mark.parametrize("batch", [0, 1, 3])
def test_pictures(pictures: tuple, batch: int) -> None:
    of_bytes, of_numbers, _ = pictures
    x = images(batch, SHAPE)
    both = of_bytes["reconstruct"](images_bytes=tf.constant(png(x), tf.string))
    want = of_numbers["reconstruct"](images=tf.constant(x))
    np.testing.assert_array_equal(both["codes"], want["codes"])
    assert both["images_bytes"].shape == (batch,)
    for encoded, picture in zip(both["images_bytes"].numpy(), want["images"], strict=True):
        assert encoded.startswith(b"\x89PNG")
        np.testing.assert_array_equal(tf.io.decode_png(encoded), picture)


def test_other_pictures_that_will_do(pictures: tuple) -> None:
    of_bytes, of_numbers, _ = pictures
    smooth = np.broadcast_to(np.linspace(50, 200, 12)[:, None], SHAPE).astype("uint8")
    jpeg = tf.io.encode_jpeg(smooth, quality=100)
    grey = tf.io.encode_png(smooth[..., :1])
    see_through = tf.io.encode_png(np.concatenate([smooth, smooth[..., :1]], -1))
    got = of_bytes["encode"](images_bytes=tf.stack([jpeg, grey, see_through]))["codes"]
    seen = tf.stack([tf.io.decode_jpeg(jpeg), smooth, smooth])
    np.testing.assert_array_equal(got, of_numbers["encode"](images=seen)["codes"])


@pytest.mark.parametrize("channels", [1, 4])
def test_pictures_of_other_channels(tmp_path: Path, channels: int) -> None:
    """Grey and see-through models take all that a model of colours takes."""
    vqvae = ImageVQVAE((8, 12, channels), 7, 4, hidden=8, residual_hidden=4)
    vqvae(images(1, (8, 12, channels)))
    of_bytes, of_numbers, _ = served(vqvae, tmp_path)
    smooth = np.broadcast_to(np.linspace(50, 200, 12)[:, None], SHAPE).astype("uint8")
    own = images(1, (8, 12, channels))
    jpeg = tf.io.encode_jpeg(smooth, quality=100)
    grey = tf.io.encode_jpeg(smooth[..., :1], quality=100)
    files = [png(own)[0], png(smooth[None])[0], jpeg, grey]
    got = of_bytes["reconstruct"](images_bytes=tf.stack(files))
    seen = [tf.io.decode_image(x, min(channels, 3)) for x in files[1:]]
    opaque = [[0, 0], [0, 0], [0, 1 if channels == 4 else 0]]
    seen = [own[0], *(tf.pad(x, opaque, constant_values=255) for x in seen)]
    want = of_numbers["reconstruct"](images=tf.stack(seen))
    np.testing.assert_array_equal(got["codes"], want["codes"])
    made = [tf.io.decode_png(x, channels) for x in got["images_bytes"].numpy()]
    np.testing.assert_array_equal(made, want["images"])


# PNG's first chunk tells the size; a reader that finds another one there looks further.
OTHER_CHUNK = b"abCd" + struct.pack(">II", 12, 8)
DISGUISED = HUGE[:8] + struct.pack(">I", 8) + OTHER_CHUNK
DISGUISED += struct.pack(">I", zlib.crc32(OTHER_CHUNK)) + HUGE[8:]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (
            png(images(1, (12, 8, 3))),
            r"images_bytes must be pictures of height and width \(8, 12\), got\] \[12 8\]",
        ),
        ([HUGE], r"images_bytes must be pictures of .*, got\] \[40000 50000\]"),
        ([tf.io.encode_jpeg(images(1, (12, 8, 3))[0]).numpy()], r"pictures of .* \[12 8\]"),
        ([DISGUISED], "images_bytes must be JPEG or PNG, got .*abCd"),
        ([b"hello"], r"images_bytes must be JPEG or PNG, got .*hello"),
        ([b"GIF89a" + bytes(50)], "images_bytes must be JPEG or PNG, got .*GIF89a"),
        ([png(images(1, SHAPE))[0][:50]], "PNG|image"),
        ([png(images(1, SHAPE))[0][:20]], r"pictures of .* \[0 12\]"),
        ([tf.io.encode_jpeg(images(1, SHAPE)[0]).numpy()[:90]], "JPEG"),
        ([b""], "images_bytes must be JPEG or PNG, got"),
        (
            [[png(images(1, SHAPE))[0]]],
            r"images_bytes must have shape \(batch,\), got \(\] \[1, 1\]",
        ),
    ],
    ids=[
        "size",
        "huge",
        "size of a JPEG",
        "size in another chunk",
        "text",
        "GIF",
        "cut off",
        "header cut off",
        "JPEG cut off",
        "nothing",
        "rank",
    ],
)
def test_no_pictures(pictures: tuple, bad: Any, message: str) -> None:
    encode = pictures[0]["encode"]
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        encode(images_bytes=tf.constant(bad, tf.string))
    assert encode(images_bytes=tf.constant(png(images(2, SHAPE))))["codes"].shape == (2, 2, 3)


def test_frames(tmp_path: Path) -> None:
    of_bytes, of_numbers, _ = served(test_video.make("discrete", sharp=0.4), tmp_path)
    x, actions = test_video.frames(2, 3), tf.constant(test_video.actions("discrete", 2, 4))
    how = {name: tf.constant(value) for name, value in HOW.items()}
    got = of_bytes["predict"](frames_bytes=tf.constant(png(x)), actions=actions, **how)
    want = of_numbers["predict"](frames=tf.constant(x), actions=actions, **how)
    assert got["frames_bytes"].shape == (2, 4)
    np.testing.assert_array_equal(got["codes"], want["codes"])
    np.testing.assert_array_equal(
        [[tf.io.decode_png(frame) for frame in row] for row in got["frames_bytes"]], want["frames"]
    )
    state = of_bytes["start"](frames_bytes=tf.constant(png(x)))
    one = of_bytes["step"](**state, actions=actions[:, 0], **how)
    np.testing.assert_array_equal(one["frames_bytes"], got["frames_bytes"][:, 0])


@pytest.mark.parametrize("batch", [0, 1, 3])
def test_sound(clips: tuple, batch: int) -> None:
    of_bytes, of_numbers, _ = clips
    x = test_audio.sound(3, 101)[:batch]
    files = tf.constant([wav(clip) for clip in x], tf.string)
    speaker = tf.constant([1])
    got = of_bytes["convert"](waveform_bytes=files, speaker=speaker)
    assert got["waveform_bytes"].shape == (batch,)
    if batch:
        heard = np.array([pcm(file) for file in files.numpy()], "float32")
        want = of_numbers["convert"](waveform=tf.constant(heard), speaker=speaker)
        np.testing.assert_array_equal(got["codes"], want["codes"])
        made = [pcm(file) for file in got["waveform_bytes"].numpy()]
        np.testing.assert_allclose(made, want["waveform"], atol=1 / 32768)


def test_streams_keep_their_numbers(clips: tuple) -> None:
    of_bytes, of_numbers, _ = clips
    for name in ("encode_stream", "decode_stream"):
        inputs = [x[name].structured_input_signature for x in (of_bytes, of_numbers)]
        assert inputs[0] == inputs[1]


CLIP = test_audio.sound(1, 64)[0]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ([wav(CLIP, rate=16000)], r"waveform_bytes must be of 8000 Hz, got\] \[16000"),
        ([wav(CLIP, channels=2)], r"waveform_bytes must be mono, got channels:\] \[2"),
        ([wav(CLIP), wav(CLIP[:40])], r"of one length within a request, got samples:\] \[40"),
        ([wav(CLIP, width=1)], "must be WAV of 16-bit integers .* begins. .RIFF"),
        ([wav(CLIP)[:20] + b"\3" + wav(CLIP)[21:]], "must be WAV of 16-bit integers"),
        ([wav(CLIP[:7])], r"shorter than one code of 8 samples, got\] \[7"),
        ([b"hello"], "must be WAV of 16-bit integers .* begins. .hell"),
        ([wav(CLIP)[:30]], "must be WAV of 16-bit integers"),
        ([wav(CLIP)[:40]], r"waveform_bytes is cut off: .* there are:\] \[0\] \[-4"),
        ([wav(CLIP)[:-8]], r"waveform_bytes is cut off: .* there are:\] \[128\] \[120"),
        ([wav(CLIP) * 3], r"waveform_bytes holds bytes behind its sound .*\] \[344"),
        ([wav(CLIP[:0])], "shorter than one code of 8 samples|[Dd]ata"),
        ([wav(np.sign(CLIP))], r"waveform_bytes is clipped, .* full scale is\] \[1\]"),
        ([b""], "must be WAV of 16-bit integers"),
    ],
    ids=[
        "rate",
        "stereo",
        "lengths",
        "8 bits",
        "floats",
        "short",
        "text",
        "no header",
        "cut off in the header",
        "cut off",
        "joined",
        "no samples",
        "clipped",
        "nothing",
    ],
)
def test_no_sound(clips: tuple, bad: list, message: str) -> None:
    encode = clips[0]["encode"]
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        encode(waveform_bytes=tf.constant(bad))
    assert encode(waveform_bytes=tf.constant([wav(CLIP)] * 2))["codes"].shape == (2, 8)


def chunk(name: bytes, size: int) -> bytes:
    return name + size.to_bytes(4, "little") + bytes(size)


def test_sound_after_other_chunks(clips: tuple) -> None:
    file = wav(CLIP)
    padded = file[:12] + chunk(b"JUNK", 28) + chunk(b"bext", 602) + chunk(b"JUNK", 0)
    padded += chunk(b"LIST", 3) + b"\0" + file[12:]
    encode = clips[0]["encode"]
    codes = [encode(waveform_bytes=tf.constant([x]))["codes"].numpy() for x in (file, padded)]
    np.testing.assert_array_equal(*codes)
    for bad in (
        file[:14] + b"\x80" + file[15:],  # a name that is no text
        file[:12] + b"JUNK" + b"\xf0\xff\xff\xff" + file[12:],
        file[:12] + b"JUNK" + b"\0\0\0\x7f" + file[12:],
        file[:12] + chunk(b"JUNK", 28),
    ):
        with pytest.raises(tf.errors.InvalidArgumentError, match="must be WAV of 16-bit integers"):
            encode(waveform_bytes=tf.constant([bad]))


def test_sound_of_which_the_header_does_not_know_the_length(clips: tuple) -> None:
    """Headers as pipes and recorders write them: TensorFlow's own decoder believes them."""
    file, encode = wav(CLIP), clips[0]["encode"]
    ones, two, four = 0xFFFFFFFF, 0x7FFFFFFF, 0x80000000
    sizes = [(ones, ones), (0x7FFFF024, 0x7FFFF000), (two, two - 36), (four + 36, four)]
    sizes += [(0, 0), (164, 0), (172, 128), (0, 128), (164, 136)]
    files = [
        file[:4] + struct.pack("<I", riff) + file[8:40] + struct.pack("<I", data) + file[44:]
        for riff, data in sizes
    ]
    files += [file + chunk(b"LIST", 3) + b"\0" + chunk(b"bext", 602)]
    codes = encode(waveform_bytes=tf.constant([file, *files]))["codes"].numpy()
    np.testing.assert_array_equal(codes, np.repeat(codes[:1], len(codes), axis=0))


def test_a_server_may_not_put_clips_of_any_length_together(tmp_path: Path) -> None:
    export_savedmodel(sound("parallel"), tmp_path / "1", encoded=True)
    told = json.loads((tmp_path / "1" / "signature.json").read_text())["signatures"]
    assert {name for name, of in told.items() if of["batching"]} == set()


def test_pictures_that_no_png_holds(tmp_path: Path) -> None:
    vqvae = ImageVQVAE((8, 12, 5), 7, 4, hidden=8, residual_hidden=4)
    with pytest.raises(ValueError, match="encoded=True: PNG and JPEG do not hold images of 5"):
        export_savedmodel(vqvae, tmp_path / "1", encoded=True)
    assert not list(tmp_path.iterdir())
