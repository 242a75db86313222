"""Which ops an export of the package's own networks must not run: more than cannot be served."""

from tensorflow.python.framework import op_def_registry

from keras_vqvae.export.graphs import unservable

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
_FORBIDDEN = ("Xla", "Bitcast", "ReadFile", "WriteFile")


def forbidden(ops: set[str]) -> set[str]:
    """Those that write a variable, call Python, draw from a state, or are not TensorFlow's own."""
    return unservable(ops) | {op for op in ops if _is_forbidden(op)}


def _is_forbidden(op: str) -> bool:
    if op.startswith(_FORBIDDEN):
        return True
    # RandomUniform and the like.
    definition = op_def_registry.get(op)
    return definition is not None and definition.is_stateful and op not in _HARMLESS
