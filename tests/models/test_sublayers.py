"""Layers inside a model that are frozen, quantized, have LoRA, or are others than before."""

import json
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_vqvae import VQVAE, AudioVQVAE, ImageVQVAE, PixelCNN, VectorQuantizer, WaveNet
from keras_vqvae.models import sublayers
from tests.checks import assert_same, check_steps, images, to_numpy
from tests.inside import inside
from tests.tiny import MODELS

ON_TENSORFLOW = keras.backend.backend() == "tensorflow"
CODES = np.random.default_rng(0).integers(0, 8, (4, 3, 4), dtype="int32")


def make(kind: str) -> keras.Model:
    """With weights of which none is zero or one."""
    model = MODELS[kind][0]()
    random = np.random.default_rng(0)
    for weight in model.weights:
        if "count" not in weight.path:
            weight.assign(random.normal(size=weight.shape) * 0.3)
    return model


def own() -> VQVAE:
    """A VQ-VAE that is built when it is called."""
    encoder = keras.Sequential([keras.layers.Conv2D(4, 2, 2), keras.layers.Dense(4)])
    decoder = keras.Sequential([keras.layers.Conv2DTranspose(3, 2, 2)])
    model = VQVAE(encoder, VectorQuantizer(8, 4), decoder)
    model(images(2))
    return model


def short(kinds: Iterable[str]) -> list:
    """The kinds, of which those that compile longest are long tests."""
    slow = ("VideoPredictor", "VideoVQVAE", "PixelCNN", "AudioVQVAE (WaveNet)")
    return [pytest.param(k, marks=pytest.mark.long if k in slow else ()) for k in kinds]


def quantize(model: keras.Model, mode: str) -> None:
    with warnings.catch_warnings():  # of layers that Keras leaves as they are
        warnings.simplefilter("ignore")
        model.quantize(mode)


def enable_lora(model: keras.Model) -> None:
    """For all layers that can have it, with factors that change what they do."""
    for layer in sublayers.named(model).values():
        if hasattr(layer, "enable_lora"):
            layer.enable_lora(2)
            kind = "embeddings" if isinstance(layer, keras.layers.Embedding) else "kernel"
            b = getattr(layer, f"lora_{kind}_b")
            b.assign(np.random.default_rng(1).normal(size=b.shape) * 0.3)


def reloaded(model: keras.Model, folder: Path) -> keras.Model:
    model.save(folder / "model.keras")
    return keras.models.load_model(folder / "model.keras")


def as_json(model: keras.Model) -> str:
    states = sublayers.states(model)
    for state in states.values():  # None is the mode's own
        state.pop("quantization_config", None)
    return json.dumps(states)


def flags(model: keras.Model) -> list[bool]:
    trained = {id(v) for v in model.trainable_variables}
    return [id(v) in trained for v in model.weights]


def freeze_some(model: keras.Model) -> None:
    """A layer with all in it, a layer deep inside, and one variable."""
    layers = list(sublayers.named(model).values())
    children = inside(model).flatten_layers(include_self=False, recursive=False)
    next(child for child in children if child.trainable_variables).trainable = False
    deep = [x for x in layers if x.trainable_variables and not inside(x).layers]
    deep[0].trainable = False
    deep[-1].trainable_variables[0].trainable = False


@pytest.mark.parametrize("kind", MODELS)
def test_what_is_frozen_stays_frozen(kind: str, tmp_path: Path) -> None:
    """Fault 39: after loading all was trainable, and the optimizer's state was dropped."""
    model = make(kind)
    freeze_some(model)
    model.compile("adam")
    model.optimizer.build(model.trainable_variables)
    for number, variable in enumerate(model.optimizer.variables):
        variable.assign(np.full(variable.shape, number + 1))
    wanted, count = flags(model), len(model.trainable_variables)
    assert 0 < count < len(wanted)
    for other in (
        reloaded(model, tmp_path),
        type(model).from_config(model.get_config()),
        keras.models.clone_model(model),
    ):
        assert flags(other) == wanted
    other = reloaded(model, tmp_path)
    assert_same(list(other.optimizer.variables), list(model.optimizer.variables))


