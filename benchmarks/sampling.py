"""Cost of drawing from PixelCNN, in forward passes, and beside one `predict` a code.

    python benchmarks/sampling.py [--rounds 5] [--batches 1 16]

The unit is one forward pass over the same grid (the faster of graph and XLA): re-running the
network for every code costs as many of them as the grid has codes. `prior.sample` is timed as a
user calls it, in graph mode and with `compile(jit_compile=True)`; compilation is left out and told
separately. The loop is that of keras.io's PixelCNN example, one `predict` a code, over the same
network.
"""

import time

import common

NUM_CODES = 512
# https://github.com/PrajitR/fast-pixel-cnn: caching over re-running, K40, by batch size.
PUBLISHED = {1: 2, 16: 18, 256: 183}


def make(grid: tuple, hidden: int, num_layers: int):
    import keras

    from keras_vqvae import PixelCNN

    keras.utils.set_random_seed(0)
    return PixelCNN(grid, NUM_CODES, hidden=hidden, num_layers=num_layers)


def cost(grid: tuple, hidden: int, num_layers: int, batch: int, rounds: int) -> dict:
    """Cached sampling in units of a forward pass."""
    import numpy as np
    import tensorflow as tf

    graph, xla = (make(grid, hidden, num_layers) for _ in range(2))
    xla.compile("adam", jit_compile=True)
    codes = tf.constant(np.random.default_rng(0).integers(0, NUM_CODES, (batch, *grid)), "int32")
    forward = {
        f"forward, {name}": tf.function(graph.__call__, autograph=False, jit_compile=jit)
        for name, jit in {"graph": None, "XLA": True}.items()
    }
    sides = {
        name: lambda fn=fn: common.milliseconds(lambda: fn(codes)) for name, fn in forward.items()
    }
    compilation = {}
    for name, model in {"graph": graph, "XLA": xla}.items():
        start = time.perf_counter()
        model.sample(batch, seed=0, batch_size=batch, verbose=0)
        compilation[name] = round(time.perf_counter() - start, 1)
        sides[f"sample, {name}"] = lambda model=model: common.milliseconds(
            lambda: model.sample(batch, seed=0, batch_size=batch, verbose=0)
        )
    same = np.mean(
        graph.sample(batch, seed=0, batch_size=batch) == xla.sample(batch, seed=0, batch_size=batch)
    )
    times = common.interleave(sides, rounds)
    unit = min((times[name] for name in forward), key=lambda x: x["ms"])
    positions = int(np.prod(grid))
    passes = {name: common.ratio(times[f"sample, {name}"], unit) for name in compilation}
    least = min(passes.values(), key=lambda x: x["ratio"])["ratio"]
    return {
        "batch": batch,
        "times": times,
        "first_call_seconds": compilation,
        "graph_and_xla_agree": float(same),
        "forward_passes": passes,
        "faster_than_rerunning": round(positions / least, 1),
        "published_fast_pixel_cnn": PUBLISHED.get(batch),
    }


def loop(grid: tuple, hidden: int, num_layers: int, batch: int, rounds: int) -> dict:
    """`prior.sample` beside one `predict` a code."""
    import numpy as np

    model = make(grid, hidden, num_layers)
    random = np.random.default_rng(0)

    def predict_each() -> float:
        start = time.perf_counter()
        codes = np.zeros((batch, *grid), "int32")
        for row in range(grid[0]):
            for column in range(grid[1]):
                logits = model.predict(codes, verbose=0)[:, row, column]
                noise = random.gumbel(size=logits.shape)
                codes[:, row, column] = np.argmax(logits + noise, -1)
        return (time.perf_counter() - start) * 1e3

    times = common.interleave(
        {
            "predict a code": predict_each,
            "sample": lambda: common.milliseconds(lambda: model.sample(batch, seed=0, verbose=0)),
        },
        rounds,
    )
    return {
        "grid": grid,
        "batch": batch,
        "times": times,
        "ratio": common.ratio(times["predict a code"], times["sample"]),
    }


def main() -> None:
    parser = common.Parser(__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="of timing")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16], help="samples at once")
    parser.add_argument("--side", type=int, default=32, help="of the grid")
    parser.add_argument("--hidden", type=int, default=128, help="channels of the network")
    parser.add_argument("--layers", type=int, default=15, help="of the network")
    args = parser.parse_args()
    grid = (args.side, args.side)
    costs = [cost(grid, args.hidden, args.layers, batch, args.rounds) for batch in args.batches]
    headers = ["batch", "forward ms", "sample ms", "passes, graph", "passes, XLA"]
    headers += ["x re-running", "fast-pixel-cnn"]
    rows = [
        [
            c["batch"],
            min(c["times"][f"forward, {name}"]["ms"] for name in ("graph", "XLA")),
            min(c["times"][f"sample, {name}"]["ms"] for name in ("graph", "XLA")),
            c["forward_passes"]["graph"]["ratio"],
            c["forward_passes"]["XLA"]["ratio"],
            c["faster_than_rerunning"],
            c["published_fast_pixel_cnn"],
        ]
        for c in costs
    ]
    print(f"PixelCNN, {args.side}x{args.side}, {args.layers} layers, {args.hidden} channels")
    print(common.table(headers, rows))
    print(f"Published for fast-pixel-cnn, by batch, over re-running (K40): {PUBLISHED}")
    loops = [loop((side, side), args.hidden, 8, 4, max(2, args.rounds // 3)) for side in (7, 28)]
    print("\nBeside one predict a code (batch 4, 8 layers)")
    rows = [[f"{x['grid'][0]}x{x['grid'][1]}", x["times"]["predict a code"]["ms"],
             x["times"]["sample"]["ms"], x["ratio"]["ratio"]] for x in loops]  # fmt: skip
    print(common.table(["grid", "loop ms", "sample ms", "ratio"], rows))
    common.write(
        "sampling",
        {
            "network": vars(args),
            "published_fast_pixel_cnn": PUBLISHED,
            "rounds": args.rounds,
            "cost": costs,
            "predict_loop": loops,
        },
    )


if __name__ == "__main__":
    main()
