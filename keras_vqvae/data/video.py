"""Episodes of video with actions, and windows of them to train on.

An `Episode` is what was seen without a break: frames, and what was done in each. `windows` cuts
them into examples for `VideoPredictor.fit`, none of which crosses the end of an episode:

```python
episodes = video.episodes_of(record())                 # or read_folder, read_records, read_tfds
train = video.windows(video.encode(vqvae, episodes), 16, batch_size=8, seed=0, repeat=True)
predictor.fit(train, steps_per_epoch=500, epochs=20)   # {"codes", "actions"}
```

`encode` is for speed: codes are made once, and training does not see the frames again.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import pathlib
import warnings
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_vqvae.data import video_files
from keras_vqvae.data.cache import check_free
from keras_vqvae.data.codes import fingerprint
from keras_vqvae.data.files import find_files
from keras_vqvae.data.images import tfds_builder
from keras_vqvae.data.order import Order, is_integer
from keras_vqvae.data.records import from_records
from keras_vqvae.data.vizdoom_recorder import Recording
from keras_vqvae.paths import local_path, shown

_BATCH = 64


@dataclasses.dataclass(frozen=True)
class Episode:
    """What was seen without a break, and what was done.

    Attributes:
        frames: uint8 `(n, height, width, channels)`, or integer codes `(n, height, width)`.
            Codes of a `VideoVQVAE` stand for several frames: there are as many actions to each.
        actions: what was done in each frame and led to the next: `(n,)` integers, `(n, buttons)`
            integers, `(n, any)` floats; None where nothing is known. The last one counts for
            nothing.
        name: where it is from, for messages.

    Raises:
        ValueError: the arrays do not fit, or actions hold NaN.
    """

    frames: np.ndarray
    actions: np.ndarray | None = None
    name: str = ""

    def __post_init__(self) -> None:
        frames, actions, name = self.frames, self.actions, self.name or "an episode"
        for what, array in (("frames", frames), ("actions", actions)):
            if array is not None and not isinstance(array, np.ndarray):
                raise ValueError(f"{name}: {what} must be an array, got a {type(array).__name__}.")
        if frames.ndim == 3 and frames.dtype == np.uint8:
            raise ValueError(
                f"{name}: frames have no channels, shape {frames.shape}: of grey ones "
                "frames[..., None] has one. (Codes would be int32 or uint16.)"
            )
        if len(frames) == 0:
            raise ValueError(f"{name}: there is no frame.")
        is_video = frames.ndim == 4 and frames.dtype == np.uint8
        is_codes = frames.ndim == 3 and frames.dtype.kind in "iu"
        if not is_video and not is_codes:
            raise ValueError(
                f"{name}: frames must be uint8 (n, height, width, channels), or integer codes "
                f"(n, height, width), got {frames.dtype} of shape {frames.shape}."
            )
        if actions is None:
            return
        each = len(actions) / len(frames) if actions.ndim in (1, 2) else 0.0
        if each != 1 and not (is_codes and each > 1 and each % 1 == 0):
            raise ValueError(
                f"{name}: actions must be one for each of the {len(frames)} frames, got shape "
                f"{actions.shape}."
            )
        if actions.dtype.kind not in "iufb" or (actions.ndim == 1 and actions.dtype.kind == "f"):
            raise ValueError(
                f"{name}: actions must be integers (n,), integers or floats (n, any), got "
                f"{actions.dtype} of shape {actions.shape}."
            )
        if actions.dtype.kind == "f" and not np.isfinite(actions).all():
            raise ValueError(f"{name}: actions must be finite, got NaN or infinity.")

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def actions_each(self) -> int:
        """Actions to a frame, 1, or to a code, which may stand for several."""
        return 1 if self.actions is None else len(self.actions) // len(self.frames)


def windows(
    episodes: Sequence[Episode],
    length: int,
    batch_size: int = 32,
    *,
    every: int = 1,
    seed: int | None = None,
    repeat: bool = False,
    shard: tuple[int, int] | None = None,
) -> tf.data.Dataset:
    """Batches of windows of `length` consecutive frames of one episode.

    Args:
        episodes: all of frames, or all of codes, of one size, and all with actions or none; or a
            `Recording`.
        length: frames (or codes) in a window: the context of a `VideoPredictor`, and those to be
            predicted.
        batch_size: windows in a batch.
        every: frames (or codes) from one window's beginning to the next one's.
        seed: None for the order given, an integer to reshuffle for each epoch.
        repeat: whether to go on without end; batches then run across the borders of epochs.
        shard: `(index, count)` for this worker's part of every batch, or None for all of it.

    Returns:
        A dataset of dicts: `frames`, uint8 `(batch, length, height, width, channels)`, or `codes`,
        int32 `(batch, length, height, width)`; and, where there are any, `actions`, int32 or
        float32, one for each frame, `(batch, frames, ...)`. With a seed it has `start_at`, as
        described in `keras_vqvae.data.images`.

    Raises:
        ValueError: episodes differ in size or kind, none is long enough, or an argument is out of
            range. Episodes that are shorter than a window are left out, with a warning that counts
            them.
    """
    for name, value in (("length", length), ("every", every)):
        if not is_integer(value, 1):
            raise ValueError(f"`{name}` must be a positive integer, got {value!r}.")
    episodes = _listed(episodes)
    _check_alike(episodes)
    lengths = np.array([len(episode) for episode in episodes])
    short = int(np.sum(lengths < length))
    if short == len(episodes):
        raise ValueError(
            f"`episodes`: all {short} are shorter than a window of {length} frames; the longest "
            f"has {lengths.max()}."
        )
    if short:
        warnings.warn(
            f"{short} of {len(episodes)} episodes are shorter than a window of {length} frames, "
            "and are left out",
            stacklevel=2,
        )
    first = np.cumsum(lengths) - lengths
    starts = np.concatenate(
        [
            np.arange(begin, begin + n - length + 1, every)
            for begin, n in zip(first, lengths, strict=True)
        ]
    )
    is_codes = episodes[0].frames.ndim == 3
    parts = {"codes" if is_codes else "frames": np.concatenate([e.frames for e in episodes])}
    if episodes[0].actions is not None:
        actions = np.concatenate([e.actions for e in episodes])
        if actions.dtype.kind in "iu":
            _check_32_bits("`episodes`: actions", actions)
        parts["actions"] = actions.astype("float32" if actions.dtype.kind == "f" else "int32")
    each = {"actions": episodes[0].actions_each}
    # The data stays in host memory however large it is; windows are cut out of it.
    with tf.device("CPU"):
        whole = {name: tf.convert_to_tensor(_small(array)) for name, array in parts.items()}

    def cut(start: tf.Tensor) -> dict:
        window = {}
        for name, tensor in whole.items():
            n = each.get(name, 1)
            part = tensor[start * n : (start + length) * n]
            part = tf.ensure_shape(part, (length * n, *tensor.shape[1:]))
            window[name] = tf.cast(part, tf.int32) if name == "codes" else part
        return window

    order = Order(len(starts), batch_size, seed, repeat, shard)
    rows = order.elements(tf.data.Dataset.from_tensor_slices(starts))
    return order.finish(rows.map(cut, tf.data.AUTOTUNE).batch(batch_size))


def skip(episodes: Sequence[Episode], every: int) -> list[Episode]:
    """Every so many-th frame, of video whose frames differ too little from one to the next.

    What was done in the frames between led to the next one that is kept, and counts: of buttons
    (bool, or `(n, buttons)` of 0 and 1 in all episodes) what was down in any of them, of other
    vectors their mean, a float, and of numbers what was done most often (of several, the first).

    Args:
        episodes: of frames; or a `Recording`.
        every: 2 keeps frames 0, 2, 4, ...

    Raises:
        ValueError: `every` is no positive integer, or episodes are of codes.
    """
    if not is_integer(every, 1):
        raise ValueError(f"`every` must be a positive integer, got {every!r}.")
    kept = []
    for episode in _of_one_kind(_listed(episodes)):
        if episode.frames.ndim == 3:
            raise ValueError("`episodes` are of codes, which are made of what was kept.")
        actions = episode.actions
        if actions is not None:
            cuts = range(0, len(actions), every)
            actions = np.stack([_together(actions[i : i + every]) for i in cuts])
        kept.append(dataclasses.replace(episode, frames=episode.frames[::every], actions=actions))
    return kept


def _together(actions: np.ndarray) -> np.ndarray:
    """What was done in several frames, as one action."""
    if actions.dtype.kind == "f":
        return actions.mean(0).astype(actions.dtype)
    if actions.ndim == 2 or actions.dtype.kind == "b":
        return actions.max(0)
    values, first, counts = np.unique(actions, return_index=True, return_counts=True)
    most = np.flatnonzero(counts == counts.max())
    return values[most[first[most].argmin()]]


def _small(array: np.ndarray) -> np.ndarray:
    """Codes in as few bytes as hold them."""
    if array.ndim != 3 or array.dtype.kind not in "iu" or not array.size:
        return array
    if array.min() < 0:
        raise ValueError(f"`episodes`: codes must not be negative, got {array.min()}.")
    _check_32_bits("`episodes`: codes", array)
    return array.astype("uint16" if array.max() < 65536 else "int32")


def _check_32_bits(what: str, array: np.ndarray) -> None:
    low, high = (int(array.min()), int(array.max())) if array.size else (0, 0)
    if low < -(2**31) or high >= 2**31:
        raise ValueError(f"{what} must be of 32 bits, got values from {low} to {high}.")


def _listed(episodes: Any) -> list[Episode]:
    if isinstance(episodes, Recording):
        return episodes_of(episodes)
    listed = list(episodes) if isinstance(episodes, (list, tuple)) else [episodes]
    wrong = [each for each in listed if not isinstance(each, Episode)]
    if wrong or not isinstance(episodes, (list, tuple)):
        got = type(wrong[0] if wrong else episodes).__name__
        raise ValueError(f"`episodes` must be a list of Episode, or a Recording, got {got}.")
    return listed


def _check_alike(episodes: list[Episode]) -> None:
    if not episodes:
        raise ValueError("`episodes` must not be empty.")

    def kind(episode: Episode) -> tuple:
        actions = episode.actions
        of_actions = None if actions is None else (actions.dtype.kind == "f", actions.shape[1:])
        return episode.frames.shape[1:], of_actions, episode.actions_each

    for number, episode in enumerate(episodes):
        if kind(episode) != kind(episodes[0]):
            raise ValueError(
                f"`episodes`: {episode.name or f'number {number}'} has frames of "
                f"{episode.frames.shape[1:]} and actions {_of(episode)}, but "
                f"{episodes[0].name or 'the first'} has {episodes[0].frames.shape[1:]} and "
                f"{_of(episodes[0])}."
            )


def _of(episode: Episode) -> str:
    if episode.actions is None:
        return "none"
    each = f", {episode.actions_each} a code" if episode.actions_each > 1 else ""
    return f"{episode.actions.dtype} {episode.actions.shape[1:]}{each}"


def episodes_of(recording: Recording, *, buttons: bool = False) -> list[Episode]:
    """The episodes of a recording of ViZDoom, views of its arrays.

    Args:
        recording: what `record` gave.
        buttons: actions as what is held down at once, int32 0 or 1 `(n, len(button_names))`, in
            the order of `recording.button_names`, not as numbers of combinations.
    """
    actions = recording.buttons if buttons else recording.actions
    return [
        Episode(
            recording.frames[start:end],
            actions[start:end],
            f"{recording.maps[recording.map_ids[start]]}, frame {start}",
        )
        for start, end in _pieces(recording.episode_starts)
    ]


def _pieces(episode_starts: np.ndarray) -> list[tuple[int, int]]:
    """First frame of each episode, and that after its last."""
    begins = [0, *(1 + np.flatnonzero(episode_starts[1:]))][: len(episode_starts)]
    return list(zip(begins, [*begins[1:], len(episode_starts)], strict=True))


def encode(
    vqvae: Any,
    episodes: Sequence[Episode],
    path: str | os.PathLike | None = None,
    *,
    verbose: int = 1,
) -> list[Episode]:
    """The episodes with codes for frames.

    Args:
        vqvae: a built `VQVAE` of frames of their size, or a `VideoVQVAE`. Of the latter each
            episode is coded as a whole, and loses the frames at its end that make no whole code.
        episodes: of frames; or a `Recording`.
        path: a file to keep the codes in, and to take them from if it is there and is of the same
            weights and frames; else it is written anew.
        verbose: 1 to show progress, 0 not to.

    Raises:
        ValueError: `vqvae` is none, the frames are none of its, or the file holds something else
            than codes, and is left as it is.
    """
    file = local_path(path) if path is not None else None
    episodes = _listed(episodes)
    _check_alike(episodes)
    if not hasattr(vqvae, "quantizer") or not hasattr(vqvae, "image_shape"):
        hint = ": give its vqvae" if hasattr(vqvae, "vqvae") else ""
        raise ValueError(f"`vqvae` must be a VQVAE, got {type(vqvae).__name__}{hint}.")
    shape = episodes[0].frames.shape[1:]
    if len(shape) != 3:
        raise ValueError("`episodes` are of codes already.")
    wanted = tuple(vqvae.image_shape or ())
    if any(want not in (None, got) for want, got in zip(wanted, shape, strict=False)):
        raise ValueError(f"`episodes` have frames of {shape}, `vqvae` takes {vqvae.image_shape}.")
    each = getattr(vqvae, "frames_per_code", 1)
    short = [episode for episode in episodes if len(episode) < each]
    if short:
        warnings.warn(
            f"{len(short)} of {len(episodes)} episodes are shorter than the {each} frames of a "
            f"code and are left out, such as {short[0].name or 'one'} of {len(short[0])}",
            stacklevel=2,
        )
    episodes = [_whole_codes(episode, each) for episode in episodes if len(episode) >= each]
    if not episodes:
        raise ValueError("there are no episodes to encode.")
    total = sum(map(len, episodes))
    of_what = fingerprint(vqvae, total, [str(len(episodes)), _checksum(episodes)])
    codes = _kept(file, of_what) if file is not None else None
    if codes is None:
        codes = _encoded(vqvae, episodes, total, each, verbose)
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            unfinished = file.with_name(f".{file.name}.{os.getpid()}.unfinished.npz")
            try:
                np.savez(unfinished, codes=codes, fingerprint=of_what)
                unfinished.replace(file)
            finally:
                unfinished.unlink(missing_ok=True)
    ends = np.cumsum([len(episode) // each for episode in episodes])[:-1]
    return [
        dataclasses.replace(episode, frames=part)
        for episode, part in zip(episodes, np.split(codes, ends), strict=True)
    ]


def _checksum(episodes: list[Episode]) -> str:
    sum_of_all = 0
    for episode in episodes:
        sum_of_all = zlib.crc32(str(episode.frames.shape).encode(), sum_of_all)
        sum_of_all = zlib.crc32(np.ascontiguousarray(episode.frames).data, sum_of_all)
    return f"{sum_of_all:08x}"


def _whole_codes(episode: Episode, each: int) -> Episode:
    n = len(episode) // each * each
    actions = None if episode.actions is None else episode.actions[:n]
    return dataclasses.replace(episode, frames=episode.frames[:n], actions=actions)


def _encoded(
    vqvae: Any, episodes: list[Episode], total: int, each: int, verbose: int
) -> np.ndarray:
    bar = keras.utils.Progbar(total, unit_name="frame", verbose=verbose)
    made = _codes_of_video if len(vqvae.grid_shape) == 3 else _codes_of_frames
    parts = []
    for codes, frames in made(vqvae, episodes, each):
        parts.append(_small(codes))
        bar.add(frames)
    return np.concatenate(parts)


def _codes_of_frames(
    vqvae: Any, episodes: list[Episode], _: int
) -> Iterator[tuple[np.ndarray, int]]:
    """Codes, and of how many frames, in batches across episodes, which may be short."""
    frames = itertools.chain.from_iterable(episode.frames for episode in episodes)
    while batch := list(itertools.islice(frames, _BATCH)):
        # The end is filled up: another size would be compiled anew.
        filled = np.stack(batch + batch[-1:] * (_BATCH - len(batch)))
        codes = keras.ops.convert_to_numpy(vqvae.encode(filled, batch_size=_BATCH))
        yield codes[: len(batch)], len(batch)


def _codes_of_video(
    vqvae: Any, episodes: list[Episode], each: int
) -> Iterator[tuple[np.ndarray, int]]:
    """Codes, and of how many frames, each part with what its first codes see of those before."""
    before = vqvae.encoder.context[0] * each
    size = -(-_BATCH // each) * each
    for episode in episodes:
        for start in range(0, len(episode), size):
            begin = max(0, start - before)
            frames = episode.frames[begin : start + size]
            missing = size + start - begin - len(frames)
            padded = np.concatenate([frames, np.repeat(frames[-1:], missing, 0)])
            codes = keras.ops.convert_to_numpy(vqvae.encode(padded[None], batch_size=1)[0])
            own = codes[(start - begin) // each : len(frames) // each]
            yield own, len(frames) + begin - start


def _kept(file: pathlib.Path, of_what: str) -> np.ndarray | None:
    check_free(file, "codes of `encode`")
    if not file.exists():
        return None
    try:
        with np.load(file, allow_pickle=False) as arrays:
            if "fingerprint" in arrays.files:
                return arrays["codes"] if str(arrays["fingerprint"]) == of_what else None
            names = arrays.files
    except Exception as error:  # whatever a damaged file may raise: it is made again
        warnings.warn(
            f"the codes in {file} cannot be read and are made again: {error}", stacklevel=3
        )
        return None
    raise ValueError(f"path: {file} holds {names}, and no codes of `encode`: name another file.")


# Episodes from files.


def read_folder(
    folder: str | os.PathLike,
    image_size: tuple[int, int] | None = None,
    *,
    skip_corrupt: bool = False,
) -> list[Episode]:
    """The episodes in a folder and all folders below it, one a file, sorted by path.

    - `.npz` files with arrays `frames` and, if there are any, `actions`, as `Episode` has them;
      with `episode_starts` too, bool `(n,)`, such as `record(path=...)` writes, an episode begins
      at each of these;
    - videos (MP4, MOV, AVI, MKV, WebM), with the actions in a CSV file of the same name: a heading,
      and a line for each frame, of one integer, or several numbers. Videos need
      `pip install ".[video]"` in a checkout.

    Hidden files and folders are left out; a warning counts files of other kinds by their ending.

    Args:
        folder: where the files are.
        image_size: (height, width) that videos are scaled to, not `.npz` files; None for their
            own.
        skip_corrupt: whether to leave out files that cannot be read or were cut off, with a
            warning that counts them.

    Raises:
        ValueError: there are none, or one cannot be read, was cut off or is no such episode, and
            not `skip_corrupt`. The message names the file.
    """
    if image_size is not None:
        sides = image_size if isinstance(image_size, (tuple, list)) else ()
        if len(sides) != 2 or not all(is_integer(side, 1) for side in sides):
            raise ValueError(f"`image_size` must be (height, width), got {image_size!r}.")
    folder = local_path(folder, "folder")
    found: list[Episode] = []
    problems = []
    for file in find_files(folder, (".npz", *video_files.SUFFIXES), "episode", (".csv",)):
        try:
            is_npz = file.suffix.lower() == ".npz"
            found += _read_npz(file) if is_npz else [_read_video(file, image_size)]
        except ValueError as error:
            if not skip_corrupt:
                raise
            problems.append(str(error))
    if problems:
        listed = " ".join(problems[:3])
        warnings.warn(
            f"{len(problems)} files in {shown(folder)} are left out: {listed}", stacklevel=2
        )
    if not found:
        raise ValueError(f"`folder` {shown(folder)} holds no episode that can be read.")
    return _of_one_kind(found)


def _of_one_kind(episodes: list[Episode]) -> list[Episode]:
    """With vectors as floats in all, where they are none of buttons: some happen to be whole."""
    given = [e.actions for e in episodes if e.actions is not None]
    floats = [actions for actions in given if actions.dtype.kind == "f"]
    whole = [actions for actions in given if actions.ndim == 2 and actions.dtype.kind in "iu"]
    if not floats and not any(((actions < 0) | (actions > 1)).any() for actions in whole):
        return episodes

    def vectors(actions: np.ndarray | None) -> np.ndarray | None:
        if actions is not None and actions.ndim == 1 and any(x.shape[1] == 1 for x in floats):
            actions = actions[:, None]  # a table of whole numbers lacks the axis
        if actions is None or actions.ndim == 1:
            return actions
        return actions.astype("float32")

    return [dataclasses.replace(e, actions=vectors(e.actions)) for e in episodes]


def _read_npz(file: pathlib.Path) -> list[Episode]:
    where = shown(file)
    try:
        with np.load(file, allow_pickle=False) as arrays:
            names = set(arrays.files)
            frames = arrays["frames"]
            actions = arrays["actions"] if "actions" in names else None
            starts = arrays["episode_starts"] if "episode_starts" in names else None
    except KeyError as error:
        raise ValueError(f"{where} has no array `frames`, but {sorted(names)}.") from error
    except Exception as error:  # whatever a damaged file may raise
        raise ValueError(f"{where} cannot be read: {error}") from error
    whole = Episode(frames, actions, where)  # checks them
    if starts is None:
        return [whole]
    if starts.shape != (len(frames),) or starts.dtype != bool:
        raise ValueError(
            f"{where}: episode_starts must be bool, one for each of the {len(frames)} frames, got "
            f"{starts.dtype} of shape {starts.shape}."
        )
    return [
        Episode(frames[a:b], None if actions is None else actions[a:b], f"{where}, frame {a}")
        for a, b in _pieces(starts)
    ]


def _read_video(file: pathlib.Path, image_size: tuple[int, int] | None) -> Episode:
    frames = video_files.read_frames(file, image_size)
    tables = (file.with_suffix(suffix) for suffix in (".csv", ".CSV"))
    beside = next((table for table in tables if table.exists()), None)
    actions = None if beside is None else video_files.read_actions(beside)
    return Episode(frames, actions, shown(file))


def read_records(folder: str | os.PathLike) -> list[Episode]:
    """The episodes that `write_records` wrote: examples `{"frames", "actions"}` or `{"frames"}`.

    Raises:
        ValueError: as `from_records`, or the examples are no episodes.
    """
    examples = from_records(folder, batch_size=None)
    if not isinstance(examples.element_spec, dict) or "frames" not in examples.element_spec:
        raise ValueError(f"the examples in {folder} are no episodes: they have no `frames`.")
    return [
        Episode(example["frames"], example.get("actions"), f"{folder}, example {number}")
        for number, example in enumerate(examples.as_numpy_iterator())
    ]


def read_tfds(
    name: str,
    split: str,
    *,
    image: str = "image",
    action: str | None = "action",
    data_dir: str | os.PathLike | None = None,
) -> list[Episode]:
    """The episodes of one of the TensorFlow Datasets in the format RLDS.

    There an example is an episode with `steps`, each with an `observation`, a dict or a picture,
    and an `action`.

    Args:
        name: as TensorFlow Datasets has it.
        split: for example `"train[:100]"`.
        image: the picture's name in the observation.
        action: the action's name in a step; of one that is a dict with the name inside,
            `"action/world_vector"`; None to leave it out.
        data_dir: where the data sets are kept.

    Raises:
        ImportError: TensorFlow Datasets is not installed.
        ValueError: there is no such data set, it is not of that format, or its arrays are no
            episodes.
    """
    builder = tfds_builder(name, data_dir)
    builder.download_and_prepare()
    examples = builder.as_dataset(split=split)
    if "steps" not in examples.element_spec:
        raise ValueError(f"{name} is not in the format RLDS: its examples have no `steps`.")
    found = []
    for number, example in enumerate(examples):
        steps = list(example["steps"].as_numpy_iterator())
        if not steps:
            continue
        observations = [step["observation"] for step in steps]
        if isinstance(observations[0], dict) and image not in observations[0]:
            raise ValueError(
                f"image: observations of {name} have no {image!r}, but {sorted(observations[0])}."
            )
        frames = np.stack([o[image] if isinstance(o, dict) else o for o in observations])
        actions = None
        if action is not None:
            actions = np.stack([_inside(step, action, name) for step in steps])
            if actions.dtype.kind == "f":
                actions = actions.astype("float32").reshape(len(actions), -1)
        found.append(Episode(frames, actions, f"{name}, episode {number}"))
    return found


def _inside(step: dict, path: str, name: str) -> np.ndarray:
    """What a step of the data set `name` has under keys that slashes join."""
    found: Any = step
    for key in path.split("/"):
        if not isinstance(found, dict) or key not in found:
            names = sorted(found) if isinstance(found, dict) else "an array"
            raise ValueError(f"action: steps of {name} have no {path!r}: at {key!r} is {names}.")
        found = found[key]
    if isinstance(found, dict):
        raise ValueError(
            f"action: {path!r} in steps of {name} is a dict of {sorted(found)}: name one of them, "
            f"{path + '/' + sorted(found)[0]!r}."
        )
    return np.asarray(found)
