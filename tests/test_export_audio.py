"""SavedModels of sound: the same numbers, streams, named errors."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

pytestmark = pytest.mark.tensorflow

if keras.backend.backend() != "tensorflow":  # the JAX run deselects this file by the mark
    pytest.skip("SavedModels are TensorFlow's", allow_module_level=True)

import tensorflow as tf  # noqa: E402

from keras_vqvae import WaveNet, export_savedmodel  # noqa: E402
from tests.models.test_audio import SAMPLES, assert_same_levels, make, sound, trained  # noqa: E402
from tests.test_export import ops_of_endpoints  # noqa: E402

# The parallel decoder without a source does nothing that the one with it does not.
DECODERS = ["wavenet", pytest.param("parallel", marks=pytest.mark.long), "source"]
SPEAKERS = np.array([0, 2, 1], "int32")


def prior() -> WaveNet:
    keras.utils.set_random_seed(1)
    small: dict = {"channels": 8, "skip_channels": 8, "dilations": (1, 2), "burn_in": 0}
    return WaveNet(16, num_classes=3, **small)


@pytest.fixture(scope="module", params=DECODERS)
def exported(request, tmp_path_factory) -> tuple:
    model = trained(request.param)
    path = tmp_path_factory.mktemp("served") / "voices" / "1"
    export_savedmodel(model, path, prior=prior())
    return model, tf.saved_model.load(str(path)), path


def drawing(model: Any) -> dict:
    """What endpoints take where a WaveNet draws."""
    values = {"seed": tf.constant(3), "temperature": tf.constant(1.0)}
    return values if model.is_autoregressive else {}


@pytest.mark.parametrize("batch, samples", [(0, 24), (1, 8), (3, 101)])
def test_same_numbers(exported: tuple, batch: int, samples: int) -> None:
    model, served, _ = exported
    x, speaker = sound(3, samples)[:batch], SPEAKERS[:batch]
    codes = model.encode(x)
    got = served.signatures["encode"](waveform=tf.constant(x))["codes"]
    assert got.dtype == tf.int32
    np.testing.assert_array_equal(got, codes)
    more = drawing(model)
    made = served.signatures["decode"](codes=got, speaker=tf.constant(speaker), **more)["waveform"]
    expected = model.decode(codes, speaker, seed=3)
    assert made.shape == expected.shape
    assert_same_levels(made.numpy(), expected)
    for name in ("reconstruct", "serving_default", "convert"):
        both = served.signatures[name](
            waveform=tf.constant(x), speaker=tf.constant(speaker), **more
        )
        assert_same_levels(both["waveform"].numpy(), expected[:, :samples])
        np.testing.assert_array_equal(both["codes"], codes)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("decoder", DECODERS)
def test_streams(decoder: str, causal: bool, tmp_path: Path) -> None:
    """State in and out, as a client holds it."""
    model = trained(decoder, causal=causal)
    export_savedmodel(model, tmp_path / "1")
    served = tf.saved_model.load(str(tmp_path / "1"))
    x = sound(2, 203, seed=4)
    speaker = tf.constant([1, 2])
    codes = model.encode(x)
    waveform = model.decode(codes, speaker, seed=3)
    encoding = {"pending": tf.zeros((2, 0)), "given": tf.constant(0)}
    decoding: dict = {"pending": tf.zeros((2, 0), tf.int32), "given": tf.constant(0)}
    if decoder == "source":
        decoding["source"] = tf.zeros((2, 2), tf.int32)
    if decoder == "wavenet":
        decoding = {"buffers": tf.zeros((2, 0, 6)), "row": tf.constant(0)}
        decoding |= {"previous": tf.zeros(2, tf.int32)}
    got, made, fed = [], [], 0
    sizes = [5, 64, 0, 30, 104, 0]
    for i, size in enumerate(sizes):
        last = tf.constant(i == len(sizes) - 1)
        chunk = tf.constant(x[:, fed : fed + size])
        fed += size
        answer = served.signatures["encode_stream"](waveform=chunk, last=last, **encoding)
        encoding = {name: answer[name] for name in encoding}
        got.append(answer["codes"].numpy())
        feed: dict = {"codes": answer["codes"], "speaker": speaker, **decoding}
        if decoder == "wavenet":
            if got[-1].shape[1] == 0:
                continue
            feed |= drawing(model)
        else:
            feed["last"] = last
        answer = served.signatures["decode_stream"](**feed)
        decoding = {name: answer[name] for name in decoding}
        made.append(answer["waveform"].numpy())
    np.testing.assert_array_equal(np.concatenate(got, 1), codes)
    np.testing.assert_allclose(np.concatenate(made, 1), waveform, atol=1e-5)


def test_samples(exported: tuple) -> None:
    model, served, _ = exported
    codes = prior().sample(3, condition=SPEAKERS, length=10, seed=5)
    scalars = {"number": 3, "seed": 5, "temperature": 1.0, "top_k": 16, "top_p": 1.0, "length": 10}
    feed = {name: tf.constant(value) for name, value in scalars.items()}
    got = served.signatures["sample"](condition=tf.constant(SPEAKERS), **feed)
    np.testing.assert_array_equal(got["codes"], codes)
    assert_same_levels(got["waveform"].numpy(), model.decode(codes, SPEAKERS, seed=5))
    # None, and one condition for all.
    feed["number"] = tf.constant(0)
    none = served.signatures["sample"](condition=tf.constant(SPEAKERS[:1]), **feed)
    assert none["codes"].shape == (0, 10) and none["waveform"].shape == (0, 80)
    log_prob = served.signatures["log_prob"](
        codes=tf.constant(codes), condition=tf.constant(SPEAKERS)
    )["log_prob"]
    expected = prior().log_prob({"codes": codes, "condition": SPEAKERS})
    np.testing.assert_allclose(log_prob, expected, rtol=1e-5)


def test_compiled_by_xla(tmp_path: Path) -> None:
    model = trained("wavenet")
    export_savedmodel(model, tmp_path / "1", jit_compile=True)
    served = tf.saved_model.load(str(tmp_path / "1"))
    codes = model.encode(sound(2))
    for batch in (1, 2):
        made = served.signatures["decode"](
            codes=tf.constant(codes[:batch]), speaker=tf.constant([1]), **drawing(model)
        )["waveform"]
        assert_same_levels(made.numpy(), model.decode(codes[:batch], 1, seed=3))


def test_nothing_is_written_and_all_ops_are_tensorflows(exported: tuple) -> None:
    for name, ops in ops_of_endpoints(exported[2]).items():
        foreign = [op for op in ops if "Xla" in op or op.startswith("Assign") or "PyFunc" in op]
        assert not foreign, (name, foreign)


SOUND = np.zeros((1, 64), "float32")
BAD = [
    ("encode", {"waveform": SOUND[:, :7]}, "shorter than one code of 8 samples, got.*7"),
    ("encode", {"waveform": np.full((1, 64), np.nan, "float32")}, "waveform must be finite"),
    ("encode", {"waveform": SOUND - 2}, r"waveform must be in \[-1, 1\], got.*2"),
    ("convert", {"waveform": SOUND, "speaker": np.array([3])}, r"speaker must be in \[0, 3\)"),
    (
        "convert",
        {"waveform": SOUND, "speaker": np.array([1, 1])},
        "speaker must be one, or one for",
    ),
    (
        "decode",
        {"codes": np.full((1, 4), 16), "speaker": np.array([0])},
        r"codes must be in \[0, 16",
    ),
    (
        "decode",
        {"codes": np.zeros((1, 0)), "speaker": np.array([0])},
        "at least one code, got none",
    ),
]


@pytest.mark.parametrize("endpoint, feed, message", BAD)
def test_bad_requests(exported: tuple, endpoint: str, feed: dict, message: str) -> None:
    model, served, _ = exported
    kinds = {"waveform": "float32"}
    feeds = {n: tf.constant(v.astype(kinds.get(n, "int32"))) for n, v in feed.items()}
    if endpoint != "encode":
        feeds |= drawing(model)
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        served.signatures[endpoint](**feeds)
    assert served.signatures["encode"](waveform=tf.constant(sound(2)))["codes"].shape[0] == 2


def test_bad_temperature(exported: tuple) -> None:
    model, served, _ = exported
    if not model.is_autoregressive:
        with pytest.raises(TypeError):  # a parallel decoder has none
            served.signatures["decode"](
                codes=tf.zeros((1, 2), tf.int32), temperature=tf.constant(1.0)
            )
        return
    with pytest.raises(tf.errors.InvalidArgumentError, match="temperature must be positive"):
        served.signatures["decode"](
            codes=tf.zeros((1, 2), tf.int32), speaker=tf.constant([0]), seed=tf.constant(0),
            temperature=tf.constant(0.0),
        )  # fmt: skip


def test_refuses_a_prior_that_does_not_know_the_speakers(tmp_path: Path) -> None:
    other = WaveNet(16, dilations=(1,), burn_in=0)
    with pytest.raises(ValueError, match=r"prior must be conditioned on .* \(num_classes=3\)"):
        export_savedmodel(make(num_speakers=3), tmp_path / "1", prior=other)


def test_without_speakers(tmp_path: Path) -> None:
    model = make("parallel")
    export_savedmodel(model, tmp_path / "1")
    served = tf.saved_model.load(str(tmp_path / "1"))
    assert "convert" not in served.signatures
    x = sound(2, SAMPLES)
    got = served.signatures["reconstruct"](waveform=tf.constant(x))["waveform"]
    np.testing.assert_allclose(got, model.reconstruct(x), atol=1e-6)
