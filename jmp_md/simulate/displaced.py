"""Forces of many displaced copies of a structure, a batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from jmp_md.simulate.singlepoint import singlepoint

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import Calculator

_TOGETHER = 8_000  # atoms between two calls of ``progress``: fills a GPU, seconds on a core


def displaced_forces(
    structures: Sequence[Atoms],
    calculator: Calculator,
    known: np.ndarray | None = None,
    progress: Callable[[int, int], None] | None = None,
    observer: Callable[[np.ndarray], None] | None = None,
) -> np.ndarray:
    """Forces (n, n_atoms, 3) in eV/Å of structures of one size.

    Args:
        structures: All of them.
        calculator: ASE calculator; with a ``JMPCalculator`` they go through the model in batches.
        known: Forces of the first of them, which are not computed again.
        progress: Called with how many are computed, and of how many.
        observer: Called with the forces of all so far.

    Raises:
        InputError: A structure cannot be computed; its index is named.
    """
    forces = [] if known is None else list(known)
    count = max(_TOGETHER // len(structures[0]), 1)
    for start in range(len(forces), len(structures), count):
        some = structures[start : start + count]
        forces += [result.forces for result in singlepoint(some, calculator)]
        if observer is not None:
            observer(np.array(forces))
        if progress is not None:
            progress(len(forces), len(structures))
    return np.array(forces)
