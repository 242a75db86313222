"""What a voice is made of before it is shaped: sine waves at a pitch, and noise."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_vqvae.backend import Tensor

# The noise begins again after so many codes.
NOISE_CODES = 256
# What steps of a turn are counted in: a turn is 2^32 of them, where integers wrap around. So the
# sum of any number of steps is exact, and streams give what the whole gives.
TURN = 2.0**32


@keras.saving.register_keras_serializable(package="keras_vqvae")
class HarmonicSource(keras.layers.Layer):
    """Sine waves at a pitch and its multiples where there is a voice, and noise everywhere.

    Wang et al. 2019, "Neural source-filter waveform models for statistical parametric speech
    synthesis", section III.A. A network of convolutions that is given nothing but codes repeats
    itself where codes do: it buzzes at their rate. From these waves it makes a voice.

    Args:
        sample_rate: samples a second.
        upsampling: samples a code; a code has one pitch.
        harmonics: number of sine waves.

    `call(pitch, start=None)` takes float32 `(batch, codes)` in Hz, 0 where there is no voice, below
    `sample_rate / 2 / harmonics`; and `start`, int32 `(batch, 2)`: at which part of a turn
    (2^-32) the lowest wave begins, and at which sample the noise; None for the beginning of both.
    It gives `(batch, codes * upsampling, harmonics + 1)` in [-1, 1].
    """

    def __init__(
        self, sample_rate: int, upsampling: int, *, harmonics: int = 8, **kwargs: Any
    ) -> None:
        # Half precision is too coarse for a pitch, and for turns.
        super().__init__(autocast=False, **kwargs)
        self.sample_rate = sample_rate
        self.upsampling = upsampling
        self.harmonics = harmonics
        # This generator of numpy's gives the same numbers in all its versions.
        noise = np.random.RandomState(0).uniform(-1, 1, NOISE_CODES * upsampling)
        self._noise = noise.astype("float32")

    @property
    def noise_length(self) -> int:
        """Samples after which the noise begins again."""
        return len(self._noise)

    def build(self, pitch_shape: tuple, start_shape: tuple | None = None) -> None:
        """Nothing: it has no weights."""

    def call(self, pitch: Tensor, start: Tensor | None = None) -> Tensor:
        if start is None:
            start = ops.zeros((ops.shape(pitch)[0], 2), "int32")
        first, steps = self._turns(pitch)
        within = ops.arange(self.upsampling, dtype="int32")
        turned = (start[:, :1] + first)[..., None] + steps[..., None] * within
        multiples = ops.arange(1, self.harmonics + 1, dtype="int32")
        angles = ops.cast(turned[..., None] * multiples, "float32") * (2 * np.pi / TURN)
        voiced = ops.cast(pitch > 0, "float32")[..., None, None]
        waves = ops.reshape(ops.sin(angles) * voiced, self._by_sample(pitch, self.harmonics))
        places = start[:, 1:] + ops.arange(ops.shape(pitch)[1] * self.upsampling, dtype="int32")
        noise = ops.take(self._noise, places % self.noise_length)
        return ops.cast(ops.concatenate([waves, noise[..., None]], -1), self.compute_dtype)

    def after(self, pitch: Tensor, start: Tensor, codes: Tensor) -> Tensor:
        """Where waves and noise that begin at `start` are after so many codes: int32 `(batch, 2)`.

        Args:
            pitch: as for `call`, of those codes and perhaps more.
            start: int32 `(batch, 2)`.
            codes: int32 scalar.
        """
        first, steps = self._turns(pitch)
        # One more, for the place after the last.
        sums = ops.concatenate([first, first[:, -1:] + steps[:, -1:] * self.upsampling], 1)
        place = (start[:, 1] + codes * self.upsampling) % self.noise_length
        return ops.stack([start[:, 0] + ops.take(sums, codes, axis=1), place], 1)

    def _turns(self, pitch: Tensor) -> tuple[Tensor, Tensor]:
        """How far the lowest wave has turned before each code, and turns at each sample of it."""
        steps = ops.cast(ops.round(pitch * (TURN / self.sample_rate)), "int32")
        each = steps * self.upsampling
        return ops.cumsum(each, 1) - each, steps

    def _by_sample(self, pitch: Tensor, channels: int) -> tuple:
        codes = pitch.shape[1]
        samples = -1 if codes is None else codes * self.upsampling
        return (ops.shape(pitch)[0], samples, channels)

    def compute_output_shape(self, pitch_shape: tuple, start_shape: tuple | None = None) -> tuple:
        batch, codes = pitch_shape
        return (batch, None if codes is None else codes * self.upsampling, self.harmonics + 1)

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "sample_rate": self.sample_rate,
            "upsampling": self.upsampling,
            "harmonics": self.harmonics,
        }
