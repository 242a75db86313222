"""Which files of a folder are data."""

import os
import warnings

import keras
import pytest

if keras.backend.backend() != "tensorflow":
    pytest.skip("data is TensorFlow's", allow_module_level=True)

from keras_vqvae.data.files import files_below, find_files

pytestmark = pytest.mark.tensorflow


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_hidden_folders_and_files_are_no_data(tmp_path):
    kept = ["a.png", "cat/b.png", "cat/deep/c.PNG"]
    hidden = [".ipynb_checkpoints/a.png", "cat/.git/b.png", ".Trash/x.png", "cat/._b.png"]
    litter = ["__MACOSX/cat/b.png", "cat/@eaDir/b.png", "$RECYCLE.BIN/b.png"]
    touch(tmp_path, *kept, *hidden, *litter)
    assert [str(path.relative_to(tmp_path)) for path in files_below(tmp_path)] == kept
    # the folder's own name and those above it do not count
    touch(tmp_path, ".cache/photos/d.png")
    assert len(files_below(tmp_path / ".cache" / "photos")) == 1


def test_links_pipes_and_folders_named_like_files(tmp_path):
    touch(tmp_path, "real/a.png", "x.png/b.png")
    (tmp_path / "linked").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "loop").symlink_to(tmp_path)
    (tmp_path / "nowhere.png").symlink_to(tmp_path / "gone")
    os.mkfifo(tmp_path / "pipe.png")  # to open it would wait for ever
    found = {str(path.relative_to(tmp_path)) for path in find_files(tmp_path, [".png"], "image")}
    assert found == {"linked/a.png", "real/a.png", "nowhere.png", "x.png/b.png"}


def test_files_of_other_kinds_are_counted_once(tmp_path):
    touch(tmp_path, "a.png", "a.csv", "b.tiff", "c/d.TIFF", "README", "c/.hidden.tiff")
    with pytest.warns(UserWarning) as caught:
        assert len(find_files(tmp_path, [".png"], "image", [".csv"])) == 1
    (warning,) = caught
    assert str(warning.message).endswith("are left out: 2 .tiff, 1 without a suffix")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        find_files(tmp_path, [".png", ".tiff", ".csv", ""], "image")
    with pytest.raises(ValueError, match=r"holds no image file \(.gif\), but 2 .tiff, "):
        find_files(tmp_path, [".gif"], "image")


def test_names_that_are_not_utf8(tmp_path):
    name = os.fsencode(tmp_path) + b"/caf\xe9.png"
    open(name, "wb").close()
    assert [os.fsencode(path) for path in find_files(tmp_path, [".png"], "image")] == [name]
    with pytest.raises(ValueError) as raised:
        find_files(tmp_path, [".x"], "image")
    str(raised.value).encode()
