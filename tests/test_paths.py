"""Path arguments: `~`, `os.PathLike`, bytes and schemes, the same for the whole package."""

import os
import pathlib

import keras
import pytest

if keras.backend.backend() != "tensorflow":
    pytest.skip("paths are TensorFlow's", allow_module_level=True)

from keras_vqvae.paths import RemotePath, any_path, local_path, shown

pytestmark = pytest.mark.tensorflow


@pytest.mark.parametrize("path", ["~/x", pathlib.Path("~/x"), b"~/x"])
def test_home_and_path_likes(path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    assert local_path(path) == any_path(path) == pathlib.Path("/home/somebody/x")


@pytest.mark.parametrize("path", ["", b"", None, 5, ["a"]])
def test_what_is_no_path_is_named(path):
    for function in (local_path, any_path):
        with pytest.raises(ValueError, match=r"`folder` must be a path \(str or os.PathLike\)"):
            function(path, "folder")


@pytest.mark.parametrize("scheme", ["gs", "s3", "hdfs", "file", "http", "ram", "s3a"])
@pytest.mark.parametrize("kind", [str, pathlib.Path, os.fsencode])
def test_local_paths_refuse_schemes(scheme, kind):
    # Path("gs://bucket/x") is gs:/bucket/x, which would be a local folder gs:
    with pytest.raises(ValueError, match=f"`folder` must be a local path, got '{scheme}:/"):
        local_path(kind(f"{scheme}://bucket/x"), "folder")


def test_paths_that_look_like_schemes():
    for path in ("C:/x", "a/b:c", "2024:1", "x:y/z"):
        assert str(local_path(path)) == path


def test_unknown_schemes_are_refused_by_name():
    with pytest.raises(ValueError, match="`folder` must be .* got 's9://bucket/x'"):
        any_path("s9://bucket/x", "folder")


def test_remote_paths_in_memory():
    folder = any_path(pathlib.Path("ram://test_paths/folder"))
    assert isinstance(folder, RemotePath) and str(folder) == "ram://test_paths/folder"
    assert not folder.exists() and not folder.is_dir()
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "a.unfinished"
    file.write_bytes(b"123")
    file.replace(file.with_suffix(".done"))
    (found,) = folder.iterdir()
    assert found.name == "a.done" and found.is_file() and not found.is_dir() and folder.is_dir()
    assert [str(path) for path in folder.glob("*.done")] == [str(found)]
    assert found.read_bytes() == b"123" and os.fspath(found) == str(found)
    found.unlink()
    assert not list(folder.iterdir())


def test_names_that_are_not_utf8_can_be_printed():
    name = os.fsdecode(b"caf\xe9.png")
    with pytest.raises(UnicodeEncodeError):
        name.encode()
    assert shown(pathlib.Path("a") / name) == r"a/caf\xe9.png"
