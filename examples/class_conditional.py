"""Draw clothes of a class asked for: a VQ-VAE, a PixelCNN over its codes, and an impartial judge.

    python examples/class_conditional.py        # look at runs/class_conditional/samples.png

Both are trained on Fashion-MNIST. A classifier that has only ever seen real pictures says whether
samples, drawn at temperature 0.9 (`--temperature`), are of the class asked for. Each stage leaves
a file behind and is skipped when that is there: run it again to resume.
"""

import argparse
import math
import time
from collections.abc import Callable
from pathlib import Path

from support.command import begin, example_parser, local_path, positive


def arguments() -> argparse.Namespace:
    parser = example_parser(__doc__)
    parser.add_argument(
        "--out", type=local_path, default=Path("runs/class_conditional"), help="folder of the run"
    )
    parser.add_argument("--pictures", type=positive, default=60_000, help="of the training set")
    parser.add_argument("--codes", type=positive, default=128, help="size of the codebook")
    parser.add_argument("--vqvae-epochs", type=positive, default=2, help="of the VQ-VAE")
    parser.add_argument("--hidden", type=positive, default=64, help="channels of the PixelCNN")
    parser.add_argument("--layers", type=positive, default=6, help="of the PixelCNN")
    parser.add_argument("--epochs", type=positive, default=4, help="of the PixelCNN")
    parser.add_argument("--samples", type=positive, default=500, help="of each class")
    parser.add_argument("--temperature", type=float, default=0.9, help="of the samples")
    return parser.parse_args()


if __name__ == "__main__":
    begin(arguments)  # before the imports that take seconds

import keras
import numpy as np
from keras import layers
from matplotlib import pyplot as plt
from support.figures import ratio
from support.generation import bits_per_code
from support.runs import open_run, write_json
from support.scores import grid

from keras_vqvae import ImageVQVAE, PixelCNN, export_savedmodel
from keras_vqvae.data import fashion_mnist

CLASSES = "T-shirt/top,Trouser,Pullover,Dress,Coat,Sandal,Shirt,Sneaker,Bag,Ankle boot".split(",")


def trained(path: Path, train: Callable[[], keras.Model]) -> keras.Model:
    """The model in `path`, trained first if it is not there."""
    if not path.exists():
        keras.utils.set_random_seed(0)
        unfinished = path.with_name(f"unfinished_{path.name}")
        train().save(unfinished)
        unfinished.replace(path)
    return keras.models.load_model(path)


def adam(rate: float, examples: int, batch_size: int, epochs: int) -> keras.optimizers.Adam:
    """Adam with a rate that falls to nothing at the end, and the noise of small batches with it."""
    steps = epochs * math.ceil(examples / batch_size)
    return keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(rate, steps))


def train_vqvae(args: argparse.Namespace, x: np.ndarray, unseen: np.ndarray) -> ImageVQVAE:
    vqvae = ImageVQVAE(x.shape[1:], args.codes, code_dim=16, hidden=64, residual_hidden=32)
    vqvae.compile(adam(2e-3, len(x), 32, args.vqvae_epochs))
    vqvae.fit(x, batch_size=32, epochs=args.vqvae_epochs, validation_data=unseen)
    return vqvae


def train_prior(args: argparse.Namespace, shape: tuple, data: dict, unseen: dict) -> PixelCNN:
    # Six layers of window 3 let the last code of a 7×7 grid see the first.
    prior = PixelCNN(shape, args.codes, len(CLASSES), hidden=args.hidden, num_layers=args.layers)
    prior.compile(adam(2e-3, len(data["codes"]), 64, args.epochs))
    prior.fit(data, batch_size=64, epochs=args.epochs, validation_data=unseen)
    return prior


