"""Pictures as JPEG or PNG and sound as WAV in the place of numbers: what browsers and phones have.

Tensors of such bytes have names that end in `_bytes`: so TensorFlow Serving's REST gives them as
`{"b64": ...}`. Streams keep their numbers, since a chunk of sound is no file.
"""

import dataclasses
import io
import wave
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from keras_vqvae.data.audio_files import CLIPPED_SHARE, FULL_SCALE
from keras_vqvae.data.audio_headers import MISCOUNTED, TAG, is_unknown
from keras_vqvae.export.checks import asserted, with_checks
from keras_vqvae.export.endpoints import Endpoint
from keras_vqvae.export.fields import Field

_PICTURES, _SOUND = ("images", "frames"), "waveform"
# That can be read and written: PNG knows grey and alpha too, but TensorFlow does not read it.
_CHANNELS = (1, 3, 4)
_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"


@dataclasses.dataclass(frozen=True)
class _Codec:
    """How a tensor of numbers is one of bytes."""

    field: Field
    read: Callable[[tf.Tensor], tf.Tensor]
    write: Callable[[tf.Tensor], tf.Tensor]


def encoded(endpoint: Endpoint, model: Any) -> Endpoint:
    """The endpoint of a model, with bytes for pictures and sound.

    Raises:
        ValueError: PNG cannot hold the pictures.
    """
    codecs = {
        field.name: codec
        for field in (*endpoint.inputs, *endpoint.outputs)
        if (codec := _codec(field, model)) is not None
    }

    def run(*tensors: tf.Tensor) -> dict:
        given = [
            codecs[field.name].read(x) if field.name in codecs else x
            for field, x in zip(endpoint.inputs, tensors, strict=True)
        ]
        answers = {}
        for name, x in endpoint(*given).items():
            codec = codecs.get(name)
            answers[name if codec is None else codec.field.name] = codec.write(x) if codec else x
        return answers

    def fields(those: tuple[Field, ...]) -> tuple[Field, ...]:
        # The frames that come and those that go may differ in their open sides.
        found = [(field, _codec(field, model)) for field in those]
        return tuple(codec.field if codec else field for field, codec in found)

    example = {}
    for name, x in endpoint.example.items():
        codec = codecs.get(name)
        value = x
        if codec is not None:
            value = codec.write(tf.constant(x)).numpy()
            try:
                codec.read(tf.constant(value))
            except tf.errors.InvalidArgumentError as error:  # clipped sound
                raise ValueError(f"examples: with encoded=True {error.message}") from error
        example[name if codec is None else codec.field.name] = value
    return Endpoint(run, fields(endpoint.inputs), fields(endpoint.outputs), example)


def _codec(field: Field, model: Any) -> _Codec | None:
    """That of a field, or None where it keeps its numbers."""
    if field.name in _PICTURES:
        return _pictures(field)
    if field.name == _SOUND:
        return _sound(field, model.sample_rate, model.downsampling)
    return None


def _pictures(field: Field) -> _Codec:
    *leading, height, width, channels = field.shape
    if channels not in _CHANNELS:
        raise ValueError(
            f"encoded=True: PNG and JPEG do not hold {field.name} of {channels} channels, only of "
            f"{', '.join(map(str, _CHANNELS))}; leave encoded out"
        )
    shape, name = (height, width, channels), f"{field.name}_bytes"

    def picture(encoded: tf.Tensor) -> tf.Tensor:
        begin = tf.strings.substr(tf.strings.join([encoded, bytes(24)]), 0, 24)
        # The size is looked for where PNG has it, in the first chunk. (Readers skip others.)
        is_png = tf.strings.substr(begin, 0, len(_PNG)) == _PNG
        is_png &= tf.strings.substr(begin, 12, 4) == b"IHDR"
        is_jpeg = tf.strings.substr(begin, 0, len(_JPEG)) == _JPEG
        message = f"{name} must be JPEG or PNG, got a file that begins with"
        known = asserted(is_png | is_jpeg, message, _shown(encoded))
        encoded = with_checks(encoded, [known])

        def png_size() -> tf.Tensor:
            raw = tf.strings.substr(begin, 16, 8)
            return tf.reverse(tf.io.decode_raw(raw, tf.int32, little_endian=False), [0])

        # By the header: a small file may be of a picture that no memory holds.
        size = tf.cond(is_png, png_size, lambda: tf.image.extract_jpeg_shape(encoded)[:2])
        message = f"{name} must be pictures of height and width {shape[:2]}, got"
        fits = asserted(tf.reduce_all(size == shape[:2]), message, size)
        encoded = with_checks(encoded, [fits])

        def jpeg() -> tf.Tensor:
            x = tf.io.decode_jpeg(encoded, min(channels, 3))
            return tf.pad(x, [[0, 0], [0, 0], [0, channels - x.shape[-1]]], constant_values=255)

        x = tf.cond(is_png, lambda: tf.io.decode_png(encoded, channels), jpeg)
        return tf.ensure_shape(x, shape)

    def read(encoded: tf.Tensor) -> tf.Tensor:
        signature = tf.TensorSpec(shape, tf.uint8)
        pictures = tf.map_fn(picture, tf.reshape(encoded, [-1]), fn_output_signature=signature)
        return tf.reshape(pictures, tf.concat([tf.shape(encoded), shape], 0))

    meaning = (
        f"JPEG or PNG in, PNG out, of {width}×{height} pixels, {channels} channels; {field.meaning}"
    )
    return _Codec(Field(name, tuple(leading), "string", meaning), read, tf.io.encode_png)


