"""Mutation test: one-line faults, and whether a target of the Makefile notices them.

Each mutant is applied alone to a copy of the tree. The test files that should notice it run there
as the target selects them: its pytest commands are read from the Makefile (and from `.ci/run` for
`--target ci`), and a mutant's files take the place of the folders in them. It is caught by the
first test that fails. `--hints` tries the test that noticed a mutant before ahead of its files,
which changes what is printed and not what is caught.

    python -m tests.mutants --target test --json before.json
    python -m tests.mutants --target test --hints before.json --json after.json
    python -m tests.mutants --target ci --only straight_through_gradient
    python -m tests.mutants --target test --check      # the same files without a mutant must pass
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import contextlib
import glob
import json
import os
import queue
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.durations import write_section

ROOT = Path(__file__).resolve().parents[1]
CI = ROOT / ".ci" / "run"
# Ends a run that hangs without reaching the timeout of a test, such as one within TensorFlow.
LONGEST = 1800


class Mutant(NamedTuple):
    """A fault: `new` in place of `old`, which occurs once in `file`, within a line."""

    name: str
    kind: str
    file: str
    old: str
    new: str
    tests: str  # files below tests/, the likeliest first


MUTANTS = [
    # Core.
    Mutant(
        "nearest_codes_norm",
        "factor",
        "keras_vqvae/functional.py",
        "0.5 * ops.sum(ops.square(codebook)",
        "0.25 * ops.sum(ops.square(codebook)",
        "test_functional.py",
    ),
    Mutant(
        "straight_through_gradient",
        "stop_gradient dropped",
        "keras_vqvae/layers/vector_quantizer.py",
        "z32 - ops.stop_gradient(error)",
        "z32 - error",
        "layers/test_vector_quantizer.py",
    ),
    Mutant(
        "code_sums_mask",
        "mask missing",
        "keras_vqvae/functional.py",
        "ops.where(mask[:, None], z, 0.0)",
        "z",
        "layers/test_vector_quantizer.py",
    ),
    Mutant(
        "mu_law_levels",
        "off by one",
        "keras_vqvae/functional.py",
        "ops.log1p(m * ops.abs(x))",
        "ops.log1p(levels * ops.abs(x))",
        "test_functional.py",
    ),
    Mutant(
        "unit_to_pixels_rounding",
        "rounding",
        "keras_vqvae/functional.py",
        "ops.round((ops.clip(",
        "ops.floor((ops.clip(",
        "test_functional.py",
    ),
    Mutant(
        "causal_shift_direction",
        "sign",
        "keras_vqvae/functional.py",
        "x[:, :-1]], axis=1)",
        "x[:, 1:]], axis=1)",
        "test_functional.py",
    ),
    Mutant(
        "prefix_sums_steps",
        "wrong step",
        "keras_vqvae/functional.py",
        "n *= 2",
        "n *= 3",
        "test_sampling.py",
    ),
    Mutant(
        "never_empty_in_a_graph",
        "sign",
        "keras_vqvae/functional.py",
        "1 - ops.minimum(batch, 1)",
        "ops.minimum(batch, 1)",
        "test_functional.py",
    ),
    Mutant(
        "uniforms_seed",
        "seed ignored",
        "keras_vqvae/backend.py",
        "tf.stack([seed, 0]) if scalar",
        "tf.stack([0, 0]) if scalar",
        "test_backend.py",
    ),
    Mutant(
        "uniforms_generator",
        "wrong default",
        "keras_vqvae/backend.py",
        'alg="philox"',
        'alg="auto_select"',
        "test_backend.py",
    ),
    Mutant(
        "uniforms_by_place_rows",
        "index",
        "keras_vqvae/backend.py",
        "rows[:, None] * 2**32 + examples",
        "rows[:, None] + examples",
        "test_backend.py",
    ),
    Mutant(
        "uniforms_by_place_examples_jax",
        "seed ignored",
        "keras_vqvae/backend.py",
        "jax.numpy.stack([seed, row]), example)",
        "jax.numpy.stack([seed, row]), 0)",
        "test_backend.py",
    ),
    Mutant(
        "dilated_product_jax",
        "wrong step",
        "keras_vqvae/layers/dilated_conv.py",
        "range(0, self.past + 1, self.dilation_rate[0])",
        "range(0, self.past + 1)[: self.kernel_size[0]]",
        "layers/test_dilated_conv.py",
    ),
    Mutant(
        "global_mean_all_reduce",
        "all-reduce dropped",
        "keras_vqvae/backend.py",
        "ops.maximum(all_reduce_sum(count), 1.0)",
        "ops.maximum(count, 1.0)",
        "test_replica_arithmetic.py test_replicas.py",
    ),
    Mutant(
        "global_rows_first",
        "off by one",
        "keras_vqvae/backend.py",
        "ops.where(replicas < mine, every, 0)",
        "ops.where(replicas <= mine, every, 0)",
        "test_replica_arithmetic.py test_replicas.py",
    ),
    Mutant(
        "codebook_all_reduce",
        "all-reduce dropped",
        "keras_vqvae/layers/vector_quantizer.py",
        "used, sums = backend.all_reduce_sum(",
        "used, sums = tuple(",
        "test_replica_arithmetic.py test_replicas.py",
    ),
    Mutant(
        "code_usage_all_reduce",
        "all-reduce dropped",
        "keras_vqvae/metrics.py",
        "assign_add(backend.all_reduce_sum(counts))",
        "assign_add(counts)",
        "test_replica_arithmetic.py test_replicas.py",
    ),
    Mutant(
        "bits_per_code_unit",
        "unit",
        "keras_vqvae/metrics.py",
        "entropy / math.log(2.0)",
        "entropy",
        "test_metrics.py",
    ),
    Mutant(
        "top_p_before",
        "off by one",
        "keras_vqvae/sampling.py",
        "ops.cumsum(ordered, -1) - ordered",
        "ops.cumsum(ordered, -1)",
        "test_sampling.py",
    ),
    Mutant(
        "temperature_multiplied",
        "inverse",
        "keras_vqvae/sampling.py",
        "keepdims=True)) / ops.cast(options.temperature",
        "keepdims=True)) * ops.cast(options.temperature",
        "test_sampling.py",
    ),
    Mutant(
        "weights_precision",
        "wrong dtype",
        "keras_vqvae/sampling.py",
        'logits = ops.cast(logits, "float32")',
        "logits = ops.cast(logits, logits.dtype)",
        "test_sampling.py",
    ),
    Mutant(
        "kept_codes",
        "mask missing",
        "keras_vqvae/sampling.py",
        "ops.where(given.keep, given.known, drawn)",
        "drawn",
        "models/test_pixelcnn.py",
    ),
    Mutant(
        "positions_of_columns",
        "axes swapped",
        "keras_vqvae/sampling.py",
        "row * columns + column",
        "column * columns + row",
        "models/test_pixelcnn.py",
    ),
    Mutant(
        "frames_past",
        "wrong end",
        "keras_vqvae/sampling.py",
        "ops.concatenate([past[:, 1:], codes[:, None]], 1)",
        "ops.concatenate([past[:, :-1], codes[:, None]], 1)",
        "models/test_video.py",
    ),
    Mutant(
        "gaussian_width",
        "sign",
        "keras_vqvae/likelihoods.py",
        "+ math.log(width)",
        "- math.log(width)",
        "test_likelihoods.py",
    ),
    Mutant(
        "gaussian_uniform_zero",
        "check removed",
        "keras_vqvae/likelihoods.py",
        "ops.clip(u[..., 0], 1e-7, 1.0 - 1e-7)",
        "u[..., 0]",
        "test_likelihoods.py",
    ),
    Mutant(
        "mixture_highest_level",
        "off by one",
        "keras_vqvae/likelihoods.py",
        "ops.where(level == self.levels - 1, 0.0, ops.log_sigmoid(above))",
        "ops.where(level == self.levels, 0.0, ops.log_sigmoid(above))",
        "test_likelihoods.py",
    ),
    Mutant(
        "mixture_temperature",
        "factor missing",
        "keras_vqvae/likelihoods.py",
        "mean + temperature * scale * (ops.log(rest)",
        "mean + scale * (ops.log(rest)",
        "test_likelihoods.py",
    ),
    Mutant(
        "quantizer_commitment_default",
        "wrong default",
        "keras_vqvae/layers/vector_quantizer.py",
        "commitment: float = 0.25,",
        "commitment: float = 2.5,",
        "layers/test_vector_quantizer.py",
    ),
    Mutant(
        "quantizer_commitment_gradient",
        "stop_gradient dropped",
        "keras_vqvae/layers/vector_quantizer.py",
        "error = z32 - ops.stop_gradient(quantized)",
        "error = z32 - quantized",
        "layers/test_vector_quantizer.py",
    ),
    Mutant(
        "quantizer_smoothing",
        "factor missing",
        "keras_vqvae/layers/vector_quantizer.py",
        "(total + self.num_codes * self.epsilon)",
        "(total + self.epsilon)",
        "layers/test_vector_quantizer.py",
    ),
    Mutant(
        "quantizer_mask_weights",
        "mask missing",
        "keras_vqvae/layers/vector_quantizer.py",
        "weights = None if mask is None else _count(mask)",
        "weights = None",
        "layers/test_vector_quantizer.py",
    ),
    Mutant(
        "quantizer_seed",
        "seed ignored",
        "keras_vqvae/layers/vector_quantizer.py",
        "keras.random.SeedGenerator(seed)",
        "keras.random.SeedGenerator()",
        "layers/test_vector_quantizer.py",
    ),
    Mutant(
        "quantizer_frozen",
        "check removed",
        "keras_vqvae/layers/vector_quantizer.py",
        "bool(training) and self.trainable",
        "bool(training)",
        "layers/test_vector_quantizer.py",
    ),
    Mutant(
        "adapt_not_finite",
        "check removed",
        "keras_vqvae/layers/vector_quantizer.py",
        "if not np.isfinite(rows).all():",
        "if not len(rows):",
        "layers/test_vector_quantizer.py",
    ),
    Mutant(
        "pixelcnn_causality",
        "wrong side",
        "keras_vqvae/layers/masked_conv.py",
        "ops.pad(vertical, [[0, 0], [past, 0], [0, 0], [0, 0]])",
        "ops.pad(vertical, [[0, 0], [0, past], [0, 0], [0, 0]])",
        "models/test_pixelcnn.py",
    ),
    Mutant(
        "transpose_causality",
        "wrong end",
        "keras_vqvae/layers/dilated_conv.py",
        "whole[:, : -beyond or None]",
        "whole[:, beyond:]",
        "layers/test_dilated_conv.py",
    ),
    # Data.
    Mutant(
        "order_epoch",
        "seed ignored",
        "keras_vqvae/data/order.py",
        "seed2=epoch + 1",
        "seed2=tf.ones_like(epoch)",
        "data/test_order.py data/test_images.py",
    ),
    Mutant(
        "order_seed",
        "seed ignored",
        "keras_vqvae/data/order.py",
        "seed=tf.constant(self.seed, tf.int64)",
        "seed=tf.constant(0, tf.int64)",
        "data/test_images.py",
    ),
    Mutant(
        "order_position",
        "off by one",
        "keras_vqvae/data/order.py",
        "self.epoch + 1, 0",
        "self.epoch, 0",
        "data/test_images.py",
    ),
    Mutant(
        "order_uneven_share",
        "rounding",
        "keras_vqvae/data/order.py",
        "(total + self.count - 1) // self.count",
        "total // self.count",
        "data/test_order.py",
    ),
    Mutant(
        "order_skipped",
        "factor missing",
        "keras_vqvae/data/order.py",
        "of_epoch(epoch).skip(skipped * rows)",
        "of_epoch(epoch).skip(skipped)",
        "data/test_order.py",
    ),
    Mutant(
        "order_sharded_twice",
        "wrong option",
        "keras_vqvae/data/order.py",
        "policies.OFF if self.count > 1 else policies.DATA",
        "policies.DATA",
        "data/test_order.py",
    ),
    Mutant(
        "files_sorted",
        "unordered",
        "keras_vqvae/data/files.py",
        "return sorted(walk(folder, frozenset()))",
        "return list(walk(folder, frozenset()))",
        "data/test_images.py data/test_audio.py",
    ),
    Mutant(
        "records_size",
        "check weakened",
        "keras_vqvae/data/records.py",
        'if size != file["bytes"]:',
        'if size > file["bytes"]:',
        "data/test_records.py",
    ),
    Mutant(
        "records_share",
        "share ignored",
        "keras_vqvae/data/records.py",
        'sidecar["files"][index::count]',
        'sidecar["files"][index:]',
        "data/test_records.py",
    ),
    Mutant(
        "records_longest",
        "extreme",
        "keras_vqvae/data/records.py",
        "most = max(_total(",
        "most = min(_total(",
        "data/test_records.py",
    ),
    Mutant(
        "records_rename",
        "not atomic",
        "keras_vqvae/data/records_writer.py",
        "unfinished = folder / _UNFINISHED",
        "unfinished = folder / SIDECAR",
        "data/test_records.py",
    ),
    Mutant(
        "codes_of_padding",
        "rounding",
        "keras_vqvae/data/codes.py",
        '-(-int(parts["length"][number]) // vqvae.downsampling)',
        'int(parts["length"][number]) // vqvae.downsampling',
        "data/test_codes.py",
    ),
    Mutant(
        "codes_fingerprint",
        "part left out",
        "keras_vqvae/data/codes.py",
        "(*vqvae.encoder.weights, *vqvae.quantizer.weights)",
        "vqvae.quantizer.weights",
        "data/test_codes.py",
    ),
    Mutant(
        "images_crop",
        "axes swapped",
        "keras_vqvae/data/images.py",
        "width * size[0], size[1]",
        "width * size[1], size[0]",
        "data/test_images.py",
    ),
    Mutant(
        "images_rounding",
        "rounding",
        "keras_vqvae/data/images.py",
        "tf.round(resized), 0, 255",
        "resized, 0, 255",
        "data/test_images.py",
    ),
    # Callbacks.
    Mutant(
        "backup_rename",
        "not atomic",
        "keras_vqvae/callbacks/backup.py",
        'unfinished = path.with_suffix(".unfinished")',
        "unfinished = path",
        "callbacks/test_backup.py",
    ),
    Mutant(
        "backup_checksum",
        "check removed",
        "keras_vqvae/callbacks/backup.py",
        "hashlib.sha256(content).digest() != digest",
        "not digest",
        "callbacks/test_backup.py",
    ),
    Mutant(
        "backup_keep",
        "off by one",
        "keras_vqvae/callbacks/backup.py",
        "self._backups()[self.keep :]",
        "self._backups()[self.keep + 1 :]",
        "callbacks/test_backup.py",
    ),
    Mutant(
        "backup_optimizer",
        "part left out",
        "keras_vqvae/callbacks/backup.py",
        "[*model.variables, *model.optimizer.variables]",
        "[*model.variables]",
        "callbacks/test_backup.py",
    ),
    Mutant(
        "backup_newest",
        "unordered",
        "keras_vqvae/callbacks/backup.py",
        'glob("step-*.backup"), key=str, reverse=True)',
        'glob("step-*.backup"), key=str)',
        "callbacks/test_backup.py",
    ),
    Mutant(
        "backup_metrics",
        "part left out",
        "keras_vqvae/callbacks/backup.py",
        "self._metrics = values[len(variables) :]",
        "self._metrics = None",
        "callbacks/test_backup.py",
    ),
    Mutant(
        "backup_several_steps",
        "wrong step",
        "keras_vqvae/callbacks/backup.py",
        "left[0] -= model.steps_per_execution",
        "left[0] -= 1",
        "callbacks/test_backup.py",
    ),
    # Layers and models.
    Mutant(
        "wavenet_receptive_field",
        "off by one",
        "keras_vqvae/layers/wavenet.py",
        "* sum(self.dilations) + 1",
        "* sum(self.dilations)",
        "layers/test_wavenet.py",
    ),
    Mutant(
        "wavenet_taps",
        "order",
        "keras_vqvae/layers/wavenet.py",
        "range(self.taps - 1, 0, -1)",
        "range(1, self.taps)",
        "layers/test_wavenet.py models/test_wavenet.py",
    ),
    Mutant(
        "conv3d_padding",
        "rounding",
        "keras_vqvae/layers/causal_conv3d.py",
        "(side // 2, side - side // 2)",
        "(side - side // 2, side // 2)",
        "layers/test_causal_conv3d.py",
    ),
    Mutant(
        "transport_start",
        "index",
        "keras_vqvae/layers/transport.py",
        "(time - 1) * offsets + offsets // 2",
        "offsets // 2",
        "layers/test_transport.py",
    ),
    Mutant(
        "harmonic_turns",
        "off by one",
        "keras_vqvae/layers/harmonic_source.py",
        "ops.cumsum(each, 1) - each, steps",
        "ops.cumsum(each, 1), steps",
        "layers/test_harmonic_source.py",
    ),
    Mutant(
        "voice_gradient",
        "stop_gradient dropped",
        "keras_vqvae/layers/parallel_decoder.py",
        "x = ops.stop_gradient(x)",
        "x = x + 0.0",
        "layers/test_harmonic_source.py layers/test_parallel_decoder.py",
    ),
    Mutant(
        "disguise_in_use",
        "check removed",
        "keras_vqvae/layers/spectrogram_encoder.py",
        "if training and self._seeds is not None:",
        "if self._seeds is not None:",
        "layers/test_spectrogram_encoder.py",
    ),
    Mutant(
        "padding_last",
        "off by one",
        "keras_vqvae/models/wavenet.py",
        'places < ops.cast(length, "int32")[:, None]',
        'places <= ops.cast(length, "int32")[:, None]',
        "models/test_wavenet.py models/test_audio.py",
    ),
    Mutant(
        "wavenet_latents_row",
        "index",
        "keras_vqvae/models/wavenet.py",
        'row - cache["first_row"], axis=1)',
        "row, axis=1)",
        "models/test_audio.py",
    ),
    Mutant(
        "mu_law_default",
        "wrong default",
        "keras_vqvae/models/wavenet.py",
        "self.likelihood.levels <= 256 if mu_law is None",
        "self.likelihood.levels < 256 if mu_law is None",
        "models/test_wavenet.py",
    ),
    Mutant(
        "pixelcnn_shift",
        "wrong side",
        "keras_vqvae/models/pixelcnn.py",
        "embedded[:, :, :-1], [[0, 0], [0, 0], [1, 0],",
        "embedded[:, :, 1:], [[0, 0], [0, 0], [0, 1],",
        "models/test_pixelcnn.py",
    ),
    Mutant(
        "sample_seed",
        "seed ignored",
        "keras_vqvae/models/autoregressive.py",
        "(sizes.rounded_up(n * positions),), seed)",
        "(sizes.rounded_up(n * positions),), 0)",
        "models/test_pixelcnn.py",
    ),
    Mutant(
        "streaming_latency",
        "context ignored",
        "keras_vqvae/models/streaming.py",
        "else max(start, whole - after)",
        "else max(start, whole)",
        "models/test_audio.py",
    ),
    Mutant(
        "draw_examples",
        "seed ignored",
        "keras_vqvae/models/audio.py",
        'initial_state(batch_size, some.astype("int32"))',
        "initial_state(batch_size)",
        "models/test_audio.py",
    ),
    Mutant(
        "codes_of_data",
        "rounding",
        "keras_vqvae/models/audio.py",
        '-(-ops.cast(length, "int32") // self.downsampling)',
        'ops.cast(length, "int32") // self.downsampling',
        "models/test_audio.py",
    ),
    Mutant(
        "padding_silence",
        "mask missing",
        "keras_vqvae/models/audio.py",
        'valid(waveform, parts["length"]) > 0, waveform, 0.0)',
        'valid(waveform, parts["length"]) > -1, waveform, 0.0)',
        "models/test_audio.py",
    ),
    Mutant(
        "encode_in_training",
        "wrong mode",
        "keras_vqvae/models/vqvae.py",
        "return self.encoder(x, training=False)[:batch]",
        "return self.encoder(x, training=True)[:batch]",
        "models/test_vqvae.py models/test_image.py",
    ),
    Mutant(
        "nothing_counted",
        "check removed",
        "keras_vqvae/models/base.py",
        "ops.where(self._counted_loss.count > 0, mean, np.nan)",
        "mean",
        "models/test_wavenet.py models/test_audio.py",
    ),
    Mutant(
        "guidance_sign",
        "sign",
        "keras_vqvae/models/video.py",
        "known + guidance * (known - unknown)",
        "known + guidance * (unknown - known)",
        "models/test_video.py",
    ),
    Mutant(
        "nearness_of_codes",
        "factor missing",
        "keras_vqvae/models/video.py",
        "ops.transpose(vectors)) - squares / 2",
        "ops.transpose(vectors)) - squares",
        "models/test_video.py",
    ),
    Mutant(
        "step_number",
        "off by one",
        "keras_vqvae/models/video.py",
        '"number": int(number) + 1',
        '"number": int(number)',
        "models/test_video.py",
    ),
    # More of data.
    Mutant(
        "audio_trim",
        "off by one",
        "keras_vqvae/data/audio.py",
        "(loud[-1] + 1) * frame] if len(loud)",
        "loud[-1] * frame] if len(loud)",
        "data/test_audio.py",
    ),
    Mutant(
        "audio_crop_epoch",
        "seed ignored",
        "keras_vqvae/data/audio.py",
        'row["epoch"] * order.size + row["index"]',
        'row["index"]',
        "data/test_audio.py",
    ),
    Mutant(
        "audio_length",
        "rounding",
        "keras_vqvae/data/audio_files.py",
        "(2 * frames * wanted + rate) // (2 * rate)",
        "frames * wanted // rate",
        "data/test_audio.py",
    ),
    Mutant(
        "audio_resampler_delay",
        "off by some",
        "keras_vqvae/data/audio_files.py",
        "(taps // 2 + front) * new // old",
        "(taps // 2) * new // old",
        "data/test_audio.py",
    ),
    Mutant(
        "mp3_joined",
        "check weakened",
        "keras_vqvae/data/audio_headers.py",
        "if samples < held - 4 * frame:",
        "if samples < held - 4000 * frame:",
        "data/test_audio_bytes.py",
    ),
    Mutant(
        "video_windows",
        "off by one",
        "keras_vqvae/data/video.py",
        "np.arange(begin, begin + n - length + 1, every)",
        "np.arange(begin, begin + n - length, every)",
        "data/test_video.py",
    ),
    Mutant(
        "video_rotation",
        "sign",
        "keras_vqvae/data/video_files.py",
        "np.rot90(pixels, turns)",
        "np.rot90(pixels, -turns)",
        "data/test_video.py data/test_video_files.py",
    ),
    Mutant(
        "video_context",
        "context ignored",
        "keras_vqvae/data/video.py",
        "before = vqvae.encoder.context[0] * each",
        "before = 0",
        "data/test_video.py",
    ),
    # Export and more callbacks.
    Mutant(
        "export_highest",
        "off by one",
        "keras_vqvae/export/checks.py",
        "inside &= greatest <= field.high",
        "inside &= greatest <= field.high + 1",
        "test_export.py",
    ),
    Mutant(
        "export_same_batch",
        "check removed",
        "keras_vqvae/export/checks.py",
        "asserted(count == wanted, message",
        "asserted(wanted == wanted, message",
        "test_export.py",
    ),
    Mutant(
        "export_no_sample",
        "mask missing",
        "keras_vqvae/export/prior.py",
        "{field.name: answer[:number] for",
        "{field.name: answer for",
        "test_export.py",
    ),
    Mutant(
        "export_faster_one",
        "check removed",
        "keras_vqvae/export/folder.py",
        "if any(path.iterdir()) and not overwrite:",
        "if not path.exists():",
        "test_export_folder.py",
    ),
    Mutant(
        "export_writes",
        "check removed",
        "keras_vqvae/export/graphs.py",
        "op.startswith((*_PYTHON, *_WRITES))",
        "op.startswith(_PYTHON)",
        "test_export_folder.py test_export.py",
    ),
    Mutant(
        "export_frames_number",
        "off by one",
        "keras_vqvae/export/video.py",
        '"number": number + 1}',
        '"number": number}',
        "test_export_video.py",
    ),
    Mutant(
        "export_clipped_sound",
        "check weakened",
        "keras_vqvae/export/encoded.py",
        "asserted(loud <= CLIPPED_SHARE, clipped, loud)",
        "asserted(loud <= 1.0, clipped, loud)",
        "test_export_encoded.py",
    ),
    Mutant(
        "export_stream_rest",
        "wrong length",
        "keras_vqvae/export/audio.py",
        '"pending": inputs[:, keep * unit :],',
        '"pending": inputs[:, end * unit :],',
        "test_export_audio.py",
    ),
    Mutant(
        "pictures_rows",
        "order",
        "keras_vqvae/callbacks/pictures.py",
        "rows = (self.images, self.model.reconstruct(self.images))",
        "rows = (self.model.reconstruct(self.images), self.images)",
        "callbacks/test_pictures.py",
    ),
    Mutant(
        "sound_decibels",
        "factor",
        "keras_vqvae/callbacks/sound.py",
        "/ (window / 4)",
        "/ (window / 2)",
        "callbacks/test_sound.py",
    ),
]


class Command(NamedTuple):
    """A pytest command of a target."""

    env: dict[str, str]
    python: str
    options: list[str]
    paths: list[str]
    ignored: list[str]

    @property
    def label(self) -> str:
        """The leg of CI."""
        if "--leg" in self.options:
            return self.options[self.options.index("--leg") + 1]
        return f"{self.env.get('KERAS_BACKEND', 'tensorflow')} in {self.python.split('/')[0]}"


# What of pytest's options takes the next word, and what concerns only how tests are spread.
VALUED = {"-m", "-k", "-p", "-o", "-c", "--ignore", "--deselect"}
SPREADING = {"-n", "--dist", "--durations", "--durations-min"}


def parse(line: str, env: dict[str, str]) -> Command | None:
    """The pytest command in a line of shell; None where there is none."""
    words = shlex.split(line, comments=True)
    if not any(words[i : i + 2] == ["-m", "pytest"] for i in range(len(words))):
        return None
    env = dict(env)
    while "=" in words[0]:
        name, _, value = words.pop(0).partition("=")
        env[name] = value
    python, *words = words
    words = words[2:]  # -m pytest
    options: list[str] = []
    paths: list[str] = []
    ignored: list[str] = []
    while words:
        word = words.pop(0)
        name, has_value, value = word.partition("=")
        if not word.startswith("-"):
            found = sorted(glob.glob(word.partition("::")[0], root_dir=ROOT))
            # What is no path is the value of the option before.
            (paths if found else options).extend([word] if "::" in word else found or [word])
            continue
        if name in VALUED | SPREADING and not has_value:
            value = words.pop(0)
        if name == "--ignore":
            ignored.append(value)
        elif name not in SPREADING:
            options += [name, value] if name in VALUED else [word]
    return Command(env, python, options, paths or ["tests"], ignored)


def commands_of(target: str) -> list[Command]:
    """The pytest commands that `make TARGET` runs, in order; for "ci" those of `.ci/run`."""
    if target != "ci":
        return _of_make(target, {})
    found: list[Command] = []
    exported: dict[str, str] = {}
    for line in CI.read_text().replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] == ["export"]:
            exported |= dict(word.split("=", 1) for word in words[1:])
        elif "make" in words:
            at = words.index("make")
            env = exported | dict(word.split("=", 1) for word in words[:at])
            for name in words[at + 1 :]:
                found += _of_make(name, env)
        elif command := parse(line, exported):
            found.append(command)
    return found


def _of_make(target: str, env: dict[str, str]) -> list[Command]:
    # With -n nothing runs; -B prints the commands of a target that is up to date, too.
    done = subprocess.run(
        ["make", "-n", "-B", target], cwd=ROOT, check=True, capture_output=True, text=True
    )
    lines = done.stdout.replace("\\\n", " ").splitlines()
    return [command for line in lines if (command := parse(line, env))]


def files_in(command: Command, files: list[str]) -> list[str]:
    """What of a mutant's test files the command runs: files, or single tests of them."""
    chosen = []
    for file in files:
        if any(_is_in(file, ignored) for ignored in command.ignored):
            continue
        if any(_is_in(file, path) for path in command.paths):
            chosen.append(file)
        else:
            chosen += [path for path in command.paths if path.partition("::")[0] == file]
    return chosen


