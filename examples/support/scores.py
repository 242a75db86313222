"""Reconstruction quality, and two codecs to compare with."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image, ImageDraw, ImageFont

from keras_vqvae import ImageVQVAE


def psnr(originals: np.ndarray, pictures: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB, mean over pictures (uint8)."""
    return float(np.mean(tf.image.psnr(originals, pictures, 255)))


def ssim(originals: np.ndarray, pictures: np.ndarray) -> float:
    """Structural similarity, mean over pictures (uint8). Its window is 11, or a smaller side."""
    window = min(11, *originals.shape[1:3])
    return float(np.mean(tf.image.ssim(originals, pictures, 255, filter_size=window)))


def _per_picture(images: np.ndarray, fn) -> np.ndarray:
    squeeze = images.shape[-1] == 1  # Pillow wants grey pictures without a channel axis
    pictures = [fn(Image.fromarray(x[..., 0] if squeeze else x)) for x in images]
    return np.stack([np.asarray(p) for p in pictures]).reshape(images.shape)


def thumbnail(images: np.ndarray, num_bytes: float) -> tuple[np.ndarray, int]:
    """Images shrunk to `num_bytes` uncompressed bytes and enlarged again, both bicubic.

    Returns:
        the images, and the number of bytes of a thumbnail, at most `num_bytes` if that is enough
        for one pixel.
    """
    height, width, channels = images.shape[1:]
    rows = max(1, int((num_bytes / channels * height / width) ** 0.5))
    columns = max(1, int(num_bytes / channels / rows))

    def shrunk(image: Image.Image) -> Image.Image:
        small = image.resize((columns, rows), Image.Resampling.BICUBIC)
        return small.resize(image.size, Image.Resampling.BICUBIC)

    return _per_picture(images, shrunk), rows * columns * channels


def webp(images: np.ndarray, num_bytes: float) -> tuple[np.ndarray, float]:
    """Pictures through WebP at the best quality that fits `num_bytes` each.

    Returns:
        the pictures, and the mean number of bytes (a picture that does not fit at the lowest
        quality is taken at that).
    """
    sizes = []

    def through(picture: Image.Image) -> Image.Image:
        best = None
        low, high = 0, 100
        while low <= high:
            quality = (low + high) // 2
            buffer = io.BytesIO()
            picture.convert("RGB").save(buffer, "webp", quality=quality, method=6)
            if buffer.tell() <= num_bytes or best is None or quality == 0:
                best = buffer
            low, high = (quality + 1, high) if buffer.tell() <= num_bytes else (low, quality - 1)
        sizes.append(best.tell())
        return Image.open(best).convert(picture.mode)

    return _per_picture(images, through), float(np.mean(sizes))


def compare(vqvae: ImageVQVAE, originals: np.ndarray) -> tuple[dict, dict]:
    """PSNR and SSIM of a model, of a thumbnail and of WebP, the two of as many bytes as its codes.

    Returns:
        figures by codec, `bytes` an image among them, and images by codec.
    """
    num_bytes = float(np.prod(vqvae.image_shape) / vqvae.compression_ratio)
    coded = {
        "VQ-VAE": (vqvae.reconstruct(originals), num_bytes),
        "thumbnail": thumbnail(originals, num_bytes),
        "WebP": webp(originals, num_bytes),
    }
    figures = {
        codec: {"PSNR": psnr(originals, x), "SSIM": ssim(originals, x), "bytes": size}
        for codec, (x, size) in coded.items()
    }
    return figures, {codec: x for codec, (x, _) in coded.items()}


def evaluate(vqvae: ImageVQVAE, seen: np.ndarray, unseen: dict[str, np.ndarray], out: Path) -> dict:
    """Returns what report.py says of a VQ-VAE; writes the pictures that it shows into `out`.

    Args:
        vqvae: a trained model.
        seen: images that it was trained on.
        unseen: images that it was not trained on, by name of the set.
        out: the folder of the run.

    Returns:
        figures of unseen images beside those of two codecs, and how codes are used.
    """
    figures = {}
    for number, (name, originals) in enumerate(unseen.items()):
        figures[name], pictures = compare(vqvae, originals)
        np.savez(out / f"pictures_{number}.npz", images=originals, **pictures)
    sets = {"training images": seen, "unseen images": np.concatenate(list(unseen.values()))}
    return {
        "parameters": vqvae.count_params(),
        "image_shape": vqvae.image_shape,
        "grid_shape": vqvae.grid_shape,
        "num_codes": vqvae.num_codes,
        "compression_ratio": vqvae.compression_ratio,
        "bytes_per_picture": float(np.prod(vqvae.image_shape) / vqvae.compression_ratio),
        "unseen": figures,
        "codes": {name: vqvae.evaluate(x, return_dict=True, verbose=0) for name, x in sets.items()},
    }


def brightened(images: np.ndarray) -> np.ndarray:
    """Pictures with a gamma of 2, for display only."""
    return (np.sqrt(images / 255.0) * 255).round().astype("uint8")


def grid(rows: list[np.ndarray], zoom: int = 2) -> np.ndarray:
    """One picture of several rows of equally many pictures."""
    tiled = np.concatenate([np.concatenate(list(row), 1) for row in rows], 0)
    return tiled.repeat(zoom, 0).repeat(zoom, 1)


def labelled(rows: Sequence[tuple[str, np.ndarray]], zoom: int = 2) -> Image.Image:
    """Rows of images, uint8 `(n, height, width, channels)`, each below its label."""
    font = ImageFont.load_default(size=15)
    band = 22
    strips = []
    for label, images in rows:
        strip = np.concatenate(list(images), 1).repeat(zoom, 0).repeat(zoom, 1)
        strip = np.broadcast_to(strip, (*strip.shape[:2], 3))
        whole = Image.new("RGB", (strip.shape[1], strip.shape[0] + band), "white")
        whole.paste(Image.fromarray(np.ascontiguousarray(strip)), (0, band))
        ImageDraw.Draw(whole).text((2, 2), label, fill="#222222", font=font)
        strips.append(np.asarray(whole))
    return Image.fromarray(np.concatenate(strips))
