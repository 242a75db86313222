"""The convolutional networks of van den Oord et al. 2017, section 4.1, for rank 1, 2 and 3."""

import math
from typing import Any

import keras

from keras_vqvae.backend import Tensor

_CONV = {1: keras.layers.Conv1D, 2: keras.layers.Conv2D, 3: keras.layers.Conv3D}
_TRANSPOSED = {
    1: keras.layers.Conv1DTranspose,
    2: keras.layers.Conv2DTranspose,
    3: keras.layers.Conv3DTranspose,
}


def _check_rank(rank: int) -> None:
    if rank not in _CONV:
        raise ValueError(f"rank must be 1 (sound), 2 (images) or 3 (video), got {rank!r}")


def stage_strides(rank: int, downsampling: int | tuple) -> list[tuple]:
    """Strides, one tuple a strided convolution, that together divide by `downsampling`.

    Args:
        rank: number of axes.
        downsampling: a power of two, for all axes or one for each.
    """
    factors: tuple = (downsampling,) * rank
    if isinstance(downsampling, (tuple, list)):
        factors = tuple(downsampling)
    if len(factors) != rank or any(not isinstance(f, int) or f < 1 or f & (f - 1) for f in factors):
        raise ValueError(
            f"downsampling must be a power of two, or {rank} of them, got {downsampling!r}"
        )
    stages = int(math.log2(max(factors)))
    return [tuple(2 if f >> (stage + 1) else 1 for f in factors) for stage in range(stages)]


class _Chain(keras.layers.Layer):
    """Layers one after the other; what the networks below share."""

    _layers_in_order: list

    def build(self, input_shape: tuple) -> None:
        for layer in self._layers_in_order:
            layer.build(input_shape)
            input_shape = layer.compute_output_shape(input_shape)

    def call(self, x: Tensor) -> Tensor:
        for layer in self._layers_in_order:
            x = layer(x)
        return x

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        for layer in self._layers_in_order:
            input_shape = layer.compute_output_shape(input_shape)
        return tuple(input_shape)


@keras.saving.register_keras_serializable(package="keras_vqvae")
class ResidualStack(_Chain):
    """Residual blocks (ReLU, convolution of window 3, ReLU, convolution of window 1), then ReLU.

    Args:
        rank: 1, 2 or 3 axes to convolve over.
        hidden: channels of the input and output.
        residual_hidden: channels inside a block; None for `hidden`, as in the paper.
        blocks: number of blocks; the paper has two.

    Input and output: `(batch, ..., hidden)`.
    """

    def __init__(
        self,
        rank: int,
        hidden: int,
        *,
        residual_hidden: int | None = None,
        blocks: int = 2,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        _check_rank(rank)
        self.rank = rank
        self.hidden = hidden
        self.residual_hidden = residual_hidden
        self.blocks = blocks
        conv, inside, dtype = _CONV[rank], residual_hidden or hidden, self.dtype_policy
        self._convolutions = [
            (
                conv(inside, 3, padding="same", activation="relu", dtype=dtype),
                conv(hidden, 1, dtype=dtype),
            )
            for _ in range(blocks)
        ]

    def build(self, input_shape: tuple) -> None:
        if len(input_shape) != self.rank + 2 or input_shape[-1] != self.hidden:
            raise ValueError(
                f"input of {self.name} must have rank {self.rank + 2} and {self.hidden} channels, "
                f"got shape {tuple(input_shape)}"
            )
        for wide, narrow in self._convolutions:
            wide.build(input_shape)
            narrow.build(wide.compute_output_shape(input_shape))

    def call(self, x: Tensor) -> Tensor:
        for wide, narrow in self._convolutions:
            x = x + narrow(wide(keras.ops.relu(x)))
        return keras.ops.relu(x)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return tuple(input_shape)

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "rank": self.rank,
            "hidden": self.hidden,
            "residual_hidden": self.residual_hidden,
            "blocks": self.blocks,
        }


