"""Callbacks that show what a model does, in TensorBoard and as PNG files."""

import os
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_vqvae.callbacks.show import Show, check_matplotlib, drawn, new_figure
from keras_vqvae.models.vqvae import VQVAE


class ReconstructionPictures(Show):
    """Originals (upper row) and reconstructions (lower row).

    Args:
        images: uint8 `(n, height, width, channels)`, 1 or 3 channels, the pictures to show.
        folder: where the event file and `reconstructions_EPOCH.png` go.
        every: epochs between two pictures.
    """

    def __init__(self, images: np.ndarray, folder: str | os.PathLike, every: int = 1) -> None:
        super().__init__(folder, every)
        self.images = np.asarray(images)

    def on_train_begin(self, logs: dict | None = None) -> None:
        super().on_train_begin(logs)
        self.model.check_data(self.images)
        if len(self.images) == 0 or self.images.shape[-1] not in (1, 3):
            raise ValueError(
                f"images must be at least one picture of 1 or 3 channels, got {self.images.shape}"
            )

    def can_show(self, model: Any) -> bool:
        return isinstance(model, VQVAE)

    def show(self, epoch: int) -> None:
        rows = (self.images, self.model.reconstruct(self.images))
        picture = np.concatenate([np.concatenate(list(row), 1) for row in rows], 0)
        self.write_picture("reconstructions", picture, epoch)


class CodebookHistogram(Show):
    """How often each code was used in the epoch, most used first, on a logarithmic scale.

    Reads the counts that the model's `CodeUsage` has gathered, so it costs nothing. Needs
    matplotlib (extra `examples`).

    Args:
        folder: where the event file and `codebook_EPOCH.png` go.
        every: epochs between two pictures.
    """

    def __init__(self, folder: str | os.PathLike, every: int = 1) -> None:
        super().__init__(folder, every)
        check_matplotlib(self)
        self._counts: Any = None

    def can_show(self, model: Any) -> bool:
        return hasattr(model, "code_usage")

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self._counts = None

    def on_test_begin(self, logs: dict | None = None) -> None:
        self._read()  # validation resets the metrics before the epoch ends

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        if self._counts is None:
            self._read()
        super().on_epoch_end(epoch, logs)

    def _read(self) -> None:
        # On several workers reading a metric is a collective: all must read, one draws.
        self._counts = keras.ops.convert_to_numpy(self.model.code_usage.counts)

    def show(self, epoch: int) -> None:
        counts = np.sort(self._counts)[::-1]
        tf.summary.histogram("code_counts", counts)
        self.write_picture("codebook", _bars(counts), epoch)


def _bars(counts: np.ndarray) -> np.ndarray:
    figure = new_figure(6, 3)
    axes = figure.add_subplot()
    axes.bar(np.arange(len(counts)), counts, width=1.0)
    axes.set(yscale="symlog", xlabel="code, by use", ylabel="count in the epoch")
    axes.set_title(f"{int(np.sum(counts > 0))} of {len(counts)} codes used")
    return drawn(figure)
