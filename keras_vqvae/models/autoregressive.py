"""What all autoregressive models over codes share: loss, sampling, log-probabilities."""

import math
import random
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_vqvae import backend, functional, sampling
from keras_vqvae.backend import Tensor
from keras_vqvae.models import sizes
from keras_vqvae.models.base import Model, array_of, check_codes, is_batch_of, positive_integer
from keras_vqvae.models.progress import Progress

CODES_A_CALL = 4096
_LEAST_A_CALL = 64  # of a sequence


class Autoregressive(Model):
    """A distribution over grids of codes, `p(codes) = Π p(code_i | codes before i)`.

    Positions are in raster order, the last axis fastest. Subclasses implement
    `logits(codes, condition)` and, for sampling, what `keras_vqvae.sampling` names.

    Args:
        grid_shape: shape of an example's codes; `(None,)` for sequences of any length.
        num_codes: K.
        num_classes: number of classes, where the condition is a class.
        condition_channels: channels C, where the condition is a map `(batch, *grid_shape, C)`.
    """

    _data_names: tuple = ("codes", "condition")
    _pairs_cure = 'dataset.map(lambda codes, labels: {"codes": codes, "condition": labels})'

    def __init__(
        self,
        grid_shape: tuple,
        num_codes: int,
        num_classes: int | None = None,
        condition_channels: int | None = None,
        **kwargs: Any,
    ) -> None:
        if num_classes is not None and condition_channels is not None:
            raise ValueError(
                "num_classes and condition_channels exclude each other: to have both, put the "
                "class into channels of the map"
            )
        # Codes are integers, and stay so.
        super().__init__(autocast=False, **kwargs)
        self.grid_shape: tuple = tuple(
            None if n is None else positive_integer("each of grid_shape", n) for n in grid_shape
        )
        self.num_codes = positive_integer("num_codes", num_codes)
        self.num_classes = num_classes
        if num_classes is not None:
            self.num_classes = positive_integer("num_classes", num_classes)
        self.condition_channels = condition_channels
        if condition_channels is not None:
            self.condition_channels = positive_integer("condition_channels", condition_channels)

    @property
    def num_positions(self) -> int:
        """Codes of an example."""
        if None in self.grid_shape:
            raise ValueError(f"{self.name} is for sequences of any length: it has no num_positions")
        return math.prod(self.grid_shape)

    def logits(self, codes: Tensor, condition: Tensor | None = None) -> Tensor:
        """Logits `(batch, *grid_shape, num_codes)` of each position given those before it."""
        raise NotImplementedError(f"{type(self).__name__} must implement logits")

    def initial_cache(self, batch: Any, condition: Tensor | None = None) -> Any:
        """What `begin_row` and `step` need of the past, before there is one: a nest of tensors."""
        raise NotImplementedError(f"{type(self).__name__} must implement initial_cache to sample")

    def begin_row(self, cache: Any, previous_row: Tensor, row: Tensor) -> Any:
        """The cache for a new row, given int32 codes `(batch, columns)` of the one before.

        For row 0 there is none, and what is given must not be looked at.
        """
        return cache

    def sampler(self) -> Any:
        """What `keras_vqvae.sampling` calls in a loop; made outside of it."""
        return self

    def step(self, cache: Any, previous: Tensor, position: Tensor) -> tuple[Tensor, Any]:
        """Logits `(batch, num_codes)` at a position in raster order, and the cache.

        `previous`, int32 `(batch,)`, is the code before in raster order. For position 0 there is
        none, and what is given must not be looked at.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement step to sample")

    def call(self, inputs: Any, training: bool = False) -> Tensor:
        self.check_data(inputs)
        codes, condition = _split(self.checked(inputs))
        batch = ops.shape(codes)[0]
        codes = functional.never_empty(codes)
        if condition is not None:
            condition = functional.never_empty(condition)
        return self.logits(codes, condition)[:batch]

    def checked(self, x: Any) -> Any:
        parts = dict(x) if isinstance(x, dict) else {"codes": x}
        codes = ops.cast(parts["codes"], "int32")
        parts["codes"] = backend.checked_range("codes", codes, self.num_codes)
        if parts.get("condition") is not None:
            condition = self._as_tensor(parts["condition"])
            if self.num_classes:
                condition = backend.checked_range("condition", condition, self.num_classes)
            parts["condition"] = condition
        return parts if isinstance(x, dict) else parts["codes"]

    def _as_tensor(self, condition: Any) -> Tensor:
        return ops.cast(condition, "int32" if self.num_classes else self.compute_dtype)

    def draw(self, logits: Tensor, u: Tensor, options: sampling.Options) -> Tensor:
        """Codes int32 `(batch,)` of what `step` gave and uniform numbers `(batch,)`."""
        return sampling.draw(logits, u, options)

    def per_example_loss(self, x: Any, logits: Tensor) -> Tensor:
        return -self._log_prob_of(_split(x)[0], logits) / (self.num_positions * math.log(2.0))

    def _log_prob_of(self, codes: Tensor, logits: Tensor) -> Tensor:
        log_prob = -ops.sparse_categorical_crossentropy(
            ops.cast(codes, "int32"), ops.cast(logits, "float32"), from_logits=True
        )
        return ops.sum(log_prob, tuple(range(1, len(log_prob.shape))))

    def check_data(self, x: Any) -> None:
        """Raises `ValueError` where `x` is not codes, or codes and condition, of this model."""
        if isinstance(x, dict):
            if "codes" not in x or not set(x) <= set(self._data_names):
                wanted = ", ".join(f'"{name}": {name}' for name in self._data_names)
                raise ValueError(f"a dict must be {{{wanted}}}, got the keys {sorted(map(str, x))}")
        elif not hasattr(x, "dtype"):
            raise ValueError(
                'data must be codes or {"codes": codes, "condition": condition}, '
                f"got a {type(x).__name__}"
            )
        codes, condition = _split(x)
        if not hasattr(codes, "dtype"):
            raise ValueError(f"codes must be one array or tensor, got a {type(codes).__name__}")
        check_codes(codes, self.grid_shape, self.num_codes)
        self.check_condition(condition, codes.shape[0])

    def check_condition(self, condition: Any, batch: int | None = None) -> None:
        """Raises `ValueError` where `condition` is not one for `batch` examples."""
        shape: tuple = ()
        if self.num_classes:
            kind = f"integers (batch,) in [0, {self.num_classes})"
        elif self.condition_channels:
            shape = (*self.grid_shape, self.condition_channels)
            kind = f"floats (batch, {', '.join(map(str, shape))})"
        else:
            if condition is not None:
                raise ValueError(
                    f"condition: {self.name} has none; give num_classes or condition_channels "
                    "when it is made"
                )
            return
        if condition is None:
            raise ValueError(f"condition is missing: {self.name} needs {kind}")
        if not hasattr(condition, "dtype"):
            raise ValueError(f"condition must be {kind}, got a {type(condition).__name__}")
        dtype = keras.backend.standardize_dtype(condition.dtype)
        if ("int" if self.num_classes else "float") not in dtype:
            raise ValueError(f"condition must be {kind}, got dtype {dtype}")
        got = tuple(condition.shape)
        if not is_batch_of(condition, shape):
            raise ValueError(f"condition must be {kind}, got shape {got}")
        if None not in (batch, got[0]) and batch != got[0]:
            raise ValueError(f"condition must be of the {batch} examples, got {got[0]}")
        values = backend.concrete(condition)
        if values is not None and values.size:
            low, high = values.min(), values.max()
            if self.num_classes and not (0 <= low and high < self.num_classes):
                raise ValueError(f"condition must be {kind}, got values from {low} to {high}")
            if not (np.isfinite(low) and np.isfinite(high)):
                raise ValueError("condition must be finite, got NaN or infinity")

    def log_prob(self, x: Any, batch_size: int = 64) -> np.ndarray:
        """Log-probability in nats of each example.

        Args:
            x: what `fit` takes: codes `(batch, *grid_shape)` or a dict of `codes` and
                `condition`; arrays, tensors, or a dataset of such batches.
            batch_size: examples at a time, for arrays.

        Returns:
            float32 `(batch,)`, an array; a tensor if codes are one.

        Raises:
            ValueError: wrong dtype or shape, or (arrays) a value out of range.
        """
        if hasattr(x, "shape") or isinstance(x, (dict, list, tuple)):
            self.check_data(x)
        return self._in_batches("log_prob", self._log_prob, x, batch_size)

    def _log_prob(self, x: Any) -> Tensor:
        return self._log_prob_of(_split(x)[0], self(x))

    def sample(
        self,
        n: int,
        condition: Any = None,
        prompt: Any = None,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float = 1.0,
        seed: int | None = None,
        batch_size: int = 64,
        verbose: str | int = "auto",
        length: int | None = None,
    ) -> np.ndarray:
        """Draws `n` grids of codes.

        The same seed gives the same samples, compiled by XLA (`compile(jit_compile=True)`) or
        not, in batches of whatever size, and in a SavedModel; `sample(4)` are the first of
        `sample(16)`. That holds in float32 but for rounding: another compiler may add up
        probabilities in another order, and then about one code in twenty thousand (of 512 equally
        likely ones) comes out as its neighbour, and changes what follows in its grid. Under a mixed
        precision policy it is more. TensorFlow and JAX make other uniform numbers of a seed.

        Args:
            n: how many.
            condition: one class, or `n` of them; one map or `n`; None without conditioning.
            prompt: the first codes in raster order, which are kept: whole rows
                `(n, rows, *grid_shape[1:])`, or `(n, positions)`.
            temperature: logits are divided by it.
            top_k: draw from the `top_k` most likely codes of a position only.
            top_p: draw from the most likely codes that together reach this probability only.
            seed: an int of 32 bits; None for other samples every time.
            batch_size: grids at a time.
            verbose: 1 to show progress, 0 not to, "auto" to show it where it takes long.
            length: codes of an example, prompt included, for models of any length only.

        Returns:
            int32 `(n, *grid_shape)`.

        Raises:
            ValueError: an argument is out of its range, or condition or prompt do not fit.
        """
        if not _is_integer(n) or n < 0:
            raise ValueError(f"n must be an integer of at least 0, got {n!r}")
        grid = self._grid_of(length)
        known = np.zeros((n, math.prod(grid)), "int32")
        keep = np.zeros(known.shape, bool)
        if prompt is not None:
            prompt = self._flat_prompt(prompt, n, math.prod(grid))
            given = prompt.shape[1]
            known[:, :given], keep[:, :given] = prompt, True
        options = self._options(temperature, top_k, top_p)
        return self._draw(known, keep, grid, condition, options, seed, batch_size, verbose)

    def _options(self, temperature: Any, top_k: Any, top_p: Any) -> sampling.Options:
        likelihood = getattr(self, "likelihood", None)
        if not getattr(likelihood, "has_top", True) and (top_k is not None or top_p != 1):
            raise ValueError(
                f"top_k and top_p: a {type(likelihood).__name__} draws numbers and has no "
                "likeliest levels to keep to; lower the temperature"
            )
        return checked_options(self.num_codes, temperature, top_k, top_p)

    def _grid_of(self, length: int | None) -> tuple:
        """The grid to draw."""
        if None not in self.grid_shape:
            if length is not None:
                raise ValueError(
                    f"length: grids of {self.name} are {self.grid_shape}; leave it out"
                )
            return self.grid_shape
        if length is None:
            raise ValueError(f"length is missing: {self.name} draws sequences of any length")
        return (positive_integer("length", length),)

    def inpaint(
        self,
        codes: Any,
        mask: Any,
        condition: Any = None,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float = 1.0,
        seed: int | None = None,
        batch_size: int = 64,
        verbose: str | int = "auto",
    ) -> np.ndarray:
        """Keeps the codes where `mask` is True and draws the others.

        A drawn code depends on all codes before it in raster order, known or drawn, and on none
        after it.

        Args:
            codes: integers `(batch, *grid_shape)`; where `mask` is False, anything in range.
            mask: bool, `(batch, *grid_shape)` or `grid_shape`: True where a code is known.
            condition: one class or map, or one an example.
            temperature, top_k, top_p, seed, batch_size, verbose: as for `sample`.

        Returns:
            int32 `(batch, *grid_shape)`.

        Raises:
            ValueError: an argument is out of its range or of another shape.
        """
        codes = np.asarray(ops.convert_to_numpy(array_of("codes", codes)))
        check_codes(codes, self.grid_shape, self.num_codes)
        mask = np.asarray(ops.convert_to_numpy(mask))
        if mask.dtype != bool or mask.shape not in (codes.shape, codes.shape[1:]):
            raise ValueError(
                f"mask must be bool of shape {codes.shape} or {codes.shape[1:]}, "
                f"got {mask.dtype} {mask.shape}"
            )
        grid = codes.shape[1:]
        flat = (len(codes), math.prod(grid))
        keep = np.broadcast_to(mask, codes.shape).reshape(flat)
        options = self._options(temperature, top_k, top_p)
        known = codes.astype("int32").reshape(flat)
        return self._draw(known, keep, grid, condition, options, seed, batch_size, verbose)

    def _flat_prompt(self, prompt: Any, n: int, positions: int) -> np.ndarray:
        prompt = np.asarray(ops.convert_to_numpy(array_of("prompt", prompt)))
        rest = self.grid_shape[1:]
        if prompt.ndim == len(self.grid_shape) + 1 and prompt.shape[2:] == rest:
            prompt = prompt.reshape((len(prompt), prompt.shape[1] * math.prod(rest)))
        if prompt.ndim != 2 or prompt.shape[0] != n:
            wanted = ", ".join(map(str, ("rows", *rest)))
            raise ValueError(
                f"prompt must have shape ({n}, positions) or ({n}, {wanted}), got {prompt.shape}"
            )
        if prompt.shape[1] > positions:
            raise ValueError(
                f"prompt has {prompt.shape[1]} codes, more than the grid's {positions}"
            )
        check_codes(prompt, (prompt.shape[1],), self.num_codes, "prompt")
        return prompt

    def _draw(
        self,
        known: np.ndarray,
        keep: np.ndarray,
        grid: tuple,
        condition: Any,
        options: sampling.Options,
        seed: int | None,
        batch_size: int,
        verbose: str | int,
    ) -> np.ndarray:
        if backend.in_graph():
            raise ValueError(
                "sample and inpaint are for use from Python: in a tf.function call "
                "keras_vqvae.sampling.sample"
            )
        n, xla = len(known), bool(self.compiled and self.jit_compile)
        few_sizes = backend.is_compiled_by_size(xla)
        condition = self._conditions(condition, n)
        batch_size = min(positive_integer("batch_size", batch_size), max(n, 1))
        batch_size = sizes.rounded_up(batch_size) if few_sizes else batch_size
        seed = checked_seed(seed)
        self.check_weights()
        if n == 0:
            return np.zeros((0, *grid), "int32")
        positions = math.prod(grid)
        columns, rows, calls = self._cut(grid, batch_size, few_sizes)
        # Of few sizes too: JAX compiles for each.
        u = backend.uniforms((sizes.rounded_up(n * positions),), seed)
        u = ops.convert_to_numpy(u)[: n * positions].reshape(n, positions)
        beyond = [(0, 0), (0, rows * columns - positions)]
        every = sampling.Positions(
            *(np.pad(x, beyond).reshape(n, rows, columns) for x in (u, known, keep))
        )
        progress = Progress(-(-n // batch_size) * calls, verbose)
        start = self._compiled("initial_cache", self._start, xla)
        # Of a grid by number of rows: TensorFlow would take another for one that is not known.
        name = f"sample {rows // calls} rows of {columns if None not in self.grid_shape else 'any'}"
        sample_rows = self._compiled(name, self._sample_rows, xla)
        drawn = []
        for first in range(0, n, batch_size):
            # The last batch is filled up: another size would be compiled anew.
            some = np.minimum(np.arange(first, first + batch_size), n - 1)
            codes = every.known[some, :1]  # of the row before the first: not looked at
            cache = start(codes, None if condition is None else condition[some])
            parts = []
            for row in range(0, rows, rows // calls):
                part = sampling.Positions(*(x[some, row : row + rows // calls] for x in every))
                cache, codes = sample_rows(cache, codes[:, -1], np.int32(row), part, options)
                parts.append(ops.convert_to_numpy(codes))
                progress.advance()
            drawn.append(np.concatenate(parts, 1))
        codes = np.concatenate(drawn)[:n].reshape(n, rows * columns)
        return codes[:, :positions].reshape((n, *grid))

    def _cut(self, grid: tuple, batch_size: int, few_sizes: bool) -> tuple[int, int, int]:
        """Columns and rows to draw, and in how many calls, each of as many rows.

        Long work is done in several calls, for progress and interruption; each costs time.
        """
        positions = math.prod(grid)
        if None in self.grid_shape:  # a row means nothing but what a call draws
            most = max(CODES_A_CALL // batch_size, _LEAST_A_CALL)
            columns = sizes.part_of(positions, most, few_sizes)
            rows = -(-positions // columns)
            return columns, rows, rows
        columns, rows = grid[-1], math.prod(grid[:-1])
        most = max(batch_size * positions // CODES_A_CALL, 1)
        return columns, rows, max(n for n in (1, 2, 4, 8) if n <= most and rows % n == 0)

    def _start(self, codes: Tensor, condition: Tensor | None) -> Any:
        if condition is not None:
            condition = self._as_tensor(condition)
        return self.initial_cache(ops.shape(codes)[0], condition)

    def _sample_rows(self, *args: Any) -> tuple:
        return sampling.sample_rows(self.sampler(), *args)

    def _conditions(self, condition: Any, n: int) -> np.ndarray | None:
        """Checked, and one for each of `n` examples."""
        if condition is None:
            self.check_condition(None)
            return None
        known = backend.concrete(condition)
        condition = np.asarray(condition) if known is None else known
        if condition.dtype.kind not in "iuf":
            raise ValueError(f"condition must be numbers, got {condition!r}")
        single = 0 if self.num_classes else len(self.grid_shape) + 1
        if condition.ndim == single:
            condition = condition[None]
            self.check_condition(condition)
            return np.repeat(condition, n, 0)
        self.check_condition(condition, n)
        return condition

    def _signature(self) -> Any:
        grid, spec = (None, *self.grid_shape), keras.layers.InputSpec
        codes = spec(dtype="int32", shape=grid)
        if self.num_classes:
            return {"codes": codes, "condition": spec(dtype="int32", shape=(None,))}
        if self.condition_channels:
            maps = spec(dtype="float32", shape=(*grid, self.condition_channels))
            return {"codes": codes, "condition": maps}
        return codes

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "grid_shape": self.grid_shape,
            "num_codes": self.num_codes,
            "num_classes": self.num_classes,
            "condition_channels": self.condition_channels,
        }


def checked_options(num_codes: int, temperature: Any, top_k: Any, top_p: Any) -> sampling.Options:
    """What to sample by; raises `ValueError` where an argument is out of its range."""
    temperature = checked_temperature(temperature)
    if top_k is not None and (not _is_integer(top_k) or top_k < 1):
        raise ValueError(f"top_k must be an integer of at least 1, got {top_k!r}")
    if not _is_number(top_p) or not 0 < top_p <= 1:
        raise ValueError(f"top_p must be in (0, 1], got {top_p!r}")
    return sampling.Options(
        temperature,
        np.int32(min(top_k or num_codes, num_codes)),
        np.float32(top_p),
    )


def checked_temperature(temperature: Any) -> np.float32:
    """The temperature; raises `ValueError` where it is no positive number."""
    # Smaller ones are 0 in float32.
    if not _is_number(temperature) or not np.finfo("float32").tiny <= temperature < np.inf:
        raise ValueError(f"temperature must be positive (and a number), got {temperature!r}")
    return np.float32(temperature)


def checked_seed(seed: Any) -> int:
    """The seed, or one at random for None; raises `ValueError` where it is no 32-bit integer."""
    seed = random.getrandbits(31) if seed is None else seed
    if not _is_integer(seed) or not -(2**31) <= seed < 2**31:
        raise ValueError(f"seed must be an integer of 32 bits or None, got {seed!r}")
    return int(seed)


def _is_integer(x: Any) -> bool:
    return isinstance(x, (int, np.integer)) and not isinstance(x, bool)


def _is_number(x: Any) -> bool:
    return _is_integer(x) or isinstance(x, (float, np.floating))


def _split(x: Any) -> tuple:
    """Codes and condition of what `fit` takes."""
    return (x["codes"], x.get("condition")) if isinstance(x, dict) else (x, None)
