"""A decoder of sound that makes all samples at once."""

import math
from collections.abc import Iterator
from typing import Any

import keras
from keras import ops

from keras_vqvae import spectral
from keras_vqvae.backend import Tensor
from keras_vqvae.layers.composite import Composite
from keras_vqvae.layers.dilated_conv import reach
from keras_vqvae.layers.harmonic_source import HarmonicSource
from keras_vqvae.layers.residual import check_rank, conv, stage_strides

# Hz: voices are between them, and a decoder's first guess is the third.
LOWEST, HIGHEST, USUAL = 60.0, 400.0, 150.0


@keras.saving.register_keras_serializable(package="keras_vqvae")
class ParallelDecoder(Composite):
    """Transposed convolutions with dilated residual units, from code vectors to a waveform.

    The shape of SoundStream's decoder (Zeghidour et al. 2021, sec. III.B): a convolution of window
    7, then for each stride a transposed convolution of twice its width and residual units of
    dilations 1, 3 and 9, then a convolution of window 7. Between them is `x + sin²x` (Ziyin et al.
    2020, "Neural networks fail to learn periodic functions and how to fix it"). A condition, such
    as the speaker, scales and shifts the channels of each unit (Perez et al. 2018, "FiLM").

    For speech, give it the `sample_rate`. Then it tells the pitch from codes and condition, and
    adds to what each transposed convolution makes a strided convolution of a `HarmonicSource` at
    that pitch. In training the source follows the pitch of the sound that is to be made
    (`spectral.pitch`), and telling it is learnt beside.

    Args:
        strides: samples a code is their product; the coarsest stage is the first.
        hidden: channels at the rate of the codes; each stage has half as many.
        finest_hidden: channels at least.
        dilations: of the residual units of a stage.
        causal: whether no output sees a later input than its own.
        sample_rate: of voices, in Hz, at least 6400; None for sound of other kinds.
        seed: of the places in the source at which examples begin in training.

    `call(x, condition=None)` takes `(batch, n, any)`, and `(batch, any)`, and gives
    `(batch, n * prod(strides), 1)`, mostly within [-1, 1], in float32 under every dtype policy.
    """

    def __init__(
        self,
        strides: tuple,
        hidden: int = 256,
        *,
        finest_hidden: int = 32,
        dilations: tuple = (1, 3, 9),
        causal: bool = False,
        sample_rate: int | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not isinstance(strides, (tuple, list)) or not strides or min(strides) < 1:
            raise ValueError(f"strides must be some positive integers, got {strides!r}")
        check_rank(1, causal)
        self.strides = tuple(strides)
        self.hidden = hidden
        self.finest_hidden = finest_hidden
        self.dilations = tuple(dilations)
        self.causal = causal
        self.sample_rate = sample_rate
        self.seed = seed
        dtype = self.dtype_policy
        self._first = self._conv("first", hidden, 7)
        self._transposed, self._units = [], []
        for stage, stride in enumerate(self.strides, 1):
            channels = max(hidden // 2**stage, finest_hidden)
            self._transposed.append(
                self._conv(f"up_{stage}", channels, 2 * stride, stride, transposed=True)
            )
            self._units += [
                ResidualUnit(channels, d, causal, dtype=dtype, name=f"unit_{stage}_{i}")
                for i, d in enumerate(self.dilations)
            ]
        # Samples of fewer bits would hiss.
        self._last = self._conv("last", 1, 7, dtype="float32")
        self.source: HarmonicSource | None = None
        if sample_rate is not None:
            self._add_source(sample_rate)

    def _add_source(self, sample_rate: int) -> None:
        dtype = self.dtype_policy
        self.source = HarmonicSource(sample_rate, self.upsampling, dtype=dtype, name="source")
        least = round(2 * HIGHEST * self.source.harmonics)
        if sample_rate < least:
            raise ValueError(
                f"sample_rate={sample_rate} holds no {self.source.harmonics} harmonics of a voice "
                f"of {HIGHEST:.0f} Hz: take {least} or more, or leave it out"
            )
        self._seeds = keras.random.SeedGenerator(self.seed, name="seeds")
        self._listeners = [
            ResidualUnit(self.hidden, d, self.causal, dtype=dtype, name=f"listener_{i}")
            for i, d in enumerate((1, 3))
        ]
        # Whether there is a voice, as a logit, and its pitch in octaves from the usual one.
        self._pitch = conv(1, 2, 1, dtype="float32", name="pitch")
        self._injected, self._gates = [], []
        for stage, up in enumerate(self._transposed, 1):
            stride = math.prod(self.strides[stage:])
            self._injected.append(
                self._conv(f"injected_{stage}", up.filters, max(3, 2 * stride), stride)
            )
            self._gates.append(conv(1, up.filters, 1, dtype=dtype, name=f"gate_{stage}"))

    def _conv(
        self, name: str, channels: int, window: int, stride: int = 1, **options: Any
    ) -> keras.layers.Layer:
        options = {"causal": self.causal, "dtype": self.dtype_policy, **options}
        return conv(1, channels, window, stride, name=name, **options)

    def _stages(self) -> Iterator[tuple]:
        """A transposed convolution and its residual units, from the coarsest stage on."""
        each = len(self.dilations)
        for i, up in enumerate(self._transposed):
            yield up, self._units[i * each : (i + 1) * each]

    @property
    def upsampling(self) -> int:
        """Samples a code."""
        return math.prod(self.strides)

    @property
    def context(self) -> tuple[int, int]:
        """How many inputs before and after its own an output sees.

        Where the source begins (`decode_from`) is told besides.
        """
        before, after = 0, 0
        if self.source is not None:
            heard = reach([self._first, *(unit.wide for unit in self._listeners)], 1)
        tail: list = [self._last]
        for i, (up, units) in reversed(list(enumerate(self._stages()))):
            tail = [*(unit.wide for unit in units), *tail]
            if self.source is not None:
                first, last = reach([self._injected[i], *tail], self.upsampling)
                before = max(before, -(first // self.upsampling) - heard[0])
                after = max(after, last // self.upsampling + heard[1])
            tail = [up, *tail]
        first, last = reach([self._first, *tail], self.upsampling)
        return max(before, -first), max(after, last)

    def build(self, x_shape: tuple, condition_shape: tuple | None = None) -> None:
        shape = tuple(x_shape)
        self._first.build(shape)
        shape = self._first.compute_output_shape(shape)
        if self.source is not None:
            for unit in self._listeners:
                unit.build(shape, condition_shape)
            self._pitch.build(shape)
            self.source.build((None, None))
            for conv in self._injected:
                conv.build((None, None, self.source.harmonics + 1))
        for i, (up, units) in enumerate(self._stages()):
            up.build(shape)
            shape = up.compute_output_shape(shape)
            if self.source is not None:
                self._gates[i].build(shape)
            for unit in units:
                unit.build(shape, condition_shape)
        self._last.build(shape)

    def call(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        x = self._first(x)
        source = None
        if self.source is not None:
            source = self.source(self._told(self._voice(x, condition)))
        return self._shaped(x, condition, source)

    def follow(
        self,
        x: Tensor,
        waveform: Tensor,
        condition: Tensor | None = None,
        training: bool = False,
        mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """As `call`; in training of a source at the pitch of the sound that is to be made.

        Args:
            x: as for `call`.
            waveform: `(batch, n * prod(strides))`, that sound.
            condition: as for `call`.
            training: whether the source follows it, rather than what is told.
            mask: bool `(batch, n)`: which codes are not those of padding; None if all.

        Returns:
            what `call` does, and float32 `(batch,)`: the mean over those codes of the
            cross-entropy of whether there is a voice, in nats, and of how far off its pitch is
            told, in octaves.
        """
        assert self.source is not None, "a decoder without a source follows no pitch"
        pitch = spectral.pitch(waveform, self.source.sample_rate, self.upsampling, LOWEST, HIGHEST)
        x = self._first(x)
        voice = self._voice(x, condition)
        voiced, logit = ops.cast(pitch > 0, "float32"), voice[..., 0]
        entropy = ops.softplus(logit) - voiced * logit
        octaves = ops.log2(ops.maximum(pitch, LOWEST) / USUAL)
        loss = entropy + voiced * ops.abs(voice[..., 1] - octaves)
        if mask is None:
            loss = ops.mean(loss, 1)
        else:
            counted = ops.cast(mask, "float32")
            loss = ops.sum(loss * counted, 1) / ops.maximum(ops.sum(counted, 1), 1.0)
        if not training:
            return self._shaped(x, condition, self.source(self._told(voice))), loss
        # Anywhere in waves and noise, lest the network learn the noise by heart.
        shape = (ops.shape(pitch)[0], 2)
        start = keras.random.randint(shape, 0, 2**31 - 1, "int32", self._seeds)
        return self._shaped(x, condition, self.source(pitch, start)), loss

    def decode_from(
        self, x: Tensor, start: Tensor, given: Any, end: Any, condition: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """As `call`, for a part of a stream.

        Args:
            x: as for `call`.
            start: int32 `(batch, 2)`, where waves and noise are at code `given` (see
                `HarmonicSource`); zeros at the beginning of the stream.
            given: which code of `x` that is.
            end: another code of `x`, or the one after its last.
            condition: as for `call`.

        Returns:
            what `call` does, of all of `x`, and the `start` of code `end`.
        """
        assert self.source is not None, "a decoder without a source needs no start"
        x = self._first(x)
        pitch = self._told(self._voice(x, condition))
        none = ops.zeros_like(start)
        # Turns wrap around; to the place in the noise a whole round is added.
        back = start - self.source.after(pitch, none, given)
        first = ops.stack([back[:, 0], back[:, 1] % self.source.noise_length], 1)
        then = self.source.after(pitch, first, end)
        return self._shaped(x, condition, self.source(pitch, first)), then

    def _voice(self, x: Tensor, condition: Tensor | None) -> Tensor:
        # Codes that are told apart from the speaker shall not learn a pitch: that is the speaker's.
        if condition is not None:
            x = ops.stop_gradient(x)
        for unit in self._listeners:
            x = unit(x, condition)
        return self._pitch(snake(x))

    def _told(self, voice: Tensor) -> Tensor:
        """In Hz, 0 where there is no voice."""
        # In steps of ten cents, lest rounding, other in a stream than in the whole, add up.
        octaves = ops.round(voice[..., 1] * 120.0) / 120.0
        pitch = ops.clip(USUAL * 2.0**octaves, LOWEST, HIGHEST)
        return ops.stop_gradient(ops.where(voice[..., 0] > 0, pitch, 0.0))

    def _shaped(self, x: Tensor, condition: Tensor | None, source: Tensor | None) -> Tensor:
        for i, (up, units) in enumerate(self._stages()):
            x = up(snake(x))
            if source is not None:
                # A product: how loud each part of the source is, is what codes say.
                x = x + self._gates[i](x) * self._injected[i](source)
            for unit in units:
                x = unit(x, condition)
        return self._last(snake(x))

    def compute_output_shape(self, x_shape: tuple, condition_shape: tuple | None = None) -> tuple:
        n = x_shape[1]
        return (x_shape[0], None if n is None else n * self.upsampling, 1)

    def compute_output_spec(self, x: Tensor, condition: Tensor | None = None) -> keras.KerasTensor:
        """The symbolic output: float32 under every policy."""
        condition_shape = None if condition is None else condition.shape
        return keras.KerasTensor(self.compute_output_shape(x.shape, condition_shape), "float32")

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "strides": self.strides,
            "hidden": self.hidden,
            "finest_hidden": self.finest_hidden,
            "dilations": self.dilations,
            "causal": self.causal,
            "sample_rate": self.sample_rate,
            "seed": self.seed,
        }


@keras.saving.register_keras_serializable(package="keras_vqvae")
class ResidualUnit(Composite):
    """x + conv1(snake(film(conv3(snake(x))))), the inner convolution dilated."""

    def __init__(self, channels: int, dilation_rate: int, causal: bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.channels = channels
        self.dilation_rate = dilation_rate
        self.causal = causal
        dtype = self.dtype_policy
        self.wide = conv(
            1, channels, 3, causal=causal, dilation_rate=dilation_rate, dtype=dtype, name="wide"
        )
        # However many units there are, a fresh decoder is about as loud as what it is given: of
        # Glorot's weights 18 units make noise at thirty times full scale, from which none learns.
        small = keras.initializers.VarianceScaling(0.01, "fan_avg", "uniform")
        self.narrow = conv(1, channels, 1, kernel_initializer=small, dtype=dtype, name="narrow")
        self.film: keras.layers.Layer | None = None

    def build(self, x_shape: tuple, condition_shape: tuple | None = None) -> None:
        self.wide.build(x_shape)
        self.narrow.build(x_shape)
        if condition_shape is not None:
            # Scales near 1: of ten units they multiply.
            small = keras.initializers.VarianceScaling(0.1, "fan_in")
            self.film = keras.layers.Dense(
                2 * self.channels, kernel_initializer=small, dtype=self.dtype_policy, name="film"
            )
            self.film.build(condition_shape)

    def call(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        if (condition is None) != (self.film is None):
            was = "with" if condition is None else "without"
            raise ValueError(f"the decoder was built {was} a condition, and is called otherwise")
        inner = self.wide(snake(x))
        if self.film is not None:
            scale, shift = ops.split(self.film(condition)[:, None], 2, -1)
            inner = inner * (1.0 + scale) + shift
        return x + self.narrow(snake(inner))

    def compute_output_shape(self, x_shape: tuple, condition_shape: tuple | None = None) -> tuple:
        return tuple(x_shape)

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "channels": self.channels,
            "dilation_rate": self.dilation_rate,
            "causal": self.causal,
        }


def decoder_strides(downsampling: int) -> tuple:
    """Strides of a decoder, the coarsest stage first: primes, fours, and a two that is left."""
    primes = [prime for (prime,) in stage_strides(1, downsampling)]
    twos, others = primes.count(2), [prime for prime in primes if prime > 2]
    return (*others[::-1], *[4] * (twos // 2), *[2] * (twos % 2)) or (1,)


def snake(x: Tensor) -> Tensor:
    """x + sin²x: grows as x does, and is periodic on the way, as voices are."""
    return x + ops.square(ops.sin(x))
