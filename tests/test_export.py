"""SavedModels: the same numbers, named errors, nothing written, no foreign op."""

from collections.abc import Callable, Iterator
from pathlib import Path

import keras
import numpy as np
import pytest

pytestmark = pytest.mark.tensorflow

if keras.backend.backend() != "tensorflow":  # the JAX run deselects this file by the mark
    pytest.skip("SavedModels are TensorFlow's", allow_module_level=True)

import tensorflow as tf  # noqa: E402
from tensorflow.core.protobuf import saved_model_pb2  # noqa: E402

from keras_vqvae import ImageVQVAE, VectorQuantizer, export_savedmodel  # noqa: E402

SHAPE = (16, 24, 3)


def pictures(n: int = 10) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, *SHAPE)).astype("uint8")


def trained(**options: object) -> ImageVQVAE:
    keras.utils.set_random_seed(0)
    quantizer = VectorQuantizer(20, 8, seed=0, **options)
    vqvae = ImageVQVAE(SHAPE, hidden=16, quantizer=quantizer)
    vqvae.compile("adam")
    vqvae.fit(pictures(), verbose=0)
    return vqvae


@pytest.fixture(scope="module", params=["ema", "gradient"])
def exported(request, tmp_path_factory) -> Iterator[tuple]:
    vqvae = trained(codebook=request.param)
    path = tmp_path_factory.mktemp("served") / "model" / "1"
    export_savedmodel(vqvae, path)
    yield vqvae, tf.saved_model.load(str(path)), path


@pytest.mark.parametrize("batch", [0, 1, 7])
def test_same_numbers(exported: tuple, batch: int) -> None:
    vqvae, served, _ = exported
    images = pictures()[:batch]
    codes = vqvae.encode(images)
    got = served.signatures["encode"](images=tf.constant(images))
    assert got["codes"].dtype == tf.int32
    np.testing.assert_array_equal(got["codes"], codes)
    decoded = served.signatures["decode"](codes=got["codes"])["images"]
    assert decoded.dtype == tf.uint8 and decoded.shape == (batch, *SHAPE)
    np.testing.assert_array_equal(decoded, vqvae.decode(codes))
    for name in ("reconstruct", "serving_default"):
        both = served.signatures[name](images=tf.constant(images))
        np.testing.assert_array_equal(both["images"], decoded)
        np.testing.assert_array_equal(both["codes"], codes)


def test_training_on_does_not_change_what_was_exported(tmp_path: Path) -> None:
    vqvae = trained()
    export_savedmodel(vqvae, tmp_path / "1")
    served = tf.saved_model.load(str(tmp_path / "1"))
    before = vqvae.encode(pictures())
    vqvae.fit(pictures(), epochs=3, verbose=0)
    np.testing.assert_array_equal(served.encode(pictures())["codes"], before)


@pytest.mark.parametrize(
    ("endpoint", "feed", "message"),
    [
        ("encode", lambda: {"images": np.zeros((2, 16, 20, 3), "uint8")}, "images must have shape"),
        ("encode", lambda: {"images": np.zeros((2, 16, 24, 1), "uint8")}, "images must have shape"),
        (
            "reconstruct",
            lambda: {"images": np.zeros((16, 24, 3), "uint8")},
            "images must have shape",
        ),
        ("decode", lambda: {"codes": np.full((1, 4, 6), 20, "int32")}, r"codes must be in \[0, 20"),
        ("decode", lambda: {"codes": np.full((1, 4, 6), -1, "int32")}, r"codes must be in \[0, 20"),
        ("decode", lambda: {"codes": np.zeros((1, 6, 4), "int32")}, "codes must have shape"),
    ],
)
def test_bad_requests(
    exported: tuple, endpoint: str, feed: Callable[[], dict], message: str
) -> None:
    _, served, _ = exported
    feeds = {name: tf.constant(value) for name, value in feed().items()}
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        served.signatures[endpoint](**feeds)
    # and the next good request is served
    assert served.encode(pictures(2))["codes"].shape == (2, 4, 6)


def test_graph_writes_nothing_and_holds_only_tensorflows_ops(exported: tuple) -> None:
    _, _, path = exported
    saved = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    library = {f.signature.name: f for g in saved.meta_graphs for f in g.graph_def.library.function}

    def reached(node: object, seen: set) -> set:
        ops = {node.op}
        for name in {a.func.name for a in node.attr.values()} & library.keys() - seen:
            seen.add(name)
            for inner in library[name].node_def:
                ops |= reached(inner, seen)
        return ops

    graph = saved.meta_graphs[0]
    nodes = {node.name: node for node in graph.graph_def.node}
    for name in ("encode", "decode", "reconstruct"):
        outputs = graph.signature_def[name].outputs.values()
        ops = set().union(*(reached(nodes[o.name.split(":")[0]], set()) for o in outputs))
        assert "Conv2D" in ops and ("TopKV2" in ops or name == "decode")  # all was walked
        foreign = {op for op in ops if op.startswith(("Assign", "PyFunc", "EagerPy", "Xla"))}
        assert not foreign and "Bitcast" not in ops and not any("Random" in op for op in ops)


def test_bad_destinations(exported: tuple, tmp_path: Path) -> None:
    vqvae, _, path = exported
    with pytest.raises(ValueError, match="is not empty"):
        export_savedmodel(vqvae, path)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ValueError, match="cannot write a SavedModel"):
        export_savedmodel(vqvae, tmp_path / "file" / "1")
    with pytest.raises(ValueError, match="vqvae must be a built VQVAE"):
        export_savedmodel(keras.Sequential(), tmp_path / "1")
    assert not (tmp_path / "1").exists()


def test_kerass_own_export(tmp_path: Path) -> None:
    vqvae = trained()
    vqvae.export(tmp_path / "keras", verbose=False)
    served = tf.saved_model.load(str(tmp_path / "keras"))
    np.testing.assert_array_equal(served.serve(pictures())["codes"], vqvae.encode(pictures()))
