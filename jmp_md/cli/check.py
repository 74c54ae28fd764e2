"""``jmp-md check``: physics checks of a model on a structure."""

from __future__ import annotations

import argparse
import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING

from jmp_md.cli.common import (
    add_model_arguments,
    add_words_arguments,
    calculators_for,
    read_structures,
)
from jmp_md.cli.config import add_config
from jmp_md.cli.options import add_options, options_from
from jmp_md.options import Options, option

if TYPE_CHECKING:
    from jmp_md.check import Outcome


class CheckOptions(Options):
    """Options of :func:`jmp_md.check.check`."""

    seed: int = option(0, "of displacements, rotations and velocities", ge=0)
    # A drift does not show in fewer.
    steps: int = option(200, "steps of the dynamics, of 0.5 fs", ge=10)


OPTIONS = CheckOptions


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("structure", type=Path, help="file of a structure; the first one is taken")
    add_model_arguments(parser, dtype="float32")
    add_words_arguments(parser)
    add_config(parser)
    add_options(parser, CheckOptions)


def run(args: argparse.Namespace) -> int:
    """Execute the command."""
    from jmp_md.check import check
    from jmp_md.simulate.summary import describe, make_summary, summary_text

    options = options_from(args, CheckOptions)
    started = time.monotonic()
    atoms = read_structures(args.structure)[0]
    ((name, calculator),) = calculators_for([atoms], args)
    formula = atoms.get_chemical_formula(mode="hill")
    print(f"model {name}, head {calculator.potential.head.name}; {args.structure}: {formula}")
    print(f"{'check':26}  {'measured':>9}  {'limit':>9}  {'unit':10}  result")
    outcomes = []
    for outcome in check(
        atoms,
        calculator.potential,
        dtype=args.dtype,
        device=args.device,
        **options.model_dump(),
        compile=args.compile,
        tags=args.tags,
    ):
        print(_row(outcome), flush=True)
        outcomes.append(outcome)
    failed = sum(not outcome.passed for outcome in outcomes)
    rows = [dataclasses.asdict(each) | {"passed": each.passed} for each in outcomes]
    summary = make_summary(
        "check",
        model=describe(calculator),
        settings=options.model_dump() | {"dtype": args.dtype, "compile": args.compile},
        results={"formula": formula, "n_failed": failed, "checks": rows},
        seconds=time.monotonic() - started,
    )
    args.summary = summary_text(summary)
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
