"""What can be known of a turn: how far ahead of copying the last frame geometry alone gets.

    python benchmarks/video_bound.py

No model is behind these figures. Of each held-out sequence of ten turns (those that
`examples/video_prediction.py` is measured on) the true angle of every turn is found by trying them
all on the true frames, which no predictor may see. The frames of the context, as far back as only
turns lie between, are projected to where they are then seen from; exact for walls that stand
still, by linear interpolation. What no frame of the context has shown is filled in two ways: by
the mean colour of the last frame, which blurs and is close to the best for PSNR, and by the last
frame in a mirror, as sharp as a real picture and as wrong as any invented one.
"""

import argparse
import json
from pathlib import Path

import common
import numpy as np

DEGREES = np.arange(5.0, 18.0, 0.25)
EDGE = 0.99  # of half a picture: beyond there is nothing to interpolate


def seen_from(angle: float, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Where in a picture of 90 degrees each pixel is that is seen after a turn to the right."""
    x, y = np.meshgrid(*2 * [(np.arange(side) - (side - 1) / 2) / (side / 2)])
    depth = np.cos(angle) - x * np.sin(angle)
    before = depth > 0.05
    depth = np.maximum(depth, 0.05)
    return np.where(before, (x * np.cos(angle) + np.sin(angle)) / depth, 9.0), y / depth


def projected(frame: np.ndarray, angle: float) -> tuple[np.ndarray, np.ndarray]:
    """The frame as it is seen after a turn, and which of its pixels are known."""
    side = frame.shape[0]
    x, y = seen_from(angle, side)
    u, v = (np.clip(axis * side / 2 + (side - 1) / 2, 0, side - 1) for axis in (x, y))
    left, top = (np.minimum(axis.astype(int), side - 2) for axis in (u, v))
    a, b = (u - left)[..., None], (v - top)[..., None]
    frame = frame.astype("float32")
    upper = frame[top, left] * (1 - a) + frame[top, left + 1] * a
    lower = frame[top + 1, left] * (1 - a) + frame[top + 1, left + 1] * a
    return upper * (1 - b) + lower * b, (np.abs(x) <= EDGE) & (np.abs(y) <= EDGE)


def angles(frames: np.ndarray, ways: np.ndarray) -> np.ndarray:
    """Of each step, in radians; `ways` are -1 (left), 1 (right), 0 (no turn)."""
    found = np.zeros(len(ways))
    for t in np.flatnonzero(ways):
        tried = np.deg2rad(DEGREES) * ways[t]
        errors = []
        for angle in tried:
            made, known = projected(frames[t], angle)
            errors.append(((made - frames[t + 1]) ** 2)[known].mean())
        found[t] = tried[np.argmin(errors)]
    return found


def predicted(frames: np.ndarray, ways: np.ndarray, context: int) -> tuple[dict, list]:
    """The frames after the context, by how the unknown is filled, and which share is known."""
    facing = np.concatenate([[0.0], np.cumsum(angles(frames, ways))])
    usable = [context - 1]
    while usable[-1] and ways[usable[-1] - 1]:
        usable.append(usable[-1] - 1)
    last = frames[context - 1].astype("float32")
    fillings = {"mean colour": last.mean((0, 1)) + 0 * last, "mirrored": last[:, ::-1]}
    made: dict = {name: [] for name in fillings}
    known = []
    for t in range(context, len(frames)):
        whole, done = np.zeros_like(last), np.zeros(last.shape[:2], bool)
        for source in usable:
            there, seen = projected(frames[source], facing[t] - facing[source])
            new = seen & ~done
            whole[new] = there[new]
            done |= new
        known.append(float(done.mean()))
        for name, filling in fillings.items():
            made[name].append(np.where(done[..., None], whole, filling))
    return {name: np.round(np.stack(x)).astype("uint8") for name, x in made.items()}, known


def main() -> None:
    parser = common.Parser(__doc__)
    parser.add_argument("--most", type=int, default=96, help="sequences of a set")
    parser.add_argument("--json", type=Path, help="where to store instead of results/")
    args = parser.parse_args()

    import video_prediction as example
    from support import video_scores

    data = example.load(argparse.Namespace(data=None), example.PRESETS["tiny"])
    (left, right), held_out = data.turns, data.held_out
    context, steps = example.CONTEXT, example.STEPS
    results: dict = {}
    for what, episodes in held_out.items():
        frames, actions = video_scores.cut(episodes, context + steps, 2)
        turning = video_scores.all_turns(actions[:, context - 1 : -1], left, right)
        some = turning[video_scores.evenly(len(turning), args.most)]
        ways = (actions[some] == right).astype(int) - (actions[some] == left)
        pairs = [
            predicted(x, way, context) for x, way in zip(frames[some], ways[:, :-1], strict=True)
        ]
        truth = frames[some, context:]
        copy = np.repeat(frames[some, context - 1 : context], steps, 1)
        sides = {"copy of the last frame": copy}
        for name in pairs[0][0]:
            sides[name] = np.stack([made[name] for made, _ in pairs])
        rows = {name: video_scores.by_step(truth, made)["PSNR"] for name, made in sides.items()}
        results[what] = {
            "sequences": len(some),
            "share known by step": np.mean([known for _, known in pairs], 0).round(3).tolist(),
            "PSNR by step": rows,
            "dB ahead of copying": {
                name: round(float(np.mean(row) - np.mean(rows["copy of the last frame"])), 2)
                for name, row in rows.items()
            },
            "gradient energy at the last step / real": {
                name: round(
                    video_scores.gradient_energy(made[:, -1])
                    / video_scores.gradient_energy(truth[:, -1]),
                    2,
                )
                for name, made in sides.items()
            },
        }
        print(what, json.dumps(results[what], indent=1))
    if args.json:
        args.json.write_text(json.dumps(results, indent=1))
    else:
        common.write("video_bound", results)


if __name__ == "__main__":
    main()
