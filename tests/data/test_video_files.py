"""Video files that were cut off, and tables of actions that are none: refused, the file named."""

import io
import os
import warnings

import keras
import numpy as np
import pytest

if keras.backend.backend() != "tensorflow":
    pytest.skip("data is TensorFlow's", allow_module_level=True)

from keras_vqvae.data import video, video_files
from tests.inside import inside, replace

pytestmark = pytest.mark.tensorflow

FRAMES = 24
CONTAINERS = {  # name: container, codec, options, written to a pipe?
    "mkv": ("matroska", "mpeg4", {}, False),
    "mkv from a pipe": ("matroska", "mpeg4", {}, True),
    "webm": ("webm", "libvpx", {}, False),
    "avi": ("avi", "mpeg4", {}, False),
    "avi from a pipe": ("avi", "mpeg4", {}, True),
    "mp4 of fragments": ("mp4", "mpeg4", {"movflags": "frag_keyframe+empty_moov"}, False),
    "mp4 for the web": ("mp4", "mpeg4", {"movflags": "faststart"}, False),
    "mov": ("mov", "mjpeg", {}, False),
}


class Pipe:
    """Takes what is written, and cannot go back."""

    def __init__(self):
        self.content = b""

    def write(self, part):
        self.content += bytes(part)
        return len(part)


@pytest.fixture(scope="module")
def contents(tmp_path_factory):
    av = pytest.importorskip("av", reason="videos need PyAV")
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (FRAMES, 4, 4, 3), dtype="uint8").repeat(8, 1).repeat(8, 2)
    found = {}
    for name, (form, codec, options, is_pipe) in CONTAINERS.items():
        pipe, file = Pipe(), tmp_path_factory.mktemp("video") / "x"
        with av.open(pipe if is_pipe else str(file), "w", format=form, options=options) as out:
            stream = out.add_stream(codec, rate=10)
            stream.width = stream.height = 32
            stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
            stream.options = {"g": "5"}
            for picture in pictures:
                out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
            out.mux(stream.encode(None))
        found[name] = pipe.content if is_pipe else file.read_bytes()
    return found


@pytest.mark.parametrize("name", CONTAINERS)
def test_all_frames_or_an_error(name, contents, tmp_path):
    """ffmpeg gives what there is of a file that was cut off, half the frames without a word."""
    whole, file = contents[name], tmp_path / "x.mkv"
    for behind in (b"", bytes(5), bytes(300)):  # a pipe's file without any length is whole, too
        file.write_bytes(whole + behind)
        assert len(video_files.read_frames(file, None)) == FRAMES
    refused = 0
    for end in [*np.linspace(50, len(whole) - 1, 25).astype(int)]:
        file.write_bytes(whole[:end])
        try:
            assert len(video_files.read_frames(file, None)) == FRAMES, end  # its index is missing
        except ValueError as error:
            assert str(error).startswith(f"{file} cannot be read as a video: ")
            refused += 1
    assert refused >= 20


@pytest.mark.parametrize("name", CONTAINERS)
def test_joined_files_give_all_frames_or_an_error(name, contents, tmp_path):
    """ffmpeg gives the frames of the first, without a word."""
    file = tmp_path / "x.mp4"
    file.write_bytes(contents[name] * 2)
    try:
        assert len(video_files.read_frames(file, None)) == 2 * FRAMES
    except ValueError as error:
        assert str(error).startswith(f"{file} cannot be read as a video: ")


def test_damaged_frames_are_an_error(contents, tmp_path):
    """ffmpeg leaves them out, so that the actions of later frames are those of others."""
    file, content = tmp_path / "x.mkv", contents["mkv"]
    middle = len(content) // 2
    file.write_bytes(content[:middle] + bytes(600) + content[middle + 600 :])
    with pytest.raises(ValueError, match=r"x\.mkv cannot be read as a video: "):
        video_files.read_frames(file, None)


