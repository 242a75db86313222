"""The VQ-VAE of video whose codes stand for several frames."""

import math
from typing import Any

import keras

from keras_vqvae.models.image import ImageVQVAE


@keras.saving.register_keras_serializable(package="keras_vqvae")
class VideoVQVAE(ImageVQVAE):
    """A VQ-VAE of video with 3-D codes: time is downsampled as height and width are.

    The networks of van den Oord et al. 2017, section 4.1, with convolutions over time, height and
    width, as in Yan et al. 2021, "VideoGPT", section 3.1, but causal in time. So the codes of a
    video's beginning are the beginning of its codes, and the same is true of decoded frames: video
    may be longer or shorter than in training, and a `VideoPredictor` can go on from it.

    ```python
    vqvae = VideoVQVAE((64, 64, 3))
    vqvae.compile("adam")
    vqvae.fit(clips)                             # uint8 (n, 16, 64, 64, 3)
    codes = vqvae.encode(clips)                  # int32 (n, 8, 16, 16)
    ```

    Args:
        image_shape: (height, width, channels) of a frame; the sides must be divisible by
            `downsampling`.
        num_codes: K, the size of the codebook.
        code_dim: D, the size of a code.
        downsampling: frames a code, and picture side over grid side, vertical and horizontal;
            products of 2, 3, 5 and 7.
        **kwargs: further arguments of `ImageVQVAE`.

    Where `ImageVQVAE` has pictures, this has uint8 `(batch, time, height, width, channels)`, time a
    multiple of `frames_per_code`. Codes are int32 `(batch, time / frames_per_code, *sides)`, and
    `grid_shape` is `(None, *sides)`.
    """

    _rank = 3

    def __init__(
        self,
        image_shape: tuple,
        num_codes: int = 512,
        code_dim: int = 64,
        *,
        downsampling: tuple = (2, 4, 4),
        **kwargs: Any,
    ) -> None:
        if not isinstance(downsampling, (tuple, list)) or len(downsampling) != 3:
            raise ValueError(
                f"downsampling must be (time, height, width), such as (2, 4, 4), got {downsampling}"
            )
        super().__init__(
            image_shape, num_codes, code_dim, downsampling=tuple(downsampling), **kwargs
        )

    def build(self, input_shape: tuple) -> None:
        # Frames may be of any number.
        self._build_networks((None, None, *self._arguments["image_shape"]))
        self.image_shape = self._arguments["image_shape"]

    @property
    def frames_per_code(self) -> int:
        """How many frames in a row a code stands for."""
        return self._arguments["downsampling"][0]

    @property
    def compression_ratio(self) -> float:
        """Bits of 8-bit frames over bits of their codes."""
        bits = self.frames_per_code * math.prod(self._arguments["image_shape"]) * 8
        return self._ratio_to_codes(bits, math.prod(self.grid_shape[1:]))

    def check_data(self, x: Any) -> None:
        """Raises `ValueError` where `x` is not uint8 video of frames of this model's shape."""
        self._check_pixels("frames", x)
        shape, image = tuple(x.shape), self._arguments["image_shape"]
        if len(shape) != 5 or any(
            None not in (got, want) and got != want
            for got, want in zip(shape[2:], image, strict=False)
        ):
            wanted = ", ".join(map(str, image))
            raise ValueError(f"frames must have shape (batch, time, {wanted}), got {shape}")
        if shape[1] is not None and (shape[1] == 0 or shape[1] % self.frames_per_code):
            raise ValueError(
                f"frames must be a multiple of {self.frames_per_code} (frames_per_code) in number, "
                f"got {shape[1]}"
            )
