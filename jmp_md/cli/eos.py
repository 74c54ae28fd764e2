"""``jmp-md eos``: equation of state of a crystal."""

from __future__ import annotations

import argparse

from jmp_md.cli.job import add_arguments, single_job
from jmp_md.runs.options import EOSRunOptions

OPTIONS = EOSRunOptions


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add_arguments(parser, OPTIONS, "eos")


def run(args: argparse.Namespace) -> int:
    """Execute the command."""
    from ase.units import GPa

    from jmp_md.runs.eos import check_eos, run_eos

    job = single_job(args, OPTIONS, check_eos)
    if args.dry_run:
        return job.plan()
    result = job.done_relaxed(run_eos)
    for volume, energy in zip(result.volumes, result.energies, strict=True):
        print(f"  {volume:12.4f} Å³  {energy:16.6f} eV")
    print(
        f"minimum at {result.volume:.4f} Å³ with {result.energy:.6f} eV, bulk modulus "
        f"{result.bulk_modulus / GPa:.2f} GPa, derivative {result.derivative:.3f}"
    )
    return job.end(result.doubts)
