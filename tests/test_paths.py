"""Path arguments: `~`, `os.PathLike`, bytes and schemes, the same for the whole package."""

import os
import pathlib

import keras
import numpy as np
import pytest

if keras.backend.backend() != "tensorflow":
    pytest.skip("paths are TensorFlow's", allow_module_level=True)

from keras_vqvae import ImageVQVAE, data
from keras_vqvae.callbacks import BackupAndRestore, ReconstructionPictures
from keras_vqvae.data import video
from keras_vqvae.export.savedmodel import version_folder
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


def test_urls_of_local_files_are_refused():
    """The first folder of file:///tmp/x was taken for the name of a machine."""
    for path in ("file:///tmp/x", "file://localhost/tmp/x", pathlib.Path("file:///tmp/x")):
        with pytest.raises(ValueError, match="`folder` must be a local path, got 'file:/"):
            any_path(path, "folder")


def test_a_scheme_without_a_machine_keeps_its_slashes():
    assert str(any_path("ram:///folder/x")) == "ram:///folder/x"


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


def test_backups_and_logs_of_another_file_system():
    """`gs://` had become a local folder `gs:`, in silence."""
    images = np.zeros((4, 8, 8, 3), "uint8")

    def trained(epochs):
        model = ImageVQVAE((8, 8, 3), 4, 2, hidden=4, residual_blocks=0)
        model.compile("sgd")
        backup = BackupAndRestore("ram://test_paths/backup", keep=1)
        shown = ReconstructionPictures(images[:1], "ram://test_paths/logs")
        model.fit(images, epochs=epochs, verbose=0, callbacks=[backup, shown])
        return model

    first = trained(1)
    (kept,) = any_path("ram://test_paths/backup").iterdir()
    content = kept.read_bytes()
    kept.replace(any_path("ram://test_paths/backup/step-0000000002.backup"))
    kept.with_suffix(".unfinished").write_bytes(b"half")
    any_path("ram://test_paths/backup/step-0000000001.backup").write_bytes(content)
    any_path("ram://test_paths/backup/step-0000000002.backup").write_bytes(content[:-1])
    with pytest.warns(UserWarning, match=r"ram://.*/step-0000000002.backup cannot be used"):
        second = trained(1)  # ended before: restored, not trained
    for ours, theirs in zip(first.weights, second.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    left = {path.name for path in any_path("ram://test_paths/backup").iterdir()}
    assert left == {"step-0000000001.backup", "step-0000000002.unusable"}
    logs = {path.name for path in any_path("ram://test_paths/logs").iterdir()}
    assert "reconstructions_0001.png" in logs and any("tfevents" in name for name in logs)


NAMED = {
    "from_folder": lambda p: data.from_folder(p, (8, 8)),
    "check_folder": data.check_folder,
    "fashion_mnist": data.fashion_mnist,
    "read_idx": data.read_idx,
    "record": lambda p: data.record(path=p),
    "video.read_folder": video.read_folder,
    "video.encode": lambda p: video.encode(None, [], p),
    "export_savedmodel": version_folder,
}


@pytest.mark.parametrize("name", NAMED)
def test_what_is_local_only_refuses_schemes(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"must be a local path, got 'ram://bucket/x'"):
        NAMED[name]("ram://bucket/x")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "home, xdg, own, expected",
    [
        ("/h", None, None, "/h/.cache/keras_vqvae"),
        ("/h", "/x", None, "/x/keras_vqvae"),
        ("/h", "relative", None, "/h/.cache/keras_vqvae"),  # the specification ignores it
        ("/h", "/x", "/own", "/own"),
        ("/h", "/x", "~/own", "/h/own"),
    ],
)
def test_where_the_cache_is(home, xdg, own, expected, tmp_path, monkeypatch):
    variables = {"HOME": home, "XDG_CACHE_HOME": xdg, "KERAS_VQVAE_CACHE": own}
    for name, value in variables.items():
        below = value and value.replace("/", f"{tmp_path}/", 1) if value != "~/own" else value
        monkeypatch.setenv(name, below) if below else monkeypatch.delenv(name, raising=False)
    assert str(data.cache_dir()) == str(tmp_path) + expected


def test_the_cache_is_local(monkeypatch):
    monkeypatch.setenv("KERAS_VQVAE_CACHE", "gs://bucket/cache")
    with pytest.raises(ValueError, match="`KERAS_VQVAE_CACHE` must be a local path"):
        data.cache_dir()


def test_export_takes_home(tmp_path, monkeypatch):
    """A folder named `~` was made."""
    monkeypatch.setenv("HOME", str(tmp_path))
    model = ImageVQVAE((8, 8, 3), 4, 2, hidden=2, residual_blocks=0)
    model(np.zeros((1, 8, 8, 3), "uint8"))
    model.export("~/m", verbose=False)
    assert (tmp_path / "m" / "saved_model.pb").exists()
