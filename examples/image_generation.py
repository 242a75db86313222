"""Learn a prior over the codes of a trained VQ-VAE, draw pictures that never were, export both.

    python examples/image_reconstruction.py --out runs/demo    # trains the VQ-VAE
    python examples/image_generation.py runs/demo              # goes on from there

Each stage leaves a file behind and is skipped when that is there: run it again to resume.
"""

import argparse
import json
from pathlib import Path

from support.command import begin, example_parser, local_path, positive


def arguments() -> argparse.Namespace:
    parser = example_parser(__doc__)
    parser.add_argument(
        "run", type=local_path, help="folder of a finished run of image_reconstruction"
    )
    parser.add_argument("--hidden", type=positive, default=64, help="channels of the prior")
    parser.add_argument("--layers", type=positive, default=8, help="of the prior")
    parser.add_argument("--steps", type=positive, default=6000, help="training steps")
    parser.add_argument("--batch", type=positive, default=8, help="grids a step")
    parser.add_argument("--rate", type=float, default=2e-3, help="learning rate at its highest")
    parser.add_argument(
        "--epochs", type=positive, default=10, help="parts to divide the steps into"
    )
    parser.add_argument("--samples", type=positive, default=24, help="images to draw")
    parser.add_argument("--temperature", type=float, default=0.9, help="of the samples")
    args = parser.parse_args()
    if args.epochs > args.steps:
        parser.error(f"--steps must be at least --epochs={args.epochs}, got {args.steps}")
    return args


if __name__ == "__main__":
    begin(arguments)  # before the imports that take seconds

import image_reconstruction
import keras
import numpy as np
import tensorflow as tf
from support import generation, runs
from support.checks import check_without_package
from support.report import write_report

from keras_vqvae import PixelCNN, callbacks, export_savedmodel
from keras_vqvae.data import vizdoom_recorder


def load(run: Path) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Training pictures of the VQ-VAE's run, and unseen ones by name."""
    arguments = argparse.Namespace(**json.loads((run / "arguments.json").read_text()))
    arguments.skip_corrupt = True  # the first stage has decided that
    train, unseen = image_reconstruction.load(arguments)
    if arguments.data == "vizdoom":
        others = vizdoom_recorder.record(frames_per_map=arguments.frames // 50, seed=2)
        unseen = {"other episodes, same maps": others.frames[::4], **unseen}
    return train, unseen


def train(args: argparse.Namespace, codes: np.ndarray, unseen: np.ndarray, num_codes: int):
    path = args.out / "prior.keras"
    if path.exists():
        return keras.models.load_model(path)
    keras.utils.set_random_seed(0)
    prior = PixelCNN(codes.shape[1:], num_codes, hidden=args.hidden, num_layers=args.layers)
    steps = args.steps // args.epochs
    warmup = min(100, args.steps // 10)
    rate = keras.optimizers.schedules.CosineDecay(
        1e-5, args.steps - warmup, alpha=0.01, warmup_target=args.rate, warmup_steps=warmup
    )
    prior.compile(keras.optimizers.Adam(rate))
    prior.summary()
    shuffled = tf.data.Dataset.from_tensor_slices(codes).shuffle(len(codes), seed=0)
    prior.fit(
        shuffled.repeat().batch(args.batch),
        steps_per_epoch=steps,
        epochs=args.epochs,
        validation_data=unseen,
        callbacks=[
            callbacks.BackupAndRestore(args.out / "backup"),
            keras.callbacks.CSVLogger(args.out / "history.csv", append=True),
        ],
    )
    prior.save(args.out / "unfinished.keras")
    (args.out / "unfinished.keras").replace(path)
    return prior


def main() -> None:
    args = arguments()
    if not (args.run / "report.html").exists() or not (args.run / "model.keras").exists():
        raise ValueError(f"run: {args.run} holds no finished run of image_reconstruction.py")
    args.out = runs.open_run(args.run / "prior", vars(args))
    vqvae = keras.models.load_model(args.run / "model.keras")
    pictures, unseen = load(args.run)
    codes = vqvae.encode(pictures)
    unseen_codes = {name: vqvae.encode(x) for name, x in unseen.items()}
    prior = train(args, codes, np.concatenate(list(unseen_codes.values())), vqvae.num_codes)
    path = args.out / "metrics.json"
    if not path.exists():
        data = pictures, codes
        metrics = generation.evaluate(
            prior, vqvae, data, unseen_codes, args.out, args.samples, args.temperature
        )
        epoch = f"{args.steps // args.epochs:,} steps of {args.batch} grids of codes"
        runs.write_json(path, {"epoch": epoch, **metrics})
    savedmodel = args.run / "savedmodel" / "2"
    if not savedmodel.exists():
        export_savedmodel(vqvae, savedmodel, prior=prior)
    some = np.concatenate([x[:16] for x in unseen.values()])
    check_without_package(vqvae, savedmodel, some, prior=prior)
    note = image_reconstruction.CHECKED.format(2)
    print("report:", write_report(args.run, note=note))


if __name__ == "__main__":
    main()