def test_a_stopped_live_stream_is_whole(contents, tmp_path):
    """MediaRecorder leaves the lengths of segment and clusters unknown."""
    file = tmp_path / "x.webm"
    content = contents["mkv from a pipe"]
    at = content.index(b"\x1f\x43\xb6\x75")
    size_bytes = 9 - content[at + 4].bit_length()
    unknown = bytes([(1 << 8 - size_bytes) | (1 << 8 - size_bytes) - 1]) + b"\xff" * (
        size_bytes - 1
    )
    file.write_bytes(content[: at + 4] + unknown + content[at + 4 + size_bytes :])
    assert len(video_files.read_frames(file, None)) == FRAMES


def test_bad_files_of_a_folder_are_left_out_and_counted(contents, tmp_path, monkeypatch):
    content = contents["mkv"]
    bad = {
        "cut.mkv": content[: len(content) // 2],
        "empty.mp4": b"",
        "page.avi": b"<!DOCTYPE html>",
    }
    bad["zip.npz"] = b"PK\3\4 nothing"
    for name, written in {**bad, "good.mkv": content, "table.mkv": content}.items():
        (tmp_path / name).write_bytes(written)
    (tmp_path / "table.csv").write_text("a\n1,2\n")
    (tmp_path / "odd.mkv").write_bytes(content + b"\0odd")
    read = inside(video_files).upright

    def raising(picture, image_size):
        if raising.file == "odd.mkv":
            raise MemoryError("no memory")
        return read(picture, image_size)

    check = video_files.check_whole

    def noting(opened):
        raising.file = os.path.basename(opened.name)
        check(opened)

    replace(monkeypatch, video_files, "upright", raising)
    monkeypatch.setattr(video_files, "check_whole", noting)
    with pytest.raises(ValueError, match=r"cut.mkv cannot be read as a video: it was cut off"):
        video.read_folder(tmp_path)
    with pytest.warns(UserWarning, match=r"6 files in .* are left out: .*cut.mkv"):
        (episode,) = video.read_folder(tmp_path, skip_corrupt=True)
    assert len(episode) == FRAMES and episode.name.endswith("good.mkv")
    (tmp_path / "good.mkv").unlink()
    with (
        pytest.warns(UserWarning, match="6 files"),
        pytest.raises(ValueError, match="no episode that can be read"),
    ):
        video.read_folder(tmp_path, skip_corrupt=True)


def test_hidden_folders_hold_no_episode_and_names_are_anything(contents, tmp_path):
    folder = os.fsencode(tmp_path)
    os.mkdir(folder + b"/.ipynb_checkpoints")
    for name in (b"/caf\xe9 12:30 %d.mkv", b"/.ipynb_checkpoints/x.mkv", b"/._x.mkv"):
        with open(folder + name, "wb") as file:
            file.write(contents["mkv"])
    with open(folder + b"/caf\xe9 12:30 %d.csv", "w") as file:
        file.write("a\n" + "1\n" * FRAMES)
    open(folder + b"/clip.flv", "wb").close()
    with pytest.warns(UserWarning, match="are left out: 1 .flv"):
        (episode,) = video.read_folder(folder)
    assert len(episode) == FRAMES and episode.actions.tolist() == [1] * FRAMES
    episode.name.encode()


TABLES = {  # what is wrong: the table, what is said
    "decimal commas": ("x\n0,5\n1,25\n-0,5\n1,0\n", "1, got 2 in line 2: '0,5'"),
    "decimal commas in two columns": ("x,y\n0,5,1\n", "2, got 3 in line 2"),
    "a field too few": ("x,y\n1,2\n3\n", "2, got 1 in line 3"),
    "a name too many": ("x,y,z\n1,2\n3,4\n", "3, got 2 in line 2"),
    "a comma at the end": ("x,y\n1,2,\n", "2, got 3 in line 2"),
    "a missing line": ("x\n1\n\n2\n", "1, got 0 in line 3"),
    "an empty field": ("x,y\n1,\n", "number in each field, got '' in line 2"),
    "nan": ("x\n1\nnan\n", "number in each field, got 'nan' in line 3"),
    "inf": ("x\n1\ninf\n", "got 'inf' in line 3"),
    "a number of Python's": ("x\n1_000\n", "got '1_000' in line 2"),
    "other digits": ("x\n²\n", "got '²' in line 2"),
    "decimal commas in quotes": ('x,y\n"0,5",1\n', "got '0,5' in line 2"),
    "semicolons": ("x;y\n1;2\n", "got '1;2' in line 2"),
    "semicolons and decimal commas": ("x;y\n0,5;1,5\n", "1, got 3 in line 2"),
    "tabs": ("x\ty\n1\t2\n", r"got '1\t2' in line 2"),
    "pandas' index": (",x\n0,0.5\n1,0.1\n", "name for each column in line 1, got ',x'"),
    "pandas' index, read and written": ("Unnamed: 0,x\n0,0.5\n", "index=False"),
    "an index with a name": (
        "frame,x\n0,1\n1,1\n2,0\n3,1\n",
        "its column 'frame' counts the lines",
    ),
    "an index from one": ("n,x\n1,1\n2,1\n3,0\n4,1\n", "its column 'n' counts the lines"),
    "a name twice": ("x,x\n1,2\n", "different names in line 1"),
    "no heading": ("1,2\n3,4\n", "must have a heading, its first line is 1,2"),
    "half a heading": ("x,2\n3,4\n", "must have a heading"),
    "an empty first line": ("\nx\n1\n", "must have a heading"),
    "UTF-16": ("x\n1\n".encode("utf-16"), "must be a table in UTF-8"),
    "quotes that do not end": ('x\n"1\n2\n', "must be a table in UTF-8"),
    "nothing": ("", "must have a heading and equally many numbers"),
    "beyond 32 bits": ("x\n1e99\n", "must be of 32 bits"),
}


@pytest.mark.parametrize("wrong", TABLES)
def test_tables_that_hold_no_actions_are_refused(wrong, tmp_path):
    """Decimal commas had become two columns, sign and all."""
    text, message = TABLES[wrong]
    table = tmp_path / "walk.csv"
    table.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError) as raised:
        video_files.read_actions(table)
    assert str(raised.value).startswith(str(table)) and message in str(raised.value)


