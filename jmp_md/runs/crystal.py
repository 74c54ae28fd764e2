"""What runs on crystals share: the crystal, relaxed as their options say."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal, Protocol

from jmp_md.errors import InputError

if TYPE_CHECKING:
    from ase import Atoms

    from jmp_md.runs.calculation import Calculation

STRUCTURE = "structure.extxyz"


class Relaxed(Protocol):
    """Options that say how a crystal is relaxed first."""

    @property
    def relax(self) -> Literal["cell", "atoms", "none"]:
        """What relaxes."""

    @property
    def fmax(self) -> float:
        """eV/Å."""


def relaxed_crystal(
    run: Calculation,
    atoms: Atoms,
    options: Relaxed,
    progress: Callable[[int, float, float], None] | None,
) -> Atoms:
    """The crystal to go on with, in a right-handed cell, as ``structure.extxyz`` has it.

    Its symmetry is kept where spglib is installed.

    Args:
        run: The run.
        atoms: The crystal given.
        options: What relaxes, and how far.
        progress: Called with step, energy in eV and largest force in eV/Å.

    Returns:
        A copy without calculator.

    Raises:
        InputError: It cannot be computed, or does not relax.
    """
    from jmp_md.simulate.crystals import right_handed
    from jmp_md.structure_files import with_results, write_structures

    crystal = right_handed(atoms)
    if options.relax != "none":
        result = run.relaxed(
            crystal,
            progress,
            fmax=options.fmax,
            relax_cell=options.relax == "cell",
            keep_symmetry=find_spec("spglib") is not None,
        )
        if not result.converged:
            raise InputError(
                f"the crystal did not relax in {result.steps} steps: fmax {result.fmax:.5f} eV/Å "
                f"instead of {options.fmax}; relax it with 'jmp-md relax' first, or choose relax "
                "none (--relax none)"
            )
        crystal = result.atoms.copy()
    run.watch.end([crystal])
    write_structures(run.folder / STRUCTURE, [with_results(crystal)])
    return crystal
