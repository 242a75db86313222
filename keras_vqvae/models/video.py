"""Prediction of video in the space of codes, given actions."""

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_vqvae import backend, functional, sampling
from keras_vqvae.backend import Tensor
from keras_vqvae.layers.past_frames import PastFrames
from keras_vqvae.models import sizes
from keras_vqvae.models.autoregressive import CODES_A_CALL, checked_options, checked_seed
from keras_vqvae.models.base import (
    Model,
    check_codes,
    deserialized,
    is_batch_of,
    positive_integer,
)
from keras_vqvae.models.pixelcnn import PixelCNN
from keras_vqvae.models.progress import Progress
from keras_vqvae.models.video_vqvae import VideoVQVAE
from keras_vqvae.models.vqvae import VQVAE

ACTIONS = ("discrete", "buttons", "continuous")
# Guidance does not make likely what is e^6 times less likely than the likeliest code.
_PLAUSIBLE = 6.0
# Logarithms of the scale of likeness, at the beginning and at most.
_SCALE, _LARGEST_SCALE = 1.4, 5.5


@keras.saving.register_keras_serializable(package="keras_vqvae")
class VideoPredictor(Model):
    """Predicts the codes of the next frames from those of past ones and from actions.

    van den Oord et al. 2017, "Neural Discrete Representation Learning", section 4.4: from the codes
    of six frames and a sequence of actions those of the next frames, without ever going back to
    pixels. A frame's codes are drawn by a `PixelCNN`, conditioned on maps that `PastFrames` makes
    of the codes of the `context_frames` frames before and of the action. `Transport` in it moves
    the codes' vectors to where they are expected, and codes are the likelier the nearer they are to
    what is expected there, `x`: to the logits of code k is added `s (e_k · x - |e_k|² / 2)`, with a
    scale s for each place. So what moves without changing is soon learnt.

    ```python
    predictor = VideoPredictor(vqvae, num_actions=3)
    predictor.compile("adam")
    predictor.fit({"frames": windows, "actions": actions})    # uint8 (n, 16, 64, 64, 3), (n, 16)
    future = predictor.predict_frames(context, actions)       # (n, 6, ...), (n, 10) -> (n, 10, ...)
    ```

    `actions[t]` is what is done in frame t, and leads to frame t + 1: frame t depends on the
    actions before t and on no later one.

    **Guidance.** Frames drawn from frames that were drawn lose, little by little, what makes them
    those of this place and no other. With `guidance` w codes are drawn by `l + w (l - l0)`, logits
    with and without the context (Ho and Salimans 2022, "Classifier-Free Diffusion Guidance"; of
    video Song et al. 2025, "History-Guided Video Diffusion"): what the context speaks for counts
    for more. 0.3 is much; each code then takes two passes. The likelihoods of `fit` and
    `log_prob` are without it. `predictor.guidance` can be set at any time; each new value is
    compiled anew, and an export keeps that which is set.

    Of a `VideoVQVAE` a step is `frames_per_code` frames at once, given as many actions. Its codes
    depend on all that came before: the longer a context, the more they are as in training.

    Args:
        vqvae: a trained `VQVAE` of frames, with one code a place, or a `VideoVQVAE`. It is frozen
            (`vqvae.trainable = False`) and is saved with the predictor.
        num_actions: number of actions, of buttons or of entries of the vectors; 0 for none.
        actions: "discrete", one of `num_actions` a frame, int32 `(batch, frames)`; "buttons", of
            which several may be down at once, int32 0 or 1 `(batch, frames, num_actions)`; or
            "continuous", float32 vectors `(batch, frames, num_actions)`, best of about unit size.
        context_frames: how many past frames a prediction sees, a multiple of `frames_per_code`.
        hidden: channels of the layers.
        past_dilations: of the blocks of `PastFrames`.
        reach: how far codes move from frame to frame, in (rows, columns) of the grid.
        num_layers: of the `PixelCNN`.
        kernel_size: of the `PixelCNN`.
        context_dropout: in training, the share of frames that are predicted without the context:
            what guidance needs.
        guidance: w, at least 0.
        seed: of the dropout.

    `call` takes a dict of `frames` (uint8 `(batch, time, height, width, channels)`) or of `codes`
    (int32 `(batch, steps, *grid_shape)`, made once by `vqvae.encode`; `steps = time /
    frames_per_code`), and of `actions` where there are any, one for each frame; `time` must be
    known, and more than `context_frames`. Without actions `frames` or `codes` alone do. It gives a
    dict: `outputs`, logits `(batch, steps, *grid_shape, num_codes)` of the frames after the first
    `context_frames`, and their `codes`.

    Logs the `loss` in bits per code, and `bits_per_frame`.
    """

    _pairs_cure = 'dataset.map(lambda frames, actions: {"frames": frames, "actions": actions})'

    def __init__(
        self,
        vqvae: VQVAE,
        num_actions: int = 0,
        *,
        actions: str = "discrete",
        context_frames: int = 6,
        hidden: int = 128,
        past_dilations: tuple = (1, 2, 4, 1, 2, 4),
        reach: tuple = (1, 4),
        num_layers: int = 8,
        kernel_size: int = 3,
        context_dropout: float = 0.1,
        guidance: float = 0.0,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        known = isinstance(vqvae, VQVAE) and vqvae.built
        if not known or len(vqvae.grid_shape) != (3 if isinstance(vqvae, VideoVQVAE) else 2):
            raise ValueError(
                "vqvae must be a built VQVAE of frames with 2-D codes, or a VideoVQVAE, got "
                f"{vqvae!r}"
            )
        if actions not in ACTIONS:
            raise ValueError(f"actions must be one of {', '.join(ACTIONS)}, got {actions!r}")
        is_number = isinstance(num_actions, (int, np.integer)) and num_actions is not True
        if not is_number or num_actions < 0 or num_actions is False:
            raise ValueError(f"num_actions must be an integer of at least 0, got {num_actions!r}")
        for name, entries, least in (("reach", reach, 0), ("past_dilations", past_dilations, 1)):
            listed = entries if isinstance(entries, (tuple, list)) and entries else [None]
            if not all(isinstance(x, (int, np.integer)) and x >= least for x in listed):
                raise ValueError(
                    f"{name} must be a tuple of integers from {least}, got {entries!r}"
                )
        hidden = positive_integer("hidden", hidden)
        num_layers = positive_integer("num_layers", num_layers)
        reach, past_dilations = (tuple(map(int, entries)) for entries in (reach, past_dilations))
        seed = None if seed is None else checked_seed(seed)
        # Codes and frames are integers, and stay so.
        super().__init__(autocast=False, **kwargs)
        # Keras ignores what is said already, as of a loaded model, though of its layers it is not.
        vqvae.trainable = True
        vqvae.trainable = False
        self.vqvae = vqvae
        self.num_actions = int(num_actions)
        self.actions = actions
        self.context_frames = positive_integer("context_frames", context_frames)
        if context_frames % self.frames_per_code:
            raise ValueError(
                f"context_frames={context_frames} must be a multiple of the {self.frames_per_code} "
                "frames a code of vqvae"
            )
        self._arguments = {
            "hidden": hidden,
            "past_dilations": past_dilations,
            "reach": reach,
            "num_layers": num_layers,
            "kernel_size": kernel_size,
            "context_dropout": context_dropout,
            "seed": seed,
        }
        if not isinstance(context_dropout, (int, float)) or not 0 <= context_dropout < 1:
            raise ValueError(f"context_dropout must be in [0, 1), got {context_dropout!r}")
        self.context_dropout = context_dropout
        self._seeds = keras.random.SeedGenerator(seed, name="seeds") if context_dropout else None
        self.guidance = guidance
        dtype = self.dtype_policy
        self._past = PastFrames(hidden, past_dilations, reach, dtype=dtype, name="past")
        self.frame_model = PixelCNN(
            self.grid_shape,
            vqvae.num_codes,
            condition_channels=hidden,
            hidden=hidden,
            num_layers=num_layers,
            kernel_size=kernel_size,
            dtype=dtype,
            name="frame_model",
        )
        codes = keras.KerasTensor((None, *self.grid_shape), "int32")
        vector = tuple(vqvae.quantizer.decode(codes).shape[1:])
        self._changes = keras.layers.Dense(vector[-1], dtype=dtype, name="changes")
        self._scale = keras.layers.Dense(1, dtype=dtype, name="scale")
        for layer in (self._changes, self._scale):
            layer.build((None, *self.grid_shape, hidden))
        self._frame_tracker = keras.metrics.Mean(name="bits_per_frame", dtype="float32")
        self._past.build(
            (None, self._past_steps, *vector),
            (None, num_actions * self.frames_per_code) if num_actions else None,
        )
        self.built = True

    def build(self, input_shape: Any = None) -> None:
        """Nothing: it is built when it is made."""

    @property
    def grid_shape(self) -> tuple:
        """Shape of the codes of a step: of a frame, or of `frames_per_code` of them."""
        return self.vqvae.grid_shape[-2:]

    @property
    def guidance(self) -> float:
        """How much more the context counts in predictions; see the class."""
        return self._guidance

    @guidance.setter
    def guidance(self, guidance: float) -> None:
        is_number = isinstance(guidance, (int, float, np.integer, np.floating))
        number = float(guidance) if is_number else -1.0
        if not 0 <= number < math.inf:
            raise ValueError(f"guidance must be a number of at least 0, got {guidance!r}")
        if number and not self.context_dropout:
            raise ValueError(
                f"guidance={guidance} needs a model that was trained with context_dropout"
            )
        self._guidance = number

    @property
    def frames_per_code(self) -> int:
        """Frames a step: 1, or those of a code of a `VideoVQVAE`."""
        return getattr(self.vqvae, "frames_per_code", 1)

    @property
    def codes_kept(self) -> int:
        """How many steps' codes count for the next one: what is drawn, and how it is decoded."""
        if isinstance(self.vqvae, VideoVQVAE):
            return max(self._past_steps, self.vqvae.decoder.context[0])
        return self._past_steps

    @property
    def num_codes(self) -> int:
        return self.vqvae.num_codes

    @property
    def image_shape(self) -> tuple:
        """Shape of a frame."""
        return tuple(self.vqvae.image_shape or ())

    def call(self, inputs: Any, training: bool = False) -> dict:
        self.check_data(inputs)
        batch, each = ops.shape(keras.tree.flatten(inputs)[0])[0], self.frames_per_code
        past = self._past_steps
        codes, actions = self._codes_and_actions(self.checked(inputs))
        steps = codes.shape[1] - past
        vectors = self._vectors(codes)
        windows = ops.stack([vectors[:, i : i + steps] for i in range(past)], 2)
        action = None
        if actions is not None:
            actions = functional.never_empty(self._features(actions))
            first = self.context_frames - 1
            action = _fold(self._by_step(actions[:, first : first + steps * each]))
        maps, nearness = self._context(_fold(windows), action)
        if training and self._seeds is not None:
            shape = (ops.shape(maps)[0], 1, 1, 1)
            kept = (
                keras.random.uniform(shape, dtype="float32", seed=self._seeds)
                >= self.context_dropout
            )
            maps, nearness = (x * ops.cast(kept, x.dtype) for x in (maps, nearness))
        following = codes[:, past:]
        logits = self.frame_model.logits(_fold(following), maps) + nearness
        shape = (-1, steps, *self.grid_shape, self.num_codes)
        return {"outputs": ops.reshape(logits, shape)[:batch], "codes": following[:batch]}

    def checked(self, x: Any) -> dict:
        parts = dict(x) if isinstance(x, dict) else {self._kind(x): x}
        if "codes" in parts:
            codes = backend.checked_range("codes", parts["codes"], self.num_codes)
            parts["codes"] = ops.cast(codes, "int32")
        actions = parts.get("actions")
        if actions is None:
            return parts
        if self.actions == "continuous":  # as the network computes in: 1e300 is no float32
            actions = ops.cast(actions, self.compute_dtype)
            return {**parts, "actions": backend.checked_finite("actions", actions)}
        most = self.num_actions if self.actions == "discrete" else 2
        if keras.backend.standardize_dtype(actions.dtype) != "bool":
            actions = backend.checked_range("actions", actions, most)
        return {**parts, "actions": ops.cast(actions, "int32")}

    def _codes_and_actions(self, x: dict) -> tuple[Tensor, Tensor | None]:
        if "codes" in x:
            codes = functional.never_empty(x["codes"])
        else:
            codes = self.encode_frames(functional.never_empty(x["frames"]))
        return ops.stop_gradient(codes), x.get("actions")

    def encode_frames(self, frames: Any, batch_size: int = 64) -> np.ndarray:
        """Codes of frames.

        Args:
            frames: uint8 `(batch, time, height, width, channels)`, an array or a tensor.
            batch_size: for arrays, frames at a time, about.

        Returns:
            int32 `(batch, time / frames_per_code, *grid_shape)`.
        """
        frames = np.asarray(frames) if isinstance(frames, (list, tuple)) else frames
        if isinstance(self.vqvae, VideoVQVAE):
            return self._by_vqvae("encode", frames, max(1, batch_size // (frames.shape[1] or 1)))
        codes = self._by_vqvae("encode", _fold(frames), batch_size)
        return _reshape(codes, (*ops.shape(frames)[:2], *self.grid_shape))

    def decode_after(self, past: Any, codes: Any, batch_size: int = 64) -> Any:
        """Frames of codes, given those before them.

        Args:
            past: int32 `(batch, any, *grid_shape)`, the codes before: the last `codes_kept` count.
            codes: int32 `(batch, steps, *grid_shape)`; both arrays or both tensors.
            batch_size: for arrays, frames at a time, about.

        Returns:
            uint8 `(batch, steps * frames_per_code, height, width, channels)`.
        """
        past, codes = (np.asarray(x) if isinstance(x, list) else x for x in (past, codes))
        if isinstance(self.vqvae, VideoVQVAE):
            join = np.concatenate if isinstance(codes, np.ndarray) else ops.concatenate
            whole = join([past[:, -self.codes_kept :], codes], 1)
            length = (whole.shape[1] or 1) * self.frames_per_code
            frames = self._by_vqvae("decode", whole, max(1, batch_size // length))
            return frames[:, (ops.shape(whole)[1] - ops.shape(codes)[1]) * self.frames_per_code :]
        frames = self._by_vqvae("decode", _fold(codes), batch_size)
        return _reshape(frames, (*ops.shape(codes)[:2], *self.image_shape))

    def _by_vqvae(self, name: str, x: Any, batch_size: int) -> Any:
        if isinstance(x, np.ndarray):
            return getattr(self.vqvae, name)(x, batch_size)
        return getattr(self.vqvae, f"_{name}")(x)

    def _by_step(self, actions: Any) -> Any:
        """Vectors of actions, `(batch, frames, any)`, with those of a step laid together."""
        each = self.frames_per_code
        if each == 1:
            return actions
        batch, frames = ops.shape(actions)[:2]
        return _reshape(actions, (batch, frames // each, each * self.num_actions))

    def _vectors(self, codes: Tensor) -> Tensor:
        """Vectors of codes around the codebook's mean, `(..., code_dim)`, in the compute dtype."""
        vectors, mean = self.vqvae.quantizer.decode(codes), self._codebook()[1]
        vectors = ops.cast(ops.stop_gradient(vectors), "float32") - mean
        return ops.cast(vectors, self.compute_dtype)

    def _codebook(self) -> tuple[Tensor, Tensor]:
        """All vectors around their mean, and that, in float32 whatever the policy."""
        every = ops.arange(self.num_codes, dtype="int32")
        vectors = ops.stop_gradient(self.vqvae.quantizer.decode(every[None, None])[0, 0])
        vectors = ops.cast(vectors, "float32")
        mean = ops.mean(vectors, 0)
        return vectors - mean, mean

    def _context(self, vectors: Tensor, action: Tensor | None) -> tuple[Tensor, Tensor]:
        """What is known of a frame before it is drawn; all zeros would be nothing.

        Args:
            vectors: of the codes of the frames before, `(batch, steps, *grid_shape, code_dim)`.
            action: `(batch, any)`.

        Returns:
            maps `(batch, *grid_shape, hidden)`, and logits `(batch, *grid_shape, num_codes)` to be
            added.
        """
        maps, moved = self._past(vectors, action)
        return maps, self._nearness(maps, moved)

    def _nearness(self, maps: Tensor, moved: Tensor) -> Tensor:
        """Logits `(batch, *grid_shape, num_codes)`: how near codes are to what is expected."""
        vectors, _ = self._codebook()
        squares = ops.sum(ops.square(vectors), -1)
        expected = ops.cast(moved + self._changes(maps), "float32")
        near = ops.matmul(expected, ops.transpose(vectors)) - squares / 2
        # Of distances in units of the codebook's own; at most some hundreds.
        scale = ops.minimum(ops.cast(self._scale(maps), "float32") + _SCALE, _LARGEST_SCALE)
        near = near * ops.exp(scale) / ops.maximum(ops.mean(squares), 1e-6)
        # The likeliest, at 0, have the finest steps of a coarser dtype.
        return ops.cast(near - ops.max(near, -1, keepdims=True), self.compute_dtype)

    def _features(self, actions: Tensor) -> Tensor:
        """Actions as vectors, `(..., num_actions)`."""
        if self.actions == "discrete":
            return ops.one_hot(
                ops.cast(actions, "int32"), self.num_actions, dtype=self.compute_dtype
            )
        return ops.cast(actions, self.compute_dtype)

    def per_example_loss(self, x: Any, outputs: dict) -> Tensor:
        bits = self._bits(outputs) / outputs["outputs"].shape[1]
        self._frame_tracker.update_state(bits / self.frames_per_code)
        return bits / math.prod(self.grid_shape)

    def _bits(self, outputs: dict) -> Tensor:
        nats = ops.sparse_categorical_crossentropy(
            outputs["codes"], ops.cast(outputs["outputs"], "float32"), from_logits=True
        )
        return ops.sum(nats, (1, 2, 3)) / math.log(2.0)

    def log_prob(self, x: Any, batch_size: int = 16) -> np.ndarray:
        """Log-probability in nats of the frames after the first `context_frames`, given those.

        Args:
            x: what `fit` takes; arrays, tensors, or a dataset of batches.
            batch_size: examples at a time, for arrays.

        Returns:
            float32 `(batch,)`, an array; a tensor if `x` is of tensors.

        Raises:
            ValueError: as for `fit`.
        """
        if hasattr(x, "shape") or isinstance(x, dict):
            self.check_data(x)
        return self._in_batches("log_prob", self._log_prob, x, batch_size)

    def _log_prob(self, x: Any) -> Tensor:
        return -math.log(2.0) * self._bits(self(x))

    # Checks.

    def _signature(self) -> Any:
        # Of windows of one length, which must be known: of the context and one step.
        spec, time = keras.layers.InputSpec, self.context_frames + self.frames_per_code
        frames = spec(dtype="uint8", shape=(None, time, *self.image_shape))
        if not self.num_actions:
            return {"frames": frames}
        discrete, continuous = self.actions == "discrete", self.actions == "continuous"
        each = () if discrete else (self.num_actions,)
        dtype = "float32" if continuous else "int32"
        return {"frames": frames, "actions": spec(dtype=dtype, shape=(None, time, *each))}

    def check_data(self, x: Any) -> None:
        """Raises `ValueError` where `x` is not windows of video, with actions, of this model."""
        names = {"actions"} if self.num_actions else set()
        if isinstance(x, dict):
            kinds = set(x) - names
            if kinds not in ({"frames"}, {"codes"}) or not names <= set(x):
                wanted = '{"frames" or "codes": ...' + (', "actions": ...}' if names else "}")
                raise ValueError(f"a dict must be {wanted}, got the keys {sorted(map(str, x))}")
            (kind,) = kinds
        elif not hasattr(x, "dtype") or names:
            wanted = '{"frames": frames, "actions": actions}' if names else "frames or codes"
            raise ValueError(f"data must be {wanted}, got a {type(x).__name__}")
        else:
            kind = self._kind(x)
            x = {kind: x}
        windows = x[kind]
        self._check_windows(kind, windows)
        time = windows.shape[1]
        if time is None:
            raise ValueError(f"{kind} must have a known number of frames, got {windows.shape}")
        time *= 1 if kind == "frames" else self.frames_per_code
        if time <= self.context_frames:
            raise ValueError(
                f"{kind} must have more than context_frames={self.context_frames} frames, got "
                f"{time}"
            )
        if names:
            self.check_actions(x["actions"], windows.shape[0], time)

    def _kind(self, x: Any) -> str:
        """Whether an array is of frames, be it of a single video, or of codes."""
        is_frames = len(x.shape) == 5 or tuple(x.shape[-3:]) == self.image_shape
        return "frames" if is_frames else "codes"

    def _check_windows(self, kind: str, x: Any) -> None:
        if not hasattr(x, "dtype"):
            raise ValueError(f"{kind} must be an array or a tensor, got a {type(x).__name__}")
        if kind == "codes":
            check_codes(x, (None, *self.grid_shape), self.num_codes)
            return
        if isinstance(self.vqvae, VideoVQVAE):
            self.vqvae.check_data(x)
            return
        dtype = keras.backend.standardize_dtype(x.dtype)
        if dtype != "uint8":
            raise ValueError(f"frames must be uint8, got {dtype}")
        if not is_batch_of(x, (None, *self.image_shape)):
            wanted = ", ".join(map(str, self.image_shape))
            raise ValueError(
                f"frames must have shape (batch, time, {wanted}), got {tuple(x.shape)}"
            )

    def check_actions(self, actions: Any, batch: int | None, time: int | None) -> None:
        """Raises `ValueError` where `actions` are not of `batch` examples and `time` frames."""
        discrete, continuous = self.actions == "discrete", self.actions == "continuous"
        if discrete:
            kind = f"integers (batch, frames) in [0, {self.num_actions})"
        else:
            what = "floats" if continuous else "0 or 1, integers or bool,"
            kind = f"{what} (batch, frames, {self.num_actions})"
        if not hasattr(actions, "dtype"):
            raise ValueError(f"actions must be {kind}, got a {type(actions).__name__}")
        dtype = keras.backend.standardize_dtype(actions.dtype)
        of_buttons = self.actions == "buttons" and dtype == "bool"
        if not of_buttons and ("float" if continuous else "int") not in dtype:
            raise ValueError(f"actions must be {kind}, got dtype {dtype}")
        shape = (time,) if discrete else (time, self.num_actions)
        got = tuple(actions.shape)
        if not is_batch_of(actions, shape) or (None not in (batch, got[0]) and batch != got[0]):
            frames = "" if time is None else f" and {time} frames"
            raise ValueError(
                f"actions must be {kind}, of {batch} examples{frames}, got shape {got}"
            )
        values = backend.concrete(actions)
        if values is None or not values.size:
            return
        if continuous:  # as the network computes in: 1e300 is no float32
            with np.errstate(over="ignore"):
                values = values.astype(self.compute_dtype).astype("float32")
            if not np.isfinite(values).all():
                raise ValueError(
                    f"actions must be finite, got NaN or infinity, as {self.compute_dtype}"
                )
            return
        low, high = int(values.min()), int(values.max())
        if low < 0 or high > (self.num_actions - 1 if discrete else 1):
            raise ValueError(f"actions must be {kind}, got values from {low} to {high}")

    # Prediction.

    def frame_context(self, past: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """What is known of a step before it is drawn.

        Args:
            past: int32 `(batch, context_frames / frames_per_code, *grid_shape)`.
            action: `(batch, num_actions * frames_per_code)` floats, of which there may be none.

        Returns:
            maps `(batch, *grid_shape, hidden)`, and logits `(positions, batch, num_codes)`.
        """
        maps, nearness = self._context(self._vectors(past), action if self.num_actions else None)
        positions = math.prod(self.grid_shape)
        by_position = ops.reshape(nearness, (-1, positions, self.num_codes))
        return maps, ops.transpose(by_position, (1, 0, 2))

    def predict_frames(
        self,
        context: Any,
        actions: Any = None,
        *,
        steps: int | None = None,
        seed: int | None = None,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float = 1.0,
        batch_size: int = 16,
        verbose: str | int = "auto",
    ) -> np.ndarray:
        """The frames that follow.

        Args:
            context: uint8 `(n, time, height, width, channels)`, at least `context_frames` of them,
                of which the last count (of a `VideoVQVAE` all).
            actions: of n examples, as `fit` takes them: the first is done in the last frame of
                the context, and each leads to one more frame.
            steps: how many frames, without actions only; a multiple of `frames_per_code`.
            seed: an int of 32 bits; None for others every time. `predict_frames` of fewer steps or
                examples gives the first ones of more.
            temperature, top_k, top_p: as in `PixelCNN.sample`.
            batch_size: examples at a time.
            verbose: 1 to show progress, 0 not to, "auto" to show it where it takes long.

        Returns:
            uint8 `(n, steps, height, width, channels)`.

        Raises:
            ValueError: frames or actions do not fit, or an argument is out of its range.
        """
        past = self._codes_of(context)
        drawn = self.imagine(
            past, actions, steps=steps, seed=seed, temperature=temperature,
            top_k=top_k, top_p=top_p, batch_size=batch_size, verbose=verbose,
        )  # fmt: skip
        return self.decode_after(past, drawn)

    def imagine(
        self,
        context: Any,
        actions: Any = None,
        *,
        steps: int | None = None,
        seed: int | None = None,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float = 1.0,
        batch_size: int = 16,
        verbose: str | int = "auto",
    ) -> np.ndarray:
        """`predict_frames` from codes to codes.

        Args:
            context: int32 `(n, steps, *grid_shape)`.
            actions, steps, seed, temperature, top_k, top_p, batch_size, verbose: as for
                `predict_frames`.

        Returns:
            int32 `(n, steps, *grid_shape)`.

        Raises:
            ValueError: as for `predict_frames`.
        """
        context = np.asarray(context)
        self._check_windows("codes", context)
        n, past_steps = context.shape[:2]
        self._check_context(past_steps * self.frames_per_code)
        options = checked_options(self.num_codes, temperature, top_k, top_p)
        seed = checked_seed(seed)
        few_sizes = backend.is_compiled_by_size(bool(self.compiled and self.jit_compile))
        batch_size = min(positive_integer("batch_size", batch_size), max(n, 1))
        batch_size = sizes.rounded_up(batch_size) if few_sizes else batch_size
        vectors = self._future(actions, n, steps)
        steps = vectors.shape[1]
        self.check_weights()
        if n == 0 or steps == 0:
            return np.zeros((n, steps, *self.grid_shape), "int32")
        # Long work is done in several calls, for progress and interruption.
        a_call = max(1, CODES_A_CALL // (batch_size * math.prod(self.grid_shape)))
        a_call = sizes.part_of(steps, a_call, few_sizes)
        if few_sizes:  # whole parts, of which what is too much is drawn for nothing
            vectors = np.pad(vectors, [(0, 0), (0, -steps % a_call), (0, 0)], mode="edge")
        progress = Progress(-(-n // batch_size) * -(-steps // a_call), verbose)
        run = self._run()
        drawn = np.zeros((n, vectors.shape[1], *self.grid_shape), "int32")
        for first in range(0, n, batch_size):
            # The last batch is filled up: another size would be compiled anew.
            some = np.minimum(np.arange(first, first + batch_size), n - 1)
            past = context[some, past_steps - self._past_steps :].astype("int32")
            for start in range(0, steps, a_call):
                part = vectors[some, start : start + a_call]
                frames = np.arange(start, start + part.shape[1], dtype="int32")
                given = some.astype("int32"), np.int32(seed), options
                past, codes = run(past, part, frames, *given)
                keep = min(batch_size, n - first)
                drawn[first : first + keep, start : start + a_call] = ops.convert_to_numpy(codes)[
                    :keep
                ]
                progress.advance()
        return drawn[:, :steps]

    def start(self, context: Any) -> dict[str, Any]:
        """What `step` begins from.

        Args:
            context: uint8 `(n, time, height, width, channels)`, at least `context_frames` of them.

        Returns:
            a dict of `codes`, int32 `(n, at most codes_kept, *grid_shape)`, and `number`, 0.
        """
        return {"codes": self._codes_of(context)[:, -self.codes_kept :], "number": 0}

    def step(
        self,
        state: dict[str, Any],
        action: Any = None,
        *,
        seed: int | None = None,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float = 1.0,
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """One more frame. Steps one by one give the frames of `predict_frames`, of the same seed.

        Args:
            state: what `start`, or the last step, gave.
            action: of n examples, without the axis of frames; of a `VideoVQVAE` for all the
                `frames_per_code` frames of the step, on that axis.
            seed, temperature, top_k, top_p: as for `predict_frames`.

        Returns:
            the frame, uint8 `(n, height, width, channels)`, or of a `VideoVQVAE` `(n,
            frames_per_code, height, width, channels)`, and the state for the next step.

        Raises:
            ValueError: the state or the action does not fit, or an argument is out of its range.
        """
        options = checked_options(self.num_codes, temperature, top_k, top_p)
        if not isinstance(state, dict) or not {"codes", "number"} <= set(state):
            raise ValueError(f"state must be what start or step gave, got {state!r:.200}")
        number, each = state["number"], self.frames_per_code
        is_int = isinstance(number, (int, np.integer)) and not isinstance(number, bool)
        if not is_int or not 0 <= number < 2**31 - 1:
            raise ValueError(
                f"state: number must be an integer from 0 to 2**31 - 2, got {number!r}"
            )
        codes = np.asarray(state["codes"])
        self._check_windows("codes", codes)
        codes = codes.astype("int32")
        self._check_context(codes.shape[1] * each)
        self.check_weights()
        n = len(codes)
        actions = None if action is None else np.asarray(action)
        if actions is not None and each == 1:
            if actions.shape[:1] != (n,):
                raise ValueError(
                    f"action must be of {n} examples, np.array([...]), got {action!r:.200}"
                )
            actions = actions[:, None]
        vectors = self._future(actions, n, None if self.num_actions else each)
        if vectors.shape[1] != 1:
            raise ValueError(f"action must be of {each} frames, got {vectors.shape[1] * each}")
        drawn_by = np.int32(checked_seed(seed))
        if n:
            numbers = np.array([number], "int32"), np.arange(n, dtype="int32")
            given = codes[:, -self._past_steps :], vectors, *numbers, drawn_by, options
            drawn = ops.convert_to_numpy(self._run()(*given)[1])
        else:
            drawn = np.zeros((0, 1, *self.grid_shape), "int32")
        frames = self.decode_after(codes, drawn)
        kept = np.concatenate([codes, drawn], 1)[:, -self.codes_kept :]
        following = {"codes": kept, "number": int(number) + 1}
        return frames[:, 0] if each == 1 else frames, following

    def _codes_of(self, context: Any) -> np.ndarray:
        """Codes of what counts of a context."""
        context = np.asarray(context)
        if context.ndim == 5:  # anything else is named below
            self._check_context(context.shape[1])
            context = self.what_counts(context)
        self._check_windows("frames", context)
        return self.encode_frames(context)

    def what_counts(self, context: Any) -> Any:
        """The frames `(batch, time, ...)` of a context that a prediction depends on."""
        if isinstance(self.vqvae, VideoVQVAE):
            return context[:, ops.shape(context)[1] % self.frames_per_code :]
        return context[:, -self.context_frames :]

    @property
    def _past_steps(self) -> int:
        return self.context_frames // self.frames_per_code

    def _run(self) -> Any:
        xla = bool(self.compiled and self.jit_compile)
        return self._compiled(f"imagine {self.guidance}", self._imagine, xla)

    def _imagine(
        self,
        past: Tensor,
        actions: Tensor,
        frames: Tensor,
        examples: Tensor,
        seed: Tensor,
        options: sampling.Options,
    ) -> tuple[Tensor, Tensor]:
        given = sampling.given_frames(self.grid_shape, frames, examples, seed)
        frames = _Guided(self) if self.guidance else _Frames(self)
        return sampling.sample_frames(frames, past, actions, given, options)

    def _check_context(self, time: int) -> None:
        if time < self.context_frames:
            raise ValueError(
                f"context must have at least context_frames={self.context_frames} frames, got "
                f"{time}"
            )

    def _future(self, actions: Any, n: int, steps: int | None) -> np.ndarray:
        """Future actions as float32 vectors `(n, steps, num_actions)`."""
        if not self.num_actions:
            if actions is not None:
                raise ValueError(f"actions: {self.name} has none; give num_actions when it is made")
            if steps is None:
                raise ValueError("steps is missing: without actions it says how many frames")
            return np.zeros((n, self._whole(positive_integer("steps", steps)), 0), "float32")
        if actions is None:
            raise ValueError("actions are missing: each leads to one more frame")
        if steps is not None:
            raise ValueError("steps is for models without actions: here each action is a step")
        actions = np.asarray(actions)
        self.check_actions(actions, n, None)
        vectors = ops.convert_to_numpy(ops.cast(self._features(actions), "float32"))
        self._whole(vectors.shape[1])
        return self._by_step(vectors)

    def _whole(self, frames: int) -> int:
        """How many steps so many frames are."""
        if frames % self.frames_per_code:
            raise ValueError(
                f"steps come by {self.frames_per_code} frames (frames_per_code), got {frames} of "
                "them"
            )
        return frames // self.frames_per_code

    def get_config(self) -> dict:
        vqvae = keras.saving.serialize_keras_object(self.vqvae)
        # It is frozen: its optimizer would find no variables, and Keras warn of it at each loading.
        vqvae.pop("compile_config", None)
        return {
            **super().get_config(),
            "vqvae": vqvae,
            "num_actions": self.num_actions,
            "actions": self.actions,
            "context_frames": self.context_frames,
            **self._arguments,
            "guidance": self.guidance,
        }

    @classmethod
    def _deserialized(cls, config: dict, custom_objects: dict | None) -> dict:
        return deserialized(config, ["vqvae"], custom_objects)


class _Frames:
    """What `sampling.sample_frames` draws frames of a predictor with; made outside of loops.

    It samples as the predictor's `frame_model` does; its cache holds logits to be added, by
    position, besides.
    """

    def __init__(self, predictor: VideoPredictor) -> None:
        self._predictor = predictor
        self._sampler = predictor.frame_model.sampler()
        self.draw = self._sampler.draw

    def begin_frame(self, past: Tensor, action: Tensor) -> tuple:
        maps, added = self._predictor.frame_context(past, action)
        return self._predictor.frame_model.initial_cache(ops.shape(past)[0], maps), added

    def begin_row(self, cache: tuple, previous_row: Tensor, row: Tensor) -> tuple:
        inner, added = cache
        return self._sampler.begin_row(inner, previous_row, row), added

    def step(self, cache: tuple, previous: Tensor, position: Tensor) -> tuple[Tensor, tuple]:
        inner, added = cache
        logits, inner = self._sampler.step(inner, previous, position)
        return logits + ops.take(added, position, axis=0), (inner, added)


class _Guided(_Frames):
    """The same with guidance: each batch goes twice, the second time without the context."""

    def begin_frame(self, past: Tensor, action: Tensor) -> tuple:
        maps, added = self._predictor.frame_context(past, action)
        maps = ops.concatenate([maps, ops.zeros_like(maps)])
        return self._predictor.frame_model.initial_cache(2 * ops.shape(past)[0], maps), added

    def begin_row(self, cache: tuple, previous_row: Tensor, row: Tensor) -> tuple:
        return super().begin_row(cache, ops.concatenate([previous_row, previous_row]), row)

    def step(self, cache: tuple, previous: Tensor, position: Tensor) -> tuple[Tensor, tuple]:
        inner, added = cache
        twice = ops.concatenate([previous, previous])
        logits, inner = self._sampler.step(inner, twice, position)
        count = ops.shape(previous)[0]
        known = logits[:count] + ops.take(added, position, axis=0)
        return guided(known, logits[count:], self._predictor.guidance), (inner, added)


def guided(logits: Tensor, without: Tensor, guidance: float) -> Tensor:
    """Logits `(..., num_codes)` that speak louder for what the context speaks for; float32.

    Codes that are very unlikely with the context stay so (Li et al. 2023, "Contrastive Decoding",
    eq. 2).

    Args:
        logits: given the context.
        without: not given it.
        guidance: how much.
    """
    known, unknown = (ops.cast(x, "float32") for x in (logits, without))
    plausible = known >= ops.max(known, -1, keepdims=True) - _PLAUSIBLE
    return ops.where(plausible, known + guidance * (known - unknown), -1e9)


def _reshape(x: Any, shape: tuple) -> Any:
    """Of an array an array, of a tensor a tensor."""
    return x.reshape(shape) if isinstance(x, np.ndarray) else ops.reshape(x, shape)


def _fold(x: Any) -> Any:
    """`(batch, time, ...)` as `(batch * time, ...)`."""
    if isinstance(x, np.ndarray):
        return x.reshape(x.shape[0] * x.shape[1], *x.shape[2:])
    return ops.reshape(x, (-1, *x.shape[2:]))