def _sound(field: Field, sample_rate: int, least: int) -> _Codec:
    name = f"{field.name}_bytes"
    silence = _wav_of_silence(sample_rate, least)

    def clip(encoded: tf.Tensor) -> tf.Tensor:
        padded = tf.strings.join([encoded, bytes(48)])
        there = tf.strings.length(encoded)

        def has(begin: Any, text: bytes) -> tf.Tensor:
            return tf.strings.substr(padded, begin, len(text)) == text

        def number(begin: Any, size: int = 4) -> tf.Tensor:
            raw = tf.strings.join([tf.strings.substr(padded, begin, size), bytes(8 - size)])
            return tf.io.decode_raw(raw, tf.int64)[0]

        def rest(begin: tf.Tensor) -> tf.Tensor:
            return tf.cast(there - begin - 8, tf.int64)

        def is_skipped(begin: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
            is_sound = has(begin, b"data") | has(begin, b"RIFF")
            return ~is_sound & (begin + 8 <= there) & (number(begin + 4) <= rest(begin))

        def skip(begin: tf.Tensor, form: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            size = tf.cast(number(begin + 4), tf.int32)
            return begin + 8 + size + size % 2, tf.where(has(begin, b"fmt "), begin, form)

        # `form` stays where no chunk can be until there is one of the format.
        begin, form = tf.while_loop(is_skipped, skip, (tf.constant(12), tf.constant(0)))
        known = has(0, b"RIFF") & has(8, b"WAVE") & has(form, b"fmt ") & has(begin, b"data")
        known &= has(form + 8, b"\1\0") & has(form + 22, b"\x10\0")
        message = (
            f"{name} must be WAV of 16-bit integers (plain PCM, no floats, not extensible), got a "
            "file that begins"
        )
        said, there_is = number(begin + 4), rest(begin)
        is_counted = number(4) == tf.cast(there - 8, tf.int64)
        is_cut = (said > there_is) & ~is_unknown(said)
        is_cut &= ~(is_counted & (said <= there_is + MISCOUNTED))
        cut = f"{name} is cut off: bytes of sound that its header says, and that there are:"
        checks = [
            asserted(known, message, _shown(encoded)),
            asserted(~(known & is_cut) & (there_is >= 0), cut, said, there_is),
        ]
        said = with_checks(said, checks)
        size = tf.where(is_unknown(said), there_is, tf.minimum(said, there_is))
        size = tf.cast(size, tf.int32)
        end, _ = tf.while_loop(is_skipped, skip, (begin + 8 + size + size % 2, form))
        sound = tf.strings.substr(padded, begin + 8, size // 2 * 2)
        x = tf.cast(tf.io.decode_raw(sound, tf.int16), tf.float32) / 32768.0
        channels, rate = number(form + 10, 2), number(form + 12)
        loud = tf.reduce_sum(tf.cast(tf.abs(x) >= FULL_SCALE, tf.float32))
        loud = tf.math.divide_no_nan(loud, tf.cast(tf.size(x), tf.float32))
        more = f"{name} holds bytes behind its sound that are no chunk (were files joined?):"
        clipped = f"{name} is clipped, the share of its samples at full scale is"
        checks = [
            asserted(rate == sample_rate, f"{name} must be of {sample_rate} Hz, got", rate),
            asserted(channels == 1, f"{name} must be mono, got channels:", channels),
            asserted(loud <= CLIPPED_SHARE, clipped, loud),
            asserted(there - end <= TAG, more, there - end),
        ]
        return with_checks(x, checks)

    def read(encoded: tf.Tensor) -> tf.Tensor:
        count = tf.shape(encoded)[0]
        # Of no clip there would be no length.
        some = tf.concat([encoded, [silence]], 0)[: tf.maximum(count, 1)]
        length = tf.shape(clip(some[0]))[0]

        def alike(encoded: tf.Tensor) -> tf.Tensor:
            x = clip(encoded)
            message = f"{name} must be of one length within a request, got samples:"
            return with_checks(x, [asserted(tf.size(x) == length, message, tf.size(x), length)])

        clips = tf.map_fn(alike, some, fn_output_signature=tf.TensorSpec((None,), tf.float32))
        return clips[:count]

    def write(x: tf.Tensor) -> tf.Tensor:
        def wav(clip: tf.Tensor) -> tf.Tensor:
            return tf.audio.encode_wav(clip[:, None], sample_rate)

        return tf.map_fn(wav, x, fn_output_signature=tf.TensorSpec((), tf.string))

    meaning = f"WAV, 16 bits, mono, {sample_rate} Hz, all of one length; {field.meaning}"
    return _Codec(Field(name, field.shape[:1], "string", meaning, of_one_length=True), read, write)


def _shown(encoded: tf.Tensor) -> tf.Tensor:
    """The beginning of a file for a message, which must be text."""
    begin = tf.strings.substr(encoded, 0, 16)
    return tf.strings.unicode_transcode(begin, "UTF-8", "UTF-8", errors="replace")


def _wav_of_silence(sample_rate: int, samples: int) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as wav:
        wav.setnchannels(1)
        wav.setsampwidth(2)
        wav.setframerate(sample_rate)
        wav.writeframes(bytes(2 * samples))
    return file.getvalue()
