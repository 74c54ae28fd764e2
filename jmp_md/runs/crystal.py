"""What runs on crystals share: a folder, and in it the crystal, relaxed as their options say."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from jmp_md.errors import InputError
from jmp_md.runs.calculation import Calculation, calculation
from jmp_md.runs.options import RelaxedCrystalOptions

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import Calculator

STRUCTURE = "structure.extxyz"


@contextmanager
def relaxed_crystal(
    verb: str,
    atoms: Atoms,
    calculator: Calculator,
    output: str | Path,
    options: RelaxedCrystalOptions,
    files: Sequence[str] = (),
    *,
    restart: bool,
    overwrite: bool,
    relaxing: Callable[[int, float, float], None] | None,
) -> Iterator[tuple[Calculation, Atoms]]:
    """Open the folder of a calculation, and give it with the crystal to go on with.

    That is a copy in a right-handed cell and without calculator, as ``structure.extxyz`` has it.
    Its symmetry is kept where spglib is installed.

    Args:
        verb: What is done, e.g. ``"phonons"``.
        atoms: The crystal given.
        calculator: What computes.
        output: The folder, created if need be.
        options: Of the run; they say what relaxes, and how far.
        files: Names of the files it writes there besides those of every run on crystals.
        restart: Whether the run there goes on.
        overwrite: Remove its files, with a warning.
        relaxing: Called with step, energy in eV and largest force in eV/Å.

    Raises:
        InputError: As of :func:`~jmp_md.runs.calculation.calculation`, or the crystal cannot be
            computed or does not relax.
    """
    around = {"restart": restart, "overwrite": overwrite}
    own = (STRUCTURE, *files)
    with calculation(verb, [atoms], calculator, output, options, own, **around) as run:
        yield run, _relaxed(run, atoms, options, relaxing)


def _relaxed(
    run: Calculation,
    atoms: Atoms,
    options: RelaxedCrystalOptions,
    progress: Callable[[int, float, float], None] | None,
) -> Atoms:
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
