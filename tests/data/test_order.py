"""Where an iteration begins, and which part of it is a worker's: the same for all pipelines."""

import itertools
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_vqvae import ImageVQVAE, data

pytestmark = pytest.mark.tensorflow  # pipelines know no backend

TOTAL, BATCH = 26, 8  # three batches, and two rows left over


def pictures(count=TOTAL):
    return np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, 4, 4, 3))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for i, picture in enumerate(pictures()):
        (folder / f"{i:02}.png").write_bytes(tf.io.encode_png(picture).numpy())
    return folder


@pytest.fixture(scope="module")
def tfds_folder(tmp_path_factory):
    tfds = pytest.importorskip("tensorflow_datasets")

    class Numbered(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {"image": tfds.features.Image(shape=(4, 4, 3)), "label": np.int64}
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            yield from (
                (i, {"image": x, "label": i})
                for i, x in enumerate(np.ascontiguousarray(pictures()))
            )

    class KerasVqvaeOrder(Numbered):  # registers itself under its name in snake case
        pass

    return tmp_path_factory.mktemp("tfds")


@pytest.fixture(params=["array", "folder", "tfds"])
def pipeline(request):
    """A function that makes a pipeline of the same pictures, whatever their source."""
    if request.param == "array":
        return lambda **options: data.from_array(pictures(), BATCH, **options)
    if request.param == "folder":
        folder = request.getfixturevalue("folder")
        return lambda **options: data.from_folder(folder, (4, 4), BATCH, **options)
    folder = request.getfixturevalue("tfds_folder")
    return lambda **options: data.from_tfds(
        "keras_vqvae_order", batch_size=BATCH, data_dir=folder, **options
    )


def numbers(dataset, batches=None):
    """The numbers of the pictures, a list a batch."""
    taken = dataset if batches is None else itertools.islice(dataset, batches)
    return [batch.numpy()[:, 0, 0, 0].tolist() for batch in taken]


def flat(lists):
    return list(itertools.chain.from_iterable(lists))


# start_at


def test_start_at_goes_on_bit_for_bit(pipeline):
    dataset = pipeline(seed=3)
    epochs = [numbers(dataset) for _ in range(4)]
    assert len({str(epoch) for epoch in epochs}) == 4
    for epoch, batch in [(2, 0), (1, 3), (0, 1), (2, 4)]:
        again = pipeline(seed=3)
        again.start_at(epoch, batch)
        assert numbers(again) == epochs[epoch][batch:]
        assert numbers(again) == epochs[epoch + 1]
        assert int(again.cardinality()) == 4
        # Backwards too, on a dataset that is in use.
        again.start_at(0, 2)
        assert numbers(again) == epochs[0][2:]


@pytest.mark.parametrize("batch", [0, 1, 3, 4, 13, 40])
def test_start_at_of_an_endless_dataset(batch):
    stream = data.from_array(pictures(), BATCH, seed=1, repeat=True)
    whole = numbers(stream, 44)
    stream.start_at(0, batch)
    assert numbers(stream, 4) == whole[batch : batch + 4]
    assert numbers(stream, 4) == whole[:4]
    assert int(stream.cardinality()) == tf.data.INFINITE_CARDINALITY


def test_start_at_reaches_datasets_made_of_it_and_skips_nothing_it_would_read(tmp_path, folder):
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    source = data.from_folder(tmp_path, (4, 4), BATCH, seed=0)
    mapped = source.map(lambda images: images[:, :2])
    whole = numbers(mapped)
    for number in flat(whole[:2]):
        (tmp_path / f"{number:02}.png").unlink()
    source.start_at(0, 2)
    assert numbers(mapped) == whole[2:]


def test_fit_gets_the_epoch_that_a_callback_asks_for():
    seen = []

    @tf.autograph.experimental.do_not_convert
    def note(images):
        rows = tf.py_function(lambda x: seen.append(x.numpy()[:, 0, 0, 0].tolist()), [images], [])
        with tf.control_dependencies(rows if isinstance(rows, list) else [rows]):
            return tf.cast(images, tf.float32), tf.cast(images, tf.float32)

    dataset = data.from_array(pictures(), BATCH, seed=3)
    expected = [numbers(dataset) for _ in range(3)]
    model = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Conv2D(3, 1)])
    model.compile("sgd", "mse")
    begin = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: (seen.clear(), dataset.start_at(epoch, 0)),
        on_epoch_end=lambda epoch, logs: np.testing.assert_equal(seen[:4], expected[epoch]),
    )
    model.fit(dataset.map(note), epochs=3, verbose=0, callbacks=[begin])


@pytest.mark.parametrize(
    ("repeat", "position", "message"),
    [
        (False, (-1, 0), "epoch=-1"),
        (False, (0, 0.5), "batch=0.5"),
        (False, (0, 5), "`batch` must be at most 4.*5"),
        (True, (1, 0), "`epoch` must be 0.*1"),
    ],
)
def test_wrong_positions_are_named(repeat, position, message):
    dataset = data.from_array(pictures(), BATCH, seed=0, repeat=repeat)
    with pytest.raises(ValueError, match=message):
        dataset.start_at(*position)


def test_unseeded_datasets_have_no_start():
    assert not hasattr(data.from_array(pictures(), BATCH), "start_at")


# shard


