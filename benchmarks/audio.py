"""How fast the WaveNet decoder generates sound, against its own network run again for each sample.

    python benchmarks/audio.py [--rounds 5] [--batches 1 16]

Timed are `AudioVQVAE.decode`, with XLA and in graph mode, and the `decode` endpoint of a SavedModel
written with and without `jit_compile`; compilation is left out and told separately. Samples count
over the whole batch.

- `x re-running`: a sample by running the network again costs a forward pass over one receptive
  field, of which only the last output is used; measured at the same batch, in graph mode and by
  XLA, the faster counts.
- Bandwidth: at every step all weights are read once, whatever the batch. That many bytes a second
  are set beside what a matrix times a vector reads of a matrix of the same size, which stays in the
  cache, and of one of 512 MiB, which does not: the fastest of numpy, TensorFlow and XLA.
- Arithmetic: two operations a weight and sample, beside a 2048 x 2048 x 2048 float32 product.
"""

import argparse
import json
import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import common
import numpy as np

SAMPLE_RATE = 16000
AIMS = {1: 16_000, 16: 30_000}  # samples a second; the first is real time
AIM_RERUNNING = 500


def make(args: argparse.Namespace):
    import keras

    from keras_vqvae import AudioVQVAE
    from keras_vqvae.models.wavenet import WaveNetDecoder

    keras.utils.set_random_seed(0)
    decoder = WaveNetDecoder(
        args.upsampling,
        channels=args.channels,
        skip_channels=args.skip_channels,
        dilations=tuple(args.dilations) * args.repeats,
    )
    return AudioVQVAE(SAMPLE_RATE, downsampling=args.upsampling, decoder=decoder)


def weights_read(decoder) -> int:
    """Weights that every step reads: all but those of the embedding, of which it reads a row."""
    embedding = sum(math.prod(v.shape) for v in decoder._inputs.weights)
    # The conditions' are read once a code.
    conditions = sum(
        math.prod(v.shape)
        for block in decoder._stack._blocks
        for layer in (block.local_condition, block.global_condition)
        if layer is not None
        for v in layer.weights
    )
    return decoder.count_params() - embedding - conditions


