"""Recording: what is in it, that it is the same each time, and what survives an interruption."""

import contextlib
import dataclasses
import importlib.util
import os
import pathlib
import subprocess
import sys
import time

import numpy as np
import pytest

from keras_vqvae.data import vizdoom_recorder as recorder
from keras_vqvae.data.vizdoom_recorder import ACTIONS, Recording, record
from tests.inside import inside, replace

pytestmark = pytest.mark.tensorflow  # pipelines know no backend

MAPS = ("my_way_home", "freedoom1:E1M1")
SMALL = {"maps": MAPS, "frames_per_map": 150, "image_size": 32, "seed": 3, "progress": False}


def assert_same(a, b):
    assert a.maps == b.maps
    for name in ("frames", "actions", "episode_starts", "map_ids"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)


def names_in(folder):
    return sorted(file.name for file in folder.iterdir())


@pytest.fixture(scope="module")
def small_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("recorded") / "small.npz"
    record(**SMALL, path=path)
    return path


@pytest.fixture
def small(small_file):
    return record(**SMALL, path=small_file)


@pytest.fixture
def started(monkeypatch):
    """The maps for which a child process is started."""
    maps = []
    start = inside(recorder).start

    def spy(job):
        maps.append(job.request.maps[0])
        return start(job)

    replace(monkeypatch, recorder, "start", spy)
    return maps


def test_shapes_and_types(small):
    assert small.frames.shape == (300, 32, 32, 3) and small.frames.dtype == np.uint8
    assert small.actions.dtype == np.int32 and small.map_ids.dtype == np.int32
    assert small.episode_starts.dtype == bool
    assert small.maps == MAPS
    np.testing.assert_array_equal(small.map_ids, np.repeat([0, 1], 150))
    assert small.episode_starts[0] and small.episode_starts[150]
    assert set(small.actions) == set(range(len(ACTIONS)))


def test_frames_show_something_that_moves(small):
    frames = small.frames.astype(float)
    assert frames.mean() > 15
    assert (frames.std(axis=(1, 2, 3)) > 5).mean() > 0.9
    moved = np.abs(np.diff(frames, axis=0)).mean(axis=(1, 2, 3))
    assert (moved > 1).mean() > 0.9


def shift_of(before, after):
    """By how many pixels the picture moved to the right, found by trying."""
    costs = {}
    for shift in range(-12, 13):
        a = before[:, max(0, -shift) : before.shape[1] - max(0, shift)]
        b = after[:, max(0, shift) : after.shape[1] - max(0, -shift)]
        costs[shift] = np.abs(a.astype(float) - b).mean()
    return min(costs, key=costs.get)


def test_an_action_changes_the_frame_after_it(small):
    """Turning left moves the picture right, from frame t to t + 1, and not one frame later."""
    turns = {name: [] for name in ACTIONS}
    for t in range(1, len(small.frames) - 1):
        steady = small.actions[t] == small.actions[t - 1]
        if steady and not small.episode_starts[t : t + 2].any():
            shift = shift_of(small.frames[t], small.frames[t + 1])
            turns[ACTIONS[small.actions[t]]].append(shift)
    assert np.median(turns["left"]) > 0 > np.median(turns["right"])
    # Where the action changes side, the picture follows at once.
    changed = np.flatnonzero((small.actions[:-2] != 2) & (small.actions[1:-1] == 2)) + 1
    shifts = [shift_of(small.frames[t], small.frames[t + 1]) for t in changed]
    assert np.median(shifts) < 0


def test_other_actions(tmp_path):
    names = ("forward", "right", "forward+right", "step left", "backward")
    found = record("my_way_home", 400, 32, actions=names, path=tmp_path / "a.npz", progress=False)
    assert found.action_names == names and found.of("my_way_home").action_names == names
    assert set(found.actions) == set(range(len(names)))
    share = np.isin(found.actions, [0, 2]).mean()
    assert 0.3 < share < 0.8
    by_action: dict = {}
    for t in range(1, 399):
        if found.actions[t] == found.actions[t - 1] and not found.episode_starts[t : t + 2].any():
            shift = shift_of(found.frames[t], found.frames[t + 1])
            by_action.setdefault(names[found.actions[t]], []).append(shift)
    # Who turns to the right sees things move to the left, and who steps to the left to the right.
    assert np.median(by_action["right"]) < 0 and np.median(by_action["forward+right"]) < 0
    assert np.mean(by_action["step left"]) > 0
    again = record("my_way_home", 400, 32, actions=names, path=tmp_path / "a.npz")
    assert_same(again, found)


@pytest.mark.parametrize("actions", [(), ("jump",), ("forward+jump",), ("left", "left")])
def test_unknown_actions_are_refused_by_name(actions, tmp_path):
    with pytest.raises(ValueError, match="`actions` must be different ones"):
        record("my_way_home", 5, 16, actions=actions, path=tmp_path / "a.npz")


