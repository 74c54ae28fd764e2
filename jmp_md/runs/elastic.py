"""Elastic constants of a crystal in a folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jmp_md.options import with_options
from jmp_md.runs.crystal import relaxed_crystal
from jmp_md.runs.options import ElasticRunOptions

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import Calculator

    from jmp_md.simulate.elastic import Elastic

VERB = "elastic"


@with_options(ElasticRunOptions)
def run_elastic(
    atoms: Atoms,
    calculator: Calculator,
    output: str | Path,
    options: ElasticRunOptions | None = None,
    *,
    restart: bool = False,
    overwrite: bool = False,
    report: bool = True,
    relaxing: Callable[[int, float, float], None] | None = None,
    **changes: Any,
) -> Elastic:
    """Relax a crystal and find its elastic constants.

    The folder gets ``structure.extxyz``, ``summary.json`` and ``report.html``. A run that was
    stopped continues with ``restart`` from where the first relaxation was.

    Args:
        atoms: The crystal, which is left as it is.
        calculator: ASE calculator with stress, best in double precision.
        output: Folder of the run, created if need be.
        options: See :class:`~jmp_md.runs.options.ElasticRunOptions`; None for the defaults.
        restart: Continue the run in ``output``.
        overwrite: Remove the files of a run that ``output`` holds, with a warning.
        report: Write ``report.html`` at the end.
        relaxing: Called with step, energy in eV and largest force in eV/Å.
        changes: Options by name, in place of those of ``options``.

    Raises:
        InputError: As of :func:`~jmp_md.simulate.elastic.elastic`, a crystal that does not relax,
            or a folder that holds another run.
    """
    from jmp_md.simulate.crystals import check_crystal
    from jmp_md.simulate.elastic import SUBJECT, elastic
    from jmp_md.simulate.options import ElasticOptions

    options = (options or ElasticRunOptions()).changed(changes)
    check_crystal(atoms, SUBJECT)
    with relaxed_crystal(
        VERB,
        atoms,
        calculator,
        output,
        options,
        restart=restart,
        overwrite=overwrite,
        relaxing=relaxing,
    ) as (run, crystal):
        result = elastic(crystal, calculator, options.part(ElasticOptions))
        summary = run.summarize(_figures(result))
        if report:
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
