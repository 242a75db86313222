"""Records: what was written comes back, in an order that resumes and divides; damage is named."""

import itertools
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from keras_vqvae import data
from keras_vqvae.data import records_writer
from tests.inside import inside, replace

pytestmark = pytest.mark.tensorflow  # pipelines know no backend

TOTAL, BATCH, FILES = 26, 8, 5


def pictures(count=TOTAL):
    return np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, 4, 4, 3))


def numbers(dataset, batches=None):
    taken = dataset if batches is None else itertools.islice(dataset, batches)
    return [batch.numpy()[:, 0, 0, 0].tolist() for batch in taken]


def flat(lists):
    return list(itertools.chain.from_iterable(lists))


def same(found, expected):
    tf.nest.assert_same_structure(found, expected)
    for x, y in zip(tf.nest.flatten(found), tf.nest.flatten(expected), strict=True):
        assert np.asarray(x).dtype == np.asarray(y).dtype
        np.testing.assert_array_equal(x, y)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("records")
    data.write_records(pictures(), folder, FILES)
    return folder


@pytest.fixture
def own_folder(tmp_path):
    data.write_records(pictures(), tmp_path / "records", FILES)
    return tmp_path / "records"


# What comes back.


def test_arrays_come_back_in_order(folder):
    dataset = data.from_records(folder, BATCH)
    assert dataset.element_spec == tf.TensorSpec((None, 4, 4, 3), tf.uint8)
    assert int(dataset.cardinality()) == 4
    assert numbers(dataset) == [list(range(i, min(i + 8, TOTAL))) for i in range(0, TOTAL, 8)]
    assert len(list(folder.glob("*.tfrecord"))) == FILES


@pytest.mark.parametrize(
    "dtype", "bool uint8 int8 uint16 int16 int32 int64 float16 float32 float64".split()
)
def test_every_dtype_and_scalars(tmp_path, dtype):
    values = np.random.default_rng(0).normal(scale=1000, size=(7, 3)).astype(dtype)
    expected = {"x": values, "scalar": values[:, 0], "empty": values[:, :0]}
    data.write_records(expected, tmp_path / "r", 2)
    same(next(iter(data.from_records(tmp_path / "r"))), tf.nest.map_structure(np.array, expected))
    big = {name: array.astype(array.dtype.newbyteorder(">")) for name, array in expected.items()}
    data.write_records(big, tmp_path / "big", 2)
    same(next(iter(data.from_records(tmp_path / "big"))), expected)


def test_datasets_of_batches_come_back(tmp_path):
    pairs = data.from_array(pictures(), BATCH, labels=np.arange(TOTAL))
    data.write_records(pairs.map(lambda x, y: {"image": x, "label": y}), tmp_path / "r", 3)
    expected = {"image": pictures(), "label": np.arange(TOTAL, dtype=np.int32)}
    (whole,) = data.from_records(tmp_path / "r", TOTAL)
    same(whole, expected)
    data.write_records(data.from_array(pictures(), BATCH), tmp_path / "s", 3)
    assert flat(numbers(data.from_records(tmp_path / "s", BATCH))) == list(range(TOTAL))


def test_sound_and_episodes_of_any_length(tmp_path):
    random = np.random.default_rng(0)
    waves = [random.normal(size=n).astype("float32") for n in (5, 0, 1000, 7)]
    data.write_records(iter(waves), tmp_path / "sound", 2)
    dataset = data.from_records(tmp_path / "sound", None)
    assert dataset.element_spec == tf.TensorSpec((None,), tf.float32)
    assert int(dataset.cardinality()) == 4
    for found, expected in zip(dataset, waves, strict=True):
        np.testing.assert_array_equal(found, expected)
    episodes = [
        {"frames": random.integers(0, 256, (n, 6, 8, 3), np.uint8), "actions": np.arange(n)}
        for n in (3, 9, 4)
    ]
    data.write_records(episodes, tmp_path / "episodes", 16)
    dataset = data.from_records(tmp_path / "episodes", None)
    assert dataset.element_spec["frames"] == tf.TensorSpec((None, 6, 8, 3), tf.uint8)
    for found, expected in zip(dataset, episodes, strict=True):
        same(found, expected)
    with pytest.raises(ValueError, match=r"frames, actions.*`batch_size=None`.*crop"):
        data.from_records(tmp_path / "episodes", 2)
    # The cure.
    crops = dataset.map(lambda episode: episode["frames"][:3]).batch(3)
    assert next(iter(crops)).shape == (3, 3, 6, 8, 3)


