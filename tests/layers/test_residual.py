"""The paper's networks for one, two and three axes."""

from pathlib import Path

import keras
import numpy as np
import pytest

from keras_vqvae import ConvDecoder, ConvEncoder, ParallelDecoder, ResidualStack
from tests.checks import check_layer, floats, to_numpy


def conv(window: tuple, inputs: int, outputs: int) -> int:
    return int(np.prod(window)) * inputs * outputs + outputs


def stack_weights(rank: int, hidden: int, inside: int, blocks: int) -> int:
    return blocks * (conv((3,) * rank, hidden, inside) + conv((1,), inside, hidden))


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_residual_stack(rank: int, tmp_path: Path) -> None:
    check_layer(
        lambda **kw: ResidualStack(rank, 6, residual_hidden=4, blocks=1, **kw),
        (3, *(4,) * rank, 6),
        tmp_path,
        trainable=stack_weights(rank, 6, 4, 1),
    )


def test_residual_stack_is_the_input_when_its_blocks_give_nothing() -> None:
    stack = ResidualStack(2, 4)
    stack.build((None, 5, 5, 4))
    for weight in stack.weights:
        weight.assign(np.zeros(weight.shape, "float32"))
    x = floats((2, 5, 5, 4))
    np.testing.assert_array_equal(stack(x), np.maximum(x, 0))


# downsampling, windows of the strided convolutions
STRIDES = [
    (1, 1, []),
    (1, 4, [(4,), (4,)]),
    (2, 1, []),
    (2, 2, [(4, 4)]),
    (2, 4, [(4, 4), (4, 4)]),
    (2, 8, [(4, 4)] * 3),
    (2, (4, 2), [(4, 4), (4, 3)]),
    (3, (2, 4, 4), [(4, 4, 4), (3, 4, 4)]),
]


@pytest.mark.parametrize("rank, downsampling, windows", STRIDES)
def test_encoder_and_decoder_shapes_and_weights(
    rank: int, downsampling: int | tuple, windows: list
) -> None:
    factors = (downsampling,) * rank if isinstance(downsampling, int) else downsampling
    options = {"downsampling": downsampling, "hidden": 6, "residual_hidden": 4}
    encoder, decoder = ConvEncoder(rank, 5, **options), ConvDecoder(rank, 2, **options)
    sides = (8, 16, 8)[:rank]
    z = encoder(floats((2, *sides, 3)))
    assert z.shape == (2, *(s // f for s, f in zip(sides, factors, strict=True)), 5)
    assert decoder(z).shape == (2, *sides, 2)
    assert decoder.compute_output_shape((None, *z.shape[1:])) == (None, *sides, 2)

    three, stack = (3,) * rank, stack_weights(rank, 6, 4, 2)
    inputs = [3] + [6] * (len(windows) - 1)
    strided = sum(conv(w, i, 6) for w, i in zip(windows, inputs, strict=False))
    strided = strided if windows else conv(three, 3, 6)
    assert encoder.count_params() == strided + stack + conv((1,), 6, 5)
    outputs = [6] * (len(windows) - 1) + [2]
    last = sum(conv(w, 6, o) for w, o in zip(windows[::-1], outputs, strict=False))
    last = last if windows else conv(three, 6, 2)
    assert decoder.count_params() == conv(three, 5, 6) + stack + last


@pytest.mark.parametrize("layer", [ConvEncoder, ConvDecoder])
@pytest.mark.parametrize("rank, downsampling", [(1, 2), (2, (2, 1)), (3, 1)])
def test_shared_checks(layer: type, rank: int, downsampling: int | tuple, tmp_path: Path) -> None:
    def make(**kw: object) -> keras.layers.Layer:
        options = {"downsampling": downsampling, "hidden": 6, "residual_blocks": 1}
        return layer(rank, 2, **options, **kw)

    x = (3, *(4,) * rank, 3)
    check_layer(make, x, tmp_path, trainable=_count(make, x))


def _count(make: object, shape: tuple) -> int:
    layer = make()
    layer.build(shape)
    return layer.count_params()


def test_the_papers_defaults() -> None:
    """Section 4.1: two strided convolutions of window 4, two residual blocks, 256 units."""
    encoder = ConvEncoder(2, 64)
    encoder.build((None, 128, 128, 3))
    assert encoder.compute_output_shape((None, 128, 128, 3)) == (None, 32, 32, 64)
    expected = conv((4, 4), 3, 256) + conv((4, 4), 256, 256)
    expected += stack_weights(2, 256, 256, 2) + conv((1, 1), 256, 64)
    assert encoder.count_params() == expected


BAD = [
    (lambda: ConvEncoder(4, 8), "rank must be 1 .* got 4"),
    (lambda: ResidualStack(0, 8), "rank must be 1 .* got 0"),
    (lambda: ConvEncoder(1, 8, causal="x"), "causal must be True or False, got 'x'"),
    (lambda: ParallelDecoder((2,), 8, causal=1), "causal must be True or False, got 1"),
    (lambda: ConvEncoder(2, 8, residual_blocks=-1), "blocks must be an integer from 0 on, got -1"),
    (lambda: ResidualStack(2, 8, blocks=1.5), "blocks must be an integer from 0 on, got 1.5"),
    (
        lambda: ConvEncoder(2, 8, downsampling=11),
        "downsampling must be an integer, a product of 2.* got 11",
    ),
    (lambda: ConvDecoder(2, 8, downsampling=0), "an integer, a product of 2.* got 0"),
    (lambda: ConvEncoder(1, 8, downsampling=64.0), "product of 2, 3, 5 and 7 such as 64, got 64.0"),
    (
        lambda: ConvEncoder(2, 8, downsampling=(2, 2, 2)),
        r"such as 64, or 2 of them, got \(2, 2, 2\)",
    ),
    (lambda: ResidualStack(2, 8).build((None, 4, 4, 3)), r"rank 4 and 8 channels, got shape"),
    (lambda: ResidualStack(2, 8).build((None, 4, 8)), r"rank 4 and 8 channels, got shape"),
]


@pytest.mark.parametrize("make, message", BAD)
def test_refuses(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_codes_of_quiet_sound_differ_from_the_beginning() -> None:
    """Six stages that each halve what they are given would leave a decoder nothing to go by."""
    sound = 0.05 * np.random.default_rng(0).normal(size=(8, 4096, 1)).astype("float32")
    for seed in range(3):
        keras.utils.set_random_seed(seed)
        encoder = ConvEncoder(1, 64, downsampling=64, hidden=128, finest_hidden=16)
        latents = to_numpy(encoder(sound))
        assert 0.2 < latents.std((0, 1)).mean() / sound.std() < 5