def train_classifier(x: np.ndarray, y: np.ndarray, epochs: int = 4) -> keras.Model:
    network = [keras.Input(x.shape[1:]), layers.Rescaling(1 / 255)]
    for channels in (32, 64):
        network.append(layers.Conv2D(channels, 3, padding="same", activation="relu"))
        network.append(layers.MaxPooling2D())
    network += [layers.Flatten(), layers.Dropout(0.3), layers.Dense(128, "relu")]
    classifier = keras.Sequential([*network, layers.Dense(len(CLASSES), "softmax")])
    classifier.compile(adam(1e-3, len(x), 64, epochs), "sparse_categorical_crossentropy")
    classifier.fit(x, y, batch_size=64, epochs=epochs)
    return classifier


def draw(args: argparse.Namespace, prior: PixelCNN, vqvae: ImageVQVAE) -> dict[str, np.ndarray]:
    """`args.samples` pictures of each class, drawn once and kept."""
    path = args.out / "samples.npz"
    if not path.exists():
        asked = np.arange(len(CLASSES)).repeat(args.samples)
        options = {"temperature": args.temperature, "batch_size": 100}
        prior.sample(100, condition=0, **options)  # compiles, which is not to be timed
        start = time.perf_counter()
        codes = prior.sample(len(asked), condition=asked, seed=0, **options)
        seconds = (time.perf_counter() - start) / len(asked)
        np.savez(path, asked=asked, codes=codes, images=vqvae.decode(codes), seconds=seconds)
    return dict(np.load(path))


def write_picture(path: Path, images: np.ndarray, zoom: int = 4) -> None:
    """The first 12 samples of each class, a row a class."""
    rows = [of_class[:12] for of_class in np.split(images, len(CLASSES))]
    figure, axis = plt.subplots(figsize=(10, 7.5))
    axis.imshow(grid(rows, zoom)[..., 0], cmap="gray")
    middles = (np.arange(len(CLASSES)) + 0.5) * images.shape[1] * zoom
    axis.set(xticks=[], yticks=middles, yticklabels=CLASSES)
    figure.savefig(path, dpi=120, bbox_inches="tight")
    plt.close(figure)


def accuracies(
    judge: keras.Model, images: np.ndarray, labels: np.ndarray
) -> dict[str, float | None]:
    """How often the judge names the label, over all and by class; None where there is no image."""
    right = judge.predict(images, verbose=0).argmax(-1) == labels
    by_class = {
        name: ratio(right[labels == i].sum(), np.sum(labels == i)) for i, name in enumerate(CLASSES)
    }
    return {"all": float(right.mean()), **by_class}


def main() -> None:
    args = arguments()
    args.out = open_run(args.out, vars(args))
    (x, y), (x_test, y_test) = fashion_mnist()
    x, y = x[: args.pictures], y[: args.pictures]
    vqvae = trained(args.out / "vqvae.keras", lambda: train_vqvae(args, x, x_test))
    data = {"codes": vqvae.encode(x), "condition": y}
    unseen = {"codes": vqvae.encode(x_test), "condition": y_test}
    shape = vqvae.grid_shape
    prior = trained(args.out / "prior.keras", lambda: train_prior(args, shape, data, unseen))
    judge = trained(args.out / "classifier.keras", lambda: train_classifier(x, y))
    samples = draw(args, prior, vqvae)
    write_picture(args.out / "samples.png", samples["images"])
    metrics = {
        "temperature": args.temperature,
        "agreement": {
            "real pictures": accuracies(judge, x_test, y_test),
            "reconstructions": accuracies(judge, vqvae.reconstruct(x_test), y_test),
            "samples": accuracies(judge, samples["images"], samples["asked"]),
        },
        "bits_per_code": bits_per_code(prior, data["codes"], unseen),
        "seconds_per_sample": float(samples["seconds"]),
    }
    write_json(args.out / "metrics.json", metrics)
    if not (args.out / "savedmodel" / "1").exists():
        export_savedmodel(vqvae, args.out / "savedmodel" / "1", prior=prior)
    print((args.out / "metrics.json").read_text())


if __name__ == "__main__":
    main()