class _Coder(_Chain):
    """Arguments and configuration that encoder and decoder have in common."""

    def __init__(
        self,
        rank: int,
        channels: int,
        *,
        downsampling: int | tuple = 4,
        hidden: int = 256,
        residual_hidden: int | None = None,
        residual_blocks: int = 2,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        _check_rank(rank)
        self.rank = rank
        self.channels = channels
        self.downsampling = downsampling
        self.hidden = hidden
        self.residual_hidden = residual_hidden
        self.residual_blocks = residual_blocks
        self._strides = stage_strides(rank, downsampling) or [(1,) * rank]
        self._residual_stack = ResidualStack(
            rank,
            hidden,
            residual_hidden=residual_hidden,
            blocks=residual_blocks,
            dtype=self.dtype_policy,
        )

    def _strided(self, layer: type, channels: int, strides: tuple, **options: Any) -> Any:
        # Window 4 where the axis is halved, as in the paper; 3 keeps an axis centred.
        window = tuple(4 if stride == 2 else 3 for stride in strides)
        return layer(channels, window, strides, padding="same", dtype=self.dtype_policy, **options)

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "rank": self.rank,
            "channels": self.channels,
            "downsampling": self.downsampling,
            "hidden": self.hidden,
            "residual_hidden": self.residual_hidden,
            "residual_blocks": self.residual_blocks,
        }


@keras.saving.register_keras_serializable(package="keras_vqvae")
class ConvEncoder(_Coder):
    """Strided convolutions of window 4, a residual stack, a convolution of window 1.

    Args:
        rank: 1, 2 or 3 axes.
        channels: channels of the output, the quantizer's `code_dim`.
        downsampling: a power of two, for all axes or one for each; each strided convolution
            halves.
        hidden: channels inside; the paper has 256.
        residual_hidden: channels inside the residual blocks; None for `hidden`.
        residual_blocks: number of residual blocks.

    Input: `(batch, ..., any)`. Output: `(batch, ... / downsampling, channels)`.
    """

    def __init__(self, rank: int, channels: int, **kwargs: Any) -> None:
        super().__init__(rank, channels, **kwargs)
        conv = _CONV[rank]
        self._layers_in_order = [
            *(self._strided(conv, self.hidden, s, activation="relu") for s in self._strides[:-1]),
            # The residual stack begins with a ReLU of its own.
            *(self._strided(conv, self.hidden, s) for s in self._strides[-1:]),
            *(
                []
                if self._strides
                else [conv(self.hidden, 3, padding="same", dtype=self.dtype_policy)]
            ),
            self._residual_stack,
            conv(channels, 1, dtype=self.dtype_policy),
        ]


@keras.saving.register_keras_serializable(package="keras_vqvae")
class ConvDecoder(_Coder):
    """A convolution of window 3, a residual stack, transposed convolutions of window 4.

    Args:
        rank: 1, 2 or 3 axes.
        channels: channels of the output, the likelihood's `num_outputs`.
        downsampling: as given to the encoder; each transposed convolution doubles.
        hidden: channels inside; the paper has 256.
        residual_hidden: channels inside the residual blocks; None for `hidden`.
        residual_blocks: number of residual blocks.

    Input: `(batch, ..., any)`. Output: `(batch, ... * downsampling, channels)`.
    """

    def __init__(self, rank: int, channels: int, **kwargs: Any) -> None:
        super().__init__(rank, channels, **kwargs)
        conv, transposed = _CONV[rank], _TRANSPOSED[rank]
        strides = self._strides[::-1]
        self._layers_in_order = [
            conv(self.hidden, 3, padding="same", dtype=self.dtype_policy),
            self._residual_stack,
            *(self._strided(transposed, self.hidden, s, activation="relu") for s in strides[:-1]),
            *(self._strided(transposed, channels, s) for s in strides[-1:]),
        ]
