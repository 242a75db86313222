"""WaveNet: over sequences of codes, and as the decoder of sound."""

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_vqvae import backend, functional, sampling
from keras_vqvae.backend import Tensor
from keras_vqvae.layers.composite import Composite
from keras_vqvae.layers.wavenet import DILATIONS, Generator, WaveNetStack
from keras_vqvae.likelihoods import Categorical, Discrete
from keras_vqvae.models import sizes
from keras_vqvae.models.autoregressive import Autoregressive
from keras_vqvae.models.base import deserialized, is_batch_of, positive_integer, spec_of


class LevelEmbedding(keras.layers.Layer):
    """Levels 0..levels-1 to channels: a vector for each level, or, of many, for the value."""

    _MOST_VECTORS = 4096

    def __init__(self, levels: int, channels: int, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        self.levels = levels
        self.channels = channels
        dtype = self.dtype_policy
        self._by_level = levels <= self._MOST_VECTORS
        self._map: keras.layers.Layer = (
            keras.layers.Embedding(levels, channels, dtype=dtype, name="map")
            if self._by_level
            else keras.layers.Dense(channels, dtype=dtype, name="map")
        )

    def build(self, codes_shape: tuple | None = None) -> None:
        self._map.build((None, 1))

    def call(self, codes: Tensor) -> Tensor:
        if self._by_level:
            return self._map(codes)
        return self._map(functional.levels_to_unit(codes, self.levels)[..., None])

    def compute_output_shape(self, codes_shape: tuple) -> tuple:
        return (*codes_shape, self.channels)


def network(
    likelihood: Discrete,
    channels: int,
    skip_channels: int,
    kernel_size: int,
    dilations: tuple,
    dtype: Any,
) -> tuple[LevelEmbedding, WaveNetStack]:
    """A WaveNet over the levels of a likelihood: its input layer, and what makes its parameters."""
    for name, size in {"channels": channels, "skip_channels": skip_channels}.items():
        positive_integer(name, size)
    inputs = LevelEmbedding(likelihood.levels, channels, dtype=dtype, name="inputs")
    stack = WaveNetStack(
        likelihood.num_outputs,
        channels,
        skip_channels,
        kernel_size=kernel_size,
        dilations=dilations,
        dtype=dtype,
        name="stack",
    )
    return inputs, stack


def network_config(stack: WaveNetStack) -> dict:
    """The arguments of `network` that are numbers."""
    config = stack.get_config()
    return {
        name: config[name] for name in ("channels", "skip_channels", "kernel_size", "dilations")
    }


class _Sampler:
    """What `keras_vqvae.sampling` calls: a WaveNet with its weights read once."""

    def __init__(self, inputs: LevelEmbedding, generator: Generator, likelihood: Discrete) -> None:
        self.inputs = inputs
        self.generator = generator
        self.draw = likelihood.draw

    def begin_row(self, cache: dict, previous_row: Tensor, row: Tensor) -> dict:
        if "latents" not in cache:
            return cache
        latent = ops.take(cache["latents"], row - cache["first_row"], axis=1)
        return {**cache, "addend": self.generator.addend(latent, cache.get("global"))}

    def step(self, cache: dict, previous: Tensor, position: Tensor) -> tuple[Tensor, dict]:
        x = self.inputs(previous)
        x = ops.where(position > 0, x, ops.zeros_like(x))
        out, buffers = self.generator.step(cache["buffers"], cache["addend"], x, position)
        return out, {**cache, "buffers": buffers}


@keras.saving.register_keras_serializable(package="keras_vqvae")
class WaveNet(Autoregressive):
    """A distribution over sequences: of codes, as a prior, or of mu-law sound itself.

    van den Oord et al. 2016, "WaveNet: A Generative Model for Raw Audio". Sequences may be of any
    length.

    ```python
    prior = WaveNet(vqvae.num_codes, num_classes=7, burn_in=0)       # of speakers
    prior.compile("adam")
    prior.fit({"codes": codes, "condition": speakers})    # (n, any); "length" if padded
    codes = prior.sample(4, condition=3, length=250, seed=0)
    ```

    Args:
        num_codes: K; 256 for sound of 8 bits.
        num_classes: number of classes, such as speakers, for global conditioning (sec. 2.5).
        channels: of the residual stream.
        skip_channels: of the skip connections.
        kernel_size: width of the dilated convolutions.
        dilations: of the blocks, in order.
        likelihood: what the outputs mean; `Categorical(num_codes)` if None, which is a softmax.
            `LogisticMixture(10, num_codes)` is for more levels than can have an output each.
        burn_in: positions at the beginning of each example that the loss leaves out. None for the
            receptive field, which is right for crops of longer recordings; 0 where examples begin
            where sampling begins, such as codes of whole clips.
        sample_rate: positions a second, for `receptive_field_ms`; None if they are no sound.

    `call` takes integers `(batch, length)` or a dict of `codes` and, where it has them,
    `condition` (classes, int32 `(batch,)`) and `length` (int32 `(batch,)`, positions that are no
    padding), and gives `(batch, length, num_outputs)`. The `loss` is in bits a position, the mean
    over all positions of a batch that are neither padding nor left out, so that a longer example
    counts for more; NaN where there is none. `log_prob` sums over all that are no padding.
    """

    _data_names = ("codes", "condition", "length")

    def __init__(
        self,
        num_codes: int,
        num_classes: int | None = None,
        *,
        channels: int = 64,
        skip_channels: int = 256,
        kernel_size: int = 2,
        dilations: tuple = DILATIONS,
        likelihood: Discrete | None = None,
        burn_in: int | None = None,
        sample_rate: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__((None,), num_codes, num_classes, **kwargs)
        self.likelihood = checked_discrete(likelihood) or Categorical(num_codes)
        if self.likelihood.levels != num_codes:
            raise ValueError(
                f"num_codes={num_codes} contradicts the likelihood's "
                f"{self.likelihood.levels} levels"
            )
        self.burn_in = checked_burn_in(burn_in)
        self.sample_rate = sample_rate
        self._counted_loss = keras.metrics.Mean(name="counted_loss", dtype="float32")
        dtype = self.dtype_policy
        self._inputs, self._stack = network(
            self.likelihood, channels, skip_channels, kernel_size, dilations, dtype
        )
        self._classes = (
            keras.layers.Embedding(self.num_classes, channels, dtype=dtype, name="classes")
            if self.num_classes
            else None
        )
        self.build()

    def build(self, input_shape: Any = None) -> None:
        if self._stack.built:  # by the constructor; Keras asks again when it loads a model
            return
        self._inputs.build()
        channels = self._stack.channels
        if self._classes is not None:
            self._classes.build()
        self._stack.build((None, None, channels), None, (None, channels) if self._classes else None)
        self.built = True

    @property
    def receptive_field(self) -> int:
        """How many positions before it one depends on."""
        return self._stack.receptive_field

    @property
    def receptive_field_ms(self) -> float:
        """The receptive field in milliseconds."""
        if self.sample_rate is None:
            raise ValueError("receptive_field_ms needs WaveNet(..., sample_rate=...)")
        return 1e3 * self.receptive_field / self.sample_rate

    @property
    def _left_out(self) -> int:
        return self.receptive_field if self.burn_in is None else self.burn_in

    def logits(self, codes: Tensor, condition: Tensor | None = None) -> Tensor:
        x = functional.causal_shift(self._inputs(codes))
        return self._stack(x, global_condition=self._features(condition))

    def _features(self, condition: Tensor | None) -> Tensor | None:
        return None if self._classes is None else self._classes(condition)

    def checked(self, x: Any) -> Any:
        x = super().checked(x)
        if isinstance(x, dict) and x.get("length") is not None:
            length = backend.checked_length(x["length"], 1, ops.shape(x["codes"])[1])
            x = {**x, "length": length}
        return x

    def _per_position(self, x: Any, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities, and 1 where a position is no padding; `(batch, length)`."""
        x = self.checked(x)
        codes, length = (x["codes"], x.get("length")) if isinstance(x, dict) else (x, None)
        unit = functional.levels_to_unit(codes, self.num_codes)
        return self.likelihood.log_prob(outputs, unit), valid(codes, length)

    def per_example_loss(self, x: Any, outputs: Tensor) -> Tensor:
        log_prob, mask = self._per_position(x, outputs)
        return -masked_mean(log_prob, after(mask, self._left_out)) / math.log(2.0)

    def example_weights(self, x: Any) -> Tensor:
        """The positions of each example that count."""
        codes, length = (x["codes"], x.get("length")) if isinstance(x, dict) else (x, None)
        return ops.sum(after(valid(codes, length), self._left_out), -1)

    def _of_few_sizes(self, batch: Any) -> Any:
        """Sequences too are made longer, which are all that goes through here, for `log_prob`."""
        if not backend.is_compiled_by_size(False):
            return batch
        parts = dict(batch) if isinstance(batch, dict) else {"codes": batch}
        codes = ops.convert_to_numpy(parts["codes"])
        n, steps = codes.shape
        parts.setdefault("length", np.full((n,), steps, "int32"))
        codes = np.pad(codes, [(0, 0), (0, sizes.rounded_up(steps) - steps)])
        return super()._of_few_sizes({**parts, "codes": codes})

    def _log_prob(self, x: Any) -> Tensor:
        log_prob, mask = self._per_position(x, self(x))
        return ops.sum(log_prob * mask, -1)

    def check_data(self, x: Any) -> None:
        super().check_data(x)
        codes = x["codes"] if isinstance(x, dict) else x
        check_length(x.get("length") if isinstance(x, dict) else None, codes.shape)

    def _check_input(self, caller: str, x: Any) -> None:
        super()._check_input(caller, x)
        codes = spec_of(x)
        codes = codes["codes"] if isinstance(codes, dict) else codes
        if caller != "predict" and hasattr(codes, "shape"):
            length = x.get("length") if isinstance(x, dict) else None
            check_burn_in(codes.shape[1], length, self._left_out, self.burn_in is None)

    def sampler(self) -> _Sampler:
        return _Sampler(self._inputs, self._stack.generator(), self.likelihood)

    def initial_cache(self, batch: Any, condition: Tensor | None = None) -> dict:
        addend = self._stack.generator().addend(None, self._features(condition))
        # One for each example, for the shape to be the same in every case.
        addend = addend + ops.zeros((1, batch, 1), addend.dtype)
        return {"buffers": self._stack.initial_buffers(batch), "addend": addend}

    def step(self, cache: dict, previous: Tensor, position: Tensor) -> tuple[Tensor, dict]:
        return self.sampler().step(cache, previous, position)

    def draw(self, logits: Tensor, u: Tensor, options: sampling.Options) -> Tensor:
        return self.likelihood.draw(logits, u, options)

    def get_config(self) -> dict:
        config = super().get_config()
        del config["grid_shape"], config["condition_channels"]
        return {
            **config,
            **network_config(self._stack),
            "likelihood": keras.saving.serialize_keras_object(self.likelihood),
            "burn_in": self.burn_in,
            "sample_rate": self.sample_rate,
        }

    @classmethod
    def _deserialized(cls, config: dict, custom_objects: dict | None) -> dict:
        return deserialized(config, ["likelihood"], custom_objects)


@keras.saving.register_keras_serializable(package="keras_vqvae")
class WaveNetDecoder(Composite):
    """WaveNet conditioned on code vectors and, perhaps, a speaker: the decoder of sound.

    van den Oord et al. 2017, sec. 4.3, and 2016, "WaveNet", sec. 2.5: each code vector conditions
    the samples that it stands for, a global vector conditions all.

    Args:
        upsampling: samples a code.
        channels: of the residual stream.
        skip_channels: of the skip connections.
        kernel_size: width of the dilated convolutions.
        dilations: of the blocks, in order.
        likelihood: of a sample: `Categorical(256)` if None, or a `LogisticMixture`.
        mu_law: whether levels are those of companded sound. None for what is right for so many:
            True up to 256, as of a softmax, False for more, as of `LogisticMixture(10, 65536)`.

    `call(latents, waveform, condition=None)` takes `(batch, n, any)`, float32 `(batch, n *
    upsampling)` in [-1, 1], of which a sample's distribution depends on those before it, and
    `(batch, any)`. It gives parameters `(batch, n * upsampling, num_outputs)`.
    """

    def __init__(
        self,
        upsampling: int = 64,
        *,
        channels: int = 64,
        skip_channels: int = 256,
        kernel_size: int = 2,
        dilations: tuple = DILATIONS,
        likelihood: Discrete | None = None,
        mu_law: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        self.upsampling = positive_integer("upsampling", upsampling)
        self.likelihood = checked_discrete(likelihood) or Categorical()
        self.mu_law = self.likelihood.levels <= 256 if mu_law is None else bool(mu_law)
        self._inputs, self._stack = network(
            self.likelihood, channels, skip_channels, kernel_size, dilations, self.dtype_policy
        )

    @property
    def receptive_field(self) -> int:
        """How many samples before it one depends on."""
        return self._stack.receptive_field

    @property
    def context(self) -> tuple[int, int]:
        """How many code vectors before and after its own a sample sees, apart from the samples."""
        return 0, 0

    def build(
        self, latents_shape: tuple, waveform_shape: tuple, condition_shape: tuple | None = None
    ) -> None:
        self._inputs.build()
        steps = (None, None, self._stack.channels)
        self._stack.build(steps, tuple(latents_shape), condition_shape)

    def levels(self, waveform: Tensor) -> Tensor:
        """A waveform's levels, int32."""
        if self.mu_law:
            return functional.mu_law_encode(waveform, self.likelihood.levels)
        return functional.unit_to_levels(waveform, self.likelihood.levels)

    def waveform(self, levels: Tensor) -> Tensor:
        """The waveform of levels, float32 in [-1, 1]."""
        if self.mu_law:
            return functional.mu_law_decode(levels, self.likelihood.levels)
        return functional.levels_to_unit(levels, self.likelihood.levels)

    def call(self, latents: Tensor, waveform: Tensor, condition: Tensor | None = None) -> Tensor:
        x = functional.causal_shift(self._inputs(self.levels(waveform)))
        return self._stack(x, latents, condition)

    def log_prob(self, params: Tensor, waveform: Tensor) -> Tensor:
        """Log-probability in nats of each sample's level: `(batch, samples)`."""
        unit = functional.levels_to_unit(self.levels(waveform), self.likelihood.levels)
        return self.likelihood.log_prob(params, unit)

    def sampler(self) -> _Sampler:
        """What `keras_vqvae.sampling` calls in a loop; made outside of it."""
        return _Sampler(self._inputs, self._stack.generator(), self.likelihood)

    def initial_state(self, batch: Any, examples: Tensor | None = None) -> dict:
        """What `generate` needs of the samples before, when there are none.

        Args:
            batch: how many examples.
            examples: int32 `(batch,)`, their numbers; None for 0, 1, 2 and so on.
        """
        if examples is None:
            examples = ops.arange(batch, dtype="int32")
        return {
            "buffers": self._stack.initial_buffers(batch),
            "row": ops.zeros((), "int32"),
            "last": ops.zeros((batch,), "int32"),
            "examples": ops.cast(examples, "int32"),
        }

    def generate(
        self,
        state: dict,
        latents: Tensor,
        condition: Tensor | None,
        seed: Tensor,
        options: sampling.Options,
    ) -> tuple[Tensor, dict]:
        """Draws the samples of some codes, after those that went before; for compiled functions.

        The uniform numbers are decided by the seed, a code's place in the whole and the example's
        number, so that the whole may be drawn in parts, of time and of examples.

        Args:
            state: from `initial_state`, or from the part before.
            latents: `(batch, n, any)`.
            condition: `(batch, any)` or None.
            seed: an integer, or a scalar tensor.
            options: of the sampling.

        Returns:
            float32 `(batch, n * upsampling)` in [-1, 1], and the state.
        """
        batch, n = ops.shape(latents)[0], ops.shape(latents)[1]
        sampler = self.sampler()
        first = state["row"]
        rows = first + ops.arange(n, dtype="int32")
        u = backend.uniforms_by_place((self.upsampling,), seed, rows, state["examples"])
        known = ops.zeros((batch, n, self.upsampling), "int32")
        given = sampling.Positions(ops.transpose(u, (1, 0, 2)), known, known > 0)
        latents = ops.cast(latents, self.compute_dtype)
        condition = None if condition is None else ops.cast(condition, self.compute_dtype)
        cache = {
            "buffers": state["buffers"],
            "addend": sampler.generator.addend(latents[:, 0], condition),
            "latents": latents,
            "first_row": first,
        }
        if condition is not None:
            cache["global"] = condition
        previous = ops.broadcast_to(state["last"][:, None], (batch, self.upsampling))
        cache, codes = sampling.sample_rows(sampler, cache, previous, first, given, options)
        levels = ops.reshape(codes, (batch, n * self.upsampling))
        then = {"buffers": cache["buffers"], "row": first + n, "last": levels[:, -1]}
        return self.waveform(levels), {**state, **then}

    def compute_output_shape(
        self, latents_shape: tuple, waveform_shape: tuple, condition_shape: tuple | None = None
    ) -> tuple:
        return (*waveform_shape, self.likelihood.num_outputs)

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "upsampling": self.upsampling,
            **network_config(self._stack),
            "likelihood": keras.saving.serialize_keras_object(self.likelihood),
            "mu_law": self.mu_law,
        }

    @classmethod
    def from_config(cls, config: dict, custom_objects: dict | None = None) -> "WaveNetDecoder":
        return cls(**deserialized(config, ["likelihood"], custom_objects))


def checked_discrete(likelihood: Any) -> Discrete | None:
    """`likelihood`; raises `ValueError` where it is none of levels, of which one can be drawn."""
    if likelihood is not None and not isinstance(likelihood, Discrete):
        raise ValueError(
            "likelihood must be of levels, Categorical(...) or LogisticMixture(...), got "
            f"{likelihood!r}"
        )
    return likelihood


def valid(x: Tensor, length: Tensor | None) -> Tensor:
    """1 where an entry of `x`, `(batch, steps)`, is no padding, else 0; float32."""
    if length is None:
        return ops.ones_like(x, dtype="float32")
    places = ops.arange(ops.shape(x)[1], dtype="int32")
    return ops.cast(places < ops.cast(length, "int32")[:, None], "float32")


def after(mask: Tensor, left_out: int) -> Tensor:
    """`mask`, `(batch, steps)`, with 0 for the first `left_out` steps."""
    places = ops.arange(ops.shape(mask)[1], dtype="int32")
    return mask * ops.cast(places >= left_out, "float32")


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """The mean of each row of `x` where `mask` is 1; 0 where it is nowhere."""
    return ops.sum(x * mask, -1) / ops.maximum(ops.sum(mask, -1), 1.0)


def check_length(length: Any, shape: tuple, least: int = 1) -> None:
    """Raises `ValueError` where `length` is no `(batch,)` of integers from `least` to the steps.

    `shape` is that of the data, `(batch, steps, ...)`.
    """
    if length is None:
        return
    if not hasattr(length, "dtype") or not is_batch_of(length, ()):
        raise ValueError(f"length must be integers (batch,), got {length!r:.200}")
    dtype = keras.backend.standardize_dtype(length.dtype)
    if "int" not in dtype:
        raise ValueError(f"length must be integers (batch,), got dtype {dtype}")
    batch, steps = tuple(shape)[:2]
    if None not in (batch, length.shape[0]) and length.shape[0] != batch:
        raise ValueError(f"length must be of the {batch} examples, got {length.shape[0]}")
    values = backend.concrete(length)
    if values is not None and values.size and steps is not None:
        low, high = int(values.min()), int(values.max())
        if low < least or high > steps:
            raise ValueError(
                f"length must be in [{least}, {steps}], got values from {low} to {high}"
            )


def checked_burn_in(burn_in: Any) -> int | None:
    """`burn_in`; raises `ValueError` where it is no number of positions, and not None."""
    if burn_in is None:
        return None
    if not isinstance(burn_in, (int, np.integer)) or isinstance(burn_in, bool) or burn_in < 0:
        raise ValueError(f"burn_in must be an integer of at least 0 or None, got {burn_in!r}")
    return int(burn_in)


def check_burn_in(steps: int | None, length: Any, left_out: int, by_receptive_field: bool) -> None:
    """Raises `ValueError` where the loss would leave out all of every example."""
    lengths = None if length is None else backend.concrete(length)
    if lengths is not None and lengths.size:
        steps = int(lengths.max())
    if steps is not None and steps <= left_out:
        why = "the receptive field" if by_receptive_field else "burn_in"
        raise ValueError(
            f"examples of {steps} positions are no longer than {why} of {left_out}, which the loss "
            "leaves out. Take longer ones, or, where they begin where sampling begins (codes of "
            "whole clips), give burn_in=0"
        )
