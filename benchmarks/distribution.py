"""What replicas and workers cost: step times, bytes on the wire, the way back after a death.

    python benchmarks/distribution.py [--steps 30] [--side 32] [--hidden 64] [--batch 32]

1. Step time on 1, 2 and 4 logical devices of one process, and on 1, 2 and 4 workers, at the same
   global batch. They share the cores of one machine: what is measured is what distribution costs.
2. Bytes that pass the network a step, as the kernel counts them on a loopback of its own, for
   several sizes of the codebook, beside the formula of docs/scaling.md.
3. A worker is killed: when its death is noticed, and when training goes on, with the launcher's
   `--restarts`; and how long the others would take to notice by themselves.

TensorFlow's servers listen on every address: workers run in a network namespace of their own.
"""

import argparse
import itertools
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import common

from tests.namespace import in_namespace

WARM_UP = 5
CODEBOOKS = ((512, 64), (512, 256), (8192, 64))


def bytes_sent() -> int:
    """Over the loopback, by all processes of this network namespace."""
    line = next(x for x in Path("/proc/net/dev").read_text().splitlines() if "lo:" in x)
    return int(line.split()[9])


# A worker, or a process with several devices.


def member(options: dict) -> None:
    """Trains, and writes what it saw to the folder `options["out"]`."""
    began = time.time()
    import keras
    import numpy as np
    import tensorflow as tf

    from keras_vqvae import ImageVQVAE
    from keras_vqvae.callbacks import BackupAndRestore
    from keras_vqvae.data import from_array

    out, devices = Path(options["out"]), options["devices"]
    index = json.loads(os.environ.get("TF_CONFIG", "{}")).get("task", {}).get("index", 0)
    if options["workers"] > 1:
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    elif devices > 1:
        tf.config.set_logical_device_configuration(
            tf.config.list_physical_devices("CPU")[0],
            [tf.config.LogicalDeviceConfiguration()] * devices,
        )
        strategy = tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(devices)])
    else:
        strategy = tf.distribute.get_strategy()
    start = out / f"start-{index}"
    first = not start.exists()
    start.touch()

    class Watch(keras.callbacks.Callback):
        def __init__(self) -> None:
            super().__init__()
            self.times: list[float] = []
            self.sent: list[int] = []

        def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
            self.times.append(time.time())
            self.sent.append(bytes_sent())
            if options["kill"] and first and index == 1 and len(self.times) == 10:
                (out / "killed").write_text(str(time.time()))
                os.kill(os.getpid(), signal.SIGKILL)

    side = options["side"]
    pictures = np.random.default_rng(0).integers(0, 256, (512, side, side, 3), "uint8")
    with strategy.scope():
        keras.utils.set_random_seed(0)
        num_codes, code_dim = options["codebook"]
        model = ImageVQVAE((side, side, 3), num_codes, code_dim, hidden=options["hidden"])
        model.compile("adam")
    watch = Watch()
    try:
        model.fit(
            from_array(pictures, options["batch"], seed=0, repeat=True),
            steps_per_epoch=WARM_UP + options["steps"],
            verbose=0,
            callbacks=[BackupAndRestore(out / "backup", 5), watch] if options["kill"] else [watch],
        )
    finally:
        found = {
            "began": began,
            "times": watch.times,
            "sent": watch.sent,
            "ended": time.time(),
            "gradient_bytes": 4 * model.count_params()
            - 4 * sum(int(np.prod(v.shape)) for v in model.non_trainable_weights),
        }
        (out / f"found-{index}-{'first' if first else 'again'}.json").write_text(json.dumps(found))


# The parent.


def run(options: dict, launcher: list[str]) -> dict[str, dict]:
    """Starts members; returns what they found."""
    with tempfile.TemporaryDirectory() as folder:
        child = [str(common.HERE / "distribution.py"), "--member"]
        child.append(json.dumps({**options, "out": folder}))
        result = subprocess.run(
            in_namespace([sys.executable, *launcher, *child]),
            cwd=common.ROOT,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "PYTHONPATH": str(common.ROOT)},
            capture_output=True,
            text=True,
            timeout=900,
        )
        found = {
            path.stem.removeprefix("found-"): json.loads(path.read_text())
            for path in Path(folder).glob("found-*.json")
        }
        killed = Path(folder) / "killed"
        if killed.exists():
            found["killed"] = {"at": float(killed.read_text())}
        if result.returncode and not options["kill"]:
            raise RuntimeError(f"{options}: {result.stderr[-3000:]}")
        return found


def launcher(workers: int, restarts: int = 0) -> list[str]:
    if workers == 1:
        return []
    name = "keras_vqvae.distribute"
    return ["-m", name, "--workers", str(workers), "--restarts", str(restarts)]


def steps_of(base: dict, workers: int, devices: int, codebook: tuple) -> dict:
    options = {**base, "workers": workers, "devices": devices, "codebook": codebook, "kill": False}
    found = run(options, launcher(workers))
    times, sent = found["0-first"]["times"], found["0-first"]["sent"]
    steps = [1e3 * (b - a) for a, b in itertools.pairwise(times)][WARM_UP - 1 :]
    per_step = (sent[-1] - sent[WARM_UP - 1]) / (len(sent) - WARM_UP)
    return {
        "step": common.summary(steps),
        "bytes_sent_a_step": round(per_step),
        "gradient_bytes": found["0-first"]["gradient_bytes"],
    }


