"""`tf.data` pipelines, and data sets that need no account and no manual download.

The pipelines yield what the models take: uint8 images and frames, float32 waveforms in [-1, 1],
int32 labels and actions. Scaling is left to the models.

Images and records are here; sound is in `keras_vqvae.data.audio`, and speech that needs no
account in `keras_vqvae.data.debian_speech` (recorded) and `keras_vqvae.data.flite` (synthetic, with
the times of phones); video with actions is in `keras_vqvae.data.video`. These, and the recorder of
first-person video, `keras_vqvae.data.record`, are loaded when they are first used.
"""

import importlib
from typing import Any

from keras_vqvae.data.cache import cache_dir
from keras_vqvae.data.codes import encode_to_records
from keras_vqvae.data.idx import fashion_mnist, fetch_debian_fashion_mnist, read_idx
from keras_vqvae.data.images import check_folder, from_array, from_folder, from_tfds
from keras_vqvae.data.records import check_records, from_records
from keras_vqvae.data.records_writer import write_records
from keras_vqvae.data.worker import this_worker

_RECORDER_NAMES = (
    "ACTIONS",
    "COMBINED_ACTIONS",
    "HELD_OUT_MAPS",
    "TRAINING_MAPS",
    "Recording",
    "record",
)
_MODULES = ("audio", "debian_speech", "flite", "video")

__all__ = [
    "cache_dir",
    "check_folder",
    "check_records",
    "encode_to_records",
    "fashion_mnist",
    "fetch_debian_fashion_mnist",
    "from_array",
    "from_folder",
    "from_records",
    "from_tfds",
    "read_idx",
    "this_worker",
    "write_records",
    *_MODULES,
    *_RECORDER_NAMES,
]


def __getattr__(name: str) -> Any:
    if name in _RECORDER_NAMES:
        from keras_vqvae.data import vizdoom_recorder

        return getattr(vizdoom_recorder, name)
    if name in _MODULES:
        return importlib.import_module(f"keras_vqvae.data.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
