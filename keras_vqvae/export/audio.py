"""Endpoints of a VQ-VAE of sound, those for streams among them.

A stream's state is what an endpoint gave the last time; at the beginning it is empty:

- `encode_stream`: `waveform` float32 `(batch, any)`, `last` bool, and the state `pending` float32
  `(batch, any)`, at first `(batch, 0)`, and `given` int32, at first 0; to `codes`, `pending` and
  `given`. With `last` nothing follows, and all codes are given out.
- `decode_stream` of a parallel decoder: the same with `codes` for `waveform` and int32 `pending`;
  to `waveform`, `pending` and `given`. If the decoder has a source, also the state `source` int32
  `(batch, 2)`, at first zeros.
- `decode_stream` of a WaveNet: `codes`, the scalars `seed` and `temperature`, and the state
  `buffers` float32 `(batch, any, channels)`, at first `(batch, 0, channels)`, `row` int32, at first
  0, and `previous` int32 `(batch,)`, at first zeros; to `waveform`, `buffers`, `row`, `previous`.

With speakers `decode_stream` takes `speaker` too.
"""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from keras_vqvae import functional, sampling
from keras_vqvae.export.checks import (
    asserted,
    checked_codes,
    checked_range,
    checked_shape,
    with_checks,
)
from keras_vqvae.models.audio import AudioVQVAE
from keras_vqvae.models.streaming import context_of, window

_WAVEFORM = tf.TensorSpec((None, None), tf.float32, "waveform")
_CODES = tf.TensorSpec((None, None), tf.int32, "codes")
_SPEAKER = tf.TensorSpec((None,), tf.int32, "speaker")
_LAST = tf.TensorSpec((), tf.bool, "last")
_DRAWING = [tf.TensorSpec((), tf.int32, "seed"), tf.TensorSpec((), tf.float32, "temperature")]


def add_endpoints(
    archive: keras.export.ExportArchive, vqvae: AudioVQVAE, jit_compile: bool
) -> Callable:
    """Adds `reconstruct`, `encode`, `decode`, `convert` and those of streams.

    Returns:
        the function that a prior's `sample` decodes with.
    """
    speakers = [_SPEAKER] if vqvae.num_speakers else []
    drawing = _DRAWING if vqvae.is_autoregressive else []
    generate = tf.function(vqvae.generate, autograph=False, jit_compile=jit_compile or None)

    def made(codes: tf.Tensor, speaker: tf.Tensor | None, *drawing: tf.Tensor) -> tf.Tensor:
        if not vqvae.is_autoregressive:
            data = {"codes": codes} if speaker is None else {"codes": codes, "speaker": speaker}
            return vqvae._decode_parallel(data)
        count, codes = tf.shape(codes)[0], functional.never_empty(codes)
        if speaker is not None:
            speaker = functional.never_empty(speaker)
        state = vqvae.decoder.initial_state(tf.shape(codes)[0])
        drawn, _ = generate(state, codes, speaker, drawing[0], _options(vqvae, drawing[1]))
        return drawn[:count]

    def encode(waveform: tf.Tensor) -> dict:
        return {"codes": vqvae._encode(_checked_waveform(waveform, vqvae))}

    def decode(codes: tf.Tensor, *more: tf.Tensor) -> dict:
        codes = checked_codes(codes, vqvae)
        codes = with_checks(codes, [_some(codes)])
        speaker, rest = _speaker(more, codes, vqvae)
        return {"waveform": made(codes, speaker, *rest)}

    def reconstruct(waveform: tf.Tensor, *more: tf.Tensor) -> dict:
        codes = vqvae._encode(_checked_waveform(waveform, vqvae))
        speaker, rest = _speaker(more, codes, vqvae)
        whole = made(codes, speaker, *rest)
        return {"waveform": whole[:, : tf.shape(waveform)[1]], "codes": codes}

    archive.add_endpoint("reconstruct", reconstruct, [_WAVEFORM, *speakers, *drawing])
    archive.add_endpoint("encode", encode, [_WAVEFORM])
    archive.add_endpoint("decode", decode, [_CODES, *speakers, *drawing])
    if vqvae.num_speakers:
        archive.add_endpoint("convert", reconstruct, [_WAVEFORM, *speakers, *drawing])
    if all(hasattr(part, "context") for part in (vqvae.encoder, vqvae.decoder)):
        _add_streams(archive, vqvae, speakers, generate)

    def decode_samples(
        codes: tf.Tensor, condition: tf.Tensor | None, seed: tf.Tensor, temperature: tf.Tensor
    ) -> dict:
        speaker = condition if vqvae.num_speakers else None
        return {"waveform": made(codes, speaker, seed, temperature)}

    return decode_samples


