"""Phonons of a crystal in a folder, with the files phonopy reads, tables, figures and a report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jmp_md.report.phonon_files import BANDS, DOS, FIGURES, FORCES, PARAMETERS, THERMAL
from jmp_md.runs.crystal import on_crystal
from jmp_md.runs.options import PhononRunOptions

if TYPE_CHECKING:
    from ase import Atoms

    from jmp_md.runs.calculation import Calculation
    from jmp_md.runs.crystal import Progress
    from jmp_md.simulate.phonons import Phonons

FILES = (PARAMETERS, FORCES, BANDS, DOS, THERMAL, *FIGURES)


def _check(atoms: Atoms, options: PhononRunOptions) -> None:
    from jmp_md.simulate.phonons import check_phonons

    check_phonons(atoms, options)


@on_crystal("phonons", PhononRunOptions, _check, FILES)
def run_phonons(
    run: Calculation[PhononRunOptions], crystal: Atoms, progress: Progress | None
) -> Phonons:
    """Relax a crystal and find its phonons, see :func:`jmp_md.simulate.phonons.phonons`.

    The folder gets what :func:`~jmp_md.report.phonon_files.write_phonons` writes,
    ``structure.extxyz``, ``summary.json`` and ``report.html``. A run that was stopped continues
    with ``restart``.
    """
    from jmp_md.report.phonon_files import write_phonons
    from jmp_md.simulate.options import PhononOptions
    from jmp_md.simulate.phonons import phonons

    kept = run.forces(crystal, supercell=run.options.supercell, delta=run.options.delta)
    result = phonons(
        crystal,
        run.calculator,
        run.options.part(PhononOptions),
        restart_from=kept.known,
        progress=progress,
        observer=kept.keep,
    )
    write_phonons(result, run.folder)
    summary = run.summarize(_figures(result))
    if run.report:
        from jmp_md.report.crystals import write_phonon_report

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
