"""AudioVQVAE: training, coding, conversion, streaming, bad input."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import scipy.special

from keras_vqvae import AudioVQVAE, ParallelDecoder, VectorQuantizer, WaveNetDecoder, functional
from keras_vqvae.likelihoods import LogisticMixture
from keras_vqvae.models import audio
from tests.checks import assert_same, check_model, copy_by_config, floats, to_numpy

SAMPLES = 128


def wavenet(**options: Any) -> WaveNetDecoder:
    small = {"channels": 6, "skip_channels": 8, "dilations": (1, 2, 4)}
    return WaveNetDecoder(8, **{**small, **options})


def make(decoder: str = "wavenet", **options: Any) -> AudioVQVAE:
    dtype = options.get("dtype")
    layer: Any = wavenet(dtype=dtype)
    if decoder != "wavenet":
        layer = ParallelDecoder(
            (4, 2), 8, finest_hidden=6, dilations=(1, 2), causal=options.get("causal", False),
            sample_rate=8000 if decoder == "source" else None, seed=0, dtype=dtype,
        )  # fmt: skip
    small = {"downsampling": 8, "hidden": 8, "finest_hidden": 6, "residual_blocks": 1}
    return AudioVQVAE(8000, 16, 4, decoder=layer, **{**small, **options})


def sound(n: int = 5, samples: int = SAMPLES, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    pitch, loud = random.uniform(0.01, 0.2, (n, 1)), random.uniform(0.2, 0.7, (n, 1))
    tone = loud * np.sin(2 * np.pi * pitch * np.arange(samples))
    return (tone + random.normal(0, 0.02, (n, samples))).clip(-1, 1).astype("float32")


def data(n: int = 5, **more: Any) -> dict:
    return {"waveform": sound(n), "speaker": (np.arange(n) % 3).astype("int32"), **more}


def trained(decoder: str, **options: Any) -> AudioVQVAE:
    """Some steps, for codes and samples of some variety."""
    keras.utils.set_random_seed(0)
    model = make(decoder, num_speakers=3, **options)
    model.compile(keras.optimizers.Adam(0.01))
    model.fit(data(32), batch_size=8, epochs=3, verbose=0)
    model.adapt(data(32))
    return model


DECODERS = ["wavenet", "parallel", "source"]


@pytest.mark.parametrize(
    "decoder, speakers",
    [
        ("wavenet", 3),
        ("parallel", None),
        ("source", 3),
        pytest.param("wavenet", None, marks=pytest.mark.long),
        pytest.param("parallel", 3, marks=pytest.mark.long),
    ],
)
def test_shared_checks(decoder: str, speakers: int | None, tmp_path: Path) -> None:
    x = data() if speakers else sound()
    model = make(decoder, num_speakers=speakers)
    trainable = sum(int(np.prod(w.shape)) for w in model.trainable_weights)
    check_model(
        lambda **kw: make(decoder, num_speakers=speakers, **kw), x, tmp_path, trainable=trainable
    )


@pytest.mark.parametrize("downsampling", [64, 128, 640])
def test_downsampling(downsampling: int) -> None:
    model = AudioVQVAE(
        16000, downsampling=downsampling, hidden=8, finest_hidden=4, decoder="parallel"
    )
    codes = model.encode(sound(2, 3 * downsampling + 1))
    assert codes.shape == (2, 4)
    assert model.decode(codes).shape == (2, 4 * downsampling)
    assert model.bits_per_second == pytest.approx(9 * 16000 / downsampling)


def test_the_papers_encoder_is_a_matter_of_arguments() -> None:
    """Section 4.3: six strided convolutions of stride 2 and window 4; here of 768 channels."""
    model = AudioVQVAE(16000, downsampling=64, hidden=768, finest_hidden=None)
    strided = [x for x in model.encoder._layers_in_order if getattr(x, "strides", 0) == (2,)]
    assert [x.kernel_size for x in strided] == [(4,)] * 6
    assert [x.filters for x in strided] == [768] * 6
    assert model.receptive_field == 3 * 1023 + 1
    assert model.receptive_field_ms == pytest.approx(191.875)


def test_the_outputs_are_causal_in_the_waveform_and_see_all_codes_of_their_own() -> None:
    decoder = wavenet()
    latents, waveform = floats((1, 4, 3)), sound(1, 32)
    base = to_numpy(decoder(latents, waveform))
    changed = waveform.copy()
    changed[0, 11] += 0.5
    moved = np.abs(to_numpy(decoder(latents, changed)) - base).max((0, 2)) > 0
    assert list(np.flatnonzero(moved)) == list(range(12, 12 + decoder.receptive_field))
    latents[0, 2] += 1
    moved = np.abs(to_numpy(decoder(latents, waveform)) - base).max((0, 2)) > 0
    # Its own, from the first on, and by the dilations some after.
    assert list(np.flatnonzero(moved))[:8] == list(range(16, 24))
    assert set(np.flatnonzero(moved)) <= set(range(16, 24 + decoder.receptive_field))


@pytest.mark.parametrize("likelihood", [None, LogisticMixture(3, 65536)])
def test_wavenet_loss_against_numpy(likelihood: Any) -> None:
    decoder = wavenet(likelihood=likelihood, mu_law=likelihood is None)
    model = AudioVQVAE(8000, 16, 4, downsampling=8, hidden=8, decoder=decoder)
    model.compile("sgd")
    length = np.array([128, 128, 100, 9, 64], "int32")
    x = {"waveform": sound(), "length": length}
    logs = model.evaluate(x, return_dict=True, verbose=0)
    outputs = model(x)
    log_prob = to_numpy(decoder.log_prob(outputs["outputs"], x["waveform"]))
    if likelihood is None:
        classes = to_numpy(functional.mu_law_encode(x["waveform"]))[..., None]
        log_p = scipy.special.log_softmax(to_numpy(outputs["outputs"]).astype("float64"), -1)
        log_p = np.take_along_axis(log_p, classes, -1)[..., 0]
        np.testing.assert_allclose(log_prob, log_p, atol=1e-4)
    reach = model.receptive_field
    assert reach == 8
    expected = -np.mean([log_prob[i, reach:n].mean() for i, n in enumerate(length)])
    assert logs["reconstruction_loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("decoder", DECODERS)
def test_padding_does_not_count(decoder: str) -> None:
    """Given the codes: the last of a clip's own see some padding, as the encoder does."""
    model = make(decoder)
    length = np.array([128, 90, 100, 65, 64], "int32")
    places = np.arange(SAMPLES) < length[:, None]
    codes = model.encode(sound())

    def losses(padding: np.ndarray) -> np.ndarray:
        x = np.where(places, sound(), padding).astype("float32")
        return model.reconstruction_loss({"waveform": x, "length": length}, codes)

    found = losses(np.zeros((5, SAMPLES)))
    np.testing.assert_allclose(losses(sound(seed=9)), found, rtol=1e-6)
    whole = model.reconstruction_loss(sound(), codes)
    assert whole[0] == pytest.approx(found[0], rel=1e-6)
    assert np.abs(whole[1:] - found[1:]).min() > 1e-6


