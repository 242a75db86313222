"""What an endpoint takes and gives: one description, from which all else follows.

The tensors' specs, the checks inside the graph, `signature.json`, the model card and the limits
that tests go beyond are all made of these.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

# More than a request can sensibly ask for: longer work is several requests.
MOST_EXAMPLES = 1024
MOST_CODES = 16384
MOST_CODES_IN_ALL = 2**20
MOST_FRAMES = 1024

BATCH, ONE_OR_BATCH = "batch", "1 or batch"


def shape_text(shape: Sequence) -> str:
    """Such as `(batch, 64, 64, 3)`, or `(batch,)`."""
    return f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})"


@dataclasses.dataclass(frozen=True)
class Field:
    """A named input or output of an endpoint.

    Attributes:
        name: of the tensor.
        shape: its sides, numbers or the names of those that are open, such as
            `("batch", 64, 64, 3)`; `()` is a scalar. All inputs of which the first side is
            `BATCH` must be of as many examples.
        dtype: of TensorFlow, as text.
        meaning: with units.
        low: the least value; None for any.
        high: the greatest value; None for any.
        above: whether `low` itself is left out.
        of_one_length: whether rows, files say, must be of one length that no side says.
    """

    name: str
    shape: tuple
    dtype: str
    meaning: str
    low: float | None = None
    high: float | None = None
    above: bool = False
    of_one_length: bool = False

    @property
    def spec(self) -> tf.TensorSpec:
        """All sides are left open, so that a wrong one reaches the check and its message."""
        return tf.TensorSpec((None,) * len(self.shape), self.dtype, self.name)

    @property
    def numpy_dtype(self) -> Any:
        return tf.as_dtype(self.dtype).as_numpy_dtype

    @property
    def is_batched(self) -> bool:
        """Whether it has a row for each example."""
        return self.shape[:1] == (BATCH,)

    @property
    def range_text(self) -> str:
        """How values must be, such as `in [0, 512)`; empty if they may be any."""
        if self.dtype == "float32":
            if self.low is None or self.high is None:
                return "positive and finite" if self.above else "finite"
            return f"in {'(' if self.above else '['}{self.low:g}, {self.high:g}]"
        if self.low is None:
            return ""
        if self.shape and self.high is not None:
            return f"in [{self.low}, {int(self.high) + 1})"
        most = "" if self.high is None else f" and at most {self.high}"
        return f"at least {self.low}{most}"

    def shaped(self, *shape: int | str) -> "Field":
        """The same of another shape."""
        return dataclasses.replace(self, shape=shape)

    def described(self) -> dict[str, Any]:
        """For JSON, with JSON Schema's names of the limits."""
        limits = {
            "exclusiveMinimum" if self.above else "minimum": self.low,
            "maximum": self.high,
        }
        return {
            "dtype": self.dtype,
            "shape": list(self.shape),
            "meaning": self.meaning,
            **{name: limit for name, limit in limits.items() if limit is not None},
        }


# What several endpoints draw by.
SEED = Field("seed", (), "int32", "decides what is drawn: the same seed draws the same again")
TEMPERATURE = Field(
    "temperature",
    (),
    "float32",
    "below 1 more likely things, above 1 more variety",
    0.0,
    above=True,
)
TOP_K = Field("top_k", (), "int32", "only so many likeliest codes; num_codes or more for all", 1)
TOP_P = Field(
    "top_p",
    (),
    "float32",
    "only the likeliest codes of this probability; 1 for all",
    0.0,
    1.0,
    True,
)


def finite_range(dtype: str) -> dict[str, Any]:
    """`low` and `high` of float32 that a network of this dtype is given; none if all fit."""
    kind = tf.as_dtype(dtype)
    return {} if kind.size >= tf.float32.size else {"low": float(kind.min), "high": float(kind.max)}


def drawing_example(num_codes: int) -> dict[str, float]:
    """Values of the four."""
    return {
        "seed": 0,
        "temperature": 1.0,
        "top_k": num_codes,
        "top_p": 1.0,
    }
