"""A SavedModel run by TensorFlow's C library, without its Python: TensorFlow Serving's way.

The library ships in TensorFlow's wheel; `TF_LoadSessionFromSavedModel` restores the variables and
runs the graph in a session.

    model = SavedModel("served/doom/1")
    model.run("encode", {"images": images})["codes"]

Run as a program it answers requests, as `children.py` says.
"""

import ctypes
import importlib.util
import sys
from collections.abc import Iterator
from ctypes import POINTER, c_char_p, c_int, c_int64, c_size_t, c_void_p
from pathlib import Path
from typing import NamedTuple

import numpy as np

INVALID_ARGUMENT = 3
_STRING, _STRING_BYTES = 7, 24  # DT_STRING; sizeof(TF_TString)
_DTYPES = {
    1: np.float32,
    2: np.float64,
    3: np.int32,
    4: np.uint8,
    _STRING: np.object_,
    9: np.int64,
    10: np.bool_,
}


class TensorFlowError(Exception):
    """What a `TF_Status` says.

    Attributes:
        code: such as `INVALID_ARGUMENT`.
        message: the library's.
    """

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code, self.message = code, message


class Info(NamedTuple):
    """An input or output of a signature."""

    operation: str
    index: int
    dtype: type


class Signature(NamedTuple):
    inputs: dict[str, Info]
    outputs: dict[str, Info]


class _Buffer(ctypes.Structure):
    _fields_ = (("data", c_void_p), ("length", c_size_t), ("deallocator", c_void_p))


class _Output(ctypes.Structure):
    _fields_ = (("operation", c_void_p), ("index", c_int))


def library() -> ctypes.CDLL:
    """TensorFlow's C library; finding it does not import TensorFlow."""
    spec = importlib.util.find_spec("tensorflow")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError("the TensorFlow wheel, which holds the C library, is not installed")
    folder = Path(spec.submodule_search_locations[0])
    ctypes.CDLL(str(folder / "libtensorflow_framework.so.2"), ctypes.RTLD_GLOBAL)
    found = ctypes.CDLL(str(folder / "libtensorflow_cc.so.2"))
    for name in (
        "TF_AllocateTensor TF_GraphOperationByName TF_LoadSessionFromSavedModel TF_NewBuffer "
        "TF_NewGraph TF_NewSessionOptions TF_NewStatus TF_StringGetDataPointer TF_TensorData"
    ).split():
        getattr(found, name).restype = c_void_p
    found.TF_Dim.restype = c_int64
    found.TF_StringGetSize.restype = c_size_t
    found.TF_Message.restype = found.TF_Version.restype = c_char_p
    return found


