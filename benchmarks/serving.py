"""Latency and throughput of exported endpoints, their overhead over the model itself, and a soak.

    python benchmarks/serving.py [--rounds 7] [--batches 1 8 32] [--clients 1 2 4 8 16]
    python benchmarks/serving.py --small --only soak

Everything runs in one process over a session, as TensorFlow Serving loads a SavedModel
(`tests/serving/double.py`); no network, but for the part of the soak that goes over gRPC to the
test double in a process of its own.

- Overhead: the endpoint over the session, beside the same computation as a `tf.function` of the
  model, without the endpoint's checks, as the model's own method on arrays (`vqvae.encode`), and
  for `reconstruct` as Keras's `predict`. Arrays in, arrays out; the median of the ratios, round by
  round. `session` has its usual threads; `direct` runs all operations in the thread that asks
  (`inter_op_parallelism_threads: -1`).
- Latency and throughput: each client is a thread that asks again as soon as it is answered. The
  session has one pool of threads for all.
- Soak: good and bad requests, mixed at random: any input out of its range, of a wrong shape, NaN or
  a broken file; among the good ones empty batches. Every good one must be answered, every bad one
  refused as INVALID_ARGUMENT, and memory at the end be that after the first third.

The models are random but for the zoo's pictures: speed does not depend on weights.
"""

import argparse
import contextlib
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import common
import numpy as np

sys.path[:0] = [str(common.ROOT / "examples" / "serving"), str(common.ROOT / "zoo")]

AIM_OVERHEAD = 1.05
AIM_GROWTH = 0.02
LEAST_REQUESTS = 100  # of fewer there is no 99th percentile
SAMPLE_RATE, FRAMES, STEPS = 16000, 6, 10
DRAWING = {"temperature": np.float32(1), "top_k": np.int32(10**6), "top_p": np.float32(1)}
SEED = {"seed": np.int32(0)}


class Endpoint(NamedTuple):
    """A signature, and the same without export.

    Attributes:
        inputs: from a batch size to arrays by name.
        function: from those, in their order, as tensors to tensors, by the model alone; None where
            there is none.
        method: the same on arrays, as users of the package call it.
        predict: the same by Keras's `predict`.
    """

    model: str
    signature: str
    inputs: Callable[[int], dict[str, np.ndarray]]
    function: Callable[..., Any] | None
    method: Callable[..., Any] | None
    predict: Callable[..., Any] | None = None


def pictures(args: argparse.Namespace) -> Any:
    import keras
    import run as zoo

    from keras_vqvae import ImageVQVAE

    keras.utils.set_random_seed(0)
    if not args.small:
        return zoo.load("vizdoom_frames")
    vqvae = ImageVQVAE((16, 16, 3), num_codes=32, hidden=8)
    vqvae(np.zeros((1, 16, 16, 3), "uint8"))
    return vqvae


def image_endpoints(args: argparse.Namespace) -> tuple[Any, Any, list[Endpoint]]:
    """The zoo's model of 64x64 pictures, and a prior of 256 codes."""
    from keras_vqvae import PixelCNN, sampling

    vqvae = pictures(args)
    size = {"hidden": 8, "num_layers": 2} if args.small else {"hidden": 64, "num_layers": 10}
    prior = PixelCNN(vqvae.grid_shape, vqvae.num_codes, **size)
    prior(np.zeros((1, *vqvae.grid_shape), "int32"))
    rng = np.random.default_rng(0)

    def images(n: int) -> dict:
        return {"images": rng.integers(0, 256, (n, *vqvae.image_shape)).astype("uint8")}

    def codes(n: int) -> dict:
        grid = (n, *vqvae.grid_shape)
        return {"codes": rng.integers(0, vqvae.num_codes, grid).astype("int32")}

    def draw(number: Any, seed: Any, temperature: Any, top_k: Any, top_p: Any) -> tuple:
        how = sampling.Options(temperature, top_k, top_p)
        drawn = sampling.sample(prior, number, seed, None, how)
        return drawn, vqvae.decode(drawn)

    def sample(number: Any, *_: Any) -> tuple:
        drawn = prior.sample(int(number), seed=0, verbose=0)
        return drawn, vqvae.decode(drawn)

    def reconstruct(images: Any) -> tuple:
        made = vqvae.encode(images)
        return vqvae.decode(made), made

    def number(n: int) -> dict:
        return {"number": np.int32(n), **SEED, **DRAWING}

    def endpoint(name: str, inputs: Callable, *sides: Callable) -> Endpoint:
        return Endpoint("image", name, inputs, *sides)

    return (
        vqvae,
        prior,
        [
            endpoint("encode", images, vqvae.encode, vqvae.encode),
            endpoint("decode", codes, vqvae.decode, vqvae.decode),
            endpoint(
                "reconstruct", images, reconstruct, reconstruct,
                lambda images: vqvae.predict(images, verbose=0),
            ),
            endpoint("sample", number, draw, sample),
            endpoint("log_prob", codes, prior.log_prob, prior.log_prob),
        ],
    )  # fmt: skip


