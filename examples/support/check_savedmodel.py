"""Reloads a SavedModel where keras_vqvae cannot be imported, and compares its answers.

    python check_savedmodel.py FOLDER EXPECTED.npz

EXPECTED holds `images`, and the `codes` and `reconstructions` that the training process got.
"""

import sys

sys.modules["keras_vqvae"] = None  # type: ignore[assignment]  # importing it fails from here on

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

folder, expected_path = sys.argv[1:]
try:
    import keras_vqvae  # noqa: F401
except ImportError:
    print("keras_vqvae cannot be imported here")
else:
    sys.exit("keras_vqvae could be imported: the check would prove nothing")

expected = np.load(expected_path)
served = tf.saved_model.load(folder)
images = tf.constant(expected["images"])
answers = {
    "codes": served.signatures["encode"](images=images)["codes"],
    "reconstructions": served.signatures["reconstruct"](images=images)["images"],
}
answers["decoded codes"] = served.signatures["decode"](codes=answers["codes"])["images"]
for name, got in answers.items():
    want = expected["reconstructions" if name == "decoded codes" else name]
    different = int(np.sum(got.numpy() != want))
    print(f"{name}: {want.size} values, {different} differ")
    if different:
        sys.exit(f"the reloaded SavedModel gives other {name} than the model")
