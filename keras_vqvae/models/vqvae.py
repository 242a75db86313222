"""The VQ-VAE: encoder, quantizer, decoder."""

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_vqvae import functional
from keras_vqvae.backend import Tensor
from keras_vqvae.likelihoods import Gaussian, Likelihood
from keras_vqvae.models.autoencoder import Autoencoder, channels_are_last
from keras_vqvae.models.base import array_of, check_codes, is_batch_of


@keras.saving.register_keras_serializable(package="keras_vqvae")
class VQVAE(Autoencoder):
    """Vector-quantised variational autoencoder of pictures, with your own encoder and decoder.

    van den Oord et al. 2017, "Neural Discrete Representation Learning", section 3. The loss of an
    example is `- log p(x | codes)`, in nats an entry of x, plus the quantizer's loss. Trains by
    `compile(optimizer)` and `fit(images)`, without targets.

    ```python
    encoder = keras.Sequential([...])            # (batch, h, w, 3) in [-1, 1] -> (batch, ..., 64)
    decoder = keras.Sequential([...])            # and back
    vqvae = VQVAE(encoder, VectorQuantizer(512, 64), decoder)
    vqvae.compile("adam")
    vqvae.fit(images)                            # uint8 (n, h, w, 3)
    ```

    Args:
        encoder: layer or model from `(batch, height, width, channels)`, floats in [-1, 1], to the
            quantizer's input, channels last. Each axis of its output must divide the picture's.
        quantizer: `VectorQuantizer` or another of its family.
        decoder: layer or model back to `(batch, height, width, channels * num_outputs)`.
        likelihood: what the decoder's output means; `Gaussian()` if None.

    `call` takes uint8 `(batch, height, width, channels)` and returns a dict: `outputs`, the
    decoder's; `codes`, int32 `(batch, *grid_shape)`; `quantizer_loss`, `(batch,)`.

    Logs `loss = reconstruction_loss + quantizer_loss`, and how the codes were used in the epoch
    (`metrics.CodeUsage`).
    """

    _loss_cure = "Another distance is another likelihood=..."
    _parts = ("encoder", "quantizer", "decoder", "likelihood")

    def __init__(
        self,
        encoder: keras.layers.Layer,
        quantizer: keras.layers.Layer,
        decoder: keras.layers.Layer,
        likelihood: Likelihood | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(encoder, quantizer, decoder, **kwargs)
        self.likelihood = likelihood or Gaussian()
        self.image_shape: tuple | None = None
        self._grid_shape: tuple | None = None

    def build(self, input_shape: tuple) -> None:
        if len(input_shape) != 4 or None in input_shape[1:]:
            raise ValueError(
                "images must have shape (batch, height, width, channels) with height, width and "
                f"channels known, got {tuple(input_shape)}"
            )
        self._build_networks((None, *input_shape[1:]))
        self.image_shape = tuple(input_shape[1:])
        self._restore_sublayers()

    def _build_networks(self, shape: tuple) -> None:
        latents = keras.KerasTensor(shape, self.compute_dtype)
        with channels_are_last(self.encoder, self.decoder):
            for layer in (self.encoder, self.quantizer, self.decoder):
                if layer is self.decoder:
                    self._grid_shape = tuple(latents.shape[1:-1])
                latents = layer(latents)
            self._check_networks(shape, latents.shape)

    def _check_networks(self, image: tuple, decoded: tuple) -> None:
        grid = self._grid_shape or ()
        expected = (*image[:-1], image[-1] * self.likelihood.num_outputs)
        if tuple(decoded) == expected:
            return
        if len(grid) == 2 and any(
            g is None or side % g for side, g in zip(image[1:3], grid, strict=True)
        ):
            raise ValueError(
                f"image_shape: sides of {image[1]}×{image[2]} must be divisible by the encoder's "
                f"downsampling, but it gives a grid of {grid}"
            )
        raise ValueError(
            f"decoder must give shape {expected} for images of shape {image} and the "
            f"likelihood {type(self.likelihood).__name__}, got {tuple(decoded)}"
        )

    @property
    def input_dtype(self) -> str:
        """What `Model.export` takes for the input's dtype."""
        return "uint8"

    @property
    def grid_shape(self) -> tuple:
        """Shape of an example's codes, for example (16, 16)."""
        return self._built_with("grid_shape", self._grid_shape)

    @property
    def compression_ratio(self) -> float:
        """Bits of an 8-bit picture over bits of its codes (sec. 4.2: 42.7 for 128×128×3)."""
        image = self._built_with("compression_ratio", self.image_shape)
        return self._ratio_to_codes(math.prod(image) * 8, math.prod(self.grid_shape))

    def _built_with(self, name: str, value: tuple | None) -> tuple:
        if value is None:
            raise ValueError(f"{name} is known once the model is built: fit, call or build it")
        return value

    def check_data(self, x: Any) -> None:
        """Raises `ValueError` where `x` is not uint8 pictures of this model's shape."""
        self._check_pixels("images", x)
        shape = tuple(x.shape)
        if len(shape) != 4:
            raise ValueError(
                f"images must have rank 4 (batch, height, width, channels), got shape {shape}"
            )
        if self.image_shape and not is_batch_of(x, self.image_shape):
            raise ValueError(
                f"images must have shape (batch, {', '.join(map(str, self.image_shape))}), "
                f"got {shape}"
            )

    def _check_pixels(self, name: str, x: Any) -> None:
        if not hasattr(x, "dtype"):
            key = "image" if name == "images" else name
            raise ValueError(
                f"{name} must be one uint8 array or tensor, got a {type(x).__name__}. Of a dataset "
                f'of dicts take dataset.map(lambda d: d["{key}"]), of pairs '
                "dataset.map(lambda x, y: x)"
            )
        dtype = keras.backend.standardize_dtype(x.dtype)
        if dtype != "uint8":
            cure = "round and cast to uint8 grey levels 0..255, multiplying by 255 where they are "
            cure = f"{cure}0..1" if "float" in dtype else "cast to uint8 grey levels 0..255"
            raise ValueError(f"{name} must be uint8, got {dtype}: {cure}")

    def check_codes(self, codes: Any) -> None:
        """Raises `ValueError` where `codes` are not codes of this model; arrays by value too."""
        check_codes(codes, self.grid_shape, self.num_codes)

    def latents(self, images: Tensor) -> Tensor:
        """The encoder's output for a uint8 tensor of pictures, `(batch, *grid_shape, code_dim)`."""
        self.check_data(images)
        batch = ops.shape(images)[0]
        x = functional.pixels_to_unit(functional.never_empty(images), self.compute_dtype)
        return self.encoder(x, training=False)[:batch]

    def _decoded(self, quantized: Tensor, training: bool = False) -> Tensor:
        batch = ops.shape(quantized)[0]
        return self.decoder(functional.never_empty(quantized), training=training)[:batch]

    def call(self, images: Tensor, training: bool = False) -> dict:
        self.check_data(images)
        batch = ops.shape(images)[0]
        x = functional.pixels_to_unit(functional.never_empty(images), self.compute_dtype)
        z = self.encoder(x, training=training)[:batch]
        quantized, codes, loss = self.quantizer(z, training=training, return_info=True)
        outputs = self._decoded(quantized, training)
        return {"outputs": outputs, "codes": codes, "quantizer_loss": loss}

    def per_example_loss(self, x: Tensor, outputs: dict) -> Tensor:
        target = functional.pixels_to_unit(x)
        log_prob = self.likelihood.log_prob(outputs["outputs"], target)
        reconstruction = -ops.mean(log_prob, tuple(range(1, len(log_prob.shape))))
        return self._total_loss(reconstruction, outputs)

    def encode(self, images: Any, batch_size: int = 64) -> np.ndarray:
        """Codes of pictures.

        Args:
            images: uint8 `(batch, height, width, channels)`: an array, a tensor, or a dataset of
                such batches.
            batch_size: pictures at a time, for arrays.

        Returns:
            int32 `(batch, *grid_shape)`, an array; a tensor if `images` is one.

        Raises:
            ValueError: wrong dtype, rank or shape.
        """
        if hasattr(images, "shape"):
            self.check_data(images)
        return self._in_batches("encode", self._encode, images, batch_size)

    def decode(self, codes: Any, batch_size: int = 64) -> np.ndarray:
        """Pictures of codes: the likelihood's mean.

        Args:
            codes: integers `(batch, *grid_shape)` in [0, num_codes): an array, lists of numbers, a
                tensor, or a dataset of such batches.
            batch_size: pictures at a time, for arrays.

        Returns:
            uint8 `(batch, height, width, channels)`, an array; a tensor if `codes` is one.

        Raises:
            ValueError: wrong dtype or shape, or (arrays) codes out of range.
        """
        codes = array_of("codes", codes)
        if hasattr(codes, "shape"):
            self.check_codes(codes)
        return self._in_batches("decode", self._decode, codes, batch_size)

    def reconstruct(self, images: Any, batch_size: int = 64) -> np.ndarray:
        """Pictures after encoding and decoding; takes and returns what `encode` takes."""
        if hasattr(images, "shape"):
            self.check_data(images)
        return self._in_batches("reconstruct", self._reconstruct, images, batch_size)

    def _encode(self, images: Tensor) -> Tensor:
        return self.quantizer.encode(self.latents(images))

    def _decode(self, codes: Tensor) -> Tensor:
        outputs = self._decoded(self.quantizer.decode(codes))
        return functional.unit_to_pixels(self.likelihood.mean(outputs))

    def _reconstruct(self, images: Tensor) -> Tensor:
        return self._decode(self._encode(images))
