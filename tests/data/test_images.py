"""The image pipelines: what comes out, in which order, and what is refused."""

import gzip
import os
import struct
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_vqvae import data
from keras_vqvae.data import idx
from keras_vqvae.data import images as images_module
from keras_vqvae.data.cache import cache_dir
from tests.inside import replace

pytestmark = pytest.mark.tensorflow  # pipelines know no backend


def numbered(n, size=4):
    """Images of which number i has the value i everywhere."""
    return np.broadcast_to(np.arange(n, dtype=np.uint8)[:, None, None, None], (n, size, size, 3))


def order(dataset, batches=None):
    """The numbers of the images, in the order in which they come."""
    taken = dataset if batches is None else dataset.take(batches)
    return [int(number) for batch in taken for number in batch.numpy()[:, 0, 0, 0]]


def write_png(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tf.io.encode_png(np.asarray(array, np.uint8)).numpy())


# from_array


def test_array_in_order_with_the_last_smaller_batch():
    dataset = data.from_array(numbered(10), batch_size=4)
    batches = list(dataset)
    assert [batch.shape[0] for batch in batches] == [4, 4, 2]
    assert {batch.dtype for batch in batches} == {tf.uint8}
    assert dataset.element_spec == tf.TensorSpec((None, 4, 4, 3), tf.uint8)
    assert order(dataset) == list(range(10)) and int(dataset.cardinality()) == 3


def test_seed_alone_decides_the_order_of_every_epoch():
    def epochs(global_seed):
        keras.utils.set_random_seed(global_seed)
        tf.random.uniform((3,))
        dataset = data.from_array(numbered(50), 8, seed=3)
        return [order(dataset) for _ in range(3)]

    first, second = epochs(0), epochs(123)
    assert first == second
    assert all(sorted(epoch) == list(range(50)) for epoch in first)
    assert len({tuple(epoch) for epoch in [*first, list(range(50))]}) == 4
    assert order(data.from_array(numbered(50), 8, seed=4)) != first[0]
    assert int(data.from_array(numbered(50), 8, seed=4).cardinality()) == 7


def test_seed_zero_is_a_seed():
    a, b = (data.from_array(numbered(50), 8, seed=0) for _ in range(2))
    assert order(a) == order(b) != list(range(50))


def test_repeat_is_endless_and_skip_resumes_it():
    stream = data.from_array(numbered(10), 4, seed=1, repeat=True)
    whole = order(stream, 10)
    assert int(stream.cardinality()) == tf.data.INFINITE_CARDINALITY
    assert [sorted(whole[i : i + 10]) for i in range(0, 40, 10)] == [list(range(10))] * 4
    assert whole[:10] != whole[10:20]
    again = data.from_array(numbered(10), 4, seed=1, repeat=True)
    assert order(again.skip(6), 4) == whole[24:]
    assert order(data.from_array(numbered(3), 2, repeat=True), 3) == [0, 1, 2, 0, 1, 2]


def test_labels_stay_with_their_images():
    dataset = data.from_array(numbered(20), 6, labels=np.arange(20)[::-1], seed=5)
    for images, labels in dataset:
        assert labels.dtype == tf.int32
        np.testing.assert_array_equal(19 - images[:, 0, 0, 0].numpy().astype(int), labels)


def test_fit_takes_the_pipeline():
    model = keras.Sequential([keras.layers.Rescaling(1 / 255), keras.layers.Conv2D(3, 1)])
    model.compile(loss="mse")
    pairs = data.from_array(numbered(10), 4, seed=0).map(lambda x: (x, tf.cast(x, "float32")))
    history = model.fit(pairs, epochs=2, verbose=0)
    assert np.isfinite(history.history["loss"]).all() and len(history.history["loss"]) == 2


