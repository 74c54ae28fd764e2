"""Equation of state of a crystal in a folder, with a figure."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jmp_md.options import with_options
from jmp_md.runs.crystal import relaxed_crystal
from jmp_md.runs.options import EOSRunOptions

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import Calculator

    from jmp_md.simulate.eos import EquationOfState

VERB, FIGURE = "eos", "eos.svg"


@with_options(EOSRunOptions)
def run_eos(
    atoms: Atoms,
    calculator: Calculator,
    output: str | Path,
    options: EOSRunOptions | None = None,
    *,
    restart: bool = False,
    overwrite: bool = False,
    report: bool = True,
    relaxing: Callable[[int, float, float], None] | None = None,
    **changes: Any,
) -> EquationOfState:
    """Relax a crystal and fit an equation of state.

    The folder gets ``eos.svg``, ``structure.extxyz``, ``summary.json`` and ``report.html``. With
    ``relax`` none, ions are clamped at every volume too. A run that was stopped
    continues with ``restart`` from where the first relaxation was.

    Args:
        atoms: The crystal, which is left as it is.
        calculator: ASE calculator, best in double precision.
        output: Folder of the run, created if need be.
        options: See :class:`~jmp_md.runs.options.EOSRunOptions`; None for the defaults.
        restart: Continue the run in ``output``.
        overwrite: Remove the files of a run that ``output`` holds, with a warning.
        report: Write ``report.html`` at the end.
        relaxing: Called with step, energy in eV and largest force in eV/Å.
        changes: Options by name, in place of those of ``options``.

    Raises:
        InputError: As of :func:`~jmp_md.simulate.eos.eos`, a crystal that does not relax, or
            a folder that holds another run.
    """
    from jmp_md.files import atomic_write
    from jmp_md.report.crystals import energy_volume
    from jmp_md.simulate.crystals import check_crystal
    from jmp_md.simulate.eos import SUBJECT, eos
    from jmp_md.simulate.options import EOSOptions

    options = (options or EOSRunOptions()).changed(changes)
    check_crystal(atoms, SUBJECT)
    with relaxed_crystal(
        VERB,
        atoms,
        calculator,
        output,
        options,
        [FIGURE],
        restart=restart,
        overwrite=overwrite,
        relaxing=relaxing,
    ) as (run, crystal):
        own = options.part(EOSOptions).changed(
            {"clamped": options.clamped or options.relax == "none"}
        )
        result = eos(crystal, calculator, own)
        with atomic_write(run.folder / FIGURE) as temporary:
            energy_volume(result).savefig(temporary, format="svg", metadata={"Date": None})
        summary = run.summarize(_figures(result))
        if report:
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