def test_the_seed_decides_all_and_maps_do_not_depend_on_each_other(small, tmp_path):
    alone = record(**{**SMALL, "maps": "freedoom1:E1M1"}, path=tmp_path / "alone.npz")
    assert_same(alone, small.of("freedoom1:E1M1"))
    other = record(**{**SMALL, "maps": "freedoom1:E1M1", "seed": 4}, path=tmp_path / "other.npz")
    assert not np.array_equal(other.actions, alone.actions)


def test_of_selects_maps_in_the_order_asked_for(small):
    swapped = small.of(MAPS[::-1])
    assert swapped.maps == MAPS[::-1]
    np.testing.assert_array_equal(swapped.frames[:150], small.frames[150:])
    np.testing.assert_array_equal(swapped.map_ids, np.repeat([0, 1], 150))
    assert_same(swapped.of(MAPS), small)
    for wrong in ("E1M9", ()):
        with pytest.raises(ValueError, match="`maps`.*my_way_home"):
            small.of(wrong)


def test_the_file_is_used_again_and_nothing_is_left_around(small_file, started, tmp_path):
    record(**SMALL, path=small_file)
    assert started == [] and names_in(small_file.parent) == ["small.npz"]


def test_cwd_of_the_caller_stays_clean(monkeypatch, tmp_path):
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    record("my_way_home", 5, 16, path="../here.npz", progress=False)
    assert names_in(tmp_path) == ["cwd", "here.npz"] and names_in(tmp_path / "cwd") == []


