"""The network of WaveNet: whole sequences at once, and step by step."""

from collections.abc import Callable
from numbers import Integral
from typing import Any

import keras
from keras import ops

from keras_vqvae.backend import Tensor
from keras_vqvae.layers.composite import Composite
from keras_vqvae.layers.dilated_conv import WaveNetBlock, gated

DILATIONS = tuple(2**i for i in range(10)) * 3


@keras.saving.register_keras_serializable(package="keras_vqvae")
class WaveNetStack(Composite):
    """Dilated blocks, their skip outputs summed, and two layers on top.

    van den Oord et al. 2016, "WaveNet", fig. 4. There is no shift in it: output i sees input i.

    Args:
        num_outputs: channels of the output.
        channels: of the input and between the blocks.
        skip_channels: of the skip outputs and of the layer on top.
        kernel_size: width of the dilated convolutions, any.
        dilations: of the blocks, in order.

    `call(x, local_condition=None, global_condition=None)` takes `x`, `(batch, steps, channels)`,
    and conditions as `WaveNetBlock` does, and gives `(batch, steps, num_outputs)`.
    """

    def __init__(
        self,
        num_outputs: int,
        channels: int = 64,
        skip_channels: int = 256,
        *,
        kernel_size: int = 2,
        dilations: tuple = DILATIONS,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        whole = isinstance(dilations, (tuple, list)) and len(dilations) > 0
        if not whole or not all(isinstance(d, Integral) and int(d) > 0 for d in dilations):
            raise ValueError(f"dilations must be some positive integers, got {dilations!r}")
        if kernel_size < 2:
            raise ValueError(f"kernel_size must be at least 2, got {kernel_size!r}")
        self.num_outputs = num_outputs
        self.channels = channels
        self.skip_channels = skip_channels
        self.kernel_size = kernel_size
        self.dilations = tuple(dilations)
        dtype = self.dtype_policy
        last = len(self.dilations) - 1
        self._blocks = [
            WaveNetBlock(
                channels,
                skip_channels,
                kernel_size,
                d,
                last=i == last,
                dtype=dtype,
                name=f"block_{i}",
            )
            for i, d in enumerate(self.dilations)
        ]
        self._top = keras.layers.Dense(skip_channels, dtype=dtype, name="top")
        self._outputs = keras.layers.Dense(num_outputs, dtype=dtype, name="outputs")

    @property
    def receptive_field(self) -> int:
        """How many inputs an output sees, its own included."""
        return (self.kernel_size - 1) * sum(self.dilations) + 1

    def build(
        self,
        x_shape: tuple,
        local_condition_shape: tuple | None = None,
        global_condition_shape: tuple | None = None,
    ) -> None:
        for block in self._blocks:
            block.build(x_shape, local_condition_shape, global_condition_shape)
        skip = (*x_shape[:-1], self.skip_channels)
        self._top.build(skip)
        self._outputs.build(skip)

    def call(
        self,
        x: Tensor,
        local_condition: Tensor | None = None,
        global_condition: Tensor | None = None,
    ) -> Tensor:
        total: Tensor = 0.0
        for block in self._blocks:
            x, skip = block(x, local_condition, global_condition)
            total = total + skip
        return self._outputs(ops.relu(self._top(ops.relu(total))))

    def initial_buffers(self, batch: Any) -> list:
        """The inputs of each block's convolution before there are any: zeros, as rings."""
        # With a place for the newest: were it that of the oldest, which is still to be read, XLA
        # would copy the whole ring at every step.
        sizes = [(self.kernel_size - 1) * d + 1 for d in self.dilations]
        return [ops.zeros((size, batch, self.channels), self.compute_dtype) for size in sizes]

    def generator(self) -> "Generator":
        """The network for use step by step."""
        return Generator(self)

    def compute_output_shape(
        self,
        x_shape: tuple,
        local_condition_shape: tuple | None = None,
        global_condition_shape: tuple | None = None,
    ) -> tuple:
        return (*x_shape[:-1], self.num_outputs)

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "num_outputs": self.num_outputs,
            "channels": self.channels,
            "skip_channels": self.skip_channels,
            "kernel_size": self.kernel_size,
            "dilations": self.dilations,
        }


