"""A training loop for your own `Sequential` on several workers, without Keras's `fit`.

    python -m keras_vqvae.distribute --workers 2 examples/multi_worker_loop.py

Keras's `fit` does not run under `MultiWorkerMirroredStrategy` (keras-team/keras#20585). The models
of keras_vqvae bring what it lacks; a model of your own that only holds our layers does not. This
loop leans on nothing that is not public, and works on one device as well.
"""

import argparse
import os
from collections.abc import Callable
from typing import Any

from support.command import begin, example_parser, positive


def arguments() -> argparse.Namespace:
    parser = example_parser(__doc__)
    parser.add_argument("--epochs", type=positive, default=3, help="passes over the pictures")
    return parser.parse_args()


if __name__ == "__main__":
    begin(arguments)  # before the imports that take seconds

import keras
import tensorflow as tf

from keras_vqvae import VectorQuantizer
from keras_vqvae.data import fashion_mnist, from_array
from keras_vqvae.distribute import is_chief

BATCH = 128


def mean_squared_error(y: tf.Tensor, prediction: tf.Tensor) -> tf.Tensor:
    """One number an example."""
    return tf.reduce_mean(tf.square(y - prediction), axis=-1)


def train(
    strategy: tf.distribute.Strategy,
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    batches: tf.data.Dataset,
    epochs: int,
    per_example_loss: Callable = mean_squared_error,
    after_epoch: Callable[[int, float], Any] = lambda epoch, loss: None,
) -> list[float]:
    """Trains on pairs (x, y) in global batches of equal size; returns the loss of each epoch."""
    distributed = strategy.experimental_distribute_dataset(batches)
    with strategy.scope():
        optimizer.build(model.trainable_variables)

    def replica_step(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        replicas = strategy.num_replicas_in_sync
        with tf.GradientTape() as tape:
            per_example = per_example_loss(y, model(x, training=True))
            # Gradients are summed over the replicas, so each takes its share of the mean;
            # `model.losses` holds what the quantizer adds.
            loss = (tf.reduce_mean(per_example) + sum(model.losses)) / replicas
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply(gradients, model.trainable_variables)
        return tf.reduce_mean(per_example)

    @tf.function
    def step(batch: tuple) -> tf.Tensor:
        return strategy.reduce("MEAN", strategy.run(replica_step, args=batch), axis=None)

    means = []
    for epoch in range(epochs):
        losses = [step(batch) for batch in distributed]
        means.append(float(tf.reduce_mean(losses)))
        after_epoch(epoch, means[-1])
    return means


def main() -> None:
    args = arguments()
    if "TF_CONFIG" in os.environ:
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    else:
        strategy = tf.distribute.MirroredStrategy()
    (pictures, _), _ = fashion_mnist()
    pixels = pictures.shape[1] * pictures.shape[2]

    def as_pair(batch: tf.Tensor) -> tuple:
        x = tf.reshape(tf.cast(batch, "float32") / 127.5 - 1.0, (BATCH, pixels))
        return x, x

    usable = len(pictures) // BATCH * BATCH
    batches = from_array(pictures[:usable], BATCH, seed=0).map(as_pair)
    with strategy.scope():
        keras.utils.set_random_seed(0)
        model = keras.Sequential([
            keras.Input((pixels,)),
            keras.layers.Dense(256, "relu"),
            keras.layers.Dense(16 * 8),
            keras.layers.Reshape((16, 8)),
            VectorQuantizer(num_codes=256, code_dim=8),
            keras.layers.Flatten(),
            keras.layers.Dense(256, "relu"),
            keras.layers.Dense(pixels),
        ])  # fmt: skip
        optimizer = keras.optimizers.Adam(1e-3)

    def report(epoch: int, loss: float) -> None:
        if is_chief():
            print(f"epoch {epoch + 1}: mean squared error {loss:.4f}", flush=True)

    train(strategy, model, optimizer, batches, epochs=args.epochs, after_epoch=report)


if __name__ == "__main__":
    main()
