"""What all models share: training without targets, exact losses on replicas, work in batches."""

from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_vqvae import backend
from keras_vqvae.backend import Tensor


class Model(keras.Model):
    """A Keras model that is its own target.

    Subclasses return a dict of batch-first tensors from `call`, and implement
    `per_example_loss`, which reads that dict and updates metrics, and `check_data`.
    """

    def per_example_loss(self, x: Any, outputs: dict) -> Tensor:
        """Losses `(batch,)`, float32, of the data `x` given what `call` returned."""
        raise NotImplementedError

    def check_data(self, x: Any) -> None:
        """Raises `ValueError` where an array or tensor `x` is no data for this model."""
        raise NotImplementedError

    def fit(
        self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any
    ) -> keras.callbacks.History:
        """`keras.Model.fit`, without targets: `fit(data)`, an array or a `tf.data.Dataset`."""
        self._check_target(y)
        if kwargs.get("sample_weight") is not None:  # Keras drops it where there is no y
            raise ValueError("sample_weight is not supported: every example counts alike")
        if self.compiled and self.loss is not None:
            raise ValueError(
                f"{type(self).__name__} has its own loss, but compile() got loss={self.loss!r}. "
                "Another distance is another likelihood=..."
            )
        self._check_input("fit", x)
        validation = kwargs.get("validation_data")
        if validation is not None and not isinstance(validation, tuple):
            self._check_input("fit", validation)
        if not self.built:  # BackupAndRestore wants a built model
            spec = getattr(x, "element_spec", x)
            if getattr(spec, "shape", None) is not None:
                self.build((None, *spec.shape[1:]))
        return super().fit(x, None, *args, **kwargs)

    def evaluate(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """`keras.Model.evaluate`, without targets."""
        self._check_target(y)
        self._check_input("evaluate", x)
        return super().evaluate(x, None, *args, **kwargs)

    def predict(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """`keras.Model.predict`: what `call` returns, for all of `x`."""
        self._check_input("predict", x)
        return super().predict(x, *args, **kwargs)

    def _check_input(self, caller: str, x: Any) -> None:
        if hasattr(x, "shape"):
            self.check_data(x)
            empty = x.shape[0] == 0
        elif hasattr(x, "cardinality"):
            empty = int(x.cardinality()) == 0
        elif isinstance(x, (list, tuple, dict)) or x is None:
            self.check_data(x)
            return
        else:
            return
        if empty:
            raise ValueError(f"{caller}() needs at least one example, got an empty x: {x!r:.200}")

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Tensor:
        self._check_target(y)
        if sample_weight is not None:
            raise ValueError("sample_weight is not supported: every example counts alike")
        loss = backend.global_mean(self.per_example_loss(x, y_pred))
        for added in self.losses:  # regularisers of a person's own encoder and decoder
            loss += added / backend.num_replicas()
        return loss

    def _check_target(self, y: Any) -> None:
        if y is not None:
            raise ValueError(
                f"{type(self).__name__} trains without targets, but got y. Use fit(x), and for a "
                "dataset of (x, y) pairs fit(dataset.map(lambda x, y: x))"
            )

    def _in_batches(self, name: str, fn: Callable, data: Any, batch_size: int) -> Any:
        """Runs `fn`, compiled once under `name`, on a tensor, an array or a dataset.

        Tensors are processed whole and give tensors; arrays (in slices of `batch_size`) and
        datasets (batch by batch) give arrays.
        """
        compiled = self.__dict__.setdefault("_compiled_functions", {})
        if name not in compiled:
            compiled[name] = backend.jit(fn, self)
        run = compiled[name]
        if keras.ops.is_tensor(data):
            return run(data)
        if hasattr(data, "shape"):
            # One call even of nothing, for the shape and dtype of the result.
            starts = range(0, max(1, len(data)), batch_size)
            batches: Iterable = (data[start : start + batch_size] for start in starts)
        else:
            batches = data
        parts = [ops.convert_to_numpy(run(ops.convert_to_tensor(batch))) for batch in batches]
        if not parts:
            raise ValueError(f"{name}() got an empty dataset")
        return np.concatenate(parts)
