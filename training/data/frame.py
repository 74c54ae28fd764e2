"""One labelled structure, what a set of them offers, and the unit conversions of all readers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from os import PathLike
from typing import Any, Protocol, runtime_checkable

import numpy as np
from ase.stress import voigt_6_to_full_3x3_stress
from ase.units import create_units

from jmp_md.errors import InputError

# ASE's module-level constants are CODATA 2014; the published conversions are CODATA 2018.
_UNITS = create_units("2018")
HARTREE: float = _UNITS["Hartree"]
BOHR: float = _UNITS["Bohr"]
KCAL_PER_MOL: float = _UNITS["kcal"] / _UNITS["mol"]
DEBYE: float = _UNITS["Debye"]

# What files call the energy unit they are in.
ENERGY_UNITS: dict[str, float] = {
    "eV": 1.0,
    "kcal/mol": KCAL_PER_MOL,
    "Ha": HARTREE,
    "Hartree": HARTREE,
}

FORCE_UNITS: dict[str, float] = {
    "eV/Å": 1.0,
    "kcal/mol/Å": KCAL_PER_MOL,
    "Ha/Å": HARTREE,
    "Ha/bohr": HARTREE / BOHR,
    "eV/bohr": 1.0 / BOHR,
}
LENGTH_UNITS: dict[str, float] = {"Å": 1.0, "bohr": BOHR, "nm": 10.0}

MAX_ATOMIC_NUMBER = 118


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """A structure with the labels a data set holds for it; `None` where it holds none.

    Attributes:
        numbers: Atomic numbers, (n,) int64.
        positions: (n, 3) float64, Å.
        energy: Total (or referenced) energy, eV.
        forces: (n, 3) float64, eV/Å.
        cell: Lattice vectors as rows, (3, 3) float64, Å.
        pbc: Periodic directions.
        tags: (n,) int64; OC20: 0 below the surface, 1 surface, 2 adsorbate.
        fixed: (n,) bool; atoms the calculation held in place.
        stress: (3, 3) float64, eV/Å³, positive under tension as in ASE.
        system: What splits keep together: a molecule, reaction or material.
        targets: Further properties by name, in the units the reader states.
        others: Names under which the file holds what may be labels and was not read.
    """

    numbers: np.ndarray
    positions: np.ndarray
    energy: float | None = None
    forces: np.ndarray | None = None
    cell: np.ndarray | None = None
    pbc: tuple[bool, bool, bool] = (False, False, False)
    tags: np.ndarray | None = None
    fixed: np.ndarray | None = None
    stress: np.ndarray | None = None
    system: str = ""
    targets: dict[str, float] = field(default_factory=dict)
    others: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.numbers)


@runtime_checkable
class Dataset(Protocol):
    """A sequence of frames, read when asked for; safe to pickle and to use after a fork."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Frame: ...


class FrameList:
    """Frames held in memory.

    Args:
        frames: What the data set holds, in order.
    """

    def __init__(self, frames: Sequence[Frame]) -> None:
        self._frames = list(frames)

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: int) -> Frame:
        return self._frames[index]


class Subset:
    """Chosen frames of another data set, in the given order.

    Args:
        dataset: The data set the indices refer to.
        indices: Indices of the frames; one may occur more than once.

    Raises:
        InputError: An index lies outside the data set.
    """

    def __init__(self, dataset: Dataset, indices: Sequence[int] | np.ndarray) -> None:
        self.dataset = dataset
        self.indices = np.asarray(indices, dtype=np.int64)
        outside = (self.indices < 0) | (self.indices >= len(dataset))
        if outside.any():
            raise InputError(
                f"frame {self.indices[outside][0]} was asked for but the data set has "
                f"{len(dataset)} frames; check the split against the file it was made for"
            )

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Frame:
        return self.dataset[int(self.indices[index])]

    def n_atoms(self, index: int) -> int:
        """Atoms of a frame."""
        return n_atoms(self.dataset, int(self.indices[index]))


def sampled(dataset: Dataset, n: int, seed: int) -> Dataset:
    """At most ``n`` frames of a data set, drawn with a seed; systems come by their share."""
    if n >= len(dataset):
        return dataset
    return Subset(dataset, np.sort(np.random.default_rng(seed).permutation(len(dataset))[:n]))


class Concatenation:
    """Several data sets, one after the other.

    Args:
        datasets: The parts, in order.
    """

    def __init__(self, datasets: Sequence[Dataset]) -> None:
        self.datasets = list(datasets)
        self._ends = np.cumsum([len(part) for part in self.datasets], dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, index: int) -> Frame:
        part, within = self._place(index)
        return self.datasets[part][within]

    def n_atoms(self, index: int) -> int:
        """Atoms of a frame."""
        part, within = self._place(index)
        return n_atoms(self.datasets[part], within)

    def _place(self, index: int) -> tuple[int, int]:
        index = wrap_index(index, len(self))
        part = int(np.searchsorted(self._ends, index, side="right"))
        return part, index - (int(self._ends[part - 1]) if part else 0)


def frames(dataset: Dataset) -> Iterator[Frame]:
    """Every frame of `dataset`, in order."""
    return (dataset[index] for index in range(len(dataset)))


