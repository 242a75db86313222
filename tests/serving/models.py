"""Small models of every kind, and how to export them: what all tests of serving go through.

path = export("image_classes", folder)         # folder/image_classes/1
for signature, inputs in requests("image_classes", path).items(): ...
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from keras_vqvae import AudioVQVAE, ImageVQVAE, PixelCNN, WaveNet, export_savedmodel
from keras_vqvae.export.warmup import FILE
from tests.checks import sharpened
from tests.models import test_audio, test_video, test_video_vqvae

SPEAKERS = 3


def image() -> ImageVQVAE:
    return sharpened(test_video.vqvae())


def with_prior(**condition: int) -> tuple:
    vqvae = image()
    prior = PixelCNN(vqvae.grid_shape, vqvae.num_codes, hidden=8, num_layers=2, **condition)
    return vqvae, sharpened(prior)


def sound(decoder: str, speakers: int | None = SPEAKERS) -> AudioVQVAE:
    """With a codebook fitted to its encoder: without, all sound is one code."""
    keras.utils.set_random_seed(0)
    model = test_audio.make(decoder, num_speakers=speakers)
    model.adapt(test_audio.data() if speakers else test_audio.sound())
    return model


def sound_with_prior(
    decoder: str, speakers: int | None = SPEAKERS, classes: int | None = SPEAKERS
) -> tuple:
    model = sound(decoder, speakers)
    small: dict = {"channels": 8, "skip_channels": 8, "dilations": (1, 2), "burn_in": 0}
    return model, sharpened(WaveNet(model.num_codes, num_classes=classes, **small))


def mixed(make: Callable[[], tuple]) -> tuple:
    """What `make` makes, of layers that compute in half precision."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        return make()
    finally:
        keras.config.set_dtype_policy(before)


# Name to a model, built and with weights, and its prior or None.
MODELS: dict[str, Callable[[], tuple[Any, Any]]] = {
    "image": lambda: (image(), None),
    "image_prior": with_prior,
    "image_classes": lambda: with_prior(num_classes=3),
    "image_maps": lambda: with_prior(condition_channels=2),
    "image_mixed": lambda: mixed(with_prior),
    "sound_source": lambda: sound_with_prior("source"),
    "sound_parallel": lambda: sound_with_prior("parallel", None, None),
    "sound_any_prior": lambda: sound_with_prior("wavenet", classes=None),
    "sound_wavenet": lambda: sound_with_prior("wavenet"),
    "sound_mixed": lambda: mixed(lambda: sound_with_prior("wavenet")),
    "sound_xla": lambda: sound_with_prior("wavenet"),
    "sound_wavenet_alone": lambda: (sound("wavenet", None), None),
    "video_discrete": lambda: (test_video.make("discrete", sharp=0.4), None),
    "video_buttons": lambda: (test_video.make("buttons", sharp=0.4, guidance=0.7), None),
    "video_continuous": lambda: (test_video.make("continuous", sharp=0.4), None),
    "video_none": lambda: (test_video.make("none", sharp=0.4), None),
    "video_codes": lambda: (sharpened(test_video_vqvae.make()), None),
    "video_codes_predictor": lambda: (sharpened(test_video_vqvae.predictor()), None),
    "image_encoded": with_prior,
    "sound_encoded": lambda: (sound("parallel"), None),
    "video_encoded": lambda: (test_video.make("discrete", sharp=0.4), None),
    "video_codes_encoded": lambda: (sharpened(test_video_vqvae.predictor()), None),
}


# Name to arguments of `export_savedmodel`.
OPTIONS: dict[str, dict[str, Any]] = {
    "sound_xla": {"jit_compile": True},
    "image_encoded": {"encoded": True},
    "sound_encoded": {"encoded": True},
    "video_encoded": {"encoded": True},
    "video_codes_encoded": {"encoded": True},
}


def export(name: str, folder: Path, **options: Any) -> Path:
    """Writes a model of `MODELS` to `folder/name/1`, and returns that path."""
    model, prior = MODELS[name]()
    path = Path(folder) / name / "1"
    if isinstance(model, AudioVQVAE):  # noise would be all one code
        options = {"examples": test_audio.sound(2, 64), **options}
    export_savedmodel(model, path, prior=prior, **{**OPTIONS.get(name, {}), **options})
    return path


def export_all(folder: Path) -> dict[str, Path]:
    """All of `MODELS`, by name."""
    return {name: export(name, folder) for name in MODELS}


def requests(name: str, path: Path) -> dict[str, dict[str, np.ndarray]]:
    """A valid request of two examples for each signature, by name of the input: the warm-up's."""
    found = {}
    for record in tf.data.TFRecordDataset(str(path / FILE)):
        request = prediction_log_pb2.PredictionLog.FromString(record.numpy()).predict_log.request
        assert request.model_spec.name == name
        found[request.model_spec.signature_name] = {
            key: tf.make_ndarray(value) for key, value in request.inputs.items()
        }
    return found


def emptied(inputs: dict[str, np.ndarray], fields: dict[str, dict]) -> dict[str, np.ndarray]:
    """The request for no example; what may be one for all is one."""
    kept = {"batch": 0, "1 or batch": 1, "1 or number": 1}
    found = {}
    for name, x in inputs.items():
        count = kept.get(next(iter(fields[name]["shape"]), None))
        found[name] = np.zeros_like(x) if name == "number" else x if count is None else x[:count]
    return found


def bad_requests(
    request: dict[str, np.ndarray], fields: dict[str, dict]
) -> Iterator[tuple[dict[str, np.ndarray], str]]:
    """A good request with one input spoiled, and what the refusal must say.

    Args:
        request: of at least one example.
        fields: the signature's `inputs` in `signature.json`.
    """
    alone = sum(field["shape"][:1] == ["batch"] for field in fields.values()) < 2
    for name, x in request.items():
        for bad, message in _spoiled(name, fields[name], x):
            if not (alone and message.startswith("must be of as many")):
                yield {**request, name: np.asarray(bad, x.dtype)}, message


def _spoiled(name: str, field: dict, x: np.ndarray) -> Iterator[tuple[np.ndarray, str]]:
    """Wrong values of an input, and what the message must say."""
    yield np.stack([x, x]), f"{name} must have shape"
    if field["shape"]:
        yield x[0], f"{name} must have shape"
    for axis, side in enumerate(field["shape"]):
        if isinstance(side, int):
            yield np.concatenate([x, x], axis), f"{name} must have shape"
    if field["shape"][:1] == ["batch"]:
        yield np.concatenate([x, x]), "must be of as many examples|must be one"
    elif field["shape"][:1] in (["1 or batch"], ["1 or number"]):
        yield np.concatenate([x, x]), f"{name} must be one, or one for each"
    if field["dtype"] == "string" and x.size:
        form = "WAV|RIFF" if name.startswith("waveform") else "must be JPEG or PNG"
        yield np.full_like(x, b"not such a file"), form
    wrong = []
    if field["dtype"] == "float32":
        wrong += [np.nan, np.inf, -np.inf]
    if "exclusiveMinimum" in field:
        wrong += [field["exclusiveMinimum"], -1]
    least, most = field.get("minimum"), field.get("maximum")
    if field["dtype"] != "uint8":
        wrong += [] if least is None else [least - 1]
        wrong += [] if most is None or most == 2**31 - 1 else [most + 1, 2**31 - 1]
    if x.size or not x.shape:
        for value in wrong:
            bad = np.array(x)
            bad.flat[-1] = value
            yield bad, f"{name} must be (at least|in|finite|positive)"
