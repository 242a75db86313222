"""Episodes and windows: none crosses an episode's end, order by seed, files, bad input."""

import re
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

if keras.backend.backend() != "tensorflow":
    pytest.skip("tf.data is TensorFlow's", allow_module_level=True)

from hypothesis import given, settings
from hypothesis import strategies as st

from keras_vqvae import ImageVQVAE, VideoPredictor, VideoVQVAE
from keras_vqvae.data import Recording, video, video_files, write_records
from keras_vqvae.data.video import Episode
from tests.inside import inside

pytestmark = pytest.mark.tensorflow


def episode(number: int, length: int, actions: str = "discrete") -> Episode:
    """Frames that say in each pixel which they are: red the episode, green the time."""
    frames = np.zeros((length, 4, 6, 3), np.uint8)
    frames[..., 0], frames[..., 1] = number, np.arange(length)[:, None, None]
    given = {
        "none": None,
        "discrete": (np.arange(length) % 3).astype("int32"),
        "continuous": np.stack([np.arange(length), np.full(length, number)], 1).astype("float32"),
    }[actions]
    return Episode(frames, given, f"episode {number}")


def rows(dataset: Any) -> dict[str, np.ndarray]:
    batches = list(dataset.as_numpy_iterator())
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=5),
    st.integers(1, 5),
    st.integers(1, 3),
    st.sampled_from([None, 0, 1]),
)
def test_windows_are_all_of_one_episode_and_each_once(
    lengths: list, length: int, every: int, seed: int | None
) -> None:
    episodes = [episode(i, n) for i, n in enumerate(lengths)]
    expected = [(i, t) for i, n in enumerate(lengths) for t in range(0, n - length + 1, every)]
    if not expected:
        with pytest.raises(ValueError, match="shorter than a window"):
            video.windows(episodes, length)
        return
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        got = rows(video.windows(episodes, length, 4, every=every, seed=seed))
    frames = got["frames"][:, :, 0, 0]
    assert np.all(frames[..., 0] == frames[:, :1, 0])
    np.testing.assert_array_equal(frames[..., 1], frames[:, :1, 1] + np.arange(length))
    np.testing.assert_array_equal(got["actions"], frames[..., 1] % 3)
    starts = [tuple(map(int, window[0, :2])) for window in frames]
    assert (starts if seed is None else sorted(starts)) == expected


def test_order_is_decided_by_seed_and_epoch() -> None:
    episodes = [episode(0, 20), episode(1, 30)]

    def epochs(seed: int) -> list:
        dataset = video.windows(episodes, 4, 5, seed=seed)
        return [rows(dataset)["frames"][:, 0, 0, 0, :2].tolist() for _ in range(2)]

    first, second = epochs(0)
    assert first != second and sorted(first) == sorted(second)
    assert epochs(0) == [first, second]
    assert epochs(1)[0] != first
    dataset = video.windows(episodes, 4, 5, seed=0)
    dataset.start_at(0, 3)
    assert rows(dataset)["frames"][:, 0, 0, 0, :2].tolist() == first[15:]
    shares = [
        rows(video.windows(episodes, 4, 4, seed=0, shard=(i, 2)))["frames"][:, 0, 0, 0, :2]
        for i in range(2)
    ]
    assert sorted(np.concatenate(shares).tolist()) == sorted(first)


def test_short_episodes_are_left_out_and_counted() -> None:
    with pytest.warns(UserWarning, match="2 of 3 episodes are shorter than a window of 5 frames"):
        dataset = video.windows([episode(0, 4), episode(1, 5), episode(2, 1)], 5, 2)
    assert rows(dataset)["frames"].shape == (1, 5, 4, 6, 3)


def test_kinds_of_actions() -> None:
    without = rows(video.windows([episode(0, 6, "none")], 3, 2))
    assert set(without) == {"frames"}
    continuous = rows(video.windows([episode(3, 6, "continuous")], 3, 2))["actions"]
    assert continuous.dtype == np.float32
    np.testing.assert_array_equal(continuous[1], [[1, 3], [2, 3], [3, 3]])


