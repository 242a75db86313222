"""The convolutional networks of van den Oord et al. 2017, section 4.1, for rank 1, 2 and 3."""

import itertools
import math
from typing import Any

import keras

from keras_vqvae.backend import Tensor
from keras_vqvae.layers.causal_conv3d import CausalConv3D, CausalConv3DTranspose
from keras_vqvae.layers.composite import Composite
from keras_vqvae.layers.dilated_conv import (
    CausalConv1D,
    CausalConv1DTranspose,
    channels_last,
    reach,
)

_CONV = {1: keras.layers.Conv1D, 2: keras.layers.Conv2D, 3: keras.layers.Conv3D}
_TRANSPOSED = {
    1: keras.layers.Conv1DTranspose,
    2: keras.layers.Conv2DTranspose,
    3: keras.layers.Conv3DTranspose,
}
# Of sound and video, whose first axis is time.
_CAUSAL: dict = {1: CausalConv1D, 3: CausalConv3D}
_CAUSAL_TRANSPOSED: dict = {1: CausalConv1DTranspose, 3: CausalConv3DTranspose}


def check_rank(rank: int, causal: bool) -> None:
    """Raises `ValueError` where there are no such convolutions."""
    if rank not in _CONV:
        raise ValueError(f"rank must be 1 (sound), 2 (images) or 3 (video), got {rank!r}")
    if not isinstance(causal, bool):
        raise ValueError(f"causal must be True or False, got {causal!r}")
    if causal and rank not in _CAUSAL:
        raise ValueError(f"causal=True is for rank 1 (sound) and 3 (video), got rank {rank}")


def conv(
    rank: int,
    filters: int,
    window: Any,
    strides: Any = 1,
    *,
    causal: bool = False,
    transposed: bool = False,
    **options: Any,
) -> keras.layers.Layer:
    """Returns a convolution, causal or of padding "same", with channels on the last axis.

    All networks of the package are made of these, so that Keras's global `image_data_format`
    reaches none of them.
    """
    if causal:
        layer = (_CAUSAL_TRANSPOSED if transposed else _CAUSAL)[rank]
    else:
        layer = (_TRANSPOSED if transposed else _CONV)[rank]
        options = {"padding": "same", **options}
    return layer(filters, window, strides, **channels_last(options))


def stage_strides(rank: int, downsampling: int | tuple) -> list[tuple]:
    """Strides, one tuple a strided convolution, that together divide by `downsampling`.

    Args:
        rank: number of axes.
        downsampling: for all axes or one for each; a product of 2, 3, 5 and 7. Each prime factor
            is a convolution, the small ones at the finest stages.
    """
    factors: tuple = (downsampling,) * rank
    if isinstance(downsampling, (tuple, list)):
        factors = tuple(downsampling)
    primes = [_prime_factors(factor) for factor in factors]
    if len(factors) != rank or None in primes:
        several = f", or {rank} of them" if rank > 1 else ""
        raise ValueError(
            f"downsampling must be an integer, a product of 2, 3, 5 and 7 such as 64{several}, got "
            f"{downsampling!r}"
        )
    return list(itertools.zip_longest(*primes, fillvalue=1))  # type: ignore[arg-type]


def _prime_factors(n: Any) -> list[int] | None:
    if not isinstance(n, int) or n < 1:
        return None
    found = []
    for prime in (2, 3, 5, 7):
        while n % prime == 0:
            found.append(prime)
            n //= prime
    return found if n == 1 else None


