"""The order of a pipeline's elements: by seed and epoch, from any batch on, and a worker's share.

A seeded pipeline has a Python object that knows which epoch comes next and how many of its batches
are to be left out. Every iteration asks it once, when its first batch is asked for; all the rest
is graph.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import tensorflow as tf

# Batches made ahead of time. Left to itself (AUTOTUNE), tf.data doubles their number whenever it
# was found wanting, and makes them all in the next pause, such as a validation: memory would grow.
_LOOK_AHEAD = 8


def is_integer(value: object, least: int) -> bool:
    """Whether `value` is an integer, no bool, of at least `least`."""
    is_int = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    return is_int and value >= least  # type: ignore[operator]


def check_batch_size(batch_size: int) -> None:
    """Raises `ValueError` where `batch_size` is no positive integer."""
    if not is_integer(batch_size, 1):
        raise ValueError(f"`batch_size` must be a positive integer, got {batch_size!r}.")


def check_shard(shard: tuple[int, int] | None, batch_size: int = 0) -> tuple[int, int]:
    """`shard` as `(index, count)`, `(0, 1)` for None.

    Raises:
        ValueError: it is no such pair, or `count` does not divide `batch_size`.
    """
    if shard is None:
        return 0, 1
    is_pair = isinstance(shard, (tuple, list)) and len(shard) == 2
    if not is_pair or not is_integer(shard[0], 0) or not is_integer(shard[1], shard[0] + 1):
        raise ValueError(
            f"`shard` must be (index, count), this worker's number from 0 and how many there are, "
            f"got {shard!r}."
        )
    index, count = shard
    if batch_size % count:
        raise ValueError(
            f"`batch_size` is that of the global batch, of which each worker gets an equal part: "
            f"it must be divisible by {count} workers, got {batch_size}."
        )
    return int(index), int(count)


@dataclasses.dataclass
class Position:
    """Where the next iteration begins."""

    epoch: int = 0
    batch: int = 0

    def take(self) -> tuple[int, int]:
        """`(epoch, batch)` of an iteration that begins now; the one after it is whole."""
        taken = self.epoch, self.batch
        self.epoch, self.batch = self.epoch + 1, 0
        return taken


class Order:
    """What becomes of a pipeline's elements between their source and its batches.

    `elements` puts them in order and leaves out other workers'; the pipeline then loads and batches
    them; `finish` has the last word. (`epochs` is for pipelines that divide work by themselves.)

    Args:
        size: number of elements in an epoch, of all workers.
        batch_size: elements of the global batch, or None for a pipeline of single elements.
        seed: None for the order of the source, an integer to reshuffle for each epoch.
        repeat: whether to go on without end.
        shard: `(index, count)` of this worker.
    """

    def __init__(
        self,
        size: int,
        batch_size: int | None,
        seed: int | None = None,
        repeat: bool = False,
        shard: tuple[int, int] | None = None,
    ) -> None:
        if batch_size is not None:
            check_batch_size(batch_size)
        if seed is not None and (not is_integer(seed, 0) or seed >= 2**63):
            raise ValueError(
                f"`seed` must be None or an integer from 0 to 2**63 - 1, got {seed!r}."
            )
        self.size = size
        self.batch_size = batch_size
        self.seed = seed
        self.repeat = repeat
        self.index, self.count = check_shard(shard, batch_size or 0)
        self.position = Position()

    def elements(self, source: tf.data.Dataset, buffer: int | None = None) -> tf.data.Dataset:
        """The elements of `source` in order, of this worker only.

        Args:
            source: all elements of an epoch, still cheap: indices, paths, encoded pictures.
            buffer: of the shuffling, where not all elements are to be held.
        """
        if self.seed is None:
            stream = source.repeat() if self.repeat else source
        else:
            stream = self.epochs(
                lambda epoch: self.shuffled(source, epoch, buffer), self.size, self.batch_size or 1
            )
        if self.count > 1:
            return stream.batch(self.batch_size).map(self._own_rows).unbatch()
        return stream

    def epochs(
        self, of_epoch: Callable[[tf.Tensor], tf.data.Dataset], size: int, rows: int
    ) -> tf.data.Dataset:
        """The elements of an iteration: of one epoch, or of all, from the position on.

        Args:
            of_epoch: from the number of an epoch, an int64 scalar, to its elements.
            size: how many these are.
            rows: how many of them a global batch takes.
        """

        def endless(_, skipped):
            epochs = tf.data.Dataset.counter(start=skipped * rows // size)
            return epochs.flat_map(of_epoch).skip(skipped * rows % size)

        def one(epoch, skipped):
            return of_epoch(epoch).skip(skipped * rows)

        number = tf.TensorSpec((), tf.int64)
        positions = tf.data.Dataset.from_generator(
            lambda: iter([self.position.take()]), output_signature=(number, number)
        )
        return self.open_ended(positions.flat_map(endless if self.repeat else one))

    def shuffled(
        self, source: tf.data.Dataset, epoch: tf.Tensor, buffer: int | None = None
    ) -> tf.data.Dataset:
        """The elements of `source` in the order that the seed and the epoch's number decide."""
        # `Dataset.shuffle` mixes the global seed into its own, and then whatever a user sets
        # elsewhere would change the order; the operation below it takes exactly the two numbers
        # it is given.
        spec = source.element_spec
        leaves = tf.nest.flatten(spec)
        variant = tf.raw_ops.ShuffleDatasetV3(
            input_dataset=tf.data.experimental.to_variant(source),
            buffer_size=tf.constant(buffer or self.size, tf.int64),
            seed=tf.constant(self.seed, tf.int64),
            seed2=epoch + 1,  # two zeros would ask for a random seed
            seed_generator=tf.raw_ops.DummySeedGenerator(),
            reshuffle_each_iteration=False,
            output_types=[leaf.dtype for leaf in leaves],
            output_shapes=[leaf.shape for leaf in leaves],
        )
        return tf.data.experimental.from_variant(variant, spec)

    def _own_rows(self, *elements):
        rows = elements if len(elements) > 1 else elements[0]  # `map` unpacks tuples
        # As TensorFlow cuts a batch that does not divide evenly: the last workers get less.
        total = tf.shape(tf.nest.flatten(rows)[0])[0]
        each = (total + self.count - 1) // self.count
        start = self.index * each
        return tf.nest.map_structure(lambda leaf: leaf[start : start + each], rows)

    def open_ended(self, stream: tf.data.Dataset) -> tf.data.Dataset:
        """`stream`, whose cardinality is said to be the epoch's though it may end before.

        An iteration that begins in the middle, and a worker's own part, are shorter than an
        epoch. But `fit` counts its steps by the cardinality: it must be that of the global
        batches of a whole epoch. `assert_cardinality` would not let a shorter stream end.
        """
        # Of an endless dataset and another, the choice counts as endless; the first alone is ever
        # chosen, and where it ends all ends.
        first = tf.data.Dataset.from_tensor_slices(tf.zeros(4096, tf.int64)).repeat()
        never = tf.nest.map_structure(
            lambda spec: tf.zeros([side or 0 for side in spec.shape], spec.dtype),
            stream.element_spec,
        )
        endless = tf.data.Dataset.choose_from_datasets(
            [stream, tf.data.Dataset.from_tensors(never).repeat()],
            first,
            stop_on_empty_dataset=True,
        )
        return endless if self.repeat else endless.take(self.size)

    def finish(self, batches: tf.data.Dataset) -> tf.data.Dataset:
        """Batches with what a training loop needs of them: look-ahead, sharding, `start_at`."""
        if self.count > 1:
            if self.batch_size is None:
                batches = self.open_ended(batches)
            else:
                # Strung together and batched anew, so that `batch` comes last: only there does
                # tf.distribute find the size of the global batch, to cut each stream by.
                batches = self.open_ended(batches.unbatch()).batch(self.batch_size)
        # Left to itself TensorFlow would give whole files of records to the workers.
        policies = tf.data.experimental.AutoShardPolicy
        options = tf.data.Options()
        options.experimental_distribute.auto_shard_policy = (
            policies.OFF if self.count > 1 else policies.DATA
        )
        # The thread that tunes wakes at intervals that double, and an iterator that ends may wait
        # for it: `fit` sat still for seconds after its last step. Here nothing is left to tune.
        options.autotune.enabled = False
        batches = batches.with_options(options)
        batches = batches.prefetch(_LOOK_AHEAD)
        if self.seed is not None:
            batches.start_at = self.start_at
        return batches

    def start_at(self, epoch: int, batch: int) -> None:
        """Lets the next iteration be that of number `epoch` without its first `batch` batches.

        The iterations after it are the following epochs, whole. Of an endless dataset `epoch` must
        be 0: its next iteration begins after `batch` batches.

        Args:
            epoch: number of an epoch, from 0.
            batch: number of global batches to leave out.

        Raises:
            ValueError: one is negative or no integer, or there are not that many batches.
        """
        if not is_integer(epoch, 0) or not is_integer(batch, 0):
            raise ValueError(
                "`start_at` takes the numbers of an epoch and a batch, integers from 0, "
                f"got epoch={epoch!r}, batch={batch!r}."
            )
        if self.repeat and epoch:
            raise ValueError(
                f"`epoch` must be 0 for an endless dataset, got {epoch}: "
                "give as `batch` all batches since its beginning."
            )
        most = -(-self.size // (self.batch_size or 1))
        if not self.repeat and batch > most:
            raise ValueError(f"`batch` must be at most {most}, an epoch's batches, got {batch}.")
        self.position.epoch, self.position.batch = int(epoch), int(batch)
