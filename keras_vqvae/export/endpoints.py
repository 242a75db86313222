"""The endpoints of an export, as they are collected."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_vqvae.export.checks import checked
from keras_vqvae.export.fields import Field

DEFAULT = "serving_default"


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """One endpoint.

    Attributes:
        function: from the tensors of `inputs`, in their order, to a dict of `outputs`.
        inputs: what it takes.
        outputs: what it gives.
        example: a valid request, by name.
    """

    function: Callable[..., dict]
    inputs: tuple[Field, ...]
    outputs: tuple[Field, ...]
    example: dict[str, np.ndarray]

    def __call__(self, *tensors: tf.Tensor) -> dict:
        """What it answers, after checks of what it is given."""
        return self.function(*checked(self.inputs, tensors))

    @property
    def is_batched(self) -> bool:
        """Whether a server can put requests together: whatever they are, rows fit.

        All tensors must have a row for each example, and inputs no other side that is open: of
        requests with different ones TensorFlow Serving fails all.
        """
        sides = [side for field in self.inputs for side in field.shape[1:]]
        rows = all(field.is_batched for field in (*self.inputs, *self.outputs))
        any_length = any(field.of_one_length for field in self.inputs)
        return rows and not any_length and all(isinstance(side, int) for side in sides)

    def described(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "inputs": {field.name: field.described() for field in self.inputs},
            "outputs": {field.name: field.described() for field in self.outputs},
            "batching": self.is_batched,
        }


class Endpoints:
    """Endpoints by signature; the first is `serving_default` too."""

    def __init__(self) -> None:
        self._added: dict[str, Endpoint] = {}

    def add(
        self,
        signature: str,
        function: Callable[..., dict],
        inputs: Sequence[Field],
        outputs: Sequence[Field],
        example: dict[str, Any],
    ) -> None:
        """Adds an endpoint.

        Args:
            signature: its name.
            function: as of `Endpoint`; it is given tensors that were checked.
            inputs: what it takes.
            outputs: what it gives.
            example: values of the inputs, and perhaps of others.
        """
        values = {f.name: np.asarray(example[f.name], f.numpy_dtype) for f in inputs}
        self._added[signature] = Endpoint(function, tuple(inputs), tuple(outputs), values)

    def replace(self, change: Callable[[str, Endpoint], Endpoint]) -> None:
        """Puts something else in the place of every endpoint."""
        self._added = {name: change(name, endpoint) for name, endpoint in self._added.items()}

    @property
    def signatures(self) -> dict[str, Endpoint]:
        """All, by the names that a server knows."""
        return {**self._added, DEFAULT: next(iter(self._added.values()))}

    def add_to(self, archive: keras.export.ExportArchive) -> None:
        for name, endpoint in self._added.items():
            archive.add_endpoint(name, endpoint.__call__, [field.spec for field in endpoint.inputs])