def generation(args: argparse.Namespace, vqvae, endpoints: dict, batch: int) -> dict:
    """Samples a second of each side, and the cost of re-running."""
    import tensorflow as tf

    random = np.random.default_rng(0)
    codes = random.integers(0, vqvae.num_codes, (batch, args.codes)).astype("int32")
    samples = args.codes * vqvae.downsampling
    drawing = {"seed": tf.constant(0), "temperature": tf.constant(1.0)}

    def decode(jit: bool) -> Callable:
        return lambda: vqvae.decode(codes, jit_compile=jit, batch_size=batch, verbose=0)

    def ask(endpoint: Callable) -> Callable:
        return lambda: endpoint(codes=tf.constant(codes), **drawing)["waveform"].numpy()

    calls = {"decode, XLA": decode(True), "decode, graph": decode(False)}
    calls |= {f"endpoint, {name}": ask(endpoint) for name, endpoint in endpoints.items()}
    first_call = {}
    for name, call in calls.items():
        start = time.perf_counter()
        call()
        first_call[name] = round(time.perf_counter() - start, 1)

    # A whole number of codes that covers one receptive field.
    field = -(-vqvae.receptive_field // vqvae.downsampling)
    latents = tf.random.normal((batch, field, vqvae.quantizer.code_dim))
    waveform = tf.random.uniform((batch, field * vqvae.downsampling), -1.0, 1.0)
    for name, jit in {"graph": None, "XLA": True}.items():
        forward = tf.function(
            lambda x, y: vqvae.decoder(x, y)[:, -1], autograph=False, jit_compile=jit
        )
        calls[f"forward, {name}"] = lambda forward=forward: forward(latents, waveform).numpy()

    def once(call: Callable) -> Callable[[], float]:
        def measure() -> float:
            start = time.perf_counter()
            call()
            return (time.perf_counter() - start) * 1e3

        return measure

    times = common.interleave({name: once(call) for name, call in calls.items()}, args.rounds)
    forward = min((times[f"forward, {name}"] for name in ("graph", "XLA")), key=lambda x: x["ms"])
    sides = {}
    for name, side in times.items():
        if name.startswith("forward"):
            continue
        again = {key: np.multiply(samples, forward[key]).tolist() for key in ("ms", "samples")}
        sides[name] = {
            **side,
            "first_call_seconds": first_call[name],
            "samples_per_second": round(batch * samples / side["ms"] * 1e3),
            "times_rerunning": common.ratio(again, side),
        }
    return {
        "batch": batch,
        "samples": samples,
        "sides": sides,
        "forward": {name: times[f"forward, {name}"] for name in ("graph", "XLA")},
        "forward_samples": field * vqvae.downsampling,
    }


def read_rate(size: int, rounds: int) -> float:
    """Bytes a second that a matrix of `size` bytes, times a vector, is read with."""
    import tensorflow as tf

    matrix = np.ones((max(1, size // 4096), 1024), "float32")
    vector = np.ones(1024, "float32")
    a, b = tf.constant(matrix), tf.constant(vector)
    repeats = max(1, 2**28 // size)
    product = tf.linalg.matvec
    compiled = tf.function(product, jit_compile=True)
    sides = {
        "numpy": lambda: matrix @ vector,
        "TensorFlow": lambda: product(a, b).numpy(),
        "XLA": lambda: compiled(a, b).numpy(),
    }
    timers = {
        name: lambda call=call: common.milliseconds(call, repeats) for name, call in sides.items()
    }
    times = common.interleave(timers, rounds)
    return matrix.nbytes / min(side["ms"] for side in times.values()) * 1e3


def main() -> None:
    parser = common.Parser(__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="of timing")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16], help="clips at once")
    parser.add_argument("--codes", type=int, default=64, help="to decode")
    parser.add_argument("--upsampling", type=int, default=64, help="samples a code")
    parser.add_argument("--channels", type=int, default=64, help="of a block")
    parser.add_argument("--skip-channels", type=int, default=256, help="of the output")
    parser.add_argument(
        "--dilations", type=int, nargs="+", default=[2**i for i in range(10)], help="of blocks"
    )
    parser.add_argument("--repeats", type=int, default=3, help="of the dilations")
    parser.add_argument("--memory-mib", type=int, default=512, help="of the matrix beyond caches")
    parser.add_argument("--json", type=Path, help="where to store instead of results/audio.json")
    args = parser.parse_args()

    import keras
    import tensorflow as tf

    from keras_vqvae import export_savedmodel

    keras.utils.disable_interactive_logging()
    vqvae = make(args)
    with tempfile.TemporaryDirectory() as folder:
        endpoints, archives = {}, []
        for name, jit in {"XLA": True, "graph": False}.items():
            path = Path(folder, name)
            export_savedmodel(vqvae, path, jit_compile=jit)
            archives.append(tf.saved_model.load(path))  # an endpoint does not keep its variables
            endpoints[name] = archives[-1].signatures["decode"]
        found = [generation(args, vqvae, endpoints, batch) for batch in args.batches]

    weights = weights_read(vqvae.decoder)
    rates = {
        "cache": read_rate(4 * weights, args.rounds),
        "memory": read_rate(args.memory_mib * 2**20, args.rounds),
    }
    matmul = common.interleave({"matmul": common.matmul_timer()}, args.rounds)["matmul"]
    flops = common.MATMUL_GFLOP * 1e12 / matmul["ms"]
    rows = []
    for case in found:
        batch = case["batch"]
        for name, side in case["sides"].items():
            per_second = side["samples_per_second"]
            moved, operations = 4 * weights * per_second / batch, 2 * weights * per_second
            side["share"] = {
                **{kind: moved / rate for kind, rate in rates.items()},
                "arithmetic": operations / flops,
            }
            rows.append(
                [batch, name, side["first_call_seconds"], float(per_second),
                 per_second / batch / SAMPLE_RATE, side["times_rerunning"]["ratio"],
                 *side["share"].values()]
            )  # fmt: skip
    headers = ["batch", "side", "first call s", "samples/s", "x real time each", "x re-running"]
    headers += ["of cache", "of memory", "of arithmetic"]
    print(f"{len(args.dilations) * args.repeats} layers, {args.channels} channels, "
          f"{args.skip_channels} skip, {weights:,} weights a step")  # fmt: skip
    print(common.table(headers, rows))
    print(
        f"\nread in cache {rates['cache'] / 1e9:.0f} GB/s, from memory "
        f"{rates['memory'] / 1e9:.0f} GB/s; matrix product {flops / 1e9:.0f} GFLOP/s"
    )
    print(f"Aims: {AIMS} samples/s by batch; {AIM_RERUNNING} x re-running")
    results = {
        "arguments": {k: v for k, v in vars(args).items() if k != "json"},
        "weights_a_step": weights,
        "receptive_field": vqvae.receptive_field,
        "machine_rates": {
            **{f"{kind}_bytes_per_second": rate for kind, rate in rates.items()},
            "operations_per_second": flops,
        },
        "cases": found,
    }
    if args.json:
        args.json.write_text(json.dumps(results))
    else:
        common.write("audio", results)


if __name__ == "__main__":
    main()
