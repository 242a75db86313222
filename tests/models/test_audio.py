"""AudioVQVAE: training, coding, conversion, streaming, bad input."""

import functools
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import scipy.special

from keras_vqvae import (
    AudioVQVAE,
    ParallelDecoder,
    SpectrogramEncoder,
    VectorQuantizer,
    WaveNetDecoder,
    functional,
)
from keras_vqvae.likelihoods import Gaussian, LogisticMixture
from keras_vqvae.models import audio, sizes
from tests.checks import assert_same, check_model, copy_by_config, floats, to_numpy
from tests.inside import inside

SAMPLES = 128


def wavenet(**options: Any) -> WaveNetDecoder:
    small = {"channels": 6, "skip_channels": 8, "dilations": (1, 2, 4)}
    return WaveNetDecoder(8, **{**small, **options})


def make(decoder: str = "wavenet", **options: Any) -> AudioVQVAE:
    dtype = options.get("dtype")
    layer: Any = wavenet(dtype=dtype, kernel_size=options.pop("kernel_size", 2))
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


@functools.cache
def trained_weights(decoder: str, **options: Any) -> list[np.ndarray]:
    model = make(decoder, num_speakers=3, **options)
    model(data(1))
    for number, weight in enumerate(model.trainable_weights):
        weight.assign(to_numpy(weight) + 0.1 * floats(weight.shape, number))
    model.adapt(data(32))
    return model.get_weights()


def trained(decoder: str, **options: Any) -> AudioVQVAE:
    """Weights as after some training, for codes and samples of some variety."""
    keras.utils.set_random_seed(0)
    weights = trained_weights(decoder, **options)
    model = make(decoder, num_speakers=3, **options)
    model(data(1))
    model.set_weights(weights)
    model.compile("sgd")
    return model


DECODERS = ["wavenet", "parallel", "source"]


def weights(decoder: str, speakers: int | None) -> int:
    """Trainable ones of `make`, counted by hand; the codebook is none."""

    def conv(kernel: int, channels: int, filters: int) -> int:
        return kernel * channels * filters + filters

    def unit(channels: int) -> int:
        by_speaker = conv(1, 64, 2 * channels) if speakers else 0
        return conv(3, channels, channels) + conv(1, channels, channels) + by_speaker

    strided = conv(4, 1, 6) + conv(4, 6, 8) + conv(4, 8, 8)
    encoder = strided + conv(3, 8, 8) + conv(1, 8, 8) + conv(1, 8, 4)
    total = encoder + (speakers or 0) * 64
    if decoder == "wavenet":
        conditions = 4 * 12 + (64 * 12 if speakers else 0)  # without biases
        blocks = 3 * (conv(2, 6, 12) + conv(1, 6, 8) + conditions) + 2 * conv(1, 6, 6)
        return total + 256 * 6 + blocks + conv(1, 8, 8) + conv(1, 8, 256)
    total += conv(7, 4, 8) + conv(8, 8, 6) + conv(4, 6, 6) + 4 * unit(6) + conv(7, 6, 1)
    if decoder == "parallel":
        return total
    pitch, waves = 2 * unit(8) + conv(1, 8, 2), conv(4, 9, 6) + conv(3, 9, 6) + 2 * conv(1, 6, 6)
    return total + pitch + waves


