"""Elastic constants of a crystal in a folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jmp_md.runs.crystal import on_crystal
from jmp_md.runs.options import ElasticRunOptions

if TYPE_CHECKING:
    from ase import Atoms

    from jmp_md.runs.calculation import Calculation
    from jmp_md.runs.crystal import Progress
    from jmp_md.simulate.elastic import Elastic


def check_elastic(atoms: Atoms, options: ElasticRunOptions) -> None:
    """Refuse what is no crystal, before a model is loaded.

    Raises:
        InputError: See :func:`jmp_md.simulate.crystals.check_crystal`.
    """
    from jmp_md.simulate.crystals import check_crystal
    from jmp_md.simulate.elastic import SUBJECT

    check_crystal(atoms, SUBJECT)


@on_crystal("elastic", ElasticRunOptions, check_elastic)
def run_elastic(
    run: Calculation[ElasticRunOptions], crystal: Atoms, progress: Progress | None
) -> Elastic:
    """Relax a crystal and find its elastic constants, see :func:`jmp_md.simulate.elastic.elastic`.

    The folder gets ``structure.extxyz``, ``summary.json`` and ``report.html``. A run that was
    stopped continues with ``restart`` from where the first relaxation was.
    """
    from jmp_md.simulate.elastic import elastic
    from jmp_md.simulate.options import ElasticOptions

    result = elastic(crystal, run.calculator, run.options.part(ElasticOptions), progress=progress)
    summary = run.summarize(_figures(result))
    if run.report:
        from jmp_md.report.crystals import write_elastic_report

        write_elastic_report(run.folder, crystal, result, summary)
    return result


def _figures(result: Elastic) -> dict[str, Any]:
    from ase.units import GPa

    averages = {"voigt": result.voigt, "reuss": result.reuss, "hill": result.hill}
    return {
        "stiffness_GPa": (result.stiffness / GPa).tolist(),
        "errors_GPa": (result.errors / GPa).tolist(),
        "stable": result.stable,
        "pressure_GPa": result.pressure / GPa,
        "stress_GPa": (result.stress / GPa).tolist(),
        "asymmetry": result.asymmetry,
        "fmax_eV_per_A": result.fmax,
        "doubts": list(result.doubts),
    } | {
        name: {
            "bulk_GPa": moduli.bulk / GPa,
            "shear_GPa": moduli.shear / GPa,
            "young_GPa": moduli.young / GPa,
            "poisson": moduli.poisson,
        }
        for name, moduli in averages.items()
    }
