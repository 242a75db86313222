"""Compares what the header of a sound file says with the bytes that follow it.

libsndfile believes headers: it reads the first of several joined files, and what is left of a file
that was cut off, without an error.
"""

from __future__ import annotations

import io
import pathlib
import re
import struct
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

from keras_vqvae.data.extras import import_extra

# WAV in little-endian, in big-endian, and with sizes of 64 bits (RF64 was called BW64 later).
_LONG_WAV = (b"RF64", b"BW64")
_WAV = (b"RIFF", b"RIFX", *_LONG_WAV)
_NO_SIZE = 0xFFFFFFFF  # RF64 has the size elsewhere; in other WAV files it is not known
# Some headers count eight bytes too many: those in front of the chunk.
MISCOUNTED = 8
# ID3v1 puts so many bytes behind a file, which are neither a chunk nor sound.
TAG = 128

_BEHIND = (
    "holds {} bytes behind its sound that are none of its chunks: its header says too little, or "
    "files were joined"
)

# An Ogg page has 27 bytes, up to 255 sizes of segments, and the segments.
_LONGEST_PAGE = 27 + 255 + 255 * 255
_LAST_PAGE = 4
# What an Ogg stream and a FLAC file begin with (RFC 3533, sec. 6; RFC 9639, sec. 8).
_BEGINNINGS = {"OGG": b"OggS\0\2", "FLAC": b"fLaC\0\0\0\x22"}


def readable(path: pathlib.Path) -> io.BytesIO | None:
    """Returns a copy that libsndfile reads whole if it would not read the file itself so.

    Raises:
        OSError: the file is shorter than its header says, or holds more than its chunks.
    """
    with path.open("rb") as stream:
        magic = stream.read(4)
        if magic in _WAV:
            return _readable_wav(path)
        if magic == b".snd" or magic in _LAYOUTS:
            return _readable_other(stream, magic, path.stat().st_size)
    return None


# AU, AIFF, CAF and W64.


class _Layout(NamedTuple):
    """How the chunks of a format are written.

    Attributes:
        start: where the first begins.
        head: its name and its size, for `struct`.
        sound: the name of the chunk of sound.
        counts_head: whether a chunk's size counts its head.
        align: chunks begin at multiples of this.
    """

    start: int
    head: str
    sound: bytes
    counts_head: bool
    align: int


_LAYOUTS = {
    b"FORM": _Layout(12, ">4sI", b"SSND", False, 2),  # AIFF
    b"caff": _Layout(8, ">4sq", b"data", False, 1),
    b"riff": _Layout(40, "<16sQ", b"data", True, 8),  # W64
}


def _readable_other(stream: BinaryIO, magic: bytes, length: int) -> io.BytesIO | None:
    if magic == b".snd":  # AU: where the sound begins, and its size
        start, size = struct.unpack(">II", stream.read(8))
        if is_unknown(size) and size != _NO_SIZE:
            return _patched(stream, 8, struct.pack(">I", _NO_SIZE))
        end = None if size == _NO_SIZE else start + size
    else:
        layout, end = _LAYOUTS[magic], None
        for name, place, size in _chunks_of(stream, layout, length):
            if name == layout.sound and end is None:
                if size == -1 and magic == b"caff":  # CAF's own sign for all the rest
                    return _patched(stream, place - 8, struct.pack(">q", length - place))
                if size < 0 or is_unknown(size):
                    return None
            elif end is None:
                continue
            elif not re.fullmatch(rb"[ -~]{4}", name) or name in (layout.sound, *_LAYOUTS):
                break
            if place + size > length:
                break
            end = place + size
    if end is not None:
        stream.seek(end)
        left = stream.read().strip(b"\0")
        if len(left) > TAG:
            raise OSError(_BEHIND.format(len(left)))
        if magic == b"riff" and end < length:  # libsndfile takes all that follows for sound
            stream.seek(0)
            return io.BytesIO(stream.read(end))
    return None


def _chunks_of(stream: BinaryIO, layout: _Layout, length: int) -> Iterator[tuple[bytes, int, int]]:
    """The name of each chunk, where its content begins, and the size that its header says."""
    at, head = layout.start, struct.calcsize(layout.head)
    while at + head <= length:
        stream.seek(at)
        name, size = struct.unpack(layout.head, stream.read(head))
        size -= head if layout.counts_head else 0
        yield name[:4], at + head, size
        if size < 0:
            return
        at += head + size
        at += -at % layout.align


