"""What VQ-VAEs of pictures and of sound share."""

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from keras_vqvae.backend import Tensor
from keras_vqvae.metrics import CodeUsage
from keras_vqvae.models.base import Model, deserialized, positive_integer


class Autoencoder(Model):
    """An encoder, a quantizer and a decoder that train together.

    van den Oord et al. 2017, "Neural Discrete Representation Learning", section 3. The loss of an
    example is that of its reconstruction plus the quantizer's. Subclasses say what data is.

    Args:
        encoder: layer or model from data to the quantizer's input.
        quantizer: `VectorQuantizer` or another of its family.
        decoder: layer or model from code vectors to what says how data is distributed.
    """

    _parts: tuple = ("encoder", "quantizer", "decoder")

    def __init__(
        self,
        encoder: keras.layers.Layer,
        quantizer: keras.layers.Layer,
        decoder: keras.layers.Layer,
        **kwargs: Any,
    ) -> None:
        # Casting data is not for Keras to do.
        super().__init__(autocast=False, **kwargs)
        self.encoder = encoder
        self.quantizer = quantizer
        self.decoder = decoder
        self._reconstruction_tracker = keras.metrics.Mean(
            name="reconstruction_loss", dtype="float32"
        )
        self._quantizer_tracker = keras.metrics.Mean(name="quantizer_loss", dtype="float32")
        self.code_usage = CodeUsage(quantizer.num_codes)

    @property
    def num_codes(self) -> int:
        return self.quantizer.num_codes

    def _ratio_to_codes(self, bits: int, codes: int) -> float:
        """`bits` over those of `codes` codes; infinite if the codebook has one code."""
        of_codes = codes * math.log2(self.num_codes)
        return bits / of_codes if of_codes else math.inf

    def latents(self, x: Tensor) -> Tensor:
        """The encoder's output for a batch of data, a tensor: `(batch, *grid, code_dim)`."""
        raise NotImplementedError

    def check_facts(self, x: Any) -> None:
        """Raises `ValueError` where a dataset says of itself that it is not for this model."""

    def _total_loss(
        self,
        reconstruction: Tensor,
        outputs: dict,
        weights: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """The losses of the examples, given those of their reconstruction; updates the metrics.

        Args:
            reconstruction: `(batch,)`.
            outputs: what `call` returned.
            weights: `(batch,)`, of the examples (see `example_weights`).
            mask: bool, of the shape of the codes: which are those of data, not of padding.
        """
        self._reconstruction_tracker.update_state(reconstruction, weights)
        self._quantizer_tracker.update_state(outputs["quantizer_loss"], weights)
        self.code_usage.update_state(outputs["codes"], mask)
        return reconstruction + outputs["quantizer_loss"]

    def adapt(self, x: Any, batch_size: int = 64) -> None:
        """Sets the codebook by k-means on the encoder's output for `x`.

        On several workers all must call it; the chief's codebook, from its data, is everyone's.

        Args:
            x: what `fit` takes, of which no more is read than the quantizer needs.
            batch_size: examples at a time, for arrays.

        Raises:
            ValueError: `x` is no data for this model.
        """
        self._check_input("adapt", x)
        self._build_on(x)
        batches = in_random_order(x, batch_size)
        self.quantizer.adapt(self._parts_of("latents", self.latents, batches, batch_size))

    def get_config(self) -> dict:
        serialize = keras.saving.serialize_keras_object
        parts = {name: serialize(getattr(self, name)) for name in self._parts}
        return {**super().get_config(), **parts}

    @classmethod
    def _deserialized(cls, config: dict, custom_objects: dict | None) -> dict:
        return deserialized(config, cls._parts, custom_objects)


def in_random_order(data: Any, batch_size: int) -> Any:
    """Batches of arrays, each of examples from all over them; anything else as it is.

    For what reads no more batches than it needs.
    """
    leaves = keras.tree.flatten(data) if isinstance(data, dict) else [data]
    if not all(hasattr(leaf, "shape") for leaf in leaves):
        return data
    arrays = keras.tree.map_structure(keras.ops.convert_to_numpy, data)
    order = np.random.default_rng(0).permutation(len(leaves[0]))

    def batch(start: int) -> Any:
        some = np.sort(order[start : start + batch_size])
        return keras.tree.map_structure(lambda x: x[some], arrays)

    return map(batch, range(0, len(order), positive_integer("batch_size", batch_size)))


@contextlib.contextmanager
def channels_are_last(*networks: keras.layers.Layer) -> Iterator[None]:
    """Says why networks do not fit together if some of their layers have channels first.

    Layers that a person makes under `keras.config.image_data_format() == "channels_first"` are
    such, and may be right between two that permute.
    """
    try:
        yield
    except Exception as error:
        layers = [layer for network in networks for layer in network._flatten_layers()]
        first = [x.name for x in layers if getattr(x, "data_format", None) == "channels_first"]
        if not first:
            raise
        raise ValueError(
            "`encoder` and `decoder` must take and give channels on the last axis, got layers of "
            f'data_format="channels_first": {", ".join(first)}. Make them with '
            'data_format="channels_last"'
        ) from error


def check_quantizer(quantizer: Any, num_codes: int, code_dim: int, commitment: float) -> None:
    """Raises `ValueError` where arguments contradict those of a quantizer that is given too."""
    if quantizer is None:
        return
    own = {"num_codes": (num_codes, 512), "code_dim": (code_dim, 64)}
    for name, (given, default) in (own | {"commitment": (commitment, 0.25)}).items():
        of_quantizer = getattr(quantizer, name, given)
        if given not in (default, of_quantizer):
            raise ValueError(
                f"{name}={given} contradicts the quantizer's {of_quantizer}; leave it out"
            )
