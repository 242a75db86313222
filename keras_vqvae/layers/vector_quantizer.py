"""Vector quantisation with one codebook."""

from collections.abc import Iterable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_vqvae import backend, functional
from keras_vqvae.backend import Tensor

# Moving count of a code just started or restarted, where 1 is the mean use. So light a code goes
# where the next rows it wins are, and one that wins none soon expires again.
FRESH_USE = 0.1


def _assign_where(variable: Any, condition: Tensor, value: Any) -> None:
    # No `cond`: collectives in one fail under MirroredStrategy, and so do assignments on JAX.
    variable.assign(ops.where(condition, value, ops.convert_to_tensor(variable)))


def _is_of(shape: tuple, wanted: tuple) -> bool:
    """Whether shapes agree, as far as they are known."""
    sides = zip(shape, wanted, strict=True) if len(shape) == len(wanted) else [(0, 1)]
    return all(None in (side, want) or side == want for side, want in sides)


def _mean_of_counted(x: Tensor, mask: Tensor | None) -> Tensor:
    """Mean of each example over the vectors that count, `(batch,)`; 0 where none does."""
    if mask is None:
        return ops.mean(x, tuple(range(1, len(x.shape))))
    each = ops.where(ops.cast(mask, "bool"), ops.mean(x, -1), 0.0)
    return _sum_of_examples(each) / ops.maximum(_count(mask), 1.0)


def _count(mask: Tensor) -> Tensor:
    """How many vectors of each example count: `(batch,)`."""
    return _sum_of_examples(ops.cast(mask, "float32"))


def _sum_of_examples(x: Tensor) -> Tensor:
    return ops.sum(x, tuple(range(1, len(x.shape)))) if len(x.shape) > 1 else x


