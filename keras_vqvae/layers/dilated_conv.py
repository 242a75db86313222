"""Causal convolutions of sound, and the gated block of WaveNet."""

from typing import Any

import keras
from keras import ops

from keras_vqvae import backend
from keras_vqvae.backend import Tensor
from keras_vqvae.layers.composite import Composite


def channels_last(options: dict) -> dict:
    """Returns the arguments of a Keras convolution with channels on the last axis.

    Keras's global `image_data_format` would decide without them, and every layer and model of this
    package has its channels last.

    Raises:
        ValueError: `options` ask for `channels_first`.
    """
    if options.get("data_format") not in (None, "channels_last"):
        raise ValueError(
            f'`data_format` must be "channels_last", got {options["data_format"]!r}. Transpose the '
            "input, for example by keras.layers.Permute."
        )
    return {**options, "data_format": "channels_last"}


def causal(options: dict) -> dict:
    """Returns the arguments of a Keras convolution for one that pads, or cuts, on its own.

    Raises:
        ValueError: `options` ask for `channels_first`, or for padding.
    """
    for name in ("padding", "output_padding"):
        if options.get(name) is not None:
            raise ValueError(
                f"`{name}` must be left out, got {options[name]!r}. A causal convolution has one "
                "padding."
            )
    return {**channels_last(options), "padding": "valid"}


