"""Shards of prepared data sets: many frames in one safetensors file that is mapped, not read.

The atoms of the frames stand one after the other: `offsets` (m + 1) says where those of each frame
begin; `numbers`, `positions` (Å), `forces` (eV/Å), `tags`, `fixed` are per atom; `energy` (eV),
`cell` (Å), `pbc`, `stress` (eV/Å³), `system` and `target.<name>` per frame. What a frame lacks is
NaN.
"""

from __future__ import annotations

import json
import math
import mmap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jmp_md.errors import InputError
from jmp_md.training.data.frame import Frame

TARGET = "target."
_DTYPES = {"F64": np.float64, "F32": np.float32, "I64": np.int64, "I32": np.int32, "U8": np.uint8}


class Shard:
    """The frames of one shard, mapped.

    Args:
        path: The file.

    Raises:
        InputError: The file is missing or truncated.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                size = int.from_bytes(file.read(8), "little")
                header = json.loads(file.read(size))
                data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: not a readable shard ({error}); prepare it again") from error
        header.pop("__metadata__", None)
        ends = [entry["data_offsets"][1] for entry in header.values()]
        if 8 + size + max(ends, default=0) != len(data):
            raise InputError(f"{path}: truncated; delete it and prepare the data again")
        self._arrays: dict[str, np.ndarray] = {}
        for name, entry in header.items():
            shape = entry["shape"]
            flat: np.ndarray = np.frombuffer(
                data, _DTYPES[entry["dtype"]], math.prod(shape), 8 + size + entry["data_offsets"][0]
            )
            self._arrays[name] = flat.reshape(shape)
        self._systems: list[str] = json.loads(self._arrays.pop("system_names").tobytes())
        self._targets = [name for name in self._arrays if name.startswith(TARGET)]

    def __len__(self) -> int:
        return len(self._arrays["offsets"]) - 1

    def n_atoms(self, row: int) -> int:
        """Atoms of a frame, without reading the frame."""
        start, end = self._arrays["offsets"][row : row + 2]
        return int(end - start)

    def frame(self, row: int) -> Frame:
        """A frame, copied."""
        start, end = self._arrays["offsets"][row : row + 2]
        atoms = slice(int(start), int(end))
        energy = float(self._arrays["energy"][row])
        bits = int(self._arrays["pbc"][row])
        values = ((name, float(self._arrays[name][row])) for name in self._targets)
        fixed = self._optional("fixed", atoms, np.bool_)
        return Frame(
            numbers=self._arrays["numbers"][atoms].astype(np.int64),
            positions=self._arrays["positions"][atoms].astype(np.float64),
            energy=None if math.isnan(energy) else energy,
            forces=self._optional("forces", atoms, np.float64),
            cell=self._optional("cell", row, np.float64),
            pbc=(bool(bits & 1), bool(bits & 2), bool(bits & 4)),
            tags=self._optional("tags", atoms, np.int64),
            fixed=fixed if fixed is not None and fixed.any() else None,
            stress=self._optional("stress", row, np.float64),
            system=self._systems[int(self._arrays["system"][row])],
            targets={
                name.removeprefix(TARGET): value for name, value in values if not math.isnan(value)
            },
        )

    def _optional(self, name: str, place: int | slice, dtype: Any) -> np.ndarray | None:
        """Part of an array as a copy; None where the shard or the frame has no such values."""
        if name not in self._arrays:
            return None
        part = self._arrays[name][place].astype(dtype)
        return None if part.dtype == np.float64 and np.isnan(part).all() else part


def frames_to_arrays(frames: Sequence[Frame], dtype: Any) -> dict[str, np.ndarray]:
    """The arrays of a shard; optional ones only where a frame has such values.

    Args:
        frames: What the shard is to hold.
        dtype: Of positions and forces.
    """
    sizes = np.array([len(frame) for frame in frames], dtype=np.int64)
    systems = {name: k for k, name in enumerate(dict.fromkeys(f.system for f in frames))}
    arrays = {
        "offsets": np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        "numbers": _joined([f.numbers for f in frames], np.uint8, ()),
        "positions": _joined([f.positions for f in frames], dtype, (3,)),
        "energy": np.array([np.nan if f.energy is None else f.energy for f in frames]),
        "pbc": np.array([sum(1 << k for k in range(3) if f.pbc[k]) for f in frames], np.uint8),
        "system": np.array([systems[f.system] for f in frames], dtype=np.int32),
        "system_names": np.frombuffer(json.dumps(list(systems)).encode(), np.uint8),
    }
    for name, missing, kind, shape, per_atom in (
        ("forces", np.nan, dtype, (3,), True),
        ("tags", 2, np.uint8, (), True),
        ("fixed", 0, np.uint8, (), True),
        ("cell", np.nan, np.float64, (3, 3), False),
        ("stress", np.nan, np.float64, (3, 3), False),
    ):
        values = [getattr(frame, name) for frame in frames]
        if any(value is not None for value in values):
            filled = [
                np.full((len(f), *shape) if per_atom else shape, missing) if v is None else v
                for f, v in zip(frames, values, strict=True)
            ]
            arrays[name] = _joined(filled, kind, shape) if per_atom else np.array(filled, kind)
    for target in dict.fromkeys(name for f in frames for name in f.targets):
        arrays[TARGET + target] = np.array([f.targets.get(target, np.nan) for f in frames])
    return arrays


def _joined(parts: list[np.ndarray], dtype: Any, shape: tuple[int, ...]) -> np.ndarray:
    return np.concatenate([np.empty((0, *shape)), *parts]).astype(dtype)
