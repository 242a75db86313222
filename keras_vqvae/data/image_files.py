"""What an image file is, and its pixels.

TensorFlow decodes JPEG and PNG. Pillow decodes BMP, GIF and WebP: TensorFlow takes the indices of a
BMP palette for gray levels, GIF files that were cut off for whole ones, and no WebP.
"""

from __future__ import annotations

import dataclasses
import io
import pathlib
import re
import struct
from typing import Any

import numpy as np
import tensorflow as tf

from keras_vqvae.data.extras import import_extra

SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".gif", ".webp")

_JPEG, _PNG = b"\xff\xd8", b"\x89P"
_PILLOW = (b"BM", b"GI", b"RI")  # BMP, GIF, and the RIFF of WebP
# Pillow refuses as many: a small file may ask for more memory than there is.
_MOST_PIXELS = 178_956_970


@dataclasses.dataclass(frozen=True)
class ImageFile:
    """What is known of a file once it has been decoded.

    Attributes:
        problem: why it cannot be used; None if it can.
        orientation: of EXIF, 1 (upright) to 8, where `decode` does not turn the image by itself.
        needs_pillow: whether Pillow decodes it.
        brightest: the greatest value of a PNG file of 16 bits, else None.
    """

    problem: str | None = None
    orientation: int = 1
    needs_pillow: bool = False
    brightest: int | None = None


def inspect(file: pathlib.Path) -> ImageFile:
    """Decodes a file once, on the CPU.

    Raises:
        ImportError: Pillow is needed and is not installed.
    """
    try:
        data = file.read_bytes()
        found = _inspect(data)
        with tf.device("CPU"):
            pixels = tf.size(decode(tf.constant(data), found.needs_pillow))
    except ImportError:
        raise
    except Exception as error:  # decoders raise what they like
        text = str(getattr(error, "message", error)) or repr(error)
        return ImageFile(re.sub(r"^{{.*?}} | \[Op:.*", "", text).split("\n")[0][:200])
    return found if pixels > 0 else ImageFile("it has no pixels")


def _inspect(data: bytes) -> ImageFile:
    kind = data[:2]
    if kind in _PILLOW:
        return ImageFile(needs_pillow=True)
    if kind == _JPEG:
        height, width, _ = tf.io.extract_jpeg_shape(data).numpy()
        _check_size(int(width), int(height))
        return ImageFile(orientation=_orientation(_exif_of_jpeg(data)))
    if kind == _PNG and len(data) > 25:
        _check_size(*struct.unpack_from(">II", data, 16))
        brightest = None
        if data[24] == 16:
            brightest = int(tf.reduce_max(tf.io.decode_png(data, dtype=tf.uint16)))
        return ImageFile(orientation=_orientation(_exif_of_png(data)), brightest=brightest)
    raise ValueError(f"it is no JPEG, PNG, BMP, GIF or WebP file: it begins with {data[:12]!r}")


def _check_size(width: int, height: int) -> None:
    if width * height > _MOST_PIXELS:
        raise ValueError(f"it has {width} x {height} pixels, more than {_MOST_PIXELS}")


def decode(data: tf.Tensor, with_pillow: bool) -> tf.Tensor:
    """Returns the pixels of an encoded image, uint8 `(height, width, 3)`; runs in a graph.

    Args:
        data: the bytes, a scalar string.
        with_pillow: whether Pillow may be needed. If not, the graph holds no Python.
    """

    def by_tensorflow() -> tf.Tensor:
        # Asked for RGB, the decoders also resolve palettes, CMYK and 16 bits, and drop alpha.
        return tf.io.decode_image(data, channels=3, expand_animations=False)

    if not with_pillow:
        return tf.ensure_shape(by_tensorflow(), (None, None, 3))
    image = tf.cond(
        tf.reduce_any(tf.strings.substr(data, 0, 2) == [_JPEG, _PNG]),
        by_tensorflow,
        lambda: tf.numpy_function(_decode_with_pillow, [data], tf.uint8, stateful=False),
    )
    return tf.ensure_shape(image, (None, None, 3))


def _decode_with_pillow(data: bytes | np.ndarray) -> np.ndarray:
    pillow: Any = import_extra("PIL.Image", "BMP, GIF and WebP files", "examples")
    ops: Any = import_extra("PIL.ImageOps", "BMP, GIF and WebP files", "examples")
    content = np.asarray(data, object).item()  # bytes in graphs, an array of them eagerly
    with pillow.open(io.BytesIO(content)) as image:
        return np.asarray(ops.exif_transpose(image).convert("RGB"))


def upright(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Turns and mirrors an image as the EXIF orientation of its file says."""
    image = tf.cond(orientation > 4, lambda: tf.transpose(image, (1, 0, 2)), lambda: image)
    mirrored = tf.reduce_any(orientation == [2, 3, 6, 7])
    image = tf.cond(mirrored, lambda: image[:, ::-1], lambda: image)
    flipped = tf.reduce_any(orientation == [3, 4, 7, 8])
    return tf.cond(flipped, lambda: image[::-1], lambda: image)


# EXIF.


def _exif_of_jpeg(data: bytes) -> bytes:
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:  # the pixels begin
        (length,) = struct.unpack_from(">H", data, at + 2)
        if data[at + 1] == 0xE1 and data[at + 4 : at + 10] == b"Exif\0\0":
            return data[at + 10 : at + 2 + length]
        at += 2 + length
    return b""


def _exif_of_png(data: bytes) -> bytes:
    at = 8
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind == b"eXIf":
            return data[at + 8 : at + 8 + length]
        at += 12 + length
    return b""


def _orientation(exif: bytes) -> int:
    """Returns the orientation that EXIF data tells, 1 if it tells none or is damaged."""
    order = {b"II": "<", b"MM": ">"}.get(exif[:2], "<")
    try:
        (at,) = struct.unpack_from(f"{order}I", exif, 4)
        (count,) = struct.unpack_from(f"{order}H", exif, at)
        fields = [
            struct.unpack_from(f"{order}H6xH", exif, at + 2 + 12 * number)
            for number in range(count)
        ]
    except struct.error:
        return 1
    value = dict(fields).get(0x0112, 1)
    return value if 1 <= value <= 8 else 1