@pytest.mark.parametrize(
    ("images", "cure"),
    [
        (np.random.rand(2, 4, 4, 3), "multiply by 255, round and cast to uint8"),
        (np.random.rand(2, 4, 4, 3) * 2 - 1, r"\(\(images \+ 1\) \* 127.5\)"),
        (np.random.rand(2, 4, 4, 3) * 255, r"clip\(0, 255\)"),
        (np.ones((2, 4, 4, 3), int), r"astype\('uint8'\)"),
        (np.ones((2, 4, 4), np.uint8), r"images\[..., None\]"),
        (np.ones((2, 4, 4, 3, 1), np.uint8), r"\(2, 4, 4, 3, 1\)"),
        (np.ones((0, 4, 4, 3), np.uint8), "empty"),
    ],
)
def test_wrong_images_are_refused_with_the_cure(images, cure):
    with pytest.raises(ValueError, match="`images`.*" + cure):
        data.from_array(images)


def test_the_cure_for_floats_works():
    images = numbered(5).astype("float32") / 255
    with pytest.raises(ValueError) as error:
        data.from_array(images)
    code = str(error.value).split("`")[3]
    cured = eval(code, {"images": images})  # our own message
    np.testing.assert_array_equal(cured, numbered(5))
    assert order(data.from_array(cured)) == list(range(5))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels": np.arange(4)}, r"`labels`.*\(5,\).*\(4,\)"),
        ({"labels": np.zeros(5)}, "`labels`.*float64"),
        ({"batch_size": 0}, "`batch_size`.*0"),
        ({"seed": -1}, "`seed`.*-1"),
        ({"seed": 0.5}, "`seed`.*0.5"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        data.from_array(numbered(5), **arguments)


# from_folder


def test_folder_reads_every_format(tmp_path):
    colour = np.full((8, 8, 3), (200, 100, 50), np.uint8)
    write_png(tmp_path / "a.PNG", colour)
    (tmp_path / "b.jpg").write_bytes(tf.io.encode_jpeg(colour, quality=100).numpy())
    image_module = pytest.importorskip("PIL.Image", reason="writes the BMP and GIF files")
    picture = image_module.fromarray(colour)
    picture.save(tmp_path / "c.bmp")
    picture.convert("RGBA").save(tmp_path / "d.bmp")
    picture.save(tmp_path / "e.gif", save_all=True, append_images=[picture.rotate(90)])
    picture.convert("RGBA").save(tmp_path / "f.png")
    picture.convert("CMYK").save(tmp_path / "g.jpeg", quality=100)
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / ".h.png").write_text("not an image either")
    (batch,) = data.from_folder(tmp_path, (4, 4))
    assert batch.shape == (7, 4, 4, 3) and batch.dtype == tf.uint8
    assert np.abs(batch.numpy().astype(int) - (200, 100, 50)).max() <= 3
    (grey,) = data.from_folder(tmp_path, (4, 4), channels=1)
    assert grey.shape == (7, 4, 4, 1)
    expected = 0.2989 * 200 + 0.587 * 100 + 0.114 * 50
    assert np.abs(grey.numpy() - expected).max() <= 3


def test_grey_files_keep_their_values(tmp_path):
    values = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    write_png(tmp_path / "grey.png", values)
    (grey,) = data.from_folder(tmp_path, (16, 16), channels=1)
    np.testing.assert_array_equal(grey[0], values)
    (colour,) = data.from_folder(tmp_path, (16, 16))
    np.testing.assert_array_equal(colour[0], np.repeat(values, 3, axis=-1))


def test_crop_is_central_and_resize_does_not_alias(tmp_path):
    # Columns 0-3 and 12-15 are red and must be cut off; between them the finest checkerboard,
    # which a resize without averaging would turn into plain black or white.
    image = np.zeros((8, 16, 3), np.uint8)
    image[..., 0] = 255
    image[:, 4:12] = 255 * (np.indices((8, 8)).sum(0) % 2)[..., None]
    write_png(tmp_path / "wide.png", image)
    write_png(tmp_path / "tall.png", image.transpose(1, 0, 2))
    (batch,) = data.from_folder(tmp_path, (4, 4))
    np.testing.assert_array_equal(batch, np.full((2, 4, 4, 3), 128))


