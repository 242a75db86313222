"""Answers requests by `tf.saved_model.load`; as a program, where keras_vqvae cannot be imported.

See `children.py`.
"""

import sys

if __name__ == "__main__":
    sys.modules["keras_vqvae"] = None  # type: ignore[assignment]  # importing it fails from here on

import numpy as np
import tensorflow as tf


def answer(requests: list[tuple[str, str, dict]]) -> list:
    """Answers as `children.py` says."""
    models: dict = {}
    answers: list = []
    for path, signature, inputs in requests:
        if path not in models:
            models[path] = tf.saved_model.load(path)
        function = models[path].signatures[signature]
        specs = function.structured_input_signature[1]
        try:
            given = {name: tf.constant(x, specs[name].dtype) for name, x in inputs.items()}
            answers.append({name: _array(x) for name, x in function(**given).items()})
        except tf.errors.OpError as error:
            answers.append((error.error_code, error.message))
    return answers


def _array(x: tf.Tensor) -> np.ndarray:
    return np.asarray(x.numpy(), x.dtype.as_numpy_dtype)


if __name__ == "__main__":
    import children

    children.main(answer)
    try:
        import keras_vqvae  # noqa: F401
    except ImportError:
        sys.exit(0)
    sys.exit("keras_vqvae could be imported: this proves nothing")