def test_frozen_parts_do_not_move_in_fit(tmp_path: Path) -> None:
    model = ImageVQVAE((8, 8, 3), 8, 4, hidden=4, residual_blocks=0)
    model.encoder.trainable = False
    model.compile("adam")
    other = reloaded(model, tmp_path)
    before = to_numpy(other.encoder.weights)
    other.fit(images(4), verbose=0)
    assert_same(list(other.encoder.weights), before)


def test_a_model_that_is_built_late(tmp_path: Path) -> None:
    model = own()
    model.encoder.layers[0].trainable = False
    quantize(model, "int8")
    other = type(model).from_config(model.get_config())
    other(images(2))
    assert flags(other) == flags(model)
    other = reloaded(model, tmp_path)
    assert flags(other) == flags(model)
    np.testing.assert_array_equal(other.encode(images(2)), model.encode(images(2)))


@pytest.mark.locked
@pytest.mark.parametrize("kind", short(MODELS))
@pytest.mark.parametrize("how", ["int8", "LoRA"])
def test_quantized_and_adapted_models_load(kind: str, how: str, tmp_path: Path) -> None:
    """Fault 20: Keras could not load what it had saved."""
    model, data = make(kind), MODELS[kind][1]
    if how == "LoRA":
        enable_lora(model)
    else:
        quantize(model, how)
    expected = to_numpy(model(data))
    other = reloaded(model, tmp_path)
    keras.tree.map_structure(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        to_numpy(other(data)),
        expected,
    )
    assert flags(other) == flags(model)
    assert as_json(other) == as_json(model)


@pytest.mark.parametrize("mode", ["float8", pytest.param("int4", marks=pytest.mark.long)])
def test_other_ways_to_quantize(mode: str, tmp_path: Path) -> None:
    model = make("PixelCNN")
    quantize(model, mode)
    other = reloaded(model, tmp_path)
    data = MODELS["PixelCNN"][1]
    assert_same(other(data), model(data))


def test_lora_on_rounded_weights_is_not_saved(tmp_path: Path) -> None:
    model = own()
    quantize(model, "int8")
    enable_lora(model)
    with pytest.raises(ValueError, match="cannot be saved: .* has LoRA on weights quantized to"):
        model.save(tmp_path / "model.keras")


def test_loaded_lora_can_be_trained(tmp_path: Path) -> None:
    """Keras sets both factors to zero, where neither has a gradient."""
    model = PixelCNN((3, 4), 8, hidden=4, num_layers=1)
    enable_lora(model)
    model.compile(keras.optimizers.SGD(1.0))
    other = reloaded(model, tmp_path)
    before = to_numpy(other(CODES))
    sublayers.revive_lora(other)
    assert_same(other(CODES), before)
    other.fit(CODES, verbose=0)
    assert np.any(to_numpy(inside(other).logits.lora_kernel_b))


def test_a_configuration_of_another_network() -> None:
    config = PixelCNN((3, 4), 8, hidden=4, num_layers=1).get_config()
    assert "sublayers" not in config
    with pytest.raises(ValueError, match=r"`sublayers` must name layers of .*, got \['Nothing'\]"):
        PixelCNN.from_config({**config, "sublayers": {"Nothing": {"trainable": False}}})


USES: dict[str, Callable] = {
    "ImageVQVAE": lambda m: (
        (m.encode(images(2, (8, 12, 3))), m.decode(CODES[:2, :, :3] * 0 + 5))
        if m.grid_shape == (3, 3)
        else (m.reconstruct(images(2, (8, 12, 3))),)
    ),
    "AudioVQVAE (parallel)": lambda m: (m.decode(CODES[:2, 0], 1),),
    "AudioVQVAE (WaveNet)": lambda m: (m.decode(CODES[:2, 0], 1, seed=0, jit_compile=False),),
    "PixelCNN": lambda m: (
        m.log_prob(MODELS["PixelCNN"][1]),
        m.sample(2, condition=1, seed=0),
    ),
    "WaveNet": lambda m: (
        m.log_prob(MODELS["WaveNet"][1]),
        m.sample(2, condition=1, length=8, seed=0),
    ),
    "VideoPredictor": lambda m: (
        m.log_prob(MODELS["VideoPredictor"][1]),
        m.imagine(m.encode_frames(MODELS["VideoPredictor"][1]["frames"]), CODES[:2, 0] % 3, seed=0),
    ),
}


