"""A decoder of sound that makes all samples at once."""

import math
from collections.abc import Iterator
from typing import Any

import keras
from keras import ops

from keras_vqvae.backend import Tensor
from keras_vqvae.layers.dilated_conv import CausalConv1D, CausalConv1DTranspose, reach


@keras.saving.register_keras_serializable(package="keras_vqvae")
class ParallelDecoder(keras.layers.Layer):
    """Transposed convolutions with dilated residual units, from code vectors to a waveform.

    The shape of SoundStream's decoder (Zeghidour et al. 2021, sec. III.B): a convolution of window
    7, then for each stride a transposed convolution of twice its width and residual units of
    dilations 1, 3 and 9, then a convolution of window 7. Between them is `x + sin²x` (Ziyin et al.
    2020, "Neural networks fail to learn periodic functions and how to fix it"). A condition, such
    as the speaker, scales and shifts the channels of each unit (Perez et al. 2018, "FiLM").

    Args:
        strides: samples a code is their product; the coarsest stage is the first.
        hidden: channels at the rate of the codes; each stage has half as many.
        finest_hidden: channels at least.
        dilations: of the residual units of a stage.
        causal: whether no output sees a later input than its own.

    `call(x, condition=None)` takes `(batch, n, any)`, and `(batch, any)`, and gives
    `(batch, n * prod(strides), 1)`, mostly within [-1, 1].
    """

    def __init__(
        self,
        strides: tuple,
        hidden: int = 256,
        *,
        finest_hidden: int = 32,
        dilations: tuple = (1, 3, 9),
        causal: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.strides = tuple(strides)
        self.hidden = hidden
        self.finest_hidden = finest_hidden
        self.dilations = tuple(dilations)
        self.causal = causal
        dtype = self.dtype_policy
        self._first = self._conv(hidden, 7)
        self._transposed, self._units = [], []
        for stage, stride in enumerate(self.strides, 1):
            channels = max(hidden // 2**stage, finest_hidden)
            if causal:
                up = CausalConv1DTranspose(channels, 2 * stride, stride, dtype=dtype)
            else:
                up = keras.layers.Conv1DTranspose(
                    channels, 2 * stride, stride, padding="same", dtype=dtype
                )
            self._transposed.append(up)
            self._units += [ResidualUnit(channels, d, causal, dtype=dtype) for d in self.dilations]
        self._last = self._conv(1, 7)

    def _conv(self, channels: int, window: int) -> keras.layers.Layer:
        if self.causal:
            return CausalConv1D(channels, window, dtype=self.dtype_policy)
        return keras.layers.Conv1D(channels, window, padding="same", dtype=self.dtype_policy)

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
        """How many inputs before and after its own an output sees."""
        layers = [self._first]
        for up, units in self._stages():
            layers += [up, *(unit.wide for unit in units)]
        first, last = reach([*layers, self._last], self.upsampling)
        return -first, last

    def build(self, x_shape: tuple, condition_shape: tuple | None = None) -> None:
        shape = tuple(x_shape)
        self._first.build(shape)
        shape = self._first.compute_output_shape(shape)
        for up, units in self._stages():
            up.build(shape)
            shape = up.compute_output_shape(shape)
            for unit in units:
                unit.build(shape, condition_shape)
        self._last.build(shape)

    def call(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        x = self._first(x)
        for up, units in self._stages():
            x = up(snake(x))
            for unit in units:
                x = unit(x, condition)
        return self._last(snake(x))

    def compute_output_shape(self, x_shape: tuple, condition_shape: tuple | None = None) -> tuple:
        n = x_shape[1]
        return (x_shape[0], None if n is None else n * self.upsampling, 1)

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "strides": self.strides,
            "hidden": self.hidden,
            "finest_hidden": self.finest_hidden,
            "dilations": self.dilations,
            "causal": self.causal,
        }


@keras.saving.register_keras_serializable(package="keras_vqvae")
class ResidualUnit(keras.layers.Layer):
    """x + conv1(snake(film(conv3(snake(x))))), the inner convolution dilated."""

    def __init__(self, channels: int, dilation_rate: int, causal: bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.channels = channels
        self.dilation_rate = dilation_rate
        self.causal = causal
        dtype = self.dtype_policy
        if causal:
            self.wide = CausalConv1D(channels, 3, dilation_rate=dilation_rate, dtype=dtype)
        else:
            self.wide = keras.layers.Conv1D(
                channels, 3, padding="same", dilation_rate=dilation_rate, dtype=dtype
            )
        self.narrow = keras.layers.Conv1D(channels, 1, dtype=dtype)
        self.film: keras.layers.Layer | None = None

    def build(self, x_shape: tuple, condition_shape: tuple | None = None) -> None:
        self.wide.build(x_shape)
        self.narrow.build(x_shape)
        if condition_shape is not None:
            self.film = keras.layers.Dense(2 * self.channels, dtype=self.dtype_policy)
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


def snake(x: Tensor) -> Tensor:
    """x + sin²x: grows as x does, and is periodic on the way, as voices are."""
    return x + ops.square(ops.sin(x))
