"""What libsndfile does not tell of WAV, Ogg and MP3 files, read from the files themselves."""

from __future__ import annotations

import pathlib
import struct

# Bits per second by the four bits of an MPEG header, in thousands: of MPEG-1, and of 2 and 2.5.
_BIT_RATES = (
    (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0),
    (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 0),
)
_MPEG_RATES = (44100, 48000, 32000)


# Of an Ogg page: 27 bytes, up to 255 sizes of segments, and the segments.
_LONGEST_PAGE = 27 + 255 + 255 * 255
_LAST_PAGE = 4


def check_whole_ogg(ogg: pathlib.Path) -> None:
    """libsndfile takes what there is of an Ogg file that was cut off, and its length for the whole.

    Raises:
        OSError: the last page is not whole, or not marked as the last (RFC 3533, sec. 6).
    """
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


def check_whole(wav: pathlib.Path) -> None:
    """libsndfile takes what there is of a WAV file that was cut off; other decoders may not.

    Raises:
        OSError: the file is shorter than its header says.
    """
    with wav.open("rb") as stream:
        name, size = struct.unpack("<4sI", stream.read(8))
    there = wav.stat().st_size - 8
    # Of a stream whose length was not known the size is 0 or all ones.
    if name == b"RIFF" and there + 1 < size < 0xFFFFFF00:  # some count a byte of padding
        raise OSError(f"is cut off: its header says {size} bytes, there are {there}")


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
        block = 0
        place = 12
        while place + 8 <= length:
            stream.seek(place)
            name, size = struct.unpack("<4sI", stream.read(8))
            if name in chunks or size % 2:
                return False
            chunks[name] = size
            if name == b"fmt ":
                block = struct.unpack("<12xH", stream.read(14))[0]
            place += 8 + size
    return place == length and b"fmt " in chunks and chunks.get(b"data") == frames * block


def mp3_samples(mp3: pathlib.Path) -> tuple[int, bool]:
    """How many samples the frames of an MP3 file (MPEG layer III) hold; 0 if none is found.

    libsndfile takes the number from a Xing header in the first frame. Where there is none it
    guesses from that frame's bit rate and the file's size, and reads no more than that.

    Returns:
        `(samples, is_told)`: samples of one channel, and whether there is such a header.
    """
    content = mp3.read_bytes()
    place = 0
    if content[:3] == b"ID3":  # its size has seven bits in a byte
        first, second, third, fourth = content[6:10]
        place = 10 + (first << 21 | second << 14 | third << 7 | fourth)
    samples, kind, is_told = 0, None, False
    while 0 <= (place := content.find(b"\xff", place)) <= len(content) - 4:
        header = int.from_bytes(content[place : place + 4], "big")
        size, count = _mpeg_frame(header)
        # All frames have the version, layer and sample rate of the first.
        if size == 0 or kind not in (None, header & 0xFFFE0C00):
            place += 1
            continue
        if kind is None:
            kind, frame = header & 0xFFFE0C00, content[place : place + size]
            is_told = b"Xing" in frame or b"Info" in frame
        samples += count
        place += size
    return samples, is_told


def _mpeg_frame(header: int) -> tuple[int, int]:
    """Bytes and samples of a frame of layer III, by its header; zeros where it is none."""
    version, layer = header >> 19 & 3, header >> 17 & 3  # 3 is MPEG-1, 2 is 2, 0 is 2.5
    rate_index = header >> 10 & 3
    if header >> 21 != 0x7FF or version == 1 or layer != 1 or rate_index == 3:
        return 0, 0
    bits = _BIT_RATES[version != 3][header >> 12 & 15] * 1000
    if bits == 0:
        return 0, 0
    samples = 1152 if version == 3 else 576
    rate = _MPEG_RATES[rate_index] >> {3: 0, 2: 1, 0: 2}[version]
    return samples // 8 * bits // rate + (header >> 9 & 1), samples
