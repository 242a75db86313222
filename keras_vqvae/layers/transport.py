"""Vectors of past frames, moved to where they are expected in the next one."""

import math
from typing import Any

import keras
from keras import ops

from keras_vqvae.backend import Tensor
from keras_vqvae.layers.composite import Composite

# Of the weight of a vector that stays where it was in the last frame, at the beginning: what is
# not understood yet is expected not to move.
_STAYS = 3.0
_NEVER = -1e9


@keras.saving.register_keras_serializable(package="keras_vqvae")
class Transport(Composite):
    """A convex combination of the vectors nearby in past frames, at each place.

    Finn et al. 2016, "Unsupervised Learning for Physical Interaction through Video Prediction",
    section 3.2, dynamic neural advection, for the vectors of codes in place of pixels: the vector
    of place (i, j) is `Σ w[i, j, t, a, b] x[t, i + a, j + b]` over past frames t and offsets
    `|a| <= rows`, `|b| <= columns`, with weights `w = softmax(W maps[i, j])`. Offsets that lead out
    of the picture have no weight.

    Args:
        reach: (rows, columns), the largest offsets.

    `call(frames, maps)` takes `(batch, time, height, width, channels)` and `(batch, height, width,
    any)`, and gives `(batch, height, width, channels)`.
    """

    def __init__(self, reach: tuple = (1, 4), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        whole = all(isinstance(side, int) and side >= 0 for side in reach)
        if len(reach) != 2 or not whole:
            raise ValueError(f"reach must be (rows, columns), integers from 0 on, got {reach}")
        self.reach = tuple(reach)

    @property
    def _window(self) -> tuple[int, int]:
        return 2 * self.reach[0] + 1, 2 * self.reach[1] + 1

    def build(self, frames_shape: tuple, maps_shape: tuple) -> None:
        if len(frames_shape) != 5 or None in frames_shape[1:]:
            raise ValueError(
                f"frames of {self.name} must be (batch, time, height, width, channels), all but "
                f"the batch known, got {tuple(frames_shape)}"
            )
        time, offsets = frames_shape[1], math.prod(self._window)

        def staying(shape: tuple, dtype: Any = None) -> Tensor:
            place = (time - 1) * offsets + offsets // 2
            return _STAYS * ops.one_hot(place, math.prod(shape), dtype=dtype)

        self._weights = keras.layers.Dense(
            time * offsets,
            kernel_initializer=keras.initializers.RandomNormal(stddev=0.02),
            bias_initializer=staying,
            dtype=self.dtype_policy,
            name="weights",
        )
        self._weights.build(maps_shape)

    def call(self, frames: Tensor, maps: Tensor) -> Tensor:
        time, height, width = frames.shape[1:4]
        offsets = math.prod(self._window)
        inside = ops.concatenate(self._shifted(ops.ones((1, height, width, 1))), -1)
        logits = ops.where(
            ops.tile(inside, (1, 1, 1, time)) > 0, ops.cast(self._weights(maps), "float32"), _NEVER
        )
        weights = ops.cast(ops.softmax(logits), self.compute_dtype)
        weights = ops.reshape(weights, (-1, height, width, time, offsets))
        x = ops.transpose(frames, (0, 2, 3, 1, 4))
        moved = ops.zeros_like(x[..., 0, :])
        for number, there in enumerate(self._shifted(x)):
            moved = moved + ops.sum(weights[..., number, None] * there, 3)
        return moved

    def _shifted(self, x: Tensor) -> list[Tensor]:
        """`x[:, i + a, j + b]` for each offset, zeros from outside."""
        (rows, columns), (height, width) = self.reach, x.shape[1:3]
        pads = [[0, 0], [rows, rows], [columns, columns], *[[0, 0]] * (len(x.shape) - 3)]
        padded = ops.pad(x, pads)
        tall, wide = self._window
        return [padded[:, a : a + height, b : b + width] for a in range(tall) for b in range(wide)]

    def compute_output_shape(self, frames_shape: tuple, maps_shape: tuple) -> tuple:
        return (frames_shape[0], *frames_shape[2:])

    def get_config(self) -> dict:
        return {**super().get_config(), "reach": self.reach}
