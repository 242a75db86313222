"""What `export_savedmodel` writes."""

import json
import os
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_vqvae.export import audio, image, video
from keras_vqvae.export import prior as prior_endpoints
from keras_vqvae.export.card import batching_config, card, models_config
from keras_vqvae.export.description import description
from keras_vqvae.export.encoded import encoded as with_bytes
from keras_vqvae.export.endpoints import Endpoints
from keras_vqvae.export.folder import check_folder, write_version
from keras_vqvae.export.graphs import ops_of, unservable
from keras_vqvae.export.warmup import write_warmup
from keras_vqvae.models.audio import AudioVQVAE
from keras_vqvae.models.autoencoder import Autoencoder
from keras_vqvae.models.autoregressive import Autoregressive
from keras_vqvae.models.video import VideoPredictor
from keras_vqvae.models.vqvae import VQVAE
from keras_vqvae.paths import local_path

# Requests for warming up are run by each start of a server, and its file goes with the model.
_MOST_IN_WARMUP = 8


def export_savedmodel(
    vqvae: Autoencoder | VideoPredictor,
    path: str | os.PathLike,
    prior: Autoregressive | None = None,
    jit_compile: bool = False,
    *,
    encoded: bool = False,
    overwrite: bool = False,
    examples: Any = None,
    training_data: str | None = None,
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

    Beside the SavedModel the folder has `README.md`, the model card; `signature.json`, the same for
    programs; `models.config` and `batching.config`, examples of TensorFlow Serving's configuration;
    and `assets.extra/tf_serving_warmup_requests`, which need the extra `serving`. The folder
    appears when it is whole.

    ```python
    export_savedmodel(vqvae, "served/doom/1")
    served = tf.saved_model.load("served/doom/1")
    codes = served.signatures["encode"](images=tf.constant(images))["codes"]
    ```

    Call the `signatures`, with tensors, as a server does: `served.encode(array)` works too, but
    there TensorFlow casts an array of another dtype in silence.

    Args:
        vqvae: a built model.
        path: folder to write, `NAME/VERSION`; must not exist or be empty.
        prior: a `PixelCNN`, `WaveNet` or another autoregressive model over the codes of `vqvae`.
        jit_compile: whether a WaveNet's loop is to be compiled by XLA, for each new length of
            sound; several times as fast, where the server has XLA (TensorFlow Serving on a CPU
            with `--xla_cpu_compilation_enabled=true` alone). Of other models an error.
        encoded: whether pictures come as JPEG or PNG and go as PNG, `images_bytes` and
            `frames_bytes` for `images` and `frames`, strings without the sides of a picture; and
            sound as WAV of 16 bits, mono, `waveform_bytes` for `waveform`. Not for streams.
        overwrite: whether a version that is there is replaced, by two renames.
        examples: some data as `encode` takes it without `encoded`, for the warm-up requests: two
            real pictures, say (of a `VideoPredictor` two contexts); the first 8 are used. None for
            noise.
        training_data: what the model was trained on and under which licence, for the model card.

    Raises:
        ValueError: the model is not built or its weights are not finite, the prior is of another
            grid or number of codes, `path` is not empty or cannot be written, PNG cannot hold the
            pictures, nothing is there for `jit_compile`, a layer calls Python or writes a variable,
            or an argument is of a wrong kind.
    """
    _check_options(jit_compile, encoded, overwrite, training_data)
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
    if jit_compile and not getattr(vqvae, "is_autoregressive", False):
        raise ValueError(
            "jit_compile is for the loop of an AudioVQVAE's WaveNet decoder, and changes nothing "
            f"in {vqvae.name}"
        )
    vqvae.check_weights()
    if isinstance(vqvae, VideoPredictor):
        if prior is not None:
            raise ValueError("prior: a VideoPredictor is one itself")
    elif prior is not None:
        prior_endpoints.check_prior(prior, vqvae)
    path = version_folder(path)
    check_folder(path, overwrite)
    endpoints = _endpoints(vqvae, prior, jit_compile, _checked_examples(vqvae, examples))
    if encoded:
        endpoints.replace(lambda name, x: x if name.endswith("_stream") else with_bytes(x, vqvae))
    # Endpoints bring their variables; of what is tracked besides each would be written twice.
    archive = keras.export.ExportArchive()
    endpoints.add_to(archive)
    signatures, name = endpoints.signatures, path.parent.name
    more = {"encoded": encoded, "jit_compile": jit_compile, "training_data": training_data}
    described = description(name, path.name, vqvae, prior, signatures, **more)

    def write(folder: Path) -> None:
        archive.write_out(str(folder), verbose=False)
        _check_ops(folder)
        write_warmup(folder, name, signatures)
        texts = {
            "signature.json": json.dumps(described, indent=1, ensure_ascii=False) + "\n",
            "README.md": card(described),
            "models.config": models_config(name),
            "batching.config": batching_config(),
        }
        for file, text in texts.items():
            (folder / file).write_text(text, encoding="utf-8")

    write_version(path, write, overwrite)


def version_folder(path: str | os.PathLike) -> Path:
    """Returns the absolute path of a version; `ValueError` if it is not of the form NAME/1."""
    place = local_path(path)
    whole = Path(os.path.abspath(place))  # of `../1` the name is to be known
    if place.name in ("", "..") or not whole.parent.name:
        raise ValueError(f"path must be the folder of a version, NAME/1, got {str(path)!r}")
    return whole


def _check_ops(folder: Path) -> None:
    """Raises `ValueError` where a layer of somebody's own does what no server can run."""
    for signature, ops in ops_of(folder).items():
        if wrong := unservable(ops):
            raise ValueError(
                f"the graph of {signature} has {', '.join(sorted(wrong))}: a layer of vqvae or "
                "prior calls Python (numpy_function, py_function), writes a variable, or has an op "
                "that is not TensorFlow's own. No server can run that"
            )


def _check_options(
    jit_compile: bool, encoded: bool, overwrite: bool, training_data: str | None
) -> None:
    options = {"jit_compile": jit_compile, "encoded": encoded, "overwrite": overwrite}
    for name, option in options.items():
        if not isinstance(option, bool):
            raise ValueError(f"{name} must be True or False, got {option!r}")
    if training_data is not None and not isinstance(training_data, str):
        raise ValueError(f"training_data must be a text, got {training_data!r}")


def _checked_examples(vqvae: Any, examples: Any) -> np.ndarray:
    """Some data of the model, those given or noise."""
    module: Any = image
    if isinstance(vqvae, (AudioVQVAE, VideoPredictor)):
        module = audio if isinstance(vqvae, AudioVQVAE) else video
    if examples is None:
        return module.example_of(vqvae)
    try:
        some = np.asarray(examples)
        if not some.shape:  # anything that is no array becomes a scalar of objects
            got = f"{examples!r:.200}"
            raise ValueError(f"must be an array of some data as encode takes it, got {got}")
        some = some[:_MOST_IN_WARMUP]
        module.check_example(vqvae, some)
    except ValueError as error:
        raise ValueError(f"examples: {error}") from error
    if not len(some):
        raise ValueError("examples must be at least one, got none")
    return some


def _endpoints(
    vqvae: Any, prior: Autoregressive | None, jit_compile: bool, example: np.ndarray
) -> Endpoints:
    endpoints = Endpoints()
    if isinstance(vqvae, VideoPredictor):
        video.add_endpoints(endpoints, vqvae, example)
        return endpoints
    if isinstance(vqvae, AudioVQVAE):
        decode, known = audio.add_endpoints(endpoints, vqvae, jit_compile, example)
        codes, speaker = audio.fields(vqvae)[1], audio.speakers(vqvae)
        drawn = audio.drawn_fields(vqvae)
    else:
        known = image.add_endpoints(endpoints, vqvae, example)
        (data, codes), speaker = image.fields(vqvae), []
        drawn = [field.shaped("number", *field.shape[1:]) for field in (codes, data)]

        def decode(codes: tf.Tensor, *_: Any) -> tf.Tensor:
            return vqvae.decode(codes)

    if prior is not None:
        prior_endpoints.add_endpoints(endpoints, prior, codes, drawn, decode, speaker, known)
    return endpoints
