"""Phonons of a crystal in a folder, with the files phonopy reads, tables, figures and a report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jmp_md.options import with_options
from jmp_md.report.phonon_files import BANDS, DOS, FIGURES, FORCES, PARAMETERS, THERMAL
from jmp_md.runs.crystal import relaxed_crystal
from jmp_md.runs.options import PhononRunOptions

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import Calculator

    from jmp_md.simulate.phonons import Phonons

VERB = "phonons"
FILES = (PARAMETERS, FORCES, BANDS, DOS, THERMAL, *FIGURES)


@with_options(PhononRunOptions)
def run_phonons(
    atoms: Atoms,
    calculator: Calculator,
    output: str | Path,
    options: PhononRunOptions | None = None,
    *,
    restart: bool = False,
    overwrite: bool = False,
    report: bool = True,
    relaxing: Callable[[int, float, float], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
    **changes: Any,
) -> Phonons:
    """Relax a crystal and find its phonons.

    The folder gets what :func:`~jmp_md.report.phonon_files.write_phonons` writes,
    ``structure.extxyz``, ``summary.json`` and ``report.html``. A run that was stopped continues
    with ``restart``.

    Args:
        atoms: The crystal, which is left as it is.
        calculator: ASE calculator, best in double precision.
        output: Folder of the run, created if need be.
        options: See :class:`~jmp_md.runs.options.PhononRunOptions`; None for the defaults.
        restart: Continue the run in ``output``.
        overwrite: Remove the files of a run that ``output`` holds, with a warning.
        report: Write ``report.html`` at the end.
        relaxing: Called with step, energy in eV and largest force in eV/Å.
        progress: Called with how many supercells are computed, and of how many.
        changes: Options by name, in place of those of ``options``.

    Raises:
        InputError: As of :func:`~jmp_md.simulate.phonons.phonons`, a crystal that does not relax,
            or a folder that holds another run.
    """
    from jmp_md.report.crystals import write_phonon_report
    from jmp_md.report.phonon_files import write_phonons
    from jmp_md.simulate.options import PhononOptions
    from jmp_md.simulate.phonons import check_phonons, phonons

    options = (options or PhononRunOptions()).changed(changes)
    check_phonons(atoms, options)
    with relaxed_crystal(
        VERB,
        atoms,
        calculator,
        output,
        options,
        FILES,
        restart=restart,
        overwrite=overwrite,
        relaxing=relaxing,
    ) as (run, crystal):
        kept = run.forces(crystal, supercell=options.supercell, delta=options.delta)
        result = phonons(
            crystal,
            calculator,
            options.part(PhononOptions),
            restart_from=kept.known,
            progress=progress,
            observer=kept.keep,
        )
        write_phonons(result, run.folder)
        summary = run.summarize(_figures(result))
        if report:
            write_phonon_report(run.folder, crystal, result, summary)
    return result


def _figures(result: Phonons) -> dict[str, Any]:
    return {
        "supercell": result.phonopy.supercell_matrix.tolist(),
        "n_displacements": result.n_displacements,
        "n_atoms_supercell": len(result.phonopy.supercell),
        "lowest_THz": result.lowest,
        "highest_THz": result.highest,
        "imaginary": result.imaginary,
        "zero_point_energy_eV": result.zero_point_energy,
        "fmax_eV_per_A": result.fmax,
        "sum_rule_eV_per_A2": result.sum_rule,
        "edge_share": result.edge,
        "masses_u": result.phonopy.primitive.masses.tolist(),
        "doubts": list(result.doubts),
    }
