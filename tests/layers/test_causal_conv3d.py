"""Causal convolutions of video: against their 1-D kin, by gradient, in shape."""

from pathlib import Path

import keras
import numpy as np
import pytest

from keras_vqvae import CausalConv1D, CausalConv1DTranspose, CausalConv3D, CausalConv3DTranspose
from tests.checks import check_layer, floats, gradient, to_numpy

WINDOWS = [(3, 1), (4, 2), (5, 2), (1, 1), ((4, 3, 4), (2, 1, 2)), ((2, 6, 3), (1, 3, 1))]


@pytest.mark.parametrize("window, stride", WINDOWS)
@pytest.mark.parametrize("transposed", [False, True])
def test_shapes_and_what_sees_what_in_time(
    window: int | tuple, stride: int | tuple, transposed: bool
) -> None:
    layer = (CausalConv3DTranspose if transposed else CausalConv3D)(2, window, stride)
    x = floats((1, 6, 6, 6, 3))
    y = to_numpy(layer(x))
    assert y.shape == layer.compute_output_shape(x.shape)
    taps, step = layer.kernel_size[0], layer.strides[0]
    for t in range(y.shape[1]):
        seen = np.any(gradient(lambda x, t=t: keras.ops.sum(layer(x)[:, t]), x) != 0, (0, 2, 3, 4))
        if transposed:
            expected = [i * step <= t < i * step + taps for i in range(6)]
        else:
            last = (t + 1) * step - 1
            expected = [last - taps < i <= last for i in range(6)]
        np.testing.assert_array_equal(seen, expected)


@pytest.mark.parametrize("window, stride", [(3, 1), (4, 2), (5, 2)])
def test_time_is_as_in_one_dimension(window: int, stride: int) -> None:
    for flat, deep in (
        (CausalConv1D, CausalConv3D),
        (CausalConv1DTranspose, CausalConv3DTranspose),
    ):
        one, three = flat(2, window, stride), deep(2, (window, 1, 1), (stride, 1, 1))
        x = floats((2, 6, 3))
        one(x), three(x[:, :, None, None])
        for a, b in zip(one.weights, three.weights, strict=True):
            b.assign(keras.ops.reshape(a, b.shape))
        np.testing.assert_allclose(
            to_numpy(three(x[:, :, None, None]))[:, :, 0, 0], to_numpy(one(x)), atol=1e-6
        )


@pytest.mark.parametrize("window, stride", [(4, 2), (5, 2)])
@pytest.mark.parametrize("transposed", [False, True])
def test_space_is_padded_as_keras_does(window: int, stride: int, transposed: bool) -> None:
    name = "Conv3DTranspose" if transposed else "Conv3D"
    ours = (CausalConv3DTranspose if transposed else CausalConv3D)(
        2, (1, window, window), (1, stride, stride)
    )
    keras_ = getattr(keras.layers, name)(
        2, (1, window, window), (1, stride, stride), padding="same"
    )
    x = floats((2, 3, 6, 8, 3))
    ours(x), keras_(x)
    keras_.set_weights([to_numpy(w) for w in ours.weights])
    np.testing.assert_allclose(to_numpy(ours(x)), to_numpy(keras_(x)), atol=1e-5)


@pytest.mark.parametrize("transposed", [False, True])
def test_shared_checks(transposed: bool, tmp_path: Path) -> None:
    layer = CausalConv3DTranspose if transposed else CausalConv3D
    check_layer(
        lambda **kw: layer(2, (4, 3, 4), (2, 1, 2), **kw),
        (2, 4, 3, 4, 3),
        tmp_path,
        trainable=48 * 3 * 2 + 2,
    )


def test_dilated_windows_keep_the_shape_and_see_nothing_later() -> None:
    layer = CausalConv3D(2, 3, dilation_rate=2)
    x = floats((1, 6, 6, 6, 3))
    assert layer(x).shape == layer.compute_output_shape(x.shape) == (1, 6, 6, 6, 2)
    seen = np.any(gradient(lambda x: keras.ops.sum(layer(x)[:, 4]), x) != 0, (0, 2, 3, 4))
    np.testing.assert_array_equal(seen, [True, False, True, False, True, False])


def test_windows_below_strides_are_refused() -> None:
    with pytest.raises(ValueError, match="`dilation_rate` must be 1"):
        CausalConv3DTranspose(2, 3, dilation_rate=2)
    with pytest.raises(ValueError, match='`data_format` must be "channels_last"'):
        CausalConv3D(2, 3, data_format="channels_first")
    with pytest.raises(ValueError, match="frames would be lost"):
        CausalConv3D(2, 1, (2, 1, 1))
    with pytest.raises(ValueError, match="leaves holes"):
        CausalConv3DTranspose(2, 3, (1, 4, 1))