def n_atoms(dataset: Dataset, index: int) -> int:
    """Atoms of a frame; data sets that know without reading it have a method of this name."""
    known = getattr(dataset, "n_atoms", None)
    return len(dataset[index]) if known is None else int(known(index))


def wrap_index(index: int, length: int) -> int:
    """`index` counted from the start, as for a list.

    Raises:
        IndexError: It lies outside `length` (what ends a loop over a sequence).
    """
    if not -length <= index < length:
        raise IndexError(f"frame {index} of a data set of {length}")
    return index % length


def make_frame(
    source: str | PathLike[str],
    record: int | str,
    *,
    numbers: Any,
    positions: Any,
    energy: Any = None,
    forces: Any = None,
    cell: Any = None,
    pbc: Sequence[bool] | None = None,
    tags: Any = None,
    fixed: Any = None,
    stress: Any = None,
    system: str = "",
    targets: dict[str, float] | None = None,
    others: tuple[str, ...] = (),
) -> Frame:
    """A checked frame from values already in Å and eV.

    Args:
        source: File the values come from, for messages.
        record: Its record there, for messages.
        numbers, positions, energy, forces, cell, tags, fixed: See `Frame`; anything numpy can
            turn into the right shape.
        stress: (3, 3), (9,), or (6,) in ASE's Voigt order xx, yy, zz, yz, xz, xy; left out
            where the structure is not periodic in three directions, which has no volume.
        pbc: Periodic directions; by default those with a cell vector other than zero.
        system, targets, others: See `Frame`.

    Raises:
        InputError: A field has the wrong shape or a value that is not finite, an atomic number
            is not an element, or a periodic direction has no cell vector.
    """

    def array(name: str, value: Any, dtype: type, shape: tuple[int, ...] | None) -> np.ndarray:
        return _checked_array(f"{source}, record {record}, field {name}", value, dtype, shape)

    where = f"{source}, record {record}"
    numbers = array("numbers", numbers, np.int64, None)
    n = len(numbers)
    unknown = (numbers < 1) | (numbers > MAX_ATOMIC_NUMBER)
    if unknown.any():
        raise InputError(
            f"{where}, field numbers: {numbers[unknown][0]} is no atomic number "
            f"(1 to {MAX_ATOMIC_NUMBER})"
        )
    positions = array("positions", positions, np.float64, (n, 3))
    if energy is not None:
        energy = float(array("energy", np.reshape(energy, -1), np.float64, (1,))[0])
    if forces is not None:
        forces = array("forces", forces, np.float64, (n, 3))
    if stress is not None:
        if np.shape(stress) == (6,):
            stress = voigt_6_to_full_3x3_stress(stress)
        elif np.size(stress) == 9:
            stress = np.reshape(stress, (3, 3))
        stress = array("stress", stress, np.float64, (3, 3))
    if tags is not None:
        tags = array("tags", tags, np.int64, (n,))
    if fixed is not None:
        fixed = array("fixed", fixed, np.bool_, (n,))
    if cell is not None:
        cell = array("cell", cell, np.float64, (3, 3))
    cell, periodic = _periodicity(where, cell, pbc)
    stress = stress if all(periodic) else None
    targets = dict(targets or {})
    for name, value in targets.items():
        if not np.isfinite(value):
            raise InputError(f"{where}, field {name}: {value} is not a finite number")
    return Frame(
        numbers,
        positions,
        energy,
        forces,
        cell,
        periodic,
        tags,
        fixed,
        stress,
        system,
        targets,
        others,
    )


def _checked_array(
    where: str, value: Any, dtype: type, shape: tuple[int, ...] | None
) -> np.ndarray:
    """`value` as a contiguous array of `dtype`, with one axis or the given `shape`."""
    try:
        given: np.ndarray = np.asarray(value)
        finite = given.dtype.kind in "biu" or bool(np.isfinite(given).all())
        array: np.ndarray = np.ascontiguousarray(given, dtype=dtype) if finite else given
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: not a table of numbers ({error})") from error
    if not finite:
        raise InputError(f"{where}: holds NaN or infinity; leave this record out or repair it")
    if shape is None and (array.ndim != 1 or array.size == 0):
        raise InputError(f"{where}: shape {array.shape}, not a list of one or more atoms")
    if shape is not None and array.shape != shape:
        raise InputError(f"{where}: shape {array.shape} instead of {shape}")
    if dtype is not np.float64 and (array != given).any():
        raise InputError(f"{where}: holds values that are not whole numbers")
    return array


def _periodicity(
    where: str, cell: np.ndarray | None, pbc: Sequence[bool] | None
) -> tuple[np.ndarray | None, tuple[bool, bool, bool]]:
    """The cell (`None` if all zero) and periodic directions, found consistent."""
    given = (False,) * 3 if cell is None else tuple(bool(row.any()) for row in cell)
    a, b, c = given if pbc is None else (bool(flag) for flag in pbc)
    periodic = (a, b, c)
    for axis in range(3):
        if periodic[axis] and not given[axis]:
            raise InputError(
                f"{where}, field cell: direction {axis} is periodic but has no cell vector"
            )
    if cell is not None and all(periodic) and abs(np.linalg.det(cell)) < 1e-6:
        raise InputError(f"{where}, field cell: the cell vectors {cell.tolist()} span no volume")
    return (cell if any(given) else None), periodic
