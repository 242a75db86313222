"""Which of a cluster's workers this process is."""

from __future__ import annotations

import json
import os

_EXAMPLE = '{"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}'


def this_worker() -> tuple[int, int]:
    """This process's place among the workers of `tf.distribute.MultiWorkerMirroredStrategy`.

    Read from the environment variable `TF_CONFIG`, as TensorFlow does. A chief is the first
    worker. An evaluator works alone.

    Returns:
        `(index, count)`, for the argument `shard` of the pipelines; `(0, 1)` without `TF_CONFIG`.

    Raises:
        ValueError: `TF_CONFIG` is malformed, or names a task that trains no model.
    """
    text = os.environ.get("TF_CONFIG", "").strip()
    if not text:
        return 0, 1
    try:
        config = json.loads(text)
        cluster, task = config.get("cluster"), config.get("task")
        if not cluster:
            return 0, 1
        kind, number = task["type"], int(task["index"])
        if kind == "evaluator":
            return 0, 1
        members = [(k, i) for k in ("chief", "worker") for i in range(len(cluster.get(k, ())))]
        return members.index((kind, number)), len(members)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"TF_CONFIG does not name this process as one of its cluster's workers ({error!r}): "
            f"{text}. It must look like {_EXAMPLE}."
        ) from error
