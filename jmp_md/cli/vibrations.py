"""``jmp-md vibrations``: frequencies and thermochemistry of a molecule."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from jmp_md.cli.job import add_arguments, single_job
from jmp_md.runs.options import VibrationRunOptions

if TYPE_CHECKING:
    from jmp_md.runs.vibrations import VibrationRun

OPTIONS = VibrationRunOptions


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add_arguments(parser, OPTIONS, "vibrations")


def run(args: argparse.Namespace) -> int:
    """Execute the command."""
    from jmp_md.runs.vibrations import check_vibrations, run_vibrations

    job = single_job(args, OPTIONS, check_vibrations)
    if args.dry_run:
        return job.plan()
    found = job.done_relaxed(run_vibrations)
    for frequency in found.modes.frequencies:
        print(f"  {frequency:10.2f} cm⁻¹" + (" (imaginary)" if frequency < 0 else ""))
    _say_gas(found, job.options)
    return job.end(found.doubts)


def _say_gas(found: VibrationRun, options: VibrationRunOptions) -> None:
    from jmp_md.simulate.rotations import symmetry_number

    if (gas := found.gas) is None:
        return
    print(
        f"at {gas.temperature} K and {gas.pressure} bar: enthalpy {gas.enthalpy:.4f} eV, "
        f"entropy {gas.entropy * 1000:.4f} meV/K, Gibbs energy {gas.gibbs_energy:.4f} eV"
    )
    print(
        f"  as a {gas.geometry} molecule with symmetry number {gas.symmetry_number} "
        f"({'found' if options.symmetry_number is None else 'given'}) and spin {gas.spin:g} "
        f"({'assumed' if options.spin is None else 'given'})"
    )
    own = symmetry_number(found.modes.data.get_atoms())
    if gas.symmetry_number != own:
        print(f"note: the geometry has the symmetry number {own}")
