"""The check that an exported model answers the same numbers without this package."""

import subprocess
import sys
from pathlib import Path

import numpy as np

from keras_vqvae import ImageVQVAE


def check_without_package(vqvae: ImageVQVAE, savedmodel: Path, images: np.ndarray) -> None:
    """Reloads `savedmodel` in a process that cannot import keras_vqvae and compares answers.

    Raises:
        subprocess.CalledProcessError: an answer differs; the process has printed which.
    """
    expected = savedmodel.parent / "expected.npz"
    codes = vqvae.encode(images)
    np.savez(expected, images=images, codes=codes, reconstructions=vqvae.decode(codes))
    script = Path(__file__).with_name("check_savedmodel.py")
    subprocess.run([sys.executable, script, savedmodel, expected], check=True)
