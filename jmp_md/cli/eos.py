"""``jmp-md eos``: equation of state of a crystal."""

from __future__ import annotations

import argparse
import time

from jmp_md.cli.common import read_structures
from jmp_md.cli.crystals import add_crystal_arguments, prepare, say

NAME = "eos"
_OPTIONS = ("form", "strain", "points")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add_crystal_arguments(parser, NAME)
    parser.add_argument(
        "--form", default="birchmurnaghan", help="or murnaghan, birch, pouriertarantola, vinet"
    )
    parser.add_argument(
        "--strain", type=float, default=0.06, help="largest share of the volume, %(default)s"
    )
    parser.add_argument("--points", type=int, default=9, help="volumes, %(default)s")


def run(args: argparse.Namespace) -> int:
    """Execute the command."""
    from ase.units import GPa

    from jmp_md.files import atomic_write
    from jmp_md.report.crystals import energy_volume
    from jmp_md.simulate.eos import check_options, eos
    from jmp_md.simulate.summary import describe, write_summary

    started = time.monotonic()
    atoms = read_structures(args.structure)[-1]
    options = {name: getattr(args, name) for name in _OPTIONS}
    check_options(atoms, **options)
    atoms, _, calculator, output, watch = prepare(atoms, NAME, args)
    result = eos(atoms, calculator, **options, relax=args.relax != "none", fmax=args.fmax)
    for volume, energy in zip(result.volumes, result.energies, strict=True):
        print(f"  {volume:12.4f} Å³  {energy:16.6f} eV")
    print(
        f"minimum at {result.volume:.4f} Å³ with {result.energy:.6f} eV, bulk modulus "
        f"{result.bulk_modulus / GPa:.2f} GPa, derivative {result.derivative:.3f}"
    )
    with atomic_write(output / "eos.svg") as temporary:
        energy_volume(result).savefig(temporary, format="svg", metadata={"Date": None})
    write_summary(
        output,
        NAME,
        model=describe(calculator),
        settings={name: getattr(args, name) for name in ("relax", "fmax")} | options,
        results={
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
        },
        seconds=time.monotonic() - started,
        domain=watch.record(),
    )
    print(f"wrote {output}: eos.svg and summary.json")
    return say(result.doubts)
