"""Callbacks write what they say, for the right epoch."""

from pathlib import Path

import keras
import numpy as np
import pytest

pytestmark = pytest.mark.tensorflow

if keras.backend.backend() != "tensorflow":  # the JAX run deselects this file by the mark
    pytest.skip("callbacks need TensorFlow", allow_module_level=True)

import tensorflow as tf  # noqa: E402
from tensorboard.backend.event_processing.event_accumulator import (  # noqa: E402
    EventAccumulator,
)

from keras_vqvae import ImageVQVAE  # noqa: E402
from keras_vqvae.callbacks import CodebookHistogram, ReconstructionPictures  # noqa: E402


def pictures(n: int) -> np.ndarray:
    return np.random.default_rng(n).integers(0, 256, (n, 16, 16, 3)).astype("uint8")


def fit(folder: Path, *, validate: bool, every: int = 1) -> ImageVQVAE:
    vqvae = ImageVQVAE((16, 16, 3), 10, 4, hidden=8)
    vqvae.compile("adam")
    shown = pictures(5)
    vqvae.fit(
        pictures(20),
        batch_size=8,
        epochs=2,
        verbose=0,
        validation_data=pictures(3) if validate else None,
        callbacks=[ReconstructionPictures(shown, folder, every), CodebookHistogram(folder, every)],
    )
    return vqvae


def test_pictures_show_originals_above_reconstructions(tmp_path: Path) -> None:
    vqvae = fit(tmp_path, validate=False)
    png = tf.io.decode_png((tmp_path / "reconstructions_0002.png").read_bytes()).numpy()
    shown = pictures(5)
    expected = [np.concatenate(list(x), 1) for x in (shown, vqvae.reconstruct(shown))]
    np.testing.assert_array_equal(png, np.concatenate(expected, 0))


@pytest.mark.parametrize("validate", [True, False])
def test_histogram_counts_the_training_epoch(tmp_path: Path, validate: bool) -> None:
    fit(tmp_path, validate=validate)
    counts = []
    for file in tmp_path.glob("events*"):
        events = EventAccumulator(str(file))
        events.Reload()
        for tag in events.Tags()["tensors"]:
            if tag == "code_counts":
                counts += [tf.make_ndarray(e.tensor_proto) for e in events.Tensors(tag)]
    # buckets of (from, to, how many codes); together all codes, and none above all positions
    assert len(counts) == 2
    for histogram in counts:
        assert histogram[:, 2].sum() == 10
        # TensorBoard keeps buckets, not counts: their middles add up to the epoch's 20 pictures of
        # 16 positions within a bucket's width; validation's 3 pictures have 48.
        middles = (histogram[:, 0] + histogram[:, 1]) / 2 * histogram[:, 2]
        width = histogram[0, 1] - histogram[0, 0]
        assert abs(middles.sum() - 20 * 16) <= 10 * width / 2 + 1e-3


def test_every(tmp_path: Path) -> None:
    fit(tmp_path, validate=False, every=2)
    assert sorted(p.name for p in tmp_path.glob("*.png")) == [
        "codebook_0002.png",
        "reconstructions_0002.png",
    ]


def test_bad_arguments(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="every must be at least 1"):
        CodebookHistogram(tmp_path, every=0)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ValueError, match="cannot write to"):
        fit(tmp_path / "file" / "logs", validate=False)
    other = keras.Sequential([keras.layers.Dense(1)])
    other.compile("sgd", "mse")
    with pytest.raises(ValueError, match="shows a VQVAE"):
        other.fit(
            np.ones((4, 2)), np.ones((4, 1)), verbose=0, callbacks=[CodebookHistogram(tmp_path)]
        )
