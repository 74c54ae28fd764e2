"""What the names in a checkpoint stand for: tensors, numbers, arrays and plain records.

Everything is checked before it is used in any way: its type, its size, and how often the bytes it
is made of have been used before.
"""

from __future__ import annotations

import io
import math
import re
import struct
import sys
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from jmp_md.checkpoints.machine import Budget, Constructor, Machine, Record, require_key
from jmp_md.errors import CheckpointError

_DTYPES = {
    "torch.DoubleStorage": torch.float64,
    "torch.FloatStorage": torch.float32,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
}
_RECORDS = (
    "collections.OrderedDict",
    "argparse.Namespace",
    "torch_geometric.data.data.Data",
    "torch_geometric.data.storage.GlobalStorage",
)
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # first number of torch's format before the zip one
_LEGACY_PROTOCOL = 1001
_MOST_DIMENSIONS = 64
_MOST_ELEMENTS = 1 << 62
_NUMBERS = re.compile(r"[biuf][1248]")


class Storage(NamedTuple):
    """The memory tensors are views of, as a flat tensor."""

    values: Tensor


def storage_of(data: bytearray, dtype: torch.dtype, numel: Any) -> Storage:
    """A storage of ``numel`` elements at the start of some bytes, which it keeps.

    Raises:
        CheckpointError: The bytes are too few.
    """
    _require_sizes("storage", (numel,))
    if numel * dtype.itemsize > len(data):
        raise CheckpointError(f"a storage of {numel} {dtype} in {len(data)} bytes")
    if numel == 0:
        return Storage(torch.empty(0, dtype=dtype))
    return Storage(torch.frombuffer(data, dtype=dtype, count=numel))


class Builder:
    """Builds what the allowed names stand for, for one file.

    Args:
        budget: What the file may take.

    Attributes:
        names: The table for :class:`~jmp_md.checkpoints.machine.Machine`.
    """

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        build: dict[str, Callable[..., object]] = {
            "_codecs.encode": self._bytes_of_text,
            "__builtin__.bytes": lambda: b"",
            "torch.storage._load_from_bytes": self._legacy_storage,
            "torch._utils._rebuild_tensor": _tensor,
            "torch._utils._rebuild_tensor_v2": _tensor,
            "torch._utils._rebuild_parameter": lambda data, *_: data,
            "pathlib.PosixPath": self._path,
            "numpy.dtype": _number_type,
            **dict.fromkeys(_RECORDS, self._record),
        }
        for package in ("numpy.core", "numpy._core"):
            build[f"{package}.multiarray._reconstruct"] = lambda *_: np.empty(0, np.int8)
            build[f"{package}.multiarray.scalar"] = _numpy_scalar
            build[f"{package}.numeric._frombuffer"] = _numpy_array
        self.names: dict[str, object] = {n: Constructor(b) for n, b in build.items()}
        self.names |= _DTYPES
        self.names["numpy.ndarray"] = "numpy.ndarray"  # an argument of _reconstruct, unused

    def set_state(self, target: Any, state: Any) -> None:
        """What BUILD does to an object.

        Raises:
            CheckpointError: The object has no state, or not such a one.
        """
        if isinstance(target, Record):
            self.budget.copy(len(state))
            target.set_state(state)
        elif isinstance(target, np.dtype):
            # (version, byte order, and what only structured types have)
            orders = ("|", "=", "<" if sys.byteorder == "little" else ">")
            if type(state) is not tuple or type(state[1]) is not str or state[1] not in orders:
                raise CheckpointError("a numpy array of the other byte order")
        elif isinstance(target, np.ndarray) and target.shape == (0,):
            _version, shape, dtype, fortran, data = state
            array = _numpy_array(data, dtype, shape, "F" if fortran is True else "C")
            self.budget.copy(len(data))
            parts: Any = (1, array.shape, array.dtype, fortran is True, data)
            target.__setstate__(parts)
        else:
            raise CheckpointError(f"a state for a {type(target).__name__}")

    def _record(self, pairs: Any = ()) -> Record:
        """A record, of nothing or, as Python 2 wrote ordered dicts, of pairs."""
        record = Record()
        if type(pairs) not in (list, tuple):
            raise CheckpointError("a record that is not made of pairs")
        self.budget.copy(len(pairs))
        for pair in pairs:
            if type(pair) not in (list, tuple) or len(pair) != 2:
                raise CheckpointError("a record that is not made of pairs")
            require_key(pair[0])
            record[pair[0]] = pair[1]
        return record

    def _path(self, *parts: Any) -> str:
        if not all(type(part) is str for part in parts):
            raise CheckpointError("a path that is not text")
        self.budget.copy(sum(map(len, parts)))
        return str(PurePosixPath(*parts))

    def _bytes_of_text(self, text: Any, encoding: Any) -> bytes:
        # How protocol 2 writes bytes.
        if type(text) is not str or type(encoding) is not str or encoding != "latin1":
            raise CheckpointError("text in another encoding than latin1")
        self.budget.copy(len(text))
        return text.encode("latin1")

    def _legacy_storage(self, data: Any) -> Storage:
        """A storage pickled by itself: torch's format before the zip one."""
        if type(data) is not bytes:
            raise CheckpointError("a storage that is not made of bytes")
        self.budget.copy(len(data))
        stream = io.BytesIO(data)
        machine = Machine(_DTYPES, self.set_state, self.budget, load_persistent=_plain_reference)
        magic, protocol, system = (machine.run(stream) for _ in range(3))
        if (magic, protocol) != (_LEGACY_MAGIC, _LEGACY_PROTOCOL) or type(system) is not dict:
            raise CheckpointError("a storage of an unknown format")
        kind, dtype, key, _location, numel, view = machine.run(stream)
        keys = machine.run(stream)
        plain = type(key) is str and kind == "storage" and keys == [key] and view is None
        if machine.refused or not plain or not isinstance(dtype, torch.dtype):
            raise CheckpointError("a storage of an unknown kind")
        if system.get("little_endian") is not (sys.byteorder == "little"):
            raise CheckpointError("a storage of the other byte order")
        (written,) = struct.unpack("=q", stream.read(8))
        _require_sizes("storage", (numel,))
        if written != numel:
            raise CheckpointError(f"a storage of {numel} elements of which {written} were written")
        return storage_of(bytearray(stream.read()), dtype, numel)


