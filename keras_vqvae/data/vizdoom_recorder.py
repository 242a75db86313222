"""First-person video with actions, recorded from ViZDoom without a display.

A random walker goes through a map and turns where it runs into a wall. Weapon, status bar,
messages and monsters are off, so a frame shows the map alone. ViZDoom and Pillow come with
`pip install ".[examples]"` in a checkout; a recording that is already cached needs neither.

Each map is recorded by a child process that runs *this file by its path*: ViZDoom writes
`_vizdoom.ini` into its working folder, and the child can have a temporary one without moving the
caller; a crash of the engine does not take the caller with it; and nothing but NumPy is imported
at the top of this file, so that a child starts in a fraction of a second, without TensorFlow.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
import warnings
import zipfile
import zlib
from collections.abc import Sequence

import numpy as np

TRAINING_MAPS = (
    "my_way_home",
    "health_gathering",
    "freedoom1:E1M1",
    "freedoom1:E1M2",
    "freedoom2:map01",
)
HELD_OUT_MAPS = ("freedoom2:map02", "health_gathering_supreme")
# Freedoom's two games, whole.
FREEDOOM_MAPS = (
    *(f"freedoom1:E{episode}M{number}" for episode in range(1, 5) for number in range(1, 10)),
    *(f"freedoom2:map{number:02}" for number in range(1, 33)),
)
KNOWN_MAPS = tuple(dict.fromkeys(TRAINING_MAPS + HELD_OUT_MAPS + FREEDOOM_MAPS))
ACTIONS = ("forward", "left", "right")
# All that can be done at once is joined by plus signs.
COMBINED_ACTIONS = ("forward", "left", "right", "forward+left", "forward+right")
# What they are made of, and the engine's names. No USE: it prints messages into the frame.
BUTTONS = {
    "forward": "MOVE_FORWARD",
    "left": "TURN_LEFT",
    "right": "TURN_RIGHT",
    "backward": "MOVE_BACKWARD",
    "step left": "MOVE_LEFT",
    "step right": "MOVE_RIGHT",
}

# Part of what a cached file must match: raise it when the walk or the rendering changes.
FORMAT = 1

_MAX_CHILDREN = 2
_EPISODE_TICS = 2100
_SCREEN_HEIGHTS = (120, 240, 480)


@dataclasses.dataclass(frozen=True)
class Recording:
    """Frames, the actions taken in them, and where episodes and maps begin.

    `frames[t]` is what is seen *before* `actions[t]` is taken; `frames[t + 1]` is what that action
    led to, unless `episode_starts[t + 1]`. Frames of a map are consecutive and begin with a new
    episode, so no clip that stays within an episode crosses from one map into another.

    Attributes:
        frames: uint8 `(n, size, size, 3)`.
        actions: int32 `(n,)`, indices into `action_names`.
        episode_starts: bool `(n,)`, True where a frame is the first of an episode.
        map_ids: int32 `(n,)`, indices into `maps`.
        maps: the names of the maps.
        action_names: what the actions are.

    Raises:
        ValueError: an array has another shape or dtype than stated here.
    """

    frames: np.ndarray
    actions: np.ndarray
    episode_starts: np.ndarray
    map_ids: np.ndarray
    maps: tuple[str, ...]
    action_names: tuple[str, ...] = ACTIONS

    def __post_init__(self) -> None:
        n, *image = self.frames.shape
        if self.frames.dtype != np.uint8 or len(image) != 3 or image[2] != 3:
            raise ValueError(
                "`frames` must be uint8 of shape (n, size, size, 3), "
                f"got {self.frames.dtype} of shape {self.frames.shape}."
            )
        for name, dtype in (("actions", np.int32), ("episode_starts", bool), ("map_ids", np.int32)):
            array = getattr(self, name)
            if array.shape != (n,) or array.dtype != dtype:
                raise ValueError(
                    f"`{name}` must be {np.dtype(dtype)} of shape ({n},), "
                    f"got {array.dtype} of shape {array.shape}."
                )

    @property
    def button_names(self) -> tuple[str, ...]:
        """What can be held down, alone or at once with others: what the actions are made of."""
        held = {button for action in self.action_names for button in action.split("+")}
        return tuple(button for button in BUTTONS if button in held)

    @property
    def buttons(self) -> np.ndarray:
        """The actions as what was held down: int32 0 or 1, `(n, len(button_names))`."""
        names = self.button_names
        table = [[name in action.split("+") for name in names] for action in self.action_names]
        return np.array(table, np.int32)[self.actions]

    def of(self, maps: str | Sequence[str]) -> Recording:
        """The part of the recording made in `maps`, in the order in which they are named.

        Args:
            maps: one name or several, each in `self.maps`.

        Returns:
            A `Recording` whose `maps` are the given ones and whose `map_ids` index them.

        Raises:
            ValueError: a name is not in `self.maps`, or none is given.
        """
        chosen = _as_names(maps)
        _check_names(chosen, self.maps)
        rows = [np.flatnonzero(self.map_ids == self.maps.index(name)) for name in chosen]
        order = np.concatenate(rows)
        return Recording(
            frames=self.frames[order],
            actions=self.actions[order],
            episode_starts=self.episode_starts[order],
            map_ids=np.repeat(np.arange(len(chosen), dtype=np.int32), [len(r) for r in rows]),
            maps=chosen,
            action_names=self.action_names,
        )


def record(
    maps: str | Sequence[str] = TRAINING_MAPS,
    frames_per_map: int = 5000,
    image_size: int = 64,
    seed: int = 0,
    path: str | os.PathLike | None = None,
    frame_skip: int = 4,
    progress: bool = True,
    actions: Sequence[str] = ACTIONS,
) -> Recording:
    """Records a random walk through each map, or loads the recording made earlier.

    The same arguments give the same recording, and what is recorded in one map does not depend on
    the other maps. The result is kept as one file. An interrupted recording goes on with the first
    map that it had not finished: finished maps lie beside the file as parts until it is written. A
    file or part that is corrupt or was made with other arguments is recorded again, with a warning.

    Args:
        maps: one or several of `KNOWN_MAPS`.
        frames_per_map: frames to record in each map.
        image_size: height and width of a frame, from 8 to 480. The 4:3 screen is squeezed into
            the square, so the whole field of view is kept.
        seed: from 0 to 2**32 - 1.
        path: the file to keep the recording in; by default one in `cache_dir()` whose name is
            made from the arguments.
        frame_skip: how many tics (1/35 s) each action is held; one frame is kept of them.
        progress: whether to show a progress bar.
        actions: what the walker may do, each a name in `BUTTONS` or several joined by `+`, such as
            those of `COMBINED_ACTIONS`. Without one that only turns it stays where it runs into.

    Returns:
        A `Recording` of `len(maps) * frames_per_map` frames.

    Raises:
        ValueError: an unknown map or action, a number out of range, or a file at `path` that is no
            recording, which is left as it is.
        ImportError: something must be recorded and ViZDoom or Pillow is not installed.
        RuntimeError: ViZDoom failed; what it said is in the message. Finished maps are kept.
    """
    from keras_vqvae.paths import local_path  # a child runs this file outside the package

    if isinstance(actions, str) or not all(isinstance(action, str) for action in actions):
        raise ValueError(f"`actions` must be names such as {list(ACTIONS)}, got {actions!r}.")
    request = _Request(
        _as_names(maps), frames_per_map, image_size, seed, frame_skip, tuple(actions)
    )
    file = (local_path(path) if path is not None else _default_file(request)).absolute()
    cached = _load_or_warn(file, request)
    if cached is not None:
        return cached
    file.parent.mkdir(parents=True, exist_ok=True)
    parts = {name: _part_file(file, name) for name in request.maps}
    jobs = [
        _Job(request.of(name), part)
        for name, part in parts.items()
        if _load_or_warn(part, request.of(name)) is None
    ]
    _run(jobs, progress)
    try:
        recording = _join([_load(part, request.of(name)) for name, part in parts.items()])
    except FileNotFoundError:  # another process recorded the same, and was quicker
        recording = _load(file, request)
    else:
        _save(file, recording, request)
    for part in parts.values():
        part.unlink(missing_ok=True)
    return recording


# What is asked for, and the files that answer it.


@dataclasses.dataclass(frozen=True)
class _Request:
    """Everything that a recording depends on; stored in its file and compared on loading."""

    maps: tuple[str, ...]
    frames_per_map: int
    image_size: int
    seed: int
    frame_skip: int
    actions: tuple[str, ...]
    format: int = FORMAT

    def __post_init__(self) -> None:
        _check_names(self.maps, KNOWN_MAPS)
        unknown = [a for a in self.actions if not set(a.split("+")) <= set(BUTTONS)]
        chords = {frozenset(action.split("+")) for action in self.actions}
        if unknown or not self.actions or len(chords) != len(self.actions):
            raise ValueError(
                f"`actions` must be different ones, each of {list(BUTTONS)} or several joined by "
                f"+, got {list(self.actions)}."
            )
        for name, low, high in (
            ("frames_per_map", 1, 2**31 - 1),
            ("image_size", 8, _SCREEN_HEIGHTS[-1]),
            ("seed", 0, 2**32 - 1),
            ("frame_skip", 1, 35),
        ):
            value = getattr(self, name)
            is_int = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
            if not is_int or not low <= value <= high:
                raise ValueError(
                    f"`{name}` must be an integer from {low} to {high}, got {value!r}."
                )
            object.__setattr__(self, name, int(value))

    def of(self, map_name: str) -> _Request:
        return dataclasses.replace(self, maps=(map_name,))

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> _Request:
        fields = json.loads(text)
        names = {name: tuple(fields[name]) for name in ("maps", "actions")}
        return cls(**{**fields, **names})


@dataclasses.dataclass(frozen=True)
class _Job:
    request: _Request  # of one map
    part: pathlib.Path


def _as_names(maps: str | Sequence[str]) -> tuple[str, ...]:
    return (maps,) if isinstance(maps, str) else tuple(maps)


def _check_names(names: tuple[str, ...], known: tuple[str, ...]) -> None:
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"`maps` has unknown {unknown}; known are {list(known)}.")
    if not names or len(set(names)) != len(names):
        raise ValueError(
            f"`maps` must name one or more different maps of {list(known)}, got {list(names)}."
        )


def _default_file(request: _Request) -> pathlib.Path:
    # Imported here: a child runs this file outside the package.
    from keras_vqvae.data.cache import cache_dir

    digest = hashlib.sha256(request.to_json().encode()).hexdigest()[:10]
    size = f"{len(request.maps)}x{request.frames_per_map}x{request.image_size}px"
    return cache_dir() / f"vizdoom-{size}-seed{request.seed}-{digest}.npz"


def _part_file(file: pathlib.Path, map_name: str) -> pathlib.Path:
    return file.with_name(f"{file.name}.part-{map_name.replace(':', '-')}.npz")


def _save(file: pathlib.Path, recording: Recording, request: _Request) -> None:
    """Writes under another name first: a file with the final name is always a whole one."""
    temporary = file.with_name(f"{file.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as stream:
            np.savez(
                stream,
                request=np.array(request.to_json()),
                frames=recording.frames,
                actions=recording.actions,
                episode_starts=recording.episode_starts,
                map_ids=recording.map_ids,
            )
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)


class _SomebodyElsesError(ValueError):
    """A whole file that `record` did not write: it is not overwritten."""


def _load(file: pathlib.Path, request: _Request) -> Recording:
    """Reads a file that must hold just `request`; flipped bytes are found by the zip's CRCs."""
    with np.load(file, allow_pickle=False) as arrays:
        if "request" not in arrays.files:
            raise _SomebodyElsesError(
                f"`path` {file} holds {arrays.files}, and no recording: name another file."
            )
        found = str(arrays["request"])
        if found != request.to_json():
            raise ValueError(f"it holds {found}, expected {request.to_json()}")
        recording = Recording(
            frames=arrays["frames"],
            actions=arrays["actions"],
            episode_starts=arrays["episode_starts"],
            map_ids=arrays["map_ids"],
            maps=request.maps,
            action_names=request.actions,
        )
    expected = len(request.maps) * request.frames_per_map
    if len(recording.frames) != expected:
        raise ValueError(f"it holds {len(recording.frames)} frames, expected {expected}")
    return recording


