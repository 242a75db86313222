"""Causal convolutions and WaveNet's block: against numpy, by gradient, at their borders."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_vqvae import CausalConv1D, CausalConv1DTranspose, WaveNetBlock
from tests.checks import check_layer, dependencies, floats, to_numpy


def conv_reference(x: np.ndarray, kernel: np.ndarray, bias: np.ndarray, stride: int, dilation: int):
    """Output t is the sum over i of kernel[i] times the input i*dilation after its oldest."""
    taps = len(kernel)
    past = dilation * (taps - 1) + 1 - stride
    padded = np.concatenate([np.zeros((len(x), past, x.shape[2])), x], 1)
    out = np.zeros((len(x), x.shape[1] // stride, kernel.shape[2]))
    for t in range(out.shape[1]):
        for i in range(taps):
            out[:, t] += padded[:, t * stride + i * dilation] @ kernel[i]
    return out + bias


@settings(max_examples=25, deadline=None)
@given(
    taps=st.integers(1, 4),
    stride=st.sampled_from([1, 1, 2, 3]),
    dilation=st.integers(1, 5),
    steps=st.integers(1, 5),
)
def test_conv_against_numpy(taps: int, stride: int, dilation: int, steps: int) -> None:
    taps, dilation = max(taps, stride), dilation if stride == 1 else 1
    layer = CausalConv1D(3, taps, stride, dilation)
    x = floats((2, steps * stride, 2))
    got = to_numpy(layer(x))
    layer.bias.assign(floats((3,), seed=1))
    kernel, bias = map(to_numpy, (layer.kernel, layer.bias))
    np.testing.assert_allclose(got, conv_reference(x, kernel, 0.0, stride, dilation), atol=1e-5)
    np.testing.assert_allclose(
        to_numpy(layer(x)), conv_reference(x, kernel, bias, stride, dilation), atol=1e-5
    )


@pytest.mark.parametrize("groups", [1, 2])
def test_further_arguments_of_keras_count(groups: int) -> None:
    """Dilated convolutions go a way of their own on JAX."""
    layer = CausalConv1D(4, 3, dilation_rate=2, groups=groups, activation="relu")
    x = floats((2, 6, 4))
    got, kernel = to_numpy(layer(x)), to_numpy(layer.kernel)
    parts = [
        conv_reference(part, of_it, 0.0, 1, 2)
        for part, of_it in zip(np.split(x, groups, -1), np.split(kernel, groups, -1), strict=True)
    ]
    np.testing.assert_allclose(got, np.maximum(np.concatenate(parts, -1), 0), atol=1e-5)
    assert (got == 0).any() and (got > 0).any()


def test_an_identity_filter_does_not_move_sound() -> None:
    layer = CausalConv1D(1, 3, dilation_rate=2, use_bias=False)
    layer.build((None, None, 1))
    layer.kernel.assign(np.array([0, 0, 1], "float32")[:, None, None])
    x = floats((1, 7, 1))
    np.testing.assert_array_equal(to_numpy(layer(x)), x)


@pytest.mark.parametrize("taps, stride", [(2, 1), (4, 2), (5, 2), (3, 3), (10, 5)])
def test_transposed_against_numpy(taps: int, stride: int) -> None:
    layer = CausalConv1DTranspose(3, taps, stride)
    x = floats((2, 4, 2))
    got = to_numpy(layer(x))
    kernel = to_numpy(layer.kernel)  # (taps, out, in)
    whole = np.zeros((2, 4 * stride + taps, 3))
    for t in range(4):
        for i in range(taps):
            whole[:, t * stride + i] += x[:, t] @ kernel[i].T
    np.testing.assert_allclose(got, whole[:, : 4 * stride], atol=1e-5)


@pytest.mark.parametrize("taps, dilation", [(2, 1), (2, 3), (3, 2)])
def test_what_an_output_depends_on(taps: int, dilation: int) -> None:
    layer = CausalConv1D(4, taps, dilation_rate=dilation)
    layer.build((None, 9, 2))
    found = dependencies(layer, (9,), 2)
    seen = {i * dilation for i in range(taps)}
    expected = np.array([[i - j in seen for j in range(9)] for i in range(9)])
    np.testing.assert_array_equal(found, expected)


def test_a_strided_output_sees_its_own_steps_and_those_before() -> None:
    layer = CausalConv1D(4, 4, 2)
    x = floats((1, 8, 1))
    base = to_numpy(layer(x))
    for step in range(8):
        changed = x.copy()
        changed[0, step] += 1
        moved = np.any(to_numpy(layer(changed)) != base, -1)[0]
        assert list(np.flatnonzero(moved)) == [t for t in (step // 2, step // 2 + 1) if t < 4]


@pytest.mark.parametrize("taps", [2, 3])
@pytest.mark.parametrize("conditions", ["none", "local", "global", "both"])
def test_block_against_numpy(taps: int, conditions: str) -> None:
    block = WaveNetBlock(3, 5, taps, 2)
    x = floats((2, 8, 3))
    local = floats((2, 4, 2), seed=1) if conditions in ("local", "both") else None
    global_ = floats((2, 4), seed=2) if conditions in ("global", "both") else None
    residual, skip = map(to_numpy, block(x, local, global_))
    for weight in block.weights:
        weight.assign(floats(weight.shape, seed=3) / 2)
    residual, skip = map(to_numpy, block(x, local, global_))
    z = conv_reference(x, to_numpy(block.conv.kernel), to_numpy(block.conv.bias), 1, 2)
    if local is not None:
        z += np.repeat(local @ to_numpy(block.local_condition.kernel), 2, 1)
    if global_ is not None:
        z += (global_ @ to_numpy(block.global_condition.kernel))[:, None]
    z = np.tanh(z[..., :3]) / (1 + np.exp(-z[..., 3:]))
    dense = to_numpy(block.residual.kernel), to_numpy(block.residual.bias)
    np.testing.assert_allclose(residual, x + z @ dense[0] + dense[1], atol=1e-5)
    dense = to_numpy(block.skip.kernel), to_numpy(block.skip.bias)
    np.testing.assert_allclose(skip, z @ dense[0] + dense[1], atol=1e-5)


def test_layers(tmp_path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
    check_layer(
        lambda **kw: CausalConv1D(4, 3, dilation_rate=2, **kw),
        (2, 8, 3),
        tmp_path / "a",
        trainable=3 * 3 * 4 + 4,
    )
    check_layer(
        lambda **kw: CausalConv1DTranspose(4, 6, 3, **kw),
        (2, 8, 3),
        tmp_path / "b",
        trainable=6 * 3 * 4 + 4,
    )


def test_a_block_among_other_layers_survives_saving(tmp_path) -> None:
    """It has two outputs, so it joins by a functional model."""
    sound, local, speaker = (keras.Input(s) for s in ((8, 4), (4, 2), (3,)))
    x, skip = WaveNetBlock(4, 6, 3, 2)(sound, local, speaker)
    _, more = WaveNetBlock(4, 6, last=True)(x, local, speaker)
    model = keras.Model([sound, local, speaker], skip + more)
    model.compile("sgd", "mse")
    data = [floats((5, 8, 4)), floats((5, 4, 2)), floats((5, 3))]
    before = to_numpy(model.weights)
    model.fit(data, floats((5, 8, 6)), verbose=0)
    for old, weight in zip(before, model.weights, strict=True):
        assert np.any(old != to_numpy(weight)), weight.path
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(to_numpy(loaded(data)), to_numpy(model(data)))


BAD = {
    "both": (lambda: CausalConv1D(2, 4, strides=2, dilation_rate=2), "exclude each other"),
    "steps": (
        lambda: CausalConv1D(2, 4, 2)(floats((1, 7, 1))),
        "steps that divide by strides=2, got 7: pad them",
    ),
    "window": (lambda: CausalConv1D(3, 2, 4), "kernel_size=2 is smaller than strides=4"),
    "holes": (lambda: CausalConv1DTranspose(3, 2, 4), "kernel_size=2 is smaller than strides=4"),
    "channels": (lambda: WaveNetBlock(3, 5)(floats((2, 8, 4))), r"\(batch, steps, 3\), got \(2"),
    "divides": (
        lambda: WaveNetBlock(3, 5)(floats((2, 8, 3)), floats((2, 3, 2))),
        "3 vectors of a local condition do not divide 8 steps",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_refuses(name: str) -> None:
    make, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        make()


def test_refuses_a_condition_it_was_built_without() -> None:
    block = WaveNetBlock(3, 5)
    block(floats((2, 8, 3)))
    with pytest.raises(ValueError, match="was built without a local condition"):
        block(floats((2, 8, 3)), floats((2, 4, 2)))
