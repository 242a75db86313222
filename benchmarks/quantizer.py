"""VectorQuantizer against vector-quantize-pytorch on CPU, and against the floor.

    python benchmarks/quantizer.py [--rounds 15] [--rounds-large 5]

A forward pass (inference), and a training step: forward, backward to the input, EMA update and
restart of dead codes. 16,384 vectors of size 64. The floor is the time of the distances'
multiplications, 2 N K D, at the rate of a 2048 x 2048 x 2048 product on this machine, measured in
the same rounds. The peer is measured with and without its handling of dead codes (ours is always
on) and the faster of the two counts.
"""

from collections.abc import Callable

import common

SHAPE = (16, 1024, 64)
ROWS = SHAPE[0] * SHAPE[1]
NUM_CODES = (512, 8192)
PEER_DEAD_CODE = {"peer": 0, "peer, dead codes restarted": 2}


def our_step(num_codes: int, training: bool, xla: bool) -> Callable[[], float]:
    import tensorflow as tf

    from keras_vqvae.layers import VectorQuantizer

    tf.random.set_seed(0)
    z = tf.random.normal(SHAPE)
    quantizer = VectorQuantizer(num_codes, SHAPE[-1], seed=0)
    quantizer(z, training=True)  # starts the codebook

    def train(z: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(z)
            quantized = quantizer(z, training=True)
            loss = tf.reduce_mean(tf.square(quantized)) + tf.add_n(quantizer.losses)
        return tape.gradient(loss, z)

    def forward(z: tf.Tensor) -> tf.Tensor:
        return quantizer(z, training=False)

    step = tf.function(train if training else forward, autograph=False, jit_compile=xla)
    return lambda: common.milliseconds(lambda: step(z))


def measure(peer: common.Peer, num_codes: int, training: bool, rounds: int) -> dict:
    sides = {"matmul": common.matmul_timer(), "ours": our_step(num_codes, training, xla=False)}
    if num_codes == min(NUM_CODES):
        sides["ours, XLA"] = our_step(num_codes, training, xla=True)
    for name, dead_code in PEER_DEAD_CODE.items():
        if dead_code and not training:
            continue  # plays no part in inference
        peer.ask(
            op="prepare", name=name, shape=SHAPE, num_codes=num_codes, training=training,
            dead_code=dead_code, threads=common.machine()["cores"],
        )  # fmt: skip
        sides[name] = lambda name=name: peer.ask(op="time", name=name)["ms"]
    times = common.interleave(sides, rounds)
    peer.ask(op="forget")

    gflops = common.MATMUL_GFLOP / times["matmul"]["ms"] * 1e3
    floor = 2 * ROWS * num_codes * SHAPE[-1] / 1e9 / gflops * 1e3
    best = min((n for n in PEER_DEAD_CODE if n in times), key=lambda name: times[name]["ms"])
    results = {
        name: {
            "ours_ms": times[name]["ms"],
            "peer_ms": times[best]["ms"],
            "faster_peer": best,
            "peer_over_ours": common.ratio(times[best], times[name]),
            "floor_ms": round(floor, 3),
            "ours_over_floor": round(times[name]["ms"] / floor, 3),
        }
        for name in ("ours", "ours, XLA")
        if name in times
    }
    return {"gflops": round(gflops, 1), "results": results, "times": times}


def main() -> None:
    parser = common.Parser(__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="rounds with K=512")
    parser.add_argument("--rounds-large", type=int, default=5, help="rounds with K=8192")
    args = parser.parse_args()
    cases, rows = {}, []
    with common.Peer("quantizer_torch.py") as peer:
        versions = peer.ask(op="versions")
        for num_codes in NUM_CODES:
            for training in (False, True):
                what = "train" if training else "forward"
                large = num_codes == max(NUM_CODES)
                rounds = args.rounds_large if large else args.rounds
                case = measure(peer, num_codes, training, rounds)
                cases[f"{what} K={num_codes}"] = case
                for name, r in case["results"].items():
                    q = r["peer_over_ours"]
                    spread = "{:.3g}-{:.3g}".format(*q["quartiles"])
                    rows.append([
                        num_codes, what, name, r["ours_ms"], r["peer_ms"], q["ratio"], spread,
                        r["floor_ms"], r["ours_over_floor"],
                    ])  # fmt: skip
    rounds = f"{args.rounds} rounds ({args.rounds_large} with K={max(NUM_CODES)})"
    print(f"N={ROWS}, D={SHAPE[-1]}; medians of {rounds}; the faster peer counts\n")
    headers = ["K", "step", "side", "ours ms", "peer ms", "peer/ours", "quartiles", "floor ms"]
    print(common.table([*headers, "ours/floor"], rows))
    common.write("quantizer", {"peer": versions, "cases": cases})


if __name__ == "__main__":
    main()
