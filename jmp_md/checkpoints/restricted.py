"""Reads torch checkpoints and pickled records without executing anything in them.

Tensors are built here from the bytes of the file, within the bounds of those bytes. What else a
file may hold is the table ``Builder.names``: plain containers, numpy numbers and arrays, and
PyG ``Data`` as a mapping. Every other name is refused, and told.
"""

from __future__ import annotations

import io
import sys
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch

from jmp_md.checkpoints.builders import Builder, Storage, storage_of
from jmp_md.checkpoints.machine import MAX_OPERATIONS, MAX_REFUSED, Budget, Ignored, Machine, Record
from jmp_md.errors import CheckpointError, shown

__all__ = ["Ignored", "Record", "load_pickle", "load_torch_file"]


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
            stream = io.BytesIO(archive.read("data.pkl"))
            budget = Budget(stream.getbuffer().nbytes)
            builder = Builder(budget)
            machine = Machine(builder.names, builder.set_state, budget, archive.storage, ignore)
            return _interpret(machine, stream, str(path), _HOW_TO_IGNORE)
    except FileNotFoundError as error:
        raise CheckpointError(
            f"cannot read {path}: there is no such file; check the path"
        ) from error
    # RuntimeError for encrypted entries, ValueError for names that are not text, ...
    except (zipfile.BadZipFile, OSError, EOFError, RuntimeError, ValueError) as error:
        raise CheckpointError(
            f"{path} is truncated or not a checkpoint in torch's zip format "
            f"({str(error)[:200]}): download "
            "it again, or re-save a file of before torch 1.6 with a recent torch"
        ) from error


def load_pickle(data: bytes, what: str, operations: int = MAX_OPERATIONS) -> Any:
    """Read one pickled record, as LMDB data sets hold them, executing nothing in it.

    Args:
        data: Pickle of protocol 2 to 5.
        what: Where it comes from, for messages, e.g. ``"train.lmdb, record 7"``.
        operations: Most pickle operations, some five for each number.

    Returns:
        As :func:`load_torch_file`; a PyG ``Data`` becomes a dict of its attributes.

    Raises:
        CheckpointError: Damaged, or it names something not on the list.
    """
    budget = Budget(len(data), operations)
    builder = Builder(budget)
    machine = Machine(builder.names, builder.set_state, budget, ignore=_NAMES_OF_NO_USE)
    return _interpret(machine, io.BytesIO(data), what, _HOW_TO_REEXPORT)


# Classes that PyG stores by name beside the data.
_NAMES_OF_NO_USE = (
    "torch_geometric.data.data.DataEdgeAttr",
    "torch_geometric.data.data.DataTensorAttr",
)
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
    if 0 < len(machine.refused) <= MAX_REFUSED:
        options = " ".join(f"--ignore-global {name}" for name in machine.refused)
        raise CheckpointError(
            f"{what} refers to {', '.join(machine.refused)}: not needed in a checkpoint, refused, "
            f"and nothing was executed. Do not trust the file if you do not expect this; "
            + remedy.format(options=options, names=list(machine.refused))
        ) from failure
    if isinstance(failure, CheckpointError):
        raise CheckpointError(f"{what} is refused: {failure}; get the file again") from failure
    if failure is not None:
        reason = f"{type(failure).__name__}: {failure}"[:200]
        raise CheckpointError(f"{what} is damaged: {reason}; get the file again") from failure
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
        named = self.root + "byteorder" in self.entries
        order = bytes(self.read("byteorder")[:8]).decode() if named else sys.byteorder
        if order != sys.byteorder:
            raise CheckpointError(
                f"{self.file.filename} was saved on a {order}-endian machine and this one is "
                f"{sys.byteorder}-endian: re-save it on a machine like this one"
            )

    def read(self, name: str) -> bytearray:
        """Bytes of an entry; the zip module compares their checksum."""
        if self.root + name not in self.entries:
            raise CheckpointError(f"there is no entry {shown(name)} in the file")
        info = self.entries[self.root + name]
        data = bytearray(info.file_size)
        with self.file.open(info) as entry:
            if entry.readinto(data) != info.file_size:  # type: ignore[attr-defined]
                raise EOFError(f"entry {name!r} ends early")
        return data

    def storage(self, reference: Any) -> Storage:
        """The storage a pickle refers to."""
        if type(reference) is not tuple or len(reference) != 5 or type(reference[2]) is not str:
            raise CheckpointError("an unknown reference")
        kind, dtype, key, _location, numel = reference
        if type(kind) is not str or kind != "storage" or not isinstance(dtype, torch.dtype):
            raise CheckpointError("an unknown reference")
        if key not in self.buffers:
            self.buffers[key] = self.read(f"data/{key}")
        return storage_of(self.buffers[key], dtype, numel)
