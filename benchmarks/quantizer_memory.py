"""Peak memory of a VectorQuantizer training step with a large codebook, above its inputs.

    python benchmarks/quantizer_memory.py [--limit-gib 12]

16,384 vectors of size 64 against 65,536 codes: forward, backward to the input and EMA update, three
times. Each side runs in a fresh process, warmed up on tiny sizes, which notes its resident memory
once the inputs exist and, a thread reading it every few milliseconds, the most it reaches. The peer
runs under a limit on its address space (RLIMIT_AS). Linux only.
"""

import argparse
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import common

SHAPE, NUM_CODES = (16, 1024, 64), 65536
# Codebook and moving sums, K*D float32 each, and the counts: what any EMA quantizer must keep.
STATE_MIB = (2 * NUM_CODES * SHAPE[-1] + NUM_CODES) * 4 / 2**20


def resident_mib() -> float:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * 4096 / 2**20


def report_peak(prepare: Callable[[], Any], run: Callable[[Any], None]) -> None:
    """Prints, as JSON, how far resident memory rises in `run(inputs)` above that before it."""
    inputs = prepare()
    before = peak = resident_mib()
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.is_set():
            peak = max(peak, resident_mib())
            time.sleep(0.002)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        run(inputs)
        failure = None
    except (MemoryError, RuntimeError) as error:
        failure = f"{type(error).__name__}: {str(error).splitlines()[0][:160]}"
    done.set()
    watcher.join()
    print(json.dumps({"peak_mib": round(peak - before, 1), "failure": failure}))


def ours() -> None:
    import tensorflow as tf

    from keras_vqvae.layers import VectorQuantizer

    def run(z: tf.Tensor, num_codes: int = NUM_CODES) -> None:
        quantizer = VectorQuantizer(num_codes, SHAPE[-1], seed=0)
        quantizer.build(z.shape)

        @tf.function(autograph=False)
        def train(z: tf.Tensor) -> tf.Tensor:
            with tf.GradientTape() as tape:
                tape.watch(z)
                quantized = quantizer(z, training=True)
                loss = tf.reduce_mean(tf.square(quantized)) + tf.add_n(quantizer.losses)
            return tape.gradient(loss, z)

        for _ in range(3):
            train(z)

    run(tf.random.normal((2, 8, SHAPE[-1])), num_codes=16)
    report_peak(lambda: tf.random.normal(SHAPE), run)


def theirs(limit_gib: float) -> None:
    import resource

    import torch
    from vector_quantize_pytorch import VectorQuantize

    limit = int(limit_gib * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    def run(z: torch.Tensor, num_codes: int = NUM_CODES) -> None:
        quantizer = VectorQuantize(
            dim=SHAPE[-1], codebook_size=num_codes, decay=0.99, commitment_weight=0.25,
            rotation_trick=False,
        )  # fmt: skip
        for _ in range(3):
            quantized, _, loss = quantizer(z)
            (quantized.square().mean() + loss.sum()).backward()

    run(torch.randn(2, 8, SHAPE[-1], requires_grad=True), num_codes=16)
    report_peak(lambda: torch.randn(*SHAPE, requires_grad=True), run)


def child(python: Any, side: str, limit_gib: float) -> dict:
    command = [python, __file__, "--side", side, "--limit-gib", str(limit_gib)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    if done.returncode or not done.stdout:
        return {"peak_mib": None, "failure": f"ended with exit status {done.returncode}"}
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = common.Parser(__doc__)
    parser.add_argument("--limit-gib", type=float, default=12.0, help="address space of the peer")
    parser.add_argument("--side", choices=("ours", "theirs"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side == "ours":
        return ours()
    if args.side == "theirs":
        return theirs(args.limit_gib)
    sides = {
        "ours": child(sys.executable, "ours", args.limit_gib),
        "vector-quantize-pytorch": child(common.peers_python(), "theirs", args.limit_gib),
    }
    rows = []
    for name, side in sides.items():
        if not side["failure"]:
            side["peak_without_state_mib"] = round(side["peak_mib"] - STATE_MIB, 1)
        # The whole message is in the JSON.
        failed = side["failure"] and f"under a limit of {args.limit_gib:g} GiB"
        rows.append([name, side["peak_mib"], side.get("peak_without_state_mib"), failed or "no"])
    print(f"N=16384, D={SHAPE[-1]}, K={NUM_CODES}; state is {STATE_MIB:.1f} MiB; aim <= 1024 MiB\n")
    headers = ["side", "peak MiB above inputs", "without state", "failed"]
    print(common.table(headers, rows))
    sizes = {"state_mib": STATE_MIB, "limit_gib": args.limit_gib}
    common.write("quantizer_memory", {**sizes, "sides": sides})


if __name__ == "__main__":
    main()