# Order.


def test_seed_alone_decides_the_order_of_every_epoch(folder):
    runs = []
    for global_seed in (0, 7):
        tf.random.set_seed(global_seed)
        dataset = data.from_records(folder, BATCH, seed=2)
        assert int(dataset.cardinality()) == 4
        runs.append([flat(numbers(dataset)) for _ in range(3)])
    assert runs[0] == runs[1]
    assert len({str(epoch) for epoch in runs[0]}) == 3
    assert all(sorted(epoch) == list(range(TOTAL)) for epoch in runs[0])


def test_a_small_buffer_still_mixes_the_files(folder, monkeypatch):
    from keras_vqvae.data import records

    replace(monkeypatch, records, "SHUFFLE_BYTES", 1)
    replace(monkeypatch, records, "OPEN_FILES", 2)
    dataset = data.from_records(folder, BATCH, seed=2)
    epochs = [flat(numbers(dataset)) for _ in range(2)]
    assert epochs[0] != epochs[1] and all(sorted(e) == list(range(TOTAL)) for e in epochs)
    dataset.start_at(0, 2)
    assert flat(numbers(dataset)) == epochs[0][16:]


@pytest.mark.parametrize("batch_size", [BATCH, None])
def test_start_at_goes_on_bit_for_bit(folder, batch_size):
    def epoch(dataset):
        return [batch.numpy().tolist() for batch in dataset]

    dataset = data.from_records(folder, batch_size, seed=3)
    epochs = [epoch(dataset) for _ in range(4)]
    for number, batch in [(2, 0), (1, 3), (0, 1)]:
        again = data.from_records(folder, batch_size, seed=3)
        again.start_at(number, batch)
        assert epoch(again) == epochs[number][batch:]
        assert epoch(again) == epochs[number + 1]
        assert int(again.cardinality()) == len(epochs[0])


@pytest.mark.parametrize("shard", [None, (1, 2)])
@pytest.mark.parametrize("batch", [0, 3, 4, 30])
def test_start_at_of_endless_records(folder, batch, shard):
    stream = data.from_records(folder, BATCH, seed=1, repeat=True, shard=shard)
    assert int(stream.cardinality()) == tf.data.INFINITE_CARDINALITY
    rows = BATCH if shard is None else BATCH // 2  # of a global batch
    whole = flat(numbers(stream, 34))
    stream.start_at(0, batch)
    assert flat(numbers(stream, 3)) == whole[batch * rows :][: 3 * BATCH]


def test_repeat_without_a_seed(folder):
    stream = data.from_records(folder, BATCH, repeat=True)
    assert int(stream.cardinality()) == tf.data.INFINITE_CARDINALITY
    assert flat(numbers(stream, 13)) == list(range(TOTAL)) * 4


