"""Arrays in the other order of bytes, as idx, AIFF and FITS files hold them."""

from typing import Any

import keras
import numpy as np
import pytest

from keras_vqvae import Autoregressive
from tests.tiny import MODELS


def big_endian(data: Any) -> Any:
    return keras.tree.map_structure(lambda x: x.astype(x.dtype.newbyteorder(">")), data)


@pytest.mark.parametrize("name", ["AudioVQVAE (parallel)", "PixelCNN"])
def test_big_endian_data_gives_the_same_numbers(name: str) -> None:
    """JAX raises its own TypeError for such an array."""
    make, data = MODELS[name]
    model = make()
    model.compile("sgd")
    model.fit(big_endian(data), validation_data=big_endian(data), verbose=0)
    found = model.evaluate(big_endian(data), verbose=0)
    np.testing.assert_allclose(found, model.evaluate(data, verbose=0), rtol=1e-5)
    if isinstance(model, Autoregressive):
        log_prob = model.log_prob(big_endian(data))
        np.testing.assert_allclose(log_prob, model.log_prob(data), rtol=1e-4)
    else:
        np.testing.assert_array_equal(model.encode(big_endian(data)), model.encode(data))
        model.adapt(big_endian(data))