class Generator:
    """A `WaveNetStack` step by step; its weights are read, and laid side by side, when it is made.

    Make it outside of the loop over steps.

    Args:
        stack: built.
    """

    def __init__(self, stack: WaveNetStack) -> None:
        self.dilations = stack.dilations
        self.taps = stack.kernel_size
        self.channels = stack.channels
        blocks, dtype = stack._blocks, stack.compute_dtype

        def read(variable: keras.Variable) -> Tensor:
            return ops.cast(ops.convert_to_tensor(variable), dtype)

        def product(layer: keras.layers.Dense) -> Callable:
            """What the layer does, but for its bias."""
            if layer.quantization_mode is not None:  # its inputs are rounded too
                bias = 0.0 if layer.bias is None else read(layer.bias)
                return lambda x: layer(x) - bias
            kernel = read(layer.kernel)
            return lambda x: ops.matmul(x, kernel)

        width = self.taps * self.channels
        self._conv = [ops.reshape(read(b.conv.kernel), (width, -1)) for b in blocks]
        self._conv_bias = ops.stack([read(b.conv.bias) for b in blocks])
        residuals = [b.residual for b in blocks if b.residual is not None]  # the last has none
        self._residual = [product(r) for r in residuals]
        # What the biases of the blocks before add to the input of each.
        self._offsets: list = [None]
        for r in residuals:
            before = self._offsets[-1]
            self._offsets.append(read(r.bias) if before is None else before + read(r.bias))
        self._skip = [product(b.skip) for b in blocks]
        self._skip_bias = sum(read(b.skip.bias) for b in blocks)
        self._top = product(stack._top), read(stack._top.bias)
        self._outputs = product(stack._outputs), read(stack._outputs.bias)

        def projection(layers: list) -> Callable | None:
            """Of a condition for all blocks, `(batch, any)`: `(blocks, batch, 2 * channels)`."""
            if layers[0] is None:
                return None
            if any(layer.quantization_mode is not None for layer in layers):
                return lambda x: ops.stack([layer(x) for layer in layers])
            kernels = ops.stack([read(layer.kernel) for layer in layers])
            return lambda x: ops.einsum("bc,lcd->lbd", ops.cast(x, dtype), kernels)

        self._conditions = [
            projection([getattr(b, name) for b in blocks])
            for name in ("local_condition", "global_condition")
        ]

    def addend(self, local: Tensor | None, global_: Tensor | None) -> Tensor:
        """What conditions, and biases, add inside each block.

        Args:
            local, global_: `(batch, any)`, where the stack was built with them.

        Returns:
            `(blocks, batch or 1, 2 * channels)`.
        """
        total = self._conv_bias[:, None]
        for given, project in zip((local, global_), self._conditions, strict=True):
            if project is not None:
                total = total + project(given)
        return total

    def step(self, buffers: list, addend: Tensor, x: Tensor, position: Tensor) -> tuple:
        """One step.

        Args:
            buffers: as `initial_buffers` or the step before gave them.
            addend: from `addend`.
            x: the input `(batch, channels)`.
            position: int32 scalar, how many steps there were before.

        Returns:
            the output `(batch, num_outputs)`, and the buffers.
        """
        after: list = []
        total = self._skip_bias
        for number, (buffer, dilation) in enumerate(zip(buffers, self.dilations, strict=True)):
            size = buffer.shape[0]
            # The sum of products goes on without biases, which are added where it is used: with
            # them XLA's fusion would, at each block, add up all blocks before once more (at
            # batch 16 that was half of the time).
            offset = self._offsets[number]
            h = x if offset is None else x + offset
            # Written first, then read from what was written, in place (see `initial_buffers`).
            buffer = ops.scatter_update(buffer, [[position % size]], h[None])
            after.append(buffer)
            past = [
                buffer[(position + size - i * dilation) % size] for i in range(self.taps - 1, 0, -1)
            ]
            window = ops.concatenate([*past, h], -1)
            z = gated(ops.matmul(window, self._conv[number]) + addend[number])
            # A product a block: the weights are used while in reach, and nothing is laid together.
            total = total + self._skip[number](z)
            if number < len(self._residual):
                x = x + self._residual[number](z)
        for product, bias in (self._top, self._outputs):
            total = product(ops.relu(total)) + bias
        return total, after