def _load_or_warn(file: pathlib.Path, request: _Request) -> Recording | None:
    from keras_vqvae.data.cache import check_free  # a child runs this file outside the package

    check_free(file, "a recording")
    if not file.exists():
        return None
    try:
        return _load(file, request)
    except _SomebodyElsesError:
        raise
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        # The caller of `record` is three frames up.
        warnings.warn(
            f"The recording {file} cannot be used and is made again: {error}", stacklevel=3
        )
        return None


def _join(recordings: list[Recording]) -> Recording:
    lengths = [len(r.frames) for r in recordings]
    return Recording(
        frames=np.concatenate([r.frames for r in recordings]),
        actions=np.concatenate([r.actions for r in recordings]),
        episode_starts=np.concatenate([r.episode_starts for r in recordings]),
        map_ids=np.repeat(np.arange(len(recordings), dtype=np.int32), lengths),
        maps=tuple(r.maps[0] for r in recordings),
        action_names=recordings[0].action_names,
    )


# The parent: at most two children at a time, each in a folder of its own.


@dataclasses.dataclass
class _Child:
    job: _Job
    folder: tempfile.TemporaryDirectory
    process: subprocess.Popen

    def frames_done(self) -> int:
        try:
            return int(pathlib.Path(self.folder.name, "progress").read_text())
        except (OSError, ValueError):  # not there yet, or just being rewritten
            return 0

    def error_text(self) -> str:
        log = pathlib.Path(self.folder.name, "log")
        return log.read_text(errors="replace").strip()[-2000:] or "it said nothing"

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.folder.cleanup()


