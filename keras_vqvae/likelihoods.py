"""What a decoder's output means: a distribution over data scaled to [-1, 1].

uint8 pictures and mu-law sound alike come in `levels` equal steps over [-1, 1]; a log-probability
is that of the level, in nats, so that likelihoods of different kinds can be compared:

    bits/dim = - log_prob / ln 2, averaged over the entries of an example.
"""

import math
from typing import Any

import keras
from keras import ops

from keras_vqvae import functional, sampling
from keras_vqvae.backend import Tensor


class Likelihood:
    """What all likelihoods have.

    `num_outputs`: decoder outputs an entry of the data; the decoder's last axis is
    `data channels * num_outputs`. `num_uniforms`: uniform numbers an entry that `sample` needs.
    `has_top`: whether `draw` can keep to the likeliest levels (`top_k`, `top_p`).
    """

    num_outputs: int
    num_uniforms: int
    has_top = True

    def log_prob(self, params: Tensor, x: Tensor) -> Tensor:
        """Log-probability in nats of each entry of `x`, in [-1, 1], float32."""
        raise NotImplementedError

    def sample(self, params: Tensor, u: Tensor, temperature: float = 1.0) -> Tensor:
        """Data in [-1, 1] drawn with the uniform numbers `u`, `(*data shape, num_uniforms)`."""
        raise NotImplementedError

    def mean(self, params: Tensor) -> Tensor:
        """The mean of the distribution, in [-1, 1]."""
        raise NotImplementedError

    def bits_per_dim(self, params: Tensor, x: Tensor) -> Tensor:
        """`- log_prob / ln 2`, averaged over each example: `(batch,)`."""
        log_prob = self.log_prob(params, x)
        return -ops.mean(log_prob, tuple(range(1, len(log_prob.shape)))) / math.log(2.0)

    def get_config(self) -> dict:
        return {}

    @classmethod
    def from_config(cls, config: dict) -> "Likelihood":
        return cls(**config)


@keras.saving.register_keras_serializable(package="keras_vqvae")
class Gaussian(Likelihood):
    """Normal distribution around the decoder's output, of one fixed standard deviation.

    Training with it is training with the squared error over `2 * scale**2`. The log-probability
    of a level is density times the width of a level, which for scales of several levels, as the
    default of 28 of 256, is as good as the integral.

    Args:
        scale: standard deviation, in units of the data scaled to [-1, 1]. A smaller one weighs
            the reconstruction more, beside the commitment.
        levels: number of steps of the data.
    """

    num_outputs = 1
    num_uniforms = 1

    def __init__(self, scale: float = 0.22, levels: int = 256) -> None:
        if scale <= 0:
            raise ValueError(f"scale must be positive, got {scale}")
        functional.steps_between(levels)  # raises where there is none
        self.scale = scale
        self.levels = levels

    def log_prob(self, params: Tensor, x: Tensor) -> Tensor:
        params, x = ops.cast(params, "float32"), ops.cast(x, "float32")
        width = 2.0 / functional.steps_between(self.levels)
        return functional.gaussian_log_prob(params, self.scale, x) + math.log(width)

    def sample(self, params: Tensor, u: Tensor, temperature: float = 1.0) -> Tensor:
        # Uniform numbers can be 0, whose quantile is -infinity.
        standard = math.sqrt(2.0) * ops.erfinv(2.0 * ops.clip(u[..., 0], 1e-7, 1.0 - 1e-7) - 1.0)
        x = ops.cast(params, "float32") + temperature * self.scale * standard
        return ops.clip(x, -1.0, 1.0)

    def mean(self, params: Tensor) -> Tensor:
        """The decoder's output, clipped: `log_prob` is that of a distribution without ends."""
        return ops.clip(ops.cast(params, "float32"), -1.0, 1.0)

    def get_config(self) -> dict:
        return {"scale": self.scale, "levels": self.levels}


