"""What all models share: training without targets, exact losses on replicas, work in batches."""

import operator
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_vqvae import backend
from keras_vqvae.backend import Tensor
from keras_vqvae.models import sizes, sublayers

# `fit` on several workers replaces a part of Keras that is not public. It was tried with this:
KERAS_TRIED = (3, 15)
_INFINITE = -1  # cardinality of a `tf.data.Dataset` without end


def is_batch_of(x: Any, shape: tuple) -> bool:
    """Whether `x` is `(batch, *shape)`, as far as its shape is known; None in `shape` is any."""
    got = tuple(x.shape)[1:]
    return len(x.shape) == len(shape) + 1 and all(
        None in (side, want) or side == want for side, want in zip(got, shape, strict=True)
    )


def check_codes(codes: Any, grid_shape: tuple, num_codes: int, name: str = "codes") -> None:
    """Raises `ValueError` where `codes` are not of this grid; where values are known, by value."""
    dtype = keras.backend.standardize_dtype(codes.dtype)
    if "int" not in dtype:
        raise ValueError(f"{name} must be integers (int32), got {dtype}")
    if not is_batch_of(codes, grid_shape):
        wanted = ", ".join("any" if n is None else str(n) for n in grid_shape)
        raise ValueError(f"{name} must have shape (batch, {wanted}), got {tuple(codes.shape)}")
    values = backend.concrete(codes)
    if values is not None and values.size:
        low, high = int(values.min()), int(values.max())
        if low < 0 or high >= num_codes:
            raise ValueError(f"{name} must be in [0, {num_codes}), got values from {low} to {high}")


def positive_integer(name: str, value: Any) -> int:
    """`value` as an int; raises `ValueError` where it is none, or below 1."""
    try:
        number = operator.index(value)
    except TypeError:
        number = 0
    if number < 1 or isinstance(value, bool):
        raise ValueError(f"{name} must be a positive integer, got {value!r:.200}")
    return number