@pytest.mark.parametrize("decoder", DECODERS)
def test_use(decoder: str) -> None:
    model = trained(decoder)
    x = data(4)
    codes = model.encode(x["waveform"])
    assert codes.dtype == "int32" and codes.shape == (4, SAMPLES // 8)
    assert len(np.unique(codes)) > 3
    made = model.decode(codes, x["speaker"])
    assert made.dtype == "float32" and made.shape == (4, SAMPLES)
    assert np.abs(made).max() <= 1 and made.std() > 0.001
    np.testing.assert_allclose(model.reconstruct(x), made, atol=1e-6)
    other = model.convert(x["waveform"], speaker=2)
    np.testing.assert_array_equal(other, model.decode(codes, np.full(4, 2)))
    assert np.abs(other[:2] - made[:2]).max() > 1e-4, "the speaker makes no difference"
    # What is no whole number of codes comes back at its own length.
    assert model.reconstruct(x["waveform"][:, :101], 1).shape == (4, 101)
    # In batches, and of none.
    np.testing.assert_array_equal(model.encode(x["waveform"], batch_size=3), codes)
    assert model.encode(np.zeros((0, 64), "float32")).shape == (0, 8)
    assert model.decode(np.zeros((0, 3), "int32"), 1).shape == (0, 24)


@pytest.mark.parametrize("decoder", DECODERS)
def test_reconstruction_loss(decoder: str) -> None:
    model = trained(decoder)
    for weight in model.quantizer.weights:
        if weight.name == "embeddings":  # which after so short a training are much alike
            weight.assign(floats(weight.shape))
    x = data(6, length=np.array([128, 128, 100, 60, 128, 90], "int32"))
    found = model.reconstruction_loss(x, batch_size=4)
    assert found.shape == (6,)
    logged = model.evaluate(x, return_dict=True, verbose=0)["reconstruction_loss"]
    assert logged == pytest.approx(found.mean(), rel=1e-5)
    codes = model.encode(x["waveform"])
    np.testing.assert_allclose(model.reconstruction_loss(x, codes), found, rtol=1e-5)
    assert np.abs(model.reconstruction_loss(x, (codes + 1) % 16) - found).max() > 1e-4
    with pytest.raises(ValueError, match=r"codes must have shape \(batch, 16\), got \(6, 15\)"):
        model.reconstruction_loss(x, codes[:, 1:])


def assert_same_levels(a: np.ndarray, b: np.ndarray) -> None:
    """Levels are at least 2e-4 apart; expanding them rounds."""
    np.testing.assert_allclose(a, b, atol=2e-6)


def test_drawing_is_decided_by_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    model = trained("wavenet")
    codes = model.encode(sound(3))
    one = model.decode(codes, 1, seed=5)
    assert_same_levels(model.decode(codes, 1, seed=5), one)
    assert np.abs(model.decode(codes, 1, seed=6) - one).max() > 0.01
    assert np.abs(model.decode(codes, 1, seed=None) - one).max() > 0.01
    # Compiled or not, in parts or whole; rounding may decide for the level beside, once.
    graph = model.decode(codes, 1, seed=5, jit_compile=False)
    assert_same_levels(graph, one)
    monkeypatch.setattr(audio, "SAMPLES_A_CALL", 24)
    assert_same_levels(model.decode(codes, 1, seed=5), one)


def test_drawing_equals_the_slow_way() -> None:
    """The samples that the whole network gives when it is run again for each."""
    from keras_vqvae import backend, sampling

    model = trained("wavenet")
    codes = model.encode(sound(2, 40))
    got = model.decode(codes, 1, seed=2)
    u = to_numpy(backend.uniforms_by_row((2, 8), 2, np.arange(5, dtype="int32")))
    u = u.transpose(1, 0, 2).reshape(2, 40)
    options = sampling.Options(np.float32(1), np.int32(256), np.float32(1))
    latents, speaker = model.quantizer.decode(codes), model._speakers(np.ones(2, "int32"))
    drawn = np.zeros((2, 40), "float32")
    for t in range(40):
        params = model.decoder(latents, drawn, speaker)[:, t]
        level = sampling.draw(params, u[:, t], options)
        drawn[:, t] = to_numpy(functional.mu_law_decode(level))
    assert_same_levels(got, drawn)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("decoder", DECODERS)
def test_streaming(decoder: str, causal: bool) -> None:
    """Chunks of any length give what the whole gives."""
    model = trained(decoder, causal=causal)
    x = sound(2, 203, seed=4)
    whole = model.encode(x)
    waveform = model.decode(whole, [1, 2])
    stream = model.streaming(2, speaker=[1, 2])
    if causal:
        assert stream.encode_latency == stream.decode_latency == 0
    sizes = [1, 7, 0, 8, 3, 64, 17, 40, 2, 61]
    assert sum(sizes) == 203
    for _ in range(2):  # twice, after a reset
        codes, made, fed = [], [], 0
        for size in sizes:
            codes.append(stream.encode(x[:, fed : fed + size]))
            made.append(stream.decode(codes[-1]))
            fed += size
            given = sum(c.shape[1] for c in codes)
            assert given >= (fed - stream.encode_latency) // 8, "later than it says"
            out = sum(m.shape[1] for m in made)
            assert out >= given * 8 - stream.decode_latency
        codes.append(stream.encode_end())
        made += [stream.decode(codes[-1]), stream.decode_end()]
        np.testing.assert_array_equal(np.concatenate(codes, 1), whole)
        np.testing.assert_allclose(np.concatenate(made, 1), waveform, atol=1e-5)
        stream.reset()


def test_streaming_compiled_by_xla() -> None:
    model = trained("wavenet")
    x = sound(1, 96)
    stream = model.streaming(1, speaker=1, seed=4, jit_compile=True)
    codes = np.split(model.encode(x), 2, 1)
    made = np.concatenate([stream.decode(part) for part in codes], 1)
    assert_same_levels(made, model.decode(np.concatenate(codes, 1), 1, seed=4))


def test_streamed_latents() -> None:
    """Latents, not only codes: the quantizer would hide small differences."""
    model = make("parallel", causal=False)
    x = sound(1, 400)
    whole = to_numpy(model.latents(x))
    before, after = model.encoder.context
    chunk = x[:, (20 - before) * 8 : (26 + after) * 8]
    part = to_numpy(model.latents(chunk))[:, before : before + 6]
    np.testing.assert_allclose(part, whole[:, 20:26], atol=1e-5)


def test_own_networks_and_quantizer() -> None:
    keras.utils.set_random_seed(0)
    encoder = keras.Sequential([keras.layers.Conv1D(6, 16, 16, padding="same")])
    decoder = keras.Sequential([keras.layers.Conv1DTranspose(1, 16, 16, padding="same")])
    quantizer = VectorQuantizer(8, 6, codebook="gradient")
    model = AudioVQVAE(8000, downsampling=16, encoder=encoder, decoder=decoder, quantizer=quantizer)
    model.compile("adam")
    model.adapt(sound(20))
    model.fit(sound(), verbose=0)
    assert model.encode(sound()).shape == (5, 8)
    assert model.reconstruct(sound()).shape == (5, SAMPLES)
    copy = copy_by_config(model)
    copy.set_weights(model.get_weights())
    assert_same(copy(sound()), model(sound()))
    with pytest.raises(ValueError, match="cannot be used in a stream: it needs .* context"):
        model.streaming()


NAN = np.full((1, 64), np.nan, "float32")
BAD = {
    "decoder": (
        lambda: AudioVQVAE(8000, decoder="flow"),
        'must be "wavenet", "parallel" or a layer',
    ),
    "downsampling": (
        lambda: AudioVQVAE(8000, downsampling=22),
        "downsampling must be a product of",
    ),
    "upsampling": (
        lambda: AudioVQVAE(8000, downsampling=16, decoder=wavenet()),
        "downsampling=16, but the decoder makes 8 samples a code",
    ),
    "encoder": (
        lambda: AudioVQVAE(8000, downsampling=8, encoder=keras.layers.Conv1D(64, 4, 4)),
        "encoder must give one vector for 8 samples",
    ),
    "dtype": (lambda: make().encode(np.zeros((1, 64), "int16")), "divide 16-bit samples by 32768"),
    "one clip": (lambda: make().encode(np.zeros(64, "float32")), r"one clip is waveform\[None\]"),
    "stereo": (lambda: make().encode(np.zeros((1, 64, 2), "float32")), r"mixed by waveform.mean"),
    "short": (lambda: make().encode(sound(1, 7)), "7 samples is shorter than one code of 8"),
    "nan": (lambda: make().encode(NAN), "waveform must be finite"),
    "loud": (lambda: make().encode(np.full((1, 64), 1.5, "float32")), r"in \[-1, 1\], got 1.5"),
    "no speakers": (lambda: make().convert(sound(), 1), "convert needs a model with speakers"),
    "speaker given": (lambda: make().reconstruct(sound(), 1), "has none; give num_speakers"),
    "speaker missing": (lambda: make(num_speakers=3).reconstruct(sound()), "speaker is missing"),
    "speaker unknown": (
        lambda: make(num_speakers=3).convert(sound(), 3),
        r"in \[0, 3\), got values from 3 to 3",
    ),
    "speakers of others": (
        lambda: make(num_speakers=3).convert(sound(), [1, 2]),
        "of the 5 wavefo",
    ),
    "fit without speakers": (
        lambda: make(num_speakers=3).fit(sound()),
        'speaker is missing: .* takes {"waveform": waveform, "speaker": speaker}',
    ),
    "fit with targets": (lambda: make().fit(sound(), sound()), "trains without targets"),
    "keys": (lambda: make().fit({"waveform": sound(), "text": 1}), "a dict must have the keys"),
    "burn in": (lambda: make().fit(sound(samples=8)), "no longer than the receptive field of 8"),
    "codes": (lambda: make().decode(np.full((1, 4), 16)), r"codes must be in \[0, 16\)"),
    "no codes": (lambda: make().decode(np.zeros((1, 0), "int32")), "at least one code, got none"),
    "streams": (lambda: make().streaming(2).encode(sound(1)), "of 2 streams, got 1"),
    "streamed nan": (lambda: make().streaming().encode(NAN[:, :3]), "waveform must be finite"),
}


@pytest.mark.parametrize("name", BAD)
def test_refuses(name: str) -> None:
    act, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        act()
