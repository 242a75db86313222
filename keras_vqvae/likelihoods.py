"""What a decoder's output means: a distribution over data scaled to [-1, 1].

uint8 pictures and mu-law sound alike come in `levels` equal steps over [-1, 1]; a log-probability
is that of the level, in nats, so that likelihoods of different kinds can be compared:

    bits/dim = - log_prob / ln 2, averaged over the entries of an example.
"""

import math

import keras
from keras import ops

from keras_vqvae import functional
from keras_vqvae.backend import Tensor


class Likelihood:
    """What all likelihoods have.

    `num_outputs`: decoder outputs an entry of the data; the decoder's last axis is
    `data channels * num_outputs`. `num_uniforms`: uniform numbers an entry that `sample` needs.
    """

    num_outputs: int
    num_uniforms: int

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
        self.scale = scale
        self.levels = levels

    def log_prob(self, params: Tensor, x: Tensor) -> Tensor:
        params, x = ops.cast(params, "float32"), ops.cast(x, "float32")
        width = 2.0 / (self.levels - 1)
        return functional.gaussian_log_prob(params, self.scale, x) + math.log(width)

    def sample(self, params: Tensor, u: Tensor, temperature: float = 1.0) -> Tensor:
        # Uniform numbers can be 0, whose quantile is -infinity.
        standard = math.sqrt(2.0) * ops.erfinv(2.0 * ops.clip(u[..., 0], 1e-7, 1.0 - 1e-7) - 1.0)
        x = ops.cast(params, "float32") + temperature * self.scale * standard
        return ops.clip(x, -1.0, 1.0)

    def mean(self, params: Tensor) -> Tensor:
        return ops.clip(ops.cast(params, "float32"), -1.0, 1.0)

    def get_config(self) -> dict:
        return {"scale": self.scale, "levels": self.levels}