@keras.saving.register_keras_serializable(package="keras_vqvae")
class CausalConv1D(keras.layers.Conv1D):
    """Convolution that sees no later step (van den Oord et al. 2016, "WaveNet", sec. 2.1).

    With strides, output t sees the steps up to the last of its own, `(t + 1) * strides - 1`.
    (Keras's `padding="causal"` stops at the first of them.) There is no shift: output t sees input
    t itself, which an autoregressive model must have moved by one step before.

    Args:
        filters: channels of the output.
        kernel_size: width of the window, any, at least `strides`.
        strides: steps of input a step of output.
        dilation_rate: steps between the window's entries; 1 where there are strides.

    Input: `(batch, steps, any)`, steps divisible by `strides`. Output: `(batch, steps / strides,
    filters)`. Further arguments are those of `keras.layers.Conv1D` but `padding`. Channels are
    last whatever `keras.config.image_data_format()` says.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int,
        strides: int = 1,
        dilation_rate: int = 1,
        **kwargs: Any,
    ) -> None:
        if _one(strides) > 1 and _one(dilation_rate) > 1:
            raise ValueError(
                f"strides={strides} and dilation_rate={dilation_rate} exclude each other: one of "
                "them must be 1"
            )
        super().__init__(
            filters, kernel_size, strides, dilation_rate=dilation_rate, **causal(kwargs)
        )
        if self.kernel_size[0] < self.strides[0]:
            raise ValueError(
                f"kernel_size={kernel_size} is smaller than strides={strides}: steps would be lost"
            )

    @property
    def past(self) -> int:
        """Steps before its own that an output sees."""
        return self.dilation_rate[0] * (self.kernel_size[0] - 1) + 1 - self.strides[0]

    def call(self, x: Tensor) -> Tensor:
        if backend.shape_is_of_data(x):
            self._check_steps(x.shape[1])
        padded = ops.pad(x, [[0, 0], [self.past, 0], [0, 0]])
        if backend.BACKEND == "jax" and self.dilation_rate[0] > 1 and self.groups == 1:
            return self._product(padded, ops.shape(x)[1])
        return super().call(padded)

    def _product(self, padded: Tensor, steps: int) -> Tensor:
        # One product with the window's entries side by side: on an H100 near the rate of its matrix
        # units, where XLA had not chosen a dilated convolution after 100 s (once, beside other
        # work). On two CPU cores a WaveNet's step takes 10 to 20 % longer so.
        starts = range(0, self.past + 1, self.dilation_rate[0])
        window = ops.concatenate([padded[:, start : start + steps] for start in starts], -1)
        out = ops.matmul(window, ops.reshape(self.kernel, (-1, self.filters)))
        out = out if self.bias is None else ops.add(out, self.bias)
        return self.activation(out)

    def _check_steps(self, steps: int | None) -> None:
        if steps is not None and steps % self.strides[0]:
            raise ValueError(
                f"input of {self.name} must have steps that divide by strides={self.strides[0]}, "
                f"got {steps}: pad them"
            )

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        steps = input_shape[1]
        self._check_steps(steps)
        steps = None if steps is None else steps // self.strides[0]
        return (input_shape[0], steps, self.filters)

    def get_config(self) -> dict:
        return {k: v for k, v in super().get_config().items() if k != "padding"}


@keras.saving.register_keras_serializable(package="keras_vqvae")
class CausalConv1DTranspose(keras.layers.Conv1DTranspose):
    """Transposed convolution of which no output sees a later input.

    The outputs of input t are those from `t * strides` to `(t + 1) * strides - 1`.

    Args:
        filters: channels of the output.
        kernel_size: width of the window, at least `strides`.
        strides: steps of output a step of input.

    Input: `(batch, steps, any)`. Output: `(batch, steps * strides, filters)`. Further arguments are
    those of `keras.layers.Conv1DTranspose` but `padding` and `output_padding`. Channels are last
    whatever `keras.config.image_data_format()` says.
    """

    def __init__(self, filters: int, kernel_size: int, strides: int = 1, **kwargs: Any) -> None:
        super().__init__(filters, kernel_size, strides, **causal(kwargs))
        if self.kernel_size[0] < self.strides[0]:
            raise ValueError(
                f"kernel_size={kernel_size} is smaller than strides={strides}: it leaves holes"
            )

    def call(self, x: Tensor) -> Tensor:
        whole = super().call(x)
        beyond = self.dilation_rate[0] * (self.kernel_size[0] - 1) + 1 - self.strides[0]
        return whole[:, : -beyond or None]

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        steps = input_shape[1]
        steps = None if steps is None else steps * self.strides[0]
        return (input_shape[0], steps, self.filters)

    def get_config(self) -> dict:
        return {k: v for k, v in super().get_config().items() if k != "padding"}


@keras.saving.register_keras_serializable(package="keras_vqvae")
class WaveNetBlock(Composite):
    """Gated residual block with a skip output (van den Oord et al. 2016, sec. 2.3 to 2.5, fig. 4).

    `z = tanh(W_f * x + V_f y + U_f h) ⊙ sigmoid(W_g * x + V_g y + U_g h)`, where * is a causal
    dilated convolution, y a local and h a global condition; the outputs are `x + R z` and `S z`.

    Args:
        channels: of the input and the residual output.
        skip_channels: of the skip output.
        kernel_size: width of the convolution, any.
        dilation_rate: steps between its entries.
        last: whether nothing follows that would read the residual output: then there is no R.

    `call(x, local_condition=None, global_condition=None)` takes `x`, `(batch, steps, channels)`; as
    local condition `(batch, n, any)`, where n divides steps and each of the n vectors counts for
    `steps / n` consecutive steps; as global condition `(batch, any)`. It gives two tensors,
    `(batch, steps, channels)` and `(batch, steps, skip_channels)`.

    Raises:
        ValueError: a condition is given that the block was built without, or missing.
    """

    def __init__(
        self,
        channels: int,
        skip_channels: int,
        kernel_size: int = 2,
        dilation_rate: int = 1,
        *,
        last: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.channels = channels
        self.skip_channels = skip_channels
        self.kernel_size = kernel_size
        self.dilation_rate = dilation_rate
        self.last = last
        dtype = self.dtype_policy
        self.conv = CausalConv1D(
            2 * channels, kernel_size, 1, dilation_rate, dtype=dtype, name="conv"
        )
        self.residual = None if last else keras.layers.Dense(channels, dtype=dtype, name="residual")
        self.skip = keras.layers.Dense(skip_channels, dtype=dtype, name="skip")
        self.local_condition: keras.layers.Layer | None = None
        self.global_condition: keras.layers.Layer | None = None

    def build(
        self,
        x_shape: tuple,
        local_condition_shape: tuple | None = None,
        global_condition_shape: tuple | None = None,
    ) -> None:
        if len(x_shape) != 3 or x_shape[-1] != self.channels:
            raise ValueError(
                f"input of {self.name} must have shape (batch, steps, {self.channels}), got "
                f"{tuple(x_shape)}"
            )
        self.conv.build(x_shape)
        if self.residual is not None:
            self.residual.build(x_shape)
        self.skip.build(x_shape)

        def projection(name: str, shape: tuple | None) -> keras.layers.Layer | None:
            if shape is None:
                return None
            made = keras.layers.Dense(
                2 * self.channels, use_bias=False, dtype=self.dtype_policy, name=name
            )
            made.build(shape)
            return made

        self.local_condition = projection("local_condition", local_condition_shape)
        self.global_condition = projection("global_condition", global_condition_shape)

    def call(
        self,
        x: Tensor,
        local_condition: Tensor | None = None,
        global_condition: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        for name, given in {"local": local_condition, "global": global_condition}.items():
            if (given is None) != (getattr(self, f"{name}_condition") is None):
                was = "with" if given is None else "without"
                raise ValueError(f"{self.name} was built {was} a {name} condition; it is not so")
        z = self.conv(x)
        if self.global_condition is not None:
            z = z + self.global_condition(global_condition)[:, None]
        if self.local_condition is not None:
            z = repeat_add(z, self.local_condition(local_condition))
        z = gated(z)
        return x if self.residual is None else x + self.residual(z), self.skip(z)

    def compute_output_shape(
        self,
        x_shape: tuple,
        local_condition_shape: tuple | None = None,
        global_condition_shape: tuple | None = None,
    ) -> tuple:
        return tuple(x_shape), (*x_shape[:-1], self.skip_channels)

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "channels": self.channels,
            "skip_channels": self.skip_channels,
            "kernel_size": self.kernel_size,
            "dilation_rate": self.dilation_rate,
            "last": self.last,
        }


def _one(x: Any) -> int:
    """Keras takes a number, or a tuple of it."""
    return x[0] if isinstance(x, (tuple, list)) else x


def gated(z: Tensor) -> Tensor:
    """tanh of the first half of the channels times sigmoid of the second."""
    signal, gate = ops.split(z, 2, -1)
    return ops.tanh(signal) * ops.sigmoid(gate)


def repeat_add(z: Tensor, condition: Tensor) -> Tensor:
    """Adds `(batch, n, channels)` to `(batch, steps, channels)`, each vector to `steps / n` steps.

    Raises:
        ValueError: n does not divide the steps.
    """
    steps, n = ops.shape(z)[1], ops.shape(condition)[1]
    if isinstance(steps, int) and isinstance(n, int) and (n == 0 or steps % n):
        raise ValueError(f"{n} vectors of a local condition do not divide {steps} steps")
    channels = z.shape[-1]
    each = ops.reshape(z, (-1, steps // n, channels)) + ops.reshape(condition, (-1, 1, channels))
    return ops.reshape(each, (-1, steps, channels))


def reach(layers: list, outputs: int) -> tuple[int, int]:
    """The first and last input in time, the first axis, that some outputs depend on.

    Args:
        layers: in order, convolutions and transposed ones of padding "same", and causal ones.
        outputs: how many, from number 0 on.

    Returns:
        numbers of inputs, of which those before 0 and beyond the end are padding.
    """
    first, last = 0, outputs - 1
    for layer in reversed(layers):
        window, stride = layer.kernel_size[0], layer.strides[0]
        causal = layer.padding == "valid"  # they pad or cut on their own
        if isinstance(layer, (keras.layers.Conv1DTranspose, keras.layers.Conv3DTranspose)):
            cut = 0 if causal else (window - stride) // 2
            first, last = -((window - 1 - cut - first) // stride), (last + cut) // stride
        else:
            span = layer.dilation_rate[0] * (window - 1)
            padding = span + 1 - stride
            left = padding if causal else padding // 2
            first, last = first * stride - left, last * stride - left + span
    return first, last
