"""Reads torch checkpoints and pickled records without executing anything in them.

Tensors are built here from the bytes of the file, within the bounds of those bytes. What else a
file may hold is the table ``_Builder.names``: plain containers, numpy numbers and arrays, and
PyG ``Data`` as a mapping. Every other name is refused, and told.
"""

from __future__ import annotations

import io
import math
import struct
import sys
import zipfile
from collections.abc import Callable, Collection
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from jmp_md.checkpoints.machine import Constructor, Ignored, Machine, Record
from jmp_md.errors import CheckpointError

__all__ = ["Ignored", "Record", "load_pickle", "load_torch_file"]

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
# Classes that PyG stores by name beside the data.
_NAMES_OF_NO_USE = (
    "torch_geometric.data.data.DataEdgeAttr",
    "torch_geometric.data.data.DataTensorAttr",
)
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # first number of torch's format before the zip one
_LEGACY_PROTOCOL = 1001


class _Storage(NamedTuple):
    """The memory tensors are views of, as a flat tensor."""

    values: Tensor


def load_torch_file(path: str | Path, ignore: Collection[str] = ()) -> Any:
    """Read a file of ``torch.save``, executing nothing in it.

    Args:
        path: Checkpoint in torch's zip format.
        ignore: Dotted names of classes that are not needed; their objects become
            :class:`Ignored` placeholders.

    Returns:
        What was saved, made of dicts, lists, tuples, numbers, strings, tensors and arrays, on
        the CPU. ``OrderedDict`` and ``argparse.Namespace`` become dicts.

    Raises:
        CheckpointError: Missing, truncated or damaged file, not in zip format, or a file that
            names something not on the list and not in ``ignore``.
    """
    try:
        with zipfile.ZipFile(path) as file:
            archive = _Archive(file, Path(path).stat().st_size)
            builder = _Builder()
            machine = Machine(builder.names, _set_state, archive.storage, ignore)
            stream = io.BytesIO(archive.read("data.pkl"))
            builder.allowance = stream.getbuffer().nbytes
            return _interpret(machine, stream, str(path), _HOW_TO_IGNORE)
    except FileNotFoundError as error:
        raise CheckpointError(
            f"cannot read {path}: there is no such file; check the path"
        ) from error
    # RuntimeError for encrypted entries, ValueError for names that are not text, ...
    except (zipfile.BadZipFile, OSError, EOFError, RuntimeError, ValueError) as error:
        raise CheckpointError(
            f"{path} is truncated or not a checkpoint in torch's zip format ({error}): download "
            "it again, or re-save a file of before torch 1.6 with a recent torch"
        ) from error


def load_pickle(data: bytes, what: str) -> Any:
    """Read one pickled record, as LMDB data sets hold them, executing nothing in it.

    Args:
        data: Pickle of protocol 2 to 5.
        what: Where it comes from, for messages, e.g. ``"train.lmdb, record 7"``.

    Returns:
        As :func:`load_torch_file`; a PyG ``Data`` becomes a dict of its attributes.

    Raises:
        CheckpointError: Damaged, or it names something not on the list.
    """
    builder = _Builder()
    builder.allowance = len(data)
    machine = Machine(builder.names, _set_state, ignore=_NAMES_OF_NO_USE)
    return _interpret(machine, io.BytesIO(data), what, _HOW_TO_REEXPORT)


_HOW_TO_IGNORE = (
    "if it is of no use for the weights, have it ignored, which executes nothing either: "
    "{options} for 'jmp-md convert', or ignore={names!r} in Python"
)
_HOW_TO_REEXPORT = "write the data set again with plain tensors and numbers in its records"


def _interpret(machine: Machine, stream: io.BytesIO, what: str, remedy: str) -> Any:
    failure: Exception | None = None
    try:
        result = machine.run(stream)
    except Exception as error:  # whatever a damaged pickle leads to
        failure = error
    if machine.refused:
        options = " ".join(f"--ignore-global {name}" for name in machine.refused)
        raise CheckpointError(
            f"{what} refers to {', '.join(machine.refused)}: not needed in a checkpoint, refused, "
            f"and nothing was executed. Do not trust the file if you do not expect this; "
            + remedy.format(options=options, names=machine.refused)
        ) from failure
    if isinstance(failure, CheckpointError):
        raise CheckpointError(f"{what} is refused: {failure}; get the file again") from failure
    if failure is not None:
        raise CheckpointError(f"{what} is damaged: {failure!r}; get the file again") from failure
    return result