def test_what_was_done_in_frames_that_are_skipped_counts() -> None:
    frames = episode(0, 7).frames
    buttons = np.zeros((7, 2), bool)
    buttons[1::2, 0] = True  # never in a frame that is kept
    vectors = np.arange(14, dtype="float32").reshape(7, 2)
    numbers = np.array([2, 0, 0, 1, 1, 2, 2], "int32")
    [one], [two], [three] = (
        video.skip([Episode(frames, x)], 4) for x in (buttons, vectors, numbers)
    )
    np.testing.assert_array_equal(one.frames, frames[[0, 4]])
    assert one.actions.tolist() == [[True, False], [True, False]] and one.actions.dtype == bool
    assert two.actions.tolist() == [[3, 4], [10, 11]] and two.actions.dtype == np.float32
    assert three.actions.tolist() == [0, 2] and three.actions.dtype == np.int32
    button = Episode(frames, np.array([1, 0, 0, 0, 0, 1, 0], bool))
    assert video.skip([button], 4)[0].actions.tolist() == [True, True]
    # Whole vectors are none of buttons, in whichever episode that shows.
    steered = np.array([[-1, 0], [-1, 0], [-1, 0], [0, 1]])
    still = np.array([[0, 0], [0, 0], [0, 0], [1, 0]])
    first, second = video.skip([Episode(frames[:4], x) for x in (steered, still)], 4)
    assert first.actions.tolist() == [[-0.75, 0.25]] and second.actions.tolist() == [[0.25, 0]]
    assert first.actions.dtype == second.actions.dtype == np.float32
    assert video.skip([Episode(frames[:4], still)], 4)[0].actions.tolist() == [[1, 0]]
    ties = Episode(frames[:4], np.array([3, 1, 3, 1]))
    assert video.skip([ties], 4)[0].actions.tolist() == [3]
    [bare] = video.skip([episode(0, 5, "none")], 2)
    assert bare.actions is None and len(bare) == 3
    with pytest.raises(ValueError, match="`every` must be a positive integer, got 0"):
        video.skip([ties], 0)
    with pytest.raises(ValueError, match="are of codes"):
        video.skip([Episode(np.zeros((4, 2, 2), "int32"))], 2)


def test_episodes_of_a_recording() -> None:
    starts = np.array([1, 0, 0, 1, 0, 1, 0], bool)
    frames = np.arange(7, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 3), np.uint8)
    recording = Recording(
        frames,
        np.arange(7, dtype=np.int32) % 3,
        starts,
        np.int32([0, 0, 0, 0, 0, 1, 1]),
        ("a", "b"),
    )
    episodes = video.episodes_of(recording)
    assert [len(e) for e in episodes] == [3, 2, 2]
    assert episodes[2].name.startswith("b")
    np.testing.assert_array_equal(np.concatenate([e.frames for e in episodes]), frames)
    of_it, of_them = (rows(video.windows(x, 2)) for x in (recording, episodes))
    np.testing.assert_array_equal(of_it["frames"], of_them["frames"])


def test_buttons_of_a_recording() -> None:
    recording = Recording(
        np.zeros((4, 4, 4, 3), np.uint8),
        np.int32([2, 0, 1, 2]),
        np.array([1, 0, 1, 0], bool),
        np.zeros(4, np.int32),
        ("a",),
        ("right", "forward", "right+forward"),
    )
    assert recording.button_names == ("forward", "right")
    first, second = video.episodes_of(recording, buttons=True)
    assert first.actions.dtype == np.int32
    np.testing.assert_array_equal(first.actions, [[1, 1], [0, 1]])
    np.testing.assert_array_equal(second.actions, [[1, 0], [1, 1]])


