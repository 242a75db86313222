"""Keras's global settings, dtype policies and names: every public layer and model."""

import inspect
import math
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import pytest

import keras_vqvae as kv
from tests.checks import assert_same, check_by_keras, floats, gradient, to_numpy
from tests.inside import inside
from tests.tiny import LAYERS, MODELS

# image_data_format, floatx, dtype policy, and how much outputs may differ from float32's.
SETTINGS = {
    "channels_first": ("channels_first", "float32", "float32", 1e-5),
    "float64": ("channels_first", "float64", "float64", 1e-5),
    "bfloat16": ("channels_last", "bfloat16", "bfloat16", 0.1),
    "float16": ("channels_last", "float16", "float16", 0.02),
    "policy": ("channels_last", "float32", "float16", 0.02),
    "floatx": ("channels_last", "float64", "float32", 1e-5),
}
# JAX has float64 only on request, by a setting for the whole process.
ON_JAX = keras.backend.backend() == "jax"
OF_LAYERS = [name for name in SETTINGS if not (ON_JAX and name in ("float64", "floatx"))]
OF_MODELS = [
    "channels_first" if ON_JAX else "float64",
    "bfloat16",
    pytest.param("policy", marks=pytest.mark.long),
]


def set_keras(image_data_format: str, floatx: str, policy: str) -> None:
    keras.config.set_image_data_format(image_data_format)
    keras.config.set_floatx(floatx)
    keras.config.set_dtype_policy(policy)


@pytest.fixture
def setting(request: pytest.FixtureRequest) -> Iterator[tuple]:
    before = (
        keras.config.image_data_format(), keras.config.floatx(), keras.config.dtype_policy()
    )  # fmt: skip
    *values, tolerance = SETTINGS[request.param]
    set_keras(*values)
    try:
        yield *values, tolerance
    finally:
        set_keras(*before)