class _Archive:
    """The zip file of a checkpoint: ``<root>/data.pkl`` and raw storages ``<root>/data/<key>``."""

    def __init__(self, file: zipfile.ZipFile, file_size: int) -> None:
        self.file = file
        self.entries = {info.filename: info for info in file.infolist()}
        self.buffers: dict[str, bytearray] = {}
        roots = [
            name for name in self.entries if name.count("/") == 1 and name.endswith("/data.pkl")
        ]
        if len(roots) != 1:
            raise CheckpointError(
                f"{file.filename} is a zip file, but not one of torch.save (it has {len(roots)} "
                "entries data.pkl): give the checkpoint itself"
            )
        self.root = roots[0].removesuffix("data.pkl")
        self._check_entries(file_size)

    def _check_entries(self, file_size: int) -> None:
        # torch.save neither compresses nor repeats: anything else could unpack to any size.
        infos = self.file.infolist()
        odd = [i.filename for i in infos if i.compress_type or i.file_size != i.compress_size]
        if odd or len(infos) > len(self.entries) or sum(i.file_size for i in infos) > file_size:
            raise CheckpointError(
                f"{self.file.filename} has compressed, repeated or overlapping entries "
                f"{odd[:1] or ''}, which torch.save does not write: get the file again"
            )
        order = self.read("byteorder").decode() if self.root + "byteorder" in self.entries else ""
        if order not in ("", sys.byteorder):
            raise CheckpointError(
                f"{self.file.filename} was saved on a {order}-endian machine and this one is "
                f"{sys.byteorder}-endian: re-save it on a machine like this one"
            )

    def read(self, name: str) -> bytearray:
        """Bytes of an entry; the zip module compares their checksum."""
        if self.root + name not in self.entries:
            raise CheckpointError(f"there is no entry {name!r} in the file")
        info = self.entries[self.root + name]
        data = bytearray(info.file_size)
        with self.file.open(info) as entry:
            if entry.readinto(data) != info.file_size:  # type: ignore[attr-defined]
                raise EOFError(f"entry {name!r} ends early")
        return data

    def storage(self, reference: Any) -> _Storage:
        kind, dtype, key, _location, numel = reference
        if kind != "storage" or not isinstance(dtype, torch.dtype) or not isinstance(key, str):
            raise CheckpointError(f"an unknown reference {reference!r}")
        if key not in self.buffers:
            self.buffers[key] = self.read(f"data/{key}")
        return _storage(self.buffers[key], dtype, numel)


def _storage(data: bytearray, dtype: torch.dtype, numel: Any) -> _Storage:
    if type(numel) is not int or not 0 <= numel * dtype.itemsize <= len(data):
        raise CheckpointError(f"a storage of {numel} {dtype} in {len(data)} bytes")
    if numel == 0:
        return _Storage(torch.empty(0, dtype=dtype))
    return _Storage(torch.frombuffer(data, dtype=dtype, count=numel))


