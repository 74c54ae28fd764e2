"""``jmp-md export``: write a model as one file that runs without this package."""

from __future__ import annotations

import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("--model", required=True, help="name or file of a model")
    parser.add_argument("--output", required=True, help="file to write, *.pt or *.pt2")
    parser.add_argument(
        "--format",
        default="torchscript",
        choices=("torchscript", "aoti"),
        help="aoti is a package .pt2 of machine code for JMPCalculator and C++ "
        "(default: torchscript)",
    )
    parser.add_argument(
        "--structure",
        metavar="FILE",
        help="fix the atoms to those of this file (any that ASE reads), in nm and kJ/mol, for "
        "OpenMM's TorchForce; without it the file takes any atoms, in Å and eV",
    )
    parser.add_argument("--head", help="task of a model with several")
    parser.add_argument(
        "--forces",
        choices=("conservative", "direct"),
        help="gradient of the energy, or the force head's (default, where there is one)",
    )
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    parser.add_argument("--weights", choices=("ema", "raw"), default="ema")
    parser.add_argument(
        "--trust", action="store_true", help="load an exported file, which runs code that it holds"
    )


def run(args: argparse.Namespace) -> int:
    """Execute the command."""
    from jmp_md.export import export

    numbers, periodic = None, False
    if args.structure is not None:
        numbers, periodic = _read_structure(args.structure)
    info = export(
        args.model,
        args.output,
        format=args.format,
        numbers=numbers,
        periodic=periodic,
        forces=args.forces,
        dtype=args.dtype,
        head=args.head,
        weights=args.weights,
        trust=args.trust,
    )
    form = "positions, numbers, cell, pbc, structure (Å, eV)"
    if args.format == "aoti":
        form = "the edges of a graph; load it with trust=True or --trust"
    if numbers is not None:
        box = ", box vectors" if periodic else ""
        form = f"positions{box} of {len(numbers)} atoms (nm, kJ/mol)"
    print(f"{args.output}: {info.header.name}, {info.forces} forces, {info.dtype}; takes {form}")
    return 0


def _read_structure(path: str) -> tuple[list[int], bool]:
    """Atomic numbers, and whether there is a box."""
    from pathlib import Path

    from jmp_md.errors import InputError
    from jmp_md.structure_files import read_structures

    atoms = read_structures(Path(path))[-1]
    if atoms.pbc.any() and not atoms.pbc.all():
        raise InputError(
            f"{path} is periodic in some directions only, pbc {atoms.pbc.tolist()}: OpenMM knows "
            "three or none"
        )
    return atoms.numbers.tolist(), bool(atoms.pbc.all())
