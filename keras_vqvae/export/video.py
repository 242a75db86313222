"""Endpoints of video.

Those of a `VideoVQVAE` are `encode`, `decode` and `reconstruct`, with `frames`, uint8 `(batch,
time, height, width, channels)`, for the `images` of a `VQVAE`. A `VideoPredictor` has those of its
VQ-VAE, and:

- `predict`: `frames` uint8 `(batch, time, height, width, channels)`, at least as many as the
  context; `actions` of the frames to come, `(batch, steps)` int32, or `(batch, steps,
  num_actions)`, int32 (buttons) or float32; without actions the scalar `steps` int32; and the
  scalars `seed` int32, `temperature` float32, `top_k` int32 and `top_p` float32; to `frames`, uint8
  `(batch, steps, height, width, channels)`, and their `codes`.
- `start`: `frames` to the state, `codes` int32 `(batch, any, *grid)` and `number`, 0.
- `step`: the state, `actions` without the axis of steps, and the scalars, to `frames`, uint8
  `(batch, height, width, channels)`, and the state for the next step: so that a client can play.
  Of a `VideoVQVAE` a step is `frames_per_code` frames: `actions` and `frames` have that axis.
"""

from typing import Any

import keras
import tensorflow as tf

from keras_vqvae import functional, sampling
from keras_vqvae.export import image
from keras_vqvae.export.checks import asserted, checked_range, checked_shape, with_checks
from keras_vqvae.models.video import VideoPredictor


def add_endpoints(archive: keras.export.ExportArchive, predictor: VideoPredictor) -> None:
    """Adds those that this module's docstring names."""
    past, each = predictor.context_frames, predictor.frames_per_code
    image.add_endpoints(archive, predictor.vqvae)
    discrete, continuous = (predictor.actions == kind for kind in ("discrete", "continuous"))

    def spec(shape: tuple, dtype: Any, name: str) -> tf.TensorSpec:
        return tf.TensorSpec(shape, dtype, name)

    frames_spec = spec((None,) * 5, tf.uint8, "frames")
    scalars = [
        spec((), tf.int32, "seed"),
        spec((), tf.float32, "temperature"),
        spec((), tf.int32, "top_k"),
        spec((), tf.float32, "top_p"),
    ]

    def actions_spec(axes: int) -> list:
        if not predictor.num_actions:
            return []
        rank = axes if discrete else axes + 1
        dtype = tf.float32 if continuous else tf.int32
        return [spec((None,) * rank, dtype, "actions")]

    def vectors(actions: tf.Tensor, batch: tf.Tensor) -> tf.Tensor:
        """Actions `(batch, frames, ...)` as floats by step, after checks."""
        wide = () if discrete else (predictor.num_actions,)
        actions = checked_shape("actions", actions, (None, *wide))
        if continuous:
            finite = tf.reduce_all(tf.math.is_finite(actions))
            actions = with_checks(actions, [asserted(finite, "actions must be finite")])
        else:
            actions = checked_range("actions", actions, predictor.num_actions if discrete else 2)
        count = tf.shape(actions)[0]
        checks = [
            asserted(count == batch, "actions must be of as many examples, got", count),
            whole("actions", tf.shape(actions)[1]),
        ]
        return predictor._by_step(predictor._features(with_checks(actions, checks)))

    def whole(name: str, frames: tf.Tensor) -> Any:
        message = f"{name} must be of a multiple of {each} frames, got"
        return asserted(frames % each == 0, message, frames)

    def options(temperature: tf.Tensor, top_k: tf.Tensor, top_p: tf.Tensor) -> sampling.Options:
        checks = [
            asserted(temperature > 0, "temperature must be positive, got", temperature),
            asserted(top_k >= 1, "top_k must be at least 1, got", top_k),
            asserted((top_p > 0) & (top_p <= 1), "top_p must be in (0, 1], got", top_p),
        ]
        return sampling.Options(with_checks(temperature, checks), top_k, top_p)

    def context(frames: tf.Tensor) -> tf.Tensor:
        """Codes `(batch, steps, *grid)` of what counts of frames."""
        frames = checked_shape("frames", frames, (None, *predictor.image_shape))
        time, message = tf.shape(frames)[1], f"frames must be at least {past} (context_frames), got"
        frames = with_checks(frames, [asserted(time >= past, message, time)])
        frames = predictor.what_counts(frames)
        return predictor.encode_frames(functional.never_empty(frames))[: tf.shape(frames)[0]]

    def drawn_after(
        codes: tf.Tensor, given: tf.Tensor, number: Any, seed: tf.Tensor, how: sampling.Options
    ) -> dict:
        """Frames and codes of steps, from those of the past."""
        batch, steps = tf.shape(codes)[0], tf.shape(given)[1]
        some, examples = functional.never_empty(codes), tf.range(tf.maximum(batch, 1))
        given = functional.never_empty(given)
        recent = some[:, -(past // each) :]
        recent = tf.ensure_shape(recent, (None, past // each, *predictor.grid_shape))
        _, drawn = predictor._imagine(recent, given, number + tf.range(steps), examples, seed, how)
        drawn = tf.ensure_shape(drawn, (None, None, *predictor.grid_shape))
        frames = predictor.decode_after(some, drawn)
        return {"frames": frames[:batch], "codes": drawn[:batch]}

    def nothing(batch: tf.Tensor, steps: Any) -> tf.Tensor:
        return tf.zeros((batch, steps, 0), predictor.compute_dtype)

    def predict(frames: tf.Tensor, what: tf.Tensor, *rest: tf.Tensor) -> dict:
        seed, *how = rest
        batch = tf.shape(frames)[0]
        if predictor.num_actions:
            given = vectors(what, batch)
        else:
            some = asserted(what >= 1, "steps must be at least 1, got", what)
            given = nothing(batch, with_checks(what, [some, whole("steps", what)]) // each)
        return drawn_after(context(frames), given, 0, seed, options(*how))

    def start(frames: tf.Tensor) -> dict:
        return {"codes": context(frames)[:, -predictor.codes_kept :], "number": tf.constant(0)}

    def step(codes: tf.Tensor, number: tf.Tensor, *rest: tf.Tensor) -> dict:
        codes = checked_range("codes", codes, predictor.num_codes)
        codes = checked_shape("codes", codes, (None, *predictor.grid_shape))
        steps, least = tf.shape(codes)[1], past // each
        enough = asserted(steps >= least, f"codes must be of at least {least} steps, got", steps)
        codes = with_checks(codes, [enough])
        batch = tf.shape(codes)[0]
        if predictor.num_actions:
            action, seed, *how = rest
            if each == 1:
                action = action[:, None]
            given = vectors(action, batch)
            one = asserted(
                tf.shape(given)[1] == 1, f"actions must be of {each} frames, got", tf.shape(action)
            )
            given = with_checks(given, [one])
        else:
            seed, *how = rest
            given = nothing(batch, 1)
        made = drawn_after(codes, given, number, seed, options(*how))
        kept = tf.concat([codes, made["codes"]], 1)[:, -predictor.codes_kept :]
        frames = made["frames"] if each > 1 else made["frames"][:, 0]
        return {"frames": frames, "codes": kept, "number": number + 1}

    length = [] if predictor.num_actions else [spec((), tf.int32, "steps")]
    archive.add_endpoint("predict", predict, [frames_spec, *actions_spec(2), *length, *scalars])
    archive.add_endpoint("start", start, [frames_spec])
    state = [spec((None,) * 4, tf.int32, "codes"), spec((), tf.int32, "number")]
    archive.add_endpoint("step", step, [*state, *actions_spec(1 if each == 1 else 2), *scalars])
