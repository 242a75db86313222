"""Pure functions behind the layers and models. All compute in float32."""

import math

from keras import ops

from keras_vqvae import backend
from keras_vqvae.backend import Tensor

# Scores held at a time by `nearest_codes`: 4 MiB of float32 stays in a CPU's cache, and the
# memory needed does not grow with rows × codes.
SCORES_PER_CHUNK = 2**20
# Codes whose median is the origin of the search: odd, and few, because they are sorted.
CODES_FOR_ORIGIN = 15


def nearest_codes(z: Tensor, codebook: Tensor) -> Tensor:
    """Returns the index of the code nearest to each row (van den Oord et al. 2017, eq. 1).

    The squared norm of `z` is the same for every code and left out. The search runs over chunks
    of rows. Distances are measured from a point among the codes: far from zero the scores would
    be large numbers whose differences float32 cannot hold. There is no gradient.

    Args:
        z: `(rows, code_dim)` float32.
        codebook: `(num_codes, code_dim)` float32.

    Returns:
        `(rows,)` int32. Of equally near codes, the one with the lowest index.
    """
    z, codebook = ops.stop_gradient(z), ops.stop_gradient(codebook)
    num_codes = codebook.shape[0]
    origin = _among(codebook)
    codebook = codebook - origin
    # Scores z·e - |e|²/2 as one product: a column of ones beside z meets a row of -|e|²/2.
    half_norms = 0.5 * ops.sum(ops.square(codebook), axis=1, keepdims=True)
    weights = ops.transpose(ops.concatenate([codebook, -half_norms], axis=1))

    def search(rows: Tensor) -> Tensor:
        rows = ops.concatenate([rows - origin, ops.ones_like(rows[:, :1])], axis=1)
        return backend.argmax(backend.matmul(rows, weights))

    most = max(1, SCORES_PER_CHUNK // num_codes)
    rows = ops.shape(z)[0]
    if rows <= most if isinstance(rows, int) else backend.BACKEND == "jax":
        return search(z)  # JAX: a size that is not known is a symbol, met in symbolic calls only
    whole = backend.map_rows(search, z, most)
    return ops.concatenate([whole, search(z[rows // most * most :])])


def _among(codebook: Tensor) -> Tensor:
    """Returns the median of some of the codes, `(code_dim,)`: a few far away do not move it."""
    some = codebook[:: -(-codebook.shape[0] // CODES_FOR_ORIGIN)]
    some = ops.transpose(ops.where(ops.abs(some) < math.inf, some, 0.0))
    return ops.top_k(some, some.shape[1] // 2 + 1)[0][:, -1]


def straight_through(z: Tensor, quantized: Tensor) -> Tensor:
    """The value of `quantized` with the gradient of `z` (van den Oord et al. 2017, sec. 3.2)."""
    return z + ops.stop_gradient(quantized - z)


def code_statistics(
    z: Tensor, codes: Tensor, num_codes: int, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """How often each code was used and the sum of the rows it was used for.

    Args:
        z: `(rows, code_dim)` float32.
        codes: `(rows,)` int32.
        mask: bool `(rows,)`, which rows count; None for all.

    Returns:
        counts `(num_codes,)` and sums `(num_codes, code_dim)`, float32.
    """
    if mask is not None:
        z = ops.where(mask[:, None], z, 0.0)
    return code_counts(codes, num_codes, mask), ops.segment_sum(z, codes, num_segments=num_codes)


def code_counts(codes: Tensor, num_codes: int, mask: Tensor | None = None) -> Tensor:
    """How often each code occurs in `codes`: `(num_codes,)` float32.

    Args:
        codes: int32 of any shape.
        num_codes: how many there are.
        mask: bool or numbers of that shape, how much each occurrence counts; None for 1.
    """
    codes = ops.reshape(codes, (-1,))
    each = ops.ones_like(codes, dtype="float32")
    if mask is not None:
        each = ops.cast(ops.reshape(mask, (-1,)), "float32")
    return ops.segment_sum(each, codes, num_segments=num_codes)


def entropy(counts: Tensor) -> Tensor:
    """Entropy in nats of the distribution that `counts` (one axis) gives; 0 for no counts."""
    p = counts / ops.maximum(ops.sum(counts), 1e-30)
    return -ops.sum(p * ops.log(ops.where(p > 0, p, 1.0)))


def perplexity(counts: Tensor) -> Tensor:
    """exp of the entropy: the number of equally used codes that would be as spread out."""
    return ops.exp(entropy(counts))


def pixels_to_unit(pixels: Tensor, dtype: str = "float32") -> Tensor:
    """uint8 grey levels 0..255 to floats in [-1, 1]."""
    return ops.cast(pixels, dtype) / 127.5 - 1.0


def unit_to_pixels(x: Tensor) -> Tensor:
    """Floats in [-1, 1] (others are clipped) to the nearest uint8 grey level."""
    return ops.cast(ops.round((ops.clip(ops.cast(x, "float32"), -1.0, 1.0) + 1.0) * 127.5), "uint8")


def steps_between(levels: int) -> float:
    """Returns `levels - 1`, the number of steps between the outermost of equally spaced levels.

    Raises:
        ValueError: there are fewer than two levels, between which no step lies.
    """
    if levels < 2:
        raise ValueError(f"`levels` must be at least 2, got {levels}.")
    return levels - 1.0


def unit_to_levels(x: Tensor, levels: int = 256) -> Tensor:
    """Floats in [-1, 1] (others are clipped) to the nearest of equal steps 0..levels-1, int32."""
    x = ops.clip(ops.cast(x, "float32"), -1.0, 1.0)
    return ops.cast(ops.round((x + 1.0) * 0.5 * steps_between(levels)), "int32")


def levels_to_unit(x: Tensor, levels: int = 256) -> Tensor:
    """Steps 0..levels-1 to float32 in [-1, 1]."""
    return 2.0 * ops.cast(x, "float32") / steps_between(levels) - 1.0


def mu_law_compress(x: Tensor, levels: int = 256) -> Tensor:
    """Waveform in [-1, 1] to companded floats in [-1, 1] (ITU-T G.711).

    `f(x) = sign(x) ln(1 + m|x|) / ln(1 + m)` with `m = levels - 1`.
    """
    m = steps_between(levels)
    x = ops.clip(ops.cast(x, "float32"), -1.0, 1.0)
    return ops.sign(x) * ops.log1p(m * ops.abs(x)) / math.log1p(m)


def mu_law_expand(x: Tensor, levels: int = 256) -> Tensor:
    """The inverse of `mu_law_compress`."""
    m = steps_between(levels)
    return ops.sign(x) * ops.expm1(ops.abs(x) * math.log1p(m)) / m


def mu_law_encode(x: Tensor, levels: int = 256) -> Tensor:
    """Waveform in [-1, 1] to companded classes 0..levels-1, int32 (ITU-T G.711)."""
    return unit_to_levels(mu_law_compress(x, levels), levels)


def mu_law_decode(classes: Tensor, levels: int = 256) -> Tensor:
    """Companded classes 0..levels-1 back to a float32 waveform in [-1, 1] (ITU-T G.711)."""
    # JAX rounds the outermost up to 1.0000006.
    return ops.clip(mu_law_expand(levels_to_unit(classes, levels), levels), -1.0, 1.0)


def prefix_sums(x: Tensor) -> Tensor:
    """Sums along the last axis up to and with each entry, added in the same order everywhere.

    Each entry is added to the one 1, 2, 4 ... after it (Hillis and Steele 1986). XLA does this in
    half the time that its `cumsum` takes.
    """
    n, axes = 1, [[0, 0]] * (len(x.shape) - 1)
    while n < x.shape[-1]:
        x = x + ops.pad(x[..., :-n], [*axes, [n, 0]])
        n *= 2
    return x


def causal_shift(x: Tensor) -> Tensor:
    """Moves axis 1 by one step and puts zeros first, so that position i holds what was at i-1."""
    return ops.concatenate([ops.zeros_like(x[:, :1]), x[:, :-1]], axis=1)


def gaussian_log_prob(mean: Tensor, scale: float, x: Tensor) -> Tensor:
    """Elementwise log density of a normal distribution, in nats."""
    standard = (x - mean) / scale
    return -0.5 * ops.square(standard) - math.log(scale * math.sqrt(2.0 * math.pi))


def never_empty(x: Tensor) -> Tensor:
    """`x`, or one example of zeros where the batch is empty.

    Convolutions of an empty batch fail in oneDNN, silently in graph mode; slice the result back
    with `[:batch]`.
    """
    batch = ops.shape(x)[0]
    if batch > 0 if isinstance(batch, int) else backend.BACKEND == "jax":
        return x  # JAX: a size that is not known is a symbol, met in symbolic calls only
    missing = 1 if isinstance(batch, int) else 1 - ops.minimum(batch, 1)
    # Zeros are cast, because TFLite's `Fill` of uint8 writes beyond its memory.
    zeros = ops.cast(ops.zeros((missing, *ops.shape(x)[1:]), "float32"), x.dtype)
    return ops.concatenate([x, zeros], axis=0)
