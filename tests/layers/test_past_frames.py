"""PastFrames: what it sees, what actions do, bad input."""

from pathlib import Path

import keras
import numpy as np
import pytest

from keras_vqvae import PastFrames
from tests.checks import assert_same, copy_by_config, floats, gradient, num_entries

SHAPE = (3, 4, 5, 6, 2)  # batch, time, height, width, channels


def make(**options: object) -> PastFrames:
    return PastFrames(8, **{"dilations": (1, 2), "reach": (1, 2), **options})


@pytest.mark.parametrize("actions", [0, 3])
def test_shape_weights_and_configuration(actions: int, tmp_path: Path) -> None:
    layer = make()
    action = floats((3, actions)) if actions else None
    maps, moved = layer(floats(SHAPE), action)
    assert (tuple(maps.shape), tuple(moved.shape)) == layer.compute_output_shape(SHAPE)
    assert (tuple(maps.shape), tuple(moved.shape)) == ((3, 5, 6, 8), (3, 5, 6, 2))
    block = 9 * 8 * 16 + 16 + 8 * 8 + 8 + actions * 32
    transport = (8 + 1) * 4 * 3 * 5 + (2 + 1) * 8
    assert num_entries(layer.trainable_weights) == (
        5 * 6 * 8 + 9 * 4 * 2 * 8 + 8 + 2 * block + transport
    )
    copy = copy_by_config(layer)
    if not copy.built:
        copy.build(SHAPE, (3, actions) if actions else None)
    copy.set_weights(layer.get_weights())
    for ours, theirs in zip(copy(floats(SHAPE), action), (maps, moved), strict=True):
        assert_same(ours, theirs)


def test_every_frame_and_the_action_are_seen() -> None:
    layer = make(dilations=(1, 2, 4))
    action = floats((3, 3))
    layer(floats(SHAPE), action)
    weights = floats((3, 5, 6, 8), 1)
    total = lambda x, a: keras.ops.sum(layer(x, a)[0] * weights)  # noqa: E731
    seen = gradient(lambda x: total(x, action), floats(SHAPE))
    assert np.all(np.any(seen != 0, axis=(2, 3, 4)))
    assert np.all(gradient(lambda a: total(floats(SHAPE), a), action) != 0)


def test_the_action_says_where_vectors_come_from() -> None:
    layer = make()
    moved = [layer(floats(SHAPE), floats((3, 3), seed))[1] for seed in (0, 1)]
    assert np.abs(moved[0] - moved[1]).max() > 1e-4


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="dilations must be of at least one block"):
        make(dilations=())
    with pytest.raises(ValueError, match="must be .batch, time, height, width, channels"):
        make().build((None, 4, 5, 6))
    layer = make()
    layer(floats(SHAPE))
    with pytest.raises(ValueError, match="built without an action"):
        layer(floats(SHAPE), floats((3, 2)))
