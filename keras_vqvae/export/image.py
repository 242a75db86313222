"""Endpoints of a VQ-VAE of pictures or video."""

import keras
import tensorflow as tf

from keras_vqvae.export.checks import asserted, checked_codes, checked_shape, with_checks
from keras_vqvae.models.video_vqvae import VideoVQVAE
from keras_vqvae.models.vqvae import VQVAE


def add_endpoints(archive: keras.export.ExportArchive, vqvae: VQVAE) -> None:
    """Adds `reconstruct`, `encode` and `decode`, of `images`, or of the `frames` of video."""
    is_video = isinstance(vqvae, VideoVQVAE)
    name = "frames" if is_video else "images"
    image = vqvae.image_shape or ()  # built as it is
    shape = (None, *image) if is_video else image

    def checked(x: tf.Tensor) -> tf.Tensor:
        x = checked_shape(name, x, shape)
        if is_video:
            x = with_checks(x, [_whole(name, tf.shape(x)[1], vqvae.frames_per_code)])
        return x

    def encode(x: tf.Tensor) -> dict:
        return {"codes": vqvae.encode(checked(x))}

    def decode(codes: tf.Tensor) -> dict:
        codes = checked_codes(codes, vqvae)
        if is_video:
            codes = with_checks(codes, [_whole("codes", tf.shape(codes)[1], 1)])
        return {name: vqvae.decode(codes)}

    def reconstruct(x: tf.Tensor) -> dict:
        codes = vqvae.encode(checked(x))
        return {name: vqvae.decode(codes), "codes": codes}

    # Sides are left open so that a wrong one reaches the check and its message.
    data = tf.TensorSpec((None,) * (1 + len(shape)), tf.uint8, name)
    codes = tf.TensorSpec((None,) * (1 + len(vqvae.grid_shape)), tf.int32, "codes")
    archive.add_endpoint("reconstruct", reconstruct, [data])  # the first is serving_default
    archive.add_endpoint("encode", encode, [data])
    archive.add_endpoint("decode", decode, [codes])


def _whole(name: str, count: tf.Tensor, unit: int) -> object:
    message = f"{name} must be a positive multiple of {unit} in time, got"
    return asserted((count > 0) & (count % unit == 0), message, count)
