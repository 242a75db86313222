"""The gated convolution of PixelCNN, which sees only what comes before in raster order."""

from typing import Any

import keras
from keras import ops

from keras_vqvae.backend import Tensor
from keras_vqvae.layers.composite import Composite
from keras_vqvae.layers.residual import conv


@keras.saving.register_keras_serializable(package="keras_vqvae")
class GatedMaskedConv2D(Composite):
    """One layer of the gated PixelCNN: a vertical and a horizontal stack.

    van den Oord et al. 2016, "Conditional Image Generation with PixelCNN Decoders", fig. 2:
    `tanh(W_f * x + V_f * h) ⊙ sigmoid(W_g * x + V_g * h)` (eq. 2 to 4) in both stacks. The vertical
    one looks at rows up to the present one, over the whole width of the window; the horizontal one
    at the present row from its beginning to the present column, and at the vertical one. There is
    no blind spot. Unlike in the paper the vertical stack has residual connections too: with them a
    prior over codes of first-person frames learns faster (docs/architecture.md).

    Masks are not multiplied in: the windows hold the positions that may be seen and no others,
    which saves half the work, and needs no weight to be written. For the logits at a position not
    to depend on its own code, the *inputs* must be shifted: the vertical one down by a row, the
    horizontal one right by a column, as `PixelCNN` does.

    Args:
        filters: channels of the two inputs and the two outputs.
        kernel_size: odd, at least 3: width of the vertical window; it is `(kernel_size + 1) / 2`
            high, and so wide is the horizontal one.

    `call((vertical, horizontal), condition=None)` takes and returns two tensors
    `(batch, height, width, filters)`. `condition` is `(batch, height or 1, width or 1, any)`: the
    same for all positions, or one vector each.
    """

    def __init__(self, filters: int, kernel_size: int = 3, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not isinstance(kernel_size, int) or kernel_size < 3 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd and at least 3, got {kernel_size!r}")
        self.filters = filters
        self.kernel_size = kernel_size
        self.taps = (kernel_size + 1) // 2
        dtype = self.dtype_policy
        self._vertical = conv(
            2, 2 * filters, (self.taps, kernel_size), padding="valid", dtype=dtype, name="vertical"
        )
        self._to_horizontal = keras.layers.Dense(2 * filters, dtype=dtype, name="to_horizontal")
        self._horizontal = keras.layers.Dense(
            2 * filters, use_bias=False, dtype=dtype, name="horizontal"
        )
        self._output = keras.layers.Dense(filters, dtype=dtype, name="output")
        self._condition: keras.layers.Layer | None = None

    def build(self, inputs_shape: tuple, condition_shape: tuple | None = None) -> None:
        shapes = [tuple(shape) for shape in inputs_shape]
        if any(len(shape) != 4 or shape[-1] != self.filters for shape in shapes):
            raise ValueError(
                f"inputs of {self.name} must be two tensors (batch, height, width, "
                f"{self.filters}), got shapes {shapes}"
            )
        filters = self.filters
        self._vertical.build((None, None, None, filters))
        self._to_horizontal.build((None, 2 * filters))
        self._horizontal.build((None, self.taps * filters))
        self._output.build((None, filters))
        if condition_shape is not None:
            self._condition = keras.layers.Dense(
                4 * filters, use_bias=False, dtype=self.dtype_policy, name="condition"
            )
            self._condition.build(condition_shape)

    def call(self, inputs: tuple, condition: Tensor | None = None) -> tuple:
        if (condition is None) != (self._condition is None):
            was = "without" if self._condition is None else "with"
            raise ValueError(f"{self.name} was built {was} a condition, and is called otherwise")
        vertical, horizontal = inputs
        past = self.taps - 1
        width = ops.shape(vertical)[2]
        vertical, above = self.look_up(
            ops.pad(vertical, [[0, 0], [past, 0], [0, 0], [0, 0]]), condition
        )
        padded = ops.pad(horizontal, [[0, 0], [0, 0], [past, 0], [0, 0]])
        window = ops.concatenate([padded[:, :, i : i + width] for i in range(self.taps)], -1)
        return vertical, self.look_left(window, above, horizontal)

    def look_up(self, rows: Tensor, condition: Tensor | None = None) -> tuple:
        """The vertical stack, over rows of which the first `taps - 1` are only looked at.

        Args:
            rows: `(batch, taps - 1 + height, width, filters)`.
            condition: as for `call`.

        Returns:
            the vertical output `(batch, height, width, filters)`, and what the horizontal stack
            takes from above, `(batch, height, width, 2 * filters)`.
        """
        side = self.kernel_size // 2
        summed = self._vertical(ops.pad(rows, [[0, 0], [0, 0], [side, side], [0, 0]]))
        above = self._to_horizontal(summed)
        if self._condition is not None:
            for_vertical, for_horizontal = ops.split(self._condition(condition), 2, -1)
            summed, above = summed + for_vertical, above + for_horizontal
        return rows[:, self.taps - 1 :] + _gate(summed), above

    def look_left(self, window: Tensor, above: Tensor, horizontal: Tensor) -> Tensor:
        """The horizontal stack.

        Args:
            window: `(..., taps * filters)`, the inputs from `taps - 1` columns before to the
                present one, side by side.
            above: `(..., 2 * filters)`, from `look_up`.
            horizontal: `(..., filters)`, the input at the present column.
        """
        return horizontal + self._output(_gate(self._horizontal(window) + above))

    def compute_output_shape(
        self, inputs_shape: tuple, condition_shape: tuple | None = None
    ) -> tuple:
        return tuple(inputs_shape[0]), tuple(inputs_shape[1])

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
        }


def _gate(x: Tensor) -> Tensor:
    signal, gate = ops.split(x, 2, -1)
    return ops.tanh(signal) * ops.sigmoid(gate)
