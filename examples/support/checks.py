"""The check that an exported model answers the same numbers without this package."""

import subprocess
import sys
from pathlib import Path

import numpy as np

from keras_vqvae import ImageVQVAE, PixelCNN


def check_without_package(
    vqvae: ImageVQVAE, savedmodel: Path, images: np.ndarray, prior: PixelCNN | None = None
) -> None:
    """Reloads `savedmodel` in a process that cannot import keras_vqvae and compares answers.

    Raises:
        subprocess.CalledProcessError: an answer differs; the process has printed which.
    """
    expected = savedmodel.parent / "expected.npz"
    codes = vqvae.encode(images)
    answers = {"codes": codes, "reconstructions": vqvae.decode(codes)}
    if prior is not None:
        answers |= {"samples": prior.sample(8, seed=0), "log_probs": prior.log_prob(codes)}
    np.savez(expected, images=images, **answers)
    script = Path(__file__).with_name("check_savedmodel.py")
    subprocess.run([sys.executable, script, savedmodel, expected], check=True)
