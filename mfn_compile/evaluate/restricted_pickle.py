"""Reads pickles that hold only plain data, without running anything.

Two guards. Every opcode is looked at before loading: only those that build bytes, strings,
numbers, booleans, lists and tuples pass, and memo indices are bounded, so that a short file cannot
make the unpickler allocate without limit. And names resolve to the few stand-ins below, which keep
data and call nothing; NumPy's own state setters never see the file.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from typing import Any

import numpy as np
from numpy.typing import NDArray

_DATA_OPCODES = """
PROTO FRAME STOP MARK POP POP_MARK MEMOIZE PUT BINPUT LONG_BINPUT GET BINGET LONG_BINGET
NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1
STRING BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINBYTES8
UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8
EMPTY_LIST LIST APPEND APPENDS EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3
GLOBAL STACK_GLOBAL REDUCE BUILD
"""
_OPCODES = frozenset(_DATA_OPCODES.split())
_MAX_OPCODES = 20_000_000
_DTYPES = frozenset({"u1", "i1", "b1", "i4", "i8", "u4", "u8"})


class UnsafePickleError(Exception):
    """The pickle is damaged, or holds more than plain data."""


class _Dtype:
    """Stand-in of numpy.dtype: keeps the type's code."""

    def __init__(self, code: Any, *_: Any) -> None:
        text = _text(code)
        if text not in _DTYPES:
            raise UnsafePickleError(f"arrays of type {text[:40]!r} are not admitted")
        self.code = text

    def __setstate__(self, state: Any) -> None:
        order = _text(state[1]) if isinstance(state, tuple) and len(state) > 1 else "?"
        if order not in ("|", "<", "="):
            raise UnsafePickleError(f"byte order {order[:40]!r} is not admitted")


class _Array:
    """Stand-in of numpy.ndarray: checks its state and keeps a plain array."""

    value: NDArray[Any]

    def __setstate__(self, state: Any) -> None:
        if not (isinstance(state, tuple) and len(state) == 5 and isinstance(state[2], _Dtype)):
            raise UnsafePickleError("an array's state is malformed")
        _, shape, dtype, _, raw = state
        if not (isinstance(shape, tuple) and len(shape) == 1 and isinstance(shape[0], int)):
            raise UnsafePickleError("only arrays of one dimension are admitted")
        data = np.frombuffer(_raw(raw), np.dtype(dtype.code))
        if len(data) != shape[0]:
            raise UnsafePickleError("an array's length differs from its shape")
        self.value = data


def _text(value: Any) -> str:
    if isinstance(value, bytes):  # text of a Python 2 pickle
        return value.decode("latin-1")
    if not isinstance(value, str):
        raise UnsafePickleError("a name is no text")
    return value


def _raw(value: Any) -> bytes:
    if not isinstance(value, bytes):
        raise UnsafePickleError("an array's data is no bytes")
    return value


def _ndarray_marker(*_: Any) -> Any:
    raise UnsafePickleError("arrays are built only by NumPy's _reconstruct")


def _reconstruct(*_: Any) -> _Array:
    return _Array()


def _scalar(dtype: Any, raw: Any) -> bool | int:
    if not isinstance(dtype, _Dtype) or len(_raw(raw)) != np.dtype(dtype.code).itemsize:
        raise UnsafePickleError("a scalar is malformed")
    value: bool | int = np.frombuffer(raw, np.dtype(dtype.code))[0].item()
    return value


def _encode(text: Any, codec: Any) -> bytes:
    """How Python 3 writes bytes in protocols below 3."""
    if not isinstance(text, str) or _text(codec) not in ("latin1", "latin-1"):
        raise UnsafePickleError("text is encoded in an unexpected way")
    return text.encode("latin-1")


def _empty_bytes(*arguments: Any) -> bytes:
    """How Python 3 writes b'' in protocols below 3."""
    if arguments:
        raise UnsafePickleError("bytes are built in an unexpected way")
    return b""


_NAMES: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _ndarray_marker,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,
    ("__builtin__", "bytes"): _empty_bytes,
    ("builtins", "bytes"): _empty_bytes,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy._core.multiarray", "scalar"): _scalar,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _NAMES:
            raise UnsafePickleError(f"it refers to {module[:60]}.{name[:60]}, which is no data")
        return _NAMES[module, name]

    def persistent_load(self, pid: Any) -> Any:
        raise UnsafePickleError("it refers to something outside of the file")


def _scan(data: bytes) -> None:
    for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
        if opcode.name not in _OPCODES:
            raise UnsafePickleError(f"it uses the opcode {opcode.name}, which plain data lacks")
        if opcode.name.endswith("PUT") and not 0 <= int(argument or 0) <= count:
            raise UnsafePickleError("it numbers an object far beyond its size")
        if count > _MAX_OPCODES:
            raise UnsafePickleError("it holds too many objects")


def loads(data: bytes) -> Any:
    """Load plain data from a pickle of any protocol, Python 2's included.

    Text of Python 2 comes out as bytes. Arrays come out as read-only NumPy arrays where
    `unwrap` is applied.

    Raises:
        UnsafePickleError: the pickle is damaged or holds anything else.
    """
    try:
        _scan(data)
        return _Unpickler(io.BytesIO(data), encoding="bytes").load()
    except (
        pickle.UnpicklingError,
        ValueError,
        TypeError,
        EOFError,
        IndexError,
        KeyError,
        AttributeError,
        OverflowError,
        MemoryError,
    ) as error:
        raise UnsafePickleError(str(error) or type(error).__name__) from error


def unwrap(value: Any) -> Any:
    """The NumPy array of a loaded array, anything else as it is."""
    return value.value if isinstance(value, _Array) and hasattr(value, "value") else value
