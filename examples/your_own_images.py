"""Your own pictures: a folder in; tokens, a prior, new pictures and a SavedModel out.

    python examples/your_own_images.py photos/ --out runs/photos
    python examples/your_own_images.py                # tries it on frames recorded from ViZDoom

Some thousand pictures of one kind and ten minutes on two CPU cores give a first impression; on a
GPU raise --hidden, --layers and --steps, and --size to 128. The folder of the run then holds

- `tokens.npz`: `codes`, int32 `(n, size/4, size/4)`, and `files`, the pictures they are of;
- `reconstructions.png`: held-out pictures above, and what their codes keep of them below;
- `samples.png`: pictures drawn from the prior;
- `vqvae.keras`, `prior.keras`: the models, for `keras.saving.load_model`;
- `savedmodel/1`: both, for TensorFlow Serving: encode, decode, reconstruct, sample, log_prob.
"""

import argparse
from pathlib import Path

from support.command import begin, example_parser, positive


def arguments() -> argparse.Namespace:
    parser = example_parser(__doc__)
    parser.add_argument("folder", type=Path, nargs="?", help="of JPEG, PNG, BMP or GIF files")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/your_own_images"), help="folder of the run"
    )
    parser.add_argument("--size", type=positive, default=64, help="side of the pictures")
    parser.add_argument("--num-codes", type=positive, default=512, help="size of the codebook")
    parser.add_argument("--hidden", type=positive, default=64, help="channels of both networks")
    parser.add_argument("--layers", type=positive, default=8, help="of the prior")
    parser.add_argument(
        "--steps", type=positive, default=4000, help="training steps of each network"
    )
    return parser.parse_args()


if __name__ == "__main__":
    begin(arguments)  # before the imports that take seconds

import keras
import numpy as np
import tensorflow as tf
from support import scores

from keras_vqvae import ImageVQVAE, PixelCNN, export_savedmodel
from keras_vqvae.data import check_folder, from_folder, record

STEPS_PER_EPOCH = 200  # how often held-out pictures are looked at


def recorded_pictures(folder: Path) -> Path:
    """A folder of pictures for those who have none at hand."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, frame in enumerate(record(frames_per_map=1000).frames):
        keras.utils.save_img(folder / f"{number:05}.png", frame, scale=False)
    return folder


def fit(model: keras.Model, train: np.ndarray, held_out: np.ndarray, rate: float, steps: int):
    """Trains, and keeps the weights that were best on held-out data: few pictures overfit."""
    each = min(steps, STEPS_PER_EPOCH)
    epochs = -(-steps // each)
    schedule = keras.optimizers.schedules.CosineDecay(rate, epochs * each, alpha=0.01)
    model.compile(keras.optimizers.Adam(schedule))
    dataset = tf.data.Dataset.from_tensor_slices(train).shuffle(len(train)).repeat().batch(8)
    stop = keras.callbacks.EarlyStopping(patience=5, restore_best_weights=True)
    model.fit(
        dataset,
        steps_per_epoch=each,
        epochs=epochs,
        validation_data=held_out,
        callbacks=[stop],
    )


def main() -> None:
    args = arguments()
    savedmodel = args.out / "savedmodel" / "1"
    if savedmodel.exists():
        raise ValueError(f"--out: {args.out} holds a finished run; name another folder")
    args.out.mkdir(parents=True, exist_ok=True)
    folder = args.folder or recorded_pictures(args.out / "pictures")
    files, _ = check_folder(folder)
    dataset = from_folder(folder, (args.size, args.size), skip_corrupt=True)
    images = np.concatenate(list(dataset.as_numpy_iterator()))
    if len(images) < 20:
        raise ValueError(f"{folder} holds {len(images)} pictures: too few to learn from")
    held_out = np.random.default_rng(0).permutation(len(images)) < len(images) // 10

    keras.utils.set_random_seed(0)
    vqvae = ImageVQVAE(images.shape[1:], args.num_codes, 32, hidden=args.hidden, residual_hidden=32)
    fit(vqvae, images[~held_out], images[held_out], 1e-3, args.steps)
    vqvae.save(args.out / "vqvae.keras")
    shown = images[held_out][:12]
    rows = scores.grid([shown, vqvae.reconstruct(shown)])
    keras.utils.save_img(args.out / "reconstructions.png", rows, scale=False)

    codes = vqvae.encode(images)
    np.savez_compressed(args.out / "tokens.npz", codes=codes, files=[str(f) for f in files])

    prior = PixelCNN(vqvae.grid_shape, vqvae.num_codes, hidden=args.hidden, num_layers=args.layers)
    fit(prior, codes[~held_out], codes[held_out], 2e-3, args.steps)
    prior.save(args.out / "prior.keras")
    samples = vqvae.decode(prior.sample(24, temperature=0.9, seed=0))
    rows = scores.grid([samples[:12], samples[12:]])
    keras.utils.save_img(args.out / "samples.png", rows, scale=False)

    export_savedmodel(vqvae, savedmodel, prior=prior)
    print(f"{len(images)} pictures; results are in {args.out}")


if __name__ == "__main__":
    main()
