"""Equation of state of a crystal in a folder, with a figure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jmp_md.runs.crystal import on_crystal
from jmp_md.runs.options import EOSRunOptions

if TYPE_CHECKING:
    from ase import Atoms

    from jmp_md.runs.calculation import Calculation
    from jmp_md.runs.crystal import Progress
    from jmp_md.simulate.eos import EquationOfState

FIGURE = "eos.svg"


def check_eos(atoms: Atoms, options: EOSRunOptions) -> None:
    """Refuse what is no crystal, before a model is loaded.

    Raises:
        InputError: See :func:`jmp_md.simulate.crystals.check_crystal`.
    """
    from jmp_md.simulate.crystals import check_crystal
    from jmp_md.simulate.eos import SUBJECT

    check_crystal(atoms, SUBJECT)


@on_crystal("eos", EOSRunOptions, check_eos, [FIGURE])
def run_eos(
    run: Calculation[EOSRunOptions], crystal: Atoms, progress: Progress | None
) -> EquationOfState:
    """Relax a crystal and fit an equation of state, see :func:`jmp_md.simulate.eos.eos`.

    The folder gets ``eos.svg``, ``structure.extxyz``, ``summary.json`` and ``report.html``. With
    ``relax`` none, ions are clamped at every volume too. A run that was stopped continues with
    ``restart`` from where the first relaxation was.
    """
    from jmp_md.files import atomic_write
    from jmp_md.report.crystals import energy_volume
    from jmp_md.simulate.eos import eos
    from jmp_md.simulate.options import EOSOptions

    clamped = run.options.clamped or run.options.relax == "none"
    own = run.options.part(EOSOptions).changed({"clamped": clamped})
    result = eos(crystal, run.calculator, own, progress=progress)
    with atomic_write(run.folder / FIGURE) as temporary:
        energy_volume(result).savefig(temporary, format="svg", metadata={"Date": None})
    summary = run.summarize(_figures(result))
    if run.report:
        from jmp_md.report.crystals import write_eos_report

        write_eos_report(run.folder, crystal, result, summary)
    return result


def _figures(result: EquationOfState) -> dict[str, Any]:
    from ase.units import GPa

    return {
        "volumes_A3": result.volumes.tolist(),
        "energies_eV": result.energies.tolist(),
        "volume_A3": result.volume,
        "energy_eV": result.energy,
        "bulk_modulus_GPa": result.bulk_modulus / GPa,
        "bulk_modulus_error_GPa": result.modulus_error / GPa,
        "derivative": result.derivative,
        "rms_eV": result.rms,
        "bracketed": result.bracketed,
        "stress_unevenness": result.uneven,
        "doubts": list(result.doubts),
    }
