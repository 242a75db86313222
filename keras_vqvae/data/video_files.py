"""The frames of a video file, all of them, and the table of actions beside it."""

from __future__ import annotations

import csv
import io
import os
import pathlib
import re
import struct
from typing import IO, Any

import numpy as np

from keras_vqvae.data.extras import import_extra
from keras_vqvae.paths import shown

SUFFIXES = (".mp4", ".m4v", ".avi", ".mkv", ".mov", ".webm")

_CUT_OFF = "it was cut off: it ends within"


def read_frames(file: pathlib.Path, image_size: tuple[int, int] | None) -> np.ndarray:
    """Returns the frames of a video, uint8 `(n, height, width, 3)`, upright.

    ffmpeg gives what there is of a file that was cut off and says so in its log at most. So packets
    that are not whole are refused, and `check_whole` looks at the file's own structure.

    Raises:
        ValueError: the file cannot be decoded to its end; the message names it.
        ImportError: PyAV is not installed.
    """
    av = import_extra("av", "Videos", "video")
    pictures: list[np.ndarray] = []
    try:
        with file.open("rb") as content:
            check_whole(content)
            content.seek(0)
            # A stream and no name, because names need not be UTF-8.
            with av.open(content) as container:
                # Or frames whose bytes are damaged are left out or shown as they come out.
                for stream in container.streams.video:
                    stream.codec_context.options = {"err_detect": "explode"}
                for packet in container.demux(video=0):
                    if packet.is_corrupt:
                        raise ValueError(f"{_CUT_OFF} frame {len(pictures)}")
                    pictures += [_upright(picture, image_size) for picture in packet.decode()]
        if not pictures:
            raise ValueError("it has no frame")
        return np.stack(pictures)
    except Exception as error:  # decoders raise what they like
        raise ValueError(f"{shown(file)} cannot be read as a video: {error}") from error


def _upright(picture: Any, image_size: tuple[int, int] | None) -> np.ndarray:
    """The pixels of a frame of a video, as players show it: telephones film sideways."""
    turns = round(picture.rotation / 90) % 4
    height, width = image_size or (None, None)
    if turns % 2:
        height, width = width, height
    # Averaged over the pixels that a smaller one covers.
    pixels = picture.to_ndarray(format="rgb24", width=width, height=height, interpolation="AREA")
    return np.ascontiguousarray(np.rot90(pixels, turns))


# Whether a file is whole. Sizes that were never filled in, such as a pipe's, say nothing.


def check_whole(content: IO[bytes]) -> None:
    """Raises `ValueError` if an MP4, MOV, AVI, Matroska or WebM file ends within one of its parts.

    Files of other kinds are not checked, nor is what follows behind the end, such as zeros.
    """
    size = content.seek(0, os.SEEK_END)
    content.seek(0)
    begin = content.read(12)
    if begin[:4] == b"\x1aE\xdf\xa3":
        _check_matroska(content, size)
    elif begin[:4] == b"RIFF" and begin[8:] == b"AVI ":
        _check_avi(content, size)
    elif begin[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"styp"):
        _check_mp4(content, size)


def _check_mp4(content: IO[bytes], size: int) -> None:
    at = 0
    seen = set()
    while at < size:
        content.seek(at)
        header = content.read(16)
        if not header.strip(b"\0"):
            return
        if len(header) < 8:
            raise ValueError(f"{_CUT_OFF} the header of a box")
        length, kind = struct.unpack_from(">I4s", header)
        if length == 1 and len(header) == 16:
            (length,) = struct.unpack_from(">Q", header, 8)
        if length < 8:  # 0: it goes on to the end; anything else is no box
            return
        if at + length > size and kind in (b"moov", b"moof", b"mdat"):  # cameras append other data
            raise ValueError(f"{_CUT_OFF} its box {kind.decode()}")
        if kind in (b"ftyp", b"moov") and kind in seen:
            raise ValueError("files were joined, of which ffmpeg reads the first. Split them again")
        seen.add(kind)
        at += length


def _check_avi(content: IO[bytes], size: int) -> None:
    at = 12
    endless = False
    while at < size:
        content.seek(at)
        header = content.read(12)
        if not header.strip(b"\0"):
            return
        kind, length, form = struct.unpack("<4sI4s", header.ljust(12, b"\0"))
        unknown = length == 0 or length >= 2**30  # left so by who could not go back, as into a pipe
        if form == b"movi" and unknown:
            endless = True
        elif (form == b"movi" or endless) and at + 8 + length > size:
            raise ValueError(f"{_CUT_OFF} its frames")
        # Beyond 1 GB further RIFF chunks follow, which hold lists as the first does.
        inside = kind == b"RIFF" or (endless and kind == b"LIST")
        at += 12 if inside else 8 + length + length % 2