def _is_in(file: str, path: str) -> bool:
    path = path.rstrip("/")
    return file == path or file.startswith(f"{path}/")


def test_files(mutant: Mutant) -> list[str]:
    return [f"tests/{file}" for file in mutant.tests.split()]


def mutated(mutant: Mutant) -> str:
    """The file's text with the fault; `ValueError` where `old` is not in it once."""
    text = (ROOT / mutant.file).read_text()
    count = text.count(mutant.old)
    if count != 1 or mutant.old == mutant.new:
        raise ValueError(f"{mutant.name}: {mutant.old!r} occurs {count} times in {mutant.file}.")
    return text.replace(mutant.old, mutant.new)


def copy_tree(folder: Path) -> Path:
    """Copies what git tracks or would track into `folder`."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


# Keras is imported once for all mutants, and a run is a fork of this process: tests/conftest.py
# imports Keras, and nothing of the package, in the environment that tests have. Prints the exit
# status of each run whose arguments, and the file for its output, come in as a line of JSON.
SERVER = """
import json, os, signal, sys, time
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
sys.path.insert(0, os.getcwd())
import pytest
import tests.conftest
if any(name.partition(".")[0] == "keras_vqvae" for name in sys.modules):
    sys.exit("tests/conftest.py imports the package: a mutant would not be seen")