class SavedModel:
    """A session over a SavedModel.

    Args:
        path: the folder of a version.

    Raises:
        TensorFlowError: it cannot be loaded.
    """

    def __init__(self, path: str | Path) -> None:
        self._tf = tf = library()
        self._status = c_void_p(tf.TF_NewStatus())
        self._graph = c_void_p(tf.TF_NewGraph())
        options, meta_graph = c_void_p(tf.TF_NewSessionOptions()), c_void_p(tf.TF_NewBuffer())
        self._session = c_void_p(
            tf.TF_LoadSessionFromSavedModel(
                options,
                None,
                str(path).encode(),
                (c_char_p * 1)(b"serve"),
                1,
                self._graph,
                meta_graph,
                self._status,
            )
        )
        tf.TF_DeleteSessionOptions(options)
        try:
            self._check()
            buffer = ctypes.cast(meta_graph, POINTER(_Buffer)).contents
            #: the signatures by name
            self.signatures = signatures(ctypes.string_at(buffer.data, buffer.length))
        finally:
            tf.TF_DeleteBuffer(meta_graph)

    def run(self, signature: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What a signature answers.

        Args:
            signature: its name.
            inputs: arrays by the names of its inputs; strings as arrays of `bytes` objects.

        Returns:
            arrays by the names of its outputs.

        Raises:
            TensorFlowError: the graph refuses the inputs.
        """
        tf, (taken, given) = self._tf, self.signatures[signature]
        if inputs.keys() != taken.keys():
            raise ValueError(f"{signature} takes {sorted(taken)}, got {sorted(inputs)}")
        tensors = (c_void_p * len(taken))(*(self._tensor(inputs[name]) for name in taken))
        answers = (c_void_p * len(given))()
        tf.TF_SessionRun(
            self._session,
            None,
            self._places(taken),
            tensors,
            len(taken),
            self._places(given),
            answers,
            len(given),
            None,
            0,
            None,
            self._status,
        )
        try:
            self._check()
            return {
                name: self._array(c_void_p(answer), info.dtype)
                for (name, info), answer in zip(given.items(), answers, strict=True)
            }
        finally:
            for name, tensor in zip(taken, tensors, strict=True):
                self._free_strings(tensor, inputs[name])
            for tensor in [*tensors, *filter(None, answers)]:
                tf.TF_DeleteTensor(c_void_p(tensor))

    def close(self) -> None:
        """Frees the session and its graph."""
        self._tf.TF_CloseSession(self._session, self._status)
        self._tf.TF_DeleteSession(self._session, self._status)
        self._tf.TF_DeleteGraph(self._graph)
        self._tf.TF_DeleteStatus(self._status)

    def _check(self) -> None:
        code = self._tf.TF_GetCode(self._status)
        if code:
            raise TensorFlowError(code, self._tf.TF_Message(self._status).decode())

    def _places(self, infos: dict[str, Info]) -> ctypes.Array:
        found = (
            _Output(self._tf.TF_GraphOperationByName(self._graph, x.operation.encode()), x.index)
            for x in infos.values()
        )
        return (_Output * len(infos))(*found)

    def _tensor(self, array: np.ndarray) -> int:
        tf = self._tf
        code = next(code for code, dtype in _DTYPES.items() if array.dtype == dtype)
        size = array.size * _STRING_BYTES if code == _STRING else array.nbytes
        sides = (c_int64 * array.ndim)(*array.shape)
        tensor = tf.TF_AllocateTensor(c_int(code), sides, array.ndim, c_size_t(size))
        data = tf.TF_TensorData(c_void_p(tensor))
        if code == _STRING:
            for i, text in enumerate(array.flat):
                place = c_void_p(data + i * _STRING_BYTES)
                tf.TF_StringInit(place)
                tf.TF_StringCopy(place, c_char_p(text), c_size_t(len(text)))
        elif size:
            ctypes.memmove(data, np.ascontiguousarray(array).ctypes.data, size)
        return tensor

    def _free_strings(self, tensor: int, array: np.ndarray) -> None:
        # Those of an input are its maker's: TF_DeleteTensor frees the array of them only.
        if array.dtype == np.object_:
            data = self._tf.TF_TensorData(c_void_p(tensor))
            for i in range(array.size):
                self._tf.TF_StringDealloc(c_void_p(data + i * _STRING_BYTES))

    def _array(self, tensor: c_void_p, dtype: type) -> np.ndarray:
        tf = self._tf
        array = np.empty([tf.TF_Dim(tensor, i) for i in range(tf.TF_NumDims(tensor))], dtype)
        data = tf.TF_TensorData(tensor)
        if dtype == np.object_:
            for i in range(array.size):
                place = c_void_p(data + i * _STRING_BYTES)
                start = tf.TF_StringGetDataPointer(place)
                array.flat[i] = ctypes.string_at(start, tf.TF_StringGetSize(place))
        elif array.size:
            ctypes.memmove(array.ctypes.data, data, array.nbytes)
        return array


def signatures(meta_graph: bytes) -> dict[str, Signature]:
    """The signatures in a serialised `MetaGraphDef`.

    Read field by field: `meta_graph_pb2` is part of TensorFlow's Python. The numbers are those of
    `meta_graph.proto`: MetaGraphDef.signature_def = 5; SignatureDef.inputs = 1, outputs = 2;
    TensorInfo.name = 1, dtype = 2; an entry of a map has its key at 1 and its value at 2.
    """
    found = {}
    for name, signature in _entries(meta_graph, 5):
        if not name.startswith("__"):  # the SavedModel's own, such as its initialisation
            sides = ({k: _info(v) for k, v in _entries(signature, side)} for side in (1, 2))
            found[name] = Signature(*sides)
    return found


def _entries(message: bytes, number: int) -> Iterator[tuple[str, bytes]]:
    for field, value in _fields(message):
        if field == number:
            entry = dict(_fields(value))
            yield entry[1].decode(), entry.get(2, b"")


def _info(message: bytes) -> Info:
    info = dict(_fields(message))
    operation, index = info[1].decode().split(":")
    return Info(operation, int(index), _DTYPES[info[2]])


def _fields(message: bytes) -> Iterator[tuple[int, bytes | int]]:
    """Numbers and values of a message: of protobuf's wire types, the two that occur here."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            value |= (byte & 0x7F) << shift
            at, shift = at + 1, shift + 7
            if byte < 0x80:
                return value

    while at < len(message):
        number, wire_type = divmod(varint(), 8)
        if wire_type == 0:
            yield number, varint()
        elif wire_type == 2:
            size = varint()
            yield number, message[at : at + size]
            at += size
        else:
            raise ValueError(f"field {number} has wire type {wire_type}, which is not read here")


def answer(requests: list[tuple[str, str, dict]]) -> list:
    """Answers as `children.py` says."""
    models: dict[str, SavedModel] = {}
    answers: list = []
    for path, signature, inputs in requests:
        if path not in models:
            models[path] = SavedModel(path)
        try:
            answers.append(models[path].run(signature, inputs))
        except TensorFlowError as error:
            answers.append((error.code, error.message))
    for model in models.values():
        model.close()
    return answers


if __name__ == "__main__":
    import children

    children.main(answer)
    if "tensorflow" in sys.modules:
        sys.exit("TensorFlow's Python was imported: this proves nothing")
