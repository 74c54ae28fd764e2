"""``jmp-md phonons``: phonon bands, density of states and thermal properties of a crystal."""

from __future__ import annotations

import argparse

from jmp_md.cli.job import add_arguments, single_job
from jmp_md.runs.options import PhononRunOptions

OPTIONS = PhononRunOptions


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add_arguments(parser, OPTIONS, "phonons")


def run(args: argparse.Namespace) -> int:
    """Execute the command."""
    from jmp_md.runs.phonons import run_phonons
    from jmp_md.simulate.phonons import check_phonons

    job = single_job(args, OPTIONS, check_phonons)
    if args.dry_run:
        return job.plan()
    result = job.done_relaxed(run_phonons)
    print(
        f"frequencies from {result.lowest:.3f} to {result.highest:.3f} THz, zero-point energy "
        f"{result.zero_point_energy:.5f} eV per primitive cell"
    )
    return job.end(result.doubts)