def test_codes_are_kept_and_made_anew_for_other_weights_and_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vqvae = ImageVQVAE((4, 6, 3), 7, 2, downsampling=2, hidden=4, residual_hidden=4)
    episodes, file = [episode(0, 70), episode(1, 3)], tmp_path / "kept" / "codes.npz"
    encoded = video.encode(vqvae, episodes, file)
    for plain, coded in zip(episodes, encoded, strict=True):
        np.testing.assert_array_equal(coded.frames, vqvae.encode(plain.frames))
        np.testing.assert_array_equal(coded.actions, plain.actions)
    got = rows(video.windows(encoded, 3, 8))
    assert got["codes"].dtype == np.int32 and got["codes"].shape == (69, 3, 2, 3)

    monkeypatch.setattr(ImageVQVAE, "encode", lambda *_, **__: pytest.fail("encoded again"))
    again = video.encode(vqvae, episodes, file)
    assert all(np.array_equal(a.frames, b.frames) for a, b in zip(encoded, again, strict=True))
    monkeypatch.undo()

    # As many frames, one of which is another; and other beginnings of episodes.
    others = [episode(0, 70), episode(2, 3)]
    np.testing.assert_array_equal(
        video.encode(vqvae, others, file)[1].frames, vqvae.encode(others[1].frames)
    )
    ends = [len(e) for e in video.encode(vqvae, [episode(0, 3), episode(0, 70)], file)]
    assert ends == [3, 70]

    vqvae.quantizer.trainable = True
    vqvae.encoder.weights[0].assign(vqvae.encoder.weights[0] + 0.5)
    fresh = video.encode(vqvae, episodes, file)
    np.testing.assert_array_equal(fresh[0].frames, vqvae.encode(episodes[0].frames))
    file.write_bytes(file.read_bytes()[:100])
    with pytest.warns(UserWarning, match="made again"):
        video.encode(vqvae, episodes, file)
    np.savez(file, frames=episodes[0].frames)  # somebody's
    kept = file.read_bytes()
    with pytest.raises(ValueError, match=r"holds \['frames'\], and no codes of `encode`"):
        video.encode(vqvae, episodes, file)
    assert file.read_bytes() == kept
    np.save(tmp_path / "mine.npy", np.zeros(3))
    (tmp_path / "notes.txt").write_text("my thesis")
    for name in ("mine.npy", "notes.txt"):
        kept = (tmp_path / name).read_bytes()
        with pytest.raises(ValueError, match=f"{name} is no .npz file with codes of `encode`"):
            video.encode(vqvae, episodes, tmp_path / name)
        assert (tmp_path / name).read_bytes() == kept
    with pytest.raises(ValueError, match="is a folder: name a file for codes"):
        video.encode(vqvae, episodes, tmp_path)
    (tmp_path / "empty.npz").touch()
    with pytest.warns(UserWarning, match="made again"):
        video.encode(vqvae, episodes, tmp_path / "empty.npz")
    files = {path.name for path in tmp_path.iterdir()}
    assert files == {"kept", "mine.npy", "notes.txt", "empty.npz"}


def test_codes_are_made_in_batches_across_episodes(monkeypatch: pytest.MonkeyPatch) -> None:
    vqvae = ImageVQVAE((4, 6, 3), 8, 4, downsampling=2, hidden=8)
    vqvae(episode(0, 1).frames)
    lengths = [3] * 10 + [50, 1]
    episodes = [episode(i, n) for i, n in enumerate(lengths)]
    given, encode = [], vqvae.encode

    def counted(x: np.ndarray, **options: Any) -> np.ndarray:
        given.append(len(x))
        return encode(x, **options)

    monkeypatch.setattr(vqvae, "encode", counted)
    coded = video.encode(vqvae, episodes, verbose=0)
    assert given == [64, 64]  # 81 frames, filled up
    for one, frames in zip(coded, episodes, strict=True):
        np.testing.assert_array_equal(one.frames, encode(frames.frames))
        np.testing.assert_array_equal(one.actions, frames.actions)


def test_what_cannot_be_encoded_or_cut_is_named() -> None:
    vqvae = ImageVQVAE((4, 6, 3), 8, 4, downsampling=2, hidden=8)
    vqvae(episode(0, 1).frames)
    good = [episode(0, 4)]
    with pytest.raises(ValueError, match="must be a list of Episode, or a Recording, got ndarray"):
        video.windows(good[0].frames, 2)
    with pytest.raises(ValueError, match="must be a list of Episode, or a Recording, got Episode"):
        video.windows(good[0], 2)
    with pytest.raises(ValueError, match="`episodes` are of codes already"):
        video.encode(vqvae, video.encode(vqvae, good))
    with pytest.raises(ValueError, match=r"frames of \(2, 6, 3\), `vqvae` takes \(4, 6, 3\)"):
        video.encode(vqvae, [Episode(good[0].frames[:, :2])])
    with pytest.raises(
        ValueError, match="`vqvae` must be a VQVAE, got VideoPredictor: give its vq"
    ):
        video.encode(VideoPredictor(vqvae, 3), good)
    codes = [Episode(np.zeros((4, 2, 2), "int32"), np.zeros(n, "int32")) for n in (4, 8)]
    with pytest.raises(
        ValueError, match=r"int32 \(\), 2 a code, but the first has .* int32 \(\)\."
    ):
        video.windows(codes, 2)