@pytest.mark.parametrize("seed", [None, 5])
def test_workers_read_their_own_files(own_folder, seed):
    shards = [data.from_records(own_folder, BATCH, seed=seed, shard=(i, 2)) for i in range(2)]
    parts = [numbers(shard.rebatch(BATCH // 2)) for shard in shards]
    assert sorted(flat(flat(parts))) == list(range(TOTAL))
    # As many steps as the worker takes that has most: 6, 5, 5, 5, 5 examples.
    assert [len(part) for part in parts] == [4, 3]
    assert [int(shard.cardinality()) for shard in shards] == [4, 4]
    if seed is not None:
        for shard, part in zip(shards, parts, strict=True):
            shard.start_at(0, 2)
            assert numbers(shard.rebatch(BATCH // 2)) == part[2:]
    single = data.from_records(own_folder, None, seed=seed, shard=(1, 2))
    assert len(list(single)) == 10
    for i in range(0, FILES, 2):
        (own_folder / f"records-{i:05}-of-{FILES:05}.tfrecord").unlink()
    assert sorted(flat(numbers(data.from_records(own_folder, BATCH, shard=(1, 2))))) == sorted(
        flat(parts[1])
    )


def test_without_a_seed_another_process_can_run_the_graph(folder, tmp_path):
    dataset = data.from_records(folder, BATCH, repeat=True)
    (tmp_path / "graph").write_bytes(inside(dataset).as_serialized_graph().numpy())
    program = (
        "import sys, tensorflow as tf\n"
        "graph = tf.constant(open(sys.argv[1], 'rb').read())\n"
        "variant = tf.raw_ops.DatasetFromGraph(graph_def=graph)\n"
        "spec = tf.TensorSpec((None, 4, 4, 3), tf.uint8)\n"
        "dataset = tf.data.experimental.from_variant(variant, spec)\n"
        "print(next(iter(dataset))[:, 0, 0, 0].numpy().tolist())\n"
    )
    line = [sys.executable, "-c", program, str(tmp_path / "graph")]
    found = subprocess.run(line, capture_output=True, text=True, timeout=120, check=True)
    assert json.loads(found.stdout) == list(range(8))


# Damage.


def test_unfinished_records_say_so_and_can_be_written_again(tmp_path):
    def dying():
        yield from pictures(7)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        data.write_records(dying(), tmp_path / "r", 3)
    assert list((tmp_path / "r").iterdir())
    for read in (data.from_records, data.check_records):
        with pytest.raises(ValueError, match="records.json.*not finished"):
            read(tmp_path / "r")
    data.write_records(pictures(), tmp_path / "r", 2)
    assert len(list((tmp_path / "r").iterdir())) == 3
    assert flat(numbers(data.from_records(tmp_path / "r"))) == list(range(TOTAL))


def test_nothing_is_overwritten(own_folder, tmp_path):
    with pytest.raises(ValueError, match="records already"):
        data.write_records(pictures(), own_folder)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("all of it")
    with pytest.raises(ValueError, match="thesis.tex"):
        data.write_records(pictures(), tmp_path / "other")
    with pytest.raises(ValueError, match="is a file"):
        data.write_records(pictures(), tmp_path / "other" / "thesis.tex")


def test_missing_and_truncated_files_are_named_at_once(own_folder):
    file = own_folder / "records-00001-of-00005.tfrecord"
    content = file.read_bytes()
    file.write_bytes(content[:-1])
    for read in (data.from_records, data.check_records):
        with pytest.raises(ValueError, match=f"00001-of-00005.*{len(content) - 1} bytes"):
            read(own_folder)
    file.unlink()
    for read in (data.from_records, data.check_records):
        with pytest.raises(ValueError, match="00001-of-00005.*missing"):
            read(own_folder)


def test_a_flipped_byte_is_found(own_folder):
    data.check_records(own_folder)
    file = own_folder / "records-00003-of-00005.tfrecord"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(tf.errors.DataLossError):
        numbers(data.from_records(own_folder, BATCH))
    with pytest.raises(ValueError, match="00003-of-00005.*corrupted"):
        data.check_records(own_folder)
    file.write_bytes(b"")
    sidecar = json.loads((own_folder / "records.json").read_text())
    sidecar["files"][3]["bytes"] = 0
    (own_folder / "records.json").write_text(json.dumps(sidecar))
    with pytest.raises(ValueError, match="00003-of-00005.*0 of 5 examples"):
        data.check_records(own_folder)


@pytest.mark.parametrize(
    ("content", "message"), [("{", "damaged"), ("[]", "damaged"), ('{"format": 99}', "format 99")]
)
def test_other_sidecars_are_named(own_folder, content, message):
    (own_folder / "records.json").write_text(content)
    with pytest.raises(ValueError, match=f"records.json.*{message}"):
        data.from_records(own_folder)


# Arguments.


@pytest.mark.parametrize(
    ("examples", "message"),
    [
        ([], "no example"),
        (np.zeros((0, 3), "uint8"), "no example"),
        (3, "got a int"),
        ((np.zeros(3), np.zeros(3)), "got a tuple"),
        ([(np.zeros(3), 1)], r"no tuple.*dataset.map\(lambda image, label"),
        (data.from_array(pictures(), labels=np.arange(TOTAL)), "names.*dataset.map"),
        (data.from_array(pictures(), repeat=True), "endless.*`take`"),
        ({"a": np.zeros(3), "b": np.zeros(4)}, r"one length.*\(3,\).*\(4,\)"),
        ({"a": np.zeros(3), "b": np.zeros(())}, "one length"),
        ({1: np.zeros(3)}, "names"),
        ([{}], "names"),
        (["text"], "dtype <U4"),
        ([np.zeros(3), np.zeros(3, "float32")], "number 1 is float32.*first is float64"),
        ([np.zeros(3), np.zeros((3, 1))], r"number 1.*\(3, 1\).*rank 1"),
        ([{"a": np.zeros(3)}, {"b": np.zeros(3)}], r"Example 1.*\['b'\].*\['a'\]"),
        ([{"a": np.zeros(3)}, np.zeros(3)], "Example 1"),
        ([np.zeros(2), np.zeros(3), [[1.0], [1.0, 2.0]]], "inhomogeneous|shape"),
    ],
)
def test_wrong_examples_are_named_and_leave_nothing_whole(tmp_path, examples, message):
    with pytest.raises(ValueError, match=message):
        data.write_records(examples, tmp_path / "r", 2)
    with pytest.raises(ValueError, match="not finished"):
        data.from_records(tmp_path / "r")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "`batch_size`.*0"),
        ({"seed": -1}, "`seed`.*-1"),
        ({"shard": (0, 3)}, "`batch_size`.*3"),
        ({"shard": (0, 8)}, "`shard`: 8 workers.*5.*num_files=8"),
        ({"shard": (4, 4)}, "`shard`"),
        ({"folder": "nowhere"}, "nowhere"),
    ],
)
def test_wrong_arguments_are_named(folder, arguments, message):
    with pytest.raises(ValueError, match=message):
        data.from_records(**{"folder": folder, "batch_size": BATCH} | arguments)


def test_wrong_numbers_of_files_and_workers_without_examples(tmp_path):
    with pytest.raises(ValueError, match="`num_files`.*0"):
        data.write_records(pictures(), tmp_path / "r", 0)
    data.write_records(pictures(1), tmp_path / "r", 2)
    with pytest.raises(ValueError, match="worker 1.*no example"):
        data.from_records(tmp_path / "r", 2, shard=(1, 2))


# Many files, and file systems that are not this machine's.


@pytest.mark.parametrize("seed", [None, 3])
def test_many_files_are_opened_a_few_at_a_time(tmp_path, monkeypatch, seed):
    """Would fail if all files were open at once: a process may open 1,024 files, or 256."""
    replace(monkeypatch, records_writer, "OPEN_FILES", 2)
    resource = pytest.importorskip("resource")
    examples = np.arange(103)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    opened = max(map(int, os.listdir("/proc/self/fd")))
    resource.setrlimit(resource.RLIMIT_NOFILE, (opened + 40, before[1]))
    try:
        data.write_records(examples, tmp_path / "many", num_files=60)
        data.check_records(tmp_path / "many")
        dataset = data.from_records(tmp_path / "many", 10, seed=seed)
        got = np.concatenate(list(dataset.as_numpy_iterator()))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert (sorted(got) if seed else list(got)) == list(range(103))
    files = json.loads((tmp_path / "many" / "records.json").read_text())["files"]
    assert [file["examples"] for file in files] == [2] * 43 + [1] * 17
    assert {path.suffix for path in (tmp_path / "many").iterdir()} == {".tfrecord", ".json"}


def test_an_interrupted_writing_of_many_files_is_done_again(tmp_path, monkeypatch):
    replace(monkeypatch, records_writer, "OPEN_FILES", 2)

    def interrupted():
        yield np.zeros(3)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        data.write_records(interrupted(), tmp_path, num_files=3)
    assert not list(tmp_path.glob("*.json"))
    data.write_records(np.arange(4), tmp_path, num_files=5)  # one file has none
    (got,) = data.from_records(tmp_path, 8)
    assert got.numpy().tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("num_files", [2, 70])
def test_records_of_another_file_system(num_files):
    """`gs://` had become a local folder `gs:`, in silence."""
    folder = f"ram://test_records/{num_files}"
    data.write_records({"a": np.arange(80), "b": np.ones((80, 2))}, folder, num_files)
    data.check_records(folder)
    (got,) = data.from_records(folder, 80)
    assert got["a"].numpy().tolist() == list(range(80))
    with pytest.raises(ValueError, match="holds records already"):
        data.write_records(np.arange(3), folder)
    with pytest.raises(ValueError, match=r"ram://nothing-here holds no records.json"):
        data.from_records("ram://nothing-here")


def test_folders_of_records_whose_names_are_not_utf8(tmp_path):
    folder = os.fsencode(tmp_path) + b"/caf\xe9"
    data.write_records(np.arange(5), folder, 2)
    assert next(iter(data.from_records(folder, 5))).numpy().tolist() == [0, 1, 2, 3, 4]


def test_an_interruption_at_the_very_end_leaves_records_unfinished(tmp_path, monkeypatch):
    """What says that all is there appears whole, by a rename, or not at all."""

    def dying(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", dying)
        with pytest.raises(KeyboardInterrupt):
            data.write_records(pictures(), tmp_path / "r", 2)
    with pytest.raises(ValueError, match="not finished"):
        data.from_records(tmp_path / "r")
    data.write_records(pictures(), tmp_path / "r", 2)
    assert flat(numbers(data.from_records(tmp_path / "r"))) == list(range(TOTAL))
