"""``jmp-md neb``: minimum energy path between two structures."""

from __future__ import annotations

import argparse
from pathlib import Path

from jmp_md.cli.common import add_model_arguments, calculators_for, read_structures
from jmp_md.cli.config import add_config
from jmp_md.simulate.first_path import INTERPOLATIONS, METHODS, OPTIMIZERS
from jmp_md.simulate.neb import IMAGINARY, PATH, neb

NAME = "neb"
HELP = "minimum energy path and barrier; exit code 2 where it did not converge or --verify fails"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments, with the defaults of :func:`jmp_md.simulate.neb.neb`."""
    parser.add_argument(
        "structures", nargs="+", type=Path, help="files of the two ends, or of a whole path"
    )
    add_model_arguments(parser, dtype="float64")
    parser.add_argument("--output", type=Path, help="folder of the run (default: STEM-neb here)")
    parser.add_argument("--restart", action="store_true", help="continue the run in the folder")
    add_config(parser)
    parser.add_argument(
        "--n-images", type=int, help="images between two ends, with both (default: %(default)s)"
    )
    parser.add_argument("--fmax", type=float, help="eV/Å to stop at (default: %(default)s)")
    parser.add_argument("--steps", type=int, help="most steps to take (default: %(default)s)")
    parser.add_argument("--spring", type=float, help="eV/Å² between images (default: %(default)s)")
    parser.add_argument("--method", choices=METHODS, help="default: %(default)s")
    parser.add_argument("--optimizer", choices=OPTIMIZERS, help="default: %(default)s")
    parser.add_argument("--interpolation", choices=INTERPOLATIONS, help="default: %(default)s")
    for option, text in (
        ("--climb", "let the highest image climb to the saddle point"),
        ("--relax-ends", "relax both ends first"),
        ("--verify", "frequencies of the transition state, one must be imaginary"),
    ):
        parser.add_argument(
            option, action=argparse.BooleanOptionalAction, help=f"{text} (default: %(default)s)"
        )
    parser.add_argument(
        "--report", action=argparse.BooleanOptionalAction, help="write report.html, default: yes"
    )
    parser.set_defaults(**(neb.__kwdefaults__ or {}))


def run(args: argparse.Namespace) -> int:
    """Execute the command."""
    images = [atoms for path in args.structures for atoms in read_structures(path)]
    [(model, calculator)] = calculators_for(images[:1], args)
    output = args.output or Path(f"{args.structures[0].stem}-neb")
    options = {name: getattr(args, name) for name in neb.__kwdefaults__ or {}}
    print(f"{images[0].get_chemical_formula(mode='hill')}, model {model}")
    try:
        result = neb(images, calculator, output, **(options | {"progress": _print_step}))
    except KeyboardInterrupt:
        print(f"stopped; continue with --restart --output {output}")
        raise
    good = result.converged
    how = "converged" if result.converged else "NOT converged"
    print(f"{how} after {result.steps} steps: barrier {result.barrier:.4f} eV, ", end="")
    print(f"from the other side {result.reverse_barrier:.4f} eV")
    if result.frequencies is not None:
        lowest = ", ".join(f"{frequency:.0f}" for frequency in result.frequencies[:3])
        print(f"lowest frequencies {lowest} cm⁻¹, negative ones are imaginary")
        found = int((result.frequencies < -IMAGINARY).sum())
        if found != 1:
            print(f"NOT a transition state: {found} imaginary frequencies in place of one")
            good = False
    print(f"wrote {output / PATH}: {len(result.images)} images")
    return 0 if good else 2


def _print_step(step: int, barrier: float, fmax: float) -> None:
    print(f"  step {step:4d}  barrier {barrier:10.4f} eV  fmax {fmax:10.5f} eV/Å", flush=True)
