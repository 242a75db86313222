"""Learn a world from video with actions, and predict what a person would see.

    python examples/video_prediction.py                    # 11 minutes on two CPU cores
    python examples/video_prediction.py --preset small     # two hours
    python examples/video_prediction.py --frames-per-code 2     # codes that span time
    python examples/video_prediction.py --data episodes/ --actions forward,left,right   # your own

A VQ-VAE turns frames into codes; a `VideoPredictor` predicts the codes of the next frames from
those of six and from the actions, without ever going back to pixels (van den Oord et al. 2017,
sec. 4.4). The default data are walks through maps of ViZDoom, recorded here; figures are of
episodes that were held out, and of a map that training never saw. Your own are .npz files, or MP4
and CSV files (docs/input.md), with actions that are numbers, buttons or vectors; every tenth of
them is held out, or the last tenth of a single one. Both presets have 8×8 codes a
frame, and predict with guidance; `small` trains longer, on 69 maps (zoo/vizdoom_world).

Open report.html in the folder of the run. `python examples/play.py RUN` walks through the learned
world. Exit status 1 if a figure misses its aim. Each stage leaves a file behind and is skipped
when that is there: run it again to resume.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from support.command import begin, example_parser, local_path, positive


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = example_parser(__doc__)
    parser.add_argument("--preset", choices=("tiny", "small"), default="tiny", help="of networks")
    parser.add_argument("--data", type=local_path, help="a folder of episodes; see data.video")
    parser.add_argument("--size", type=positive, default=64, help="side of the frames of videos")
    parser.add_argument(
        "--actions",
        help="with --data: names of the actions or buttons, with commas; what is called left and "
        "right turns, and is measured by that",
    )
    parser.add_argument(
        "--frame-skip", type=positive, default=1, help="with --data: keep every so many-th frame"
    )
    parser.add_argument("--out", type=local_path, help="default runs/video_prediction_PRESET")
    parser.add_argument("--vqvae", help="a trained one: a .keras file, or a name in the zoo")
    parser.add_argument(
        "--frames-per-code", type=int, choices=(1, 2), default=1, help="2: a VideoVQVAE"
    )
    parser.add_argument("--steps", type=positive, help="of training each network")
    args = parser.parse_args(argv)
    if args.vqvae and args.frames_per_code > 1:
        parser.error("--frames-per-code is of a VQ-VAE that is trained here, without --vqvae")
    return args


if __name__ == "__main__":
    begin(arguments)  # before the imports that take seconds

import keras
import numpy as np
from PIL import Image
from support import runs, scores, video_scores
from support.figures import ratio
from support.video_report import file_of, write_report

from keras_vqvae import ImageVQVAE, VideoPredictor, VideoVQVAE, callbacks
from keras_vqvae.data import ACTIONS, HELD_OUT_MAPS, TRAINING_MAPS, images, record, video
from keras_vqvae.data.video import Episode
from keras_vqvae.data.vizdoom_recorder import FREEDOOM_MAPS

sys.path.append(str(Path(__file__).parents[1] / "zoo"))
import run as zoo

CONTEXT, STEPS = 6, 10
LOOKED_BACK_AT = 18  # frames, by the codes of a VideoVQVAE of 8×8
# The mean of what may follow is that of so many predictions, at a temperature at which they do not
# grow brighter and brighter in places that are new.
DRAWS, MEAN_TEMPERATURE = 16, 0.8
LAST = 20  # frames of a long prediction, in which turns are looked at
STEPS_PER_EPOCH = 250
LONG = 100

# What must be reached, at least and, where that is no better, at most, by preset.
AIMS: dict[str, dict[str, tuple[float, float | None]]] = {
    "tiny": {
        "dB ahead of copying the last frame, turning": (0.0, None),
        "share of turns that the picture obeys": (0.80, None),
        "share of turns that the picture obeys, actions swapped": (0.80, None),
    },
    "small": {
        # A single sharp picture is not so far ahead even where geometry is known
        # (benchmarks/video_bound.py).
        "dB ahead of copying the last frame, turning, mean of draws": (3.0, None),
        "dB ahead of copying the last frame, turning": (0.0, None),
        "share of turns that the picture obeys": (0.95, None),
        "share of turns that the picture obeys, actions swapped": (0.95, None),
        "gradient energy at the last step / reconstructions": (0.90, 1.5),
        # Of long walks; reconstructions are those of the world that was learned.
        "after 100 frames, contrast / reconstructions": (0.5, 2.0),
        "after 100 frames, contrast of the flattest walk / reconstructions": (0.1, None),
        "after 100 frames, gradient energy / reconstructions": (0.5, 2.0),
        "after 100 frames, difference between walks / reconstructions": (0.5, None),
        "after 100 frames, share of walks that move": (0.8, None),
        "after 100 frames, share of turns obeyed": (0.8, None),
    },
}


@dataclasses.dataclass(frozen=True)
class Preset:
    """Networks, and how they are trained."""

    maps: tuple[str, ...]
    frames_per_map: int
    downsampling: int
    vqvae_hidden: int
    vqvae_steps: int
    hidden: int
    layers: int
    steps: int
    batch_size: int
    length: int  # of the windows
    guidance: float  # of predictions
    temperature: float = 1.0
    frames_per_code: int = 1
    mean_of_draws: bool = False  # whether it is looked at; that takes minutes

    @property
    def context(self) -> int:
        """Frames that are given, of which six count, and for their codes those before them."""
        return CONTEXT if self.frames_per_code == 1 else CONTEXT + LOOKED_BACK_AT


# Of many places, for one that was never seen.
MANY_MAPS = tuple(
    name for name in dict.fromkeys(TRAINING_MAPS + FREEDOOM_MAPS) if name not in HELD_OUT_MAPS
)
PRESETS = {
    "tiny": Preset(TRAINING_MAPS, 5000, 8, 96, 2500, 96, 3, 2000, 8, 10, 0.3, 0.7),
    "small": Preset(MANY_MAPS, 2000, 8, 96, 12_000, 96, 4, 24_000, 8, 10, 0.3, mean_of_draws=True),
}


@dataclasses.dataclass(frozen=True)
class Data:
    """Episodes to train on, held-out ones by name, and what the actions are."""

    train: list[Episode]
    held_out: dict[str, list[Episode]]
    names: list[str]
    actions: str  # "discrete", "buttons" or "continuous"

    @property
    def turns(self) -> tuple[int, int] | None:
        """The actions of turning left and right, if they are known."""
        if self.actions != "discrete" or not {"left", "right"} <= set(self.names):
            return None
        return self.names.index("left"), self.names.index("right")


def load(args: argparse.Namespace, preset: Preset) -> Data:
    if args.data:
        return own(args, preset)
    walked = record(preset.maps, preset.frames_per_map, seed=0)
    other_walks = record(preset.maps, max(200, 3000 // len(preset.maps)), seed=1)
    other_map = record(HELD_OUT_MAPS[0], 2400, seed=1)
    train = video.episodes_of(walked)
    held_out = {
        "other walks in the training maps": unseen(video.episodes_of(other_walks), train),
        f"{HELD_OUT_MAPS[0]}, never trained on": video.episodes_of(other_map),
    }
    return Data(train, held_out, list(ACTIONS), "discrete")


def unseen(episodes: list[Episode], train: list[Episode]) -> list[Episode]:
    """Stretches of episodes none of whose frames training has: walks begin at one place."""
    known = {frame.tobytes() for episode in train for frame in episode.frames}
    stretches = []
    for episode in episodes:
        new = np.array([frame.tobytes() not in known for frame in episode.frames])
        edges = np.flatnonzero(np.diff(np.concatenate([[False], new, [False]])))
        for first, last in zip(edges[::2], edges[1::2], strict=True):
            actions = None if episode.actions is None else episode.actions[first:last]
            name = f"{episode.name} and {first} later"
            stretches.append(Episode(episode.frames[first:last], actions, name))
    return stretches


def own(args: argparse.Namespace, preset: Preset) -> Data:
    """Episodes of a folder."""
    episodes = video.read_folder(args.data, (args.size, args.size))
    episodes = video.skip(episodes, args.frame_skip)
    if any(e.actions is None or e.actions.ndim != episodes[0].actions.ndim for e in episodes):
        raise ValueError(f"--data: the episodes in {args.data} need actions, and all of one kind")
    whole = np.concatenate([e.actions for e in episodes])
    if whole.ndim == 1 and whole.min() < 0:
        raise ValueError(f"--data: actions must not be negative, got {whole.min()}")
    vectors = "continuous" if whole.dtype.kind == "f" else "buttons"
    kind = "discrete" if whole.ndim == 1 else vectors
    dtype = "float32" if kind == "continuous" else "int32"
    episodes = [dataclasses.replace(e, actions=e.actions.astype(dtype)) for e in episodes]
    count = int(whole.max()) + 1 if kind == "discrete" else whole.shape[1]
    names = args.actions.split(",") if args.actions else [str(i) for i in range(count)]
    if len(names) < count or (kind != "discrete" and len(names) > count):
        raise ValueError(f"--actions must name {count} actions, got {','.join(names)}")
    train, aside = episodes, episodes[4::10] or episodes[-1:]
    if len(episodes) == 1:
        [one], cut = episodes, len(episodes[0]) * 9 // 10
        train = [Episode(one.frames[:cut], one.actions[:cut], one.name)]
        aside = [Episode(one.frames[cut:], one.actions[cut:], f"{one.name}, the end")]
    video_scores.cut(aside, preset.context + STEPS, 2)  # or they cannot be measured by
    held_out = {e.name for e in aside}
    return Data(
        [e for e in train if e.name not in held_out], {"held-out episodes": aside}, names, kind
    )


def trained(
    out: Path, name: str, make: Callable[[], tuple], steps: int, rate: float
) -> keras.Model:
    """The network in NAME.keras; if it is not there that of `make` is trained, on its data."""
    path = out / f"{name}.keras"
    if not path.exists():
        keras.utils.set_random_seed(0)
        epochs = max(1, round(steps / STEPS_PER_EPOCH))
        each = -(-steps // epochs)
        model, dataset = make()
        print(f"{name}: {model.count_params():,} parameters, {epochs * each:,} steps", flush=True)
        schedule = keras.optimizers.schedules.CosineDecay(
            rate / 10, epochs * each, alpha=0.01, warmup_target=rate, warmup_steps=100
        )
        model.compile(keras.optimizers.Adam(schedule))
        model.fit(
            dataset, steps_per_epoch=each, epochs=epochs,
            callbacks=[
                callbacks.BackupAndRestore(out / "backup" / name, keep=2),
                keras.callbacks.CSVLogger(out / f"{name}.csv", append=True),
            ],
        )  # fmt: skip
        unfinished = path.with_name(f"unfinished_{path.name}")
        model.save(unfinished)
        unfinished.replace(path)
    return keras.models.load_model(path)


def given_vqvae(name: str) -> keras.Model:
    """A trained VQ-VAE: of a file, or of the zoo."""
    model = keras.models.load_model(name) if Path(name).is_file() else zoo.load(name)
    if not isinstance(model, ImageVQVAE) or isinstance(model, VideoVQVAE):
        raise ValueError(f"--vqvae: {name} must be an ImageVQVAE, got {type(model).__name__}")
    return model


def train(out: Path, preset: Preset, data: Data) -> VideoPredictor:
    episodes, side = data.train, preset.downsampling
    shape = episodes[0].frames.shape[1:]
    networks = {"code_dim": 32, "hidden": preset.vqvae_hidden, "residual_hidden": 32}

    def of_frames() -> tuple:
        pictures = np.concatenate([episode.frames for episode in episodes])
        model = ImageVQVAE(shape, downsampling=side, **networks)
        return model, images.from_array(pictures, batch_size=8, seed=0, repeat=True)

    def of_clips() -> tuple:
        each = preset.frames_per_code
        model = VideoVQVAE(shape, downsampling=(each, side, side), **networks)
        clips = video.windows(episodes, CONTEXT + STEPS, 1, seed=0, repeat=True)
        return model, clips.map(lambda window: window["frames"])

    make = of_frames if preset.frames_per_code == 1 else of_clips
    vqvae = trained(out, "vqvae", make, preset.vqvae_steps, 1e-3)
    coded = video.encode(vqvae, episodes, out / "codes.npz")

    def predictor() -> tuple:
        model = VideoPredictor(
            vqvae, len(data.names), actions=data.actions, context_frames=CONTEXT,
            hidden=preset.hidden, num_layers=preset.layers, guidance=preset.guidance, seed=0,
        )  # fmt: skip
        return model, video.windows(coded, preset.length, preset.batch_size, seed=0, repeat=True)

    return trained(out, "predictor", predictor, preset.steps, 3e-3)


def starts(held_out: dict, context: int) -> np.ndarray:
    """So many frames to begin from, of all the held-out sets."""
    contexts = []
    for episodes in held_out.values():
        frames, _ = video_scores.cut(episodes, context, context)
        contexts.append(frames[video_scores.evenly(len(frames), 20)])
    return np.concatenate(contexts)


def measure(
    predictor: VideoPredictor, data: Data, begins: np.ndarray, preset: Preset
) -> tuple[dict, dict]:
    """All figures, and predictions to show; of one action alone from some of `begins`."""
    vqvae, given = predictor.vqvae, preset.context
    figures: dict = {}
    shown: dict = {}

    def predicted(frames: np.ndarray, actions: np.ndarray) -> np.ndarray:
        return predictor.predict_frames(
            frames[:, :given], actions, seed=0, temperature=preset.temperature
        )

    def expected(frames: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """The mean of what may follow, without guidance."""
        guidance, predictor.guidance = predictor.guidance, 0.0
        try:
            how = {"temperature": MEAN_TEMPERATURE}
            total = sum(
                predictor.predict_frames(frames[:, :given], actions, seed=seed, **how).astype(
                    "float32"
                )
                for seed in range(DRAWS)
            )
        finally:
            predictor.guidance = guidance
        return (total / DRAWS).round().astype("uint8")

    def rebuilt(frames: np.ndarray) -> np.ndarray:
        if isinstance(vqvae, VideoVQVAE):
            return vqvae.reconstruct(frames)
        flat = vqvae.reconstruct(frames.reshape(-1, *frames.shape[2:]))
        return flat.reshape(frames.shape)

    known, _ = video_scores.cut(data.train, given, given)
    usual = rebuilt(known[video_scores.evenly(len(known), 64)])[:, -1]
    for name, episodes in data.held_out.items():
        print(f"Predicting {name}", flush=True)
        windows = video.windows(video.encode(vqvae, episodes), preset.length, preset.batch_size)
        bits = predictor.evaluate(windows, verbose=0, return_dict=True)["bits_per_frame"]
        frames, actions = video_scores.cut(episodes, given + STEPS, 2)
        led = actions[:, given - 1 : -1]
        groups = {"all": np.arange(len(frames))}
        if data.turns:
            left, right = data.turns
            turning = video_scores.all_turns(led, left, right)
            if len(turning):
                groups["turning"] = turning
        figures[name] = {"bits a frame": bits}
        for group, rows in groups.items():
            some = rows[video_scores.evenly(len(rows), 96)]
            truth, last = frames[some, given:], frames[some, given - 1]
            made = predicted(frames[some], led[some])
            ceiling = rebuilt(truth)
            copied = np.repeat(last[:, None], STEPS, 1)
            row = {
                "sequences": len(some),
                "prediction": video_scores.by_step(truth, made),
                "copy of the last frame": video_scores.by_step(truth, copied),
                "reconstruction": video_scores.by_step(truth, ceiling),
                "gradient energy at the last step / reconstructions": ratio(
                    video_scores.gradient_energy(made[:, -1]),
                    video_scores.gradient_energy(ceiling[:, -1]),
                ),
            }
            if group == "turning":
                opposite = np.where(led[some] == left, right, left).astype("int32")
                swapped = predicted(frames[some], opposite)
                if preset.mean_of_draws:
                    row[f"mean of {DRAWS} draws without guidance"] = video_scores.by_step(
                        truth, expected(frames[some], led[some])
                    )
                # Predictions are pictures of codes, and so is what they are seen to move from.
                seen = rebuilt(frames[some, :given])[:, -1]
                row["turns obeyed"] = {
                    "predicted": video_scores.obedience(seen, made, led[some], left, right),
                    "actions swapped": video_scores.obedience(seen, swapped, opposite, left, right),
                    "real frames": video_scores.obedience(last, truth, led[some], left, right),
                }
            figures[name][group] = row
            six = video_scores.evenly(len(some), 6)
            shown[f"{name}, {group}"] = {"what happened": truth[six], "prediction": made[six]}
        # What is done as often as in the episodes, each for five frames.
        context = frames[video_scores.evenly(len(frames), 16), :given]
        done = np.concatenate([episode.actions for episode in episodes])
        some = np.random.default_rng(0).integers(len(done), size=(len(context), LONG // 5))
        walk = np.repeat(done[some], 5, 1)
        long = predicted(context, walk)
        alive = video_scores.liveliness(long, usual)
        if len(context) > 1:
            alive["color drift"] = video_scores.color_drift(rebuilt(context), long)
        late = long[:, -LAST - 1], long[:, -LAST:], walk[:, -LAST:]
        if data.turns and np.isin(late[2], data.turns).any():
            alive["share of turns obeyed"] = video_scores.obedience(*late, left, right)["share"]
        figures[name][f"after {LONG} frames"] = alive
        shown[f"{name}, {LONG} frames"] = {"prediction": long[:4, ::10]}
    context = begins[video_scores.evenly(len(begins), 4)]
    count = len(data.names)
    each = {"discrete": np.arange(count, dtype="int32"), "buttons": np.eye(count, dtype="int32")}
    for what, one in zip(data.names, each.get(data.actions, ()), strict=False):
        same = np.broadcast_to(one, (len(context), STEPS, *one.shape))
        shown[f"always {what}"] = {"prediction": predicted(context, same)}
    return figures, shown


def aims(preset: str, figures: dict) -> dict:
    """What was reached, lowest and highest of the sets, and what must be; nothing without turns.

    `met` is None where there is nothing to compare with: reconstructions are flat, or real frames
    themselves do not show the turns that predictions are to show. What could not be measured is
    left out: where nobody turns at the end of long walks, say.
    """
    if not any("turning" in sets for sets in figures.values()):
        return {}
    asked, _ = AIMS[preset]["share of turns that the picture obeys"]
    turning = [
        sets["turning"]
        for sets in figures.values()
        if "turning" in sets and sets["turning"]["turns obeyed"]["real frames"]["share"] >= asked
    ]

    def mean(row: dict, what: str) -> float:
        return float(np.mean(row[what]["PSNR"]))

    def ahead(what: str) -> list[float]:
        return [mean(row, what) - mean(row, "copy of the last frame") for row in turning]

    def obeyed(what: str) -> list[float]:
        return [row["turns obeyed"][what]["share"] for row in turning]

    sharpness = "gradient energy at the last step / reconstructions"
    draws = f"mean of {DRAWS} draws without guidance"
    reached = {
        "dB ahead of copying the last frame, turning": ahead("prediction"),
        "share of turns that the picture obeys": obeyed("predicted"),
        "share of turns that the picture obeys, actions swapped": obeyed("actions swapped"),
        sharpness: [row[sharpness] for row in turning],
    }
    if any(draws in sets.get("turning", {}) for sets in figures.values()):
        reached["dB ahead of copying the last frame, turning, mean of draws"] = ahead(draws)
    for sets in figures.values():
        for what, value in sets[f"after {LONG} frames"].items():
            reached.setdefault(f"after {LONG} frames, {what}", []).append(value)
    rows = {}
    for name, (least, most) in AIMS[preset].items():
        if name not in reached:
            continue
        values = [value for value in reached[name] if value is not None]
        if not turning and "turn" in name:
            values = []
        lowest, highest = min(values, default=None), max(values, default=None)
        met = bool(lowest >= least and (most is None or highest <= most)) if values else None
        rows[name] = {
            "lowest": lowest, "highest": highest, "least": least, "most": most, "met": met,
        }  # fmt: skip
    return rows


def verdict(name: str, row: dict) -> str:
    """Returns the line that is printed of an aim."""
    if row["met"] is None:
        return f"nothing to compare with, in real frames or reconstructions: {name}"
    most = "" if row["most"] is None else f", at most {row['most']:g}"
    said = "reached" if row["met"] else "MISSED"
    reached = f"{row['lowest']:.3f} to {row['highest']:.3f}"
    return f"{said}: {name}: {reached}, at least {row['least']:g}{most}"


def write_pictures(out: Path, shown: dict, brightened: bool) -> None:
    """Strips of frames as PNG, and each set of them as a GIF."""

    def picture(rows: list[tuple[str, np.ndarray]], zoom: int = 2) -> Image.Image:
        shown = [(label, scores.brightened(x) if brightened else x) for label, x in rows]
        return scores.labelled(shown, zoom)

    folder = out / "predicted"
    folder.mkdir(exist_ok=True)
    for name, rows in shown.items():
        file = file_of(name)
        lines = [
            (label, x[example]) for example in range(len(rows["prediction"]))
            for label, x in rows.items()
        ]  # fmt: skip
        picture(lines).save(folder / f"{file}.png")
        length = rows["prediction"].shape[1]
        moments = [
            picture([(label, x[:, t]) for label, x in rows.items()], 3) for t in range(length)
        ]
        moments[0].save(
            folder / f"{file}.gif", save_all=True, append_images=moments[1:], duration=200, loop=0
        )


def main(argv: Sequence[str] | None = None) -> int:
    args = arguments(argv)
    preset = dataclasses.replace(PRESETS[args.preset], frames_per_code=args.frames_per_code)
    if args.steps is not None:
        preset = dataclasses.replace(preset, vqvae_steps=args.steps, steps=args.steps)
    given = given_vqvae(args.vqvae) if args.vqvae else None  # or named, before anything is written
    out = args.out or Path("runs") / f"video_prediction_{args.preset}"
    decisive = {name: str(value) for name, value in vars(args).items()}
    decisive["recipe"] = str(preset)  # figures of another one are not kept
    out = runs.open_run(out, decisive)
    data = load(args, preset)
    if given is not None and not (out / "vqvae.keras").exists():
        given.save(out / "unfinished_vqvae.keras")
        (out / "unfinished_vqvae.keras").replace(out / "vqvae.keras")
    # For examples/play.py.
    runs.write_json(out / "actions.json", data.names)
    begins = starts(data.held_out, preset.context)
    np.savez_compressed(out / "contexts.npz", frames=begins)
    predictor = train(out, preset, data)
    if not (out / "metrics.json").exists():
        figures, shown = measure(predictor, data, begins, preset)
        dark = bool(begins.mean() < 64)
        write_pictures(out, shown, dark)
        runs.write_json(
            out / "metrics.json",
            {
                "parameters": {
                    "vqvae": predictor.vqvae.count_params(),
                    "predictor": predictor.count_params() - predictor.vqvae.count_params(),
                },
                "context": preset.context,
                "temperature": preset.temperature,
                "guidance": predictor.guidance,
                "predicted": STEPS,
                "grid": predictor.grid_shape,
                "num_codes": predictor.num_codes,
                "figures": figures,
                "shown": list(shown),
                "brightened": dark,
                "aims": aims(args.preset, figures),
            },
        )
    metrics = json.loads((out / "metrics.json").read_text())
    print("report:", write_report(out, metrics["shown"]))
    if not metrics["aims"]:
        why = "no held-out sequence is of turns alone" if data.turns else "no actions are named"
        print(f"no aims: {why}" + ("" if data.turns else " left and right"))
    for name, row in metrics["aims"].items():
        print(verdict(name, row))
    return 1 if any(row["met"] is False for row in metrics["aims"].values()) else 0


if __name__ == "__main__":
    raise SystemExit(main())