@pytest.mark.parametrize(
    "decoder, speakers",
    [
        ("wavenet", 3),
        ("source", 3),
        pytest.param("parallel", None, marks=pytest.mark.long),
        pytest.param("wavenet", None, marks=pytest.mark.long),
        pytest.param("parallel", 3, marks=pytest.mark.long),
    ],
)
def test_shared_checks(decoder: str, speakers: int | None, tmp_path: Path) -> None:
    x = data() if speakers else sound()
    check_model(
        lambda **kw: make(decoder, num_speakers=speakers, **kw),
        x,
        tmp_path,
        trainable=weights(decoder, speakers),
        # Samples; of a WaveNet the outputs are logits.
        output_dtype=None if decoder == "wavenet" else "float32",
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
    strided = [x for x in inside(model.encoder).layers_in_order if getattr(x, "strides", 0) == (2,)]
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
    # The mean over samples: a longer example counts for more.
    expected = -np.mean(np.concatenate([log_prob[i, reach:n] for i, n in enumerate(length)]))
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
    for padding in (sound(seed=9), np.full((5, SAMPLES), np.nan), np.full((5, SAMPLES), 3.0)):
        np.testing.assert_allclose(losses(padding), found, rtol=1e-6)
    zeros, nan = (np.where(places, sound(), x).astype("float32") for x in (0.0, np.nan))
    assert_same(*(model.encode({"waveform": x, "length": length}) for x in (nan, zeros)))
    with pytest.raises(ValueError, match="waveform must be finite"):
        model.encode({"waveform": nan, "length": length + (length < SAMPLES)})
    model.compile("adam")
    logs = [model.evaluate({"waveform": x, "length": length}, verbose=0) for x in (nan, zeros)]
    assert logs[0] == logs[1] and np.isfinite(logs[0][0])
    whole = model.reconstruction_loss(sound(), codes)
    assert whole[0] == pytest.approx(found[0], rel=1e-6)
    assert np.abs(whole[1:] - found[1:]).min() > 1e-6


# Before the padding of these begins they are followed by as much silence as networks see.
CLIPS = {"length": np.array([64, 40, 61, 13], "int32"), "speaker": np.array([0, 2, 1, 1], "int32")}


def padded(width: int, filler: float) -> dict:
    """The same clips of at most 64 samples, padded to a width."""
    places = np.arange(width) < CLIPS["length"][:, None]
    clips = np.pad(sound(4, 64, seed=3), [(0, 0), (0, width - 64)])
    return {"waveform": np.where(places, clips, filler).astype("float32"), **CLIPS}


@pytest.mark.locked
@pytest.mark.parametrize(
    "decoder, codebook",
    [
        ("source", "ema"),
        ("wavenet", "ema"),
        pytest.param("parallel", "ema", marks=pytest.mark.long),
        *(pytest.param(d, "gradient", marks=pytest.mark.long) for d in DECODERS),
    ],
)
def test_the_width_of_padding_changes_nothing(decoder: str, codebook: str) -> None:
    """Neither loss, nor logs, nor a step of training, nor the codebook; nor what padding holds."""
    if codebook == "gradient" and decoder != "source":
        pytest.skip("the quantizer does not know the decoder")

    def results(width: int, filler: float = 0.0) -> tuple:
        keras.utils.set_random_seed(0)
        quantizer = VectorQuantizer(16, 4, codebook=codebook, decay=0.5, expiry=0.5, seed=0)
        model = make(decoder, num_speakers=3, quantizer=quantizer)
        model.compile(keras.optimizers.SGD(0.3 if decoder == "wavenet" else 0.0005))
        x = padded(width, filler)
        trained = [model.fit(x, batch_size=4, shuffle=False, verbose=0).history for _ in range(2)]
        tested = model.evaluate(x, return_dict=True, verbose=0)
        model.adapt(x)
        return trained, tested, to_numpy(model.weights)

    networks = make(decoder).encoder, make(decoder).decoder
    assert 64 + 8 * sum(network.context[1] for network in networks) <= 208
    found = results(208)
    assert np.ptp([step["loss"] for step in found[0]]) > 1e-3, "it does not train"
    keras.tree.map_structure(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5, rtol=1e-5),
        results(416, 0.7),
        found,
    )


@pytest.mark.locked
def test_codes_of_some_sound_count_and_codes_of_padding_do_not() -> None:
    quantizer = VectorQuantizer(16, 4, decay=0.0, expiry=0.0, seed=0)
    model = make("parallel", num_speakers=3, quantizer=quantizer)
    model.compile("sgd")
    model.fit(padded(208, 0.0), batch_size=4, epochs=2, verbose=0)
    # 64, 40, 61 and 13 samples, 8 of which are a code. Counts are relative to their mean.
    total = 8 + 5 + 8 + 2
    uses = to_numpy(inside(quantizer).counts) * total / 16
    np.testing.assert_allclose(uses, np.round(uses), atol=1e-4)