def _patched(stream: BinaryIO, place: int, content: bytes) -> io.BytesIO:
    """A copy with other bytes at a place."""
    stream.seek(0)
    copy = io.BytesIO(stream.read())
    copy.seek(place)
    copy.write(content)
    copy.seek(0)
    return copy


# WAV.


def _readable_wav(wav: pathlib.Path) -> io.BytesIO | None:
    """Returns a copy that libsndfile reads whole if it would not read the file itself so.

    Recorders and pipes write the header before they know how long the sound becomes. libsndfile
    understands a size of 0xFFFFFFFF and the like, but not 0, nor unknown sizes of RF64.

    Raises:
        OSError: the file is shorter than its header says, or holds more than its chunks.
    """
    length = wav.stat().st_size
    with wav.open("rb") as stream:
        kind = stream.read(4)
        is_counted = int.from_bytes(stream.read(4), "little") == length - 8
        found = _sound_chunk(stream, length) if kind in _WAV else None
        if found is None:  # libsndfile says what is wrong
            return None
        place, size = found
        there = length - place
        is_miscounted = is_counted and size <= there + MISCOUNTED
        if size > there and not is_miscounted and not is_unknown(size):
            raise OSError(f"is cut off: its header says {size} bytes of sound, there are {there}")
        if size < there:
            starts = {place + size, place + size + size % 2}  # not all programs pad odd chunks
            end = max(_end_of_chunks(stream, start, length) for start in starts)
            stream.seek(end)
            left = stream.read().rstrip(b"\0")
            if size == 0 and end == place and left:
                return _of_unknown_length(stream, place)
            if len(left) > TAG:
                raise OSError(_BEHIND.format(len(left)))
        elif kind in _LONG_WAV and is_unknown(size):
            return _of_unknown_length(stream, place)
    return None


def is_plain(wav: pathlib.Path, frames: int) -> bool:
    """Whether tensorflow-io reads a WAV file right.

    It knows nothing of the byte that pads a chunk of odd length, and believes all sizes. A file
    with such a chunk gives no sample, without an error, or an error that does not name the file.

    Args:
        wav: the file.
        frames: how many samples of one channel libsndfile finds in it.
    """
    length = wav.stat().st_size
    with wav.open("rb") as stream:
        name, size, kind = struct.unpack("<4sI4s", stream.read(12))
        if (name, kind, size) != (b"RIFF", b"WAVE", length - 8):
            return False
        chunks: dict[bytes, int] = {}
        place, block = 12, 0
        for name, place, size in _chunks(stream, 12, length):
            if name in chunks or size % 2:
                return False
            chunks[name] = size
            if name == b"fmt ":
                block = struct.unpack("<12xH", stream.read(14))[0]
            place += size
    return place == length and b"fmt " in chunks and chunks.get(b"data") == frames * block


def _chunks(stream: BinaryIO, start: int, length: int) -> Iterator[tuple[bytes, int, int]]:
    """The name of each chunk, where its content begins, and the size that its header says."""
    stream.seek(0)
    order = ">" if stream.read(4) == b"RIFX" else "<"
    while start + 8 <= length:
        stream.seek(start)
        name, size = struct.unpack(f"{order}4sI", stream.read(8))
        yield name, start + 8, size
        start += 8 + size + size % 2


def _sound_chunk(stream: BinaryIO, length: int) -> tuple[int, int] | None:
    """Where the sound of a WAV file begins, and its size by the header; None if there is none."""
    long_size = _NO_SIZE
    for name, place, size in _chunks(stream, 12, length):
        if name == b"ds64":
            long_size = min(struct.unpack("<8xQ", stream.read(16))[0], 2**63 - 1)
        if name == b"data":
            return place, long_size if size == _NO_SIZE else size
    return None


def _end_of_chunks(stream: BinaryIO, start: int, length: int) -> int:
    """Where the row of chunks that begins at `start` ends, none of them of sound."""
    for name, place, size in _chunks(stream, start, length):
        is_chunk = re.fullmatch(rb"[ -~]{4}", name) and name not in (b"data", *_WAV)
        if not is_chunk or place + size > length:
            break
        start = min(place + size + size % 2, length)
    return start


def is_unknown(size: Any) -> Any:
    """Whether programs write such a size if they do not know it: 0, about 2 or 4 GiB, all ones.

    `size` is an integer or an int64 tensor.
    """
    near = [abs(size - unknown) <= 2**12 for unknown in (2**31, 2**32)]
    return (size == 0) | (size == 2**63 - 1) | near[0] | near[1]


