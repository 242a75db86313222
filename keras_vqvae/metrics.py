"""Metrics of how codes are used."""

import math
from typing import Any

import keras
from keras import ops

from keras_vqvae import backend, functional
from keras_vqvae.backend import Tensor


@keras.saving.register_keras_serializable(package="keras_vqvae")
class CodeUsage(keras.metrics.Metric):
    """How the codes were used since the last reset, an epoch in `fit`.

    The result is a dict:

    - `perplexity`: exp of the entropy of the codes' frequencies, from 1 to `num_codes`;
    - `code_use`: fraction of the codes that occurred at all;
    - `bits_per_code`: that entropy in bits, what an ideal coder without context would need.

    Counts are accumulated over batches and over replicas before anything is computed from them:
    the perplexity of a batch depends on the batch size and its mean means little.

    Args:
        num_codes: size of the codebook.
    """

    def __init__(self, num_codes: int, name: str = "code_usage", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self.num_codes = num_codes
        self.counts = self.add_variable((num_codes,), "zeros", dtype="float32", name="counts")

    def update_state(self, codes: Tensor, sample_weight: Tensor | None = None) -> None:
        """Counts `codes`, int32 of any shape; by `sample_weight` of that shape, such as a mask."""
        # Summed over replicas here, so that a step's result, which Keras averages over replicas,
        # is right too. That every replica then holds the sum changes no ratio of counts.
        counts = functional.code_counts(codes, self.num_codes, sample_weight)
        self.counts.assign_add(backend.all_reduce_sum(counts))

    def result(self) -> dict:
        counts = ops.convert_to_tensor(self.counts)
        entropy = functional.entropy(counts)
        return {
            "perplexity": ops.exp(entropy),
            "code_use": ops.mean(ops.cast(counts > 0, "float32")),
            "bits_per_code": entropy / math.log(2.0),
        }

    def get_config(self) -> dict:
        return {**super().get_config(), "num_codes": self.num_codes}
