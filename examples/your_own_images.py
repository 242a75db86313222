"""Your own images: a folder in; tokens, a prior, new images, figures and a SavedModel out.

    python examples/your_own_images.py photos/ --out runs/photos
    python examples/your_own_images.py                # tries it on frames recorded from ViZDoom

Some thousand images of one kind and ten minutes on two CPU cores give a first impression; on a
GPU raise --hidden, --layers and --steps, and --size to 128. A tenth of the images is held out;
training ends when it no longer gains on them, and the best weights are kept. The folder of the run
then holds

- `report.html`: figures of held-out images beside codecs, bits a code, curves, and images;
- `tokens.npz`: `codes`, int32 `(n, size/4, size/4)`, and `files`, the images that they are of;
- `reconstructions_0.png`: held-out images, and what their codes and two codecs keep of them;
- `prior/samples.png`: images sampled from the prior, and the training images nearest to them;
- `vqvae.keras`, `prior.keras`: the models, for `keras.saving.load_model`;
- `savedmodel/1`: both, for TensorFlow Serving: encode, decode, reconstruct, sample, log_prob.
"""

import argparse
from pathlib import Path

from support.command import begin, example_parser, local_path, positive


def arguments() -> argparse.Namespace:
    parser = example_parser(__doc__)
    parser.add_argument("folder", type=local_path, nargs="?", help="of image files")
    parser.add_argument(
        "--out", type=local_path, default=Path("runs/your_own_images"), help="to write"
    )
    parser.add_argument("--size", type=positive, default=64, help="side of the images")
    parser.add_argument("--num-codes", type=positive, default=512, help="size of the codebook")
    parser.add_argument("--hidden", type=positive, default=64, help="channels of both networks")
    parser.add_argument("--layers", type=positive, default=8, help="of the prior")
    parser.add_argument("--steps", type=positive, default=4000, help="of each network, at most")
    return parser.parse_args()


if __name__ == "__main__":
    begin(arguments)  # before the imports that take seconds

import keras
import numpy as np
import tensorflow as tf
from support import fitting, generation, runs, scores
from support.report import write_report

from keras_vqvae import ImageVQVAE, PixelCNN, export_savedmodel
from keras_vqvae.data import check_folder, from_folder, record

BATCH = 8


def recorded_images(folder: Path) -> Path:
    """A folder of images for those who have none at hand."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, frame in enumerate(record(frames_per_map=1000).frames):
        keras.utils.save_img(folder / f"{number:05}.png", frame, "channels_last", scale=False)
    return folder


def batches(examples: np.ndarray) -> tf.data.Dataset:
    """Endless batches in random order."""
    dataset = tf.data.Dataset.from_tensor_slices(examples)
    return dataset.shuffle(len(examples), seed=0).repeat().batch(BATCH)


def main() -> None:
    args = arguments()
    out, savedmodel = args.out, args.out / "savedmodel" / "1"
    if savedmodel.exists():
        raise ValueError(f"--out: {out} holds a finished run; name another folder")
    (out / "prior").mkdir(parents=True, exist_ok=True)
    runs.note_command(out)
    folder = args.folder or recorded_images(out / "pictures")
    files, corrupt = check_folder(folder)
    for file in corrupt:
        print(f"left out, corrupt: {file}")
    dataset = from_folder(folder, (args.size, args.size), skip_corrupt=True)
    images = np.concatenate(list(dataset.as_numpy_iterator()))
    if len(images) < 20:
        raise ValueError(f"{folder} holds {len(images)} images: too few to learn from")
    held_out = np.random.default_rng(0).permutation(len(images)) < len(images) // 10

    keras.utils.set_random_seed(0)
    vqvae = ImageVQVAE(images.shape[1:], args.num_codes, 32, hidden=args.hidden, residual_hidden=32)
    train, unseen = images[~held_out], images[held_out]
    vqvae.compile(fitting.adam(1e-3, args.steps))
    each = fitting.fit(vqvae, batches(train), unseen, args.steps, out / "history.csv")
    vqvae.save(out / "vqvae.keras")
    some, name = slice(500), f"{len(unseen):,} held-out images of {folder.name}"
    figures = scores.evaluate(vqvae, train[some], {name: unseen[some]}, out)
    figures |= {"data": folder.name, "epoch": f"{each} steps of {BATCH} images"}
    runs.write_json(out / "metrics.json", figures)

    codes = vqvae.encode(images)
    np.savez_compressed(out / "tokens.npz", codes=codes, files=[str(f) for f in files])

    prior = PixelCNN(vqvae.grid_shape, vqvae.num_codes, hidden=args.hidden, num_layers=args.layers)
    train_codes, unseen_codes = codes[~held_out], codes[held_out]
    prior.compile(fitting.adam(2e-3, args.steps))
    history = out / "prior" / "history.csv"
    each = fitting.fit(prior, batches(train_codes), unseen_codes, args.steps, history)
    prior.save(out / "prior.keras")
    figures = generation.evaluate(
        prior, vqvae, (train, train_codes), {name: unseen_codes}, out / "prior"
    )
    figures["epoch"] = f"{each} steps of {BATCH} grids of codes"
    runs.write_json(out / "prior" / "metrics.json", figures)

    export_savedmodel(vqvae, savedmodel, prior=prior)
    bits = figures["bits_per_code"][name]
    print(f"{len(images):,} images, {len(unseen):,} of them held out")
    print(f"bits a code, held out: {bits['PixelCNN']:.2f} (unigram {bits['unigram']:.2f})")
    print("report:", write_report(out, best=True))


if __name__ == "__main__":
    main()
