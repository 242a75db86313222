"""SavedModels of sound: the same numbers, streams, named errors."""

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

pytestmark = [pytest.mark.programs, pytest.mark.tensorflow]

if keras.backend.backend() != "tensorflow":  # the JAX run deselects this file by the mark
    pytest.skip("SavedModels are TensorFlow's", allow_module_level=True)

import tensorflow as tf  # noqa: E402

from keras_vqvae import (  # noqa: E402
    AudioVQVAE,
    SpectrogramEncoder,
    WaveNet,
    export_savedmodel,
)
from keras_vqvae.export.graphs import ops_of  # noqa: E402
from tests.models.test_audio import SAMPLES, assert_same_levels, make, sound, trained  # noqa: E402
from tests.serving.graphs import forbidden  # noqa: E402

# The parallel decoder without a source does nothing that the one with it does not.
DECODERS = ["wavenet", pytest.param("parallel", marks=pytest.mark.long), "source"]
SPEAKERS = np.array([0, 2, 1], "int32")


def prior() -> WaveNet:
    keras.utils.set_random_seed(1)
    small: dict = {"channels": 8, "skip_channels": 8, "dilations": (1, 2), "burn_in": 0}
    return WaveNet(16, num_classes=3, **small)


OTHER_STREAMS = (("source", True), ("wavenet", False), ("parallel", False), ("parallel", True))


@pytest.fixture(
    scope="module",
    params=["source", "wavenet", pytest.param("parallel", marks=pytest.mark.long)],
)
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


@pytest.mark.parametrize(
    ("decoder", "causal"),
    [
        ("source", False),
        ("wavenet", True),
        *(pytest.param(*case, marks=pytest.mark.long) for case in OTHER_STREAMS),
    ],
)
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
            feed |= drawing(model)
        else:
            feed["last"] = last
        answer = served.signatures["decode_stream"](**feed)
        decoding = {name: answer[name] for name in decoding}
        made.append(answer["waveform"].numpy())
    np.testing.assert_array_equal(np.concatenate(got, 1), codes)
    np.testing.assert_allclose(np.concatenate(made, 1), waveform, atol=1e-5)


def test_more_clips_than_a_batch(tmp_path: Path) -> None:
    """`decode` draws 16 clips at a time, the endpoint all at once: of the same numbers."""
    model = trained("wavenet")
    export_savedmodel(model, tmp_path / "1")
    served = tf.saved_model.load(str(tmp_path / "1"))
    codes = np.repeat(model.encode(sound(1, 48)), 20, 0)
    made = served.signatures["decode"](
        codes=tf.constant(codes), speaker=tf.constant([1]), **drawing(model)
    )["waveform"]
    assert_same_levels(made.numpy(), model.decode(codes, 1, seed=3))
    assert len(np.unique(np.round(made, 3), axis=0)) == 20


@pytest.mark.parametrize("chunk", [1, 100, 160])
def test_streams_of_spectra_take_small_chunks(chunk: int, tmp_path_factory) -> None:
    """Also chunks, and a first code, that are shorter than a window's half."""
    model, served = spectral_model(tmp_path_factory)
    x = sound(1, 480 if chunk == 1 else 1000, seed=4)
    state = {"pending": tf.zeros((1, 0)), "given": tf.constant(0)}
    got = []
    for start in range(0, x.shape[1] + 1, chunk):
        part = tf.constant(x[:, start : start + chunk])
        last = tf.constant(start + chunk > x.shape[1])
        answer = served.signatures["encode_stream"](waveform=part, last=last, **state)
        state = {name: answer[name] for name in state}
        got.append(answer["codes"].numpy())
    np.testing.assert_array_equal(np.concatenate(got, 1), model.encode(x))


def test_a_clip_of_one_code_of_spectra(tmp_path_factory) -> None:
    model, served = spectral_model(tmp_path_factory)
    x = sound(2, 160)
    codes = model.encode(x)
    assert codes.shape == (2, 1)
    np.testing.assert_array_equal(model.encode(tf.constant(x)), codes)
    endpoint = served.signatures["encode"]
    np.testing.assert_array_equal(endpoint(waveform=tf.constant(x))["codes"], codes)
    stream = model.streaming(2)
    streamed = [stream.encode(x[:, :50]), stream.encode(x[:, 50:]), stream.encode_end()]
    np.testing.assert_array_equal(np.concatenate(streamed, 1), codes)


SPECTRAL: list = []


