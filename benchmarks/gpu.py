"""What the package makes of an accelerator, on TensorFlow and on JAX alike.

    KERAS_BACKEND=jax python benchmarks/gpu.py [--small] [--rounds 5] [...]

Nothing here is compared with a peer: every time stands beside what the same device needs for bare
matrix products, or for a forward pass.

1. `product`: rate of a large matrix product, float32 as the backend computes it (`tf32` says
   whether it rounds factors) and bfloat16.
2. `training`: images a second in `fit`, of the paper's ImageNet model, in float32 and
   mixed_bfloat16, and its share of the product's rate. Its work is counted as three times the
   convolutions of a forward pass.
3. `quantizer`: forward and training step beside the product of N x D by D x K (the floor).
4. `sampling`: `PixelCNN.sample` in forward passes over the same grid.

`--small` sets sizes that two CPU cores manage in about a minute. A case that fails, by lack of
memory for example, is stored as failed. The result of a GPU is stored as
`results/gpu-<device>-<backend>.json`; on a CPU it is printed only.
"""

import argparse
import json
import math
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common

NUM_CODES, CODE_DIM = 512, 64
FULL = {
    "product_side": 8192, "image_side": 128, "batch": 64, "hidden": 256, "rows": 65536,
    "codes": [512, 8192, 65536], "grid": 32, "layers": 15, "channels": 128,
    "sample_batches": [1, 16, 64], "rounds": 5, "seconds": 1.0,
}  # fmt: skip
SMALL = {
    "product_side": 1024, "image_side": 64, "batch": 8, "hidden": 32, "rows": 1024,
    "codes": [512, 8192, 65536], "grid": 8, "layers": 3, "channels": 32,
    "sample_batches": [1, 16], "rounds": 3, "seconds": 0.1,
}  # fmt: skip


def arguments() -> argparse.Namespace:
    parser = common.Parser(__doc__)
    parser.add_argument("--small", action="store_true", help="sizes for a CPU")
    for name, value in FULL.items():
        many = {"type": type(value)} if not isinstance(value, list) else {"type": int, "nargs": "+"}
        parser.add_argument("--" + name.replace("_", "-"), **many, help=f"default {value}")
    parser.add_argument("--json", type=Path, help="where to store the result instead")
    args = parser.parse_args()
    for name, value in (SMALL if args.small else FULL).items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    return args


if __name__ == "__main__":
    arguments()  # before the imports that take seconds

import keras
import numpy as np
from keras import ops
from training_step import convolutions

from keras_vqvae import ImageVQVAE, PixelCNN, VectorQuantizer, backend

ON_JAX = backend.BACKEND == "jax"
if ON_JAX:  # TensorFlow need not be installed then
    import jax
else:
    import tensorflow as tf


def compiled(fn: Callable) -> Callable:
    return jax.jit(fn) if ON_JAX else tf.function(fn, autograph=False)


def wait(result: Any) -> None:
    """Returns when the device has computed `result`: a call only puts the work into a queue."""
    if ON_JAX:
        jax.block_until_ready(result)
    else:
        tf.test.experimental.sync_devices()


def timer(run: Callable[[int], Any], seconds: float) -> Callable[[], float]:
    """Measures milliseconds a repetition of `run(repetitions)`, of as many as take `seconds`."""
    repetitions = 0

    def measure() -> float:
        nonlocal repetitions
        if not repetitions:
            run(1)  # compiles
            start = time.perf_counter()
            run(1)
            took = time.perf_counter() - start
            repetitions = min(max(round(seconds / took), 1), 1000)
        start = time.perf_counter()
        run(repetitions)
        return (time.perf_counter() - start) * 1e3 / repetitions

    return measure


def calls(fn: Callable[[], Any]) -> Callable[[int], None]:
    def run(repetitions: int) -> None:
        for _ in range(repetitions):
            result = fn()
        wait(result)

    return run


def normal(*shape: int, dtype: str = "float32") -> Any:
    values = np.random.default_rng(len(shape)).standard_normal(shape, "float32")
    return ops.cast(ops.convert_to_tensor(values), dtype)


