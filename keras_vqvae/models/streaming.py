"""Sound chunk by chunk: what a VQ-VAE of sound gives for the whole, as it comes in."""

from typing import Any

import numpy as np
from keras import ops

from keras_vqvae import backend
from keras_vqvae.backend import Tensor
from keras_vqvae.models import sizes
from keras_vqvae.models.autoregressive import checked_seed, checked_temperature
from keras_vqvae.models.base import array_of, check_codes, positive_integer


def window(
    pending: Tensor, chunk: Tensor, start: Any, last: Any, unit: int, context: tuple
) -> tuple[Tensor, Any, Any, Any]:
    """What a convolutional network must be given for the next chunk, and what of it is new.

    An output stands for `unit` inputs and sees `context` outputs' worth before and after these.
    So a chunk goes through the network together with as much of what came before; outputs whose
    context is not all there yet wait for the next one.

    Args:
        pending: `(batch, any)`: inputs kept from before, beginning where an output begins.
        chunk: `(batch, any)`: inputs that follow.
        start: how many outputs in `pending` were given out already.
        last: whether nothing follows.
        unit: inputs an output.
        context: whole numbers of outputs.

    Returns:
        all inputs to run on, of which an incomplete output's are there only if `last`; the first
        and the end of the new outputs; and the first output of which inputs are to be kept.
    """
    before, after = context
    inputs = ops.concatenate([pending, chunk], 1)
    size = ops.shape(inputs)[1]
    whole = size // unit
    if isinstance(last, bool):
        end = -(-size // unit) if last else max(start, whole - after)
        return inputs, start, end, max(0, end - before)
    end = ops.where(last, -(-size // unit), ops.maximum(start, whole - after))
    return inputs, start, end, ops.maximum(0, end - before)


def context_of(layer: Any) -> tuple[int, int]:
    """How many outputs' worth of input before and after its own an output of a network sees.

    Raises:
        ValueError: it does not say.
    """
    context = getattr(layer, "context", None)
    if context is None:
        raise ValueError(
            f"{layer.name} cannot be used in a stream: it needs an attribute context, how many "
            "codes before and after its own an output sees"
        )
    before, after = context
    return int(before), int(after)


def _of_few_sizes(x: np.ndarray, unit: int = 1) -> np.ndarray:
    """`x`, where each size is compiled for itself padded to one of few, in whole units.

    What is new in the outputs does not see what follows.
    """
    if not backend.is_compiled_by_size(False):
        return x
    units = x.shape[1] // unit
    return np.pad(x, [(0, 0), (0, (sizes.rounded_up(units) - units) * unit)])


class Streaming:
    """Encodes and decodes sound chunk by chunk, in the end the same as the whole at once.

    ```python
    stream = vqvae.streaming(batch=1, speaker=3)
    for chunk in microphone:                       # float32 (1, any number of samples)
        waveform = stream.decode(stream.encode(chunk))
    stream.decode(stream.encode_end()); stream.decode_end()
    ```

    After `encode_end` and `decode_end` the next chunk is the first of other streams; what a WaveNet
    draws begins anew too, with the same numbers.

    Chunks may be of any length. What comes back may be shorter than what was put in, or nothing:
    the networks' latency, `encode_latency` and `decode_latency` samples, 0 with `causal=True`.

    Args:
        model: an `AudioVQVAE`.
        batch: streams at a time.
        speaker: in whose voice to decode, one or one for each; may be set on the way, and be None
            as long as nothing is decoded.
        seed: of a WaveNet's drawing, an int of 32 bits; None for one at random.
        temperature: of a WaveNet's drawing.
        jit_compile: whether TensorFlow compiles a WaveNet's loop by XLA, several times as fast;
            seconds for each of the powers of two that make up the number of codes of a chunk.

    Raises:
        ValueError: encoder or decoder do not say their context, or an argument is out of its range.
    """

    def __init__(
        self,
        model: Any,
        batch: int,
        speaker: Any,
        seed: int | None,
        temperature: float,
        jit_compile: bool,
    ) -> None:
        self.model = model
        self.batch = positive_integer("batch", batch)
        self.speaker = speaker
        self.seed = checked_seed(seed)
        self._jit_compile = jit_compile
        self._temperature = checked_temperature(temperature)
        model.check_weights()
        self.reset()

    @property
    def speaker(self) -> Any:
        """In whose voice to decode: one, one for each stream, or None."""
        return self._speaker

    @speaker.setter
    def speaker(self, speaker: Any) -> None:
        if speaker is not None:
            self.model.speaker_of_each(speaker, self.batch)
        self._speaker = speaker

    def reset(self) -> None:
        """Forgets all that went before."""
        self._reset_encoding()
        self._reset_decoding()

    def _reset_encoding(self) -> None:
        self._encoder_context = context_of(self.model.encoder)
        self._samples, self._codes_given = np.zeros((self.batch, 0), "float32"), 0

    def _reset_decoding(self) -> None:
        self._decoder_context = context_of(self.model.decoder)
        self._codes, self._frames_given = np.zeros((self.batch, 0), "int32"), 0
        if self.model.is_autoregressive:
            self._state = self.model.decoder.initial_state(self.batch)
        self._source = np.zeros((self.batch, 2), "int32")

    @property
    def encode_latency(self) -> int:
        """Samples after a code's own that must be there before it is given out."""
        return self._encoder_context[1] * self.model.downsampling

    @property
    def decode_latency(self) -> int:
        """Samples after a code's own whose codes must be there before its samples are given out."""
        return self._decoder_context[1] * self.model.downsampling

    def encode(self, waveform: Any) -> np.ndarray:
        """The codes, int32 `(batch, n)`, that a further chunk completes; n may be 0.

        Args:
            waveform: float32 `(batch, any)` in [-1, 1].

        Raises:
            ValueError: it is not.
        """
        return self._encode(self._checked(waveform), False)

    def encode_end(self) -> np.ndarray:
        """The codes still due, now that nothing follows; another stream may begin."""
        codes = self._encode(np.zeros((self.batch, 0), "float32"), True)
        self._reset_encoding()
        return codes

    def decode(self, codes: Any) -> np.ndarray:
        """The samples, float32 `(batch, n)`, that further codes complete; n may be 0.

        Args:
            codes: integers `(batch, any)` in [0, num_codes).

        Raises:
            ValueError: they are not.
        """
        codes = np.asarray(ops.convert_to_numpy(array_of("codes", codes)))
        check_codes(codes, (None,), self.model.num_codes)
        if len(codes) != self.batch:
            raise ValueError(f"codes must be of {self.batch} streams, got {len(codes)}")
        return self._decode(codes.astype("int32"), False)

    def decode_end(self) -> np.ndarray:
        """The samples still due, now that no code follows; another stream may begin."""
        made = self._decode(np.zeros((self.batch, 0), "int32"), True)
        self._reset_decoding()
        return made

    def _checked(self, waveform: Any) -> np.ndarray:
        waveform = np.asarray(ops.convert_to_numpy(waveform))
        if waveform.ndim == 2 and waveform.shape[1] < self.model.downsampling:
            # A chunk may be as short as it likes.
            padded = np.pad(waveform, [(0, 0), (0, self.model.downsampling)])
            self.model.check_waveform(padded)
        else:
            self.model.check_waveform(waveform)
        if len(waveform) != self.batch:
            raise ValueError(f"waveform must be of {self.batch} streams, got {len(waveform)}")
        return waveform

    def _encode(self, chunk: np.ndarray, last: bool) -> np.ndarray:
        unit = self.model.downsampling
        samples, start, end, keep = window(
            self._samples, chunk, self._codes_given, last, unit, self._encoder_context
        )
        samples = ops.convert_to_numpy(samples)
        codes = np.zeros((self.batch, 0), "int32")
        if end > start:
            inside = samples if last else samples[:, : samples.shape[1] // unit * unit]
            padded = np.pad(inside, [(0, 0), (0, -inside.shape[1] % unit)])
            padded = padded if last else _of_few_sizes(padded, unit)
            codes = self.model.encode(padded, batch_size=self.batch)[:, start:end]
        self._samples, self._codes_given = samples[:, keep * unit :], end - keep
        return codes

    def _decode(self, chunk: np.ndarray, last: bool) -> np.ndarray:
        model, unit = self.model, self.model.downsampling
        if model.is_autoregressive:
            if chunk.shape[1] == 0:
                return np.zeros((self.batch, 0), "float32")
            given = self._frames_given + chunk.shape[1]
            if given * unit > 2**31 - 1:  # numbers of samples are of 32 bits
                raise ValueError(
                    "a stream of a WaveNet ends after 2,147,483,647 samples: decode_end(), and "
                    "begin another"
                )
            self._frames_given = given
            return self._generate(chunk)
        codes, start, end, keep = window(
            self._codes, chunk, self._frames_given, last, 1, self._decoder_context
        )
        codes = ops.convert_to_numpy(codes)
        # A speaker that is missing is named before latency has passed.
        data = self._data(codes if last else _of_few_sizes(codes)) if codes.shape[1] else {}
        made = np.zeros((self.batch, 0), "float32")
        if end > start:
            whole = self._decode_whole(data, start, end)
            made = whole[:, start * unit : end * unit]
        self._codes, self._frames_given = codes[:, keep:], end - keep
        return made

    def _generate(self, codes: np.ndarray) -> np.ndarray:
        count, made, start = codes.shape[1], [], 0
        by_size = backend.is_compiled_by_size(self._jit_compile)
        for size in sizes.powers_of_two(count) if by_size else [count]:
            part, self._state = self.model.generate_chunk(
                self._state,
                self._data(codes[:, start : start + size]),
                np.int32(self.seed),
                self._temperature,
                self._jit_compile,
            )
            made.append(ops.convert_to_numpy(part))
            start += size
        return np.concatenate(made, 1)

    def _decode_whole(self, data: dict, start: int, end: int) -> np.ndarray:
        if not self.model.has_source:
            return self.model.decode_whole(data, self.batch)
        made, self._source = self.model.decode_chunk(data, self._source, start, end)
        return ops.convert_to_numpy(made)

    def _data(self, codes: np.ndarray) -> dict:
        speakers = self.model.speaker_of_each(self.speaker, self.batch)
        return {"codes": codes} if speakers is None else {"codes": codes, "speaker": speakers}