def test_default_path_is_in_the_cache_and_differs_by_arguments(monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_VQVAE_CACHE", str(tmp_path))
    record("my_way_home", 5, 16, progress=False)
    record("my_way_home", 5, 16, seed=1, progress=False)
    assert len(names_in(tmp_path)) == 2


def test_an_interrupted_recording_goes_on(small, monkeypatch, started, tmp_path):
    replace(monkeypatch, recorder, "MAX_CHILDREN", 1)
    start = inside(recorder).start

    def interrupted(job):
        if job.request.maps == (MAPS[1],):
            raise KeyboardInterrupt
        return start(job)

    with monkeypatch.context() as patch:
        replace(patch, recorder, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            record(**SMALL, path=tmp_path / "x.npz")
    assert names_in(tmp_path) == ["x.npz.part-my_way_home.npz"] and started == [MAPS[0]]
    assert_same(record(**SMALL, path=tmp_path / "x.npz"), small)
    assert started == list(MAPS) and names_in(tmp_path) == ["x.npz"]


def processes_in(folder):
    """The processes, ours or the engine's, whose working folder is or was `folder`."""
    found = []
    for link in pathlib.Path("/proc").glob("[0-9]*/cwd"):
        with contextlib.suppress(OSError):  # it has just ended, or is another user's
            if os.readlink(link).startswith(folder):
                found.append(link.parent.name)
    return found


@pytest.mark.skipif(not pathlib.Path("/proc/self/cwd").exists(), reason="reads Linux's /proc")
def test_an_interruption_stops_children_and_engines(monkeypatch, tmp_path):
    children, engines = [], []
    start = inside(recorder).start

    def started(job):
        children.append(start(job))
        return children[-1]

    replace(monkeypatch, recorder, "start", started)

    def interrupt_when_both_record(done):
        if all(child.frames_done() for child in children):
            engines.extend(processes_in(child.folder.name) for child in children)
            raise KeyboardInterrupt

    replace(monkeypatch, recorder, "progress_bar", lambda jobs: interrupt_when_both_record)
    with pytest.raises(KeyboardInterrupt):
        record(MAPS, 100_000, 16, path=tmp_path / "x.npz")
    assert [len(processes) for processes in engines] == [2, 2]  # a child and its engine each
    deadline = time.monotonic() + 5
    while any(processes_in(child.folder.name) for child in children):
        assert time.monotonic() < deadline, "an engine runs on"
        time.sleep(0.1)
    assert names_in(tmp_path) == []


def flip_a_byte(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :]


@pytest.mark.parametrize(
    "damage",
    [flip_a_byte, lambda content: content[: len(content) // 2], lambda content: b""],
    ids=["flipped", "truncated", "empty"],
)
def test_a_corrupt_file_is_recorded_again(small, small_file, started, tmp_path, damage):
    path = tmp_path / "damaged.npz"
    path.write_bytes(damage(small_file.read_bytes()))
    with pytest.warns(UserWarning, match="damaged.npz cannot be used"):
        assert_same(record(**SMALL, path=path), small)
    assert sorted(started) == sorted(MAPS)
    started.clear()
    record(**SMALL, path=path)
    assert started == []


def test_somebody_elses_file_is_left_alone(tmp_path):
    path = tmp_path / "mine.npz"
    np.savez(path, frames=np.zeros(3))
    kept = path.read_bytes()
    with pytest.raises(ValueError, match=r"holds \['frames'\], and no recording"):
        record(**SMALL, path=path)
    assert path.read_bytes() == kept
    np.save(tmp_path / "mine.npy", np.zeros(3))
    for other, text in (("mine.npy", None), ("notes.txt", "my thesis")):
        path = tmp_path / other
        if text:
            path.write_text(text)
        kept = path.read_bytes()
        with pytest.raises(ValueError, match=rf"{other} is no \.npz file with a recording"):
            record(**SMALL, path=path)
        assert path.read_bytes() == kept
    with pytest.raises(ValueError, match="is a folder: name a file for a recording in it"):
        record(**SMALL, path=tmp_path)


def test_another_process_that_recorded_the_same_was_quicker(
    small, small_file, monkeypatch, tmp_path
):
    path = tmp_path / "shared.npz"

    def quicker(jobs, progress):
        path.write_bytes(small_file.read_bytes())  # and has removed its parts

    replace(monkeypatch, recorder, "run", quicker)
    assert_same(record(**SMALL, path=path), small)


def test_the_walker_turns_away_from_walls():
    walker = inside(recorder).Walker(np.random.default_rng(0), 4)
    position, still, forward = np.zeros(2), 0, 0
    for step in range(2000):
        action = walker.next_action(position)
        if ACTIONS[action] == "forward":
            forward += 1
            ahead = position + np.array([20.0, 0])
            stuck = step % 40 >= 20  # a wall comes and goes
            still = still + 1 if stuck else 0
            assert still <= 2  # it has noticed
            position = position if stuck else ahead
        else:
            still = 0
    assert 0.3 < forward / 2000 < 0.8


@pytest.mark.parametrize(
    "change", [{"seed": 4}, {"frame_skip": 2}, {"image_size": 16}, {"maps": MAPS[::-1]}]
)
def test_a_file_of_other_arguments_is_not_used(small_file, monkeypatch, tmp_path, change):
    path = tmp_path / "other.npz"
    path.write_bytes(small_file.read_bytes())

    class RecordsAgainError(Exception):
        pass

    def run(jobs, progress):
        raise RecordsAgainError

    replace(monkeypatch, recorder, "run", run)
    record(**SMALL, path=path)
    with pytest.warns(UserWarning, match="other.npz.*expected"), pytest.raises(RecordsAgainError):
        record(**{**SMALL, **change}, path=path)


def test_what_the_engine_says_is_in_the_error(monkeypatch, tmp_path):
    game = "import sys; sys.exit('the engine is ill')"
    monkeypatch.setattr(recorder, "__file__", str(tmp_path / "child.py"))
    (tmp_path / "child.py").write_text(game)
    with pytest.raises(RuntimeError, match="(?s)my_way_home.*the engine is ill"):
        record("my_way_home", 5, 16, path=tmp_path / "x.npz", progress=False)
    assert names_in(tmp_path) == ["child.py"]


def test_missing_extras_are_named(monkeypatch, tmp_path):
    find = importlib.util.find_spec
    hide = lambda name, *rest: None if name == "vizdoom" else find(name, *rest)  # noqa: E731
    monkeypatch.setattr(importlib.util, "find_spec", hide)
    with pytest.raises(ImportError, match=r"vizdoom.*\.\[examples\]"):
        record("my_way_home", 5, 16, path=tmp_path / "x.npz")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"maps": ("my_way_home", "E9M9")}, "`maps`.*E9M9.*my_way_home"),
        ({"maps": ()}, "`maps`"),
        ({"maps": ("my_way_home", "my_way_home")}, "`maps`.*different"),
        ({"frames_per_map": 0}, "`frames_per_map`.*0"),
        ({"image_size": 481}, "`image_size`.*481"),
        ({"seed": -1}, "`seed`.*-1"),
        ({"frame_skip": 1.5}, "`frame_skip`.*1.5"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        record(**arguments)


def test_a_recording_checks_its_arrays(small):
    with pytest.raises(ValueError, match="`frames`.*float"):
        dataclasses.replace(small, frames=small.frames / 255)
    with pytest.raises(ValueError, match="`actions`.*(299,)"):
        dataclasses.replace(small, actions=small.actions[1:])
    with pytest.raises(dataclasses.FrozenInstanceError):
        small.frames = None


def test_children_start_without_tensorflow():
    code = f"import runpy, sys; runpy.run_path({recorder.__file__!r}); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "numpy" in done.stdout.split()
    assert not {"tensorflow", "keras", "vizdoom"} & set(done.stdout.split())


def test_the_package_gives_the_recorder():
    from keras_vqvae import data

    assert data.record is record and data.Recording is Recording
    assert set(data.HELD_OUT_MAPS).isdisjoint(data.TRAINING_MAPS)
    with pytest.raises(AttributeError, match="nothing"):
        data.nothing  # noqa: B018