def product_timer(dtype: str, args: argparse.Namespace) -> Callable[[], float]:
    side = args.product_side
    a, b = normal(side, side, dtype=dtype), normal(side, side, dtype=dtype)
    multiply = compiled(ops.matmul)
    return timer(calls(lambda: multiply(a, b)), args.seconds)


def teraflops(flops: int, took: dict) -> float:
    return flops / took["ms"] / 1e9


def product(dtype: str, args: argparse.Namespace) -> dict:
    """Rate of a product of square matrices."""
    took = common.interleave({"product": product_timer(dtype, args)}, args.rounds)["product"]
    result = {"times": took, "tflops": teraflops(2 * args.product_side**3, took)}
    if dtype == "float32":  # TF32 keeps 10 bits of a factor's mantissa
        ones = np.full((512, 512), 1 + 2.0**-12, "float32")
        same = compiled(ops.matmul)(ops.convert_to_tensor(ones), ops.eye(512))
        result["tf32"] = not np.array_equal(ops.convert_to_numpy(same), ones)
    return result


def forward_flops(model: ImageVQVAE) -> int:
    """Operations of the convolutions for one picture; a multiplication and an addition are two."""
    shape, total = (1, *model.image_shape), 0
    for conv in convolutions(model.encoder) + convolutions(model.decoder):
        out = conv.compute_output_shape(shape)
        # A kernel meets every position of the output; a transposed one every one of the input.
        positions = math.prod((shape if "Transpose" in type(conv).__name__ else out)[1:-1])
        total += 2 * positions * math.prod(conv.kernel.shape)
        shape = out
    return total


def training(dtype: str, args: argparse.Namespace) -> dict:
    """Images a second in `fit`, callbacks and all, of a batch in memory given again and again."""
    keras.utils.set_random_seed(0)
    image = (args.image_side, args.image_side, 3)
    policy = "float32" if dtype == "float32" else f"mixed_{dtype}"
    model = ImageVQVAE(image, NUM_CODES, CODE_DIM, hidden=args.hidden, dtype=policy)
    model.compile("adam")
    images = np.random.default_rng(0).integers(0, 256, (args.batch, *image), "uint8")

    def data() -> Any:
        if ON_JAX:
            return ((images,) for _ in iter(int, 1))  # without end
        return tf.data.Dataset.from_tensors(images).repeat().prefetch(2)

    def run(steps: int) -> None:
        model.fit(data(), steps_per_epoch=steps, shuffle=False, verbose=0)
        wait([variable.value for variable in model.variables])

    sides = {"step": timer(run, args.seconds), "product": product_timer(dtype, args)}
    times = common.interleave(sides, args.rounds)
    flops = 3 * forward_flops(model)
    rate = teraflops(flops * args.batch, times["step"])
    return {
        "times": times,
        "policy": policy,
        "xla": ON_JAX or bool(model.jit_compile),
        "parameters": model.count_params(),
        "images_per_second": args.batch * 1e3 / times["step"]["ms"],
        "gflop_per_image": flops / 1e9,
        "tflops": rate,
        "of_product_rate": rate / teraflops(2 * args.product_side**3, times["product"]),
    }


def training_step(quantizer: VectorQuantizer, z: Any) -> Callable[[], Any]:
    """Forward, backward to the input, codebook update."""
    quantizer(z, training=True)  # starts the codebook

    def loss(info: tuple) -> Any:
        quantized, _, own = info
        return ops.mean(ops.square(quantized)) + ops.mean(own)

    if not ON_JAX:

        @compiled
        def step() -> Any:
            with tf.GradientTape() as tape:
                tape.watch(z)
                value = loss(quantizer(z, training=True, return_info=True))
            return tape.gradient(value, z)

        return step

    trainable = [v.value for v in quantizer.trainable_variables]
    state = [v.value for v in quantizer.non_trainable_variables]

    def pure_loss(z: Any, state: list) -> tuple:
        info, state = quantizer.stateless_call(trainable, state, z, training=True, return_info=True)
        return loss(info), state

    pure_step = compiled(jax.grad(pure_loss, has_aux=True))

    def step_and_keep() -> Any:
        nonlocal state
        gradient, state = pure_step(z, state)
        return gradient, state

    return step_and_keep


