"""The VQ-VAE of pictures with the paper's networks."""

import math
from typing import Any

import keras

from keras_vqvae.layers.residual import ConvDecoder, ConvEncoder, stage_strides
from keras_vqvae.layers.vector_quantizer import VectorQuantizer
from keras_vqvae.likelihoods import Gaussian, Likelihood
from keras_vqvae.models.autoencoder import check_quantizer
from keras_vqvae.models.vqvae import VQVAE


@keras.saving.register_keras_serializable(package="keras_vqvae")
class ImageVQVAE(VQVAE):
    """A `VQVAE` with the encoder and decoder of van den Oord et al. 2017, section 4.1.

    Two strided convolutions of window 4, two residual blocks, 256 channels, and the mirror of it
    are the defaults. `ImageVQVAE((128, 128, 3))` is the paper's ImageNet model: 32×32 codes of
    9 bits, a compression ratio of 42.7. It is built at once: `summary()` and `grid_shape` work
    before `fit`.

    Args:
        image_shape: (height, width, channels); the sides must be divisible by `downsampling`.
        num_codes: K, the size of the codebook.
        code_dim: D, the size of a code.
        downsampling: picture side over grid side, such as a power of two, or one for each side.
        hidden: channels of the networks.
        residual_hidden: channels inside the residual blocks; None for `hidden`.
        residual_blocks: number of residual blocks, in encoder and decoder each.
        commitment: beta of the paper.
        quantizer: another quantizer than `VectorQuantizer(num_codes, code_dim)`.
        likelihood: what the decoder's output means; `Gaussian()` if None.
    """

    _rank = 2  # axes that the networks convolve over

    def __init__(
        self,
        image_shape: tuple,
        num_codes: int = 512,
        code_dim: int = 64,
        *,
        downsampling: int | tuple = 4,
        hidden: int = 256,
        residual_hidden: int | None = None,
        residual_blocks: int = 2,
        commitment: float = 0.25,
        quantizer: keras.layers.Layer | None = None,
        likelihood: Likelihood | None = None,
        **kwargs: Any,
    ) -> None:
        image_shape = tuple(image_shape)
        if len(image_shape) != 3:
            raise ValueError(f"image_shape must be (height, width, channels), got {image_shape}")
        if any(not isinstance(side, int) or side < 1 for side in image_shape):
            raise ValueError(f"image_shape must be three positive integers, got {image_shape}")
        check_quantizer(quantizer, num_codes, code_dim, commitment)
        rank = self._rank
        strides = stage_strides(rank, downsampling)
        for axis, side in enumerate(image_shape[:2], rank - 2):
            factor = math.prod(stride[axis] for stride in strides)
            if side % factor:
                raise ValueError(
                    f"image_shape: side {side} must be divisible by downsampling={factor}"
                )
        self._arguments: dict[str, Any] = {
            "image_shape": image_shape,
            "num_codes": num_codes,
            "code_dim": code_dim,
            "downsampling": downsampling,
            "hidden": hidden,
            "residual_hidden": residual_hidden,
            "residual_blocks": residual_blocks,
            "commitment": commitment,
        }
        dtype = kwargs.get("dtype")
        networks: dict[str, Any] = {
            "rank": rank,
            "causal": rank == 3,
            "downsampling": downsampling,
            "hidden": hidden,
            "residual_hidden": residual_hidden,
            "residual_blocks": residual_blocks,
            "dtype": dtype,
        }
        likelihood = likelihood or Gaussian()
        super().__init__(
            ConvEncoder(
                channels=getattr(quantizer, "code_dim", code_dim), name="encoder", **networks
            ),
            quantizer
            or VectorQuantizer(
                num_codes, code_dim, commitment=commitment, dtype=dtype, name="quantizer"
            ),
            ConvDecoder(
                channels=image_shape[-1] * likelihood.num_outputs, name="decoder", **networks
            ),
            likelihood,
            **kwargs,
        )
        self.build((None,) * (rank - 1) + image_shape)

    def get_config(self) -> dict:
        config = super().get_config()
        del config["encoder"], config["decoder"]
        return {**config, **self._arguments}
