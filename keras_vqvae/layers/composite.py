"""What layers that are made of other layers share."""

import re

import keras


class Composite(keras.layers.Layer):
    """A layer of layers: its configuration says which of them are quantized.

    `Model.quantize` reaches the `Dense` and `Embedding` layers inside. Keras saves the dtype policy
    of the whole alone, with which a file of int8 weights would not load.
    """

    def get_config(self) -> dict:
        config, default = super().get_config(), _policy(self)
        inside = self._flatten_layers(include_self=False)
        # A path begins otherwise where the layer is in another model, or in none.
        policies = {
            f"(.*/)?{re.escape(self.name + layer.path.removeprefix(self.path))}": _policy(layer)
            for layer in inside
            if layer.path is not None and _policy(layer) != default
        }
        if any(policy.quantization_mode for policy in policies.values()):
            dtypes = keras.dtype_policies.DTypePolicyMap(default, policies)
            config["dtype"] = keras.saving.serialize_keras_object(dtypes)
        return config


def _policy(layer: keras.layers.Layer) -> keras.DTypePolicy:
    policy = layer.dtype_policy
    if isinstance(policy, keras.dtype_policies.DTypePolicyMap):
        return policy.default_policy if layer.path is None else policy[layer.path]
    return policy
