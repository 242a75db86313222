"""Runs a model of the zoo on a folder of pictures: originals above, reconstructions below.

python zoo/run.py NAME FOLDER OUT.png
"""

import argparse
import json
from pathlib import Path

import keras
import numpy as np

from keras_vqvae import ImageVQVAE
from keras_vqvae.data import from_folder


def load(name: str) -> ImageVQVAE:
    """The model `name`, with its weights."""
    folder = Path(__file__).parent / name
    if not (folder / "config.json").exists():
        known = sorted(path.parent.name for path in Path(__file__).parent.glob("*/config.json"))
        raise ValueError(f"name: no model {name!r} in the zoo, which has {known}")
    vqvae = ImageVQVAE(**json.loads((folder / "config.json").read_text()))
    vqvae.load_weights(folder / "model.weights.h5")
    return vqvae


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name")
    parser.add_argument("folder")
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    vqvae = load(args.name)
    height, width, channels = vqvae.image_shape
    dataset = from_folder(args.folder, (height, width), channels=channels)
    images = next(dataset.as_numpy_iterator())[:12]
    rows = [np.concatenate(list(x), 1) for x in (images, vqvae.reconstruct(images))]
    keras.utils.save_img(args.out, np.concatenate(rows, 0), scale=False)
    print(f"{len(images)} pictures, codes {vqvae.encode(images).shape}: {args.out}")


if __name__ == "__main__":
    main()
