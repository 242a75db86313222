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

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from keras_vqvae import functional, sampling
from keras_vqvae.export.checks import (
    asserted,
    at_least_one_code,
    few_codes,
    one_for_each,
    with_checks,
)
from keras_vqvae.export.endpoints import Endpoints
from keras_vqvae.export.fields import (
    BATCH,
    MOST_CODES,
    ONE_OR_BATCH,
    SEED,
    TEMPERATURE,
    Field,
    drawing_example,
    finite_range,
)
from keras_vqvae.models.audio import AudioVQVAE
from keras_vqvae.models.streaming import context_of, window

_DRAWN_IN_WARMUP = 8  # codes
_LAST = Field("last", (), "bool", "whether nothing follows")


def fields(vqvae: AudioVQVAE) -> tuple[Field, Field]:
    """Waveforms and their codes."""
    unit = vqvae.downsampling
    meaning = f"sound in [-1, 1], mono, {vqvae.sample_rate} samples a second"
    waveform = Field("waveform", (BATCH, "samples"), "float32", meaning, -1.0, 1.0)
    shape = (BATCH, f"samples / {unit}")
    meaning = f"codes of {unit} samples each; the last one's may be incomplete"
    return waveform, Field("codes", shape, "int32", meaning, 0, vqvae.num_codes - 1)


def drawn_fields(vqvae: AudioVQVAE) -> list[Field]:
    """Codes and waveforms that a prior draws, as long as it is asked for."""
    waveform, codes = fields(vqvae)
    meaning = f"codes of {vqvae.downsampling} samples each"
    codes = dataclasses.replace(codes.shaped("number", "length"), meaning=meaning)
    return [codes, waveform.shaped("number", f"{vqvae.downsampling} * length")]


def example_of(vqvae: AudioVQVAE) -> np.ndarray:
    """Two clips of eight codes of quiet noise."""
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, (2, 8 * vqvae.downsampling))
    return noise.astype("float32")


def check_example(vqvae: AudioVQVAE, x: np.ndarray) -> None:
    """Raises `ValueError` where `x` is not what `encode` takes."""
    vqvae.check_waveform(x)


def add_endpoints(
    endpoints: Endpoints, vqvae: AudioVQVAE, jit_compile: bool, example: np.ndarray
) -> tuple[Callable, dict[str, Any]]:
    """Adds `reconstruct`, `encode`, `decode`, `convert` and those of streams.

    Args:
        jit_compile: whether XLA is to compile a WaveNet's loop.
        example: some waveforms.

    Returns:
        the function that a prior's `sample` decodes with, and the example with its codes.
    """
    waveform, codes = fields(vqvae)
    speaker, drawing = speakers(vqvae), [SEED, TEMPERATURE] if vqvae.is_autoregressive else []
    generate = tf.function(vqvae.generate, autograph=False, jit_compile=jit_compile or None)

    def made(codes: tf.Tensor, speaker: tf.Tensor | None, *drawing: tf.Tensor) -> tf.Tensor:
        if not vqvae.is_autoregressive:
            data = {"codes": codes} if speaker is None else {"codes": codes, "speaker": speaker}
            return vqvae._decode_parallel(data)
        count, codes = tf.shape(codes)[0], functional.never_empty(_few(codes))
        if speaker is not None:
            speaker = functional.never_empty(speaker)
        state = vqvae.decoder.initial_state(tf.shape(codes)[0])
        seed, temperature = drawing
        drawn, _ = generate(state, codes, speaker, seed, _options(vqvae, temperature))
        return drawn[:count]

    def encode(waveform: tf.Tensor) -> dict:
        return {"codes": vqvae._encode(_long_enough(waveform, vqvae))}

    def decode(codes: tf.Tensor, *more: tf.Tensor) -> dict:
        codes = at_least_one_code(codes)
        speaker, rest = _speaker(more, codes, vqvae)
        return {"waveform": made(codes, speaker, *rest)}

    def reconstruct(waveform: tf.Tensor, *more: tf.Tensor) -> dict:
        codes = vqvae._encode(_long_enough(waveform, vqvae))
        speaker, rest = _speaker(more, codes, vqvae)
        whole = made(codes, speaker, *rest)
        return {"waveform": whole[:, : tf.shape(waveform)[1]], "codes": codes}

    if vqvae.is_autoregressive:  # each start of a server draws it sample by sample
        example = example[:, : _DRAWN_IN_WARMUP * vqvae.downsampling]
    known = {
        **drawing_example(vqvae.num_codes),
        "waveform": example,
        "codes": vqvae.encode(tf.constant(example)),
        "speaker": np.zeros(len(example), "int32"),
    }
    both = [waveform, codes]
    endpoints.add("reconstruct", reconstruct, [waveform, *speaker, *drawing], both, known)
    endpoints.add("encode", encode, [waveform], [codes], known)
    endpoints.add("decode", decode, [codes, *speaker, *drawing], [waveform], known)
    if vqvae.num_speakers:
        endpoints.add("convert", reconstruct, [waveform, *speaker, *drawing], both, known)
    parts = (vqvae.encoder, vqvae.decoder)
    if all(getattr(part, "context", None) is not None for part in parts):
        _add_encode_stream(endpoints, vqvae, known)
        if vqvae.is_autoregressive:
            _add_draw_stream(endpoints, vqvae, generate, known)
        else:
            _add_decode_stream(endpoints, vqvae, known)

    def decode_samples(
        codes: tf.Tensor, speaker: tf.Tensor | None, seed: tf.Tensor, temperature: tf.Tensor
    ) -> tf.Tensor:
        return made(codes, speaker if vqvae.num_speakers else None, seed, temperature)

    return decode_samples, known