def spectral_model(tmp_path_factory) -> tuple:
    """With an encoder of spectra whose window is two codes; exported once."""
    if not SPECTRAL:
        keras.utils.set_random_seed(0)
        encoder = SpectrogramEncoder(4, 8000, 160, window=320, bands=16, hidden=8)
        model = AudioVQVAE(
            8000, 16, 4, downsampling=160, encoder=encoder, decoder="parallel", hidden=8,
            finest_hidden=4,
        )  # fmt: skip
        model.adapt(sound(8, 3200))
        path = tmp_path_factory.mktemp("spectral") / "1"
        export_savedmodel(model, path)
        SPECTRAL.append((model, tf.saved_model.load(str(path))))
    return SPECTRAL[0]


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
    with pytest.raises(tf.errors.InvalidArgumentError, match="at least one code, got none"):
        served.signatures["log_prob"](
            codes=tf.constant(codes[:, :0]), condition=tf.constant(SPEAKERS)
        )
    feed |= {"number": tf.constant(1000), "length": tf.constant(2000)}
    with pytest.raises(
        tf.errors.InvalidArgumentError, match=r"at most 1048576 codes in all, got\] \[2000000"
    ):
        served.signatures["sample"](condition=tf.constant(SPEAKERS[:1]), **feed)


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
    for name, ops in ops_of(tmp_path / "1").items():
        assert not forbidden(ops), name
    told = json.loads((tmp_path / "1" / "signature.json").read_text(encoding="utf-8"))
    assert told["jit_compile"] is True
    # Clips of other lengths would fail each other.
    assert told["signatures"]["encode"]["batching"] is False


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


def test_what_a_wavenet_draws_is_bounded(tmp_path: Path) -> None:
    model = make("wavenet")
    long = sound(2, 100 * model.downsampling)
    export_savedmodel(model, tmp_path / "m" / "1", examples=long)
    served = tf.saved_model.load(str(tmp_path / "m" / "1")).signatures
    drawn = drawing(model)
    with pytest.raises(tf.errors.InvalidArgumentError, match="codes must be at most 16384 an exam"):
        served["decode"](codes=tf.zeros((1, 16385), tf.int32), **drawn)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"at most 1048576 codes in all, got"):
        served["decode"](codes=tf.zeros((65, 16384), tf.int32), **drawn)
    # Each start of a server runs its warm-up requests.
    records = tmp_path / "m" / "1" / "assets.extra" / "tf_serving_warmup_requests"
    assert records.stat().st_size < 7 * (2 * 8 * model.downsampling * 4 + 1000)
    assert records.stat().st_size < long.nbytes