def _start(job: _Job) -> _Child:
    # On Windows an engine that is just ending may still hold its folder for a moment.
    folder = tempfile.TemporaryDirectory(prefix="vizdoom-", ignore_cleanup_errors=True)
    command = [
        sys.executable,
        str(pathlib.Path(__file__).absolute()),
        job.request.to_json(),
        str(job.part),
    ]
    with open(os.path.join(folder.name, "log"), "wb") as log:
        process = subprocess.Popen(
            command, cwd=folder.name, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    return _Child(job, folder, process)


def _run(jobs: list[_Job], progress: bool) -> None:
    if not jobs:
        return
    _require_extras()
    report = _progress_bar(jobs) if progress else lambda done: None
    waiting, done = list(jobs), 0
    running: list[_Child] = []
    try:
        while waiting or running:
            while waiting and len(running) < _MAX_CHILDREN:
                running.append(_start(waiting.pop(0)))
            time.sleep(0.05)
            for child in [c for c in running if c.process.poll() is not None]:
                if child.process.returncode != 0:
                    raise RuntimeError(
                        f"Recording the map {child.job.request.maps[0]} failed (exit status "
                        f"{child.process.returncode}): {child.error_text()}"
                    )
                child.stop()
                running.remove(child)
                done += child.job.request.frames_per_map
            report(done + sum(child.frames_done() for child in running))
    finally:
        for child in running:
            child.stop()


def _require_extras() -> None:
    missing = [name for name in ("vizdoom", "PIL") if importlib.util.find_spec(name) is None]
    if missing:
        from keras_vqvae.data.extras import how_to_install

        raise ImportError(f"Recording needs {' and '.join(missing)}: {how_to_install('examples')}")


def _progress_bar(jobs: list[_Job]):
    import keras

    total = sum(job.request.frames_per_map for job in jobs)
    bar = keras.utils.Progbar(total, unit_name="frame")
    last = [0]

    def report(done: int) -> None:
        # Progbar prints a line break each time it is told that all is done.
        if done > last[0]:
            last[0] = done
            bar.update(done)

    return report


# The child: everything below runs in a process of its own, in a temporary folder.


def _open_game(map_name: str, image_size: int, seed: int, buttons: Sequence[str]):
    import vizdoom as vzd

    game = vzd.DoomGame()
    config, _, level = map_name.partition(":")
    game.load_config(os.path.join(vzd.scenarios_path, f"{config}.cfg"))
    if level:
        game.set_doom_map(level)
    # The smallest screen that is not smaller than a frame; all have the aspect ratio 4:3.
    height = next(h for h in _SCREEN_HEIGHTS if h >= image_size)
    game.set_screen_resolution(getattr(vzd.ScreenResolution, f"RES_{height * 4 // 3}X{height}"))
    game.set_screen_format(vzd.ScreenFormat.RGB24)
    game.set_window_visible(False)
    game.set_sound_enabled(False)
    # freedoom*.cfg switch this on, and then OpenAL dies where there is no sound device.
    game.set_audio_buffer_enabled(False)
    for buffer in ("automap", "depth", "labels"):
        getattr(game, f"set_{buffer}_buffer_enabled")(False)
    for thing in ("hud", "weapon", "crosshair", "messages", "screen_flashes"):
        getattr(game, f"set_render_{thing}")(False)
    game.set_mode(vzd.Mode.PLAYER)
    game.set_seed(seed)
    game.set_episode_timeout(_EPISODE_TICS)
    game.set_doom_skill(1)
    game.add_game_args("-nomonsters")
    game.set_available_buttons([getattr(vzd.Button, BUTTONS[name]) for name in buttons])
    game.set_available_game_variables([vzd.GameVariable.POSITION_X, vzd.GameVariable.POSITION_Y])
    try:
        game.init()
    except BaseException:
        game.close()
        raise
    return game


def _resize(screen: np.ndarray, size: int) -> np.ndarray:
    from PIL import Image

    # A box filter averages over all the pixels that a smaller one covers: no aliasing.
    return np.asarray(Image.fromarray(screen).resize((size, size), Image.Resampling.BOX))


class _Walker:
    """Goes forward or turns for a few steps at random, and turns away from walls."""

    def __init__(
        self, rng: np.random.Generator, frame_skip: int, actions: Sequence[str] = ACTIONS
    ) -> None:
        self._rng = rng
        self._forward = [i for i, name in enumerate(actions) if "forward" in name.split("+")]
        self._others = [i for i in range(len(actions)) if i not in self._forward]
        turns = [i for i, name in enumerate(actions) if name in ("left", "right")]
        self._away = turns or self._others or self._forward
        # More than half of the time it goes forward, where it can do something else too.
        both = self._forward and self._others
        self._shares = np.zeros(len(actions))
        for group, share in ((self._forward, 0.6), (self._others, 0.4)):
            self._shares[group] = (share if both else 1.0) / max(1, len(group))
        # The first step from standing is already longer than one map unit a tic.
        self._least_way = 1.0 * frame_skip
        self.reset()

    def reset(self) -> None:
        self._action, self._steps_left = 0, 0
        self._position: np.ndarray | None = None
        self._way = 0.0

    def next_action(self, position: np.ndarray) -> int:
        if self._ran_into_wall(position):
            # Far enough, mostly, to look along the wall or away from it.
            self._choose(self._away[self._rng.integers(len(self._away))], fewest=4, most=9)
        elif self._steps_left == 0:
            chosen = int(self._rng.choice(len(self._shares), p=self._shares))
            self._choose(chosen, fewest=2, most=6)
        self._steps_left -= 1
        self._position = position
        return self._action

    def _ran_into_wall(self, position: np.ndarray) -> bool:
        if self._position is None or self._action not in self._forward:
            self._way = 0.0
            return False
        way, before = float(np.hypot(*(position - self._position))), self._way
        self._way = way
        # Speed builds up over a few steps; where it falls instead, something is in the way.
        return way < max(self._least_way, 0.6 * before)

    def _choose(self, action: int, fewest: int, most: int) -> None:
        self._action, self._steps_left = action, int(self._rng.integers(fewest, most + 1))


def _record_map(request: _Request) -> Recording:
    (map_name,) = request.maps
    # Seeded by the map's name too: what is recorded in it does not depend on the other maps.
    rng = np.random.default_rng([request.seed, zlib.crc32(map_name.encode())])
    n, size = request.frames_per_map, request.image_size
    frames = np.empty((n, size, size, 3), np.uint8)
    actions = np.empty(n, np.int32)
    episode_starts = np.zeros(n, bool)
    walker = _Walker(rng, request.frame_skip, request.actions)
    combinations = [name.split("+") for name in request.actions]
    buttons = [name for name in BUTTONS if any(name in held for held in combinations)]
    game = _open_game(map_name, size, int(rng.integers(2**31)), buttons)
    try:
        for t in range(n):
            if t == 0 or game.is_episode_finished() or game.is_player_dead():
                game.new_episode()
                walker.reset()
                episode_starts[t] = True
            state = game.get_state()
            frames[t] = _resize(state.screen_buffer, size)
            actions[t] = walker.next_action(np.array(state.game_variables))
            held = combinations[actions[t]]
            game.make_action([button in held for button in buttons], request.frame_skip)
            if t % 200 == 0:
                pathlib.Path("progress").write_text(str(t))
    finally:
        game.close()
    map_ids = np.zeros(n, np.int32)
    return Recording(frames, actions, episode_starts, map_ids, (map_name,), request.actions)


def _child_main() -> None:
    # Run by its path, Python puts this folder first on sys.path, where `cache` or `images` would
    # hide other modules of that name.
    sys.path.pop(0)
    # The engine is a process of its own that outlives this one unless the game is closed: leave
    # by an exception, which passes through the `finally`.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    request = _Request.from_json(sys.argv[1])
    _save(pathlib.Path(sys.argv[2]), _record_map(request), request)


if __name__ == "__main__":
    _child_main()