def quantizer(num_codes: int, args: argparse.Namespace) -> dict:
    """Times of the quantizer over that of the product alone."""
    z, codebook = normal(args.rows, CODE_DIM), normal(CODE_DIM, num_codes)
    bare = compiled(backend.matmul)  # as precise as the search's
    layer = VectorQuantizer(num_codes, CODE_DIM, seed=0)
    train = training_step(layer, z)
    forward = backend.jit(lambda z: layer(z, training=False), layer)
    sides = {"floor": lambda: bare(z, codebook), "forward": lambda: forward(z), "train": train}
    times = common.interleave(
        {name: timer(calls(fn), args.seconds) for name, fn in sides.items()}, args.rounds
    )
    over = {f"{x}_over_floor": common.ratio(times[x], times["floor"]) for x in ("forward", "train")}
    return {"rows": args.rows, "times": times, **over}


def sampling(batch: int, args: argparse.Namespace) -> dict:
    """Time of a batch of samples over that of a forward pass (the fastest counts)."""
    grid = (args.grid, args.grid)
    codes = np.random.default_rng(0).integers(0, NUM_CODES, (batch, *grid), "int32")
    codes = ops.convert_to_tensor(codes)
    forward, sample = {}, {}
    for name in ("jit",) if ON_JAX else ("graph", "XLA"):
        keras.utils.set_random_seed(0)
        model = PixelCNN(grid, NUM_CODES, hidden=args.channels, num_layers=args.layers)
        model.compile("adam", jit_compile=name != "graph")
        fn = backend.jit(model.logits, model, xla=name == "XLA")
        forward[f"forward, {name}"] = timer(calls(lambda fn=fn: fn(codes)), args.seconds)
        sample[f"sample, {name}"] = timer(
            lambda n, model=model: [
                model.sample(batch, seed=0, batch_size=batch, verbose=0) for _ in range(n)
            ],
            args.seconds,
        )
    times = common.interleave({**forward, **sample}, args.rounds)
    unit = min((times[name] for name in forward), key=lambda x: x["ms"])
    return {
        "times": times,
        "samples_per_second": batch * 1e3 / min(times[name]["ms"] for name in sample),
        "forward_passes": {name: common.ratio(times[name], unit) for name in sample},
    }


def device() -> dict:
    if ON_JAX:
        first = jax.devices()[0]
        kind, name = first.platform, first.device_kind
    else:
        gpus = tf.config.list_physical_devices("GPU")
        kind, name = ("gpu" if gpus else "cpu"), ""
        if gpus:
            name = tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU")
    return {"kind": kind, "name": common.machine()["cpu"] if kind == "cpu" else name}


def attempt(cases: dict, name: str, measure: Callable, *args: Any) -> None:
    """Stores what `measure` gives, or how it failed, so that the others still run."""
    try:
        cases[name] = measure(*args)
    except Exception as error:
        cases[name] = {"failed": f"{type(error).__name__}: {error}".splitlines()[0][:300]}
    shown = {k: v for k, v in cases[name].items() if k != "times"}
    print(f"{name}: {json.dumps(shown)}", flush=True)
    keras.backend.clear_session()


def main() -> None:
    args = arguments()
    found = device()
    print(f"{found['name']}, {backend.BACKEND}")
    cases: dict[str, dict] = {}
    for dtype in ("float32", "bfloat16"):
        attempt(cases, f"product {dtype}", product, dtype, args)
        attempt(cases, f"training {dtype}", training, dtype, args)
    for num_codes in args.codes:
        attempt(cases, f"quantizer K={num_codes}", quantizer, num_codes, args)
    for batch in args.sample_batches:
        attempt(cases, f"sampling batch={batch}", sampling, batch, args)
    sizes = {name: getattr(args, name) for name in FULL}
    results = {"backend": backend.BACKEND, "device": found, "sizes": sizes, "cases": cases}
    if args.json:
        args.json.write_text(json.dumps({"machine": common.machine(), **results}, indent=1) + "\n")
    elif found["kind"] != "cpu":
        name = re.sub(r"[^a-z0-9]+", "-", found["name"].lower()).strip("-")
        common.write(f"gpu-{name}-{backend.BACKEND}", results)


if __name__ == "__main__":
    main()