STATES: dict[str, list] = {
    "encode_stream": [
        ({"waveform": SOUND[0]}, r"waveform must have shape \(batch, any\)"),
        ({"waveform": SOUND[..., None]}, r"waveform must have shape \(batch, any\)"),
        ({"pending": np.full((1, 8), np.nan, "float32")}, "pending must be finite"),
        ({"pending": np.zeros((2, 8), "float32")}, "pending must be of as many examples"),
        ({"given": np.int32(-3)}, "given must be at least 0"),
        ({"given": np.int32(999)}, "given must be at least 0"),
    ],
    "source": [
        ({"pending": np.full((1, 2), -1, "int32")}, r"pending must be in \[0, 16\)"),
        ({"given": np.int32(9)}, "given must be at least 0"),
        ({"source": np.zeros((2, 2), "int32")}, "source must be of as many"),
        ({"source": np.zeros((1, 3), "int32")}, r"source must have shape \(batch, 2\)"),
    ],
    "wavenet": [
        ({"buffers": np.zeros((1, 1, 6), "float32")}, "buffers must have 0 or"),
        ({"buffers": np.zeros((1, 99, 6), "float32")}, "buffers must have 0 or"),
        ({"buffers": np.zeros((2, 0, 6), "float32")}, "buffers must be of as many"),
        ({"buffers": np.zeros((1, 0, 5), "float32")}, r"must have shape \(batch, steps, 6\)"),
        ({"row": np.int32(-5)}, "row must be at least 0"),
        ({"row": np.int32(7)}, "buffers are needed after the beginning, got none and row"),
        ({"row": np.int32((2**31 - 1) // 8 - 1)}, "a stream ends after 268435455 codes"),
        ({"previous": np.full(1, 999, "int32")}, r"previous must be in \[0, "),
        ({"temperature": np.float32(np.inf)}, "temperature must be positive and finite"),
    ],
}  # fmt: skip


def test_bad_states(exported: tuple) -> None:
    model, served, _ = exported
    decoder = "wavenet" if model.is_autoregressive else "source"
    good: dict = {
        "encode_stream": {
            "waveform": SOUND, "pending": np.zeros((1, 8), "float32"), "given": np.int32(1),
            "last": np.bool_(False),
        },
        "wavenet": {
            "codes": np.zeros((1, 2), "int32"), "speaker": np.zeros(1, "int32"),
            "buffers": np.zeros((1, 0, 6), "float32"), "row": np.int32(0),
            "previous": np.zeros(1, "int32"), "seed": np.int32(0), "temperature": np.float32(1),
        },
        "source": {
            "codes": np.zeros((1, 2), "int32"), "speaker": np.zeros(1, "int32"),
            "pending": np.zeros((1, 1), "int32"), "given": np.int32(1),
            "last": np.bool_(False), "source": np.zeros((1, 2), "int32"),
        },
    }  # fmt: skip
    for name in ("encode_stream", decoder):
        endpoint = served.signatures[
            "encode_stream" if name == "encode_stream" else "decode_stream"
        ]
        feed = {k: v for k, v in good[name].items() if k in endpoint.structured_input_signature[1]}
        endpoint(**{k: tf.constant(v) for k, v in feed.items()})
        for wrong, message in STATES[name]:
            if not set(wrong) <= set(feed):  # without a source
                continue
            with pytest.raises(tf.errors.InvalidArgumentError, match=message):
                endpoint(**{k: tf.constant(v) for k, v in (feed | wrong).items()})
        endpoint(**{k: tf.constant(v) for k, v in feed.items()})


def test_empty_batch_of_a_stream(exported: tuple) -> None:
    model, served, _ = exported
    if not model.is_autoregressive:
        pytest.skip("streams of parallel decoders are emptied in tests/serving")
    answer = served.signatures["decode_stream"](
        codes=tf.zeros((0, 2), tf.int32), speaker=tf.zeros(0, tf.int32),
        buffers=tf.zeros((0, 0, 6)), row=tf.constant(0), previous=tf.zeros(0, tf.int32),
        **drawing(model),
    )  # fmt: skip
    assert answer["waveform"].shape == (0, 16) and answer["buffers"].shape[0] == 0


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


def test_refuses_a_prior_of_other_classes_than_the_speakers(tmp_path: Path) -> None:
    other = WaveNet(16, num_classes=2, dilations=(1,), burn_in=0)
    with pytest.raises(ValueError, match=r"prior must be conditioned on .* \(num_classes=3\)"):
        export_savedmodel(make(num_speakers=3), tmp_path / "1", prior=other)


def test_speech_of_a_prior_without_classes_in_any_voice(tmp_path: Path) -> None:
    model, other = trained("parallel"), WaveNet(16, dilations=(1,), burn_in=0)
    export_savedmodel(model, tmp_path / "1", prior=other)
    sample = tf.saved_model.load(str(tmp_path / "1")).signatures["sample"]
    how: dict = {"number": 3, "seed": 4, "temperature": 1.0, "top_k": 16, "top_p": 1.0}
    how = {name: tf.constant(x) for name, x in {**how, "length": 5}.items()}
    got = sample(**how, speaker=tf.constant(SPEAKERS))
    np.testing.assert_array_equal(got["codes"], other.sample(3, seed=4, length=5))
    wanted = model.decode(got["codes"].numpy(), SPEAKERS)
    np.testing.assert_allclose(got["waveform"], wanted, atol=1e-5)
    assert np.abs(wanted[0] - model.decode(got["codes"].numpy()[:1], 1)).max() > 1e-3
    one = sample(**how, speaker=tf.constant([1]))  # for all
    np.testing.assert_allclose(one["waveform"], model.decode(got["codes"].numpy(), 1), atol=1e-5)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"speaker must be in \[0, 3\)"):
        sample(**how, speaker=tf.constant([3]))


def test_without_speakers(tmp_path: Path) -> None:
    model = make("parallel")
    export_savedmodel(model, tmp_path / "1")
    served = tf.saved_model.load(str(tmp_path / "1"))
    assert "convert" not in served.signatures
    x = sound(2, SAMPLES)
    got = served.signatures["reconstruct"](waveform=tf.constant(x))["waveform"]
    np.testing.assert_allclose(got, model.reconstruct(x), atol=1e-6)