def of(names: list[str]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("setting", names, indirect=True)


def spec_of(data: Any) -> Any:
    """Symbols like arrays, of a batch of unknown size."""
    return keras.tree.map_structure(
        lambda x: keras.KerasTensor((None, *x.shape[1:]), str(x.dtype)), data
    )


def assert_like_its_spec(tensor: Any, spec: keras.KerasTensor) -> None:
    assert spec.dtype == keras.backend.standardize_dtype(tensor.dtype)
    assert tuple(spec.shape) == (None, *tensor.shape[1:])


@of(OF_LAYERS)
@pytest.mark.parametrize("name", LAYERS)
def test_layers_work_under_every_setting(name: str, setting: tuple) -> None:
    """Same numbers as under Keras's defaults, and symbolic calls say their shape and dtype."""
    make, data = LAYERS[name]
    keras.utils.set_random_seed(0)
    layer = make()
    outputs = layer(*data)
    keras.tree.map_structure(assert_like_its_spec, outputs, layer(*spec_of(data)))
    set_keras("channels_last", "float32", "float32")
    default = make()
    expected = default(*data)
    default.set_weights([to_numpy(weight) for weight in layer.weights])
    expected = default(*data)
    for output, want in zip(*map(keras.tree.flatten, (outputs, expected)), strict=True):
        np.testing.assert_allclose(
            to_numpy(output), to_numpy(want), rtol=setting[-1], atol=setting[-1]
        )


# `check_layer` runs it for layers of one input.
@pytest.mark.parametrize("name", [name for name, (_, data) in LAYERS.items() if len(data) > 1])
def test_layers_of_several_inputs_pass_what_keras_asks_of_its_own(name: str) -> None:
    make, data = LAYERS[name]
    if name == "GatedMaskedConv2D":  # Keras's check knows no pair among several inputs
        check_by_keras(make, tuple(part.shape for part in data[0]))
        return
    names = inspect.signature(make().build).parameters
    check_by_keras(make, {arg: part.shape for arg, part in zip(names, data, strict=True)})


def use(model: keras.Model, data: Any) -> None:
    """What users call."""
    if isinstance(model, kv.VideoPredictor):
        frames, actions = data["frames"], data["actions"]
        made = model.predict_frames(frames[:, :2], actions[:, 1:3], top_k=3, seed=0, verbose=0)
        assert made.dtype == "uint8" and made.shape == frames[:, :2].shape
        assert np.isfinite(model.log_prob(data)).all()
    elif isinstance(model, kv.Autoregressive):
        length = {"length": 4} if None in model.grid_shape else {}
        drawn = model.sample(2, 1, top_k=3, top_p=0.9, seed=0, verbose=0, **length)
        assert drawn.dtype == "int32"
        assert np.isfinite(model.log_prob(data)).all()
    else:
        speaker = [data["speaker"]] if isinstance(data, dict) else []
        x = data["waveform"] if speaker else data
        codes = model.encode(x)
        assert codes.dtype == "int32"
        decoded = model.decode(codes, *speaker)
        assert decoded.shape == x.shape and decoded.dtype == x.dtype


@of(OF_MODELS)
@pytest.mark.parametrize("name", MODELS)
def test_models_work_under_every_setting(name: str, setting: tuple) -> None:
    make, data = MODELS[name]
    if name.startswith("AudioVQVAE") and setting[1] == "bfloat16":
        # Keras would round waveforms to it before they reach the model.
        with pytest.raises(ValueError, match=r"floatx\(\)` must be float32 or float64, got bfl"):
            make()
        return
    model = make()
    outputs = model(data)
    keras.tree.map_structure(assert_like_its_spec, outputs, model(spec_of(data)))
    model.compile(keras.optimizers.SGD(1e-3), run_eagerly=True)
    (loss,) = model.fit(data, verbose=0).history["loss"]
    assert math.isfinite(loss)
    use(model, data)


def test_every_public_layer_and_model_is_in_the_tables() -> None:
    in_models = {name.split()[0] for name in MODELS}
    public = {getattr(kv, name) for name in kv.__all__ if isinstance(getattr(kv, name), type)}
    models = {thing.__name__ for thing in public if issubclass(thing, keras.Model)}
    layers = {thing.__name__ for thing in public if issubclass(thing, keras.layers.Layer)}
    assert set(LAYERS) == layers - models
    # Base classes, and the one with networks of one's own.
    assert in_models == models - {"VQVAE", "Autoencoder", "Autoregressive"}


@pytest.mark.parametrize("name", [*LAYERS, *MODELS])
def test_names_inside_are_the_same_in_every_instance(name: str) -> None:
    """Numbered automatically, they would match no path of a `DTypePolicyMap` and no int8 file."""
    make, data = (LAYERS | MODELS)[name]

    def paths() -> list[str]:
        layer: Any = make(name="outer")
        if name in LAYERS:
            layer(*data)
        paths = [one.path for one in inside(layer).flatten_layers()]
        assert len(set(paths)) == len(paths), "a path must name one layer"
        return paths + [weight.path for weight in layer.weights]

    assert paths() == paths()


@of(["channels_first"])
def test_networks_of_ones_own_with_channels_first_are_named(setting: tuple) -> None:
    encoder = keras.Sequential([keras.layers.Conv2D(4, 2, 2, name="mine")])
    decoder = keras.Sequential([keras.layers.Conv2DTranspose(3, 2, 2, name="too")])
    model = kv.VQVAE(encoder, kv.VectorQuantizer(8, 4), decoder)
    with pytest.raises(ValueError, match='"channels_first": mine, too. Make them with'):
        model(np.zeros((2, 8, 8, 3), "uint8"))
    encoder = keras.Sequential([keras.layers.Conv1D(4, 2, 2, name="mine")])
    with pytest.raises(ValueError, match='"channels_first": mine. Make them with'):
        kv.AudioVQVAE(8000, 8, 4, encoder=encoder, downsampling=2, decoder="parallel", hidden=4)


def test_networks_that_permute_may_have_channels_first() -> None:
    def with_channels_first(layer: type, filters: int) -> keras.Sequential:
        first, last = keras.layers.Permute((3, 1, 2)), keras.layers.Permute((2, 3, 1))
        return keras.Sequential([first, layer(filters, 2, 2, data_format="channels_first"), last])

    encoder = with_channels_first(keras.layers.Conv2D, 4)
    decoder = with_channels_first(keras.layers.Conv2DTranspose, 3)
    model = kv.VQVAE(encoder, kv.VectorQuantizer(8, 4), decoder)
    model.build((None, 4, 6, 3))
    assert model.grid_shape == (2, 3)


@pytest.mark.parametrize(
    "layer",
    [kv.CausalConv1D, kv.CausalConv1DTranspose, kv.CausalConv3D, kv.CausalConv3DTranspose],
)
def test_convolutions_refuse_the_arguments_that_they_do_not_honour(layer: type) -> None:
    options = {"data_format": "channels_first", "padding": "same"}
    for name, value in options.items():
        with pytest.raises(ValueError, match=f"`{name}` must be .*, got '{value}'"):
            layer(2, 2, **{name: value})
    assert layer(2, 2, data_format="channels_last").data_format == "channels_last"
    if "Transpose" in layer.__name__:
        with pytest.raises(ValueError, match="`output_padding` must be left out, got 0"):
            layer(2, 2, output_padding=0)


@pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="TensorFlow has none on CPUs")
def test_a_dilated_transposed_convolution_keeps_the_length_and_sees_nothing_later() -> None:
    """It gave two steps too many, in silence."""
    layer, x = kv.CausalConv1DTranspose(2, 3, dilation_rate=2), floats((1, 6, 3))
    assert layer(x).shape == layer.compute_output_shape(x.shape) == (1, 6, 2)
    seen = np.any(gradient(lambda x: keras.ops.sum(layer(x)[:, 4]), x) != 0, (0, 2))
    np.testing.assert_array_equal(seen, [True, False, True, False, True, False])


@pytest.mark.parametrize("name", ["GatedMaskedConv2D", "PastFrames", "WaveNetStack"])
def test_layers_quantized_to_int8_come_back_in_a_plain_model(name: str, tmp_path: Any) -> None:
    make, data = LAYERS[name]
    flat = keras.tree.flatten
    inputs = keras.tree.map_structure(lambda x: keras.Input(x.shape[1:]), data)
    model = keras.Model(flat(inputs), flat(make()(*inputs)))
    model.quantize("int8")
    model.save(tmp_path / "int8.keras")
    loaded = keras.saving.load_model(tmp_path / "int8.keras")
    assert {str(weight.dtype) for weight in loaded.weights} >= {"int8", "float32"}
    assert_same(flat(loaded(flat(data))), flat(model(flat(data))))