def test_clips_no_longer_than_the_receptive_field_do_not_count() -> None:
    model = make(num_speakers=3)
    model.compile(keras.optimizers.SGD(0.1))
    assert model.receptive_field == 8
    x = data(4)
    x["waveform"][:, 96:] = 0
    long = np.full(4, 96, "int32")
    base = model.evaluate({**x, "length": long}, return_dict=True, verbose=0)
    both = {name: np.concatenate([value, value]) for name, value in x.items()}
    both["length"] = np.concatenate([long, np.full(4, 8, "int32")])
    # In one batch, and in one of their own.
    for batch_size in (8, 4):
        found = model.evaluate(both, batch_size=batch_size, return_dict=True, verbose=0)
        for name in ("loss", "reconstruction_loss", "quantizer_loss"):
            assert found[name] == pytest.approx(base[name], rel=1e-5)
    per_clip = model.reconstruction_loss(both)
    assert np.isfinite(per_clip[:4]).all() and np.isnan(per_clip[4:]).all()
    # What does not count moves nothing.
    before = to_numpy(model.trainable_weights)
    short = {**x, "length": np.array([8, 8, 8, 96], "int32")}
    logs = model.fit(short, batch_size=3, steps_per_epoch=1, shuffle=False, verbose=0).history
    assert np.isnan(logs["loss"]).all()  # of nothing: not 0, which would look like a perfect model
    assert_same(model.trainable_weights, before)
    with pytest.raises(ValueError, match="8 positions are no longer than the receptive field"):
        model.fit({**x, "length": np.full(4, 8, "int32")})


@pytest.mark.tensorflow
@pytest.mark.parametrize("samples", [900, 40])
def test_training_on_whole_short_clips(samples: int) -> None:
    """Of a dataset whose clips are of any length, as of an array."""
    import tensorflow as tf

    x = sound(4, samples)
    clips = tf.data.Dataset.from_generator(
        lambda: iter([x]), output_signature=tf.TensorSpec((None, None), tf.float32)
    )
    losses = []
    for given in (x, clips):
        keras.utils.set_random_seed(0)
        model = make("parallel")
        model.compile("sgd")
        losses.append(model.fit(given, shuffle=False, verbose=0).history["loss"])
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)


@pytest.mark.locked
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


@pytest.mark.locked
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
    counted = x["length"] - model.receptive_field if decoder == "wavenet" else None
    assert logged == pytest.approx(np.average(found, weights=counted), rel=1e-5)
    codes = model.encode({name: x[name] for name in ("waveform", "length")})
    np.testing.assert_allclose(model.reconstruction_loss(x, codes), found, rtol=1e-5)
    assert np.abs(model.reconstruction_loss(x, (codes + 1) % 16) - found).max() > 1e-4
    with pytest.raises(ValueError, match=r"codes must have shape \(batch, 16\), got \(6, 15\)"):
        model.reconstruction_loss(x, codes[:, 1:])
    for few in (codes[:1], codes[:4]):  # one row would do for all of them
        with pytest.raises(ValueError, match=f"codes must be of the 6 waveforms, got {len(few)}"):
            model.reconstruction_loss(x, few, batch_size=4)


def assert_same_levels(a: np.ndarray, b: np.ndarray) -> None:
    """Levels are at least 2e-4 apart; expanding them rounds."""
    np.testing.assert_allclose(a, b, atol=2e-6)


@pytest.mark.locked
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


@pytest.mark.locked
def test_what_a_clip_is_drawn_from_is_its_own() -> None:
    """Whatever the size of batches; and no two clips are drawn from the same numbers."""
    model = trained("wavenet")
    codes = np.repeat(model.encode(sound(1)), 5, 0)
    one = model.decode(codes, 1, seed=5)
    assert_same_levels(model.decode(codes, 1, seed=5, batch_size=2), one)
    apart = np.abs(one[:, None] - one[None]).max(-1)
    assert (apart[~np.eye(5, dtype=bool)] > 0.01).all()
    assert_same_levels(model.decode(codes[:2], 1, seed=5), one[:2])


