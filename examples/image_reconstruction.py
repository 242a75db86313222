"""Train a VQ-VAE on pictures, measure it on unseen ones, export it, and write a report.

    python examples/image_reconstruction.py                      # frames recorded from ViZDoom
    python examples/image_reconstruction.py --data my_photos/    # a folder of pictures
    python examples/image_reconstruction.py --data fashion_mnist
    python examples/image_reconstruction.py --data cifar10       # a TensorFlow Datasets name

Each stage leaves a file behind and is skipped when that is there: run it again to resume.
"""

import argparse
from pathlib import Path

from support.command import begin, example_parser, local_path, positive


def arguments() -> argparse.Namespace:
    parser = example_parser(__doc__)
    parser.add_argument("--data", default="vizdoom", help="vizdoom, fashion_mnist, folder or TFDS")
    parser.add_argument(
        "--out", type=local_path, help="folder of the run; default runs/NAME OF DATA"
    )
    parser.add_argument(
        "--size", type=positive, default=64, help="side of pictures, folder or TFDS"
    )
    parser.add_argument("--skip-corrupt", action="store_true", help="leave out unreadable files")
    parser.add_argument("--frames", type=positive, default=30_000, help="training pictures at most")
    parser.add_argument("--hidden", type=positive, default=96, help="channels; the paper has 256")
    parser.add_argument("--epochs", type=positive, default=19, help="parts to divide training into")
    parser.add_argument("--steps", type=positive, default=600, help="steps an epoch, of 8 pictures")
    return parser.parse_args()


if __name__ == "__main__":
    begin(arguments)  # before the imports that take seconds

import keras
import numpy as np
from support import runs, scores
from support.checks import check_without_package
from support.report import write_report

from keras_vqvae import ImageVQVAE, callbacks, export_savedmodel
from keras_vqvae.data import idx, images, vizdoom_recorder

BATCH = 8
CHECKED = (
    "The SavedModel in savedmodel/{} was reloaded in a process that cannot import keras_vqvae and "
    "gave the same values."
)


def load(args: argparse.Namespace) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Training pictures, and unseen ones by name, all uint8."""
    if args.data == "vizdoom":
        train = vizdoom_recorder.record(frames_per_map=args.frames // 5, seed=0).frames
        maps = vizdoom_recorder.HELD_OUT_MAPS
        unseen = vizdoom_recorder.record(maps, frames_per_map=args.frames // 15, seed=1)
        return train, {name: unseen.of(name).frames[::8] for name in maps}
    if args.data == "fashion_mnist":
        (train, _), (test, _) = idx.fashion_mnist()
        return train[: args.frames], {"test set": test[:500]}
    size = (args.size, args.size)
    if Path(args.data).is_dir():
        dataset = images.from_folder(args.data, size, seed=0, skip_corrupt=args.skip_corrupt)
        pictures = np.concatenate(list(dataset.as_numpy_iterator()))[: args.frames]
        held_out = max(1, len(pictures) // 10)
        return pictures[held_out:], {"held-out tenth": pictures[:held_out][:500]}
    train, test = (
        np.concatenate(list(images.from_tfds(args.data, split, size).as_numpy_iterator()))
        for split in (f"train[:{args.frames}]", "test[:500]")
    )
    return train, {"test split": test}


def train(args: argparse.Namespace, pictures: np.ndarray, unseen: np.ndarray) -> ImageVQVAE:
    path = args.out / "model.keras"
    if path.exists():
        return keras.models.load_model(path)
    keras.utils.set_random_seed(0)
    shape = pictures.shape[1:]
    vqvae = ImageVQVAE(shape, code_dim=32, hidden=args.hidden, residual_hidden=32)
    rate = keras.optimizers.schedules.CosineDecay(
        1e-4, args.epochs * args.steps, alpha=0.01, warmup_target=1e-3, warmup_steps=100
    )
    vqvae.compile(keras.optimizers.Adam(rate))
    vqvae.summary()
    vqvae.fit(
        images.from_array(pictures, batch_size=BATCH, seed=0, repeat=True),
        steps_per_epoch=args.steps,
        epochs=args.epochs,
        validation_data=images.from_array(unseen),
        callbacks=[
            callbacks.BackupAndRestore(args.out / "backup"),
            keras.callbacks.CSVLogger(args.out / "history.csv", append=True),
            callbacks.ReconstructionPictures(unseen[:12], args.out / "training", every=5),
            callbacks.CodebookHistogram(args.out / "training", every=5),
        ],
    )
    vqvae.save(args.out / "unfinished.keras")
    (args.out / "unfinished.keras").replace(path)
    return vqvae


def main() -> None:
    args = arguments()
    out = args.out or Path("runs") / Path(args.data).name
    args.out = runs.open_run(out, vars(args))
    pictures, unseen = load(args)
    vqvae = train(args, pictures, np.concatenate(list(unseen.values())))
    metrics_path, savedmodel = args.out / "metrics.json", args.out / "savedmodel" / "1"
    if not metrics_path.exists():
        metrics = scores.evaluate(vqvae, pictures[::6], unseen, args.out)
        epoch = f"{args.steps:,} steps of {BATCH} images"
        runs.write_json(metrics_path, {"data": args.data, "epoch": epoch, **metrics})
    if not savedmodel.exists():
        export_savedmodel(vqvae, savedmodel)
    check_without_package(vqvae, savedmodel, np.concatenate([x[:16] for x in unseen.values()]))
    print("report:", write_report(args.out, note=CHECKED.format(1)))


if __name__ == "__main__":
    main()