class _Chain(Composite):
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
        causal: ranks 1 and 3: whether no output sees a later input; time is the first axis.

    Input and output: `(batch, ..., hidden)`.
    """

    def __init__(
        self,
        rank: int,
        hidden: int,
        *,
        residual_hidden: int | None = None,
        blocks: int = 2,
        causal: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_rank(rank, causal)
        self.rank = rank
        self.hidden = hidden
        self.residual_hidden = residual_hidden
        self.blocks = blocks
        self.causal = causal
        if isinstance(blocks, bool) or not isinstance(blocks, int) or blocks < 0:
            raise ValueError(f"residual blocks must be an integer from 0 on, got {blocks!r}")
        inside, dtype = residual_hidden or hidden, self.dtype_policy
        self._convolutions = [
            (
                conv(
                    rank,
                    inside,
                    3,
                    causal=causal,
                    activation="relu",
                    dtype=dtype,
                    name=f"wide_{i}",
                ),
                conv(rank, hidden, 1, dtype=dtype, name=f"narrow_{i}"),
            )
            for i in range(blocks)
        ]

    @property
    def convolutions(self) -> list:
        """The convolutions in order."""
        return [conv for pair in self._convolutions for conv in pair]

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
            "causal": self.causal,
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
        finest_hidden: int | None = None,
        causal: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_rank(rank, causal)
        self.rank = rank
        self.channels = channels
        self.downsampling = downsampling
        self.hidden = hidden
        self.residual_hidden = residual_hidden
        self.residual_blocks = residual_blocks
        self.finest_hidden = finest_hidden
        self.causal = causal
        self._strides = stage_strides(rank, downsampling) or [(1,) * rank]
        self._residual_stack = ResidualStack(
            rank,
            hidden,
            residual_hidden=residual_hidden,
            blocks=residual_blocks,
            causal=causal,
            dtype=self.dtype_policy,
            name="residual_stack",
        )

    def _hidden_at(self, stage: int) -> int:
        """Channels after strided convolution number `stage`, from the finest one on."""
        if self.finest_hidden is None or stage == len(self._strides) - 1:
            return self.hidden
        return min(self.hidden, self.finest_hidden * 2**stage)

    def _strided(self, channels: int, strides: tuple, **options: Any) -> Any:
        # Window 4 where the axis is halved, as in the paper; 3 keeps an axis centred.
        window = tuple(2 * stride if stride > 1 else 3 for stride in strides)
        options = {"causal": self.causal, "dtype": self.dtype_policy, **options}
        return conv(self.rank, channels, window, strides, **options)

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "rank": self.rank,
            "channels": self.channels,
            "downsampling": self.downsampling,
            "hidden": self.hidden,
            "residual_hidden": self.residual_hidden,
            "residual_blocks": self.residual_blocks,
            "finest_hidden": self.finest_hidden,
            "causal": self.causal,
        }


@keras.saving.register_keras_serializable(package="keras_vqvae")
class ConvEncoder(_Coder):
    """Strided convolutions of window 4, a residual stack, a convolution of window 1.

    Args:
        rank: 1, 2 or 3 axes.
        channels: channels of the output, the quantizer's `code_dim`.
        downsampling: for all axes or one for each; a product of 2, 3, 5 and 7, of which each prime
            factor is a strided convolution, of twice its width as window.
        hidden: channels inside; the paper has 256.
        residual_hidden: channels inside the residual blocks; None for `hidden`.
        residual_blocks: number of residual blocks.
        finest_hidden: channels after the first convolution; each further one doubles them up to
            `hidden`. None for `hidden` everywhere, as in the paper.
        causal: ranks 1 and 3: whether no output sees an input after those that it stands for in
            time, the first axis.

    Input: `(batch, ..., any)`. Output: `(batch, ... / downsampling, channels)`.
    """

    def __init__(self, rank: int, channels: int, **kwargs: Any) -> None:
        super().__init__(rank, channels, **kwargs)
        last = len(self._strides) - 1
        options: dict = {}
        if rank == 1:
            # Sound is quiet, and has many stages, each of which would make it quieter (He et al.
            # 2015): of codes that are all alike at first, a decoder learns to do without them.
            options["kernel_initializer"] = "he_normal"
        self._layers_in_order = [
            *(
                # The residual stack begins with a ReLU of its own.
                self._strided(
                    self._hidden_at(i),
                    s,
                    activation="relu" if i < last else None,
                    name=f"down_{i}",
                    **options,
                )
                for i, s in enumerate(self._strides)
            ),
            self._residual_stack,
            conv(rank, channels, 1, dtype=self.dtype_policy, name="last"),
        ]

    @property
    def context(self) -> tuple[int, int]:
        """In time (ranks 1, 3): outputs' worth of input that one sees before and after its own."""
        strided, last = self._layers_in_order[:-2], self._layers_in_order[-1]
        first, last = reach([*strided, *self._residual_stack.convolutions, last], 1)
        unit = math.prod(strides[0] for strides in self._strides)
        return -(first // unit), last // unit


@keras.saving.register_keras_serializable(package="keras_vqvae")
class ConvDecoder(_Coder):
    """A convolution of window 3, a residual stack, transposed convolutions of window 4.

    Args:
        rank: 1, 2 or 3 axes.
        channels: channels of the output, the likelihood's `num_outputs`.
        downsampling: as given to the encoder; each transposed convolution multiplies by a factor.
        hidden: channels inside; the paper has 256.
        residual_hidden: channels inside the residual blocks; None for `hidden`.
        residual_blocks: number of residual blocks.
        finest_hidden: channels before the last convolution; each before it has twice as many, up
            to `hidden`. None for `hidden` everywhere, as in the paper.
        causal: ranks 1 and 3: whether no output sees a later input than its own; time is the
            first axis.

    Input: `(batch, ..., any)`. Output: `(batch, ... * downsampling, channels)`.
    """

    def __init__(self, rank: int, channels: int, **kwargs: Any) -> None:
        super().__init__(rank, channels, **kwargs)
        self._layers_in_order = [
            conv(rank, self.hidden, 3, causal=self.causal, dtype=self.dtype_policy, name="first"),
            self._residual_stack,
            *(
                self._strided(
                    self._hidden_at(i - 1),
                    self._strides[i],
                    transposed=True,
                    activation="relu",
                    name=f"up_{i}",
                )
                for i in range(len(self._strides) - 1, 0, -1)
            ),
            self._strided(channels, self._strides[0], transposed=True, name="up_0"),
        ]

    @property
    def context(self) -> tuple[int, int]:
        """In time (ranks 1 and 3): how many inputs before and after its own an output sees."""
        before, after = self._layers_in_order[0], self._layers_in_order[2:]
        unit = math.prod(strides[0] for strides in self._strides)
        first, last = reach([before, *self._residual_stack.convolutions, *after], unit)
        return -first, last