@pytest.mark.parametrize("most", [64, 7, 1])
def test_codes_are_spread_over_calls(most: int) -> None:
    for length in range(1, 6 * most):
        each = sizes.part_of(length, most, few_sizes=True)
        assert each <= most
        assert -(-length // each) * each <= 1.25 * length + 2, "much is drawn for nothing"
        each = sizes.part_of(length, most, few_sizes=False)
        assert each <= most and -(-length // each) == -(-length // most)
        assert sum(sizes.powers_of_two(length)) == length
    long = {sizes.part_of(length, most, True) for length in range(most + 1, 100 * most)}
    assert len(long) <= 5, "compiled anew for each length"
    assert len({sizes.part_of(length, most, True) for length in range(1, most + 1)}) <= 20


@pytest.mark.locked
@pytest.mark.parametrize("kernel_size", [2, pytest.param(3, marks=pytest.mark.long)])
def test_drawing_equals_the_slow_way(kernel_size: int) -> None:
    """The samples that the whole network gives when it is run again for each; in a stream too."""
    from keras_vqvae import backend, sampling

    model = trained("wavenet", kernel_size=kernel_size)
    codes = model.encode(sound(2, 40))
    got = model.decode(codes, 1, seed=2)
    u = backend.uniforms_by_place((8,), 2, np.arange(5, dtype="int32"), np.arange(2, dtype="int32"))
    u = to_numpy(u).transpose(1, 0, 2).reshape(2, 40)
    options = sampling.Options(np.float32(1), np.int32(256), np.float32(1))
    latents, speaker = model.quantizer.decode(codes), inside(model).speakers(np.ones(2, "int32"))
    drawn = np.zeros((2, 40), "float32")
    network = backend.jit(lambda x: model.decoder(latents, x, speaker), model.decoder)
    for t in range(40):
        params = network(drawn)[:, t]
        level = sampling.draw(params, u[:, t], options)
        drawn[:, t] = to_numpy(functional.mu_law_decode(level))
    assert_same_levels(got, drawn)
    stream = model.streaming(2, speaker=1, seed=2)
    chunks = [stream.decode(codes[:, cut]) for cut in (slice(0, 1), slice(1, 4), slice(4, 5))]
    np.testing.assert_allclose(np.concatenate(chunks, 1), got, atol=1e-6)


@pytest.mark.locked
@pytest.mark.parametrize(
    ("decoder", "causal"),
    [
        ("wavenet", True),
        ("source", False),
        pytest.param("wavenet", False, marks=pytest.mark.long),
        pytest.param("source", True, marks=pytest.mark.long),
        *(pytest.param("parallel", causal, marks=pytest.mark.long) for causal in (False, True)),
    ],
)
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
    for _ in range(3):  # again after its end, and after a reset
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
        if _ == 1:
            stream.decode(stream.encode(sound(2, 70)))
            stream.reset()


@pytest.mark.locked
def test_streaming_compiled_by_xla() -> None:
    model = trained("wavenet")
    x = sound(1, 96)
    stream = model.streaming(1, speaker=1, seed=4, jit_compile=True)
    codes = np.split(model.encode(x), 2, 1)
    made = np.concatenate([stream.decode(part) for part in codes], 1)
    assert_same_levels(made, model.decode(np.concatenate(codes, 1), 1, seed=4))


@pytest.mark.locked
@pytest.mark.parametrize("kind", ["causal", "centred", "spectra"])
def test_streamed_latents(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Latents, not only codes: the quantizer would hide small differences."""
    options: dict = {"causal": kind == "causal"}
    if kind == "spectra":
        options["encoder"] = SpectrogramEncoder(4, 8000, 8, window=32, bands=8, hop=8, hidden=8)
    model = make("parallel", **options)
    x = sound(2, 403)
    whole = to_numpy(model.latents(x))
    stream = model.streaming(2)
    monkeypatch.setattr(model, "encode", lambda x, batch_size: to_numpy(model.latents(x)))
    cuts = np.cumsum([1, 7, 8, 100, 3, 0, 160, 90])
    parts = [stream.encode(chunk) for chunk in np.split(x, cuts, axis=1)] + [stream.encode_end()]
    together = np.concatenate([part for part in parts if part.shape[1]], 1)
    np.testing.assert_allclose(together, whole, atol=1e-5)


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


class WithoutMask(VectorQuantizer):
    """A quantizer that knows nothing of padding."""

    def call(self, z: Any, training: Any = None, return_info: bool = False) -> Any:
        return super().call(z, training=training, return_info=return_info)


def test_a_quantizer_without_mask_is_for_sound_without_padding() -> None:
    model = make("parallel", quantizer=WithoutMask(16, 4))
    assert model(sound())["codes"].shape == (5, SAMPLES // 8)
    with pytest.raises(ValueError, match="WithoutMask must take mask, bool .batch, codes."):
        model({"waveform": sound(), "length": np.full(5, 64, "int32")})


CODES = np.zeros((1, 2), "int32")
NAN = np.full((1, 64), np.nan, "float32")
BAD = {
    "decoder": (
        lambda: AudioVQVAE(8000, decoder="flow"),
        'must be "wavenet", "parallel" or a layer',
    ),
    "no decoder": (
        lambda: AudioVQVAE(8000, decoder=None),
        'must be "wavenet", "parallel" or a layer, got None',
    ),
    "hidden": (lambda: AudioVQVAE(8000, hidden=0), "hidden must be a positive integer, got 0"),
    "speaker of text": (
        lambda: make(num_speakers=3).check_data(
            {"waveform": sound(1), "speaker": np.array(["june"])}
        ),
        r"speaker must be integers .* got str",
    ),
    "downsampling": (
        lambda: AudioVQVAE(8000, downsampling=22),
        "downsampling must be an integer, a product of",
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
    "none at all": (lambda: make().encode([]), "must be one float32 array or tensor, got a list"),
    "short": (lambda: make().encode(sound(1, 7)), "7 samples is shorter than one code of 8"),
    "nan": (lambda: make().encode(NAN), "waveform must be finite"),
    "loud": (lambda: make().encode(np.full((1, 64), 1.5, "float32")), r"in \[-1, 1\], got 1.5"),
    "no speakers": (lambda: make().convert(sound(), 1), "convert needs a model with speakers"),
    "speaker given": (lambda: make().reconstruct(sound(), 1), "has none; give num_speakers"),
    "speaker missing": (lambda: make(num_speakers=3).reconstruct(sound()), "speaker is missing"),
    "speaker unknown": (
        lambda: make(num_speakers=3).convert(sound(), 3),
        r"speaker must be in \[0, 3\), got 3",
    ),
    "speakers unknown": (
        lambda: make(num_speakers=3).convert(sound(2), [1, 7]),
        r"speaker must be in \[0, 3\), got values from 1 to 7",
    ),
    "speaker by name": (
        lambda: make(num_speakers=3).convert(sound(), "june"),
        r"speaker must be an integer in \[0, 3\), .*got array.'june'.*speaker_names",
    ),
    "stream of an unknown speaker": (
        lambda: make(num_speakers=3).streaming(speaker=9),
        r"speaker must be in \[0, 3\), got 9",
    ),
    "list": (lambda: make().encode([[0.0] * 64]), "got a list: np.asarray"),
    "list of arrays": (lambda: make().encode([sound()]), "got a list: data.audio.from_arrays"),
    "clips to fit": (lambda: make().fit([sound()]), "got a list: data.audio.from_arrays"),
    "a file": (lambda: make().encode("hello.wav"), "got a str: data.audio.read"),
    "a number": (lambda: make().encode(3), "got a int"),
    "a decoder's class": (
        lambda: AudioVQVAE(8000, decoder=WaveNetDecoder),
        '"parallel" or a layer, got',
    ),
    "an encoder by name": (lambda: make(encoder="conv"), "encoder must be a layer or None, got"),
    "a quantizer by name": (lambda: make(quantizer="vq"), "quantizer must be a layer or None, got"),
    "a decoder that knows no speakers": (
        lambda: AudioVQVAE(
            8000,
            16,
            4,
            downsampling=8,
            num_speakers=2,
            decoder=keras.Sequential([keras.layers.Dense(1), keras.layers.UpSampling1D(8)]),
        ),
        "the decoder must take two tensors, .* where there are speakers",
    ),
    "dilations": (lambda: wavenet(dilations=5), "dilations must be some positive integers, got 5"),
    "a likelihood of no levels": (
        lambda: wavenet(likelihood=Gaussian()),
        "likelihood must be of levels, Categorical",
    ),
    "short by its length": (
        lambda: make().encode({"waveform": sound(2), "length": np.array([128, 3], "int32")}),
        r"length must be in \[8, 128\], got values from 3 to 128",
    ),
    "nan in a dict": (lambda: make().encode({"waveform": NAN}), "waveform must be finite"),
    "short in a dict": (lambda: make().encode({"waveform": sound(1, 7)}), "shorter than one code"),
    "temperature": (lambda: make().decode(CODES, temperature=0.0), "temperature must be positive"),
    "negative": (lambda: make("parallel").decode(CODES, temperature=-1), "must be positive"),
    "temperature nan": (lambda: make().reconstruct(sound(), temperature=np.nan), "be positive"),
    "long seed": (lambda: make().decode(CODES, seed=2**40), "seed must be an integer of 32 bits"),
    "seed": (lambda: make().decode(CODES, seed=1.5), "seed must be an integer"),
    "stream's temperature": (lambda: make().streaming(temperature=0), "must be positive"),
    "stream's seed": (lambda: make().streaming(seed=2**31), "seed must be an integer"),
    "burn_in": (lambda: make(burn_in=-1), "burn_in must be an integer of at least 0"),
    "burn_in by name": (lambda: make(burn_in="a"), "burn_in must be an integer of at least 0"),
    "rate of the decoder": (
        lambda: AudioVQVAE(
            16000, downsampling=64, decoder=ParallelDecoder((8, 8), 8, sample_rate=8000)
        ),
        "sample_rate=16000, but the decoder's is 8000",
    ),
    "rate of the encoder": (
        lambda: AudioVQVAE(
            16000, 16, 4, downsampling=160, encoder=SpectrogramEncoder(4, 8000, 160)
        ),
        "sample_rate=16000, but the encoder's is 8000",
    ),
    "causal decoder": (
        lambda: AudioVQVAE(8000, downsampling=64, causal=True, decoder=ParallelDecoder((8, 8), 8)),
        "causal=True, but the decoder sees what comes later",
    ),
    "causal encoder": (
        lambda: AudioVQVAE(
            8000, 16, 4, downsampling=160, causal=True, encoder=SpectrogramEncoder(4, 8000, 160)
        ),
        "causal=True, but the encoder sees what comes later",
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
    "lengths of others": (
        lambda: make().encode({"waveform": sound(5), "length": np.array([64], "int32")}),
        "length must be of the 5 examples, got 1",
    ),
    "keys of reconstruct": (
        lambda: make(num_speakers=3).reconstruct({"waveform": sound(), "speakers": 1}),
        "a dict must have the keys",
    ),
    "streams": (lambda: make().streaming(2).encode(sound(1)), "of 2 streams, got 1"),
    "streamed nan": (lambda: make().streaming().encode(NAN[:, :3]), "waveform must be finite"),
}


@pytest.mark.locked
@pytest.mark.tensorflow
@pytest.mark.parametrize(
    "value, xla",
    [(np.nan, False), (np.nan, True), pytest.param(1.5, False, marks=pytest.mark.long)],
)
@pytest.mark.graph
def test_bad_sound_in_a_dataset_is_named_before_it_does_harm(value: float, xla: bool) -> None:
    import tensorflow as tf

    model = make("parallel")
    model.compile("adam", jit_compile=xla)
    waveform = sound(4)
    dataset = tf.data.Dataset.from_tensors(waveform).repeat(2)
    model.fit(dataset, verbose=0)
    before = model.get_weights()
    waveform = waveform.copy()
    waveform[2, 5] = value
    bad = tf.data.Dataset.from_tensors(waveform)
    for act in (model.fit, model.evaluate, model.predict, model.encode, model.adapt):
        with pytest.raises(tf.errors.InvalidArgumentError, match="waveform must be finite and in"):
            act(bad)
    assert_same(before, model.get_weights())
    with pytest.raises(tf.errors.InvalidArgumentError, match="waveform must be finite and in"):
        model.fit(dataset, validation_data=bad, verbose=0)


@pytest.mark.locked
@pytest.mark.tensorflow
@pytest.mark.graph
def test_short_clips_in_a_dataset_of_any_width_are_named() -> None:
    import tensorflow as tf

    model = make("parallel")
    model.compile("adam", jit_compile=False)

    def of(**arrays: np.ndarray) -> tf.data.Dataset:
        spec = {k: tf.TensorSpec((None,) * x.ndim, x.dtype) for k, x in arrays.items()}
        return tf.data.Dataset.from_generator(lambda: iter([arrays]), output_signature=spec)

    short = of(waveform=sound(2, 3))
    padded = of(waveform=sound(2), length=np.array([64, 3], "int32"))
    beyond = of(waveform=sound(2), length=np.array([64, 999], "int32"))
    fit = functools.partial(model.fit, verbose=0)
    for dataset, message, acts in [
        (short, "waveform must be of at least 8 samples, one code, got", [model.encode]),
        (padded, "length must be at least 8, one code .*min_samples=8", [fit, model.adapt]),
        (
            beyond,
            r"length must be at least 8, one code \(.*\), and at most that of the batch",
            [fit, model.encode],
        ),
    ]:
        for act in acts:
            with pytest.raises(tf.errors.InvalidArgumentError, match=message):
                act(dataset)


@pytest.mark.tensorflow
def test_a_dataset_of_other_speakers_or_another_rate_is_refused() -> None:
    from keras_vqvae.data import audio

    clips = list(sound(4))
    model = make("parallel", speaker_names=["ann", "bob", "cy"])
    model.compile("sgd")
    named = {"crop": 64, "batch_size": 2}
    good = audio.from_arrays(clips, **named, speakers=["bob", "ann", "ann", "bob"])
    model.fit(good, verbose=0)  # the first two of the model's three
    other = audio.from_arrays(clips, **named, speakers=["bob", "cy", "cy", "bob"])
    for act in (model.fit, model.evaluate):
        with pytest.raises(
            ValueError, match=r"speaker_names are \['bob', 'cy'\], the model's \['a"
        ):
            act(other)
    with pytest.raises(ValueError, match="speaker_names are"):
        model.fit(good, validation_data=other)
    model.encode(other)  # whose they are says nothing of codes
    good.sample_rate = 16000
    for use in (model.fit, model.encode, model.adapt):
        with pytest.raises(
            ValueError, match="the dataset is of 16000 Hz, the model of sample_rate=80"
        ):
            use(good)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (sound(2)[0], r"waveform must have shape \(batch, samples\), got \(128,\): one clip is"),
        (sound(2)[..., None], "one channel is waveform"),
        (np.zeros((2, 160), "int16"), "must be float32 in .-1, 1., got int16: divide"),
        (list(sound(2)), "must be one float32 array or tensor, got a list"),
        (2 * sound(2) + 2, "scale it down"),
    ],
    ids=["one clip", "channels", "int16", "list", "loud"],
)
def test_adapt_refuses_what_encode_refuses(x: Any, message: str) -> None:
    model = make("parallel")
    for use in (model.adapt, model.encode):
        with pytest.raises(ValueError, match=message):
            use(x)


def test_speakers_by_name(tmp_path: Path) -> None:
    names = ["ann", "bob", "cy"]
    model = make("parallel", speaker_names=names)
    model(data())
    assert model.num_speakers == 3
    model.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras")
    assert list(again.speaker_names) == names
    numbers, by_name = (again.convert(sound(2), who) for who in (np.array([2, 0]), ["cy", "ann"]))
    assert_same(numbers, by_name)
    assert_same(again.convert(sound(2), np.array(["cy", "ann"], object)), by_name)
    stream = again.streaming(2, "bob")
    made = [stream.decode(stream.encode(sound(2))), stream.decode(stream.encode_end())]
    whole = np.concatenate([*made, stream.decode_end()], 1)
    np.testing.assert_allclose(whole, again.convert(sound(2), 1), atol=1e-6)
    with pytest.raises(ValueError, match=r"speaker must be of \['ann', 'bob', 'cy'\], got \['di'"):
        model.convert(sound(2), "di")
    with pytest.raises(ValueError, match="num_speakers=2, but there are 3 speaker_names"):
        make(speaker_names=names, num_speakers=2)
    with pytest.raises(ValueError, match="speaker_names must be different names"):
        make(speaker_names=["ann", "ann"])


@pytest.mark.tensorflow
@pytest.mark.parametrize("speakers", [None, 3])
def test_keras_own_export(speakers: int | None, tmp_path: Path) -> None:
    import tensorflow as tf

    model = make("parallel", num_speakers=speakers)
    x = data() if speakers else sound()
    model.export(tmp_path / "m", verbose=False)
    served = tf.saved_model.load(tmp_path / "m")
    np.testing.assert_allclose(served.serve(x)["outputs"], model(x)["outputs"], atol=1e-5)


@pytest.mark.parametrize("decoder", ["wavenet", "parallel"])
def test_weights_that_are_not_finite_are_refused(decoder: str) -> None:
    model = make(decoder)
    model(sound())
    weight = model.decoder.trainable_weights[0]
    weight.assign(np.full(weight.shape, np.nan))
    for act in (lambda: model.decode(CODES), model.streaming, lambda: model.reconstruct(sound())):
        with pytest.raises(ValueError, match="not finite|NaN"):
            act()


def test_a_stream_of_a_wavenet_ends_where_its_numbers_do() -> None:
    stream = make().streaming()
    inside(stream).frames_given = 2**31 // 8 - 3
    with pytest.raises(ValueError, match="ends after 2,147,483,647 samples"):
        stream.decode(np.zeros((1, 3), "int32"))
    assert stream.decode(np.zeros((1, 1), "int32")).shape == (1, 8)  # what still fits
    stream.decode_end()
    assert stream.decode(np.zeros((1, 3), "int32")).shape == (1, 24)


def test_padding_is_silence_in_all_uses() -> None:
    """Whatever it holds: `reconstruct` and `convert` as `encode`."""
    model = trained("parallel")
    length = np.array([128, 40, 64, 100, 8], "int32")
    dirty, clean = sound(), sound()
    for one, n in zip(clean, length, strict=True):
        one[n:] = 0
    given = {"waveform": dirty, "length": length}
    speaker = np.array([0, 1, 2, 0, 1], "int32")
    assert_same(
        [model.convert(given, 2), model.reconstruct({**given, "speaker": speaker})],
        [model.convert(clean, 2), model.reconstruct(clean, speaker)],
    )


def test_own_networks_may_have_any_downsampling() -> None:
    encoder = SpectrogramEncoder(4, 22050, 220, hop=220, window=440, bands=32, hidden=8)
    decoder = ParallelDecoder((11, 5, 4), 8, finest_hidden=4)
    model = AudioVQVAE(22050, 16, 4, downsampling=220, encoder=encoder, decoder=decoder)
    assert model.reconstruct(sound(2, 1000)).shape == (2, 1000)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_spectra_and_samples_are_not_rounded_in_low_precision(policy: str) -> None:
    def made(dtype: str) -> AudioVQVAE:
        keras.utils.set_random_seed(0)
        encoder = SpectrogramEncoder(
            4, 8000, 80, hop=40, window=160, bands=20, hidden=8, dtype=dtype
        )
        decoder = ParallelDecoder((5, 4, 4), 8, finest_hidden=4, dtype=dtype)
        return AudioVQVAE(
            8000, 16, 4, downsampling=80, encoder=encoder, decoder=decoder, dtype=dtype
        )

    # A tone 80 dB above what is beside it: rounded to 8 bits its noise would be 30 dB too loud.
    t = np.arange(1600)
    x = (0.5 * np.sin(2 * np.pi * t / 16) + 5e-5 * np.sin(2 * np.pi * t / 2.5))[None]
    low, full = made(policy), made("float32")
    seen = []
    for model in (low, full):
        first = inside(model.encoder).first.call
        inside(model.encoder).first.call = lambda x, first=first: (
            seen.append(to_numpy(x)),
            first(x),
        )[1]
        model.latents(x.astype("float32"))
    np.testing.assert_allclose(seen[0].astype("float32"), seen[1], atol=0.02)
    outputs = to_numpy(low(x.astype("float32"))["outputs"])
    rounded = to_numpy(keras.ops.cast(outputs, low.compute_dtype)).astype("float32")
    assert outputs.dtype == np.float32 and np.mean(outputs != rounded) > 0.5


@pytest.mark.tensorflow
@pytest.mark.graph
def test_datasets_that_do_not_fit() -> None:
    import tensorflow as tf

    widths = tf.data.Dataset.from_generator(
        lambda: iter([sound(2, 64), sound(2, 128)]),
        output_signature=tf.TensorSpec((None, None), tf.float32),
    )
    with pytest.raises(
        ValueError, match=r"encode.. of this dataset .*\(8,\) and \(16,\).*batch by"
    ):
        make().encode(widths)
    with pytest.raises(ValueError, match="takes arrays, not a dataset: call it for each batch"):
        make().reconstruction_loss(widths)
    with pytest.raises(ValueError, match="takes arrays, not a dataset: call it for each batch"):
        make(num_speakers=3).convert(widths, 0)
    unknown = tf.data.Dataset.from_tensors({**data(2), "speaker": np.array([1, 7], "int32")})
    model = make(num_speakers=3)
    for xla in (False, True):
        model.compile("sgd", jit_compile=xla)
        with pytest.raises(tf.errors.InvalidArgumentError, match=r"speaker must be in \[0, 3\)"):
            model.fit(unknown, verbose=0)


@pytest.mark.locked
def test_a_stream_draws_by_a_seed_of_its_own_and_takes_another_speaker() -> None:
    model = trained("wavenet")
    codes = model.encode(sound(1))
    stream = model.streaming(seed=None)
    with pytest.raises(ValueError, match="speaker is missing"):
        stream.decode(codes)
    with pytest.raises(ValueError, match=r"speaker must be in \[0, 3\), got 3"):
        stream.speaker = 3
    stream.speaker = 2
    one = stream.decode(codes)
    assert_same_levels(one, model.decode(codes, 2, seed=stream.seed))


@pytest.mark.parametrize("name", BAD)
def test_refuses(name: str) -> None:
    act, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        act()