def payload(gradient_bytes: int, codebook: tuple[int, int]) -> int:
    """Bytes that are summed over the replicas a step: gradients; sums and counts of the codes and
    the rows that start and restart them."""
    num_codes, code_dim = codebook
    return gradient_bytes + 4 * (2 * num_codes * code_dim + num_codes)


def times_and_bytes(base: dict) -> tuple[dict, dict]:
    times, traffic = {}, {}
    rows = []
    for name, workers, devices in (
        ("1 device", 1, 1), ("2 devices", 1, 2), ("4 devices", 1, 4),
        ("2 workers", 2, 1), ("4 workers", 4, 1),
    ):  # fmt: skip
        found = steps_of(base, workers, devices, CODEBOOKS[0])
        times[name] = found["step"]
        rows.append([name, found["step"]["ms"], *found["step"]["quartiles"],
                     found["step"]["ms"] / times["1 device"]["ms"]])  # fmt: skip
        if workers > 1:
            traffic[name, CODEBOOKS[0]] = found
    headers = ["", "ms a step", "quartile", "quartile", "times 1 device"]
    print(f"global batch {base['batch']}, K, D = {CODEBOOKS[0]}\n")
    print(common.table(headers, rows), "\n")
    for codebook in CODEBOOKS[1:]:
        traffic["2 workers", codebook] = steps_of(base, 2, 1, codebook)
    result, rows = {}, []
    for (name, codebook), found in traffic.items():
        replicas = int(name.split()[0])
        summed = payload(found["gradient_bytes"], codebook)
        ring = 2 * (replicas - 1) * summed
        measured = found["bytes_sent_a_step"]
        result[f"{name}, K={codebook[0]}, D={codebook[1]}"] = {
            "summed": summed, "formula": ring, "measured": measured,
        }  # fmt: skip
        rows.append([name, *codebook, summed / 2**20, ring / 2**20, measured / 2**20,
                     measured / ring])  # fmt: skip
    headers = ["", "K", "D", "MiB summed", "formula, all send", "measured", "measured / formula"]
    print(common.table(headers, rows), "\n")
    return times, result


def recovery(base: dict, rounds: int) -> dict:
    """Seconds after a worker's death."""
    options = {**base, "workers": 2, "devices": 1, "codebook": CODEBOOKS[0], "kill": True}
    anew, again = [], []
    for _ in range(rounds):
        found = run(options, launcher(2, restarts=1))
        killed, resumed = found["killed"]["at"], found["0-again"]
        anew.append(resumed["began"] - killed)
        # Of the batches that `fit` counts again, those done before take no time.
        steps = resumed["times"]
        done = next(i for i in range(len(steps)) if resumed["sent"][i] > resumed["sent"][0])
        again.append(steps[done] - killed)
    alone = [alone_until_noticed(options) for _ in range(rounds)]
    result = {
        "launcher_has_started_anew": [round(x, 2) for x in anew],
        "training_again": [round(x, 2) for x in again],
        "noticed_without_launcher": [round(x, 2) for x in alone],
    }
    rows = [[name, statistics.median(x), min(x), max(x)] for name, x in result.items()]
    print(common.table(["seconds after a SIGKILL", "median", "least", "most"], rows))
    return result


def alone_until_noticed(options: dict) -> float:
    """How long the survivor takes when nobody stops it."""
    script = (
        "import os, subprocess, sys, json\n"
        "from keras_vqvae.distribute import free_ports\n"
        "workers = [f'127.0.0.1:{p}' for p in free_ports(2)]\n"
        "def start(i):\n"
        "    c = {'cluster': {'worker': workers}, 'task': {'type': 'worker', 'index': i}}\n"
        "    e = {**os.environ, 'TF_CONFIG': json.dumps(c)}\n"
        "    return subprocess.Popen([sys.executable, *sys.argv[1:]], env=e)\n"
        "for process in [start(0), start(1)]:\n"
        "    process.wait()\n"
    )
    found = run(options, ["-c", script])
    return found["0-first"]["ended"] - found["killed"]["at"]


def main() -> None:
    parser = common.Parser(__doc__)
    parser.add_argument("--steps", type=int, default=30, help="that are timed")
    parser.add_argument("--side", type=int, default=32, help="of the images")
    parser.add_argument("--hidden", type=int, default=64, help="channels of the network")
    parser.add_argument("--batch", type=int, default=32, help="images in a global batch")
    parser.add_argument("--rounds", type=int, default=3, help="deaths")
    parser.add_argument("--member", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.member:
        member(json.loads(args.member))
        return
    base: dict[str, Any] = {key: getattr(args, key) for key in ("steps", "side", "hidden", "batch")}
    times, traffic = times_and_bytes(base)
    deaths = recovery(base, args.rounds)
    common.write(
        "distribution",
        {**base, "step_ms": times, "bytes": traffic, "seconds_after_a_death": deaths},
    )


if __name__ == "__main__":
    main()