def test_folder_is_recursive_sorted_and_shuffled_by_the_seed(tmp_path):
    for i, image in enumerate(numbered(30)):
        write_png(tmp_path / f"{i // 10}" / "deep" / f"{i:02}.png", image)
    assert order(data.from_folder(tmp_path, (4, 4), 8)) == list(range(30))
    runs = []
    for global_seed in (0, 7):
        tf.random.set_seed(global_seed)
        dataset = data.from_folder(tmp_path, (4, 4), 8, seed=2)
        assert int(dataset.cardinality()) == 4
        runs.append([order(dataset), order(dataset)])
    assert runs[0] == runs[1] and runs[0][0] != runs[0][1]
    assert sorted(runs[0][0]) == list(range(30))


def test_folder_labels_are_the_sub_folders(tmp_path):
    for i, name in enumerate(["cat", "ant", "dog"]):
        write_png(tmp_path / name / "deep" / "x.png", numbered(3)[i])
    dataset = data.from_folder(tmp_path, (4, 4), labels=True)
    ((images, labels),) = dataset
    assert dataset.class_names == ["ant", "cat", "dog"]
    assert labels.dtype == tf.int32 and labels.numpy().tolist() == [0, 1, 2]
    assert images[:, 0, 0, 0].numpy().tolist() == [1, 0, 2]
    write_png(tmp_path / "loose.png", numbered(1)[0])
    with pytest.raises(ValueError, match="loose.png"):
        data.from_folder(tmp_path, (4, 4), labels=True)


def test_corrupt_files_are_named_or_left_out_and_counted(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    jpeg = tf.io.encode_jpeg(noise).numpy()
    write_png(tmp_path / "b" / "good.png", noise)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "truncated.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    (tmp_path / "empty.gif").write_bytes(b"")
    (tmp_path / "text.bmp").write_text("BM no")
    with pytest.raises(ValueError, match="3 image files.*truncated.jpg"):
        data.from_folder(tmp_path, (8, 8))
    with pytest.warns(UserWarning, match="3 image files.*truncated.jpg.*left out"):
        dataset = data.from_folder(tmp_path, (8, 8), skip_corrupt=True)
    assert [batch.shape for batch in dataset] == [(1, 8, 8, 3)]
    good, corrupt = data.check_folder(tmp_path)
    assert [file.name for file in good] == ["good.png"]
    assert {file.name for file in corrupt} == {"truncated.jpg", "empty.gif", "text.bmp"}
    # A class keeps its number when all of its files are corrupt.
    for file in (tmp_path / "empty.gif", tmp_path / "text.bmp"):
        file.unlink()
    with pytest.warns(UserWarning, match="1 image files"):
        dataset = data.from_folder(tmp_path, (8, 8), skip_corrupt=True, labels=True)
    assert dataset.class_names == ["a", "b"] and next(iter(dataset))[1].numpy() == [1]


def test_unusable_folders_are_named(tmp_path):
    with pytest.raises(ValueError, match="nowhere"):
        data.from_folder(tmp_path / "nowhere", (4, 4))
    with pytest.raises(ValueError, match=tmp_path.name):
        data.from_folder(tmp_path, (4, 4))
    (tmp_path / "only.png").write_text("bad")
    with (
        pytest.warns(UserWarning, match="only.png"),
        pytest.raises(ValueError, match="no image that can be decoded"),
    ):
        data.from_folder(tmp_path, (4, 4), skip_corrupt=True)
    for arguments, name in [
        ({"image_size": 4}, "image_size"),
        ({"image_size": (4, 0)}, "image_size"),
        ({"image_size": (4, 4), "channels": 4}, "channels"),
    ]:
        with pytest.raises(ValueError, match=f"`{name}`"):
            data.from_folder(tmp_path, **arguments)


# from_tfds


@pytest.fixture(scope="module")
def tiny_tfds(tmp_path_factory):
    """Two real data sets of ten numbered images, of one size and of many, and their folder."""
    tfds = images_module.import_tfds()

    class TinyBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")
        SHAPE: tuple

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=self.SHAPE),
                "label": tfds.features.ClassLabel(num_classes=10),
            }
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for i in range(10):
                height = self.SHAPE[0] or 6 + i
                yield i, {"image": np.full((height, 8, 3), i, np.uint8), "label": i}

    class KerasVqvaeSameSize(TinyBuilder):  # registers itself under its name in snake case
        SHAPE = (6, 8, 3)

    class KerasVqvaeRagged(TinyBuilder):
        SHAPE = (None, 8, 3)

    return KerasVqvaeSameSize.name, KerasVqvaeRagged.name, tmp_path_factory.mktemp("tfds")


