"""``jmp-md screen``: many structures in chunks, here or on the workers of a Ray cluster."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from jmp_md.cli.common import add_model_arguments, read_structures, require_own
from jmp_md.cli.config import add_config

NAME = "screen"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("structures", nargs="+", type=Path, help="files of structures")
    add_model_arguments(parser, dtype="float64")
    add_config(parser)
    parser.add_argument(
        "--task", choices=("relax", "singlepoint"), default="relax", help="default: %(default)s"
    )
    parser.add_argument("--output", type=Path, help="folder (default: STEM-screen here)")
    parser.add_argument("--restart", action="store_true", help="continue the queue in the folder")
    parser.add_argument(
        "--chunk", type=int, default=256, help="structures in a chunk (default: %(default)s)"
    )
    parser.add_argument(
        "--ray", metavar="ADDRESS", help="share out by Ray: auto, local, or HOST:PORT"
    )
    parser.add_argument(
        "--fmax", type=float, default=0.01, help="eV/Å to stop at (default: %(default)s)"
    )
    parser.add_argument(
        "--steps", type=int, default=500, help="most steps to take (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> int:
    """Execute the command."""
    from jmp_md.calculators.ase import JMPCalculator
    from jmp_md.errors import InputError
    from jmp_md.memory import keep_freed_memory
    from jmp_md.models.registry import model_file
    from jmp_md.simulate.screen import RESULTS, screen
    from jmp_md.simulate.summary import describe, write_summary
    from jmp_md.simulate.watch import DomainWatch

    keep_freed_memory()
    started = time.monotonic()
    if args.model is None:
        raise InputError("give the model that all workers are to use: --model NAME or FILE")
    structures = [atoms for path in args.structures for atoms in read_structures(path)]
    output = args.output or Path(f"{args.structures[0].stem}-screen")
    options = {"fmax": args.fmax, "steps": args.steps} if args.task == "relax" else {}
    file = model_file(args.model)
    # For its header; workers load the model themselves, where they are.
    here = JMPCalculator(
        args.model, head=args.head, dtype=args.dtype, device="cpu", trust=args.trust
    )
    if not args.force_model:
        require_own(dict(enumerate(structures)), here)
    watch = DomainWatch(here)
    watch.begin(structures)
    try:
        results = screen(
            structures,
            args.model if file is None else str(file.resolve()),
            output,
            task=args.task,
            head=args.head,
            dtype=args.dtype,
            device=args.device,
            compile=args.compile,
            trust=args.trust,
            options=options,
            chunk=args.chunk,
            ray=args.ray,
            restart=args.restart,
            progress=lambda done, count: print(f"  chunk {done} of {count}", flush=True),
        )
    except KeyboardInterrupt:
        print(f"stopped; continue with --restart --output {output}")
        raise
    watch.end([atoms for atoms in results if "error" not in atoms.info])
    failed = sum("error" in atoms.info for atoms in results)
    open_ = sum(not atoms.info.get("converged", True) for atoms in results) - failed
    print(f"{len(results)} structures, {failed} failed, {max(open_, 0)} not converged")
    write_summary(
        output,
        NAME,
        model=describe(here) | {"device": args.device},
        settings={"task": args.task, "chunk": args.chunk} | options,
        results={
            "n_structures": len(results),
            "n_failed": failed,
            "n_not_converged": max(open_, 0),
        },
        seconds=time.monotonic() - started,
        domain=watch.record(),
    )
    print(f"wrote {output}: {RESULTS} and summary.json")
    return 0 if not failed and open_ <= 0 else 2
