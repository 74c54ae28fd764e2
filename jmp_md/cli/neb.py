"""``jmp-md neb``: minimum energy path between two structures."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jmp_md.cli.common import add_model_arguments, calculators_for, read_structures
from jmp_md.cli.config import add_config
from jmp_md.simulate.first_path import ATOM_ORDERS, INTERPOLATIONS, METHODS, OPTIMIZERS
from jmp_md.simulate.neb import PATH, neb

if TYPE_CHECKING:
    from ase import Atoms

NAME = "neb"
HELP = "minimum energy path and barrier; exit code 2 where the barrier is in doubt"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments, with the defaults of :func:`jmp_md.simulate.neb.neb`."""
    parser.add_argument(
        "structures",
        nargs="+",
        type=Path,
        help="files of the two ends or of more structures on the way, the last structure of each; "
        "or one file of a whole path",
    )
    parser.add_argument(
        "--all-frames", action="store_true", help="take all structures of every file as the path"
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
    parser.add_argument(
        "--atom-order",
        choices=ATOM_ORDERS,
        help="where identical atoms change places: refuse, keep as given, or take the nearest "
        "(default: %(default)s)",
    )
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
    images = _images(args.structures, args.all_frames)
    [(model, calculator)] = calculators_for([images[0], images[-1]], args, together=True)[:1]
    output = args.output or Path(f"{args.structures[0].stem}-neb")
    options = {name: getattr(args, name) for name in neb.__kwdefaults__ or {}}
    print(f"{images[0].get_chemical_formula(mode='hill')}, model {model}")
    try:
        result = neb(images, calculator, output, **(options | {"progress": _print_step}))
    except KeyboardInterrupt:
        print(f"stopped; continue with --restart --output {output}")
        raise
    how = "converged" if result.converged else "NOT converged"
    print(f"{how} after {result.steps} steps: barrier {result.barrier:.4f} eV, ", end="")
    print(f"from the other side {result.reverse_barrier:.4f} eV")
    if result.frequencies is not None:
        lowest = ", ".join(f"{frequency:.0f}" for frequency in result.frequencies[:3])
        print(f"lowest frequencies {lowest} cm⁻¹, negative ones are imaginary")
    for kind, texts in (("note", result.notes), ("in doubt", result.doubts)):
        for text in texts:
            print(f"{kind}: {text}")
    print(f"wrote {output / PATH}: {len(result.images)} images")
    return 2 if result.doubts else 0


def _images(files: Sequence[Path], all_frames: bool) -> list[Atoms]:
    """The last structure of each file, or all of one file or where asked for."""
    found = [read_structures(path) for path in files]
    if all_frames or len(files) == 1:
        return [atoms for structures in found for atoms in structures]
    for path, structures in zip(files, found, strict=True):
        if len(structures) > 1:
            print(f"{path}: the last of {len(structures)} structures (--all-frames takes all)")
    return [structures[-1] for structures in found]


def _print_step(step: int, barrier: float, fmax: float) -> None:
    print(f"  step {step:4d}  barrier {barrier:10.4f} eV  fmax {fmax:10.5f} eV/Å", flush=True)
