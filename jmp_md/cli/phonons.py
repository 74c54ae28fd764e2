"""``jmp-md phonons``: phonon bands, density of states and thermal properties of a crystal."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING, Any

from jmp_md.cli.common import read_structures
from jmp_md.cli.crystals import add_crystal_arguments, prepare, say

if TYPE_CHECKING:
    from jmp_md.simulate.phonons import Phonons

NAME = "phonons"
_OPTIONS = ("supercell", "delta", "mesh", "points", "max_temperature")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add_crystal_arguments(parser, NAME)
    parser.add_argument(
        "--supercell",
        type=int,
        nargs="+",
        metavar="N",
        help="repeats of the cell: 1, 3 or 9 numbers (default: to 10 Å in every direction)",
    )
    parser.add_argument("--delta", type=float, default=0.01, help="Å displaced, %(default)s")
    parser.add_argument(
        "--mesh", type=float, default=100.0, help="Å, density of q-points, %(default)s"
    )
    parser.add_argument(
        "--points", type=int, default=51, help="q-points of the longest segment, %(default)s"
    )
    parser.add_argument("--max-temperature", type=float, default=1000.0, help="K, %(default)s")
    parser.add_argument(
        "--report", action=argparse.BooleanOptionalAction, default=True, help="write report.html"
    )


def run(args: argparse.Namespace) -> int:
    """Execute the command."""
    from jmp_md.report.crystals import write_phonon_report
    from jmp_md.report.phonon_files import write_phonons
    from jmp_md.simulate.phonons import check_options, phonons
    from jmp_md.simulate.summary import describe, write_summary

    started = time.monotonic()
    atoms = read_structures(args.structure)[-1]
    options = {name: getattr(args, name) for name in _OPTIONS}
    check_options(atoms, **options)
    atoms, model, calculator, output, watch = prepare(atoms, NAME, args)
    result = phonons(atoms, calculator, **options, progress=_print_progress)
    write_phonons(result, output)
    figures = _figures(result)
    write_summary(
        output,
        NAME,
        model=describe(calculator),
        settings={name: getattr(args, name) for name in ("relax", "fmax")} | options,
        results=figures | {"doubts": list(result.doubts)},
        seconds=time.monotonic() - started,
        domain=watch.record(),
    )
    if args.report:
        about = {"model": model, "supercell": result.phonopy.supercell_matrix.tolist()}
        write_phonon_report(output, atoms, result, about | figures, calculator, result.doubts)
    print(f"frequencies from {result.lowest:.3f} to {result.highest:.3f} THz", end="")
    print(f", zero-point energy {figures['zero_point_energy_eV']:.5f} eV per primitive cell")
    print(f"wrote {output}: phonopy_params.yaml, bands.svg and more")
    return say(result.doubts)


def _figures(result: Phonons) -> dict[str, Any]:
    return {
        "n_displacements": result.n_displacements,
        "n_atoms_supercell": len(result.phonopy.supercell),
        "lowest_THz": result.lowest,
        "highest_THz": result.highest,
        "imaginary": result.imaginary,
        "zero_point_energy_eV": float(result.thermal.free_energy[0]),
        "fmax_eV_per_A": result.fmax,
        "sum_rule_eV_per_A2": result.sum_rule,
        "edge_share": result.edge,
        "masses_u": result.phonopy.primitive.masses.tolist(),
    }


def _print_progress(done: int, count: int) -> None:
    print(f"  {done} of {count} supercells", flush=True)
