"""Endpoints of a predictor of video.

Those of its VQ-VAE are of single frames: `encode`, `decode`, `reconstruct`. Besides:

- `predict`: `frames` uint8 `(batch, time, height, width, channels)`, at least as many as the
  context; `actions` of the frames to come, `(batch, steps)` int32, or `(batch, steps,
  num_actions)`, int32 (buttons) or float32; without actions the scalar `steps` int32; and the
  scalars `seed` int32, `temperature` float32, `top_k` int32 and `top_p` float32; to `frames`, uint8
  `(batch, steps, height, width, channels)`, and their `codes`.
- `start`: `frames` to the state, `codes` int32 `(batch, context, *grid)` and `number`, 0.
- `step`: the state, `actions` without the axis of steps, and the scalars, to `frames`, uint8
  `(batch, height, width, channels)`, and the state for the next step: so that a client can play.
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
    vqvae, past = predictor.vqvae, predictor.context_frames
    image.add_endpoints(archive, vqvae)
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
        """Actions `(batch, steps, ...)` as floats, after checks."""
        if discrete:
            actions = checked_range("actions", actions, predictor.num_actions)
        else:
            width = tf.shape(actions)[2]
            wanted = predictor.num_actions
            actions = with_checks(
                actions, [asserted(width == wanted, f"actions must be {wanted} wide, got", width)]
            )
            if continuous:
                finite = tf.reduce_all(tf.math.is_finite(actions))
                actions = with_checks(actions, [asserted(finite, "actions must be finite")])
            else:
                actions = checked_range("actions", actions, 2)
        count = tf.shape(actions)[0]
        same = asserted(count == batch, "actions must be of as many examples, got", count)
        return predictor._features(with_checks(actions, [same]))

    def options(temperature: tf.Tensor, top_k: tf.Tensor, top_p: tf.Tensor) -> sampling.Options:
        checks = [
            asserted(temperature > 0, "temperature must be positive, got", temperature),
            asserted(top_k >= 1, "top_k must be at least 1, got", top_k),
            asserted((top_p > 0) & (top_p <= 1), "top_p must be in (0, 1], got", top_p),
        ]
        return sampling.Options(with_checks(temperature, checks), top_k, top_p)

    def context(frames: tf.Tensor) -> tf.Tensor:
        """Codes `(batch, context, *grid)` of the last frames."""
        time = tf.shape(frames)[1]
        frames = with_checks(
            frames,
            [asserted(time >= past, f"frames must be at least {past} (context_frames), got", time)],
        )[:, -past:]
        frames = checked_shape("frames", frames, (past, *predictor.image_shape))
        codes = vqvae._encode(tf.reshape(frames, (-1, *predictor.image_shape)))
        return tf.reshape(codes, (-1, past, *predictor.grid_shape))

    def rolled(
        codes: tf.Tensor, given: tf.Tensor, number: Any, seed: tf.Tensor, how: sampling.Options
    ) -> tuple:
        batch, steps = tf.shape(codes)[0], tf.shape(given)[1]
        full, examples = functional.never_empty(codes), tf.range(tf.maximum(batch, 1))
        given = functional.never_empty(given)
        following, drawn = predictor._imagine(
            full, given, number + tf.range(steps), examples, seed, how
        )
        drawn = tf.ensure_shape(drawn, (None, None, *predictor.grid_shape))
        return following[:batch], drawn[:batch]

    def decoded(codes: tf.Tensor) -> tf.Tensor:
        """Frames `(batch, steps, ...)` of codes."""
        batch, steps = tf.shape(codes)[0], tf.shape(codes)[1]
        flat = vqvae._decode(tf.reshape(codes, (-1, *predictor.grid_shape)))
        return tf.reshape(flat, (batch, steps, *predictor.image_shape))

    def nothing(batch: tf.Tensor, steps: Any) -> tf.Tensor:
        return tf.zeros((batch, steps, 0), predictor.compute_dtype)

    def predict(frames: tf.Tensor, what: tf.Tensor, *rest: tf.Tensor) -> dict:
        seed, *how = rest
        batch = tf.shape(frames)[0]
        if predictor.num_actions:
            given = vectors(what, batch)
        else:
            some = asserted(what >= 1, "steps must be at least 1, got", what)
            given = nothing(batch, with_checks(what, [some]))
        _, codes = rolled(context(frames), given, 0, seed, options(*how))
        return {"frames": decoded(codes), "codes": codes}

    def start(frames: tf.Tensor) -> dict:
        return {"codes": context(frames), "number": tf.constant(0)}

    def step(codes: tf.Tensor, number: tf.Tensor, *rest: tf.Tensor) -> dict:
        codes = checked_range("codes", codes, predictor.num_codes)
        codes = checked_shape("codes", codes, (past, *predictor.grid_shape))
        batch = tf.shape(codes)[0]
        if predictor.num_actions:
            action, seed, *how = rest
            given = vectors(action[:, None], batch)
        else:
            seed, *how = rest
            given = nothing(batch, 1)
        following, drawn = rolled(codes, given, number, seed, options(*how))
        return {"frames": decoded(drawn)[:, 0], "codes": following, "number": number + 1}

    length = [] if predictor.num_actions else [spec((), tf.int32, "steps")]
    archive.add_endpoint("predict", predict, [frames_spec, *actions_spec(2), *length, *scalars])
    archive.add_endpoint("start", start, [frames_spec])
    state = [spec((None,) * 4, tf.int32, "codes"), spec((), tf.int32, "number")]
    archive.add_endpoint("step", step, [*state, *actions_spec(1), *scalars])
