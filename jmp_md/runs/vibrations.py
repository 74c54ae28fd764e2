"""Frequencies and thermochemistry of a molecule in a folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jmp_md.errors import InputError
from jmp_md.options import with_options
from jmp_md.runs.calculation import calculation
from jmp_md.runs.options import RestartOptions, VibrationRunOptions, divided
from jmp_md.simulate.options import GasOptions
from jmp_md.simulate.verdict import Verdict, doubts

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import Calculator

    from jmp_md.simulate.relax import RelaxResult
    from jmp_md.simulate.thermochemistry import Thermochemistry
    from jmp_md.simulate.vibrations import Vibrations

VERB, MODES = "vibrations", "modes.extxyz"


@dataclass(frozen=True)
class VibrationRun:
    """What a run found.

    Attributes:
        modes: The normal modes.
        relaxation: How the structure was relaxed; None where it was not.
        gas: Thermochemistry; None where it was not asked for, or cannot be had.
        verdicts: Whether the results stand.
    """

    modes: Vibrations
    relaxation: RelaxResult | None
    gas: Thermochemistry | None
    verdicts: tuple[Verdict, ...]

    @property
    def doubts(self) -> tuple[str, ...]:
        """Why the results may be wrong; empty where nothing speaks against them."""
        return doubts(self.verdicts)


def check_vibrations(atoms: Atoms, options: VibrationRunOptions) -> None:
    """Refuse what :func:`run_vibrations` would, before a model is loaded.

    Raises:
        InputError: See there.
    """
    from jmp_md.simulate.thermochemistry import check_gas
    from jmp_md.simulate.vibrations import moving_atoms

    moving_atoms(atoms)
    if options.thermo:
        check_gas(atoms, options)


@with_options(VibrationRunOptions, RestartOptions)
def run_vibrations(
    atoms: Atoms,
    calculator: Calculator,
    output: str | Path,
    options: VibrationRunOptions | None = None,
    *,
    relaxing: Callable[[int, float, float], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
    **changes: Any,
) -> VibrationRun:
    """Relax a molecule, and find its normal modes and, where asked for, its thermochemistry.

    The folder gets ``modes.extxyz``, one structure for each mode with its displacements as the
    array ``mode``, ``summary.json`` and ``report.html``. A run that was stopped continues with
    ``restart``.

    Args:
        atoms: The molecule, which is left as it is.
        calculator: ASE calculator, best in double precision.
        output: Folder of the run, created if need be.
        options: See :class:`~jmp_md.runs.options.VibrationRunOptions`; None for the defaults.
        relaxing: Called with step, energy in eV and largest force in eV/Å.
        progress: Called with how many displaced structures are computed, and of how many.
        changes: Options by name, in place of those of ``options``, and ``restart``,
            ``overwrite`` and ``report``, see :class:`~jmp_md.runs.options.RestartOptions`.

    Raises:
        InputError: As of :func:`~jmp_md.simulate.vibrations.vibrations`, or a folder that holds
            another run.
    """
    from jmp_md.simulate.vibrations import vibrations

    options, around = divided(options or VibrationRunOptions(), changes, RestartOptions)
    check_vibrations(atoms, options)
    with calculation(VERB, [atoms], calculator, output, options, around, [MODES]) as run:
        relaxation = None
        if options.relax:
            relaxation = run.relaxed(atoms, relaxing, fmax=options.fmax, steps=options.steps)
            atoms = relaxation.atoms
        run.watch.end([atoms])
        kept = run.forces(atoms, delta=options.delta)
        modes = vibrations(
            atoms,
            calculator,
            delta=options.delta,
            restart_from=kept.known,
            progress=progress,
            observer=kept.keep,
        )
        found = _with_gas(modes, relaxation, options)
        _write_modes(modes, run.folder / MODES)
        summary = run.summarize(_figures(found, options))
        if run.report:
            from jmp_md.report.molecules import write_vibrations_report

            write_vibrations_report(run.folder, modes, found.gas, found.verdicts, summary)
    return found


def _with_gas(
    modes: Vibrations, relaxation: RelaxResult | None, options: VibrationRunOptions
) -> VibrationRun:
    from jmp_md.simulate.thermochemistry import thermochemistry

    verdicts, gas = list(modes.verdicts), None
    verdicts.append(
        Verdict(
            "relaxation",
            _relaxed(modes, relaxation, options),
            f"force {modes.fmax:.5f} eV/Å",
            f"at most {options.fmax} eV/Å",
            "fmax; frequencies of soft modes depend on it most",
            f"NOT relaxed: forces of {modes.fmax:.4f} eV/Å, asked for {options.fmax} eV/Å",
        )
    )
    if options.thermo:
        reason = ""
        try:
            gas = thermochemistry(modes, options.part(GasOptions))
        except InputError as error:
            reason = f"NO thermochemistry: {error}"
        verdicts.append(
            Verdict(
                "thermochemistry",
                gas is not None,
                "computed" if gas is not None else "cannot be had",
                "an ideal gas of molecules at a minimum",
                "rigid rotor and harmonic oscillators",
                reason,
            )
        )
    return VibrationRun(modes, relaxation, gas, tuple(verdicts))


def _relaxed(
    modes: Vibrations, relaxation: RelaxResult | None, options: VibrationRunOptions
) -> bool:
    return modes.fmax <= options.fmax if relaxation is None else relaxation.converged


def _figures(found: VibrationRun, options: VibrationRunOptions) -> dict[str, Any]:
    modes = found.modes
    figures = {
        "energy_eV": modes.energy,
        "relaxed": _relaxed(modes, found.relaxation, options),
        "fmax_eV_per_A": modes.fmax,
        "hessian_asymmetry": modes.asymmetry,
        "frequencies_per_cm": modes.frequencies.tolist(),
        "doubts": list(found.doubts),
    }
    gas = None if found.gas is None else dataclasses.asdict(found.gas)
    return figures | ({"thermochemistry_eV_K_bar": gas} if options.thermo else {})


def _write_modes(modes: Vibrations, path: Path) -> None:
    """One structure per mode, its displacements as an array."""
    import numpy as np
    from ase.units import invcm

    from jmp_md.structure_files import with_results, write_structures

    frames = []
    displacements = modes.data.get_modes(all_atoms=True)
    for energy, shape in zip(modes.data.get_energies(), displacements, strict=True):
        signed = float((energy.real - abs(energy.imag)) / invcm)
        frames.append(with_results(modes.data.get_atoms(), {}, frequency_per_cm=signed))
        frames[-1].set_array("mode", np.array(shape))
    write_structures(path, frames)
