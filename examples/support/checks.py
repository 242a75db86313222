"""The check that an exported model answers the same numbers without this package."""

import subprocess
import sys
from pathlib import Path

import numpy as np

from keras_vqvae import AudioVQVAE, ImageVQVAE, PixelCNN, WaveNet

# Of no use for a test, and wanted by endpoints: all of the distribution.
WHOLE = {"top_k": np.int32(2**30), "top_p": np.float32(1.0), "temperature": np.float32(1.0)}
DRAWING = {"seed": np.int32(0), **WHOLE}


def check_without_package(
    vqvae: ImageVQVAE, savedmodel: Path, images: np.ndarray, prior: PixelCNN | None = None
) -> None:
    """Reloads `savedmodel` in a process that cannot import keras_vqvae and compares answers.

    Raises:
        subprocess.CalledProcessError: an answer differs; the process has printed which.
    """
    codes = vqvae.encode(images)
    made = vqvae.decode(codes)
    given = {"images": images, "codes": codes}
    expected = {"encode codes": codes, "reconstruct images": made, "decode images": made}
    if prior is not None:
        given |= {"number": np.int32(8), **DRAWING}
        expected["sample codes"] = prior.sample(8, seed=0)
        expected["log_prob log_prob"] = prior.log_prob(codes)
    _ask(savedmodel, given, expected, 0.0)


def check_sound_without_package(
    vqvae: AudioVQVAE,
    savedmodel: Path,
    waveforms: np.ndarray,
    speakers: np.ndarray,
    prior: WaveNet | None = None,
) -> None:
    """The same for sound. Near-ties of one in a hundred values may fall the other way.

    Args:
        vqvae: the model that was exported.
        savedmodel: the folder.
        waveforms: float32 `(n, samples)`, whole codes.
        speakers: in whose voices to answer, int32 `(n,)`.
        prior: the prior that was exported with it.

    Raises:
        subprocess.CalledProcessError: an answer differs; the process has printed which.
    """
    codes = vqvae.encode(waveforms)
    options = {"jit_compile": False} if vqvae.is_autoregressive else {}
    sound = vqvae.decode(codes, speakers, verbose=0, **options)
    given = {"waveform": waveforms, "codes": codes, "speaker": speakers, **DRAWING}
    expected = {"encode codes": codes, "reconstruct codes": codes}
    expected |= {f"{name} waveform": sound for name in ("reconstruct", "convert", "decode")}
    if prior is not None:
        length = min(16, codes.shape[1])
        condition = np.arange(2, dtype="int32") % vqvae.num_speakers
        expected["sample codes"] = prior.sample(2, condition, seed=0, length=length, verbose=0)
        given |= {"number": np.int32(2), "length": np.int32(length), "condition": condition}
        given["top_k"] = np.int32(vqvae.num_codes)
    _ask(savedmodel, given, expected, 0.01)


def _ask(savedmodel: Path, given: dict, expected: dict, share: float) -> None:
    path = savedmodel.parent / "expected.npz"
    np.savez(path, **{f"in {name}": value for name, value in given.items()}, **expected)
    script = Path(__file__).with_name("check_savedmodel.py")
    subprocess.run([sys.executable, script, savedmodel, path, str(share)], check=True)