for line in sys.stdin:
    order = json.loads(line)
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        out = os.open(order["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(out, 1)
        os.dup2(out, 2)
        status = pytest.main(order["arguments"])
        sys.stdout.flush()
        os._exit(status)
    end, done = time.monotonic() + order["longest"], 0
    while not done:
        time.sleep(0.05)
        done, status = os.waitpid(child, os.WNOHANG)
        if not done and time.monotonic() > end:
            os.killpg(child, signal.SIGKILL)
    print(os.waitstatus_to_exitcode(status), file=answers, flush=True)
"""


class Server:
    """Runs test files in a copy of the tree, as one command of a target does."""

    def __init__(self, command: Command, copy: Path, venvs: Path) -> None:
        python = venvs / command.python
        if not python.is_file():
            raise ValueError(f"{python} is missing. Make it, or name its folder by `--venvs`.")
        # A file of bytecode is taken for that of a mutant of the same size and second.
        env = os.environ | command.env
        env |= {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
        code = "import keras_vqvae; print(keras_vqvae.__file__)"
        found = subprocess.run(
            [str(python), "-c", code], cwd="/", env=env, check=True, capture_output=True, text=True
        )
        if not found.stdout.strip().startswith(str(copy)):
            raise RuntimeError(f"tests would import {found.stdout.strip()}, not the copy {copy}.")
        self._options = command.options
        self._output = copy.parent / f"{copy.name}.output"
        self._process = subprocess.Popen(
            [str(python), "-c", SERVER],
            cwd=copy, env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def run(self, files: list[str]) -> Outcome:
        """Runs test files until the first fails."""
        arguments = ["-n", "0", "-x", "--tb=no", "-rfE", "-p", "no:cacheprovider"]
        arguments = [*self._options, *arguments, *files]
        order = {"arguments": arguments, "output": str(self._output), "longest": LONGEST}
        assert self._process.stdin is not None and self._process.stdout is not None
        print(json.dumps(order), file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError("what runs the tests has ended; see the error above")
        status = int(answer)
        said = self._output.read_text(errors="replace")
        if status in (0, 5):  # passed, or nothing selected
            return Outcome(None, status == 0)
        if status == 4 and "ERROR: not found: " in said:  # a test of that name
            return Outcome(None, False)
        found = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", said, re.MULTILINE)
        if found:
            return Outcome(found[1], True)
        if status < 0:
            return Outcome(f"killed by signal {-status}", True)
        raise RuntimeError(f"pytest {shlex.join(arguments)} ended with {status}:\n{said[-3000:]}")

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


class Outcome(NamedTuple):
    """How a run of test files ended."""

    failed: str | None  # the first test that failed, or what else went wrong
    ran: bool  # whether the command selected any test


class Workplace:
    """A copy of the tree, and what runs tests in it."""

    def __init__(self, folder: Path, venvs: Path) -> None:
        self.copy = copy_tree(folder)
        self._venvs = venvs
        self._servers: dict[int, Server] = {}

    def run(self, number: int, command: Command, files: list[str]) -> Outcome:
        """Runs test files by the command, which has that number among the target's."""
        if not files:
            return Outcome(None, False)
        if number not in self._servers:
            self._servers[number] = Server(command, self.copy, self._venvs)
        return self._servers[number].run(files)

    def end(self) -> None:
        for server in self._servers.values():
            server.end()


def try_mutant(mutant: Mutant, commands: list[Command], place: Workplace, hint: str | None) -> dict:
    """What became of one mutant: a row of the table. `hint` is the test to try first."""
    text = mutated(mutant)
    row = {"name": mutant.name, "kind": mutant.kind, "file": mutant.file}
    start, by, with_command, ran = time.monotonic(), None, None, False
    (place.copy / mutant.file).write_text(text)
    try:
        for number, command in enumerate(commands):
            files = files_in(command, test_files(mutant))
            outcome = Outcome(None, False)
            if hint is not None and hint.partition("::")[0] in files:
                outcome = place.run(number, command, [hint])
            if not outcome.failed:
                outcome = place.run(number, command, files)
            ran |= outcome.ran
            if outcome.failed:
                by, with_command = outcome.failed, command.label
                break
    finally:
        shutil.copy2(ROOT / mutant.file, place.copy / mutant.file)
    seconds = round(time.monotonic() - start, 1)
    return row | {"caught": by is not None, "by": by, "with": with_command, "ran": ran,
                  "seconds": seconds}  # fmt: skip


def check(mutants: list[Mutant], commands: list[Command], place: Workplace) -> list[str]:
    """Runs each distinct set of files once without a mutant; returns what fails."""
    failures = []
    for number, command in enumerate(commands):
        sets = {tuple(files_in(command, test_files(mutant))) for mutant in mutants}
        for files in sorted(filter(None, sets)):
            failed = place.run(number, command, list(files)).failed
            print(f"{command.label}: {' '.join(files)}: {failed or 'passes'}", flush=True)
            if failed:
                failures.append(f"{command.label}: {failed}")
    return failures


def table(rows: list[dict], target: str) -> str:
    """The rows in Markdown."""
    by_leg = collections.Counter(row["with"] for row in rows if row["caught"])
    caught = sum(by_leg.values())
    legs = ", ".join(f"{leg} {count}" for leg, count in by_leg.most_common())
    lines = [
        f"`{target}` catches {caught} of {len(rows)} mutants ({caught / max(len(rows), 1):.1%}).",
        f"Legs that catch first: {legs}.",
        "",
        "| mutant | kind | file | caught by | leg | seconds |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        by = f"`{row['by'].removeprefix('tests/')}`" if row["caught"] else _missed(row)
        file = row["file"].removeprefix("keras_vqvae/")
        cells = (row["name"], row["kind"], f"`{file}`", by, row["with"] or "")
        lines.append(f"| {' | '.join(cells)} | {row['seconds']:.0f} |")
    return "\n".join(lines)


def _missed(row: dict) -> str:
    return "**no**" if row["ran"] else "**no**: none of its tests is selected"


@contextlib.contextmanager
def workplaces(count: int, venvs: Path) -> Iterator[queue.Queue]:
    """A queue of copies of the tree, removed in the end."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder, contextlib.ExitStack() as stack:
        free: queue.Queue = queue.Queue()
        for i in range(count):
            (Path(folder) / str(i)).mkdir()
            place = Workplace(Path(folder).resolve() / str(i), venvs)
            stack.callback(place.end)
            free.put(place)
        yield free


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--target", default="test", help="of the Makefile, or ci for .ci/run")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these mutants alone")
    parser.add_argument("--jobs", type=int, default=1, help="mutants at a time")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the results")
    parser.add_argument(
        "--hints", type=Path, metavar="FILE", help="results of before: tests to try first"
    )
    parser.add_argument("--page", action="store_true", help="write the table to docs/testing.md")
    parser.add_argument("--check", action="store_true", help="run the files without a mutant")
    parser.add_argument("--venvs", type=Path, default=ROOT, help="where the environments are")
    options = parser.parse_args()
    unknown = set(options.only or ()) - {mutant.name for mutant in MUTANTS}
    if unknown:
        parser.error(f"--only: there is no mutant {', '.join(sorted(unknown))}")
    mutants = [m for m in MUTANTS if not options.only or m.name in options.only]
    for mutant in mutants:
        mutated(mutant)
    commands = commands_of(options.target)
    if not commands:
        parser.error(f"--target: {options.target} runs no pytest")
    hints = json.loads(options.hints.read_text())["mutants"] if options.hints else []
    first = {row["name"]: row["by"] for row in hints}
    with workplaces(1 if options.check else options.jobs, options.venvs) as free:
        if options.check:
            return bool(check(mutants, commands, free.get()))

        def one(mutant: Mutant) -> dict:
            place = free.get()
            try:
                row = try_mutant(mutant, commands, place, first.get(mutant.name))
            finally:
                free.put(place)
            print(f"{row['name']}: {row['by'] or 'NOT CAUGHT'} ({row['seconds']} s)",
                  file=sys.stderr, flush=True)  # fmt: skip
            return row

        rows: list[dict] = []
        with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
            for row in pool.map(one, mutants):
                rows.append(row)
                if options.json:  # each time: the whole takes long
                    result = {"target": options.target, "mutants": rows}
                    options.json.write_text(json.dumps(result, indent=1) + "\n")
    print(table(rows, options.target))
    if options.page:
        write_section("mutants", table(rows, options.target) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
