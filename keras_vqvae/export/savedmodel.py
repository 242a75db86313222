"""What `export_savedmodel` writes."""

import os
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from keras_vqvae.export import audio, image, video
from keras_vqvae.export import prior as prior_endpoints
from keras_vqvae.export.checks import check_folder, write_out
from keras_vqvae.models.audio import AudioVQVAE
from keras_vqvae.models.autoencoder import Autoencoder
from keras_vqvae.models.autoregressive import Autoregressive
from keras_vqvae.models.video import VideoPredictor
from keras_vqvae.models.vqvae import VQVAE


def export_savedmodel(
    vqvae: Autoencoder | VideoPredictor,
    path: str | os.PathLike,
    prior: Autoregressive | None = None,
    jit_compile: bool = False,
) -> None:
    """Writes a SavedModel with the endpoints `encode`, `decode` and `reconstruct`.

    With a prior also `sample` and `log_prob`. Endpoints take and give named tensors of any batch
    size, an empty one included. Those of pictures:

    - `encode`: `images` uint8 `(batch, height, width, channels)` to `codes` int32
      `(batch, *grid_shape)`;
    - `decode`: `codes` to `images`, uint8;
    - `reconstruct` (also `serving_default`): `images` to `images` and `codes`;
    - `sample`: the scalars `number` int32, `seed` int32, `temperature` float32, `top_k` int32
      (`num_codes` for all) and `top_p` float32 (1 for all) to `codes` and `images`; the same
      samples that `prior.sample` gives. With a conditioned prior also `condition`, as the prior
      takes it: one example, which counts for all, or `number` of them;
    - `log_prob`: `codes`, and `condition` where the prior has one, to `log_prob` float32
      `(batch,)`, in nats.

    Those of sound (`AudioVQVAE`) have `waveform`, float32 `(batch, samples)` in [-1, 1], for
    `images`; with speakers `speaker`, int32 `(batch,)`; with a WaveNet the scalars `seed` and
    `temperature`. `sample` takes a `length` in codes; its `condition` is the speaker. Also:

    - `convert`: with speakers, the same as `reconstruct`;
    - `encode_stream` and `decode_stream`: chunk by chunk, as `AudioVQVAE.streaming` does, with the
      state among inputs and outputs: see `keras_vqvae.export.audio`.

    Those of a `VideoVQVAE` have `frames`. A `VideoPredictor` has those of its VQ-VAE, `predict`,
    and `start` and `step` to play: see `keras_vqvae.export.video`.

    Shapes, and the range of codes, classes and scalars, are checked inside the graph: a bad
    request is answered INVALID_ARGUMENT, with a message that says what came and what was expected.
    No endpoint writes a variable or calls Python, and all ops are TensorFlow's own.

    ```python
    export_savedmodel(vqvae, "served/doom/1")
    served = tf.saved_model.load("served/doom/1")
    codes = served.signatures["encode"](images=tf.constant(images))["codes"]
    ```

    Call the `signatures`, with tensors, as a server does: `served.encode(array)` works too, but
    there TensorFlow casts an array of another dtype in silence.

    Args:
        vqvae: a built model.
        path: folder to write; must not exist or be empty. TensorFlow Serving expects
            `name/version`.
        prior: a `PixelCNN`, `WaveNet` or another autoregressive model over the codes of `vqvae`.
        jit_compile: whether a WaveNet's loop is to be compiled by XLA, for each new length of
            sound; several times as fast, where the server has XLA.

    Raises:
        ValueError: the model is not built, the prior is of another grid or number of codes, or
            `path` is not empty or cannot be written.
    """
    if not isinstance(vqvae, (VQVAE, AudioVQVAE, VideoPredictor)) or not vqvae.built:
        raise ValueError(
            "vqvae must be a built VQVAE, AudioVQVAE or VideoPredictor (fit it, or call it on a "
            f"batch), got {vqvae!r}"
        )
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            "export_savedmodel needs the TensorFlow backend: save the weights, and export from a "
            "process with KERAS_BACKEND=tensorflow"
        )
    if isinstance(vqvae, VideoPredictor):
        if prior is not None:
            raise ValueError("prior: a VideoPredictor is one itself")
        vqvae.frame_model.check_weights()
    elif prior is not None:
        prior_endpoints.check_prior(prior, vqvae)
    path = Path(path)
    check_folder(path)
    archive = keras.export.ExportArchive()
    archive.track(vqvae)
    if isinstance(vqvae, AudioVQVAE):
        decode = audio.add_endpoints(archive, vqvae, jit_compile)
    elif isinstance(vqvae, VideoPredictor):
        video.add_endpoints(archive, vqvae)
    else:
        image.add_endpoints(archive, vqvae)

        def decode(codes: tf.Tensor, *_: Any) -> dict:
            return {"images": vqvae.decode(codes)}

    if prior is not None:
        prior_endpoints.add_endpoints(archive, vqvae, prior, decode)
    write_out(archive, path)
