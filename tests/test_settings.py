"""Keras's global settings, dtype policies and names: every public layer and model."""

from typing import Any

import keras
import pytest

import keras_vqvae as kv
from tests.tiny import LAYERS, MODELS


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
        inside = [one.path for one in layer._flatten_layers()]
        assert len(set(inside)) == len(inside), "a path must name one layer"
        return inside + [weight.path for weight in layer.weights]

    assert paths() == paths()
