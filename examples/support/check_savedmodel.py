"""Reloads a SavedModel where keras_vqvae cannot be imported, and compares its answers.

    python check_savedmodel.py FOLDER EXPECTED.npz

EXPECTED holds `images`, the `codes` and `reconstructions` that the training process got, and with
a prior the `samples` of seed 0 and the `log_probs` of the codes.
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
if "samples" in expected:
    scalars = {"number": len(expected["samples"]), "seed": 0, "top_k": 2**30}
    options = {"temperature": tf.constant(1.0), "top_p": tf.constant(1.0)}
    options |= {name: tf.constant(value) for name, value in scalars.items()}
    answers["samples"] = served.signatures["sample"](**options)["codes"]
    codes = tf.constant(expected["codes"])
    answers["log_probs"] = served.signatures["log_prob"](codes=codes)["log_prob"]
for name, got in answers.items():
    want = expected["reconstructions" if name == "decoded codes" else name]
    if want.dtype.kind == "f":
        different = int(np.sum(~np.isclose(got.numpy(), want, rtol=1e-5)))
    else:
        different = int(np.sum(got.numpy() != want))
    print(f"{name}: {want.size} values, {different} differ")
    if different:
        sys.exit(f"the reloaded SavedModel gives other {name} than the model")