@pytest.mark.locked
@pytest.mark.parametrize("how", ["LoRA", "int8"])
@pytest.mark.parametrize("kind", short(USES))
def test_compiled_functions_follow(kind: str, how: str) -> None:
    """Fault 63: they went on with the network that they were compiled for."""
    model, use = make(kind), USES[kind]
    before = use(model)
    enable_lora(model) if how == "LoRA" else quantize(model, how)
    after = use(model)
    inside(model).compiled_functions.clear()  # as a process that had compiled nothing before
    for a, b in zip(after, use(model), strict=True):
        np.testing.assert_array_equal(a, b)
    if how == "LoRA":  # rounding to int8 need not change what is drawn
        assert np.any(before[0] != after[0]), "nothing was changed, so that nothing was tested"


def test_functions_of_keras_follow() -> None:
    model = PixelCNN((3, 4), 8, hidden=4, num_layers=1)
    model.compile("sgd")
    model.predict(CODES, verbose=0), model.evaluate(CODES, verbose=0)
    enable_lora(model)
    np.testing.assert_allclose(model.predict(CODES, verbose=0), to_numpy(model(CODES)), atol=1e-5)
    expected = -np.mean(model.log_prob(CODES)) / np.log(2) / 12
    np.testing.assert_allclose(model.evaluate(CODES, verbose=0), expected, rtol=1e-4)


def test_a_layer_in_the_place_of_another() -> None:
    model = own()
    model.encode(images(2))
    model.encoder.pop()
    model.encoder.add(keras.layers.Conv2D(4, 1))
    model.encoder.build((None, 8, 8, 3))
    expected = to_numpy(model.quantizer.encode(model.latents(keras.ops.array(images(2)))))
    np.testing.assert_array_equal(model.encode(images(2)), expected)


def test_nothing_is_compiled_anew_without_a_change() -> None:
    model = own()
    model.encode(images(2))
    (function,) = inside(model).compiled_functions.values()
    model.compile("sgd")
    model.fit(images(2), verbose=0)
    model.encode(images(2))
    assert list(inside(model).compiled_functions.values()) == [function]
    model.encoder.trainable = False
    model.encode(images(2))
    assert list(inside(model).compiled_functions.values()) != [function]


@pytest.mark.locked
@pytest.mark.parametrize(
    "how", ["LoRA", "int8", *(pytest.param(x, marks=pytest.mark.long) for x in ("int4", "float8"))]
)
def test_steps_are_those_of_the_whole(how: str) -> None:
    """Fault 65: a WaveNet's steps read raw int8 kernels, and drew from logits of 4.8e6 for 1.6."""
    model = make("WaveNet")
    enable_lora(model) if how == "LoRA" else quantize(model, how)
    check_steps(model, MODELS["WaveNet"][1], tolerance=1e-4)


@pytest.mark.locked
@pytest.mark.parametrize("how", ["LoRA", "int8"])
def test_sound_is_drawn_from_what_call_gives(how: str) -> None:
    """The same of a decoder with conditions, whose levels are compared by their likelihood."""
    model: AudioVQVAE = make("AudioVQVAE (WaveNet)")
    enable_lora(model) if how == "LoRA" else quantize(model, how)
    codes = CODES[:2, 0]
    cold = model.decode(codes, 1, seed=0, temperature=1e-6, jit_compile=False)
    data = {"waveform": cold, "speaker": np.array([1, 1], "int32"), "codes": codes}
    quantized = model.quantizer.decode(keras.ops.array(codes))
    condition = inside(model).condition(keras.ops.array(data["speaker"]))
    logits = to_numpy(model.decoder(quantized, keras.ops.array(cold), *condition))
    likeliest = to_numpy(model.decoder.waveform(keras.ops.array(logits.argmax(-1), "int32")))
    assert np.mean(np.abs(likeliest - cold) < 1e-5) > 0.95


@pytest.mark.locked
def test_wavenet_alone_has_conditions_of_its_own() -> None:
    model = WaveNet(8, channels=4, skip_channels=4, dilations=(1, 2), burn_in=0)
    quantize(model, "int8")
    check_steps(model, CODES[:, 0], tolerance=1e-4)
