"""Convolutions of video that see no later frame."""

from typing import Any

import keras
from keras import ops

from keras_vqvae.backend import Tensor
from keras_vqvae.layers.dilated_conv import causal


@keras.saving.register_keras_serializable(package="keras_vqvae")
class CausalConv3D(keras.layers.Conv3D):
    """Convolution over time, height and width: causal in time, of padding "same" in space.

    With strides, output t sees the frames up to the last of its own, `(t + 1) * strides - 1`.

    Args:
        filters: channels of the output.
        kernel_size: of the window, for all axes or one for each, at least `strides`.
        strides: of time, height and width; their axes must be divisible by it.

    Input: `(batch, time, height, width, any)`. Output: `(batch, time / stride, height / stride,
    width / stride, filters)`. Further arguments are those of `keras.layers.Conv3D` but `padding`.
    Channels are last whatever `keras.config.image_data_format()` says.
    """

    def __init__(
        self, filters: int, kernel_size: int | tuple, strides: int | tuple = 1, **kwargs: Any
    ) -> None:
        super().__init__(filters, kernel_size, strides, **causal(kwargs))
        _check_windows(self, "frames would be lost")

    def call(self, x: Tensor) -> Tensor:
        return super().call(ops.pad(x, [(0, 0), *_beyond(self), (0, 0)]))

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        sides = [
            None if side is None else side // stride
            for side, stride in zip(input_shape[1:-1], self.strides, strict=True)
        ]
        return (input_shape[0], *sides, self.filters)

    def get_config(self) -> dict:
        return {k: v for k, v in super().get_config().items() if k != "padding"}


@keras.saving.register_keras_serializable(package="keras_vqvae")
class CausalConv3DTranspose(keras.layers.Conv3DTranspose):
    """Transposed convolution of which no output sees a later input in time.

    The outputs of input t are the frames from `t * stride` to `(t + 1) * stride - 1`.

    Args:
        filters: channels of the output.
        kernel_size: of the window, for all axes or one for each, at least `strides`.
        strides: of time, height and width.

    Input: `(batch, time, height, width, any)`. Output: `(batch, time * stride, height * stride,
    width * stride, filters)`. Further arguments are those of `keras.layers.Conv3DTranspose` but
    `padding` and `output_padding`. Channels are last whatever `keras.config.image_data_format()`
    says.
    """

    def __init__(
        self, filters: int, kernel_size: int | tuple, strides: int | tuple = 1, **kwargs: Any
    ) -> None:
        super().__init__(filters, kernel_size, strides, **causal(kwargs))
        _check_windows(self, "it leaves holes")
        if set(self.dilation_rate) != {1}:
            raise ValueError(
                f"`dilation_rate` must be 1, got {self.dilation_rate}. Most CPUs have no dilated "
                "transposed convolution over three axes."
            )

    def call(self, x: Tensor) -> Tensor:
        whole = super().call(x)
        # What a window reaches beyond the frames of its input falls on later ones: it is the end
        # that is cut off.
        (after, _), (top, bottom), (left, right) = _beyond(self)
        return whole[:, : -after or None, top : -bottom or None, left : -right or None]

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        sides = [
            None if side is None else side * stride
            for side, stride in zip(input_shape[1:-1], self.strides, strict=True)
        ]
        return (input_shape[0], *sides, self.filters)

    def get_config(self) -> dict:
        return {k: v for k, v in super().get_config().items() if k != "padding"}


def _check_windows(layer: Any, why: str) -> None:
    if any(w < s for w, s in zip(layer.kernel_size, layer.strides, strict=True)):
        raise ValueError(
            f"kernel_size={layer.kernel_size} is smaller than strides={layer.strides}: {why}"
        )


def _beyond(layer: Any) -> list[tuple[int, int]]:
    """What a window sees before and after the inputs of its output: time, height, width."""
    time, *sides = (
        dilation * (window - 1) + 1 - stride
        for window, stride, dilation in zip(
            layer.kernel_size, layer.strides, layer.dilation_rate, strict=True
        )
    )
    return [(time, 0), *((side // 2, side - side // 2) for side in sides)]