def file_endpoints(args: argparse.Namespace) -> tuple[Any, None, list[Endpoint]]:
    """The same model, which takes and gives PNG files."""
    import tensorflow as tf

    vqvae, rng = pictures(args), np.random.default_rng(0)

    def images(n: int) -> dict:
        pixels = rng.integers(0, 256, (n, *vqvae.image_shape)).astype("uint8")
        return {"images_bytes": np.array([tf.io.encode_png(x).numpy() for x in pixels], object)}

    def encode(files: Any) -> Any:
        def pixels(file: Any) -> Any:
            return tf.ensure_shape(tf.io.decode_png(file, 3), vqvae.image_shape)

        return vqvae.encode(tf.map_fn(pixels, files, fn_output_signature="uint8"))

    def reconstruct(files: Any) -> tuple:
        codes = encode(files)
        made = vqvae.decode(codes)
        return codes, tf.map_fn(tf.io.encode_png, made, fn_output_signature="string")

    def codes(n: int) -> dict:
        grid = (n, *vqvae.grid_shape)
        return {"codes": rng.integers(0, vqvae.num_codes, grid).astype("int32")}

    def decode(codes: Any) -> Any:
        made = vqvae.decode(codes)
        return tf.map_fn(tf.io.encode_png, made, fn_output_signature="string")

    return (
        vqvae,
        None,
        [
            Endpoint("files", "encode", images, encode, None),
            Endpoint("files", "decode", codes, decode, None),
            Endpoint("files", "reconstruct", images, reconstruct, None),
        ],
    )