def _of_unknown_length(stream: BinaryIO, place: int) -> io.BytesIO:
    """A copy in which both sizes are all ones, which libsndfile takes for the rest of the file."""
    stream.seek(0)
    content = bytearray(stream.read())
    if content[:4] in _LONG_WAV:
        content[:4] = b"RIFF"
    content[4:8] = content[place - 4 : place] = struct.pack("<I", _NO_SIZE)
    return io.BytesIO(content)


# Other formats.


def check_header(path: pathlib.Path, kind: str, log: str) -> None:
    """Whether a file of another format than WAV is as long as its header says.

    Args:
        path: the file.
        kind: libsndfile's name of the format.
        log: what libsndfile notes of the header.

    Raises:
        OSError: it is shorter.
    """
    if kind == "OGG":
        _check_last_page(path)
    # The names that libsndfile gives them in AIFF, W64, AU and CAF.
    names = r"^\s*(?:FORM|riff|Data Size|data)\s*"
    sizes = re.search(names + r": (\d+) \(should be (\d+)\)", log, re.MULTILINE)
    if sizes:
        size, there = map(int, sizes.groups())
        if size > there + 1 and not is_unknown(size):  # a byte may pad the end
            raise OSError(f"is cut off: its header says {size} bytes, there are {there}")


def _check_last_page(ogg: pathlib.Path) -> None:
    """libsndfile takes the length of an Ogg file from the last page that there is."""
    with ogg.open("rb") as stream:
        stream.seek(max(0, ogg.stat().st_size - 2 * _LONGEST_PAGE))
        end = stream.read()
    page = end[max(0, end.rfind(b"OggS\0")) :]
    sizes = page[27 : 27 + page[26]] if len(page) > 26 else b""
    if not sizes or len(sizes) < page[26] or len(page) < 27 + len(sizes) + sum(sizes):
        raise OSError("is cut off: its last page is not whole")
    if not page[5] & _LAST_PAGE:
        raise OSError(
            "is cut off: its last page is not marked as the last (if it is the last nevertheless, "
            "ffmpeg -i old.ogg -c copy new.ogg marks it)"
        )


def check_decoded(path: pathlib.Path, kind: str, samples: int, frames: int) -> None:
    """Whether all samples that a file holds were decoded.

    Args:
        path: the file.
        kind: libsndfile's name of the format.
        samples: of one channel, that libsndfile decoded.
        frames: samples of one channel that libsndfile expected.

    Raises:
        OSError: the file holds fewer than its header says, or more.
    """
    if kind == "MP3":
        held, frame, is_told = _packets(path)
        # Without a header libsndfile's number is a guess from the first frame's bit rate.
        if is_told and samples < frames - 4 * frame:
            raise OSError(f"is cut off: {samples} of {frames} samples")
        # The encoder's delay and the end of the last frame are no sound.
        if samples < held - 4 * frame:
            raise OSError(
                f"libsndfile reads {samples} of {held} samples: files were joined, or an MP3 file "
                "of variable bit rate does not say how long it is; "
                "ffmpeg -i old.mp3 -c copy new.mp3 mends both"
            )
    elif samples < frames:
        raise OSError(f"is cut off: {samples} of {frames} samples")
    elif kind in _BEGINNINGS and path.read_bytes().count(_BEGINNINGS[kind]) > 1:
        raise OSError("holds several streams, of which libsndfile reads only the first: split it")
    elif kind == "FLAC" and samples < (held := _packets(path)[0]):
        raise OSError(f"holds {held} samples, of which its header says {samples}")


def _packets(path: pathlib.Path) -> tuple[int, int, bool]:
    """What PyAV finds in an MP3 or FLAC file, without decoding it.

    Returns:
        `(held, frame, is_told)`: the samples of one channel in all packets, those in the longest
        packet, and whether an MP3 file says how many there are.
    """
    av = import_extra("av", "Sound files")
    with av.open(path) as container, path.open("rb") as content:
        stream = container.streams.audio[0]
        packets = [(packet.pos, packet.duration or 0) for packet in container.demux(stream)]
        unit = stream.time_base * stream.rate
        # The header is in a frame of its own, of up to 1,441 bytes, which PyAV leaves out.
        first = packets[0][0]
        content.seek(max(0, first - 1441))
        header = content.read(first - content.tell())
    durations = [duration for _, duration in packets]
    is_told = b"Xing" in header or b"Info" in header
    return int(sum(durations) * unit), int(max(durations) * unit), is_told
