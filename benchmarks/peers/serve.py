"""Answers requests over standard input and output, one JSON object a line."""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import torch


def milliseconds(fn: Callable[[], Any], repeats: int = 1) -> float:
    """Time of a call, after one that is not timed and wakes threads and caches."""
    fn()
    start = time.perf_counter()
    for _ in range(repeats):
        fn()
    return (time.perf_counter() - start) * 1e3 / repeats


def serve(operations: dict[str, Callable[..., dict]]) -> None:
    """Calls `operations[request.pop("op")](**request)` for each request, until input ends."""
    answers, sys.stdout = sys.stdout, sys.stderr  # nothing else may write among the answers
    operations = {"versions": versions, **operations}
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(operations[request.pop("op")](**request)), file=answers, flush=True)


def versions() -> dict:
    from importlib.metadata import version

    return {
        "torch": torch.__version__.split("+")[0],
        "vector-quantize-pytorch": version("vector-quantize-pytorch"),
        "threads": torch.get_num_threads(),
    }
