"""Reading records: speed beside the floor, and resident memory over many gigabytes.

    python benchmarks/input.py [--data-mib 512] [--total-gb 10]

Writes pictures of 64x64x3 into records in a temporary folder and reads them again and again as
`fit` would, in order and shuffled, each in a fresh process. At 20 points on the way it notes the
resident memory, and how long a plain `read` of the same files takes: the floor. Linux only.
"""

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import common
import numpy as np

SHAPE, BATCH, POINTS = (64, 64, 3), 64, 20
EXAMPLE_BYTES = int(np.prod(SHAPE))
# What a curve may rise after its first tenth and still be called flat: the allocator's noise.
FLAT_MIB = 32


def resident_mib() -> float:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * 4096 / 2**20


def write_pictures(folder: Path, mib: int) -> None:
    from keras_vqvae.data import write_records

    def pictures() -> Iterator[np.ndarray]:
        random = np.random.default_rng(0)
        for _ in range(mib * 2**20 // EXAMPLE_BYTES):
            yield random.integers(0, 256, SHAPE, np.uint8)

    write_records(pictures(), folder)


def plain_read(folder: Path) -> float:
    """Bytes per second of reading all files by one MiB at a time."""
    start, total = time.perf_counter(), 0
    for file in sorted(folder.glob("*.tfrecord")):
        with open(file, "rb", buffering=0) as stream:
            while block := stream.read(2**20):
                total += len(block)
    return total / (time.perf_counter() - start)


def read(folder: Path, seed: int | None, total_bytes: int) -> dict:
    """The curve of one process: at each point gigabytes read, MiB resident, and both speeds."""
    from keras_vqvae.data import from_records

    batches = iter(from_records(folder, BATCH, seed=seed, repeat=True))
    each = max(1, total_bytes // (BATCH * EXAMPLE_BYTES) // POINTS)
    curve = []
    for point in range(1, POINTS + 1):
        start = time.perf_counter()
        for batch in itertools.islice(batches, each):
            assert batch.shape[0] == BATCH
        seconds = time.perf_counter() - start
        curve.append(
            {
                "gb": point * each * BATCH * EXAMPLE_BYTES / 1e9,
                "resident_mib": round(resident_mib(), 1),
                "mb_per_second": round(each * BATCH * EXAMPLE_BYTES / seconds / 1e6, 1),
                "floor_mb_per_second": round(plain_read(folder) / 1e6, 1),
            }
        )
    return {"curve": curve, **summary(curve)}


def summary(curve: list[dict]) -> dict:
    settled, end = curve[POINTS // 10 - 1], curve[-1]
    growth = end["resident_mib"] - settled["resident_mib"]
    speed = float(np.median([point["mb_per_second"] for point in curve]))
    floor = float(np.median([point["floor_mb_per_second"] for point in curve]))
    return {
        "growth_mib": round(growth, 1),
        "flat": growth <= FLAT_MIB,
        "mb_per_second": speed,
        "examples_per_second": round(speed * 1e6 / EXAMPLE_BYTES),
        "floor_mb_per_second": floor,
        "times_the_floor": round(floor / speed, 2),
    }


def child(folder: Path, order: str, total_gb: float) -> dict:
    line = [sys.executable, __file__, "--total-gb", str(total_gb), "--read", folder, order]
    done = subprocess.run(line, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = common.Parser(__doc__)
    parser.add_argument("--data-mib", type=int, default=512, help="size of the records")
    parser.add_argument("--total-gb", type=float, default=10.0, help="to be read, each order")
    parser.add_argument("--no-store", action="store_true", help="only print")
    parser.add_argument("--read", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    total = int(args.total_gb * 1e9)
    if args.read:
        folder, order = args.read
        print(json.dumps(read(Path(folder), 0 if order == "shuffled" else None, total)))
        return
    with tempfile.TemporaryDirectory() as folder:
        records = Path(folder, "records")
        write_pictures(records, args.data_mib)
        orders = {name: child(records, name, args.total_gb) for name in ("in order", "shuffled")}
    print(f"{args.data_mib} MiB of {SHAPE} pictures, {args.total_gb:g} GB read in each order\n")
    headers = ["order", "MB/s", "examples/s", "plain read MB/s", "x floor", "growth MiB", "flat"]
    rows = [
        [name, x["mb_per_second"], x["examples_per_second"], x["floor_mb_per_second"],
         x["times_the_floor"], x["growth_mib"], "yes" if x["flat"] else "NO"]
        for name, x in orders.items()
    ]  # fmt: skip
    print(common.table(headers, rows))
    print("\nResident memory (MiB) over gigabytes read; growth is from the first tenth to the end")
    curves = zip(*(x["curve"] for x in orders.values()), strict=True)
    points = [[points[0]["gb"], *(p["resident_mib"] for p in points)] for points in curves]
    print(common.table(["GB", *orders], points))
    if not args.no_store:
        sizes = {"data_mib": args.data_mib, "total_gb": args.total_gb, "flat_mib": FLAT_MIB}
        common.write("input", {**sizes, "orders": orders})


if __name__ == "__main__":
    main()
