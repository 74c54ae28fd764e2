"""``jmp-md benchmark``: a model against published numbers."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from jmp_md.cli.common import (
    add_loading_arguments,
    add_run_arguments,
    finish,
    folder_options,
    load_calculator,
    stoppable,
)
from jmp_md.cli.options import add_options, options_from
from jmp_md.runs.options import BenchmarkOptions

if TYPE_CHECKING:
    from jmp_md.benchmarking import Part

OPTIONS = BenchmarkOptions


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("model", help="name or file of a model")
    add_loading_arguments(parser, dtype="float64")
    add_run_arguments(parser, "MODEL-benchmark here")
    parser.add_argument(
        "--compare",
        nargs="+",
        type=Path,
        default=[],
        metavar="JSON",
        help="benchmark.json of other models, for columns beside this one's",
    )
    parser.add_argument(
        "--keep", action="store_true", help="also beside the file of the model, for its card"
    )
    add_options(parser, OPTIONS)


def run(args: argparse.Namespace) -> int:
    """Execute the command."""
    from jmp_md.benchmarking import PARTS
    from jmp_md.benchmarking.kept import keep
    from jmp_md.benchmarking.run import run_benchmark
    from jmp_md.benchmarking.tables import read_benchmark
    from jmp_md.errors import InputError
    from jmp_md.models.registry import resolve

    options = options_from(args, OPTIONS)
    if not args.model:
        raise InputError("there is no model to test: give a name of 'jmp-md models', or a file")
    others = [read_benchmark(path) for path in args.compare]
    calculator = load_calculator(args.model, args)
    head = calculator.potential.head.name
    name = Path(args.model).stem if Path(args.model).is_file() else args.model
    output = args.output or Path(f"{name}-benchmark")
    print(f"model {name}, head {head}, {args.dtype}")
    if args.dry_run:
        parts = ", ".join(options.parts or PARTS)
        print(f"dry run: nothing of {parts} was computed, {output} was not written")
        return 0
    print(f"{'':34} {'cases':>5}  mean error, and the worst", flush=True)
    fresh: list[Part] = []

    def done(part: Part) -> None:
        fresh.append(part)
        _print(part)

    with stoppable(None, output):
        found = run_benchmark(
            calculator,
            f"{name} ({head})",
            output,
            options,
            beside=others,
            **folder_options(args),
            progress=done,
        )
    if kept := len(found.parts) - len(fresh):
        print(f"{kept} parts were there already")
    if args.keep:
        print(f"wrote {keep(resolve(args.model), found)}")
    finish(args, output)
    return 0


def _print(part: Part) -> None:
    line = f"{part.name:34} {len(part.cases):5}"
    if part.worst is not None:
        line += f"  {part.mean_error:.3g} {part.unit}; {part.worst.name} {part.worst.error:+.3g}"
    elif part.cases:
        line += f"  {', '.join(f'{case.name} {case.value:.3g} {part.unit}' for case in part.cases)}"
    if part.left_out:
        line += f"  ({len(part.left_out)} left out)"
    print(line, flush=True)
