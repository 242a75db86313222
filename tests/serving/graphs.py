"""Which ops a SavedModel runs, and which of them it must not."""

from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.framework import op_def_registry

# Ops with a state that nobody minds: calls of functions, reading of weights, checks.
_HARMLESS = {
    "Assert",
    "Case",
    "If",
    "Placeholder",
    "ReadVariableOp",
    "StatefulPartitionedCall",
    "VarHandleOp",
    "While",
}
# Stateless, and yet not for a server, or not known to other runtimes (Bitcast to OpenVINO).
_FORBIDDEN = ("PyFunc", "EagerPyFunc", "Xla", "Bitcast", "ReadFile", "WriteFile")
# What `tf.raw_ops` leaves out of TensorFlow's own.
_CORE = {"Const"}


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
        names, functions = list(outputs), []
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


def forbidden(ops: set[str]) -> set[str]:
    """Those that write a variable, call Python, draw from a state, or are not TensorFlow's own."""
    return {op for op in ops if _is_forbidden(op)}


def _is_forbidden(op: str) -> bool:
    if op.startswith(_FORBIDDEN):
        return True
    if op not in _CORE and not hasattr(tf.raw_ops, op):
        return True
    definition = op_def_registry.get(op)
    if any(argument.is_ref for argument in definition.input_arg):
        return True  # Assign, ScatterUpdate and the like
    # AssignVariableOp, PyFunc, RandomUniform and the like.
    return definition.is_stateful and op not in _HARMLESS
