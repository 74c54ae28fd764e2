"""What a model was trained on, and whether a simulation stays within it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.data import chemical_symbols

from jmp_md.header import HeadInfo, ModelHeader
from jmp_md.validate import foreign_formula

if TYPE_CHECKING:
    from ase import Atoms

_REACH = 1.25  # times the sum of covalent radii, up to where atoms count as bonded


def coordination(atoms: Atoms) -> np.ndarray:
    """Bonded neighbours of every atom, by covalent radii: (n_atoms,)."""
    return np.bincount(bonded_pairs(atoms)[0], minlength=len(atoms))


def bonded_pairs(atoms: Atoms) -> tuple[np.ndarray, np.ndarray]:
    """Both atoms of each bond, in either order: pairs within 1.25 times their covalent radii."""
    from ase.neighborlist import natural_cutoffs, neighbor_list

    first, second = neighbor_list("ij", atoms, natural_cutoffs(atoms, mult=_REACH))
    return first, second


def seen(structures: Iterable[Atoms], max_force: float | None) -> dict[str, Any]:
    """What training structures held, for the header of a model.

    Args:
        structures: Some or all of them.
        max_force: eV/Å, the largest force on an atom in the training data.

    Returns:
        ``max_force_eV_per_A`` and, by element, the least and the most bonded neighbours.
    """
    ranges: dict[str, list[int]] = {}
    for atoms in structures:
        for symbol, count in zip(atoms.get_chemical_symbols(), coordination(atoms), strict=True):
            low, high = ranges.get(symbol, [int(count), int(count)])
            ranges[symbol] = [min(low, int(count)), max(high, int(count))]
    return {"max_force_eV_per_A": max_force, "coordination": ranges}


def outside(frames: Sequence[Atoms], header: ModelHeader, head: HeadInfo) -> list[str]:
    """Where structures leave what a model was trained on, in words; empty where they do not.

    Args:
        frames: Structures of one composition, with forces where known.
        header: Header of the model.
        head: Its head in use.
    """
    numbers = frames[0].numbers
    found = []
    if head.elements and (strange := set(numbers.tolist()) - set(head.elements)):
        symbols = ", ".join(chemical_symbols[z] for z in sorted(strange))
        found.append(f"elements the model never saw: {symbols}")
    if foreign := foreign_formula(numbers, header):
        found.append(foreign)
    known = header.training.get("seen")
    if not isinstance(known, dict):
        return found
    largest = known.get("max_force_eV_per_A")
    forces = [np.linalg.norm(f.get_forces(), axis=1).max() for f in frames if _has_forces(f)]
    if largest and forces and max(forces) > largest:
        count = sum(force > largest for force in forces)
        found.append(
            f"forces up to {max(forces):.2f} eV/Å in {count} of {len(forces)} frames, training "
            f"had at most {largest:.2f}"
        )
    return found + _strange_coordination(frames, known.get("coordination") or {})


def _strange_coordination(frames: Sequence[Atoms], ranges: dict[str, Any]) -> list[str]:
    symbols = np.array(frames[0].get_chemical_symbols())
    counts = np.array([coordination(frame) for frame in frames])
    found = []
    for symbol, (low, high) in ranges.items():
        mine = counts[:, symbols == symbol]
        strange = ((mine < low) | (mine > high)).any(axis=1) if mine.size else np.zeros(0, bool)
        if strange.any():
            found.append(
                f"{symbol} with {mine.min()} to {mine.max()} bonded neighbours in {strange.sum()} "
                f"of {len(frames)} frames, training had {low} to {high}"
            )
    return found


def _has_forces(atoms: Atoms) -> bool:
    return atoms.calc is not None and "forces" in atoms.calc.results
