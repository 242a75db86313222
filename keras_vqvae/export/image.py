"""Endpoints of a VQ-VAE of pictures."""

import keras
import tensorflow as tf

from keras_vqvae.export.checks import checked_codes, checked_shape
from keras_vqvae.models.vqvae import VQVAE


def add_endpoints(archive: keras.export.ExportArchive, vqvae: VQVAE) -> None:
    """Adds `reconstruct`, `encode` and `decode`."""

    def encode(images: tf.Tensor) -> dict:
        return {"codes": vqvae.encode(checked_shape("images", images, vqvae.image_shape))}

    def decode(codes: tf.Tensor) -> dict:
        return {"images": vqvae.decode(checked_codes(codes, vqvae))}

    def reconstruct(images: tf.Tensor) -> dict:
        codes = vqvae.encode(checked_shape("images", images, vqvae.image_shape))
        return {"images": vqvae.decode(codes), "codes": codes}

    # Sides are left open so that a wrong one reaches the check and its message.
    images = tf.TensorSpec((None, None, None, None), tf.uint8, "images")
    codes = tf.TensorSpec((None,) * (1 + len(vqvae.grid_shape)), tf.int32, "codes")
    archive.add_endpoint("reconstruct", reconstruct, [images])  # the first is serving_default
    archive.add_endpoint("encode", encode, [images])
    archive.add_endpoint("decode", decode, [codes])