def test_tfds_in_order_and_shuffled_by_the_seed(tiny_tfds):
    name, _, folder = tiny_tfds
    dataset = data.from_tfds(name, batch_size=4, data_dir=folder)
    assert dataset.element_spec == tf.TensorSpec((None, 6, 8, 3), tf.uint8)
    plain = order(dataset)
    assert order(dataset) == plain and sorted(plain) == list(range(10))
    assert int(dataset.cardinality()) == 3
    runs = []
    for global_seed in (0, 7):
        tf.random.set_seed(global_seed)
        shuffled = data.from_tfds(name, batch_size=4, data_dir=folder, seed=1)
        assert int(shuffled.cardinality()) == 3
        runs.append([order(shuffled), order(shuffled)])
    assert runs[0] == runs[1] and runs[0][0] != runs[0][1] and plain not in runs[0]
    assert sorted(runs[0][0]) == list(range(10))


def test_tfds_labels_and_sizes(tiny_tfds):
    name, ragged, folder = tiny_tfds
    ((images, labels),) = data.from_tfds(name, data_dir=folder, labels=True, split="train[:50%]")
    assert labels.dtype == tf.int32 and images.shape == (5, 6, 8, 3)
    np.testing.assert_array_equal(images[:, 0, 0, 0], labels)
    with pytest.raises(ValueError, match="image_size"):
        data.from_tfds(ragged, data_dir=folder)
    (images,) = data.from_tfds(ragged, image_size=(5, 5), data_dir=folder)
    assert images.shape == (10, 5, 5, 3) and images.dtype == tf.uint8
    assert sorted(images[:, 0, 0, 0].numpy()) == list(range(10))


def test_tfds_unknown_names(tiny_tfds):
    name, _, folder = tiny_tfds
    with pytest.raises(ValueError, match="cifar1000.*cifar100"):
        data.from_tfds("cifar1000", data_dir=folder)
    with pytest.raises(ValueError, match="`split` 'nope'.*train"):
        data.from_tfds(name, split="nope", data_dir=folder)
    with pytest.raises(ValueError, match="no feature 'image'"):
        data.from_tfds("imdb_reviews", data_dir=folder)


def test_tfds_missing_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(ImportError, match=r"\.\[examples\]"):
        data.from_tfds("cifar10")


# Fashion-MNIST and idx


def write_idx(path, array, code):
    header = struct.pack(f">HBB{array.ndim}I", 0, code, array.ndim, *array.shape)
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wb") as stream:
        stream.write(header + array.astype(array.dtype.newbyteorder(">")).tobytes())


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize(("dtype", "code"), [("uint8", 8), ("int32", 12), ("float32", 13)])
def test_idx_reads_back(tmp_path, dtype, code, suffix):
    array = (np.arange(24).reshape(2, 3, 4) * 7).astype(dtype)
    write_idx(tmp_path / f"x{suffix}", array, code)
    result = data.read_idx(tmp_path / f"x{suffix}")
    assert result.dtype == dtype and result.flags.writeable
    np.testing.assert_array_equal(result, array)


@pytest.mark.parametrize(
    "content", [b"", b"\x00", b"\x89PNG1234", b"\x00\x00\x08\x02\x00", b"\x00\x00\x08\x01" * 2]
)
def test_corrupt_idx_is_named(tmp_path, content):
    (tmp_path / "bad").write_bytes(content)
    with pytest.raises(ValueError, match="bad"):
        data.read_idx(tmp_path / "bad")
    (tmp_path / "bad.gz").write_bytes(content)
    with pytest.raises(ValueError, match="bad.gz"):
        data.read_idx(tmp_path / "bad.gz")
    (tmp_path / "cut.gz").write_bytes(gzip.compress(bytes(4) * 100)[:-9])
    with pytest.raises(ValueError, match="cut.gz"):
        data.read_idx(tmp_path / "cut.gz")


