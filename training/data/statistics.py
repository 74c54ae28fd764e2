"""What a data set holds, and what in it looks wrong."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ase.data import chemical_symbols

from jmp_md.training.data.frame import Dataset, Frame, frames
from jmp_md.training.data.references import Composition, composition, fit_references
from jmp_md.training.data.splits import system_of

MAX_FORCE = 50.0  # eV/Å; calculations beyond it have usually failed
MAX_DEVIATION = 10.0  # robust standard deviations of the energy per atom
LISTED = 20
NOTHING_LEFT = 1e-6  # eV and eV/Å: less is rounding, not something to learn


def inspect(dataset: Dataset, max_force: float = MAX_FORCE) -> dict[str, Any]:
    """What a data set holds and what in it looks wrong, ready for JSON.

    Args:
        dataset: Read once, frame by frame.
        max_force: Frames with a force above this, eV/Å, are outliers.

    Returns:
        Numbers of `frames`, `systems` and `periodic` frames; `elements`, the number of frames
        that hold each; `atoms`, `energy` (eV), `energy_per_atom` (eV, after references) and
        `targets`, each as the number of frames that have it, minimum, mean, maximum and standard
        deviation; `forces` (eV/Å) as that number, rms and the strongest on an atom; `references`
        (eV by element); `outliers` by force and by energy per atom (10 robust standard deviations
        from the median) and `duplicates` (equal geometries, to 0.001 Å), each as their number and
        the first few frames.
    """
    found = _Contents()
    for index, frame in enumerate(frames(dataset)):
        found.add(index, frame)
    with_energy = [k for k, energy in enumerate(found.energies) if energy is not None]
    energies = np.array([found.energies[k] for k in with_energy], dtype=np.float64)
    kinds = [found.compositions[k] for k in with_energy]
    references = fit_references(kinds, energies.tolist()) if kinds else {}
    sizes = np.array([found.sizes[k] for k in with_energy])
    fitted = np.array([sum(n * references[z] for z, n in kind) for kind in kinds])
    per_atom = (energies - fitted) / sizes if kinds else np.empty(0)
    strong = [k for k, force in enumerate(found.highest_forces) if (force or 0.0) > max_force]
    return {
        "frames": len(found.sizes),
        "systems": len(found.systems),
        "periodic": found.periodic,
        "elements": {chemical_symbols[z]: found.elements[z] for z in sorted(found.elements)},
        "atoms": _summary(found.sizes),
        "energy": _summary(energies),
        "energy_per_atom": _summary(per_atom),
        "references": {chemical_symbols[z]: energy for z, energy in references.items()},
        "forces": found.forces(),
        "targets": {name: _summary(values) for name, values in sorted(found.targets.items())},
        "outliers": {
            "force": _listed(strong),
            "energy": _listed([with_energy[k] for k in _far_from_median(per_atom)]),
        },
        "duplicates": _listed(found.duplicates),
    }


@dataclass
class _Contents:
    """Per-frame numbers gathered in one pass."""

    sizes: list[int] = field(default_factory=list)
    energies: list[float | None] = field(default_factory=list)
    compositions: list[Composition] = field(default_factory=list)
    highest_forces: list[float | None] = field(default_factory=list)
    targets: dict[str, list[float]] = field(default_factory=dict)
    systems: set[str] = field(default_factory=set)
    elements: Counter[int] = field(default_factory=Counter)
    duplicates: list[int] = field(default_factory=list)
    periodic: int = 0
    force_squares: float = 0.0
    force_components: int = 0
    _geometries: set[int] = field(default_factory=set)

    def add(self, index: int, frame: Frame) -> None:
        kind = composition(frame)
        self.sizes.append(len(frame))
        self.energies.append(frame.energy)
        self.compositions.append(kind)
        self.systems.add(system_of(frame))
        self.elements.update(number for number, _ in kind)
        self.periodic += any(frame.pbc)
        highest = None
        if frame.forces is not None:
            highest = float(np.linalg.norm(frame.forces, axis=1).max())
            self.force_squares += float(np.sum(frame.forces**2))
            self.force_components += frame.forces.size
        self.highest_forces.append(highest)
        for name, value in frame.targets.items():
            self.targets.setdefault(name, []).append(value)
        geometry = _fingerprint(frame)
        if geometry in self._geometries:
            self.duplicates.append(index)
        self._geometries.add(geometry)

    def forces(self) -> dict[str, float | int]:
        highest = [force for force in self.highest_forces if force is not None]
        if not highest:
            return {"frames": 0}
        rms = float(np.sqrt(self.force_squares / self.force_components))
        return {"frames": len(highest), "rms": rms, "max": max(highest)}


def _fingerprint(frame: Frame) -> int:
    """The same for frames whose geometries are written alike to 0.001 Å."""
    parts = [frame.positions] if frame.cell is None else [frame.positions, frame.cell]
    rounded = [np.round(part * 1000).astype(np.int64).tobytes() for part in parts]
    return hash((frame.numbers.tobytes(), frame.pbc, *rounded))


def _far_from_median(values: np.ndarray) -> np.ndarray:
    """Indices of values beyond 10 standard deviations, estimated from the median deviation."""
    if not len(values):
        return np.empty(0, dtype=np.int64)
    deviations = np.abs(values - np.median(values))
    return np.flatnonzero(
        deviations > max(MAX_DEVIATION * 1.4826 * np.median(deviations), NOTHING_LEFT)
    )


def _summary(values: Any) -> dict[str, float | int]:
    array = np.asarray(values, dtype=np.float64)
    if not array.size:
        return {"frames": 0}
    return {
        "frames": array.size,
        "min": float(array.min()),
        "mean": float(array.mean()),
        "max": float(array.max()),
        "std": float(array.std()),
    }


def _listed(indices: list[int]) -> dict[str, Any]:
    return {"number": len(indices), "first": [int(k) for k in indices[:LISTED]]}
