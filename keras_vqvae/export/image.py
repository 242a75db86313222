"""Endpoints of a VQ-VAE of pictures or video."""

from typing import Any

import numpy as np
import tensorflow as tf

from keras_vqvae.export.checks import whole_steps
from keras_vqvae.export.endpoints import Endpoints
from keras_vqvae.export.fields import BATCH, Field
from keras_vqvae.models.video_vqvae import VideoVQVAE
from keras_vqvae.models.vqvae import VQVAE


def fields(vqvae: VQVAE) -> tuple[Field, Field]:
    """What is encoded, `images` or the `frames` of video, and its codes."""
    image = vqvae.image_shape or ()  # built as it is
    grid, codes = vqvae.grid_shape, ("int32", "codes", 0, vqvae.num_codes - 1)
    grey = "grey levels" if image[-1:] == (1,) else "levels of each channel"
    if not isinstance(vqvae, VideoVQVAE):
        data = Field("images", (BATCH, *image), "uint8", f"pictures, {grey}", 0, 255)
        return data, Field("codes", (BATCH, *grid), *codes)
    each = vqvae.frames_per_code
    meaning = f"frames of video, {grey}; their number a multiple of {each}"
    data = Field("frames", (BATCH, "time", *image), "uint8", meaning, 0, 255)
    return data, Field("codes", (BATCH, f"time / {each}", *grid[1:]), *codes)


def example_of(vqvae: VQVAE) -> np.ndarray:
    """Two pictures, or videos, of noise."""
    image = vqvae.image_shape or ()
    time = (2 * vqvae.frames_per_code,) if isinstance(vqvae, VideoVQVAE) else ()
    return np.random.default_rng(0).integers(0, 256, (2, *time, *image), dtype="uint8")


def check_example(vqvae: VQVAE, x: np.ndarray) -> None:
    """Raises `ValueError` where `x` is not what `encode` takes."""
    vqvae.check_data(x)


def add_endpoints(endpoints: Endpoints, vqvae: VQVAE, example: np.ndarray) -> dict[str, Any]:
    """Adds `reconstruct`, `encode` and `decode`, of `images`, or of the `frames` of video.

    Args:
        example: some of these, as the model takes them.

    Returns:
        them and their codes, by name.
    """
    data, codes = fields(vqvae)
    is_video = isinstance(vqvae, VideoVQVAE)

    def whole(x: tf.Tensor) -> tf.Tensor:
        return whole_steps(data.name, x, vqvae.frames_per_code) if is_video else x

    def encode(x: tf.Tensor) -> dict:
        return {"codes": vqvae.encode(whole(x))}

    def decode(codes: tf.Tensor) -> dict:
        if is_video:
            codes = whole_steps("codes", codes, 1)
        return {data.name: vqvae.decode(codes)}

    def reconstruct(x: tf.Tensor) -> dict:
        codes = vqvae.encode(whole(x))
        return {data.name: vqvae.decode(codes), "codes": codes}

    made = {data.name: example, "codes": vqvae.encode(tf.constant(example))}
    endpoints.add("reconstruct", reconstruct, [data], [data, codes], made)
    endpoints.add("encode", encode, [data], [codes], made)
    endpoints.add("decode", decode, [codes], [data], made)
    return made