def _plain_reference(reference: Any) -> tuple[Any, ...]:
    if type(reference) is not tuple:
        raise CheckpointError("an unknown reference")
    return reference


def _require_sizes(what: str, sizes: Any) -> None:
    """Refuse anything but a tuple of few integers that a machine can count with."""
    if type(sizes) is not tuple or len(sizes) > _MOST_DIMENSIONS:
        raise CheckpointError(f"the size of a {what} that is no tuple of up to {_MOST_DIMENSIONS}")
    for n in sizes:
        if type(n) is not int:
            raise CheckpointError(f"a {type(n).__name__} in the size of a {what}")
        if not 0 <= n < _MOST_ELEMENTS:
            raise CheckpointError(f"the size of a {what} that is negative or beyond any file")


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *flags: Any) -> Tensor:
    """A view of the storage, refused where it would reach beyond it.

    Elements used twice (stride 0) are refused as well: a small file could claim any size.
    """
    _requires_grad, _hooks, conjugate_or_negative = (*flags, False, None, None)[:3]
    if not isinstance(storage, Storage) or conjugate_or_negative:
        raise CheckpointError("a tensor that is not a plain view of a storage")
    for sizes in ((offset,), size, stride):
        _require_sizes("tensor", sizes)
    if len(size) != len(stride):
        raise CheckpointError(f"a tensor of size {size} and stride {stride}")
    values = storage.values
    if 0 in size:
        return values.new_empty(size)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if last >= values.numel() or math.prod(size) > values.numel():
        raise CheckpointError(
            f"a tensor of size {size}, stride {stride} and offset {offset} lies outside its "
            f"storage of {values.numel()} elements"
        )
    return torch.as_strided(values, size, stride, offset)


def _number_type(name: Any, *_: object) -> np.dtype[Any]:
    if type(name) is not str or not _NUMBERS.fullmatch(name):
        raise CheckpointError("a numpy array of something else: only numbers are read")
    return np.dtype(name)


def _numpy_scalar(dtype: Any, data: Any) -> Any:
    return _numpy_array(data, dtype, (1,))[0]


def _numpy_array(data: Any, dtype: Any, shape: Any, order: str = "C") -> np.ndarray[Any, Any]:
    if not isinstance(dtype, np.dtype) or not isinstance(data, bytes | bytearray):
        raise CheckpointError("a numpy array that is not made of numbers")
    _require_sizes("numpy array", shape)
    if math.prod(shape) * dtype.itemsize != len(data):
        raise CheckpointError(f"a numpy array of shape {shape} in {len(data)} bytes")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if order == "F" else "C")
