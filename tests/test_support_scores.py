"""Scores of images: the codecs that a model is compared with have as many bytes as its codes."""

import sys
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

pytestmark = pytest.mark.tensorflow

if keras.backend.backend() != "tensorflow":  # the JAX run deselects this file by the mark
    pytest.skip("the examples' support needs TensorFlow", allow_module_level=True)
pytest.importorskip("PIL")

from support import scores  # noqa: E402


@pytest.mark.parametrize("shape", [(64, 64, 3), (32, 96, 1)])
def test_codecs_have_no_more_bytes_than_the_codes(shape: tuple) -> None:
    """A thumbnail of a pixel a code would have 768 bytes where the codes have 288."""
    y, x, c = np.meshgrid(*map(np.arange, shape), indexing="ij")
    smooth = np.sin(y / 9 + c) * np.cos(x / 13)
    images = np.stack([127.5 * (1 + smooth), 100 * (1 + smooth)]).round().astype("uint8")
    ratio = np.prod(shape) / 288
    model = SimpleNamespace(
        image_shape=shape, compression_ratio=ratio, reconstruct=lambda images: images // 16 * 16
    )
    figures, made = scores.compare(model, images)
    assert list(figures) == list(made) == ["VQ-VAE", "thumbnail", "WebP"]
    assert figures["VQ-VAE"]["bytes"] == 288
    assert all(200 < figures[name]["bytes"] <= 288 for name in ("thumbnail", "VQ-VAE"))
    assert figures["WebP"]["bytes"] <= 288
    assert all(x.shape == images.shape and x.dtype == np.uint8 for x in made.values())
    assert 20 < figures["thumbnail"]["PSNR"] < 60


def test_a_thumbnail_has_a_pixel_at_least() -> None:
    images = np.full((1, 8, 8, 3), 7, "uint8")
    made, num_bytes = scores.thumbnail(images, 1.0)
    assert num_bytes == 3 and (made == 7).all()