def pieces(dataset, count):
    """What a worker gets in each step: its stream, cut as tf.distribute cuts it."""
    return numbers(dataset.rebatch(BATCH // count))


def joined(shards, count):
    """Global batches from the workers' pieces."""
    parts = [pieces(shard, count) for shard in shards]
    return [flat(step) for step in itertools.zip_longest(*parts, fillvalue=[])]


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("seed", [None, 5])
def test_the_workers_parts_are_the_batches_of_one_device(pipeline, seed, count):
    whole = pipeline(seed=seed)
    shards = [pipeline(seed=seed, shard=(i, count)) for i in range(count)]
    # What `fit` counts its steps by.
    assert {int(shard.cardinality()) for shard in shards} == {4}
    assert joined(shards, count) == numbers(whole)
    assert joined(shards, count) == numbers(whole)  # the next epoch
    if seed is not None:
        for dataset in (whole, *shards):
            dataset.start_at(3, 2)
        assert joined(shards, count) == numbers(whole)


@pytest.mark.parametrize("total", [1, 16, 17, 23, 25, 31])
def test_uneven_ends_and_workers_without_rows(total):
    def make(shard=None):
        return data.from_array(pictures(total), BATCH, seed=0, shard=shard)

    for count in (2, 4):
        shards = [make((i, count)) for i in range(count)]
        parts = joined(shards, count)
        assert parts == numbers(make()) and sorted(flat(parts)) == list(range(total))
        assert {int(shard.cardinality()) for shard in shards} == {-(-total // BATCH)}


def test_parts_of_endless_datasets_with_labels():
    def make(shard=None):
        return data.from_array(
            pictures(), BATCH, labels=np.arange(TOTAL), seed=0, repeat=True, shard=shard
        )

    shards = [make((i, 2)) for i in range(2)]
    for dataset in shards:
        dataset.start_at(0, 5)
        assert int(dataset.cardinality()) == tf.data.INFINITE_CARDINALITY
    steps = zip(*(shard.rebatch(BATCH // 2) for shard in shards), strict=False)
    undisturbed = itertools.islice(make(), 5, 12)
    for step, (images, labels) in zip(steps, undisturbed, strict=False):
        np.testing.assert_array_equal(np.concatenate([part[0] for part in step]), images)
        np.testing.assert_array_equal(np.concatenate([part[1] for part in step]), labels)


def test_only_a_workers_own_files_are_read(tmp_path, folder):
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    one, other = (data.from_folder(tmp_path, (4, 4), BATCH, seed=0, shard=(i, 2)) for i in range(2))
    mine = flat(numbers(one))
    for number in set(range(TOTAL)) - set(mine):
        (tmp_path / f"{number:02}.png").unlink()
    one.start_at(0, 0)
    assert flat(numbers(one)) == mine
    with pytest.raises(tf.errors.NotFoundError):
        numbers(other)


def test_distribution_finds_the_global_batch_and_shards_no_further(pipeline):
    from tensorflow.python.data.experimental.ops import distribute

    dataset = pipeline(seed=0, shard=(0, 2))
    # Where this is -1, uneven ends would be cut differently.
    assert int(distribute.compute_batch_size(dataset)) == BATCH
    policy = dataset.options().experimental_distribute.auto_shard_policy
    assert policy == tf.data.experimental.AutoShardPolicy.OFF


@pytest.mark.parametrize(
    ("shard", "message"),
    [
        ((0, 3), "`batch_size`.*divisible by 3 workers, got 8"),
        ((2, 2), r"`shard`.*\(2, 2\)"),
        ((-1, 2), r"`shard`.*\(-1, 2\)"),
        ((0.0, 2), "`shard`"),
        (1, "`shard`.*got 1"),
    ],
)
def test_wrong_shards_are_named(pipeline, shard, message):
    with pytest.raises(ValueError, match=message):
        pipeline(shard=shard)


# this_worker


CLUSTER = {"worker": ["a:1", "b:1"], "ps": ["c:1"]}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (None, (0, 1)),
        ("", (0, 1)),
        ({}, (0, 1)),
        ({"cluster": CLUSTER, "task": {"type": "worker", "index": 1}}, (1, 2)),
        ({"cluster": CLUSTER, "task": {"type": "evaluator", "index": 0}}, (0, 1)),
        ({"cluster": {"chief": ["x:1"]} | CLUSTER, "task": {"type": "chief", "index": 0}}, (0, 3)),
        ({"cluster": {"chief": ["x:1"]} | CLUSTER, "task": {"type": "worker", "index": 1}}, (2, 3)),
    ],
)
def test_this_worker(monkeypatch, config, expected):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if config is not None:
        text = config if isinstance(config, str) else json.dumps(config)
        monkeypatch.setenv("TF_CONFIG", text)
    assert data.this_worker() == expected


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        json.dumps({"cluster": CLUSTER}),
        json.dumps({"cluster": CLUSTER, "task": {"type": "worker"}}),
        json.dumps({"cluster": CLUSTER, "task": {"type": "worker", "index": 2}}),
        json.dumps({"cluster": CLUSTER, "task": {"type": "ps", "index": 0}}),
        json.dumps({"cluster": 3, "task": {"type": "worker", "index": 0}}),
    ],
)
def test_malformed_tf_config_is_named(monkeypatch, text):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(ValueError, match="TF_CONFIG"):
        data.this_worker()


@pytest.mark.parametrize("function", ["fit", "evaluate", "encode"])
def test_datasets_of_unknown_rank(function):
    """`from_generator(output_types=...)` had ended in an error of Keras's about a shape."""
    images = np.zeros((4, 8, 8, 3), np.uint8)
    dataset = tf.data.Dataset.from_generator(lambda: iter([images]), output_types=tf.uint8)
    model = ImageVQVAE((8, 8, 3), 4, 2, hidden=4, residual_blocks=0)
    model.compile("sgd")
    model(images)
    if function == "encode":
        np.testing.assert_array_equal(model.encode(dataset), model.encode(images))
        return
    with pytest.raises(ValueError, match=f"`{function}` must be given .* `output_signature`"):
        getattr(model, function)(dataset)
    with pytest.raises(ValueError, match="`fit` must be given"):
        model.fit(images, validation_data=dataset)