def wavenet_endpoints(args: argparse.Namespace) -> tuple[Any, None, list[Endpoint]]:
    """A tenth of a second, drawn sample by sample, whole and as the first of a stream."""
    import keras
    import tensorflow as tf

    from keras_vqvae import AudioVQVAE, sampling
    from keras_vqvae.models.wavenet import WaveNetDecoder

    keras.utils.set_random_seed(0)
    if args.small:
        decoder = WaveNetDecoder(channels=8, skip_channels=8, dilations=(1, 2))
    else:
        decoder = WaveNetDecoder(dilations=tuple(2**i for i in range(10)) * 2)
    vqvae = AudioVQVAE(SAMPLE_RATE, decoder=decoder, hidden=8 if args.small else 128)
    count = max(1, (160 if args.small else 1600) // vqvae.downsampling)
    rng = np.random.default_rng(0)

    def codes(n: int) -> dict:
        some = rng.integers(0, vqvae.num_codes, (n, count)).astype("int32")
        return {"codes": some, **SEED, "temperature": np.float32(1)}

    def decode(codes: Any, *_: Any) -> Any:
        return vqvae.decode(codes, seed=0, jit_compile=False, verbose=0)

    def draw(codes: Any, seed: Any, temperature: Any) -> Any:
        state = vqvae.decoder.initial_state(tf.shape(codes)[0])
        how = sampling.Options(temperature, vqvae.decoder.likelihood.levels, 1.0)
        return vqvae.generate(state, codes, None, seed, how)[0]

    def waveform(n: int) -> dict:
        size = (n, count * vqvae.downsampling)
        return {"waveform": rng.uniform(-0.5, 0.5, size).astype("float32")}

    def draw_chunk(n: int) -> dict:
        channels = vqvae.decoder.initial_state(1)["buffers"][0].shape[-1]
        state = {"buffers": np.zeros((n, 0, channels), "float32"), "row": np.int32(0)}
        drawing = {**SEED, "temperature": np.float32(1)}
        return {"codes": codes(n)["codes"], **state, "previous": np.zeros(n, "int32"), **drawing}

    def draw_first(codes: Any, buffers: Any, row: Any, previous: Any, *drawing: Any) -> Any:
        return draw(codes, *drawing)

    vqvae(waveform(1)["waveform"])
    return (
        vqvae,
        None,
        [
            Endpoint("wavenet", "encode", waveform, vqvae.encode, vqvae.encode),
            Endpoint("wavenet", "decode", codes, draw, decode),
            Endpoint("wavenet", "decode_stream", draw_chunk, draw_first, None),
        ],
    )


def sound_endpoints(args: argparse.Namespace) -> tuple[Any, Any, list[Endpoint]]:
    """One second of sound at 16 kHz, a parallel decoder; and a prior by speaker."""
    import keras

    from keras_vqvae import AudioVQVAE, WaveNet, sampling
    from keras_vqvae.models.streaming import context_of

    keras.utils.set_random_seed(0)
    seconds = 0.1 if args.small else 1.0
    size = {"hidden": 8, "finest_hidden": 4} if args.small else {}
    vqvae = AudioVQVAE(SAMPLE_RATE, num_speakers=4, decoder="parallel", **size)
    samples = int(seconds * SAMPLE_RATE) // vqvae.downsampling * vqvae.downsampling
    rng = np.random.default_rng(0)

    def waveform(n: int) -> dict:
        return {"waveform": rng.uniform(-0.5, 0.5, (n, samples)).astype("float32")}

    def speaker(n: int) -> dict:
        return {"speaker": np.arange(n, dtype="int32") % 4}

    def codes(n: int) -> dict:
        size = (n, samples // vqvae.downsampling)
        return {"codes": rng.integers(0, vqvae.num_codes, size).astype("int32")}

    vqvae({**waveform(1), **speaker(1)})
    channels = {"channels": 8, "skip_channels": 8} if args.small else {}
    prior = WaveNet(vqvae.num_codes, num_classes=4, dilations=(1, 2, 4, 8) * 3, **channels)
    prior({**codes(1), "condition": np.zeros(1, "int32")})

    def conditioned(n: int) -> dict:
        return {**codes(n), "condition": speaker(n)["speaker"]}

    def new(n: int) -> dict:
        length = {"length": np.int32(samples // vqvae.downsampling)}
        classes = {"condition": speaker(n)["speaker"]}
        return {"number": np.int32(n), **SEED, **DRAWING, **length, **classes}

    def log_prob(codes: Any, condition: Any) -> Any:
        return prior.log_prob({"codes": codes, "condition": condition})

    def draw(number: Any, seed: Any, *rest: Any) -> tuple:
        *how, length, condition = rest
        options = sampling.Options(*how)
        drawn = sampling.sample(prior, number, seed, condition, options, length)
        return drawn, decode(drawn, condition)

    def decode(codes: Any, speaker: Any) -> Any:
        return vqvae._decode_parallel({"codes": codes, "speaker": speaker})

    def reconstruct(waveform: Any, speaker: Any) -> tuple:
        codes = vqvae.encode(waveform)
        return decode(codes, speaker), codes

    def encode_chunk(n: int) -> dict:  # the first of a stream
        state = {"pending": np.zeros((n, 0), "float32"), "given": np.int32(0)}
        return {**waveform(n), **state, "last": np.bool_(False)}

    def decode_chunk(n: int) -> dict:
        state = {"pending": np.zeros((n, 0), "int32"), "given": np.int32(0)}
        if vqvae.has_source:
            state["source"] = np.zeros((n, 2), "int32")
        return {**codes(n), **state, "last": np.bool_(False), **speaker(n)}

    # Of a first chunk all is computed, and what later ones may change is held back.
    def encode_first(waveform: Any, *_: Any) -> Any:
        return vqvae.encode(waveform)[:, : -context_of(vqvae.encoder)[1] or None]

    def decode_first(codes: Any, *state: Any) -> Any:
        held_back = context_of(vqvae.decoder)[1] * vqvae.downsampling
        return decode(codes, state[-1])[:, : -held_back or None]

    def endpoint(name: str, inputs: Callable, *sides: Callable | None) -> Endpoint:
        return Endpoint("sound", name, inputs, *sides)

    return (
        vqvae,
        prior,
        [
            endpoint("sample", new, draw, None),
            endpoint("log_prob", conditioned, log_prob, log_prob),
            endpoint("encode", waveform, vqvae.encode, vqvae.encode),
            endpoint("decode", lambda n: {**codes(n), **speaker(n)}, decode, vqvae.decode),
            endpoint(
                "convert",
                lambda n: {**waveform(n), **speaker(n)},
                reconstruct,
                lambda waveform, speaker: vqvae.convert(waveform, speaker, verbose=0),
                lambda waveform, speaker: vqvae.predict(
                    {"waveform": waveform, "speaker": speaker}, verbose=0
                ),
            ),
            endpoint("encode_stream", encode_chunk, encode_first, None),
            endpoint("decode_stream", decode_chunk, decode_first, None),
        ],
    )


def video_endpoints(args: argparse.Namespace) -> tuple[Any, None, list[Endpoint]]:
    """Ten frames after six; and one, as a player gets it. (The others are those of pictures.)"""
    import keras

    from keras_vqvae import ImageVQVAE, VideoPredictor, sampling

    keras.utils.set_random_seed(0)
    side, size = (16, {"hidden": 8}) if args.small else (64, {"hidden": 64})
    steps = 2 if args.small else STEPS
    vqvae = ImageVQVAE((side, side, 3), code_dim=32, downsampling=8, **size)
    layers = {"hidden": 8, "num_layers": 1} if args.small else {"hidden": 48, "num_layers": 3}
    predictor = VideoPredictor(vqvae, 3, context_frames=FRAMES, **layers)
    rng = np.random.default_rng(0)
    predictor.start(np.zeros((1, FRAMES, side, side, 3), "uint8"))

    def frames(n: int) -> dict:
        return {"frames": rng.integers(0, 256, (n, FRAMES, side, side, 3)).astype("uint8")}

    def predict_inputs(n: int) -> dict:
        actions = rng.integers(0, 3, (n, steps)).astype("int32")
        return {**frames(n), "actions": actions, **SEED, **DRAWING}

    def step_inputs(n: int) -> dict:
        kept = (n, predictor.codes_kept, *predictor.grid_shape)
        codes = rng.integers(0, predictor.num_codes, kept).astype("int32")
        state = {"codes": codes, "number": np.int32(0)}
        return {**state, "actions": np.zeros(n, "int32"), **SEED, **DRAWING}

    def after(codes: Any, actions: Any, number: Any, seed: Any, how: Any) -> tuple:
        import tensorflow as tf

        examples, numbers = tf.range(tf.shape(codes)[0]), number + tf.range(tf.shape(actions)[1])
        given = predictor._features(actions)
        recent = tf.ensure_shape(codes[:, -FRAMES:], (None, FRAMES, *predictor.grid_shape))
        _, drawn = predictor._imagine(recent, given, numbers, examples, seed, how)
        return predictor.decode_after(codes, drawn), drawn

    def predict(frames: Any, actions: Any, seed: Any, *how: Any) -> tuple:
        counted = predictor.what_counts(frames)
        return after(predictor.encode_frames(counted), actions, 0, seed, sampling.Options(*how))

    def step(codes: Any, number: Any, actions: Any, seed: Any, *how: Any) -> tuple:
        return after(codes, actions[:, None], number, seed, sampling.Options(*how))

    def predict_frames(frames: Any, actions: Any, *_: Any) -> Any:
        return predictor.predict_frames(frames, actions, seed=0, verbose=0)

    def step_method(codes: Any, number: Any, actions: Any, *_: Any) -> Any:
        return predictor.step({"codes": codes, "number": number}, actions)

    return (
        predictor,
        None,
        [
            Endpoint(
                "video", "start", frames, predictor.encode_frames,
                lambda frames: predictor.start(frames),
            ),
            Endpoint("video", "predict", predict_inputs, predict, predict_frames),
            Endpoint("video", "step", step_inputs, step, step_method),
        ],
    )  # fmt: skip


MODELS = {
    "image": image_endpoints,
    "files": file_endpoints,
    "sound": sound_endpoints,
    "wavenet": wavenet_endpoints,
    "video": video_endpoints,
}
# An export's options.
OPTIONS = {"files": {"encoded": True}}


def megabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


LOAD = """
import sys, time
from tests.serving.c_library import SavedModel, library
library()
start = time.perf_counter()
SavedModel(sys.argv[1])
print(time.perf_counter() - start)
"""


def load_seconds(path: Path) -> float:
    """By TensorFlow's C library in a fresh process, as servers do: Python's loader is slower."""
    command = [sys.executable, "-c", LOAD, str(path)]
    done = subprocess.run(command, cwd=common.ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout.split()[-1])


def check_same(endpoint: Endpoint, answers: dict[str, np.ndarray], made: np.ndarray) -> None:
    """Raises where what the model makes is not among the answers: two things would be timed."""

    def same(answer: np.ndarray) -> bool:
        a, b = answer.squeeze(), made.squeeze()
        if a.shape != b.shape or a.dtype != b.dtype:
            return False
        if a.dtype in (np.int32, object):  # codes, files
            return np.array_equal(a, b)
        return np.allclose(
            a.astype("float64"), b, rtol=1e-4, atol=1 if a.dtype == np.uint8 else 1e-4
        )

    if not any(same(answer) for answer in answers.values()):
        shapes = {name: (x.dtype, x.shape) for name, x in answers.items()}
        raise RuntimeError(
            f"{endpoint.model} {endpoint.signature} answers {shapes}, the model {made.dtype} "
            f"{made.shape}, or other values: not the same computation"
        )


# What the session is compared with.
OTHERS = ("tf.function", "method", "predict")


def overhead(
    servable: Any, direct: Any, fields: dict, endpoint: Endpoint, batch: int, rounds: int
) -> dict:
    """Interleaved times of the endpoint, of a `tf.function` and of the model's method.

    Args:
        direct: a servable that runs requests in the thread that asks.
        fields: the endpoint's inputs, of `signature.json`.
    """
    import tensorflow as tf

    inputs = endpoint.inputs(batch)
    calls: dict[str, Callable] = {
        "session": lambda: servable.predict(endpoint.signature, inputs),
        "direct": lambda: direct.predict(endpoint.signature, inputs),
    }
    if endpoint.function is not None:
        # Of any batch and length, as the endpoint: none is made faster by sizes that are known.
        specs = [
            tf.TensorSpec(
                [side if isinstance(side, int) else None for side in fields[name]["shape"]],
                x.dtype,
            )
            for name, x in inputs.items()
        ]
        compiled = tf.function(endpoint.function, specs, autograph=False).get_concrete_function()

        def function() -> Any:
            made = compiled(*(tf.constant(x) for x in inputs.values()))
            return tf.nest.map_structure(lambda x: x.numpy(), made)

        check_same(endpoint, calls["session"](), tf.nest.flatten(function())[0])
        calls["tf.function"] = function
    if endpoint.method is not None:
        calls["method"] = lambda: endpoint.method(*inputs.values())
    if endpoint.predict is not None:
        calls["predict"] = lambda: endpoint.predict(*inputs.values())
    sides = {}
    for name, call in calls.items():
        call()
        once = common.milliseconds(call)
        repeats = max(1, round(20 / once))  # of at least 20 ms, so that one pause decides nothing
        sides[name] = lambda call=call, repeats=repeats: common.milliseconds(call, repeats)
    times = common.interleave(sides, rounds)
    return {
        "times": times,
        "ratios": {
            ours: {other: ratio(times[ours], times[other]) for other in OTHERS if other in times}
            for ours in ("session", "direct")
        },
    }


def ratio(ours: dict, other: dict) -> dict:
    """As `common.ratio`, with the median over rounds."""
    each = [a / b for a, b in zip(ours["samples"], other["samples"], strict=True)]
    return {**common.ratio(ours, other), "median": statistics.median(each)}


def under_load(servable: Any, endpoint: Endpoint, batch: int, clients: int, seconds: float) -> dict:
    """Latencies and throughput with so many clients at once.

    For so many seconds, and until there are 100 requests, but for no more than five times as long.
    """
    inputs = endpoint.inputs(batch)
    servable.predict(endpoint.signature, inputs)
    latencies: list[float] = []
    begin = threading.Barrier(clients + 1)
    end = [0.0]

    def ask() -> None:
        begin.wait()
        while True:
            start = time.perf_counter()
            servable.predict(endpoint.signature, inputs)
            latencies.append((time.perf_counter() - start) * 1e3)
            over = time.perf_counter() - end[0]
            if over > (0 if len(latencies) >= LEAST_REQUESTS else 4 * seconds):
                return

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    for thread in threads:
        thread.start()
    start = time.perf_counter()
    end[0] = start + seconds
    begin.wait()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - start
    return {
        "requests": len(latencies),
        "p50_ms": round(float(np.percentile(latencies, 50)), 3),
        "p99_ms": (
            round(float(np.percentile(latencies, 99)), 3)
            if len(latencies) >= LEAST_REQUESTS
            else None
        ),
        "examples_per_second": round(len(latencies) * batch / took, 1),
    }


class Memory:
    """Resident memory of a process, in MB. Linux only."""

    def __init__(self, process: str = "self") -> None:
        self._path = Path(f"/proc/{process}/statm")

    def __call__(self) -> float:
        return int(self._path.read_text().split()[1]) * 4096 / 1e6


def soak(
    ask: Callable[[str, str, dict], str],
    endpoints: list,
    fields: dict,
    count: int,
    memory: Memory,
    clients: int,
) -> dict:
    """Asks `count` times, a third of them badly.

    Args:
        ask: from model, signature and inputs to "answered" or the name of an error.
        fields: what each signature of each model takes, as `signature.json` says.

    Returns:
        what was answered, the curve of memory, and its growth after the first third.
    """
    from tests.serving.models import bad_requests

    rng = np.random.default_rng(0)
    # What draws many codes takes as long as a hundred others: it comes rarely.
    slow = {("image", "sample"), ("video", "predict"), ("wavenet", "decode")}
    is_slow = [(each.model, each.signature) in slow for each in endpoints]
    weights = np.where(is_slow, 0.03, 1.0)
    chosen = rng.choice(len(endpoints), count, p=weights / weights.sum())
    answers: Counter = Counter()
    curve: list[float] = []
    numbers, lock = iter(range(count)), threading.Lock()

    def work(seed: int) -> None:
        own = np.random.default_rng(seed)
        while True:
            with lock:
                number = next(numbers, None)
                if number is None:
                    return
                if number % max(1, count // 60) == 0:
                    curve.append(round(memory(), 2))
            endpoint, is_bad = endpoints[chosen[number]], own.random() < 1 / 3
            most = 2 if is_slow[chosen[number]] else 8
            inputs = endpoint.inputs(int(own.integers(int(is_bad), most, endpoint=True)))
            if is_bad:
                known = fields[endpoint.model][endpoint.signature]["inputs"]
                every = list(bad_requests(inputs, known))
                inputs = every[own.integers(len(every))][0]
            answer = ask(endpoint.model, endpoint.signature, inputs)
            with lock:
                answers[f"{'bad' if is_bad else 'good'}: {answer}"] += 1

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(clients)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    curve.append(round(memory(), 2))
    third = len(curve) // 3
    settled, last = (statistics.median(curve[i : i + 5]) for i in (third, len(curve) - 5))
    intended = {"good: answered", "bad: INVALID_ARGUMENT"}
    return {
        "requests": count,
        "clients": clients,
        "seconds": round(time.perf_counter() - start, 1),
        "answers": dict(answers),
        # Whatever ended a thread, too: its requests are missing.
        "not_intended": count - sum(answers[what] for what in intended),
        "resident_mb": curve,
        "growth": round(last / settled - 1, 5),
    }


@contextlib.contextmanager
def double_elsewhere(folder: Path) -> Iterator[tuple[str, int]]:
    """The test double in a process of its own: its gRPC address and process id."""
    command = [sys.executable, "-m", "tests.serving.double", str(folder)]
    with subprocess.Popen(command, cwd=common.ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            yield process.stdout.readline().split()[0], process.pid
        finally:
            process.terminate()


def soaks(args: argparse.Namespace, folder: Path, servables: dict, endpoints: list) -> dict:
    from client import GrpcClient, InvalidArgumentError, ServingError

    from tests.serving.double import RefusedError

    def over_session(model: str, signature: str, inputs: dict) -> str:
        try:
            servables[model].predict(signature, inputs)
        except RefusedError as error:
            return error.code.name
        return "answered"

    fields = signatures_of(folder, servables)

    def soaked(ask: Callable, count: int, memory: Memory) -> dict:
        return soak(ask, endpoints, fields, count, memory, args.soak_clients)

    found = {"session": soaked(over_session, args.soak, Memory())}
    with double_elsewhere(folder) as (address, process), contextlib.ExitStack() as stack:
        clients = {
            name: stack.enter_context(GrpcClient(address, name, timeout=300)) for name in servables
        }

        def over_grpc(model: str, signature: str, inputs: dict) -> str:
            try:
                clients[model].predict(signature, **inputs)
            except InvalidArgumentError:
                return "INVALID_ARGUMENT"
            except ServingError as error:
                return type(error).__name__
            return "answered"

        memory = Memory(str(process))
        found["gRPC, the server"] = soaked(over_grpc, args.soak_grpc, memory)
    return found


def main() -> None:
    parser = common.Parser(__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="of the overhead")
    parser.add_argument(
        "--batches", type=int, nargs="+", default=[1, 8, 32], help="examples in a request"
    )
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 2, 4, 8, 16], help="at once")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each load")
    parser.add_argument(
        "--models", nargs="+", choices=MODELS, default=list(MODELS), help="to export"
    )
    parser.add_argument("--signatures", nargs="+", help="only these")
    parser.add_argument("--small", action="store_true", help="tiny models, to try this out")
    parser.add_argument("--soak", type=int, default=10_000, help="requests over the session")
    parser.add_argument("--soak-grpc", type=int, default=10_000, help="and over gRPC")
    parser.add_argument("--soak-clients", type=int, default=4, help="at once")
    parts = ["overhead", "load", "soak"]
    parser.add_argument("--only", nargs="+", choices=parts, default=parts, help="what to measure")
    parser.add_argument("--json", type=Path, help="where to store, not results/serving.json")
    args = parser.parse_args()
    if args.rounds < 2:
        parser.error("--rounds must be at least 2")

    import keras

    from keras_vqvae import export_savedmodel
    from tests.serving.double import Servable

    keras.utils.disable_interactive_logging()
    results: dict = {
        "arguments": {k: v for k, v in vars(args).items() if k != "json"}, "exports": {}
    }  # fmt: skip
    endpoints: list[Endpoint] = []
    servables = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in args.models:
            model, prior, found = MODELS[name](args)
            if args.signatures:
                found = [each for each in found if each.signature in args.signatures]
            path = Path(folder, name, "1")
            export_savedmodel(model, path, prior=prior, **OPTIONS.get(name, {}))
            endpoints += found
            times = [time.perf_counter()]
            servables[name] = Servable(path)
            times.append(time.perf_counter())
            for each in found[:1]:
                servables[name].predict(each.signature, each.inputs(1))
            times.append(time.perf_counter())
            servables[name].warm_up()
            times.append(time.perf_counter())
            python, first, rest = (round(b - a, 2) for a, b in itertools.pairwise(times))
            results["exports"][name] = {
                "parameters": model.count_params() + (prior.count_params() if prior else 0),
                "megabytes": round(megabytes(path), 2),
                "load_seconds": round(load_seconds(path), 2),
                "load_seconds_in_python": python,
                "first_request_seconds": first,
                "warm_up_seconds": rest,
            }
        rows = [[name, *each.values()] for name, each in results["exports"].items()]
        headers = ["export", "parameters", "MB", "load s", "in Python", "first request s"]
        headers += ["warm-up s"]
        print(common.table(headers, rows))

        if "overhead" in args.only:
            results["overhead"] = measure_overhead(args, servables, Path(folder), endpoints)
        if "load" in args.only:
            results["load"] = measure_load(args, servables, endpoints)
        if "soak" in args.only:
            results["soak"] = soaks(args, Path(folder), servables, endpoints)
            headers = ["soak", "requests", "s", "not intended", "MB after a third", "MB", "growth"]
            rows = [
                [name, each["requests"], each["seconds"], each["not_intended"],
                 each["resident_mb"][len(each["resident_mb"]) // 3], each["resident_mb"][-1],
                 f"{each['growth']:.2%}"]
                for name, each in results["soak"].items()
            ]  # fmt: skip
            print(f"\n{common.table(headers, rows)}")
            print(f"Aims: nothing that is not intended; growth <= {AIM_GROWTH:.0%}")
    if args.json:
        args.json.write_text(json.dumps(results))
    else:
        common.write("serving", results)


def signatures_of(folder: Path, names: Iterable[str]) -> dict[str, dict]:
    """What `signature.json` says of each export."""
    return {
        name: json.loads((folder / name / "1" / "signature.json").read_text())["signatures"]
        for name in names
    }


def measure_overhead(
    args: argparse.Namespace, servables: dict, folder: Path, endpoints: list
) -> list[dict]:
    from tests.serving.double import Servable

    direct = {name: Servable(folder / name / "1", threads=-1) for name in servables}
    described = signatures_of(folder, servables)
    found = []
    for endpoint in endpoints:
        for batch in args.batches:
            sides = servables[endpoint.model], direct[endpoint.model]
            fields = described[endpoint.model][endpoint.signature]["inputs"]
            case = overhead(*sides, fields, endpoint, batch, args.rounds)
            named = {"model": endpoint.model, "signature": endpoint.signature, "batch": batch}
            found.append({**named, **case})
    names = ("session", "direct", *OTHERS)
    headers = ["model", "signature", "batch", *(f"{name} ms" for name in names)]
    headers += [f"{ours} / {other}" for ours in names[:2] for other in names[2:]]
    rows = []
    for case in found:
        times = [case["times"].get(name, {}).get("ms") for name in names]
        ratios = [
            case["ratios"][ours].get(other, {}).get("median")
            for ours in names[:2]
            for other in names[2:]
        ]
        rows.append([case["model"], case["signature"], case["batch"], *times, *ratios])
    print(f"\n{common.table(headers, rows)}")
    print(f"Aim: <= {AIM_OVERHEAD} x tf.function")
    for each in direct.values():
        each.close()
    return found


def measure_load(args: argparse.Namespace, servables: dict, endpoints: list) -> list[dict]:
    found = []
    for endpoint in endpoints:
        for batch in args.batches:
            for clients in args.clients:
                servable = servables[endpoint.model]
                case = under_load(servable, endpoint, batch, clients, args.seconds)
                named = {"model": endpoint.model, "signature": endpoint.signature}
                found.append({**named, "batch": batch, "clients": clients, **case})
    headers = ["model", "signature", "batch", "clients", "requests", "p50 ms", "p99 ms"]
    print(f"\n{common.table([*headers, 'examples/s'], [list(case.values()) for case in found])}")
    return found


if __name__ == "__main__":
    main()
