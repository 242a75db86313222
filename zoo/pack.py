"""Writes config.json and model.weights.h5 of a trained model into a folder of the zoo.

What lies beside a `VideoPredictor` comes along, for examples/play.py: actions and frames to begin
from; and figures, of any model.

python zoo/pack.py runs/demo/vqvae.keras zoo/vizdoom_frames
python zoo/pack.py runs/mine/parallel.keras zoo/mine --float16    # little more than a third
"""

import argparse
import json
import shutil
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "examples"))
from support.command import begin, example_parser, local_path


def arguments() -> argparse.Namespace:
    parser = example_parser(__doc__)
    parser.add_argument("model", type=local_path, help="a .keras file")
    parser.add_argument("folder", type=local_path, help="to write")
    parser.add_argument("--float16", action="store_true", help="halve the weights' precision")
    return parser.parse_args()


if __name__ == "__main__":
    begin(arguments)  # before the imports that take seconds

import h5py
import keras
import numpy as np

from keras_vqvae import VideoPredictor

BESIDE = ("metrics.json", "actions.json", "contexts.npz")
SIGNIFICANT = 9  # bits; the two more that float16 has make files larger by a seventh
SMALL = 4096  # numbers; what is compressed has a header


def rounded(x: np.ndarray) -> np.ndarray:
    """As float16 of so many significant bits."""
    mantissa, exponent = np.frexp(x)
    return np.ldexp(np.round(mantissa * 2**SIGNIFICANT), exponent - SIGNIFICANT).astype("float16")


def halve(path: Path) -> None:
    """Rewrites a weights file, float32 as float16, compressed: of exponents there are few."""
    halved = path.with_name(f"halved_{path.name}")
    # Not "latest", which an older HDF5 than the writer's cannot read.
    with h5py.File(path) as old, h5py.File(halved, "w", libver=("v110", "v110")) as new:
        new.attrs.update(old.attrs)

        def copy(name: str, item: h5py.HLObject) -> None:
            if isinstance(item, h5py.Dataset):
                data = item[()]
                data = rounded(data) if data.dtype == "float32" else data
                options: dict = {}
                if data.size > SMALL:
                    options = {"compression": "gzip", "shuffle": True, "chunks": data.shape}
                new.create_dataset(name, data=data, **options)
            else:
                new.require_group(name)
            new[name].attrs.update(item.attrs)

        old.visititems(copy)
    halved.replace(path)


def main() -> None:
    args = arguments()
    model = keras.models.load_model(args.model, compile=False)  # without the optimizer
    args.folder.mkdir(parents=True, exist_ok=True)
    config = keras.saving.serialize_keras_object(model)
    config.pop("compile_config", None)  # a zoo's models are trained
    (args.folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    path = args.folder / "model.weights.h5"
    model.save_weights(path)
    if args.float16:
        halve(path)
    for name in BESIDE if isinstance(model, VideoPredictor) else BESIDE[:1]:
        if (beside := args.model.with_name(name)).exists():
            shutil.copyfile(beside, args.folder / name)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
