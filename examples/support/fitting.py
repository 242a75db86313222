"""Training that ends when held-out data gain no more, and keeps the best weights."""

from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

STEPS_PER_EPOCH = 200  # how often held-out data are looked at
PATIENCE = 5  # epochs without a gain


def adam(rate: float, steps: int, **options: Any) -> keras.optimizers.Adam:
    """Adam with a learning rate that falls along a cosine."""
    schedule = keras.optimizers.schedules.CosineDecay(rate, steps, alpha=0.01)
    return keras.optimizers.Adam(schedule, **options)


def fit(
    model: keras.Model, train: tf.data.Dataset, held_out: Any, steps: int, history: Path
) -> int:
    """Trains a compiled model with early stopping: few examples overfit.

    Args:
        model: compiled.
        train: endless batches.
        held_out: what the model takes.
        steps: of training, at most; rounded up to whole epochs.
        history: the CSV file to write, a line for each epoch.

    Returns:
        steps in an epoch.
    """
    each = min(steps, STEPS_PER_EPOCH)
    model.fit(
        train,
        steps_per_epoch=each,
        epochs=-(-steps // each),
        validation_data=held_out,
        validation_batch_size=8,
        callbacks=[
            keras.callbacks.EarlyStopping(patience=PATIENCE, restore_best_weights=True),
            keras.callbacks.CSVLogger(history),
        ],
    )
    return each