def write_fashion(folder):
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    parts = []
    for part, n in (("train", 12), ("t10k", 5)):
        x, y = rng.integers(0, 256, (n, 28, 28), np.uint8), rng.integers(0, 10, n, np.uint8)
        write_idx(folder / f"{part}-images-idx3-ubyte.gz", x, 8)
        write_idx(folder / f"{part}-labels-idx1-ubyte.gz", y, 8)
        parts.append((x, y))
    return parts


@pytest.mark.parametrize("below", ["", "usr/share/datasets/fashion-mnist"])
def test_fashion_mnist_from_a_folder(tmp_path, below):
    expected = write_fashion(tmp_path / "f" / below)
    for (x, y), (want_x, want_y) in zip(data.fashion_mnist(tmp_path / "f"), expected, strict=True):
        assert x.dtype == np.uint8 and y.dtype == np.int32
        np.testing.assert_array_equal(x, want_x[..., None])
        np.testing.assert_array_equal(y, want_y)


def test_fashion_mnist_that_cannot_be_downloaded_names_the_cure(tmp_path, monkeypatch):
    def unreachable():
        raise Exception("URL fetch failure")

    monkeypatch.setenv("KERAS_VQVAE_CACHE", str(tmp_path))
    monkeypatch.setattr(keras.datasets.fashion_mnist, "load_data", unreachable)
    replace(monkeypatch, idx, "FASHION_MNIST", "no/such/folder")
    with pytest.raises(RuntimeError, match="fetch_debian_fashion_mnist"):
        data.fashion_mnist()


def test_fashion_mnist_names_a_wrong_file(tmp_path):
    write_fashion(tmp_path / "f")
    write_idx(tmp_path / "f" / "t10k-labels-idx1-ubyte.gz", np.zeros(4, np.uint8), 8)
    with pytest.raises(ValueError, match="t10k-labels"):
        data.fashion_mnist(tmp_path / "f")
    write_idx(tmp_path / "f" / "train-images-idx3-ubyte.gz", np.zeros((3, 8, 8), np.uint8), 8)
    with pytest.raises(ValueError, match="train-images"):
        data.fashion_mnist(tmp_path / "f")
    (tmp_path / "f" / "train-images-idx3-ubyte.gz").unlink()
    with pytest.raises(ValueError, match="train-images"):
        data.fashion_mnist(tmp_path / "f")


def test_fetch_without_apt_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_VQVAE_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", "")
    with pytest.raises(RuntimeError, match="apt-get"):
        data.fetch_debian_fashion_mnist()


def test_fetch_refuses_other_contents_and_keeps_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_VQVAE_CACHE", str(tmp_path / "cache"))
    tools = tmp_path / "tools"
    tools.mkdir()
    write_fashion(tmp_path / "other" / "usr/share/datasets/fashion-mnist")
    (tools / "apt-get").write_text("#!/bin/sh\ntouch fake.deb\n")
    (tools / "dpkg-deb").write_text(f'#!/bin/sh\n/bin/cp -r "{tmp_path}/other" "$3"\n')
    for tool in tools.iterdir():
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tools), prepend=os.pathsep)
    with pytest.raises(RuntimeError, match="train-images.*unexpected contents"):
        data.fetch_debian_fashion_mnist()
    assert list((tmp_path / "cache").iterdir()) == []


# cache_dir


