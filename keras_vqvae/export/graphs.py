"""Which ops a SavedModel runs, and which of them cannot be served."""

from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.framework import op_def_registry

# What `tf.raw_ops` leaves out of TensorFlow's own.
_CORE = {"Const"}
_PYTHON = ("PyFunc", "EagerPyFunc")
# Of variables; those of TensorFlow 1 are known by what they take.
_WRITES = ("Assign", "ResourceApply", "ResourceScatter", "ResourceStridedSliceAssign")


def ops_of(folder: Path) -> dict[str, set[str]]:
    """The ops that the outputs of each signature depend on, those of called functions too."""
    saved = saved_model_pb2.SavedModel.FromString((Path(folder) / "saved_model.pb").read_bytes())
    graph = saved.meta_graphs[0]
    library = {f.signature.name: f.node_def for f in graph.graph_def.library.function}
    nodes = {node.name: node for node in graph.graph_def.node}

    def called(node: Any) -> set[str]:
        functions = [a.func.name for a in node.attr.values()]
        functions += [f.name for a in node.attr.values() for f in a.list.func]  # branches of a Case
        return set(functions) & library.keys()

    def walk(outputs: list[str]) -> set[str]:
        ops: set[str] = set()
        names = list(outputs)
        functions: list[str] = []
        seen = set(names)
        while names:  # what the outputs need of the graph itself: not what saves and restores
            node = nodes[names.pop()]
            ops.add(node.op)
            functions += called(node)
            # "^name" waits for a node, "name:1" is its second output.
            needed = {name.lstrip("^").split(":")[0] for name in node.input} - seen
            seen |= needed
            names += needed
        done: set[str] = set()
        while functions:
            function = functions.pop()
            if function in done:
                continue
            done.add(function)
            for node in library[function]:
                ops.add(node.op)
                functions += called(node)
        return ops

    return {
        name: walk([output.name.split(":")[0] for output in signature.outputs.values()])
        for name, signature in graph.signature_def.items()
        if not name.startswith("_")
    }


def unservable(ops: set[str]) -> set[str]:
    """Those that call Python, write a variable, or are not TensorFlow's own."""
    return {op for op in ops if _is_unservable(op)}


def _is_unservable(op: str) -> bool:
    if op in _CORE:
        return False
    if op.startswith((*_PYTHON, *_WRITES)) or not hasattr(tf.raw_ops, op):
        return True
    return any(argument.is_ref for argument in op_def_registry.get(op).input_arg)
