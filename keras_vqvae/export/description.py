"""What a client needs to know about an export: `signature.json`."""

from importlib import metadata
from typing import Any

import keras
import tensorflow as tf

from keras_vqvae.export.endpoints import Endpoint

_FACTS = (
    "num_codes",
    "grid_shape",
    "image_shape",
    "sample_rate",
    "downsampling",
    "num_speakers",
    "speaker_names",
    "frames_per_code",
    "context_frames",
    "guidance",
    "num_actions",
    "actions",
)


def description(
    name: str, version: str, model: Any, prior: Any, signatures: dict[str, Endpoint], **more: Any
) -> dict[str, Any]:
    """For JSON.

    Args:
        name: that clients ask for.
        version: of it.
        model: that is exported.
        prior: with it, or None.
        signatures: by name.
        **more: that is to stand there too.
    """
    facts = {fact: getattr(model, fact, None) for fact in _FACTS}
    if not facts["num_actions"]:
        del facts["num_actions"], facts["actions"]
    return {
        "name": name,
        "version": version,
        "model": type(model).__name__,
        "prior": None if prior is None else type(prior).__name__,
        **more,
        "facts": {fact: value for fact, value in facts.items() if value is not None},
        "signatures": {name: endpoint.described() for name, endpoint in signatures.items()},
        "versions": {
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
            "keras_vqvae": _own_version(),
        },
    }


def _own_version() -> str:
    try:
        return metadata.version("keras_vqvae")
    except metadata.PackageNotFoundError:
        return "a checkout that is not installed"
