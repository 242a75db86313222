"""Cost of predicting frames, in forward passes; and, of a trained run, sharpness beside pixels.

    python benchmarks/video.py [--rounds 5] [--batches 1 16]
    python benchmarks/video.py --run runs/video_prediction_small

The unit is one forward pass that gives the logits of one frame, given its context (the faster of
graph and XLA): re-running the network for every code costs as many of them as a frame has codes.
That is timed too, for one frame ("naive"), with the faster of the two.
`imagine` is timed as a user calls it, in graph mode and with `compile(jit_compile=True)`, and
`step` as `examples/play.py` calls it, decoding included, with the guidance that the presets have,
which is about twice the work.

With `--run` a network that predicts pixels, trained by squared error on the same episodes for as
many frames, and with about as many parameters, predicts beside the predictor of the run: it blurs.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import common

CONTEXT, STEPS = 6, 10
GUIDANCE = 0.3  # of the presets of examples/video_prediction.py


def make(grid_side: int, hidden: int, num_layers: int, side: int = 64, **options: Any) -> Any:
    import keras

    from keras_vqvae import ImageVQVAE, VideoPredictor

    keras.utils.set_random_seed(0)
    vqvae = ImageVQVAE(
        (side, side, 3), code_dim=32, downsampling=side // grid_side, hidden=96, residual_hidden=32
    )
    networks = {"hidden": hidden, "num_layers": num_layers}
    return VideoPredictor(vqvae, 3, context_frames=CONTEXT, **networks, **options)


def rollout(preset: dict, batch: int, frames: int, rounds: int) -> dict:
    """Predicted frames in units of a forward pass, and a second."""
    import numpy as np
    import tensorflow as tf

    rng = np.random.default_rng(0)
    graph, xla = (make(**preset) for _ in range(2))
    xla.compile("adam", jit_compile=True)
    grid = graph.grid_shape
    codes = rng.integers(0, 512, (batch, CONTEXT + 1, *grid)).astype("int32")
    actions = rng.integers(0, 3, (batch, CONTEXT + 1)).astype("int32")
    future = rng.integers(0, 3, (batch, frames)).astype("int32")
    data = {"codes": tf.constant(codes), "actions": tf.constant(actions)}
    forward = {
        f"forward, {name}": tf.function(
            lambda x: graph(x)["outputs"], autograph=False, jit_compile=jit
        )
        for name, jit in {"graph": None, "XLA": True}.items()
    }
    sides = {
        name: lambda fn=fn: common.milliseconds(lambda: fn(data)) for name, fn in forward.items()
    }

    def naive(name: str) -> float:
        """One frame, in whose place in the window each code is drawn after a pass."""
        rows = np.arange(batch)
        so_far = codes.copy()
        start = time.perf_counter()
        for position in np.ndindex(grid):
            logits = forward[f"forward, {name}"]({**data, "codes": tf.constant(so_far)})
            at = logits.numpy()[(slice(None), 0, *position)]
            noise = rng.gumbel(size=at.shape)
            so_far[(rows, CONTEXT, *position)] = (at + noise).argmax(-1)
        return (time.perf_counter() - start) * 1e3

    models = {"graph": graph, "XLA": xla}
    for name, model in models.items():
        sides[f"frame, {name}"] = lambda model=model: (
            common.milliseconds(
                lambda: model.imagine(
                    codes[:, :CONTEXT], future, seed=0, batch_size=batch, verbose=0
                )
            )
            / frames
        )
    times = common.interleave(sides, rounds)
    unit = min((times[name] for name in forward), key=lambda x: x["ms"])
    fastest = min(("graph", "XLA"), key=lambda name: times[f"forward, {name}"]["ms"])
    naive_ms = naive(fastest)
    passes = {name: common.ratio(times[f"frame, {name}"], unit) for name in models}
    best = min(times[f"frame, {name}"]["ms"] for name in models)
    positions = int(np.prod(grid))
    return {
        "grid": grid,
        "batch": batch,
        "times": times,
        "forward_passes": passes,
        "faster_than_rerunning": round(positions * unit["ms"] / best, 1),
        "naive_frame_ms": round(naive_ms, 1),
        "faster_than_naive": round(naive_ms / best, 1),
        "frames_per_second": round(batch * 1e3 / best, 1),
    }


def playing(preset: dict, rounds: int) -> dict:
    """Frames a second of `step`, one example, frames decoded."""
    import numpy as np

    model = make(**preset, guidance=GUIDANCE)
    side = model.image_shape[0]
    context = np.random.default_rng(0).integers(0, 256, (1, CONTEXT, side, side, 3), "uint8")
    state = model.start(context)
    action = np.array([0], "int32")
    times = common.interleave(
        {"step": lambda: common.milliseconds(lambda: model.step(state, action), 5)}, rounds
    )
    return {**times, "frames_per_second": round(1e3 / times["step"]["ms"], 1)}


def pixel_predictor(side: int, num_actions: int, hidden: int, blocks: int) -> Any:
    """Frames `(batch, CONTEXT, side, side, 3)` in [-1, 1] and an action to the next frame."""
    import keras

    from keras_vqvae import ConvDecoder, ConvEncoder, PastFrames, ResidualStack

    frames = keras.Input((CONTEXT, side, side, 3))
    action = keras.Input((num_actions,))
    networks = {"hidden": 96, "residual_hidden": 32}
    x = keras.layers.TimeDistributed(ConvEncoder(2, 32, **networks))(frames)
    x = keras.layers.Concatenate()(PastFrames(hidden)(x, action))
    x = keras.layers.Dense(hidden)(x)
    x = ResidualStack(2, hidden, blocks=blocks)(x)
    return keras.Model([frames, action], ConvDecoder(2, 3, **networks)(x))


def sharpness(run: Path, steps: int | None, most: int) -> dict:
    """Gradient energy and likeness by step, of codes and of pixels."""
    import keras
    import numpy as np
    import tensorflow as tf
    import video_prediction as example
    from support import video_scores

    from keras_vqvae.data import video

    predictor = keras.models.load_model(run / "predictor.keras")
    if predictor.frames_per_code > 1:
        raise SystemExit(
            f"--run: {run} predicts by codes that span time; pixels are of single frames"
        )
    given = json.loads((run / "arguments.json").read_text())
    preset = example.PRESETS[given["preset"]]
    if steps is None:
        steps = preset.steps if given["steps"] == "None" else int(given["steps"])
    folder = None if given["data"] == "None" else Path(given["data"])
    source = argparse.Namespace(
        data=folder,
        size=int(given["size"]),
        actions=None if given["actions"] == "None" else given["actions"],
        frame_skip=int(given["frame_skip"]),
    )
    data = example.load(source, preset)
    if data.actions != "discrete":
        raise SystemExit(f"--run: the actions of {run} are {data.actions}, not discrete")
    names = data.names
    side = predictor.image_shape[0]

    def pairs(window: dict) -> tuple:
        x = tf.cast(window["frames"], tf.float32) / 127.5 - 1
        action = tf.one_hot(window["actions"][:, CONTEXT - 1], len(names))
        return (x[:, :CONTEXT], action), x[:, CONTEXT]

    # As many predicted frames a step as the predictor's windows have.
    batch = preset.batch_size * (preset.length - CONTEXT)
    windows = video.windows(data.train, CONTEXT + 1, batch, seed=0, repeat=True)
    blocks = _blocks_of_same_size(predictor, side, len(names), preset.hidden)
    keras.utils.set_random_seed(0)
    pixels = pixel_predictor(side, len(names), preset.hidden, blocks)
    schedule = keras.optimizers.schedules.CosineDecay(
        1e-4, steps, alpha=0.01, warmup_target=1e-3, warmup_steps=min(100, steps // 2)
    )
    pixels.compile(keras.optimizers.Adam(schedule), "mse")
    start = time.perf_counter()
    pixels.fit(windows.map(pairs), steps_per_epoch=steps)
    seconds = time.perf_counter() - start

    def rolled(context: np.ndarray, actions: np.ndarray) -> np.ndarray:
        past, made = context.astype("float32") / 127.5 - 1, []
        for t in range(actions.shape[1]):
            action = np.eye(len(names), dtype="float32")[actions[:, t]]
            frame = np.clip(pixels.predict_on_batch([past, action]), -1, 1)
            made.append(np.round((frame + 1) * 127.5).astype("uint8"))
            past = np.concatenate([past[:, 1:], frame[:, None]], 1)
        return np.stack(made, 1)

    figures: dict = {}
    for what, walks in data.held_out.items():
        frames, actions = video_scores.cut(walks, CONTEXT + STEPS, 2)
        some = video_scores.evenly(len(frames), most)
        context, truth = frames[some, :CONTEXT], frames[some, CONTEXT:]
        led = actions[some, CONTEXT - 1 : -1]
        last = truth[:, -1]
        ceiling = video_scores.gradient_energy(predictor.vqvae.reconstruct(last))
        ways = {
            "codes": predictor.predict_frames(
                context, led, seed=0, temperature=preset.temperature, verbose=0
            ),
            "pixels": rolled(context, led),
        }
        figures[what] = {
            way: {
                **video_scores.by_step(truth, made),
                "gradient energy at the last step / reconstructions": (
                    video_scores.gradient_energy(made[:, -1]) / ceiling
                ),
            }
            for way, made in ways.items()
        }
    return {
        "preset": given["preset"],
        "steps": steps,
        "seconds_of_training_pixels": round(seconds),
        "parameters": {
            "codes": predictor.count_params(),
            "pixels": pixels.count_params(),
        },
        "figures": figures,
    }


def _blocks_of_same_size(predictor: Any, side: int, num_actions: int, hidden: int) -> int:
    """Residual blocks with which the pixel predictor is about as large."""
    few, more = (pixel_predictor(side, num_actions, hidden, n).count_params() for n in (1, 2))
    return max(1, 1 + round((predictor.count_params() - few) / (more - few)))


def main() -> None:
    parser = common.Parser(__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="of timing")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16], help="videos at once")
    parser.add_argument("--frames", type=int, default=4, help="predicted in a call")
    parser.add_argument("--side", type=int, default=64, help="of the frames, in pixels")
    parser.add_argument("--run", type=Path, help="a folder of examples/video_prediction.py")
    parser.add_argument("--steps", type=int, help="of training the pixels; default the run's")
    parser.add_argument("--sequences", type=int, default=96, help="predicted for sharpness")
    parser.add_argument("--json", type=Path, help="where to store instead of results/video.json")
    args = parser.parse_args()
    results: dict = {"rounds": args.rounds, "rollout": {}}
    # Codes of 4 pixels, and of 8, as in the presets of examples/video_prediction.py.
    presets = {
        "fine": {"grid_side": args.side // 4, "hidden": 96, "num_layers": 8, "side": args.side},
        "tiny": {"grid_side": args.side // 8, "hidden": 96, "num_layers": 3, "side": args.side},
        "small": {"grid_side": args.side // 8, "hidden": 96, "num_layers": 4, "side": args.side},
    }
    rows = []
    for name, preset in presets.items():
        costs = [rollout(preset, batch, args.frames, args.rounds) for batch in args.batches]
        play = playing(preset, args.rounds)
        results["rollout"][name] = {"network": preset, "cost": costs, "step": play}
        rows += [
            [
                name,
                c["batch"],
                min(c["times"][f"forward, {how}"]["ms"] for how in ("graph", "XLA")),
                c["forward_passes"]["graph"]["ratio"],
                c["forward_passes"]["XLA"]["ratio"],
                c["faster_than_rerunning"],
                c["faster_than_naive"],
                c["frames_per_second"],
                play["frames_per_second"] if c["batch"] == 1 else None,
            ]
            for c in costs
        ]
    headers = [
        "preset",
        "batch",
        "forward ms",
        "passes a frame, graph",
        "XLA",
        "x re-running",
        "x naive",
    ]
    print(common.table([*headers, "frames/s", "step, frames/s"], rows))
    if args.run:
        results["sharpness"] = sharpness(args.run, args.steps, args.sequences)
        rows = [
            [
                what,
                way,
                sum(x["PSNR"]) / len(x["PSNR"]),
                x["gradient energy at the last step / reconstructions"],
            ]
            for what, ways in results["sharpness"]["figures"].items()
            for way, x in ways.items()
        ]
        print(common.table(["episodes", "predicts", "PSNR", "gradient energy, last step"], rows))
    if args.json:
        args.json.write_text(json.dumps(results))
    else:
        common.write("video", results)


if __name__ == "__main__":
    main()
