"""Callbacks that show what a model does, in TensorBoard and as PNG files."""

import importlib.util
import os
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_vqvae import backend
from keras_vqvae.models.vqvae import VQVAE


class _Show(keras.callbacks.Callback):
    """Writes a picture, and perhaps more, at the end of every `every`-th epoch.

    On several workers only the chief does.
    """

    def __init__(self, folder: str | os.PathLike, every: int = 1) -> None:
        super().__init__()
        if every < 1:
            raise ValueError(f"every must be at least 1 (epoch), got {every}")
        self.folder = Path(folder)
        self.every = every
        self._writer: Any = None

    def on_train_begin(self, logs: dict | None = None) -> None:
        if not isinstance(self.model, VQVAE):
            name = type(self.model).__name__
            raise ValueError(f"{type(self).__name__} shows a VQVAE, but the model is a {name}")
        if not backend.is_chief(self.model):
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"folder: cannot write to {self.folder}: {error}") from error
        self._writer = tf.summary.create_file_writer(str(self.folder))

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        if (epoch + 1) % self.every == 0 and self._writer is not None:
            with self._writer.as_default(step=epoch + 1):
                self.show(epoch + 1)

    def on_train_end(self, logs: dict | None = None) -> None:
        if self._writer is not None:
            self._writer.close()

    def show(self, epoch: int) -> None:
        raise NotImplementedError

    def _picture(self, name: str, picture: np.ndarray, epoch: int) -> None:
        tf.summary.image(name, picture[None])
        png = tf.io.encode_png(picture).numpy()
        (self.folder / f"{name}_{epoch:04d}.png").write_bytes(png)


class ReconstructionPictures(_Show):
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

    def show(self, epoch: int) -> None:
        rows = (self.images, self.model.reconstruct(self.images))
        picture = np.concatenate([np.concatenate(list(row), 1) for row in rows], 0)
        self._picture("reconstructions", picture, epoch)


class CodebookHistogram(_Show):
    """How often each code was used in the epoch, most used first, on a logarithmic scale.

    Reads the counts that the model's `CodeUsage` has gathered, so it costs nothing. Needs
    matplotlib (extra `examples`).

    Args:
        folder: where the event file and `codebook_EPOCH.png` go.
        every: epochs between two pictures.
    """

    def __init__(self, folder: str | os.PathLike, every: int = 1) -> None:
        super().__init__(folder, every)
        if importlib.util.find_spec("matplotlib") is None:
            raise ImportError('CodebookHistogram needs: pip install "keras_vqvae[examples]"')
        self._counts: Any = None

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
        self._picture("codebook", _bars(counts), epoch)


def _bars(counts: np.ndarray) -> np.ndarray:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    axes.bar(np.arange(len(counts)), counts, width=1.0)
    axes.set(yscale="symlog", xlabel="code, by use", ylabel="count in the epoch")
    axes.set_title(f"{int(np.sum(counts > 0))} of {len(counts)} codes used")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
