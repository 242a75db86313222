"""Transport: a numpy reference, what it begins with, what it cannot reach, bad input."""

import math

import keras
import numpy as np
import pytest

from keras_vqvae import Transport
from tests.checks import assert_same, copy_by_config, floats, num_entries

FRAMES, MAPS = (2, 3, 4, 5, 6), (2, 4, 5, 7)  # batch, (time,) height, width, channels


def made(reach: tuple = (1, 2)) -> Transport:
    layer = Transport(reach)
    layer(floats(FRAMES), floats(MAPS, 1))
    return layer


def reference(layer: Transport, frames: np.ndarray, maps: np.ndarray) -> np.ndarray:
    kernel, bias = (np.asarray(w) for w in layer.get_weights())
    logits = maps @ kernel + bias
    rows, columns = layer.reach
    batch, time, height, width, channels = frames.shape
    out = np.zeros((batch, height, width, channels))
    offsets = [(a, b) for a in range(-rows, rows + 1) for b in range(-columns, columns + 1)]
    for n, i, j in np.ndindex(batch, height, width):
        weights, vectors = [], []
        for t in range(time):
            for number, (a, b) in enumerate(offsets):
                if 0 <= i + a < height and 0 <= j + b < width:
                    weights.append(math.exp(logits[n, i, j, t * len(offsets) + number]))
                    vectors.append(frames[n, t, i + a, j + b])
        out[n, i, j] = np.array(weights) @ np.array(vectors) / np.sum(weights)
    return out


@pytest.mark.parametrize("reach", [(0, 0), (1, 2), (4, 5)])
def test_as_in_numpy(reach: tuple) -> None:
    layer = made(reach)
    layer.set_weights([floats(w.shape, i) for i, w in enumerate(layer.get_weights())])
    frames, maps = floats(FRAMES), floats(MAPS, 1)
    out = layer(frames, maps)
    assert tuple(out.shape) == layer.compute_output_shape(FRAMES, MAPS) == (2, 4, 5, 6)
    np.testing.assert_allclose(out, reference(layer, frames, maps), atol=1e-5)
    offsets = (2 * reach[0] + 1) * (2 * reach[1] + 1)
    assert num_entries(layer.trainable_weights) == 3 * offsets * (7 + 1)


def test_configuration() -> None:
    layer = made()
    copy = copy_by_config(layer)
    copy(floats(FRAMES), floats(MAPS, 1))
    copy.set_weights(layer.get_weights())
    assert copy.reach == (1, 2)
    assert_same(copy(floats(FRAMES), floats(MAPS)), layer(floats(FRAMES), floats(MAPS)))


def test_at_first_mostly_the_last_frame_stays() -> None:
    frames = np.zeros(FRAMES, "float32")
    frames[:, -1, 2, 2] = 1.0
    out = keras.ops.convert_to_numpy(made()(frames, np.zeros(MAPS, "float32")))
    assert out[:, 2, 2].min() > 0.3
    others = out.copy()
    others[:, 2, 2] = 0
    assert others.max() < 0.1


class Follower(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.transport = Transport((0, 2))

    def call(self, frames: object) -> object:
        return self.transport(frames, keras.ops.ones((keras.ops.shape(frames)[0], *MAPS[1:])))


@pytest.mark.long
def test_it_learns_to_follow_a_movement() -> None:
    """What moves to the right by two places is found where it came from, where that is in sight."""
    model = Follower()
    frames = floats((16, *FRAMES[1:]))
    wanted = np.roll(frames[:, -1], 2, axis=2)

    def error() -> float:
        made = keras.ops.convert_to_numpy(model(frames))
        return float(np.mean((made - wanted)[:, :, 2:] ** 2))

    before = error()
    model.compile(keras.optimizers.Adam(0.05), loss="mse")
    model.fit(frames, wanted, epochs=150, verbose=0)
    assert error() < 0.1 * before


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="reach must be .rows, columns."):
        Transport((1, -1))
    with pytest.raises(ValueError, match="must be .batch, time, height, width, channels"):
        Transport().build((None, 4, 5, 6), (None, 4, 5, 7))
