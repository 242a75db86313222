"""What the callbacks that show something share: a folder, an event file, every so many epochs."""

import importlib.util
import os
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_vqvae import backend
from keras_vqvae.paths import any_path


class Show(keras.callbacks.Callback):
    """Writes a picture, and perhaps more, at the end of every `every`-th epoch.

    On several workers only the chief does.
    """

    shown = "a VQVAE"

    def __init__(self, folder: str | os.PathLike, every: int = 1) -> None:
        super().__init__()
        if every < 1:
            raise ValueError(f"every must be at least 1 (epoch), got {every}")
        self.folder = any_path(folder, "folder")
        self.every = every
        self._writer: Any = None

    def on_train_begin(self, logs: dict | None = None) -> None:
        if not self.can_show(self.model):
            name = type(self.model).__name__
            raise ValueError(f"{type(self).__name__} shows {self.shown}, but the model is a {name}")
        if not backend.is_chief(self.model):
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except (OSError, tf.errors.OpError) as error:
            raise ValueError(f"folder: cannot write to {self.folder}: {error}") from error
        self._writer = tf.summary.create_file_writer(os.fsencode(self.folder))

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        if (epoch + 1) % self.every == 0 and self._writer is not None:
            with self._writer.as_default(step=epoch + 1):
                self.show(epoch + 1)

    def on_train_end(self, logs: dict | None = None) -> None:
        if self._writer is not None:
            self._writer.close()

    def can_show(self, model: Any) -> bool:
        """Whether `model` is of the kind that this callback shows."""
        raise NotImplementedError

    def show(self, epoch: int) -> None:
        """Writes what is to be seen at the end of `epoch`, counted from 1."""
        raise NotImplementedError

    def write_picture(self, name: str, picture: np.ndarray, epoch: int) -> None:
        """Writes `NAME_EPOCH.png` and a summary; `picture` is uint8 of 1 or 3 channels."""
        tf.summary.image(name, picture[None])
        png = tf.io.encode_png(picture).numpy()
        (self.folder / f"{name}_{epoch:04d}.png").write_bytes(png)


def check_matplotlib(callback: keras.callbacks.Callback) -> None:
    """Raises `ImportError` where matplotlib is not installed, before a training and not in it."""
    if importlib.util.find_spec("matplotlib") is None:
        raise ImportError(f'{type(callback).__name__} needs: pip install ".[examples]"')


def new_figure(width: float, height: float) -> Any:
    """A matplotlib figure, in inches, that no window will show."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=100, layout="constrained")


def drawn(figure: Any) -> np.ndarray:
    """A figure as a picture: uint8 `(height, width, 3)`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
