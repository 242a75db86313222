"""Train on one device, on several GPUs or on several machines: one script, one result.

    python examples/distributed_training.py              # all GPUs of this machine, or its CPU
    python -m keras_vqvae.distribute --workers 2 --restarts 3 examples/distributed_training.py
    sbatch examples/cluster/slurm.sh                     # or examples/cluster/kubernetes.yaml

Kill it whenever you like and start it again: it goes on from its last backup, and ends with the
weights it would have had. Only the strategy knows how many devices there are.
"""

import argparse
import os
from pathlib import Path

from support.command import begin, example_parser, local_path, positive


def arguments() -> argparse.Namespace:
    parser = example_parser(__doc__)
    parser.add_argument(
        "--out", type=local_path, default=Path("runs/distributed"), help="seen by all"
    )
    parser.add_argument("--epochs", type=positive, default=5, help="passes over the frames")
    parser.add_argument("--batch-size", type=positive, default=32, help="of all devices together")
    parser.add_argument("--frames", type=positive, default=10_000, help="to record and train on")
    parser.add_argument("--hidden", type=positive, default=64, help="channels; the paper has 256")
    return parser.parse_args()


if __name__ == "__main__":
    begin(arguments)  # before the imports that take seconds

import keras
import tensorflow as tf
from support import scores

from keras_vqvae import ImageVQVAE
from keras_vqvae.callbacks import BackupAndRestore
from keras_vqvae.data import HELD_OUT_MAPS, from_array, record, this_worker
from keras_vqvae.distribute import is_chief


def choose_strategy() -> tf.distribute.Strategy:
    if "TF_CONFIG" in os.environ:  # set by the launcher, or made from what the scheduler says
        return tf.distribute.MultiWorkerMirroredStrategy()
    if len(tf.config.list_physical_devices("GPU")) > 1:
        return tf.distribute.MirroredStrategy()
    return tf.distribute.get_strategy()


def frames(strategy: tf.distribute.Strategy, **options):
    """Recorded once a machine and kept: workers on the same one wait for the chief."""
    if is_chief():
        record(**options)
    if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        strategy.gather(tf.zeros(1), axis=0)  # returns when all have come here
    return record(**options).frames


def main() -> None:
    args = arguments()
    strategy = choose_strategy()
    train = frames(strategy, frames_per_map=args.frames // 5, seed=0)
    unseen = frames(strategy, maps=HELD_OUT_MAPS, frames_per_map=args.frames // 20, seed=1)
    with strategy.scope():
        keras.utils.set_random_seed(0)
        vqvae = ImageVQVAE(train.shape[1:], hidden=args.hidden, residual_hidden=32, code_dim=32)
        vqvae.compile(keras.optimizers.Adam(1e-3))
    vqvae.fit(
        from_array(train, args.batch_size, seed=0, shard=this_worker()),
        validation_data=from_array(unseen, args.batch_size),
        epochs=args.epochs,
        callbacks=[BackupAndRestore(args.out / "backup", save_freq=100)],
        verbose="auto" if is_chief() else 0,
    )
    if is_chief():
        vqvae.save(args.out / "vqvae.keras")
        shown = unseen[:: max(1, len(unseen) // 12)][:12]
        rows = [("unseen frames", shown), ("reconstructions", vqvae.reconstruct(shown))]
        scores.labelled(rows).save(args.out / "reconstructions.png")
        print(f"{strategy.num_replicas_in_sync} replicas; results are in {args.out}")


if __name__ == "__main__":
    main()
