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

import math
from typing import Any

import numpy as np
import tensorflow as tf

from keras_vqvae import functional, sampling
from keras_vqvae.export import image
from keras_vqvae.export.checks import asserted, few_codes, whole_steps, with_checks
from keras_vqvae.export.endpoints import Endpoints
from keras_vqvae.export.fields import (
    BATCH,
    MOST_FRAMES,
    SEED,
    TEMPERATURE,
    TOP_K,
    TOP_P,
    Field,
    drawing_example,
    finite_range,
)
from keras_vqvae.models.video import VideoPredictor
from keras_vqvae.models.video_vqvae import VideoVQVAE

_DRAWING = [SEED, TEMPERATURE, TOP_K, TOP_P]
_STEPS = Field("steps", (), "int32", "how many frames to predict", 1, MOST_FRAMES)
_NUMBER = Field("number", (), "int32", "steps so far; 0 at the beginning", 0, 2**31 - 2)


def example_of(predictor: VideoPredictor) -> np.ndarray:
    """Two contexts of noise."""
    shape = (2, predictor.context_frames, *predictor.image_shape)
    return np.random.default_rng(0).integers(0, 256, shape, dtype="uint8")


def check_example(predictor: VideoPredictor, x: np.ndarray) -> None:
    """Raises `ValueError` where `x` is not a context."""
    predictor.start(x)


def add_endpoints(endpoints: Endpoints, predictor: VideoPredictor, example: np.ndarray) -> None:
    """Adds those that this module's docstring names.

    Args:
        example: some contexts.
    """
    past, each = predictor.context_frames, predictor.frames_per_code
    counted = np.asarray(predictor.what_counts(example))
    of_video = isinstance(predictor.vqvae, VideoVQVAE)
    image.add_endpoints(endpoints, predictor.vqvae, counted if of_video else counted[:, 0])

    def vectors(actions: tf.Tensor) -> tf.Tensor:
        """Actions `(batch, frames, ...)` as floats by step."""
        return predictor._by_step(predictor._features(whole_steps("actions", actions, each)))

    def context(frames: tf.Tensor) -> tf.Tensor:
        """Codes `(batch, steps, *grid)` of what counts of frames."""
        time, message = tf.shape(frames)[1], f"frames must be at least {past} (context_frames), got"
        frames = with_checks(frames, [asserted(time >= past, message, time)])
        frames = predictor.what_counts(frames)
        return predictor.encode_frames(functional.never_empty(frames))[: tf.shape(frames)[0]]

    def drawn_after(
        codes: tf.Tensor, given: tf.Tensor, number: Any, seed: tf.Tensor, how: sampling.Options
    ) -> dict:
        """Frames and codes of steps, from those of the past."""
        batch, steps = tf.shape(codes)[0], tf.shape(given)[1]
        enough = few_codes("batch * steps", batch, steps, math.prod(predictor.grid_shape))
        given = with_checks(given, [enough])
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

    def predict(frames: tf.Tensor, what: tf.Tensor, seed: tf.Tensor, *how: tf.Tensor) -> dict:
        if predictor.num_actions:
            count, message = tf.shape(what)[1], f"actions must be at most {MOST_FRAMES}, got"
            given = vectors(with_checks(what, [asserted(count <= MOST_FRAMES, message, count)]))
        else:
            message = f"steps must be a multiple of {each} frames, got"
            steps = with_checks(what, [asserted(what % each == 0, message, what)])
            given = nothing(tf.shape(frames)[0], steps // each)
        return drawn_after(context(frames), given, 0, seed, sampling.Options(*how))

    def start(frames: tf.Tensor) -> dict:
        return {"codes": context(frames)[:, -predictor.codes_kept :], "number": tf.constant(0)}

    def step(codes: tf.Tensor, number: tf.Tensor, *rest: tf.Tensor) -> dict:
        steps, least = tf.shape(codes)[1], past // each
        message = f"codes must be of at least {least} steps, got"
        codes = with_checks(codes, [asserted(steps >= least, message, steps)])
        if predictor.num_actions:
            action, seed, *how = rest
            given = vectors(action[:, None] if each == 1 else action)
        else:
            seed, *how = rest
            given = nothing(tf.shape(codes)[0], 1)
        made = drawn_after(codes, given, number, seed, sampling.Options(*how))
        kept = tf.concat([codes, made["codes"]], 1)[:, -predictor.codes_kept :]
        frames = made["frames"] if each > 1 else made["frames"][:, 0]
        return {"frames": frames, "codes": kept, "number": number + 1}

    _, codes = image.fields(predictor.vqvae)
    grid, picture = codes.shape[-2:], predictor.image_shape
    past_frames = Field(
        "frames", (BATCH, "time", *picture), "uint8", f"at least {past} frames", 0, 255
    )
    new_frames = Field("frames", (BATCH, "steps", *picture), "uint8", "those that follow", 0, 255)
    one_step = new_frames.shaped(BATCH, *(() if each == 1 else (each,)), *picture)
    new_codes = codes.shaped(BATCH, "steps" if each == 1 else f"steps / {each}", *grid)
    state = [codes.shaped(BATCH, "kept", *grid), _NUMBER]
    what, action = [_STEPS], []
    if predictor.num_actions:
        what = [_actions(predictor, "steps")]
        action = [_actions(predictor, *(() if each == 1 else (each,)))]

    begin = {
        **drawing_example(predictor.num_codes),
        "frames": example,
        "number": 0,
        "codes": context(tf.constant(example))[:, -predictor.codes_kept :],
        "steps": 2 * each,
    }
    later, now = ({"actions": _still(x[-1:], len(example), 2 * each)} for x in (what, action))
    outputs = [new_frames, new_codes]
    endpoints.add("predict", predict, [past_frames, *what, *_DRAWING], outputs, {**begin, **later})
    endpoints.add("start", start, [past_frames], state, begin)
    inputs = [*state, *action, *_DRAWING]
    endpoints.add("step", step, inputs, [one_step, *state], {**begin, **now})


def _actions(predictor: VideoPredictor, *sides: int | str) -> Field:
    meaning = "the first is done in the last frame that came before, each leads to one more"
    if predictor.actions == "discrete":
        most = predictor.num_actions - 1
        return Field("actions", (BATCH, *sides), "int32", meaning, 0, most)
    shape = (BATCH, *sides, predictor.num_actions)
    if predictor.actions == "buttons":
        return Field("actions", shape, "int32", f"1 for buttons that are down; {meaning}", 0, 1)
    return Field("actions", shape, "float32", meaning, **finite_range(predictor.compute_dtype))


def _still(actions: list[Field], count: int, steps: int) -> np.ndarray:
    """Actions that are all 0."""
    open_sides = {BATCH: count, "steps": steps}
    return np.zeros([open_sides.get(side, side) for field in actions for side in field.shape])
