"""The gated PixelCNN over grids of codes."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_vqvae.backend import Tensor
from keras_vqvae.layers.masked_conv import GatedMaskedConv2D
from keras_vqvae.models.autoregressive import Autoregressive
from keras_vqvae.models.base import positive_integer


@keras.saving.register_keras_serializable(package="keras_vqvae")
class PixelCNN(Autoregressive):
    """Gated PixelCNN: a distribution over grids of codes, the prior of a `VQVAE`.

    van den Oord et al. 2016, "Conditional Image Generation with PixelCNN Decoders". Position
    (row, column) sees all rows above within the layers' reach, and its own row to the left.

    ```python
    prior = PixelCNN(vqvae.grid_shape, vqvae.num_codes, num_classes=10)
    prior.compile("adam")
    prior.fit({"codes": codes, "condition": labels})     # or prior.fit(codes), without classes
    codes = prior.sample(16, condition=3, seed=0)
    ```

    Args:
        grid_shape: (height, width) of the codes.
        num_codes: K.
        num_classes: number of classes, for class conditioning (eq. 3).
        condition_channels: channels C of maps `(batch, height, width, C)` to be conditioned on,
            for spatial conditioning (eq. 4). One of the two at most: to have both, put the class
            into channels of the map.
        hidden: channels of the layers.
        num_layers: number of `GatedMaskedConv2D` layers. For every position to see all before it
            `num_layers * (kernel_size // 2)` must reach the longer side.
        kernel_size: their window.

    `call` takes integer codes `(batch, height, width)` or a dict of `codes` and `condition`, and
    gives logits `(batch, height, width, num_codes)`. Logs the `loss` in bits per code.
    """

    def __init__(
        self,
        grid_shape: tuple,
        num_codes: int,
        num_classes: int | None = None,
        *,
        condition_channels: int | None = None,
        hidden: int = 128,
        num_layers: int = 15,
        kernel_size: int = 3,
        **kwargs: Any,
    ) -> None:
        if np.shape(grid_shape) != (2,):
            raise ValueError(f"grid_shape must be (height, width), got {grid_shape}")
        super().__init__(grid_shape, num_codes, num_classes, condition_channels, **kwargs)
        self.hidden = hidden = positive_integer("hidden", hidden)
        self.num_layers = num_layers = positive_integer("num_layers", num_layers)
        self.kernel_size = kernel_size
        num_codes, num_classes = self.num_codes, self.num_classes
        dtype = self.dtype_policy
        embedding = keras.layers.Embedding
        self._embedding = embedding(num_codes, hidden, dtype=dtype, name="embedding")
        self._places = embedding(self.num_positions, hidden, dtype=dtype, name="places")
        self._classes = (
            embedding(num_classes, hidden, dtype=dtype, name="classes") if num_classes else None
        )
        self._gated = [
            GatedMaskedConv2D(hidden, kernel_size, dtype=dtype, name=f"gated_{i}")
            for i in range(num_layers)
        ]
        self._logits = keras.layers.Dense(num_codes, dtype=dtype, name="logits")
        self.build()

    def build(self, input_shape: Any = None) -> None:
        if self._logits.built:  # by the constructor; Keras asks again when it loads a model
            return
        for embedding in (self._embedding, self._places, self._classes):
            if embedding is not None:
                embedding.build()
        grid = (None, *self.grid_shape, self.hidden)
        condition: tuple | None = None
        if self.num_classes:
            condition = (None, 1, 1, self.hidden)
        elif self.condition_channels:
            condition = (None, *self.grid_shape, self.condition_channels)
        for layer in self._gated:
            layer.build((grid, grid), condition)
        self._logits.build(grid)
        self.built = True

    def _features(self, condition: Tensor | None) -> Tensor | None:
        """What layers are conditioned on, `(batch, 1 or height, 1 or width, channels)`."""
        if self._classes is None or condition is None:
            return condition
        return self._classes(condition)[:, None, None, :]

    def logits(self, codes: Tensor, condition: Tensor | None = None) -> Tensor:
        height, width = self.grid_shape
        embedded = self._embedding(codes)
        places = self._places(ops.arange(height * width, dtype="int32"))
        places = ops.reshape(places, (height, width, self.hidden))
        vertical = ops.pad(embedded[:, :-1], [[0, 0], [1, 0], [0, 0], [0, 0]]) + places
        horizontal = ops.pad(embedded[:, :, :-1], [[0, 0], [0, 0], [1, 0], [0, 0]]) + places
        features = self._features(condition)
        for layer in self._gated:
            vertical, horizontal = layer((vertical, horizontal), features)
        return self._logits(horizontal)

    def initial_cache(self, batch: Any, condition: Tensor | None = None) -> dict:
        width, hidden, dtype = self.grid_shape[1], self.hidden, self.compute_dtype
        past = (self.kernel_size - 1) // 2
        cache = {
            # The vertical stack's inputs of the rows before.
            "rows": ops.zeros((self.num_layers, batch, past, width, hidden), dtype),
            # What it gives to the horizontal stack in the present row.
            "above": ops.zeros((width, self.num_layers, batch, 2 * hidden), dtype),
            # The horizontal stack's inputs in the columns before.
            "left": ops.zeros((self.num_layers, batch, past * hidden), dtype),
        }
        features = self._features(condition)
        return cache if features is None else {**cache, "features": features}

    def begin_row(self, cache: dict, previous_row: Tensor, row: Tensor) -> dict:
        height, width = self.grid_shape
        features = cache.get("features")
        if features is not None and features.shape[1] == height > 1:
            features = ops.take(features, row, axis=1)[:, None]
        embedded = self._embedding(previous_row)
        places = self._places(row * width + ops.arange(width, dtype="int32"))
        vertical = ops.where(row > 0, embedded, ops.zeros_like(embedded)) + places
        rows, above = [], []
        for number, layer in enumerate(self._gated):
            window = ops.concatenate([cache["rows"][number], vertical[:, None]], 1)
            rows.append(window[:, 1:])
            out, from_above = layer.look_up(window, features)
            vertical = out[:, 0]
            above.append(ops.transpose(from_above[:, 0], (1, 0, 2)))
        return {
            **cache,
            "rows": ops.stack(rows),
            "above": ops.stack(above, 1),
            "left": ops.zeros_like(cache["left"]),
        }

    def step(self, cache: dict, previous: Tensor, position: Tensor) -> tuple[Tensor, dict]:
        column = position % self.grid_shape[1]
        embedded = self._embedding(previous)
        horizontal = ops.where(column > 0, embedded, ops.zeros_like(embedded))
        horizontal = horizontal + self._places(position)
        above = ops.unstack(ops.take(cache["above"], column, axis=0), self.num_layers)
        left = []
        for layer, before, from_above in zip(
            self._gated, ops.unstack(cache["left"], self.num_layers), above, strict=True
        ):
            window = ops.concatenate([before, horizontal], -1)
            left.append(window[:, self.hidden :])
            horizontal = layer.look_left(window, from_above, horizontal)
        return self._logits(horizontal), {**cache, "left": ops.stack(left)}

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "hidden": self.hidden,
            "num_layers": self.num_layers,
            "kernel_size": self.kernel_size,
        }
