"""WaveNet's network: causal, as far as its receptive field, and the same step by step."""

import numpy as np
import pytest

from keras_vqvae import WaveNetStack
from keras_vqvae.functional import causal_shift
from tests.checks import check_layer, dependencies, floats, to_numpy


def test_layer(tmp_path) -> None:
    gated = 2 * (2 * 2 * 4 * 8 // 2 + 8 + 4 * 6 + 6) + (4 * 4 + 4)
    check_layer(
        lambda **kw: WaveNetStack(5, 4, 6, dilations=(1, 2), **kw),
        (2, 8, 4),
        tmp_path,
        trainable=gated + 6 * 6 + 6 + 6 * 5 + 5,
    )


@pytest.mark.parametrize("taps, dilations", [(2, (1, 2)), (3, (1, 2)), (2, (2, 1, 1))])
def test_causal_and_no_blind_spot(taps: int, dilations: tuple) -> None:
    stack = WaveNetStack(5, 4, 6, kernel_size=taps, dilations=dilations)
    length = 10
    stack.build((None, length, 4))
    found = dependencies(lambda x: stack(causal_shift(x)), (length,), 4)
    reach = stack.receptive_field
    assert reach == (taps - 1) * sum(dilations) + 1
    expected = np.array([[0 < i - j <= reach for j in range(length)] for i in range(length)])
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("taps, dilations", [(2, (1, 2, 4, 1, 2)), (3, (1, 3)), (4, (2, 1))])
@pytest.mark.parametrize("conditions", ["none", "local", "global", "both"])
def test_step_by_step(taps: int, dilations: tuple, conditions: str) -> None:
    """Twice as many steps as the longest ring holds, so that each is written over."""
    stack = WaveNetStack(5, 4, 6, kernel_size=taps, dilations=dilations)
    steps = 24
    x = floats((3, steps, 4))
    local = floats((3, steps // 4, 2), seed=1) if conditions in ("local", "both") else None
    global_ = floats((3, 2), seed=2) if conditions in ("global", "both") else None
    stack(x, local, global_)
    for weight in stack.weights:
        weight.assign(floats(weight.shape, seed=3) / 2)
    whole = to_numpy(stack(x, local, global_))
    assert whole.std() > 0.1
    generator, buffers = stack.generator(), stack.initial_buffers(3)
    for t in range(steps):
        addend = generator.addend(None if local is None else local[:, t // 4], global_)
        out, buffers = generator.step(buffers, addend, x[:, t], np.int32(t))
        np.testing.assert_allclose(to_numpy(out), whole[:, t], atol=2e-5, rtol=1e-5)


def test_refuses() -> None:
    with pytest.raises(ValueError, match="dilations must be some positive integers"):
        WaveNetStack(5, dilations=())
    with pytest.raises(ValueError, match="kernel_size must be at least 2"):
        WaveNetStack(5, kernel_size=1)
