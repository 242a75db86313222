"""An encoder of sound that begins with its spectrogram."""

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_vqvae import spectral
from keras_vqvae.backend import Tensor
from keras_vqvae.layers.composite import Composite
from keras_vqvae.layers.dilated_conv import reach
from keras_vqvae.layers.residual import ResidualStack, conv, stage_strides

# Speech has log-magnitudes of about -5 to 3 nats.
_MEAN, _SCALE = -1.0, 3.0


@keras.saving.register_keras_serializable(package="keras_vqvae")
class SpectrogramEncoder(Composite):
    """Log-mel frames, strided convolutions, a residual stack: waveform to code vectors.

    Chorowski et al. 2019, "Unsupervised speech representation learning using WaveNet
    autoencoders", found such codes to tell phones better than those of an encoder of the waveform.
    In training, voices may be disguised, so that codes
    keep what is said and leave who says it to the decoder's condition: the frequency axis is
    stretched at random, which moves pitch and formants (Jaitly and Hinton 2013, "Vocal tract length
    perturbation"), and bands are coloured at random.

    Args:
        channels: of the output, the quantizer's `code_dim`.
        sample_rate: Hz.
        downsampling: samples a code, a multiple of `hop`; each prime factor of
            `downsampling / hop` is a strided convolution.
        hop: samples from frame to frame.
        window: samples of a frame, even, a multiple of `hop`.
        bands: mel bands.
        hidden: channels inside.
        residual_blocks: number of residual blocks.
        warp: in training, the frequency axis is stretched by up to `e**warp` either way.
        colour: in training, standard deviation in nats of a gain that varies smoothly with the
            band, an octave or two at a time.
        seed: of the disguises; None for another every time.

    Input: `(batch, samples, 1)`, samples divisible by `downsampling`. Output: `(batch, samples /
    downsampling, channels)`. Clips of at most half a window are taken for longer ones that end in
    silence. Under `tf.distribute` the replicas draw the same disguises.
    """

    def __init__(
        self,
        channels: int,
        sample_rate: int,
        downsampling: int,
        *,
        hop: int = 160,
        window: int = 640,
        bands: int = 80,
        hidden: int = 256,
        residual_blocks: int = 2,
        warp: float = 0.0,
        colour: float = 0.0,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        # Of rounded samples the spectrum between voices would be that of the rounding.
        super().__init__(autocast=False, **kwargs)
        if downsampling % hop:
            raise ValueError(f"downsampling={downsampling} must be a multiple of hop={hop}")
        spectral.check_window(window, hop)
        spectral.mel_matrix(sample_rate, window, bands)  # for its error, now and not in `fit`
        if not 0 <= warp < 1 or colour < 0:
            raise ValueError(f"needs 0 <= warp < 1 and 0 <= colour, got {warp} and {colour}")
        self.channels = channels
        self.sample_rate = sample_rate
        self.downsampling = downsampling
        self.hop = hop
        self.window = window
        self.bands = bands
        self.hidden = hidden
        self.residual_blocks = residual_blocks
        self.warp = warp
        self.colour = colour
        self.seed = seed
        self._seeds = keras.random.SeedGenerator(seed, name="seeds") if warp or colour else None
        dtype = self.dtype_policy
        strides = [stride for (stride,) in stage_strides(1, downsampling // hop)]
        options: dict = {"activation": "relu", "dtype": dtype}
        self._first = conv(1, hidden, 5, name="first", **options)
        self._strided = [
            conv(1, hidden, 2 * stride, stride, name=f"down_{i}", **options)
            for i, stride in enumerate(strides)
        ]
        self._residual = ResidualStack(
            1, hidden, blocks=residual_blocks, dtype=dtype, name="residual_stack"
        )
        self._last = conv(1, channels, 1, dtype=dtype, name="last")

    @property
    def context(self) -> tuple[int, int]:
        """Outputs' worth of samples that an output sees before and after its own."""
        layers = [self._first, *self._strided, *self._residual.convolutions, self._last]
        first, last = reach(layers, 1)
        # Frame i is centred at sample i * hop.
        before = self.window // 2 - first * self.hop
        after = last * self.hop + self.window // 2 - self.downsampling
        return -(-before // self.downsampling), max(0, -(-after // self.downsampling))

    def build(self, x_shape: tuple) -> None:
        shape: tuple = (None, None, self.bands)
        for layer in (self._first, *self._strided, self._residual, self._last):
            layer.build(shape)
            shape = layer.compute_output_shape(shape)

    def call(self, x: Tensor, training: bool = False) -> Tensor:
        frames = spectral.log_mel(
            x[..., 0], self.sample_rate, self.window, self.hop, self.bands
        )  # one more than there are hops
        frames = (frames[:, :-1] - _MEAN) / _SCALE
        if training and self._seeds is not None:
            frames = self._disguised(frames)
        x = self._first(ops.cast(frames, self.compute_dtype))
        for layer in self._strided:
            x = layer(x)
        return self._last(self._residual(x))

    def _disguised(self, frames: Tensor) -> Tensor:
        batch = ops.shape(frames)[0]
        if self.warp:
            stretch = ops.exp(self.warp * self._uniforms((batch, 1, 1)))
            frames = ops.matmul(frames, self._interpolation(stretch))
        if self.colour:
            # Ten numbers along the bands, joined by straight lines.
            knots = np.linspace(0, 9, self.bands)[None] - np.arange(10)[:, None]
            lines = np.maximum(0.0, 1.0 - np.abs(knots)).astype("float32")
            gains = math.sqrt(3.0) * self.colour / _SCALE * self._uniforms((batch, 1, 10))
            frames = frames + ops.matmul(gains, lines)
        return frames

    def _uniforms(self, shape: tuple) -> Tensor:
        """In [-1, 1], where a uniform number's standard deviation is 1 / sqrt(3)."""
        return keras.random.uniform(shape, -1.0, 1.0, "float32", self._seeds)

    def _interpolation(self, stretch: Tensor) -> Tensor:
        """Matrices `(batch, bands, bands)` that read each band at `stretch` times its frequency."""
        whole = 2595 * math.log10(1 + self.sample_rate / 2 / 700)
        step = whole / (self.bands + 1)
        hertz = 700 * (10 ** (step * np.arange(1, self.bands + 1) / 2595) - 1)
        mel = 2595 / math.log(10) * ops.log1p(hertz.astype("float32") / 700 * stretch)
        place = ops.clip(mel / step - 1, 0.0, self.bands - 1.0)  # (batch, 1, bands)
        rows = np.arange(self.bands, dtype="float32")[:, None]
        return ops.maximum(0.0, 1.0 - ops.abs(place - rows))

    def compute_output_shape(self, x_shape: tuple) -> tuple:
        samples = x_shape[1]
        codes = None if samples is None else samples // self.downsampling
        return (x_shape[0], codes, self.channels)

    def get_config(self) -> dict:
        names = ("channels", "sample_rate", "downsampling", "hop", "window", "bands", "hidden",
                 "residual_blocks", "warp", "colour", "seed")  # fmt: skip
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}
