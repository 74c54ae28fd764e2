"""What the commands on crystals share: their arguments, and the relaxed crystal."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jmp_md.cli.common import add_model_arguments, add_tags_argument
from jmp_md.cli.config import add_config

if TYPE_CHECKING:
    from ase import Atoms

    from jmp_md.calculators.ase import JMPCalculator
    from jmp_md.simulate.watch import DomainWatch

RELAX = ("cell", "atoms", "none")
STRUCTURE = "structure.extxyz"


def add_crystal_arguments(parser: argparse.ArgumentParser, name: str) -> None:
    """Add the crystal, the model, the folder of results and what to relax first.

    Args:
        parser: Parser of a command.
        name: Its name.
    """
    parser.add_argument("structure", type=Path, help="file of a crystal; the last of several")
    add_model_arguments(parser, dtype="float64")
    add_tags_argument(parser)
    parser.add_argument("--output", type=Path, help=f"folder (default: STEM-{name} here)")
    add_config(parser)
    parser.add_argument(
        "--relax",
        choices=RELAX,
        default="cell",
        help="relax first, with the symmetry kept: cell and atoms, atoms only, or nothing "
        "(default: %(default)s)",
    )
    parser.add_argument("--fmax", type=float, default=1e-3, help="eV/Å (default: %(default)s)")


def prepare(
    atoms: Atoms, name: str, args: argparse.Namespace
) -> tuple[Atoms, str, JMPCalculator, Path, DomainWatch]:
    """Choose a model, make the folder, relax as the options say, write ``structure.extxyz``.

    Returns:
        The crystal to go on with, the name of the model, the model, the folder, and what was seen
        of the crystal's place in the training data.

    Raises:
        InputError: The crystal cannot be computed, or does not relax.
        ModelNotFoundError: No model was named and no shipped one covers the crystal.
    """
    from jmp_md.cli.common import calculators_for, write_structures
    from jmp_md.simulate.crystals import right_handed
    from jmp_md.simulate.watch import DomainWatch
    from jmp_md.structure_files import with_results

    [(model, calculator)] = calculators_for([atoms], args)
    output: Path = args.output or Path(f"{args.structure.stem}-{name}")
    output.mkdir(parents=True, exist_ok=True)
    print(f"{atoms.get_chemical_formula(mode='hill')}, model {model}", flush=True)
    watch = DomainWatch(calculator)
    watch.begin([atoms])
    atoms = _relaxed(right_handed(atoms), calculator, args)
    watch.end([atoms])
    write_structures(output / STRUCTURE, [with_results(atoms)])
    return atoms, model, calculator, output, watch


def say(doubts: Sequence[str]) -> int:
    """Print what puts the results in doubt; the exit code."""
    for text in doubts:
        print(f"in doubt: {text}")
    return 2 if doubts else 0


def _relaxed(atoms: Atoms, calculator: JMPCalculator, args: argparse.Namespace) -> Atoms:
    """A copy without calculator, its symmetry kept where spglib is installed."""
    from importlib.util import find_spec

    from jmp_md.errors import InputError
    from jmp_md.simulate.relax import relax

    start = atoms.copy()
    if args.relax == "none":
        return start
    start.calc = calculator
    result = relax(
        start,
        fmax=args.fmax,
        relax_cell=args.relax == "cell",
        keep_symmetry=find_spec("spglib") is not None,
    )
    print(f"relaxed in {result.steps} steps to fmax {result.fmax:.5f} eV/Å", flush=True)
    if not result.converged:
        raise InputError(
            f"the crystal did not relax in {result.steps} steps: fmax {result.fmax:.5f} eV/Å "
            f"instead of {args.fmax}; relax it with 'jmp-md relax' first, or choose --relax none"
        )
    return result.atoms.copy()