def test_cache_dir_is_created_where_the_variable_says(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_VQVAE_CACHE", str(tmp_path / "a" / "b"))
    assert cache_dir() == tmp_path / "a" / "b" and (tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("KERAS_VQVAE_CACHE", str(tmp_path / "file" / "x"))
    with pytest.raises(ValueError, match="file/x"):
        cache_dir()


# Files as they are found.


@pytest.fixture(scope="module")
def image_module():
    return pytest.importorskip("PIL.Image", reason="writes the files")


NOISE = np.random.default_rng(0).integers(0, 256, (12, 8, 3), np.uint8)
FORMATS = {  # name: what is done with NOISE, the format and its options
    "lossless.webp": (None, "WEBP", {"lossless": True}),
    "webp_named.jpg": (None, "WEBP", {"lossless": True}),  # as browsers save them
    "palette.bmp": ("P", "BMP", {}),
    "bits.bmp": ("1", "BMP", {}),
    "bits.png": ("1", "PNG", {}),
    "palette.png": ("P", "PNG", {}),
    "gray_alpha.png": ("LA", "PNG", {}),
    "alpha.png": ("RGBA", "PNG", {}),
    "palette.gif": ("P", "GIF", {}),
    "animated.webp": (None, "WEBP", {"lossless": True, "save_all": True, "append_images": True}),
    "animated.png": (None, "PNG", {"save_all": True, "append_images": True}),
    "animated.gif": ("P", "GIF", {"save_all": True, "append_images": True}),
}


def write_formats(image_module, folder):
    """Writes NOISE in all formats, the name in front for the order; returns what each shows."""
    expected = []
    for name, (mode, form, options) in sorted(FORMATS.items()):
        image = image_module.fromarray(NOISE)
        image = image.convert(mode) if mode else image
        if "append_images" in options:
            options = {**options, "append_images": [image.rotate(180)]}
        image.save(folder / name, form, **options)
        with image_module.open(folder / name) as saved:
            expected.append(np.asarray(saved.convert("RGB")))
    return np.stack(expected)


def test_every_kind_of_file_shows_its_colours(image_module, tmp_path):
    """Of a palette BMP the indices had been taken for gray levels, and WebP files had vanished."""
    expected = write_formats(image_module, tmp_path)
    assert (expected[sorted(FORMATS).index("palette.bmp")].std(-1) > 0).any()  # it has colours
    (batch,) = data.from_folder(tmp_path, NOISE.shape[:2])
    np.testing.assert_array_equal(batch, expected)
    # each by itself: without Pillow's in the folder the graph is another
    for name, image in zip(sorted(FORMATS), expected, strict=True):
        (tmp_path / "one").mkdir(exist_ok=True)
        (tmp_path / name).rename(tmp_path / "one" / name)
        (batch,) = data.from_folder(tmp_path / "one", NOISE.shape[:2])
        np.testing.assert_array_equal(batch[0], image, name)
        (tmp_path / "one" / name).unlink()


def test_files_that_were_cut_off_are_found_in_every_format(image_module, tmp_path):
    write_formats(image_module, tmp_path)
    image_module.fromarray(NOISE).save(tmp_path / "x.jpg")
    for file in tmp_path.iterdir():
        content = file.read_bytes()
        file.write_bytes(content[: len(content) * 6 // 10])
    animations = {"animated.webp", "animated.png", "animated.gif"}  # the first image may be whole
    good, corrupt = data.check_folder(tmp_path)
    assert {file.name for file in corrupt} >= {*FORMATS, "x.jpg"} - animations
    assert {file.name for file in good} <= animations


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_photographs_are_turned_upright(image_module, tmp_path, form):
    blocks = np.kron([[0, 80, 160], [240, 40, 120]], np.ones((16, 16)))  # no two turns are alike
    image = image_module.fromarray(np.repeat(blocks[..., None], 3, -1).astype("uint8"))
    turned = {1: blocks, 2: blocks[:, ::-1], 3: blocks[::-1, ::-1], 4: blocks[::-1]}
    turned |= {5: blocks.T, 6: np.rot90(blocks, -1), 7: blocks[::-1, ::-1].T, 8: np.rot90(blocks)}
    for orientation, expected in turned.items():
        exif = image_module.Exif()
        exif[0x010F] = "a maker, so that orientation is not the first field"
        exif[0x0112] = orientation
        folder = tmp_path / str(orientation)
        folder.mkdir()
        image.save(folder / f"x.{form}", form, exif=exif, quality=100, lossless=True)
        (batch,) = data.from_folder(folder, expected.shape)
        np.testing.assert_allclose(batch[0, ..., 0], expected, atol=3, err_msg=str(orientation))


def test_damaged_exif_turns_nothing(image_module, tmp_path):
    damaged = [b"", b"MM\0*\0\0\0\xff", b"II*\0\x08\0", b"MM\0*\0\0\0\x08\0\1"]
    for number, exif in enumerate(damaged):
        image_module.fromarray(NOISE).save(tmp_path / f"{number}.jpg", exif=b"Exif\0\0" + exif)
    (batch,) = data.from_folder(tmp_path, (12, 8))
    assert batch.shape == (4, 12, 8, 3)


def test_twelve_bits_in_sixteen_are_counted(tmp_path):
    """They come out nearly black; it is not for the reader to say what they should be."""
    for name, most in (("dark", 4095), ("full", 65535), ("black", 0)):
        values = np.linspace(0, most, 64).reshape(8, 8, 1).astype("uint16")
        (tmp_path / f"{name}.png").write_bytes(tf.io.encode_png(values).numpy())
    with pytest.warns(UserWarning, match=r"1 PNG files of 16 bits .*dark.png, .* 4095 of 65535"):
        data.from_folder(tmp_path, (8, 8))


BROKEN = {
    "heic.jpg": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
    "page.png": b"<!DOCTYPE html>",
    "empty.jpg": b"",
    "empty.webp": b"",
    "sound.webp": b"RIFF\x24\0\0\0WAVEfmt ",
    "bomb.png": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", 10**5, 10**5) + bytes(99),
    "begun.png": b"\x89PNG",
    "begun.jpg": b"\xff\xd8\xff\xe1",
}


@pytest.mark.parametrize("error", [MemoryError(), PermissionError("no"), RuntimeError("odd")])
def test_whatever_a_decoder_raises_names_the_file(tmp_path, monkeypatch, error):
    for name, content in BROKEN.items():
        (tmp_path / name).write_bytes(content)
    write_png(tmp_path / "good.png", NOISE)
    write_png(tmp_path / "odd.png", NOISE)
    decode = images_module.inspect.__globals__["decode"]
    odd = (tmp_path / "odd.png").read_bytes() + b"odd"
    (tmp_path / "odd.png").write_bytes(odd)

    def raising(content, with_pillow):
        if content.dtype == tf.string and content.numpy() == odd:
            raise error
        return decode(content, with_pillow)

    monkeypatch.setitem(images_module.inspect.__globals__, "decode", raising)
    with pytest.warns(UserWarning, match=rf"{len(BROKEN) + 1} image files .*left out"):
        dataset = data.from_folder(tmp_path, (12, 8), skip_corrupt=True)
    np.testing.assert_array_equal(next(iter(dataset)), NOISE[None])
    _, corrupt = data.check_folder(tmp_path)
    assert {file.name for file in corrupt} == {*BROKEN, "odd.png"}


def test_images_whose_names_are_not_utf8(tmp_path):
    write_png(tmp_path / "cat" / "good.png", NOISE)
    for name, content in ((b"caf\xe9.png", None), (b"b\xe9.png", b"bad")):
        content = content or (tmp_path / "cat" / "good.png").read_bytes()
        (tmp_path / "cat" / os.fsdecode(name)).write_bytes(content)
    with pytest.raises(ValueError, match=r"b\\xe9.png") as raised:
        data.from_folder(os.fsencode(tmp_path), (12, 8), labels=True)
    str(raised.value).encode()
    with pytest.warns(UserWarning, match="1 image files"):
        dataset = data.from_folder(tmp_path, (12, 8), labels=True, skip_corrupt=True)
    np.testing.assert_array_equal(next(iter(dataset))[0], np.stack([NOISE] * 2))


def test_image_files_of_other_kinds_are_counted(tmp_path):
    write_png(tmp_path / "a.png", NOISE)
    for name in ("b.heic", "c.HEIC", "d.avif"):
        (tmp_path / name).touch()
    with pytest.warns(UserWarning, match="left out: 2 .heic, 1 .avif"):
        data.from_folder(tmp_path, (8, 8))


def test_pillow_is_named_where_it_is_missing(image_module, tmp_path, monkeypatch):
    image_module.fromarray(NOISE).save(tmp_path / "x.webp")
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(ImportError, match=r"BMP, GIF and WebP files need PIL.Image: pip install"):
        data.from_folder(tmp_path, (8, 8), skip_corrupt=True)
    (tmp_path / "x.webp").unlink()
    write_png(tmp_path / "a.png", NOISE)
    (batch,) = data.from_folder(tmp_path, (12, 8))  # PNG and JPEG need nothing
    np.testing.assert_array_equal(batch[0], NOISE)
