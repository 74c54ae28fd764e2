"""What runs on crystals share: how they are called, and the crystal, relaxed in their folder."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from jmp_md.errors import InputError
from jmp_md.options import with_options
from jmp_md.runs.calculation import Calculation, calculation
from jmp_md.runs.options import RelaxedCrystalOptions, RestartOptions, divided

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import Calculator

STRUCTURE = "structure.extxyz"
_ARGUMENTS = """
Args:
    atoms: The crystal, which is left as it is.
    calculator: ASE calculator, best in double precision.
    output: Folder of the run, created if need be.
    options: See :class:`~jmp_md.runs.options.{options}`; None for the defaults.
    relaxing: Called with step, energy in eV and largest force in eV/Å.
    progress: Called with how many structures of the calculation are done, and of how many.
    changes: Options by name, in place of those of ``options``, and ``restart``,
        ``overwrite`` and ``report``, see :class:`~jmp_md.runs.options.RestartOptions`.

Raises:
    InputError: As of the calculation, a crystal that does not relax, or a folder that holds
        another run.
"""

OptionsT = TypeVar("OptionsT", bound=RelaxedCrystalOptions)
ResultT = TypeVar("ResultT")
Found = TypeVar("Found", covariant=True)
Progress = Callable[[int, int], None]
Compute = Callable[[Calculation[OptionsT], "Atoms", Progress | None], ResultT]


class CrystalRun(Protocol[Found]):
    """A calculation on a crystal, which relaxes first, in a folder; see :func:`on_crystal`."""

    def __call__(
        self,
        atoms: Atoms,
        calculator: Calculator,
        output: str | Path,
        options: Any = None,
        *,
        relaxing: Callable[[int, float, float], None] | None = None,
        progress: Progress | None = None,
        **changes: Any,
    ) -> Found: ...


def on_crystal(
    verb: str,
    cls: type[OptionsT],
    check: Callable[[Atoms, OptionsT], None],
    files: Sequence[str] = (),
) -> Callable[[Compute[OptionsT, ResultT]], CrystalRun[ResultT]]:
    """Make a run on a crystal of what is computed in its open folder.

    That gets the folder, the relaxed crystal and who is told how far it is. The crystal is a copy
    in a right-handed cell and without calculator, as ``structure.extxyz`` has it, and has kept its
    symmetry where spglib is installed.

    Args:
        verb: What is done, e.g. ``"phonons"``.
        cls: Class of its options; they say what relaxes, too, and how far.
        check: Refuses what cannot be done, before the folder is opened.
        files: Names of the files it writes there besides those of every run on crystals.
    """

    def make(compute: Compute[OptionsT, ResultT]) -> CrystalRun[ResultT]:
        @with_options(cls, RestartOptions)
        def run(
            atoms: Atoms,
            calculator: Calculator,
            output: str | Path,
            options: OptionsT | None = None,
            *,
            relaxing: Callable[[int, float, float], None] | None = None,
            progress: Progress | None = None,
            **changes: Any,
        ) -> ResultT:
            own, around = divided(options or cls(), changes, RestartOptions)
            check(atoms, own)
            with calculation(
                verb, [atoms], calculator, output, own, around, (STRUCTURE, *files)
            ) as opened:
                return compute(opened, _relaxed(opened, atoms, relaxing), progress)

        run.__module__, run.__name__ = compute.__module__, compute.__name__
        run.__qualname__ = compute.__qualname__
        run.__doc__ = f"{inspect.getdoc(compute)}\n{_ARGUMENTS.format(options=cls.__name__)}"
        return run

    return make


def _relaxed(
    run: Calculation[OptionsT],
    atoms: Atoms,
    progress: Callable[[int, float, float], None] | None,
) -> Atoms:
    from jmp_md.simulate.crystals import right_handed
    from jmp_md.structure_files import with_results, write_structures

    crystal, options = right_handed(atoms), run.options
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