def _add_encode_stream(endpoints: Endpoints, vqvae: AudioVQVAE, known: dict) -> None:
    waveform, codes = fields(vqvae)
    unit = vqvae.downsampling

    def encode_stream(
        waveform: tf.Tensor, pending: tf.Tensor, given: tf.Tensor, last: tf.Tensor
    ) -> dict:
        context = context_of(vqvae.encoder)
        given = _of_pending(pending, given, unit)
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

    state = [_pending(waveform), _given(f"of which so many codes, of {unit} samples,")]
    begin = {"pending": np.zeros((len(known["waveform"]), 0)), "given": 0, "last": False}
    inputs, outputs = [waveform.shaped(BATCH, "any"), *state, _LAST], [_new(codes), *state]
    endpoints.add("encode_stream", encode_stream, inputs, outputs, {**known, **begin})


def _add_decode_stream(endpoints: Endpoints, vqvae: AudioVQVAE, known: dict) -> None:
    """`decode_stream` of a parallel decoder."""
    waveform, codes = fields(vqvae)
    unit = vqvae.downsampling

    def decode_stream(
        codes: tf.Tensor, pending: tf.Tensor, given: tf.Tensor, last: tf.Tensor, *more: tf.Tensor
    ) -> dict:
        context = context_of(vqvae.decoder)
        given = _of_pending(pending, given, 1)
        inputs, start, end, keep = window(pending, codes, given, last, 1, context)
        data = {"codes": tf.pad(inputs, [[0, 0], [0, tf.cast(tf.shape(inputs)[1] < 1, "int32")]])}
        source, more = (more[0], more[1:]) if vqvae.has_source else (None, more)
        speaker, _ = _speaker(more, codes, vqvae)
        if speaker is not None:
            data["speaker"] = speaker
        state = {"pending": inputs[:, keep:], "given": end - keep}
        if vqvae.has_source:
            made, state["source"] = vqvae._decode_from(data, source, start, end)
        else:
            made = vqvae._decode_parallel(data)
        return {"waveform": made[:, start * unit : end * unit], **state}

    state, source = [_pending(codes), _given("of which so many")], []
    if vqvae.has_source:
        meaning = "where waves and noise are; zeros at the beginning"
        source = [Field("source", (BATCH, 2), "int32", meaning)]
    count = len(known["waveform"])
    begin = {
        "pending": np.zeros((count, 0)), "given": 0, "last": False, "source": np.zeros((count, 2)),
    }  # fmt: skip
    inputs = [codes.shaped(BATCH, "any"), *state, _LAST, *source, *speakers(vqvae)]
    outputs = [_new(waveform), *state, *source]
    endpoints.add("decode_stream", decode_stream, inputs, outputs, {**known, **begin})