class _Builder:
    """Builds what the allowed names stand for, for one file.

    ``allowance`` is the number of bytes in the pickle: literals cannot be copied more than twice
    without a file that repeats them on purpose.
    """

    def __init__(self) -> None:
        self.allowance = 0
        self.copied = 0
        build: dict[str, Callable[..., object]] = {
            "_codecs.encode": self._bytes_of_text,
            "__builtin__.bytes": lambda: b"",
            "torch.storage._load_from_bytes": self._legacy_storage,
            "torch._utils._rebuild_tensor": _tensor,
            "torch._utils._rebuild_tensor_v2": _tensor,
            "torch._utils._rebuild_parameter": lambda data, *_: data,
            "pathlib.PosixPath": lambda *parts: str(PurePosixPath(*parts)),
            "numpy.dtype": _number_type,
            **dict.fromkeys(_RECORDS, Record),
        }
        for package in ("numpy.core", "numpy._core"):
            build[f"{package}.multiarray._reconstruct"] = lambda *_: np.empty(0, np.int8)
            build[f"{package}.multiarray.scalar"] = _numpy_scalar
            build[f"{package}.numeric._frombuffer"] = _numpy_array
        self.names: dict[str, object] = {n: Constructor(b) for n, b in build.items()}
        self.names |= _DTYPES
        self.names["numpy.ndarray"] = "numpy.ndarray"  # an argument of _reconstruct, unused

    def _spend(self, n_bytes: int) -> None:
        self.copied += n_bytes
        if self.copied > 4 * self.allowance:
            raise CheckpointError("the same bytes are used again and again")

    def _bytes_of_text(self, text: str, encoding: str) -> bytes:
        # How protocol 2 writes bytes.
        if type(text) is not str or encoding != "latin1":
            raise CheckpointError(f"text in the encoding {encoding!r}")
        self._spend(len(text))
        return text.encode("latin1")

    def _legacy_storage(self, data: bytes) -> _Storage:
        """A storage pickled by itself: torch's format before the zip one."""
        if not isinstance(data, bytes):
            raise CheckpointError("a storage that is not made of bytes")
        self._spend(len(data))
        stream = io.BytesIO(data)
        machine = Machine(_DTYPES, _set_state, load_persistent=tuple)
        magic, protocol, system = (machine.run(stream) for _ in range(3))
        if (magic, protocol) != (_LEGACY_MAGIC, _LEGACY_PROTOCOL):
            raise CheckpointError("a storage of an unknown format")
        kind, dtype, key, _location, numel, view = machine.run(stream)
        keys = machine.run(stream)
        if machine.refused or kind != "storage" or keys != [key] or view is not None:
            raise CheckpointError(f"a storage of an unknown kind {machine.refused or kind}")
        if system["little_endian"] != (sys.byteorder == "little"):
            raise CheckpointError("a storage of the other byte order")
        (written,) = struct.unpack("=q", stream.read(8))
        if written != numel:
            raise CheckpointError(f"a storage of {numel} elements of which {written} were written")
        return _storage(bytearray(stream.read()), dtype, numel)


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *flags: Any) -> Tensor:
    """A view of the storage, refused where it would reach beyond it.

    Elements used twice (stride 0) are refused as well: a small file could claim any size.
    """
    _requires_grad, _hooks, conjugate_or_negative = (*flags, False, None, None)[:3]
    if not isinstance(storage, _Storage) or conjugate_or_negative:
        raise CheckpointError("a tensor that is not a plain view of a storage")
    if type(size) is not tuple or type(stride) is not tuple or len(size) != len(stride):
        raise CheckpointError(f"a tensor of size {size!r} and stride {stride!r}")
    if any(type(n) is not int or n < 0 for n in (offset, *size, *stride)):
        raise CheckpointError(f"a tensor of size {size!r}, stride {stride!r}, offset {offset!r}")
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


def _number_type(name: str, *_: object) -> np.dtype[Any]:
    dtype = np.dtype(name) if type(name) is str and name[:1] in "biuf" else None
    if dtype is None or dtype.kind not in "biuf":
        raise CheckpointError(f"a numpy array of {name!r}: only numbers are read")
    return dtype


def _numpy_scalar(dtype: Any, data: Any) -> Any:
    return _numpy_array(data, dtype, (1,))[0]


def _numpy_array(data: Any, dtype: Any, shape: Any, order: str = "C") -> np.ndarray[Any, Any]:
    if not isinstance(dtype, np.dtype) or not isinstance(data, bytes | bytearray):
        raise CheckpointError("a numpy array that is not made of numbers")
    if type(shape) is not tuple or any(type(n) is not int or n < 0 for n in shape):
        raise CheckpointError(f"a numpy array of shape {shape!r}")
    if math.prod(shape) * dtype.itemsize != len(data):
        raise CheckpointError(f"a numpy array of shape {shape} in {len(data)} bytes")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if order == "F" else "C")


def _set_state(target: Any, state: Any) -> None:
    if isinstance(target, Record):
        target.set_state(state)
    elif isinstance(target, np.dtype):
        # (version, byte order, and what only structured types have)
        if state[1] not in ("|", "=", "<" if sys.byteorder == "little" else ">"):
            raise CheckpointError("a numpy array of the other byte order")
    elif isinstance(target, np.ndarray) and target.shape == (0,):
        _version, shape, dtype, fortran, data = state
        array = _numpy_array(data, dtype, shape, "F" if fortran else "C")
        state = (1, array.shape, array.dtype, bool(fortran), data)
        target.__setstate__(state)
    else:
        raise CheckpointError(f"a state for a {type(target).__name__}")
