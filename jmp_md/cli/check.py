"""``jmp-md check``: physics checks of a model on a structure."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from jmp_md.cli.common import add_model_arguments, calculators_for, read_structures

if TYPE_CHECKING:
    from jmp_md.check import Outcome


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("structure", type=Path, help="file of a structure; the first one is taken")
    add_model_arguments(parser, dtype="float32")
    parser.add_argument("--seed", type=int, default=0, help="of displacements and velocities")
    parser.add_argument(
        "--steps", type=int, default=200, help="steps of the dynamics (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> int:
    """Execute the command."""
    from jmp_md.check import check

    atoms = read_structures(args.structure)[0]
    ((name, calculator),) = calculators_for([atoms], args)
    formula = atoms.get_chemical_formula(mode="hill")
    print(f"model {name}, head {calculator.potential.head.name}; {args.structure}: {formula}")
    print(f"{'check':26}  {'measured':>9}  {'limit':>9}  {'unit':10}  result")
    failed = 0
    for outcome in check(
        atoms,
        calculator.potential,
        dtype=args.dtype,
        device=args.device,
        seed=args.seed,
        steps=args.steps,
        compile=args.compile,
    ):
        print(_row(outcome), flush=True)
        failed += not outcome.passed
    print(f"{failed} failed" if failed else "all passed")
    return 2 if failed else 0


def _row(outcome: Outcome) -> str:
    measured = "-" if outcome.measured is None else f"{outcome.measured:.1e}"
    limit = "-" if outcome.limit is None else f"{outcome.limit:.0e}"
    result = "pass" if outcome.passed else "FAIL"
    if outcome.measured is None:
        result = "does not apply"
    elif outcome.limit is None:
        result = "for information"
    note = f"; {outcome.note}" if outcome.note else ""
    return f"{outcome.name:26}  {measured:>9}  {limit:>9}  {outcome.unit:10}  {result}{note}"
