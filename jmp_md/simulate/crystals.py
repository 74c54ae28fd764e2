"""What the calculations on crystals share: checks, and relaxation at a fixed cell."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from itertools import count
from typing import TYPE_CHECKING

import numpy as np

from jmp_md.errors import InputError
from jmp_md.simulate.forces import as_jmp
from jmp_md.simulate.verdict import Verdict, doubts

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import Calculator

    from jmp_md.simulate.relax import RelaxResult


def check_crystal(atoms: Atoms, what: str) -> None:
    """Refuse what is no crystal.

    Args:
        atoms: The structure.
        what: What needs a crystal, e.g. ``"phonons"``.

    Raises:
        InputError: Not periodic in three directions, a cell without volume, or constraints.
    """
    if not atoms.pbc.all():
        raise InputError(
            f"{what} are of crystals, periodic in three directions; this structure has pbc "
            f"{atoms.pbc.tolist()}: give a file with a cell, e.g. .cif or .vasp; for molecules "
            "there is 'jmp-md vibrations'"
        )
    if not abs(atoms.cell.volume) > 0.1 * len(atoms):
        raise InputError(
            f"the cell {atoms.cell.array.tolist()} has too little volume for {len(atoms)} atoms: "
            "check the file, lengths are in Å"
        )
    if atoms.constraints:
        kinds = ", ".join(sorted({type(constraint).__name__ for constraint in atoms.constraints}))
        raise InputError(
            f"{what} are of crystals whose atoms are all free, this one has constraints ({kinds}): "
            "remove them, by atoms.set_constraint() or a format without them, e.g. .cif"
        )


def right_handed(atoms: Atoms) -> Atoms:
    """A copy whose cell is right-handed: the same lattice by the opposite vectors, if need be."""
    copy: Atoms = atoms.copy()
    if np.linalg.det(atoms.cell.array) < 0:
        copy.set_cell(-atoms.cell.array, scale_atoms=False)
    return copy


def official_verdicts(calculator: Calculator) -> list[Verdict]:
    """Whether the graphs of a JMP model are good for perfect crystals; empty for other calculators.

    Official graphs keep the K nearest neighbours. In a crystal whole shells of neighbours are
    equally far, and where the K-th falls inside a shell, the least displacement exchanges
    neighbours: the energy jumps, and derivatives of it have no meaning.
    """
    if (jmp := as_jmp(calculator)) is None:
        return []
    potential = jmp.potential
    return [
        Verdict(
            "graphs of the model",
            potential.policy.kind != "official",
            potential.policy.kind,
            "smooth",
            "only then do forces change continuously with the least displacement",
            f"model {potential.header.name!r} has official graphs, which keep the nearest "
            f"{potential.policy.counts[0]} neighbours: in a perfect crystal whole shells are "
            "equally far, neighbours change with the least displacement, and forces there are "
            "ill-defined; use a model with smooth graphs, or take the numbers as a rough guide",
        )
    ]


def warn_official(calculator: Calculator) -> None:
    """Warn of graphs that are no good for perfect crystals; see :func:`official_verdicts`."""
    for text in doubts(official_verdicts(calculator)):
        warnings.warn(text, stacklevel=3)


def relax_positions(
    structures: Sequence[Atoms],
    calculator: Calculator,
    fmax: float,
    steps: int = 500,
    progress: Callable[[int, int], None] | None = None,
) -> list[Atoms]:
    """Structures with relaxed positions in fixed cells.

    Args:
        structures: Any number.
        calculator: ASE calculator; with a ``JMPCalculator`` they are relaxed in batches.
        fmax: eV/Å, the largest force to leave.
        steps: Most steps for each.
        progress: Called with how many are relaxed, and of how many.

    Returns:
        Copies without calculators, in order.

    Raises:
        InputError: One cannot be computed, or does not converge; its index is named.
    """
    from jmp_md.simulate.relax import relax_batched

    done = count(1)

    def ended(index: int, end: RelaxResult) -> None:
        if progress is not None:
            progress(next(done), len(structures))

    ends = relax_batched(
        structures, calculator, fmax=fmax, steps=steps, on_error="raise", progress=ended
    )
    for i, end in enumerate(ends):
        if not end.converged:
            raise InputError(
                f"structure {i} did not relax in {steps} steps: fmax {end.fmax:.4f} eV/Å instead "
                f"of {fmax}; relax the crystal first (jmp-md relax), or raise --fmax"
            )
        end.atoms.calc = None
    return [end.atoms for end in ends]