def _check_matroska(content: IO[bytes], size: int) -> None:
    segment, cluster = 0x18538067, 0x1F43B675
    at = 0
    while at < size:
        content.seek(at)
        header = content.read(12)
        in_name = 9 - header[0].bit_length()  # bytes of the name, then of the length
        if in_name > 4:  # no element
            return
        in_length = 9 - header[in_name].bit_length() if in_name < len(header) else 9
        begin = in_name + in_length
        if begin > len(header):
            raise ValueError(f"{_CUT_OFF} the header of an element")
        name = int.from_bytes(header[:in_name], "big")
        most = 1 << 7 * in_length
        length = int.from_bytes(header[in_name:begin], "big") - most
        if length == most - 1:  # unknown: it was written to a pipe, or the recorder was stopped
            if name not in (segment, cluster):
                return
            at += begin
            continue
        if at + begin + length > size:
            raise ValueError(f"{_CUT_OFF} an element (0x{name:X}) of {length} bytes")
        if name == segment:
            return
        at += begin + length


# Tables.

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_WHOLE = re.compile(r"[+-]?\d+", re.ASCII)


def read_actions(table: pathlib.Path) -> np.ndarray:
    """Returns the actions in a CSV file: a heading, and a line of numbers for each frame.

    Returns:
        int32 `(n,)` or `(n, any)` where all numbers are whole, else float32 `(n, any)`.

    Raises:
        ValueError: a line has another number of fields than the heading or a field that is no
            number, the heading has a name twice or none for an index, or there is no line. The
            message names the file and the line.
    """
    where = shown(table)
    try:
        text = table.read_bytes().decode("utf-8-sig")
        reader = csv.reader(io.StringIO(text.rstrip(), newline=""), strict=True)
        lines = [(reader.line_num, [cell.strip() for cell in row]) for row in reader]
    except (OSError, ValueError, csv.Error) as error:
        raise ValueError(f"{where} must be a table in UTF-8: {error}") from error
    if len(lines) < 2:
        raise ValueError(f"{where} must have a heading and equally many numbers in each line.")
    (_, heading), *lines = lines
    _check_heading(where, heading)
    for number, row in lines:
        wrong = [cell for cell in row if not _NUMBER.fullmatch(cell)]
        if len(row) != len(heading):
            raise ValueError(
                f"{where} must have as many fields in each line as names in its heading, "
                f"{len(heading)}, got {len(row)} in line {number}: {','.join(row)!r}. Separate "
                "fields by commas, and write 0.5 for a half."
            )
        if wrong:
            raise ValueError(
                f"{where} must have a number in each field, got {wrong[0]!r} in line {number}."
            )
    rows = [row for _, row in lines]
    is_whole = all(_WHOLE.fullmatch(cell) for row in rows for cell in row)
    values = np.array([[(int if is_whole else float)(cell) for cell in row] for row in rows])
    _check_range(where, values, is_whole)
    _check_index(where, heading, values)
    values = values.astype("int32" if is_whole else "float32")
    return values[:, 0] if values.shape[1] == 1 and is_whole else values


def _check_heading(where: str, heading: list[str]) -> None:
    if not heading or any(_NUMBER.fullmatch(name) for name in heading):
        raise ValueError(f"{where} must have a heading, its first line is {','.join(heading)}")
    unnamed = [name for name in heading if not name or re.fullmatch(r"Unnamed: \d+", name)]
    if unnamed and len(heading) > 1:
        raise ValueError(
            f"{where} must have a name for each column in line 1, got {','.join(heading)!r}. Leave "
            "an index out, as pandas does with `to_csv(index=False)`."
        )
    if len(set(heading)) < len(heading):
        raise ValueError(f"{where} must have different names in line 1, got {','.join(heading)!r}.")


def _check_index(where: str, heading: list[str], values: np.ndarray) -> None:
    """Refuses a first column that counts the lines, which would be taken for a part of actions."""
    n = len(values)
    counts = [np.arange(first, first + n) for first in (0, 1)]
    if values.shape[1] > 1 and n > 3 and any((values[:, 0] == count).all() for count in counts):
        raise ValueError(
            f"{where} must hold actions only, but its column {heading[0]!r} counts the lines. "
            "Leave that column out."
        )


def _check_range(where: str, values: np.ndarray, is_whole: bool) -> None:
    low, high = values.min(), values.max()
    most = 2**31 - 1 if is_whole else np.finfo("float32").max
    if max(-low, high) > most:
        raise ValueError(
            f"{where} holds too large values: numbers must be of 32 bits, got values from {low} to "
            f"{high}."
        )