def test_tables_that_are_right(tmp_path):
    table = tmp_path / "walk.csv"
    for text, expected in {
        "x\n1\n2\n": [1, 2],
        "\ufeffx\r\n1\r\n2\r\n\r\n": [1, 2],
        '"x", "y"\n 0.5 ,-1e-1\n.5,+1\n': [[0.5, -0.1], [0.5, 1]],
        "left,right\n0,1\n1,0\n0,0\n": [[0, 1], [1, 0], [0, 0]],
        "x\n0\n1\n2\n3\n": [0, 1, 2, 3],  # the only column is no index
    }.items():
        table.write_bytes(text.encode())
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            np.testing.assert_allclose(video_files.read_actions(table), expected)


def test_boxes_of_every_length():
    """The lengths of an MP4's boxes: 64 bits, to the end, and what cameras append."""

    def box(kind, body, length=None):
        return (8 + len(body) if length is None else length).to_bytes(4, "big") + kind + body

    start = box(b"ftyp", b"isom") + box(b"moov", bytes(20))
    whole = [
        start + box(b"mdat", bytes(9)),
        start + box(b"mdat", bytes(99), 0),
        start + box(b"mdat", (16 + 50).to_bytes(8, "big") + bytes(50), 1),
        start + box(b"mdat", bytes(9)) + box(b"junk", bytes(9), 2**31),
    ]
    for content in whole:
        video_files.check_whole(io.BytesIO(content))
    for content in (whole[0][:-1], whole[2][:-1], start[:-1], whole[0] + b"\0\0\1"):
        with pytest.raises(ValueError, match="it was cut off"):
            video_files.check_whole(io.BytesIO(content))
