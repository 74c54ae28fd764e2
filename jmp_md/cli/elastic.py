"""``jmp-md elastic``: elastic constants of a crystal."""

from __future__ import annotations

import argparse

from jmp_md.cli.job import add_arguments, single_job
from jmp_md.runs.options import ElasticRunOptions

OPTIONS = ElasticRunOptions


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add_arguments(parser, OPTIONS, "elastic")


def run(args: argparse.Namespace) -> int:
    """Execute the command."""
    from ase.units import GPa

    from jmp_md.runs.elastic import check_elastic, run_elastic

    job = single_job(args, OPTIONS, check_elastic)
    if args.dry_run:
        return job.plan()
    result = job.done_relaxed(run_elastic)
    print("elastic constants in GPa:")
    for row in result.stiffness / GPa:
        print("  " + " ".join(f"{value:9.2f}" for value in row))
    for name in ("voigt", "reuss", "hill"):
        average = getattr(result, name)
        print(
            f"{name.title():5}  bulk {average.bulk / GPa:9.2f} GPa  shear "
            f"{average.shear / GPa:9.2f} GPa  Young {average.young / GPa:9.2f} GPa  Poisson "
            f"{average.poisson:7.4f}"
        )
    return job.end(result.doubts)