class Model(keras.Model):
    """A Keras model that is its own target.

    Subclasses return a dict of batch-first tensors from `call`, and implement
    `per_example_loss`, which reads that dict and updates metrics, and `check_data`.
    (Autoregressive models return their logits alone.)
    """

    # How to make data for `fit` of a dataset of pairs, and what to do instead of compile(loss=...).
    _pairs_cure = "dataset.map(lambda x, y: x)"
    _loss_cure = "Leave it out"

    # Of models whose examples do not all count alike: the mean of their losses, for the logs.
    _counted_loss: keras.metrics.Mean | None = None

    jit_compile: bool  # Keras's
    steps_per_execution: int

    def per_example_loss(self, x: Any, outputs: dict) -> Tensor:
        """Losses `(batch,)`, float32, of the data `x` given what `call` returned."""
        raise NotImplementedError

    def example_weights(self, x: Any) -> Tensor | None:
        """How much each example counts in the loss, float32 `(batch,)`; None for all alike."""
        return None

    def check_data(self, x: Any) -> None:
        """Raises `ValueError` where an array or tensor `x` is no data for this model."""
        raise NotImplementedError

    def checked(self, x: Any) -> Any:
        """A batch of data `x`, with its values checked within TensorFlow's graph, if need be."""
        return x

    def _with_checks(self, x: Any) -> Any:
        """A dataset with its values checked in its pipeline: what XLA compiles drops checks."""
        if not (hasattr(x, "element_spec") and self.compiled and self.jit_compile):
            return x
        if backend.BACKEND != "tensorflow":
            return x
        return x.map(self.checked)

    def fit(
        self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any
    ) -> keras.callbacks.History:
        """`keras.Model.fit`, without targets: `fit(data)`, an array or a `tf.data.Dataset`."""
        self._check_target(y)
        self._check_weighting(kwargs)
        sublayers.revive_lora(self)
        if self.compiled and self.loss is not None:
            raise ValueError(
                f"{type(self).__name__} has its own loss, but compile() got loss={self.loss!r}. "
                f"{self._loss_cure}"
            )
        if not self.trainable:
            raise ValueError(
                f"{self.name} is frozen (trainable=False), as the VQ-VAE of a VideoPredictor is: "
                "predictors and codes made with it would no longer fit it. Set trainable=True to "
                "train it nevertheless"
            )
        if getattr(self, "_compile_metrics", None) is not None:
            raise ValueError(f"{type(self).__name__} has its own metrics: compile() takes none")
        batch_size = args[0] if args else kwargs.get("batch_size")
        if kwargs.get("steps_per_epoch") is None and len(args) < 11:
            check_ends("data of fit()", x, "steps_per_epoch")
        x = backend.native(x)
        self._prepare("fit", x, batch_size)
        validation = kwargs.get("validation_data")
        if isinstance(validation, tuple):
            validation = validation[0]
        validation = backend.native(validation)
        if validation is not None:
            self._check_input("fit", validation)
            _check_ranks("fit", validation)
            if kwargs.get("validation_steps") is None:
                check_ends("validation_data", validation, "validation_steps")
            _check_shares("fit", validation, kwargs.get("validation_batch_size") or batch_size)
            kwargs["validation_data"] = self._with_checks(validation)
        arrays = all(hasattr(leaf, "shape") for leaf in keras.tree.flatten(x))
        if backend.has_workers(self) and arrays and kwargs.get("shuffle", True):
            warnings.warn(
                "each worker shuffles an array in an order of its own: they will train on some "
                "examples twice and on others not at all. Use data.from_array(x, seed=0), or "
                "shuffle=False",
                stacklevel=2,
            )
        if backend.in_cluster() and not backend.has_workers(self):
            warnings.warn(
                "TF_CONFIG names several workers, but this model was made outside the scope of a "
                "MultiWorkerMirroredStrategy: each worker trains on its own",
                stacklevel=2,
            )
        if hasattr(x, "element_spec") and len(args) <= 6:  # or Keras warns that it cannot shuffle
            kwargs.setdefault("shuffle", False)
        # For callbacks that go on in the middle of it; not tracked as a part of the model.
        self.__dict__["_training_data"] = x
        try:
            return super().fit(self._with_checks(x), None, *args, **kwargs)
        finally:
            del self.__dict__["_training_data"]

    def evaluate(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """`keras.Model.evaluate`, without targets."""
        self._check_target(y)
        self._check_weighting(kwargs)
        if kwargs.get("steps") is None and len(args) < 4:
            check_ends("data of evaluate()", x, "steps")
        x = backend.native(x)
        self._prepare("evaluate", x, args[0] if args else kwargs.get("batch_size"))
        return super().evaluate(self._with_checks(x), None, *args, **kwargs)

    def predict(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """`keras.Model.predict`: what `call` returns, for all of `x`."""
        if kwargs.get("steps") is None and len(args) < 3:
            check_ends("data of predict()", x, "steps")
        x = backend.native(x)
        self._prepare("predict", x, args[0] if args else kwargs.get("batch_size"))
        return super().predict(self._with_checks(x), *args, **kwargs)

    def export(self, filepath: Any, *args: Any, **kwargs: Any) -> None:
        """`keras.Model.export` of `call`; `keras_vqvae.export_savedmodel` exports what to serve."""
        signature = self._signature() if self.built else None
        if signature is not None and kwargs.get("input_signature") is None:
            kwargs["input_signature"] = [signature]
        super().export(os.path.expanduser(filepath), *args, **kwargs)

    def _signature(self) -> Any:
        """What `call` takes, `InputSpec`s; None for what Keras knows of it."""

    def _prepare(self, caller: str, x: Any, batch_size: int | None) -> None:
        """Checks the data, and does under a strategy what Keras would not manage."""
        self._check_input(caller, x)
        if caller != "predict":  # which needs no graph of a known rank
            _check_ranks(caller, x)
        _check_shares(caller, x, batch_size)
        if backend.has_workers(self):
            _check_keras()
            if hasattr(x, "options") and not backend.is_cut_right(x):
                raise ValueError(
                    f"{caller}() got a dataset with shard=... and something after its batches, "
                    "such as map: TensorFlow cannot tell the size of a global batch. Batch it "
                    "once more: dataset.unbatch().batch(GLOBAL_BATCH_SIZE)"
                )
        if self.compiled and backend.has_replicas(self):
            self._drop_what_replicas_cannot()
        self._build_on(x)
        self._drop_outdated(caller)
        if self.built and self.compiled and self.optimizer and not self.optimizer.built:
            with backend.strategy_scope(self):
                self.optimizer.build(self.trainable_variables)

    def _drop_outdated(self, caller: str) -> None:
        """Lets Keras compile its function of `caller` anew if it is that of another network."""
        kind = {"fit": "train", "evaluate": "test", "predict": "predict"}[caller]
        if self._network_changed(f"{kind}_function"):
            setattr(self, f"{kind}_function", None)

    def _drop_what_replicas_cannot(self) -> None:
        if self.jit_compile:
            warnings.warn(
                "jit_compile=True is ignored: TensorFlow cannot compile a step on several replicas "
                "by XLA",
                stacklevel=4,
            )
            self.jit_compile = False
        if self.steps_per_execution > 1:
            warnings.warn(
                f"steps_per_execution={self.steps_per_execution} is ignored: on several replicas "
                "Keras fails with it",
                stacklevel=4,
            )
            self.steps_per_execution = 1

    def _build_on(self, x: Any) -> None:
        """Builds the model, in its strategy's scope, for data of known shape."""
        spec = spec_of(x)
        if not self.built and all(map(_has_shape, keras.tree.flatten(spec))):
            with backend.strategy_scope(self):
                self(keras.tree.map_structure(_symbol, spec))

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        # Keras builds on a first batch under a strategy. It fails where that does not divide
        # evenly, and always on several workers; and it would take a turn of the data's order.
        if self.built and (not self.optimizer or self.optimizer.built):
            return
        if backend.has_workers(self):
            raise ValueError(
                "on several workers the model must be built before fit: give an array or a "
                "tf.data.Dataset, or call the model on a batch within the strategy's scope"
            )
        super()._maybe_symbolic_build(iterator, data_batch)

    def compute_metrics(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None
    ) -> dict[str, Tensor]:
        logs = super().compute_metrics(x, y, y_pred, sample_weight)
        if backend.has_workers(self):
            # Keras takes the mean over the workers along axis 0.
            logs = {name: ops.reshape(value, (1,)) for name, value in logs.items()}
        return logs

    def get_metrics_result(self) -> dict:
        # Under a floatx of bfloat16 Keras's own loss is no number for Python.
        logs = {k: ops.cast(v, "float32") for k, v in super().get_metrics_result().items()}
        if self._counted_loss is not None:
            # Keras weights a batch's loss by its examples, whatever these count. Of nothing that
            # counts the mean is no 0, which would look like a perfect model.
            mean = logs.pop(self._counted_loss.name)
            logs["loss"] = ops.where(self._counted_loss.count > 0, mean, np.nan)
        return logs

    def _check_weighting(self, arguments: dict) -> None:
        for name in ("sample_weight", "class_weight"):  # Keras drops them where there is no y
            if arguments.get(name) is not None:
                raise ValueError(f"{name} is not supported: examples are not weighted")

    def _check_input(self, caller: str, x: Any) -> None:
        if hasattr(x, "shape"):
            self.check_data(x)
            empty = x.shape[0] == 0
        elif hasattr(x, "cardinality"):
            empty = int(x.cardinality()) == 0
            spec = spec_of(x)
            if isinstance(spec, tuple):
                self._check_target(spec[1])
                spec = spec[0]
            if all(leaf.shape.rank is not None for leaf in keras.tree.flatten(spec)):
                self.check_data(spec)
        elif isinstance(x, (list, tuple, dict)) or x is None:
            self.check_data(x)
            empty = len(keras.tree.flatten(x)[0]) == 0
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
            raise ValueError("sample_weight is not supported: examples are not weighted")
        losses, weights = self.per_example_loss(x, y_pred), self.example_weights(x)
        loss = backend.global_mean(losses, weights)
        # Of regularizers of a person's own encoder and decoder, in the dtype of their weights.
        added = sum(ops.cast(each, "float32") for each in self.losses)
        if self._counted_loss is not None:
            self._counted_loss.update_state(losses + added, weights)
        return loss + added / backend.num_replicas()

    def _check_target(self, y: Any) -> None:
        if y is not None:
            raise ValueError(
                f"{type(self).__name__} trains without targets, but got y. Use fit(x), and for a "
                f"dataset of (x, y) pairs fit({self._pairs_cure})"
            )

    # Saving: Keras keeps no state of layers that a constructor makes.

    def get_config(self) -> dict:
        config, states = super().get_config(), sublayers.states(self)
        return {**config, "sublayers": states} if states else config

    @classmethod
    def from_config(cls, config: dict, custom_objects: dict | None = None) -> "Model":
        states = config.get("sublayers")
        arguments = {name: value for name, value in config.items() if name != "sublayers"}
        model = super().from_config(cls._deserialized(arguments, custom_objects), custom_objects)
        model.__dict__["_states_to_restore"] = states
        if model.built:
            model._restore_sublayers()
        return model

    @classmethod
    def _deserialized(cls, config: dict, custom_objects: dict | None) -> dict:
        """Arguments of the constructor, of a configuration in which objects are dicts."""
        return config

    def build_from_config(self, config: dict) -> None:
        super().build_from_config(config)
        self._restore_sublayers()

    def _restore_sublayers(self) -> None:
        """Gives the layers inside a built model the states that its configuration says."""
        states = self.__dict__.pop("_states_to_restore", None)
        if states is not None:
            sublayers.restore(self, states)

    def save_own_variables(self, store: Any) -> None:
        sublayers.check_saved_whole(self)
        super().save_own_variables(store)

    def check_weights(self) -> None:
        """Raises `ValueError` where a weight is NaN or infinite: all samples would be code 0."""
        if not bool(ops.convert_to_numpy(self._compiled("finite", self._weights_are_finite)())):
            raise ValueError(f"weights of {self.name} are not finite: training has diverged")

    def _weights_are_finite(self) -> Tensor:
        finite = [ops.all(ops.isfinite(ops.convert_to_tensor(weight))) for weight in self.weights]
        return ops.all(ops.stack(finite)) if finite else ops.convert_to_tensor(True)

    def _in_batches(self, name: str, fn: Callable, data: Any, batch_size: int) -> Any:
        """Runs `fn`, compiled once under `name`, on a tensor, an array or a dataset.

        Tensors are processed whole and give tensors; arrays (in slices of `batch_size`) and
        datasets (batch by batch) give arrays.
        """
        leaves = keras.tree.flatten(data) if isinstance(data, dict) else [data]
        if all(keras.ops.is_tensor(leaf) for leaf in leaves):
            return self._compiled(name, fn)(data)
        check_ends(f"data of {name}()", data)
        parts: list = []
        for part in self._parts_of(name, fn, data, batch_size):
            parts.append(part)
            if part.shape[1:] != parts[0].shape[1:]:
                raise ValueError(
                    f"{name}() of this dataset gives results that do not fit into one array, of "
                    f"shapes {parts[0].shape[1:]} and {part.shape[1:]} an example: call it "
                    "batch by batch (for batch in dataset: ...), or write codes to files by "
                    "data.encode_to_records"
                )
        return np.concatenate(parts)

    def _parts_of(self, name: str, fn: Callable, data: Any, batch_size: int) -> Iterator[Any]:
        """What `_in_batches` puts together, as nests of arrays; of tensors too."""
        batch_size = positive_integer("batch_size", batch_size)
        run = self._compiled(name, fn)
        leaves = keras.tree.flatten(data) if isinstance(data, dict) else [data]
        if all(hasattr(leaf, "shape") for leaf in leaves):
            # One call even of nothing, for the shape and dtype of the result.
            starts = range(0, max(1, len(leaves[0])), batch_size)
            batches: Iterable = (_rows(data, start, start + batch_size) for start in starts)
        else:
            batches = data
        empty = True
        for batch in map(unpacked, batches):
            empty = False
            count = len(keras.tree.flatten(batch)[0])
            made = run(_as_tensors(self._of_few_sizes(batch)))
            yield _rows(keras.tree.map_structure(ops.convert_to_numpy, made), 0, count)
        if empty:
            raise ValueError(f"{name}() got an empty dataset")

    def _of_few_sizes(self, batch: Any) -> Any:
        """A batch with its last row repeated up to one of few sizes, if each is compiled anew."""
        if not backend.is_compiled_by_size(False):
            return batch
        count = len(keras.tree.flatten(batch)[0])
        more = [min(count, 1) * (sizes.rounded_up(count) - count)]

        def padded(x: Any) -> np.ndarray:
            x = ops.convert_to_numpy(x)
            return np.concatenate([x, np.repeat(x[-1:], more, 0)])

        return keras.tree.map_structure(padded, batch)

    def _compiled(self, name: str, fn: Callable, xla: bool = False) -> Callable:
        """`fn` compiled, once under its name and for the present network."""
        if self._network_changed("_compiled_functions"):
            self.__dict__["_compiled_functions"] = {}
        compiled = self.__dict__["_compiled_functions"]
        if (name, xla) not in compiled:
            compiled[name, xla] = backend.jit(fn, self, xla)
        return compiled[name, xla]

    def _network_changed(self, function: str) -> bool:
        """Whether the network is another than when this was last asked for `function`.

        The objects are held, so that no new one can have the identity of an old one.
        """
        present, seen = sublayers.network(self), self.__dict__.setdefault("_networks", {})
        before, seen[function] = seen.get(function), present
        return before is None or list(map(id, before)) != list(map(id, present))


def unpacked(x: Any) -> Any:
    """`x`, or what a tuple of one holds, such as batches of `from_tensor_slices((x,))`."""
    return x[0] if isinstance(x, tuple) and len(x) == 1 else x


def array_of(name: str, x: Any) -> Any:
    """`x`, or an array if it is a list of numbers, of lists of numbers, and so on.

    A list of arrays stays one, such as an iterable of batches.
    """
    first = x
    while isinstance(first, (list, tuple)) and first:
        first = first[0]
    if not isinstance(x, (list, tuple)) or np.ndim(first):
        return x
    try:
        return np.asarray(x)
    except ValueError as error:
        raise ValueError(
            f"{name} must be an array or lists of equal lengths, got {x!r:.200}"
        ) from error


def spec_of(data: Any) -> Any:
    """The spec of a dataset's batches; `data` itself if it is none."""
    return unpacked(data.element_spec) if hasattr(data, "element_spec") else data


def check_ends(name: str, data: Any, steps: str | None = None) -> None:
    """Raises `ValueError` if `data` is a dataset that says it has no end, as after `repeat`.

    Args:
        name: of the data, for the message.
        data: anything.
        steps: an argument that would bound it.
    """
    if hasattr(data, "cardinality") and int(data.cardinality()) == _INFINITE:
        bound = f"Give {steps}, or `take`" if steps else "`take`"
        raise ValueError(
            f"{name} must have an end, got an endless dataset. {bound} as many batches as needed"
        )


def deserialized(config: dict, names: Iterable[str], custom_objects: dict | None) -> dict:
    """Returns a configuration whose entries `names` are objects again, if they are dicts."""
    objects = {
        name: keras.saving.deserialize_keras_object(config[name], custom_objects)
        for name in names
        if isinstance(config.get(name), dict)
    }
    return {**config, **objects}


def _check_ranks(caller: str, x: Any) -> None:
    """Raises `ValueError` for a dataset whose batches may have any number of axes."""
    spec = getattr(x, "element_spec", ())
    if any(leaf.shape.rank is None for leaf in keras.tree.flatten(spec)):
        raise ValueError(
            f"`{caller}` must be given batches of a known number of axes, got a dataset of {spec}. "
            "Give `Dataset.from_generator` an `output_signature` in place of `output_types`, such "
            "as `tf.TensorSpec((None, 64, 64, 3), tf.uint8)`."
        )


def _check_shares(caller: str, x: Any, batch_size: int | None) -> None:
    """Raises where an array's batches cannot go in equal parts to the devices, as JAX wants."""
    shares = backend.batch_shares()
    leaves = keras.tree.flatten(x)
    if shares == 1 or not all(hasattr(leaf, "shape") for leaf in leaves):
        return
    count, batch_size = len(leaves[0]), batch_size or 32  # Keras's
    uneven = [n for n in (min(batch_size, count), count % batch_size) if n % shares]
    if uneven:
        raise ValueError(
            f"{caller}() under DataParallel needs batches that divide by the {shares} devices, but "
            f"{count} examples in batches of {batch_size} give one of {uneven[0]}. Leave "
            "some out, choose another batch_size, or evaluate and predict outside the distribution"
        )


def _check_keras() -> None:
    """Raises, or warns, where `fit` on several workers cannot be relied on."""
    version = tuple(int(part) for part in keras.version().split(".")[:2])
    tried = ".".join(map(str, KERAS_TRIED))
    loop = "docs/scaling.md has a training loop that leans on nothing private"
    if not hasattr(keras.Model, "_maybe_symbolic_build"):
        raise RuntimeError(
            f"fit() on several workers does not work with Keras {keras.version()}, which has no "
            f"_maybe_symbolic_build. Use Keras {tried}, or one worker; {loop}"
        )
    if version != KERAS_TRIED:
        warnings.warn(
            f"fit() on several workers was tried with Keras {tried}, this is {keras.version()}. "
            "Keras 3.8 trained right too, but logged each worker's own metrics; " + loop,
            stacklevel=4,
        )


def _has_shape(leaf: Any) -> bool:
    """Whether at least the rank is known."""
    shape = getattr(leaf, "shape", None)
    return shape is not None and getattr(shape, "rank", 0) is not None


def _symbol(spec: Any) -> keras.KerasTensor:
    """A batch of unknown size like an array, a tensor or a spec."""
    dtype = keras.backend.standardize_dtype(spec.dtype)
    return keras.KerasTensor((None, *spec.shape[1:]), dtype)


def _rows(data: Any, start: int, stop: int) -> Any:
    return keras.tree.map_structure(lambda x: x[start:stop], data)


def _as_tensors(data: Any) -> Any:
    return keras.tree.map_structure(ops.convert_to_tensor, backend.native(data))