def _add_streams(
    archive: keras.export.ExportArchive, vqvae: AudioVQVAE, speakers: list, generate: Callable
) -> None:
    unit = vqvae.downsampling

    def encode_stream(
        waveform: tf.Tensor, pending: tf.Tensor, given: tf.Tensor, last: tf.Tensor
    ) -> dict:
        context = context_of(vqvae.encoder)
        waveform, pending = _sound("waveform", waveform), _sound("pending", pending)
        given = _of_pending(pending, given, waveform, unit)
        inputs, start, end, keep = window(pending, waveform, given, last, unit, context)
        size = tf.shape(inputs)[1]
        # Of an incomplete code samples are there only if nothing follows; and never none at all.
        codes = tf.maximum(tf.where(last, -(-size // unit), size // unit), 1)
        whole = tf.pad(inputs, [[0, 0], [0, unit]])[:, : codes * unit]
        return {
            "codes": vqvae._encode(whole)[:, start:end],
            "pending": inputs[:, keep * unit :],
            "given": end - keep,
        }

    def decode_stream(
        codes: tf.Tensor, pending: tf.Tensor, given: tf.Tensor, last: tf.Tensor, *more: tf.Tensor
    ) -> dict:
        context = context_of(vqvae.decoder)
        codes = checked_codes(codes, vqvae)
        pending = checked_shape("pending", pending, (None,))
        pending = checked_range("pending", pending, vqvae.num_codes)
        given = _of_pending(pending, given, codes, 1)
        inputs, start, end, keep = window(pending, codes, given, last, 1, context)
        data = {"codes": tf.pad(inputs, [[0, 0], [0, tf.cast(tf.shape(inputs)[1] < 1, "int32")]])}
        source, more = (more[0], more[1:]) if vqvae.has_source else (None, more)
        if source is not None:
            source = _as_many("source", checked_shape("source", source, (2,)), codes)
        speaker, _ = _speaker(more, codes, vqvae)
        if speaker is not None:
            data["speaker"] = speaker
        state = {"pending": inputs[:, keep:], "given": end - keep}
        if vqvae.has_source:
            made, state["source"] = vqvae._decode_from(data, source, start, end)
        else:
            made = vqvae._decode_parallel(data)
        return {"waveform": made[:, start * unit : end * unit], **state}

    def draw_stream(
        codes: tf.Tensor,
        buffers: tf.Tensor,
        row: tf.Tensor,
        previous: tf.Tensor,
        seed: tf.Tensor,
        temperature: tf.Tensor,
        *more: tf.Tensor,
    ) -> dict:
        codes = checked_codes(codes, vqvae)
        codes = with_checks(codes, [_some(codes)])
        speaker, _ = _speaker(more, codes, vqvae)
        zeros = vqvae.decoder.initial_state(tf.shape(codes)[0])["buffers"]
        sizes = [buffer.shape[0] for buffer in zeros]
        buffers = checked_shape("buffers", buffers, (None, vqvae.decoder._stack.channels))
        steps, whole = tf.shape(buffers)[1], sum(sizes)
        finite = tf.reduce_all(tf.math.is_finite(buffers))
        checks = [
            asserted(
                (steps == 0) | (steps == whole), f"buffers must have 0 or {whole} steps, got", steps
            ),
            asserted(finite, "buffers must be finite, got NaN or infinity"),
        ]
        buffers = _as_many("buffers", with_checks(buffers, checks), codes)
        previous = checked_shape("previous", previous, ())
        previous = checked_range("previous", previous, vqvae.decoder.likelihood.levels)
        previous = _as_many("previous", previous, codes)
        row = with_checks(row, [asserted(row >= 0, "row must be at least 0, got", row)])
        count, missing = tf.shape(codes)[0], whole - steps
        codes, buffers, previous = map(functional.never_empty, (codes, buffers, previous))
        if speaker is not None:
            speaker = functional.never_empty(speaker)
        rings = tf.transpose(tf.pad(buffers, [[0, 0], [0, missing], [0, 0]]), (1, 0, 2))
        state = {
            "buffers": [tf.cast(x, vqvae.compute_dtype) for x in tf.split(rings, sizes)],
            "row": row,
            "last": previous,
            "examples": tf.range(tf.shape(codes)[0]),
        }
        made, state = generate(state, codes, speaker, seed, _options(vqvae, temperature))
        rings = tf.cast(tf.concat(state["buffers"], 0), tf.float32)
        return {
            "waveform": made[:count],
            "buffers": tf.transpose(rings, (1, 0, 2))[:count],
            "row": state["row"],
            "previous": state["last"][:count],
        }

    def spec(shape: tuple, dtype: Any, name: str) -> tf.TensorSpec:
        return tf.TensorSpec(shape, dtype, name)

    given = spec((), tf.int32, "given")
    pending = spec((None, None), tf.float32, "pending")
    archive.add_endpoint("encode_stream", encode_stream, [_WAVEFORM, pending, given, _LAST])
    if vqvae.is_autoregressive:
        channels = vqvae.decoder._stack.channels
        state = [
            spec((None, None, channels), tf.float32, "buffers"),
            spec((), tf.int32, "row"),
            spec((None,), tf.int32, "previous"),
        ]
        archive.add_endpoint("decode_stream", draw_stream, [_CODES, *state, *_DRAWING, *speakers])
    else:
        state = [spec((None, None), tf.int32, "pending"), given, _LAST]
        if vqvae.has_source:
            state.append(spec((None, 2), tf.int32, "source"))
        archive.add_endpoint("decode_stream", decode_stream, [_CODES, *state, *speakers])


def _options(vqvae: AudioVQVAE, temperature: tf.Tensor) -> sampling.Options:
    positive = (temperature > 0) & tf.math.is_finite(temperature)
    check = asserted(positive, "temperature must be positive and finite, got", temperature)
    temperature = with_checks(temperature, [check])
    return sampling.Options(temperature, vqvae.decoder.likelihood.levels, 1.0)


def _some(codes: tf.Tensor) -> Any:
    return asserted(tf.shape(codes)[1] > 0, "codes must be at least one code, got none")


def _as_many(name: str, x: tf.Tensor, data: tf.Tensor) -> tf.Tensor:
    """`x`, after a check that it is of as many examples as `data`."""
    count, wanted = tf.shape(x)[0], tf.shape(data)[0]
    message = f"{name} must be of as many examples as what comes with it, got"
    return with_checks(x, [asserted(count == wanted, message, count, tf.constant("of"), wanted)])


def _of_pending(pending: tf.Tensor, given: tf.Tensor, data: tf.Tensor, unit: int) -> tf.Tensor:
    """`given`, after checks that such a state there can be."""
    pending = _as_many("pending", pending, data)
    most = tf.shape(pending)[1] // unit
    message = "given must be at least 0, and no more than pending has, got"
    return with_checks(given, [asserted((given >= 0) & (given <= most), message, given)])


def _sound(name: str, x: tf.Tensor) -> tf.Tensor:
    """Samples `(batch, any)`, after checks."""
    x = checked_shape(name, x, (None,))
    return with_checks(x, _sound_checks(name, x))


def _sound_checks(name: str, waveform: tf.Tensor) -> list:
    greatest = tf.reduce_max(tf.abs(tf.pad(waveform, [[0, 1], [0, 1]])))  # 0 of nothing
    finite = tf.reduce_all(tf.math.is_finite(waveform))
    return [
        asserted(finite, f"{name} must be finite, got NaN or infinity"),
        asserted(~finite | (greatest <= 1.0), f"{name} must be in [-1, 1], got", greatest),
    ]


def _checked_waveform(waveform: tf.Tensor, vqvae: AudioVQVAE) -> tf.Tensor:
    waveform = _sound("waveform", waveform)
    samples, unit = tf.shape(waveform)[1], vqvae.downsampling
    long_enough = asserted(
        samples >= unit, f"waveform is shorter than one code of {unit} samples, got", samples
    )
    return with_checks(waveform, [long_enough])


def _speaker(more: tuple, codes: tf.Tensor, vqvae: AudioVQVAE) -> tuple[Any, tuple]:
    """The speaker of each example, and what else was given."""
    if not vqvae.num_speakers:
        return None, more
    speaker = checked_shape("speaker", more[0], ())
    speaker = checked_range("speaker", speaker, vqvae.num_speakers)
    count, wanted = tf.shape(speaker)[0], tf.shape(codes)[0]
    same = asserted(
        (count == 1) | (count == wanted), "speaker must be one, or one for each, got", count
    )
    one_each = tf.gather(speaker, tf.range(wanted) % tf.maximum(count, 1))
    return with_checks(one_each, [same]), more[1:]
