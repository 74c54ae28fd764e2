"""Molecular data sets in HDF5, one group per molecule or reaction: ANI-1x, Transition-1x, SPICE.

Only the list of groups is held in memory; every frame is read from the file when asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np

from jmp_md.errors import InputError
from jmp_md.training.data.frame import BOHR, HARTREE, Frame, make_frame, wrap_index
from jmp_md.training.data.handles import PerProcess

Groups = Callable[[h5py.File], Iterable[tuple[str, str]]]

TRANSITION1X_SPLITS = ("data", "train", "val", "test")


@dataclass(frozen=True)
class Layout:
    """Names of the arrays in a group, and the factors that turn them into Å, eV and eV/Å.

    Attributes:
        positions: Array (m, n, 3).
        energy: Array (m,).
        forces: Array (m, n, 3); may be absent from a group.
        length, energy_factor, forces_factor: Factors to Å, eV and eV/Å (with the sign of a force).
        targets: Further energies, (m,) each, in the same unit: name in `Frame.targets` to array.
    """

    positions: str
    energy: str
    forces: str
    length: float = 1.0
    energy_factor: float = 1.0
    forces_factor: float = 1.0
    targets: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Block:
    """The usable rows of one group: its path in the file, its system, and the row numbers."""

    group: str
    system: str
    rows: np.ndarray


def open_ani1x(path: str | Path, level: str = "wb97x_dz", min_atoms: int = 1) -> Hdf5Dataset:
    """Open an ANI-1x release file (arXiv 1801.09319, `ani1x-release.h5`).

    Args:
        path: The file: one group per formula with `atomic_numbers`, `coordinates` (Å),
            `<level>.energy` (Ha) and `<level>.forces` (Ha/Å). Rows that hold NaN were not
            calculated at this level and are left out.
        level: `wb97x_dz` (ωB97X/6-31G*, as JMP uses) or `wb97x_tz`.
        min_atoms: Leave smaller molecules out; JMP's paper sets 4.

    Raises:
        InputError: The file cannot be read or holds no such data.
    """
    energy, forces = f"{level}.energy", f"{level}.forces"
    layout = Layout("coordinates", energy, forces, 1.0, HARTREE, HARTREE)

    def groups(file: h5py.File) -> Iterator[tuple[str, str]]:
        for name, group in file.items():
            if energy in group and len(group["atomic_numbers"]) >= min_atoms:
                yield name, name

    return Hdf5Dataset(path, layout, groups, f"an ANI-1x file with {energy}")


def open_transition1x(path: str | Path, split: str = "data") -> Hdf5Dataset:
    """Open a Transition-1x file (arXiv 2207.12858, `Transition1x.h5`).

    A reaction gives its reactant, its product, then its path (which holds the transition state).

    Args:
        path: The file: `split` / formula / reaction with `atomic_numbers`, `positions` (Å),
            `wB97x_6-31G(d).energy` (eV) and `wB97x_6-31G(d).forces` (eV/Å).
        split: `train`, `val` or `test` as published, or `data` for everything.

    Raises:
        InputError: The file cannot be read or has no such split.
    """
    if split not in TRANSITION1X_SPLITS:
        raise InputError(f"Transition-1x split {split!r}: choose {', '.join(TRANSITION1X_SPLITS)}")
    level = "wB97x_6-31G(d)"
    layout = Layout("positions", f"{level}.energy", f"{level}.forces")

    def groups(file: h5py.File) -> Iterator[tuple[str, str]]:
        for formula, reactions in file.get(split, {}).items():
            for name, reaction in reactions.items():
                for end in ("reactant", "product"):
                    if end in reaction:
                        yield f"{split}/{formula}/{name}/{end}", formula
                yield f"{split}/{formula}/{name}", formula

    return Hdf5Dataset(path, layout, groups, f"a Transition-1x file with a group {split!r}")


def open_spice(path: str | Path, subset: str | None = None, energy: str = "total") -> Hdf5Dataset:
    """Open a SPICE file (arXiv 2209.10702, `SPICE-*.hdf5`).

    Args:
        path: The file: one group per molecule with `atomic_numbers`, `conformations` (bohr),
            `dft_total_energy` and `formation_energy` (Ha), `dft_total_gradient` (Ha/bohr; its
            negative is the force) and `subset`.
        subset: Keep the molecules whose subset holds these words, whatever the case, such as
            `"dipeptides"` or `"solvated amino acids"`; by default all.
        energy: What `Frame.energy` holds: `"total"` or `"formation"`. The formation energy is
            in `Frame.targets` too.

    Raises:
        InputError: The file cannot be read, or no molecule belongs to the subset.
    """
    energies = {"total": "dft_total_energy", "formation": "formation_energy"}
    if energy not in energies:
        raise InputError(f"SPICE energy {energy!r}: choose {', '.join(energies)}")
    layout = Layout(
        "conformations",
        energies[energy],
        "dft_total_gradient",
        BOHR,
        HARTREE,
        -HARTREE / BOHR,
        {"formation_energy": "formation_energy"},
    )
    seen: set[str] = set()

    def groups(file: h5py.File) -> Iterator[tuple[str, str]]:
        for name, group in file.items():
            label = _text(group, "subset")
            if label:
                seen.add(label)
            if subset is None or subset.lower() in label.lower():
                yield name, name

    wanted = "a SPICE file" if subset is None else f"a SPICE file with a subset {subset!r}"
    try:
        return Hdf5Dataset(path, layout, groups, wanted)
    except InputError as error:
        if subset is None or not seen:
            raise
        raise InputError(f"{error}; its subsets are {sorted(seen)}") from error


class Hdf5Dataset:
    """Conformations of molecules, a group of the file for each.

    Args:
        path: The HDF5 file.
        layout: Names and units of the arrays.
        groups: Function that lists (path in the file, system) of the groups to read.
        expected: What the file was taken for, for messages.

    Raises:
        InputError: The file cannot be read, lacks an array, or has no usable frame.
    """

    def __init__(self, path: str | Path, layout: Layout, groups: Groups, expected: str) -> None:
        self.path = Path(path)
        self.layout = layout
        self._file = PerProcess(open_hdf5, self.path)
        file = self._file.get()
        try:
            self._blocks = list(_blocks(self.path, file, layout, groups(file)))
        except (OSError, RuntimeError, KeyError, AttributeError, TypeError) as error:
            raise InputError(f"{path}: not {expected} ({error})") from error
        self._ends = np.cumsum([len(block.rows) for block in self._blocks], dtype=np.int64)
        if not len(self):
            raise InputError(f"{path}: not {expected}: no usable frame in it")

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, index: int) -> Frame:
        index = wrap_index(index, len(self))
        number = int(np.searchsorted(self._ends, index, side="right"))
        block = self._blocks[number]
        start = int(self._ends[number - 1]) if number else 0
        row = int(block.rows[index - start])
        record = f"{block.group}[{row}]"
        layout = self.layout
        try:
            group = self._file.get()[block.group]
            numbers = group["atomic_numbers"][()]
            positions = _row(group, layout.positions, row) * layout.length
            energy = _row(group, layout.energy, row) * layout.energy_factor
            forces = None
            if layout.forces in group:
                forces = _row(group, layout.forces, row) * layout.forces_factor
            targets = {
                name: _row(group, key, row).item() * layout.energy_factor
                for name, key in layout.targets.items()
                if key in group
            }
        except (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:
            raise InputError(f"{self.path}, record {record}: cannot be read ({error})") from error
        return make_frame(
            self.path,
            record,
            numbers=numbers,
            positions=positions,
            energy=energy,
            forces=forces,
            system=block.system,
            targets=targets,
        )


def open_hdf5(path: Path) -> h5py.File:
    """The file, for reading.

    Raises:
        InputError: It is missing, truncated or not HDF5.
    """
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise InputError(f"{path}: not a readable HDF5 file ({error})") from error


def _blocks(
    path: Path, file: h5py.File, layout: Layout, groups: Iterable[tuple[str, str]]
) -> Iterator[Block]:
    """The groups with their usable rows: those whose energy and forces are not NaN.

    A row without forces is NaN throughout, so its first component tells; `make_frame` still
    checks all of them.
    """
    for name, system in groups:
        group = file[name]
        energy = group[layout.energy]
        n = len(group["atomic_numbers"])
        usable = ~np.isnan(np.reshape(energy[()], -1))
        shapes = {layout.positions: (len(usable), n, 3)}
        if layout.forces in group:
            shapes[layout.forces] = (len(usable), n, 3)
        for key, shape in shapes.items():
            if group[key].shape != shape:
                raise InputError(
                    f"{path}, record {name}, field {key}: shape {group[key].shape} instead of "
                    f"{shape}"
                )
        if layout.forces in group:
            usable &= ~np.isnan(group[layout.forces][:, 0, 0])
        yield Block(name, system, np.flatnonzero(usable).astype(np.int32))


def _row(group: h5py.Group, key: str, row: int) -> np.ndarray:
    """Row of an array in double precision, so that a change of unit does not round it."""
    return np.asarray(group[key][row], dtype=np.float64)


def _text(group: h5py.Group, key: str) -> str:
    """A string kept as an attribute or as a data set (scalar or of one element)."""
    value = group.attrs[key] if key in group.attrs else group[key][()] if key in group else ""
    first = np.reshape(np.asarray(value, dtype=object), -1)[0]
    return first.decode() if isinstance(first, bytes) else str(first)