@keras.saving.register_keras_serializable(package="keras_vqvae")
class VectorQuantizer(keras.layers.Layer):
    """Replaces each vector by the nearest of `num_codes` learned ones.

    The layer of van den Oord et al. 2017, "Neural Discrete Representation Learning", section 3.
    In a model of this package its loss is part of the model's; used alone, between any two
    layers, it adds its loss by `add_loss`:

    ```python
    model = keras.Sequential([encoder, VectorQuantizer(512, 64), decoder])
    ```

    With z the input and e the nearest code, the loss of an example is a mean over its entries:

    - `codebook="ema"`: `beta * |z - sg[e]|^2`. The codes are exponential moving averages
      (appendix A.1): `n <- d*n + (1-d)*count`, `s <- d*s + (1-d)*sum`, `e <- e + (s - n*e) / n'`,
      where `n' = (n + eps) / (sum(n) + K*eps) * sum(n)` is the smoothed count; n itself is stored
      unsmoothed. This is `e = s / n` but for the smoothing, which changes the length of a step
      and does not pull codes towards zero: vectors far from it are quantised as those around it.
      Counts and sums are in units of the mean use N/K, with N rows a step, so that they keep
      their meaning when the batch size changes.
    - `codebook="gradient"`: `|sg[z] - e|^2 + beta * |z - sg[e]|^2` (eq. 3), codes by gradient.

    The codebook starts from rows of the first training batch (or from `adapt`). After each
    training step, a code whose moving count has fallen under `expiry` times the mean use is dead:
    vector, sum and count are restarted from a row of that batch. Under `tf.distribute`
    counts, sums and rows are those of the global batch, so that all replicas stay alike.
    Statistics, and rows, that are not finite are not taken in; nor are rows that a mask leaves out.

    One origin, a median of the codes, is taken off codes and vectors before the search. Vectors in
    clusters far from each other have none that fits all: their squared distances are exact to about
    1e-7 of the squared distance between the clusters, so that near codes may be confused.

    The computation is float32 under every dtype policy; the output has the policy's dtype.
    `trainable = False` freezes the codebook, whichever way it is trained.

    Under a multi-replica strategy, weights train exactly, but the part of the *logged* loss that
    comes from `add_loss` may be wrong (Keras collects it while replicas interleave). The models
    of this package use `return_info=True` instead and are not concerned.

    Args:
        num_codes: K, the number of codes.
        code_dim: D, the size of a code and of the input's last axis.
        codebook: `"ema"` or `"gradient"`.
        commitment: beta of the paper.
        decay: d, used with `"ema"` for codes, and always for the counts that decide expiry.
        expiry: fraction of the mean use N/K under which a code is restarted; 0 for never.
        epsilon: eps of the smoothed count.
        seed: of the rows that start and restart codes; None for an arbitrary one.

    Input: `(batch, ..., code_dim)`, rank 2 to 5. Output: the same shape. A mask, such as Keras's
    `Masking` makes, ends here.
    """

    def __init__(
        self,
        num_codes: int,
        code_dim: int,
        *,
        codebook: str = "ema",
        commitment: float = 0.25,
        decay: float = 0.99,
        expiry: float = 0.05,
        epsilon: float = 1e-5,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        # `autocast=False`: vectors far from zero must not be rounded before the search.
        super().__init__(autocast=False, **kwargs)
        if codebook not in ("ema", "gradient"):
            raise ValueError(f"codebook must be 'ema' or 'gradient', got {codebook!r}")
        for name, value in (("num_codes", num_codes), ("code_dim", code_dim)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be an integer of at least 1, got {value!r}")
        if commitment < 0 or epsilon <= 0:
            raise ValueError(
                "commitment must not be negative and epsilon must be positive, "
                f"got commitment={commitment}, epsilon={epsilon}"
            )
        for name, fraction in (("decay", decay), ("expiry", expiry)):
            if not 0 <= fraction < 1:
                raise ValueError(f"{name} must be in [0, 1), got {fraction}")
        self.num_codes = num_codes
        self.code_dim = code_dim
        self.codebook = codebook
        self.commitment = commitment
        self.decay = decay
        self.expiry = expiry
        self.epsilon = epsilon
        self.seed = seed
        self._seed_generator = keras.random.SeedGenerator(seed)
        self.supports_masking = True

    def _check_shape(self, shape: tuple) -> None:
        if not 2 <= len(shape) <= 5 or shape[-1] != self.code_dim:
            raise ValueError(
                f"input of {self.name} must have rank 2 to 5 and a last axis of size code_dim="
                f"{self.code_dim}, got shape {tuple(shape)}"
            )

    def build(self, input_shape: tuple) -> None:
        def weight(name: str, shape: tuple, initializer: str, trainable: bool = False) -> Any:
            return self.add_weight(
                name=name, shape=shape, initializer=initializer, trainable=trainable,
                dtype="float32", autocast=False,
            )  # fmt: skip

        shape = (self.num_codes, self.code_dim)
        # With a codebook trained by gradient, `_base` takes starts and restarts and `_offset`
        # the gradients: a step may not assign to a trainable variable under JAX.
        self._base = weight("embeddings", shape, "random_normal")
        if self.codebook == "ema":
            self._sums = weight("sums", shape, "zeros")
        else:
            self._offset = weight("offset", shape, "zeros", trainable=True)
        self._counts = weight("counts", (self.num_codes,), "ones")
        self._started = weight("started", (), "zeros")

    @property
    def embeddings(self) -> Tensor:
        """The codebook, `(num_codes, code_dim)` float32."""
        base = ops.convert_to_tensor(self._base)
        if self.codebook == "ema":
            return base
        # The factor makes the gradient of a look-up dense. In TensorFlow it is one slice for each
        # row, and Adam would sum their squares where it should square their sum.
        return base + 1.0 * ops.convert_to_tensor(self._offset)

    def call(
        self,
        z: Tensor,
        training: bool | None = None,
        return_info: bool = False,
        mask: Tensor | None = None,
        reverse: bool = False,
    ) -> Any:
        """Quantises `z`.

        Args:
            z: `(batch, ..., code_dim)`.
            training: whether codes move; the loss is there either way.
            return_info: if true, adds no loss but returns it.
            mask: bool `(batch, ...)`; vectors where it is False, such as those of padding, are
                quantised like others, but neither move codes nor count in the loss. None for all
                of them.
            reverse: if true, `z` holds codes and their vectors are returned, as by `decode`.

        Returns:
            quantized, of z's shape; with `return_info`, the tuple
            (quantized, codes `(batch, ...)` int32, loss per example `(batch,)` float32).
        """
        if reverse:
            return self.decode(z)
        self._check_shape(z.shape)  # also where the layer was built for another input
        if mask is not None and not _is_of(mask.shape, z.shape[:-1]):
            raise ValueError(
                f"mask must have the shape of the input without its last axis, "
                f"{tuple(z.shape[:-1])}, got {tuple(mask.shape)}"
            )
        shape = ops.shape(z)
        z32 = ops.cast(z, "float32")
        rows = ops.reshape(z32, (-1, self.code_dim))
        counted = None if mask is None else ops.cast(ops.reshape(mask, (-1,)), "bool")
        moving = bool(training) and self.trainable
        if moving:
            fresh, mean_use = self._rows_for_codes(rows, counted)
            self._start(fresh, mean_use)
        embeddings = self.embeddings
        codes = functional.nearest_codes(rows, embeddings)
        quantized = ops.reshape(ops.take(embeddings, codes, axis=0), shape)
        error = z32 - ops.stop_gradient(quantized)
        if moving:
            errors = ops.stop_gradient(ops.reshape(error, (-1, self.code_dim)))
            self._move(errors, codes, fresh, mean_use, counted)
        loss = self.commitment * _mean_of_counted(ops.square(error), mask)
        if self.codebook == "gradient":
            # A row that is not finite moves no code; the commitment shows it in the loss.
            finite = ops.all(ops.isfinite(z32), -1, keepdims=True)
            target = ops.stop_gradient(ops.where(finite, z32, quantized))
            loss += _mean_of_counted(ops.square(target - quantized), mask)
        # `functional.straight_through` of what is already there: a pass over the vectors less.
        output = ops.cast(z32 - ops.stop_gradient(error), self.compute_dtype)
        if return_info:
            return output, ops.reshape(codes, shape[:-1]), loss
        # Keras divides added losses by the number of replicas.
        weights = None if mask is None else _count(mask)
        added = backend.global_mean(loss, weights) * backend.num_replicas()
        # Keras adds it to compile's loss, which is of that dtype.
        self.add_loss(ops.cast(added, keras.config.floatx()))
        return output

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> None:
        """None: what follows is not told of a mask."""

    def encode(self, z: Tensor) -> Tensor:
        """Nearest codes of `z` `(batch, ..., code_dim)`: `(batch, ...)` int32."""
        if isinstance(z, keras.KerasTensor):  # in a functional model, of which this layer is part
            return self(z, return_info=True)[1]
        z = ops.convert_to_tensor(z)
        self._check_shape(z.shape)
        if not self.built:
            self.build(z.shape)
        rows = ops.reshape(ops.cast(z, "float32"), (-1, self.code_dim))
        return ops.reshape(functional.nearest_codes(rows, self.embeddings), ops.shape(z)[:-1])

    def decode(self, codes: Tensor) -> Tensor:
        """Vectors of `codes` `(batch, ...)` int32: `(batch, ..., code_dim)`, in [0, num_codes)."""
        if isinstance(codes, keras.KerasTensor):
            return self(codes, reverse=True)
        if not self.built:
            raise ValueError(f"{self.name} has no codebook yet: call it, fit or adapt it first")
        codes = ops.cast(codes, "int32")
        return ops.cast(ops.take(self.embeddings, codes, axis=0), self.compute_dtype)

    def adapt(self, data: Any, iterations: int = 10, rows_per_code: int = 256) -> None:
        """Sets the codebook by k-means, instead of from the first batch.

        On several workers all must call it; the chief's codebook, from its data, is everyone's.

        Args:
            data: vectors to be quantised, `(batch, ..., code_dim)`: an array, or an iterable of
                batches such as a `tf.data.Dataset`.
            iterations: Lloyd iterations.
            rows_per_code: no more batches are read than give `rows_per_code * num_codes` vectors.
                Of these, or of an array, that many are drawn at random, and only they are copied.

        Raises:
            ValueError: `data` holds no vector, vectors of another size, or values not finite.
        """
        random = np.random.default_rng(self.seed)
        rows = random.permutation(self._drawn(data, rows_per_code * self.num_codes, random))
        if not np.isfinite(rows).all():
            raise ValueError("adapt() needs finite vectors, got NaN or infinite values")
        if not self.built:
            self.build(rows.shape)
        codebook = rows[random.integers(len(rows), size=self.num_codes)]
        codebook[: len(rows)] = rows[: self.num_codes]  # distinct rows as far as they go
        z = ops.convert_to_tensor(rows)
        for _ in range(iterations):
            codes = functional.nearest_codes(z, ops.convert_to_tensor(codebook))
            errors = rows - codebook[ops.convert_to_numpy(codes)]
            counts, sums = (
                ops.convert_to_numpy(t)
                for t in functional.code_statistics(errors, codes, self.num_codes)
            )
            used = counts > 0
            codebook[used] += sums[used] / counts[used, None]
            codebook[~used] = rows[random.integers(len(rows), size=np.sum(~used))]
        codebook = backend.chiefs(codebook, self._base)  # each worker has drawn its own
        self._replace(ops.ones((), "bool"), ops.convert_to_tensor(codebook), 1.0)
        self._started.assign(1.0)

    def _drawn(self, data: Any, most: int, random: np.random.Generator) -> np.ndarray:
        """Vectors of `data`, at most `most`, float32 `(rows, code_dim)`."""
        batches: Iterable = [data] if hasattr(data, "shape") else data
        parts, total = [], 0
        for batch in batches:
            part = np.asarray(batch)
            self._check_shape(part.shape)
            parts.append(part.reshape(-1, self.code_dim))
            total += len(parts[-1])
            if total >= most:
                break
        if not total:
            raise ValueError("adapt() needs at least one vector, got an empty dataset")
        chosen = np.sort(random.choice(total, min(most, total), replace=False))
        ends = np.cumsum([len(part) for part in parts])
        each = np.split(chosen, np.searchsorted(chosen, ends[:-1]))
        starts = ends - [len(part) for part in parts]
        rows = [part[i - start] for part, i, start in zip(parts, each, starts, strict=True)]
        return np.concatenate(rows).astype("float32")

    def _rows_for_codes(self, rows: Tensor, counted: Tensor | None) -> tuple[Tensor, Tensor]:
        """A row of the global batch for each code, and the mean use N/K of a code."""
        # Of a Python number Keras would make an integer of floatx's width.
        size = count = ops.cast(ops.shape(rows)[0], "int32")
        if counted is not None:
            before = ops.cumsum(ops.cast(counted, "int32"))  # each row's number among those
            count = ops.sum(ops.cast(counted, "int32"))
        first, total = backend.global_rows(count)
        # Rows come from K equal slices of the batch: distinct ones as far as they go. They are
        # named by their index in the global batch, so every replica ends with the same.
        u = backend.uniforms((self.num_codes,), self._seed_generator.next())
        place = (ops.arange(self.num_codes, dtype="float32") + u) / self.num_codes
        index = ops.cast(ops.floor(place * ops.cast(total, "float32")), "int32")
        index = ops.minimum(index, total - 1) - first
        here = ops.logical_and(index >= 0, index < count)
        index = ops.clip(index, 0, ops.maximum(count - 1, 0))
        if counted is not None:
            index = ops.searchsorted(before, index + 1, side="left")
            index = ops.clip(ops.cast(index, "int32"), 0, ops.maximum(size - 1, 0))
        local = ops.take(functional.never_empty(ops.stop_gradient(rows)), index, axis=0)
        fresh = backend.all_reduce_sum(ops.where(here[:, None], local, 0.0))
        return fresh, ops.cast(total, "float32") / self.num_codes

    def _start(self, fresh: Tensor, mean_use: Tensor) -> None:
        usable = ops.logical_and(ops.all(ops.isfinite(fresh)), mean_use > 0)
        start = ops.logical_and(self._started < 0.5, usable)
        self._replace(start, fresh, FRESH_USE)
        _assign_where(self._started, start, 1.0)

    def _move(
        self, errors: Tensor, codes: Tensor, fresh: Tensor, mean_use: Tensor, counted: Tensor | None
    ) -> None:
        """Makes one EMA step, after the search, and restarts dead codes.

        `errors` are the rows less their codes, because sums of rows far from zero lose digits.
        """
        used, sums = backend.all_reduce_sum(
            list(functional.code_statistics(errors, codes, self.num_codes, counted))
        )
        usable = ops.logical_and(ops.all(ops.isfinite(sums)), mean_use > 0)
        share = (1.0 - self.decay) / ops.maximum(mean_use, 1e-30)
        decay = ops.convert_to_tensor(self.decay, "float32")  # a Python number is of floatx
        d, share = ops.where(usable, decay, 1.0), ops.where(usable, share, 0.0)
        counts = d * self._counts + share * used
        self._counts.assign(counts)
        if self.codebook == "ema":
            base = ops.convert_to_tensor(self._base)
            sums = ops.where(usable, sums + used[:, None] * base, 0.0)
            sums = d * self._sums + share * sums
            self._sums.assign(sums)
            total = ops.sum(counts)
            smoothed = (counts + self.epsilon) / (total + self.num_codes * self.epsilon) * total
            moved = base + (sums - counts[:, None] * base) / smoothed[:, None]
            _assign_where(self._base, usable, moved)
        dead = ops.logical_and(usable, counts < self.expiry)
        self._replace(dead, fresh, FRESH_USE)

    def _replace(self, which: Tensor, vectors: Tensor, count: float) -> None:
        """Gives the codes that `which` (boolean, a scalar or one a code) names new vectors."""
        rows = which if len(which.shape) == 0 else which[:, None]
        if self.codebook == "ema":
            _assign_where(self._base, rows, vectors)
            _assign_where(self._sums, rows, count * vectors)
        else:
            base = vectors - ops.stop_gradient(ops.convert_to_tensor(self._offset))
            _assign_where(self._base, rows, base)
        _assign_where(self._counts, which, count)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return tuple(input_shape)

    def compute_output_spec(
        self,
        z: Any,
        training: bool | None = None,
        return_info: bool = False,
        mask: Any = None,
        reverse: bool = False,
    ) -> Any:
        """Returns symbolic tensors of the shapes and dtypes of what `call` returns."""
        if reverse:
            return keras.KerasTensor((*z.shape, self.code_dim), self.compute_dtype)
        self._check_shape(z.shape)
        quantized = keras.KerasTensor(z.shape, self.compute_dtype)
        if not return_info:
            return quantized
        codes = keras.KerasTensor(z.shape[:-1], "int32")
        return quantized, codes, keras.KerasTensor(z.shape[:1], "float32")

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "num_codes": self.num_codes,
            "code_dim": self.code_dim,
            "codebook": self.codebook,
            "commitment": self.commitment,
            "decay": self.decay,
            "expiry": self.expiry,
            "epsilon": self.epsilon,
            "seed": self.seed,
        }