class Discrete(Likelihood):
    """What likelihoods have that give each level a probability of its own.

    `levels`: number of steps of the data.
    """

    levels: int
    num_uniforms = 1

    def draw(self, params: Tensor, u: Tensor, options: sampling.Options) -> Tensor:
        """Levels int32 `(batch,)` of params `(batch, num_outputs)` and uniform numbers `(batch,)`.

        What `keras_vqvae.sampling` draws with.
        """
        raise NotImplementedError

    def sample(self, params: Tensor, u: Tensor, temperature: float = 1.0) -> Tensor:
        entries = ops.reshape(params, (-1, self.num_outputs))
        options = sampling.Options(temperature, self.levels, 1.0)
        levels = self.draw(entries, ops.reshape(u, (-1,)), options)
        return functional.levels_to_unit(ops.reshape(levels, ops.shape(u)[:-1]), self.levels)

    def _per_entry(self, params: Tensor, shape: tuple) -> Tensor:
        """`(..., channels * num_outputs)` as `(*shape, num_outputs)`, float32."""
        return ops.reshape(ops.cast(params, "float32"), (*shape, self.num_outputs))

    def _data_shape(self, params: Tensor) -> tuple:
        *rest, channels = ops.shape(params)
        return (*rest, channels // self.num_outputs)


@keras.saving.register_keras_serializable(package="keras_vqvae")
class Categorical(Discrete):
    """A probability for each level: softmax of as many outputs.

    van den Oord et al. 2016, "Pixel Recurrent Neural Networks", sec. 3.1, and "WaveNet", sec. 2.2
    (there of mu-law levels). `log p(x) = log softmax(outputs)[level of x]`.

    Args:
        levels: number of steps of the data.
    """

    def __init__(self, levels: int = 256) -> None:
        functional.steps_between(levels)  # raises where there is none
        self.levels = levels

    @property
    def num_outputs(self) -> int:  # type: ignore[override]
        return self.levels

    def log_prob(self, params: Tensor, x: Tensor) -> Tensor:
        levels = functional.unit_to_levels(x, self.levels)
        logits = self._per_entry(params, ops.shape(levels))
        return -ops.sparse_categorical_crossentropy(levels, logits, from_logits=True)

    def draw(self, params: Tensor, u: Tensor, options: sampling.Options) -> Tensor:
        return sampling.draw(params, u, options)

    def mean(self, params: Tensor) -> Tensor:
        p = ops.softmax(self._per_entry(params, self._data_shape(params)), -1)
        values = functional.levels_to_unit(ops.arange(self.levels, dtype="int32"), self.levels)
        return ops.sum(p * values, -1)

    def get_config(self) -> dict:
        return {"levels": self.levels}


@keras.saving.register_keras_serializable(package="keras_vqvae")
class LogisticMixture(Discrete):
    """A mixture of logistic distributions, integrated over each level.

    Salimans et al. 2017, "PixelCNN++", eq. 2: `P(x) = Σ π_i (σ((x + w/2 - μ_i) / s_i) -
    σ((x - w/2 - μ_i) / s_i))`, w being the width of a level; the lowest level has all that is
    below it, the highest all above. For as many levels as 65,536, sound of 16 bits, it needs
    three outputs a component.

    Args:
        components: number of logistic distributions.
        levels: number of steps of the data.
    """

    # From a fifth of a level of 16 bits to 500 times the range; beyond, a level's share is 0 in
    # float32.
    _LOG_SCALES = (-12.0, 7.0)
    # Borders between levels over which `mean` sums one by one, around each component's mean. With
    # 16 it is exact up to 17 levels, and within 0.003 of a step with more.
    _SUMMED = 16

    has_top = False

    def __init__(self, components: int = 10, levels: int = 65536) -> None:
        functional.steps_between(levels)  # raises where there is none
        if components < 1:
            raise ValueError(f"`components` must be at least 1, got {components}.")
        self.components = components
        self.levels = levels

    @property
    def num_outputs(self) -> int:  # type: ignore[override]
        return 3 * self.components

    def _parts(self, params: Tensor) -> list:
        logits, means, log_scales = ops.split(params, 3, -1)
        return [logits, means, ops.clip(log_scales, *self._LOG_SCALES)]

    def log_prob(self, params: Tensor, x: Tensor) -> Tensor:
        level = functional.unit_to_levels(x, self.levels)
        logits, means, log_scales = self._parts(self._per_entry(params, ops.shape(level)))
        level = level[..., None]
        width = 2.0 / functional.steps_between(self.levels)
        rate = ops.exp(-log_scales)
        centred = functional.levels_to_unit(level, self.levels) - means
        above, below = rate * (centred + width / 2), rate * (centred - width / 2)
        # σ(a) - σ(b) = σ(a) σ(-b) (1 - e^(b-a)), of which no factor cancels.
        under_upper = ops.where(level == self.levels - 1, 0.0, ops.log_sigmoid(above))
        over_lower = ops.where(level == 0, 0.0, ops.log_sigmoid(-below))
        inner = ops.log(-ops.expm1(-rate * width))
        inner = ops.where((level == 0) | (level == self.levels - 1), 0.0, inner)
        return ops.logsumexp(
            ops.log_softmax(logits, -1) + under_upper + over_lower + inner, axis=-1
        )

    def draw(self, params: Tensor, u: Tensor, options: sampling.Options) -> Tensor:
        temperature = ops.cast(options.temperature, "float32")
        logits, means, log_scales = self._parts(ops.cast(params, "float32"))
        # The likeliest, at 0, stays finite however small the temperature is.
        p = ops.softmax((logits - ops.max(logits, -1, keepdims=True)) / temperature, -1)
        upper = ops.cumsum(p, -1)
        target = (u * upper[:, -1])[:, None]
        index = ops.arange(self.components, dtype="int32")
        chosen = ops.min(ops.where(upper > target, index, self.components - 1), -1, keepdims=True)
        one = ops.cast(index == chosen, "float32")
        # What is left of the uniform number within the component's share is uniform again.
        rest = ops.sum(one * (target - (upper - p)) / ops.maximum(p, 1e-30), -1)
        rest = ops.clip(rest, 1e-5, 1.0 - 1e-5)
        mean, scale = ops.sum(one * means, -1), ops.sum(one * ops.exp(log_scales), -1)
        x = mean + temperature * scale * (ops.log(rest) - ops.log1p(-rest))
        return functional.unit_to_levels(x, self.levels)

    def mean(self, params: Tensor) -> Tensor:
        """The mean over the levels, of which the outermost have what is beyond the range.

        It is the lowest level and a step for each border with the probability of being above it:
        `-1 + w Σ_i π_i Σ_k σ((μ_i - b_k) / s_i)`, b_k being the borders between levels. The terms
        near μ_i are summed, the others integrated.
        """
        logits, means, log_scales = self._parts(self._per_entry(params, self._data_shape(params)))
        borders = functional.steps_between(self.levels)  # one in the middle of each step
        summed = min(self._SUMMED, self.levels - 1)
        # In steps from the lowest level. Means far beyond the range would lose its digits.
        scale = ops.exp(log_scales) * (borders / 2)
        mean = ops.clip((means + 1.0) * (borders / 2), -20.0 * scale, borders + 20.0 * scale)
        first = ops.clip(ops.round(mean) - summed // 2, 0.0, borders - summed)

        def integral(start: Any, stop: Any) -> Tensor:
            """Of σ((mean - t) / scale)."""
            high, low = (ops.softplus((mean - t) / scale) for t in (start, stop))
            return scale * (high - low)

        above = integral(0.0, first) + integral(first + summed, borders)
        for i in range(summed):
            above = above + ops.sigmoid((mean - first - (i + 0.5)) / scale)
        return ops.sum(ops.softmax(logits, -1) * above, -1) * (2.0 / borders) - 1.0

    def get_config(self) -> dict:
        return {"components": self.components, "levels": self.levels}
