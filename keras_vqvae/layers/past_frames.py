"""What past frames and an action say about the next frame."""

from typing import Any

import keras
from keras import ops

from keras_vqvae.backend import Tensor
from keras_vqvae.layers.composite import Composite
from keras_vqvae.layers.residual import conv
from keras_vqvae.layers.transport import Transport


@keras.saving.register_keras_serializable(package="keras_vqvae")
class PastFrames(Composite):
    """Maps for the next frame, of the frames before it and of the action taken in the last.

    A convolution over all the past frames at once (a causal one in time, as wide as there are
    frames), then gated residual blocks, `x + W (tanh(f) ⊙ sigmoid(g))`. Halfway `Transport` moves
    the frames' vectors to where they are expected, and later blocks see them there. The action a
    scales and shifts what goes in, `f, g = (W * x) ⊙ (1 + V a) + U a`, from the beginning by
    much: so different actions move the picture differently (Oh et al. 2015, "Action-conditional
    video prediction", found products to be what it takes).
    Each place has a vector of its own: going forward moves the left of a picture to the left and
    the right of it to the right.

    Args:
        filters: channels of the output.
        dilations: of the blocks, each with a window of 3×3.
        reach: how far vectors move, in (rows, columns) of places.

    `call(frames, action=None)` takes `(batch, time, height, width, channels)`, and `(batch, any)`
    floats or None; it gives the maps, `(batch, height, width, filters)`, and the moved vectors,
    `(batch, height, width, channels)`.
    """

    def __init__(
        self,
        filters: int,
        dilations: tuple = (1, 2, 4, 1, 2, 4),
        reach: tuple = (1, 4),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not dilations:
            raise ValueError("dilations must be of at least one block, got none")
        self.filters = filters
        self.dilations = tuple(dilations)
        dtype = self.dtype_policy
        self._first = conv(2, filters, 3, dtype=dtype, name="first")
        self._wide = [
            conv(2, 2 * filters, 3, dilation_rate=d, dtype=dtype, name=f"wide_{i}")
            for i, d in enumerate(self.dilations)
        ]
        self._narrow = [
            keras.layers.Dense(filters, dtype=dtype, name=f"narrow_{i}")
            for i in range(len(self.dilations))
        ]
        self._transport = Transport(reach, dtype=dtype, name="transport")
        self._take_in = keras.layers.Dense(filters, dtype=dtype, name="take_in")
        self._actions: list = []

    def build(self, frames_shape: tuple, action_shape: tuple | None = None) -> None:
        if len(frames_shape) != 5 or None in frames_shape[1:]:
            raise ValueError(
                f"frames of {self.name} must be (batch, time, height, width, channels), all but "
                f"the batch known, got {tuple(frames_shape)}"
            )
        _, time, height, width, channels = frames_shape
        self._places = self.add_weight(
            name="places", shape=(height, width, self.filters), initializer="zeros"
        )
        self._first.build((None, height, width, time * channels))
        for wide, narrow in zip(self._wide, self._narrow, strict=True):
            wide.build((None, height, width, self.filters))
            narrow.build((None, height, width, self.filters))
        self._transport.build(frames_shape, (None, height, width, self.filters))
        self._take_in.build((None, height, width, channels))
        if action_shape is not None:
            self._actions = [
                keras.layers.Dense(
                    4 * self.filters,
                    use_bias=False,
                    kernel_initializer=keras.initializers.RandomNormal(stddev=0.5),
                    dtype=self.dtype_policy,
                    name=f"action_{i}",
                )
                for i in range(len(self.dilations))
            ]
            for dense in self._actions:
                dense.build(action_shape)

    def call(self, frames: Tensor, action: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if (action is None) != (not self._actions):
            was = "with" if self._actions else "without"
            raise ValueError(f"{self.name} was built {was} an action, and is called otherwise")
        _, time, height, width, channels = frames.shape
        stacked = ops.reshape(
            ops.transpose(frames, (0, 2, 3, 1, 4)), (-1, height, width, time * channels)
        )
        x = self._first(stacked) + ops.cast(self._places, self.compute_dtype)
        moved, halfway = None, len(self.dilations) // 2
        for number, (wide, narrow) in enumerate(zip(self._wide, self._narrow, strict=True)):
            if number == halfway:
                moved = self._transport(frames, x)
                x = x + self._take_in(moved)
            gates = wide(x)
            if action is not None:
                scale, shift = ops.split(self._actions[number](action)[:, None, None], 2, -1)
                gates = gates * (1.0 + scale) + shift
            signal, gate = ops.split(gates, 2, -1)
            x = x + narrow(ops.tanh(signal) * ops.sigmoid(gate))
        return ops.relu(x), moved

    def compute_output_shape(
        self, frames_shape: tuple, action_shape: tuple | None = None
    ) -> tuple[tuple, tuple]:
        grid = (frames_shape[0], *frames_shape[2:4])
        return (*grid, self.filters), (*grid, frames_shape[-1])

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "filters": self.filters,
            "dilations": self.dilations,
            "reach": self._transport.reach,
        }
