"""What `keras.Model` does not save of the layers inside a model, and how the network is told from
another one: which layers are frozen, quantized, or have LoRA.

Not for the values of weights, which Keras saves.
"""

from typing import Any

import keras
import numpy as np
from keras import ops

Layers = dict[str, keras.layers.Layer]


def named(layer: keras.layers.Layer, path: str = "") -> Layers:
    """Returns all layers inside `layer`, parents first, by paths that no process numbers.

    A path is made of class names, which are counted among the children of one layer, as in files of
    weights: `ConvEncoder/Conv2D_1`.
    """
    found: Layers = {}
    counts: dict[str, int] = {}
    for child in layer._flatten_layers(include_self=False, recursive=False):
        kind = type(child).__name__
        number = counts[kind] = counts.get(kind, -1) + 1
        own = f"{path}{kind}_{number}" if number else f"{path}{kind}"
        found = {**found, own: child, **named(child, f"{own}/")}
    return found


def states(model: keras.Model) -> dict[str, dict]:
    """Returns what differs from a new model, by path: frozen, quantized, with LoRA.

    Empty if nothing does. It can be written as JSON.
    """
    described = {path: _state(layer) for path, layer in named(model).items()}
    return {path: state for path, state in described.items() if state}


def _state(layer: keras.layers.Layer) -> dict:
    state: dict[str, Any] = {}
    if not layer.trainable:
        state["trainable"] = False
    elif frozen := [v.name for v in layer._trainable_variables if not v.trainable]:
        state["frozen_variables"] = frozen
    if _is_quantized(layer):
        state["quantized"] = layer.quantization_mode
        config = keras.saving.serialize_keras_object(layer.quantization_config)
        state["quantization_config"] = config
    if getattr(layer, "lora_enabled", False):
        state["lora"] = {"rank": layer.lora_rank, "lora_alpha": layer.lora_alpha}
    return state


def restore(model: keras.Model, described: dict[str, dict]) -> None:
    """Gives the layers inside a built model the states that `states` described.

    Raises:
        ValueError: the model has no such layers.
    """
    layers = named(model)
    unknown = sorted(set(described) - set(layers))
    if unknown:
        raise ValueError(
            f"`sublayers` must name layers of {model.name}, got {unknown}. The configuration is of "
            "another network"
        )
    for path, layer in layers.items():
        state = described.get(path, {})
        if "quantized" in state and not _is_quantized(layer):
            config = keras.saving.deserialize_keras_object(state["quantization_config"])
            layer.quantize(state["quantized"], config=config)
        if "lora" in state and not layer.lora_enabled:
            layer.enable_lora(**state["lora"])
    for path, layer in layers.items():  # parents first, since their flag is handed down
        state = described.get(path, {})
        if layer.trainable != state.get("trainable", True):
            layer.trainable = state.get("trainable", True)
        for variable in layer._trainable_variables:
            if variable.name in state.get("frozen_variables", ()):
                variable.trainable = False


def _is_quantized(layer: keras.layers.Layer) -> bool:
    """Whether the layer's own weights are; of a layer of layers only its policy can be."""
    return bool(getattr(layer, "_is_quantized", False))


def check_saved_whole(model: keras.Model) -> None:
    """Raises `ValueError` if a file would not hold the numbers that the model computes with."""
    for path, layer in named(model).items():
        if _is_quantized(layer) and getattr(layer, "lora_enabled", False):
            raise ValueError(
                f"{model.name} cannot be saved: {path} has LoRA on weights quantized to "
                f"{layer.quantization_mode}, which Keras would merge by rounding. Save the model "
                "before quantize()"
            )


def revive_lora(model: keras.Model) -> None:
    """Gives LoRA that was loaded, both of whose factors Keras sets to zero, a gradient again.

    Their product stays zero.
    """
    for layer in named(model).values():
        if not getattr(layer, "lora_enabled", False):
            continue
        kind = "kernel" if hasattr(layer, "lora_kernel_a") else "embeddings"
        a, b = (getattr(layer, f"lora_{kind}_{factor}") for factor in "ab")
        if not any(np.any(ops.convert_to_numpy(factor)) for factor in (a, b)):
            a.assign(keras.initializers.HeUniform()(a.shape, a.dtype))


def network(model: keras.Model) -> list:
    """Returns the objects that decide what a function compiled for the model computes.

    A function is that of the present network as long as these are the same objects.
    """
    objects: list = list(model.variables)
    for layer in model._flatten_layers():
        adapted = getattr(layer, "lora_enabled", None), getattr(layer, "lora_alpha", None)
        likelihood = getattr(layer, "likelihood", None)
        objects += [layer, layer.dtype_policy, layer.trainable, likelihood, *adapted]
    return objects