@pytest.mark.parametrize("actions", ["none", "discrete", "continuous"])
def test_codes_of_several_frames(actions: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Coded part by part they are those of the whole; windows have all actions of their frames."""
    monkeypatch.setattr("keras_vqvae.data.video._BATCH", 6)
    vqvae = VideoVQVAE((4, 6, 3), 16, 4, hidden=4, residual_blocks=1, downsampling=(2, 2, 2))
    rng = np.random.default_rng(0)
    episodes = [episode(i, n, actions) for i, n in enumerate((41, 6, 8))]
    for one in episodes:
        one.frames[:] = rng.integers(0, 256, one.frames.shape)
    coded = video.encode(vqvae, episodes)
    for whole, part in zip(episodes, coded, strict=True):
        even = len(whole) // 2 * 2
        np.testing.assert_array_equal(part.frames, vqvae.encode(whole.frames[None, :even])[0])
        if actions != "none":
            np.testing.assert_array_equal(part.actions, whole.actions[:even])
    windows = rows(video.windows(coded, 3, batch_size=4))
    places = [(e, t) for e in coded for t in range(len(e) - 2)]
    np.testing.assert_array_equal(windows["codes"], [e.frames[t : t + 3] for e, t in places])
    if actions != "none":
        expected = [e.actions[2 * t : 2 * t + 6] for e, t in places]
        np.testing.assert_array_equal(windows["actions"], expected)


def test_episodes_shorter_than_a_code_are_left_out_and_counted() -> None:
    vqvae = VideoVQVAE((4, 6, 3), 16, 4, hidden=4, residual_blocks=1, downsampling=(4, 2, 2))
    with pytest.warns(UserWarning, match="2 of 3 episodes are shorter than the 4 frames of a code"):
        (coded,) = video.encode(vqvae, [episode(0, 3), episode(1, 9), episode(2, 1)])
    assert coded.frames.shape == (2, 2, 3) and len(coded.actions) == 8
    with pytest.warns(UserWarning), pytest.raises(ValueError, match="no episodes to encode"):
        video.encode(vqvae, [episode(0, 3)])


def test_a_recording_in_a_folder_is_its_episodes(tmp_path: Path) -> None:
    one = episode(0, 9)
    starts = np.arange(9) % 4 == 0
    arrays = {"frames": one.frames, "actions": one.actions, "map_ids": np.zeros(9, "int32")}
    np.savez(tmp_path / "walk.npz", episode_starts=starts, **arrays)
    read = video.read_folder(tmp_path)
    assert [len(e) for e in read] == [4, 4, 1]
    np.testing.assert_array_equal(read[1].frames, one.frames[4:8])
    np.testing.assert_array_equal(read[1].actions, one.actions[4:8])
    np.savez(tmp_path / "walk.npz", episode_starts=starts[:5], **arrays)
    with pytest.raises(ValueError, match=r"walk\.npz: episode_starts must be bool"):
        video.read_folder(tmp_path)


def test_vectors_that_happen_to_be_whole_are_floats_among_floats(tmp_path: Path) -> None:
    for name, dtype in (("a", "int32"), ("b", "float32")):
        actions = np.ones((5, 2), dtype)
        np.savez(tmp_path / f"{name}.npz", frames=episode(1, 5).frames, actions=actions)
    assert {e.actions.dtype for e in video.read_folder(tmp_path)} == {np.dtype("float32")}


def test_whole_vectors_of_a_folder_are_floats_and_buttons_are_not(tmp_path: Path) -> None:
    signed, held = np.array([[0, -1]] * 5), np.array([[0, 1]] * 5)
    for name, actions in (("a", held), ("b", held)):
        np.savez(tmp_path / f"{name}.npz", frames=episode(1, 5).frames, actions=actions)
    assert {e.actions.dtype.kind for e in video.read_folder(tmp_path)} == {"i"}
    np.savez(tmp_path / "b.npz", frames=episode(1, 5).frames, actions=signed)
    first, second = video.read_folder(tmp_path)
    assert first.actions.dtype == second.actions.dtype == np.float32
    np.testing.assert_array_equal(second.actions, signed)


def test_tables_of_one_number_that_is_whole_in_one_of_them(tmp_path: Path) -> None:
    table = tmp_path / "a.csv"
    table.write_text("speed\n1\n2\n\n")  # an empty line at the end counts for nothing
    whole = video_files.read_actions(table)
    table.write_text("speed\n1.5\n2\n")
    part = video_files.read_actions(table)
    frames = np.zeros((2, 4, 4, 3), np.uint8)
    both = inside(video).of_one_kind([Episode(frames, whole), Episode(frames, part)])
    assert [e.actions.tolist() for e in both] == [[[1], [2]], [[1.5], [2]]]
    assert {e.actions.dtype for e in both} == {np.dtype("float32")}


def test_folder_of_arrays(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    np.savez(tmp_path / "b.npz", frames=episode(1, 5).frames, actions=episode(1, 5).actions)
    np.savez(tmp_path / "below" / "a.npz", frames=episode(2, 4).frames)
    first, second = video.read_folder(tmp_path)
    np.testing.assert_array_equal(first.actions, episode(1, 5).actions)
    assert second.actions is None and len(second) == 4
    with pytest.raises(ValueError, match="has frames of"):
        video.windows([first, second], 2)


def test_folder_of_videos(tmp_path: Path) -> None:
    av = pytest.importorskip("av", reason="videos need PyAV")
    raw = np.zeros((6, 32, 48, 3), np.uint8)
    raw[..., 0] = np.arange(6)[:, None, None] * 40
    with av.open(str(tmp_path / "walk.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"qp": "0"})
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv444p"
        for picture in raw:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    (tmp_path / "walk.csv").write_text("action\n" + "".join(f"{i % 3}\n" for i in range(6)))
    (read,) = video.read_folder(tmp_path)
    assert read.frames.shape == raw.shape
    np.testing.assert_allclose(read.frames[:, 4, 4, 0], raw[:, 4, 4, 0], atol=12)
    np.testing.assert_array_equal(read.actions, np.arange(6) % 3)
    assert read.actions.dtype == np.int32
    (small,) = video.read_folder(tmp_path, (16, 16))
    assert small.frames.shape == (6, 16, 16, 3)
    (tmp_path / "walk.csv").write_text("x,y\n" + "0.5,1\n" * 6)
    assert video.read_folder(tmp_path)[0].actions.shape == (6, 2)
    (tmp_path / "walk.csv").write_text("x\n" + "1\n" * 5)
    with pytest.raises(ValueError, match="walk.mp4: actions must be one for each of the 6 frames"):
        video.read_folder(tmp_path)
    (tmp_path / "walk.csv").write_text("1\n" * 6)
    with pytest.raises(ValueError, match="walk.csv must have a heading, its first line is 1"):
        video.read_folder(tmp_path)
    (tmp_path / "walk.csv").write_text("x\nleft\n")
    with pytest.raises(ValueError, match="walk.csv must have"):
        video.read_folder(tmp_path)
    for text, message in (
        ("größe\n1\n".encode("latin-1"), "must be a table in UTF-8"),
        ("\ufeff1\n2\n".encode(), "must have a heading, its first line is 1"),
        (b"x\n99999999999\n", "numbers must be of 32 bits, got values from 99999999999 to"),
        (b"x\n", "must have a heading and equally many numbers"),
    ):
        (tmp_path / "walk.csv").write_bytes(text)
        with pytest.raises(ValueError, match=f"walk.csv {message}|walk.csv .*{message}"):
            video.read_folder(tmp_path)
    (tmp_path / "walk.csv").write_bytes("\ufeffx\n".encode() + b"16777217\n" * 6)
    (tmp_path / "walk.csv").rename(tmp_path / "walk.CSV")
    assert video.read_folder(tmp_path)[0].actions.tolist() == [16777217] * 6
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    with pytest.raises(ValueError, match=r"broken\.mp4 cannot be read as a video"):
        video.read_folder(tmp_path)


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_videos_that_were_filmed_sideways(degrees: int, tmp_path: Path) -> None:
    """As they are shown: `rotation` counts counterclockwise, as `np.rot90`."""
    pytest.importorskip("av", reason="videos need PyAV")

    class Picture:
        rotation = degrees if degrees < 180 else degrees - 360

        def to_ndarray(self, width: int | None, height: int | None, **_: Any) -> np.ndarray:
            pixels = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)
            return pixels if width is None else pixels[:height, :width]

    whole = Picture().to_ndarray(None, None)
    expected = np.rot90(whole, degrees // 90)
    np.testing.assert_array_equal(inside(video_files).upright(Picture(), None), expected)
    assert inside(video_files).upright(Picture(), (4, 3)).shape == (4, 3, 3)


def test_records(tmp_path: Path) -> None:
    episodes = [episode(i, n) for i, n in enumerate((5, 3))]
    write_records(
        [{"frames": e.frames, "actions": e.actions} for e in episodes], tmp_path / "r", num_files=1
    )
    for old, new in zip(episodes, video.read_records(tmp_path / "r"), strict=True):
        np.testing.assert_array_equal(new.frames, old.frames)
        np.testing.assert_array_equal(new.actions, old.actions)
    write_records(np.zeros((3, 2), "int32"), tmp_path / "other", num_files=1)
    with pytest.raises(ValueError, match="are no episodes"):
        video.read_records(tmp_path / "other")


BAD: dict[str, tuple] = {
    "float frames": ({"frames": np.zeros((3, 4, 4, 3))}, "must be uint8"),
    "rank": ({"frames": np.zeros((3, 4), np.uint8)}, "must be uint8"),
    "number": ({"actions": np.zeros(2, int)}, "one for each of the 3 frames"),
    "text": ({"actions": np.array(["a", "b", "c"])}, "must be integers"),
    "float numbers": ({"actions": np.zeros(3)}, "must be integers"),
    "grey": ({"frames": np.zeros((3, 4, 4), np.uint8)}, "frames have no channels"),
    "nothing": ({"frames": np.zeros((0, 4, 4, 3), np.uint8)}, "there is no frame"),
    "a list": ({"frames": [[1]]}, "frames must be an array, got a list"),
    "a list of actions": ({"actions": [1, 2, 3]}, "actions must be an array, got a list"),
    "NaN": ({"actions": np.full((3, 1), np.nan)}, "must be finite"),
    "one number": ({"actions": np.array(3)}, "one for each of the 3 frames, got shape ()"),
    "no action to codes": (
        {"frames": np.zeros((5, 4, 4), "int32"), "actions": np.zeros(0, "int32")},
        "one for each of the 5 frames, got shape (0,)",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_episodes_are_refused_by_name(name: str) -> None:
    arguments, message = BAD[name]
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        Episode(**{"frames": np.zeros((3, 4, 4, 3), np.uint8), "name": "mine", **arguments})
    assert "mine" in str(caught.value)


def test_bad_arguments_and_files(tmp_path: Path) -> None:
    for arguments, message in (
        ({"length": 0}, "`length` must be"),
        ({"every": 0}, "`every` must be"),
        ({"batch_size": 0}, "`batch_size` must be"),
        ({"episodes": []}, "must not be empty"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            video.windows(**{"episodes": [episode(0, 5)], "length": 3, **arguments})
    with pytest.raises(ValueError, match="codes must not be negative, got -1"):
        video.windows([Episode(np.full((5, 2, 2), -1))], 3)
    with pytest.raises(ValueError, match="codes must be of 32 bits, got .* to 1099511627776"):
        video.windows([Episode(np.full((5, 2, 2), 2**40))], 3)
    with pytest.raises(ValueError, match="actions must be of 32 bits, got .* to 4294967297"):
        video.windows([Episode(episode(0, 5).frames, np.full(5, 2**32 + 1))], 3)
    with pytest.raises(ValueError, match="holds no episode file"):
        video.read_folder(tmp_path)
    for size in (64, (64,), (0, 5)):
        with pytest.raises(ValueError, match=r"`image_size` must be \(height, width\)"):
            video.read_folder(tmp_path, size)
    with pytest.raises(ValueError, match="is not a folder that exists"):
        video.read_folder(tmp_path / "nowhere")
    np.savez(tmp_path / "a.npz", pictures=np.zeros(3))
    with pytest.raises(ValueError, match=r"a\.npz has no array `frames`"):
        video.read_folder(tmp_path)
    (tmp_path / "a.npz").write_bytes(b"no zip")
    with pytest.raises(ValueError, match=r"a\.npz cannot be read"):
        video.read_folder(tmp_path)


def test_rlds(tmp_path: Path) -> None:
    tfds = pytest.importorskip("tensorflow_datasets")
    steps = tfds.features.Dataset(
        {
            "observation": {"image": tfds.features.Image(shape=(4, 6, 3), encoding_format="png")},
            "action": tfds.features.Tensor(shape=(2,), dtype=np.float64),
            "held": {
                "speed": tfds.features.Scalar(dtype=np.float32),
                "open": tfds.features.Tensor(shape=(3,), dtype=np.bool_),
            },
        }
    )
    info = tfds.features.FeaturesDict({"steps": steps})
    episodes = [episode(i, n, "continuous") for i, n in enumerate((4, 3))]

    class KerasVqvaeWalks(tfds.core.GeneratorBasedBuilder):
        """Two episodes."""

        VERSION = tfds.core.Version("1.0.0")

        def _info(self) -> Any:
            return tfds.core.DatasetInfo(builder=self, features=info)

        def _split_generators(self, dl_manager: Any) -> dict:
            return {"train": self._generate_examples()}

        def _generate_examples(self) -> Any:
            for number, e in enumerate(episodes):
                pairs = zip(e.frames, e.actions, strict=True)
                yield (
                    number,
                    {
                        "steps": [
                            {
                                "observation": {"image": frame},
                                "action": action.astype("float64"),
                                "held": {"speed": action[0], "open": [True, False, True]},
                            }
                            for frame, action in pairs
                        ]
                    },
                )

    builder = KerasVqvaeWalks(data_dir=str(tmp_path))
    builder.download_and_prepare()
    read = video.read_tfds("keras_vqvae_walks", "train", data_dir=tmp_path)
    for found, wanted in zip(sorted(read, key=len, reverse=True), episodes, strict=True):
        np.testing.assert_array_equal(found.frames, wanted.frames)
        np.testing.assert_array_equal(found.actions, wanted.actions)
        assert found.actions.dtype == np.float32
    without = video.read_tfds("keras_vqvae_walks", "train", action=None, data_dir=tmp_path)
    assert all(e.actions is None for e in without)

    def by(action: str) -> list:
        found = video.read_tfds("keras_vqvae_walks", "train", action=action, data_dir=tmp_path)
        return sorted(found, key=len, reverse=True)

    for found, wanted in zip(by("held/speed"), episodes, strict=True):
        np.testing.assert_array_equal(found.actions, wanted.actions[:, :1])
    assert by("held/open")[0].actions.tolist() == [[True, False, True]] * 4
    with pytest.raises(ValueError, match=r"dict of \['open', 'speed'\].*'held/open'"):
        by("held")
    with pytest.raises(ValueError, match=r"no 'held/shut': at 'shut' is \['open', 'speed'\]"):
        by("held/shut")
    with pytest.raises(ValueError, match=r"no 'action/x': at 'x' is an array"):
        by("action/x")


def test_an_unknown_tfds_is_named_in_a_sentence() -> None:
    """The error had printed the names of all data sets, hundreds of lines, as its cause does."""
    pytest.importorskip("tensorflow_datasets")
    with pytest.raises(ValueError, match="`name` 'mnistt' is no .* Close to it") as found:
        video.read_tfds("mnistt", "train")
    assert len(str(found.value)) < 200 and found.value.__suppress_context__
