"""``jmp-md benchmark``: a model against published numbers."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from jmp_md.cli.common import add_run_arguments, finish

if TYPE_CHECKING:
    from jmp_md.benchmarking import Part


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("model", help="name or file of a model")
    parser.add_argument("--head", help="task of a model with several, e.g. wb97x")
    parser.add_argument("--device", help="cpu or cuda (default: cuda where there is one)")
    parser.add_argument(
        "--dtype",
        choices=("float32", "float64"),
        default="float64",
        help="precision (default: %(default)s)",
    )
    parser.add_argument(
        "--trust", action="store_true", help="load an exported file, which runs code that it holds"
    )
    parser.add_argument(
        "--parts", nargs="+", metavar="PART", help="(default: all; a wrong name lists them)"
    )
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
    add_run_arguments(parser, "MODEL-benchmark here", report=False, restart=False)


def run(args: argparse.Namespace) -> int:
    """Execute the command."""
    from jmp_md.benchmarking import PARTS, benchmark, check_parts
    from jmp_md.benchmarking.kept import keep
    from jmp_md.benchmarking.tables import JSON, MARKDOWN, PAGE, read_benchmark, write_benchmark
    from jmp_md.calculators.ase import JMPCalculator
    from jmp_md.errors import InputError
    from jmp_md.models.registry import resolve
    from jmp_md.runs.folder import opened

    if not args.model:
        raise InputError("there is no model to test: give a name of 'jmp-md models', or a file")
    parts = args.parts or tuple(PARTS)
    check_parts(parts)
    others = [read_benchmark(path) for path in args.compare]
    calculator = JMPCalculator(
        args.model, head=args.head, dtype=args.dtype, device=args.device, trust=args.trust
    )
    head = calculator.potential.head.name
    name = Path(args.model).stem if Path(args.model).is_file() else args.model
    output = args.output or Path(f"{name}-benchmark")
    if (output / JSON).exists() and not args.overwrite:
        raise InputError(
            f"{output} holds a benchmark: remove it with --overwrite, or choose another output"
        )
    print(f"model {name}, head {head}, {args.dtype}")
    if args.dry_run:
        print(f"dry run: nothing of {', '.join(parts)} was computed, {output} was not written")
        return 0
    print(f"{'':34} {'cases':>5}  mean error, and the worst")
    with opened(output, (JSON, MARKDOWN, PAGE), overwrite=args.overwrite):
        found = benchmark(calculator, f"{name} ({head})", parts=parts, progress=_print)
        write_benchmark(output, [found, *others])
        if args.keep:
            print(f"wrote {keep(resolve(args.model), found)}")
        finish(args, output, JSON)
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
