"""Reloads a SavedModel where keras_vqvae cannot be imported, and compares its answers.

    python check_savedmodel.py FOLDER EXPECTED.npz SHARE

EXPECTED holds `in NAME`, what endpoints that take such a thing are given, and `ENDPOINT OUTPUT`,
what the training process got. Of each answer no more than that share of values may differ.
"""

import sys

sys.modules["keras_vqvae"] = None  # type: ignore[assignment]  # importing it fails from here on

import numpy as np
import tensorflow as tf

folder, expected_path, share = sys.argv[1:]
try:
    import keras_vqvae  # noqa: F401
except ImportError:
    print("keras_vqvae cannot be imported here")
else:
    sys.exit("keras_vqvae could be imported: the check would prove nothing")

expected = dict(np.load(expected_path))
inputs = {n[3:]: tf.constant(expected.pop(n)) for n in list(expected) if n.startswith("in ")}
served = tf.saved_model.load(folder)
for name, want in expected.items():
    endpoint, output = name.split(" ")
    signature = served.signatures[endpoint]
    taken = signature.structured_input_signature[1]
    got = signature(**{name: inputs[name] for name in taken})[output].numpy()
    if got.shape != want.shape:
        sys.exit(f"{name}: {got.shape}, and {want.shape} from the model")
    close = np.isclose(got, want, rtol=1e-5, atol=1e-5) if want.dtype.kind == "f" else got == want
    different = int(np.sum(~close))
    print(f"{name}: {want.size} values, {different} differ")
    if different > float(share) * want.size:
        sys.exit(f"the reloaded SavedModel gives another {name} than the model")