def _add_draw_stream(
    endpoints: Endpoints, vqvae: AudioVQVAE, generate: Callable, known: dict
) -> None:
    """`decode_stream` of a WaveNet."""
    waveform, codes = fields(vqvae)
    channels, levels = vqvae.decoder._stack.channels, vqvae.decoder.likelihood.levels
    sizes = [x.shape[0] for x in vqvae.decoder.initial_state(1)["buffers"]]
    whole = sum(sizes)
    most = (2**31 - 1) // vqvae.downsampling  # samples are counted in int32

    def draw_stream(
        codes: tf.Tensor,
        buffers: tf.Tensor,
        row: tf.Tensor,
        previous: tf.Tensor,
        seed: tf.Tensor,
        temperature: tf.Tensor,
        *more: tf.Tensor,
    ) -> dict:
        speaker, _ = _speaker(more, codes, vqvae)
        count, new = tf.shape(codes)[0], tf.shape(codes)[1]
        message = f"a stream ends after {most} codes, but row and codes make"
        row = with_checks(row, [asserted(row <= most - new, message, row, new)])
        # None goes through the network as one, of which nothing is kept.
        codes = tf.pad(_few(codes), [[0, 0], [0, tf.cast(new < 1, "int32")]])
        steps = tf.shape(buffers)[1]
        message = f"buffers must have 0 or {whole} steps, got"
        buffers = with_checks(buffers, [asserted((steps == 0) | (steps == whole), message, steps)])
        message = "buffers are needed after the beginning, got none and row"
        there = (tf.shape(buffers)[1] > 0) | (row == 0) | (count == 0)
        row = with_checks(row, [asserted(there, message, row)])
        codes, buffers, previous = map(functional.never_empty, (codes, buffers, previous))
        if speaker is not None:
            speaker = functional.never_empty(speaker)
        padded = tf.pad(buffers, [[0, 0], [0, whole - steps], [0, 0]])
        rings = tf.transpose(padded, (1, 0, 2))
        state = {
            "buffers": [tf.cast(x, vqvae.compute_dtype) for x in tf.split(rings, sizes)],
            "row": row,
            "last": previous,
            "examples": tf.range(tf.shape(codes)[0]),
        }
        made, state = generate(state, codes, speaker, seed, _options(vqvae, temperature))
        rings = tf.transpose(tf.cast(tf.concat(state["buffers"], 0), tf.float32), (1, 0, 2))
        return {
            "waveform": made[:count, : new * vqvae.downsampling],
            "buffers": tf.where(new > 0, rings, padded)[:count],
            "row": row + new,
            "previous": tf.where(new > 0, state["last"], previous)[:count],
        }

    kept = finite_range(vqvae.compute_dtype)
    meaning = f"what layers have seen: {whole} steps, or none at the beginning"
    state = [
        Field("buffers", (BATCH, "steps", channels), "float32", meaning, **kept),
        Field("row", (), "int32", "codes so far; 0 at the beginning", 0, most),
        Field(
            "previous", (BATCH,), "int32", "level drawn last; zeros at the beginning", 0, levels - 1
        ),
    ]
    count = len(known["waveform"])
    begin = {"buffers": np.zeros((count, 0, channels)), "row": 0, "previous": np.zeros(count)}
    inputs = [codes.shaped(BATCH, "any"), *state, SEED, TEMPERATURE, *speakers(vqvae)]
    outputs = [_new(waveform), *state]
    endpoints.add("decode_stream", draw_stream, inputs, outputs, {**known, **begin})


def speakers(vqvae: AudioVQVAE) -> list[Field]:
    """In whose voice codes are decoded, where there are speakers."""
    if not vqvae.num_speakers:
        return []
    names = vqvae.speaker_names or ()
    who = ", ".join(f"{number} {name}" for number, name in enumerate(names))
    meaning = f"in whose voice: one for all, or one for each{who and f' ({who})'}"
    return [Field("speaker", (ONE_OR_BATCH,), "int32", meaning, 0, vqvae.num_speakers - 1)]


def _pending(field: Field) -> Field:
    """The state of a stream of such things."""
    meaning = f"kept from before, none at the beginning: {field.meaning}"
    return dataclasses.replace(field.shaped(BATCH, "kept"), name="pending", meaning=meaning)


def _given(which: str) -> Field:
    return Field("given", (), "int32", f"{which} in pending were given out; 0 at the beginning", 0)


def _new(field: Field) -> Field:
    """What a stream gives out next, perhaps nothing."""
    return field.shaped(BATCH, "new")


def _options(vqvae: AudioVQVAE, temperature: tf.Tensor) -> sampling.Options:
    return sampling.Options(temperature, vqvae.decoder.likelihood.levels, 1.0)


def _of_pending(pending: tf.Tensor, given: tf.Tensor, unit: int) -> tf.Tensor:
    """`given`, after a check that such a state there can be."""
    fits = given <= tf.shape(pending)[1] // unit
    message = "given must be at least 0, and no more than pending has, got"
    return with_checks(given, [asserted(fits, message, given)])


def _few(codes: tf.Tensor) -> tf.Tensor:
    """Codes to be drawn from, after checks that this does not take for ever."""
    batch, length = tf.shape(codes)[0], tf.shape(codes)[1]
    message = f"codes must be at most {MOST_CODES} an example (longer sound is a stream), got"
    checks = [asserted(length <= MOST_CODES, message, length)]
    return with_checks(codes, [*checks, few_codes("batch * codes", batch, length)])


def _long_enough(waveform: tf.Tensor, vqvae: AudioVQVAE) -> tf.Tensor:
    samples, unit = tf.shape(waveform)[1], vqvae.downsampling
    message = f"waveform is shorter than one code of {unit} samples, got"
    return with_checks(waveform, [asserted(samples >= unit, message, samples)])


def _speaker(more: tuple, codes: tf.Tensor, vqvae: AudioVQVAE) -> tuple[Any, tuple]:
    """The speaker of each example, and what else was given."""
    if not vqvae.num_speakers:
        return None, more
    return one_for_each("speaker", more[0], tf.shape(codes)[0]), more[1:]
