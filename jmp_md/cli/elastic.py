"""``jmp-md elastic``: elastic constants of a crystal."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING, Any

from jmp_md.cli.common import read_structures
from jmp_md.cli.crystals import add_crystal_arguments, prepare, say

if TYPE_CHECKING:
    from jmp_md.simulate.elastic import Elastic

NAME = "elastic"
_OPTIONS = ("strain", "points")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add_crystal_arguments(parser, NAME)
    parser.add_argument("--strain", type=float, default=0.005, help="largest strain, %(default)s")
    parser.add_argument(
        "--points", type=int, default=5, help="strains of each component, %(default)s"
    )
    parser.add_argument("--clamped", action="store_true", help="leave ions where the strain moves")


def run(args: argparse.Namespace) -> int:
    """Execute the command."""
    from jmp_md.simulate.elastic import check_options, elastic
    from jmp_md.simulate.summary import describe, write_summary

    started = time.monotonic()
    atoms = read_structures(args.structure)[-1]
    options = {name: getattr(args, name) for name in _OPTIONS}
    check_options(atoms, **options)
    atoms, _, calculator, output, watch = prepare(atoms, NAME, args)
    result = elastic(atoms, calculator, **options, relax=not args.clamped, fmax=args.fmax)
    figures = _figures(result)
    print("elastic constants in GPa:")
    for row in figures["stiffness_GPa"]:
        print("  " + " ".join(f"{value:9.2f}" for value in row))
    for name in ("voigt", "reuss", "hill"):
        average = figures[name]
        print(
            f"{name.title():5}  bulk {average['bulk_GPa']:9.2f} GPa  shear "
            f"{average['shear_GPa']:9.2f} GPa  Young {average['young_GPa']:9.2f} GPa  Poisson "
            f"{average['poisson']:7.4f}"
        )
    names = ("relax", "fmax", "clamped")
    write_summary(
        output,
        NAME,
        model=describe(calculator),
        settings={name: getattr(args, name) for name in names} | options,
        results=figures,
        seconds=time.monotonic() - started,
        domain=watch.record(),
    )
    print(f"wrote {output / 'summary.json'}")
    return say(result.doubts)


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
