"""``jmp-md screen``: many structures in chunks, here or on the workers of a Ray cluster."""

from __future__ import annotations

import argparse
from pathlib import Path

from jmp_md.cli.common import (
    add_model_arguments,
    add_run_arguments,
    finish,
    folder_options,
    read_structures,
    require_own,
    say_plan,
    stoppable,
)
from jmp_md.cli.options import add_options, options_from
from jmp_md.runs.options import ScreenOptions

OPTIONS = ScreenOptions


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("structures", nargs="+", type=Path, help="files of structures")
    add_model_arguments(parser, dtype="float64")
    add_run_arguments(parser, "STEM-screen here")
    parser.add_argument(
        "--ray", metavar="ADDRESS", help="share out by Ray: auto, local, or HOST:PORT"
    )
    add_options(parser, OPTIONS)


def run(args: argparse.Namespace) -> int:
    """Execute the command."""
    from jmp_md.calculators.ase import JMPCalculator
    from jmp_md.errors import InputError
    from jmp_md.memory import keep_freed_memory
    from jmp_md.models.registry import model_file
    from jmp_md.runs.screen import counts, run_screen

    options = options_from(args, OPTIONS)
    keep_freed_memory()
    if args.model is None:
        raise InputError("give the model that all workers are to use: --model NAME or FILE")
    structures = [atoms for path in args.structures for atoms in read_structures(path)]
    output = args.output or Path(f"{args.structures[0].stem}-screen")
    file = model_file(args.model)
    about = {name: getattr(args, name) for name in ("head", "dtype", "trust", "tags")}
    # For its header; workers load the model themselves, where they are.
    here = JMPCalculator(args.model, device="cpu", **about)
    if not args.force_model:
        require_own(dict(enumerate(structures)), here)
    if args.dry_run:
        say_plan(structures, [(args.model, here)] * len(structures), output, options)
        return 0
    with stoppable(None, output):
        results = run_screen(
            structures,
            args.model if file is None else str(file.resolve()),
            output,
            options,
            **about,
            device=args.device,
            compile=args.compile,
            ray=args.ray,
            **folder_options(args),
            progress=lambda done, count: print(f"  chunk {done} of {count}", flush=True),
        )
    found = counts(results)
    failed, left = found["n_failed"], found["n_not_converged"]
    print(f"{len(results)} structures, {failed} failed, {left} not converged")
    finish(args, output)
    return 2 if failed or left else 0
