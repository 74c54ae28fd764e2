"""``jmp-md relax``: relax the structures of files, one after another or together."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from jmp_md.cli.common import (
    add_model_arguments,
    add_run_arguments,
    calculators_for,
    finish,
    folder_of,
    read_structures,
    say_plan,
    written_format,
)
from jmp_md.cli.options import add_options, options_from
from jmp_md.cli.progress import Progress
from jmp_md.runs.options import RestartOptions
from jmp_md.simulate.options import RelaxOptions

if TYPE_CHECKING:
    from jmp_md.runs.relax import Relaxations
    from jmp_md.simulate.relax.relaxation import Relaxation, RelaxResult

OPTIONS = RelaxOptions
RENAMED = {"--log": "the log of the optimizer is always optimizer.log in the folder of --output"}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("structures", nargs="+", type=Path, help="files of structures")
    add_model_arguments(parser, dtype="float64")
    add_run_arguments(parser, "STEM-relax here")
    parser.add_argument(
        "--format",
        type=lambda text: text.lstrip("."),
        default="extxyz",
        metavar="ENDING",
        help="of the file relaxed.ENDING, any format of ASE (default: extxyz)",
    )
    parser.add_argument(
        "--trajectory",
        type=written_format("traj"),
        metavar="{traj}",
        help="write all steps, in this format (default: only the ends)",
    )
    parser.add_argument(
        "--batch-size",
        type=int,
        default=1,
        metavar="N",
        help="relax so many structures together on one model, faster (default: one after another)",
    )
    add_options(parser, RelaxOptions)


def run(args: argparse.Namespace) -> int:
    """Execute the command."""
    from jmp_md.runs.relax import Relaxations

    options = options_from(args, RelaxOptions)
    output = folder_of(args.output) or Path(f"{args.structures[0].stem}-relax")
    structures = [atoms for path in args.structures for atoms in read_structures(path)]
    run = Relaxations(
        structures,
        [],
        output,
        options,
        batch_size=args.batch_size,
        format=args.format,
        trajectory=args.trajectory is not None,
        around=options_from(args, RestartOptions),
    )
    run.check()
    run.models = calculators_for(structures, args)
    if args.dry_run:
        say_plan(structures, run.models, output, options)
        return 0
    _report(run)
    try:
        run.run()
    except KeyboardInterrupt:
        print(f"stopped; the same command with --restart goes on, from {output}")
        raise
    finally:
        good = run.good
        if good:
            gaps = "" if good == list(range(len(good))) else "; index in each says which it is"
            print(f"wrote {run.result}: {len(good)} of {len(structures)} structures{gaps}")
    finish(args, output)
    left = any(watch.left for watch in run.watches.values())
    return 0 if all(end.converged for end in run.ends.values()) and not left else 2


def _report(run: Relaxations) -> None:
    """Print how far a run is and what became of each structure."""
    count = len(run.structures)
    if run.options.keep_symmetry:
        print("note: the symmetry is kept at a saddle point, too; frequencies tell which it is")
    if run.batch_size > 1:
        for model in dict(run.models):
            own = sum(name == model for name, _ in run.models)
            print(f"{own} structures, model {model}, {run.batch_size} at a time")

    progress = Progress(run.options.steps)
    last = None

    def show(index: int, now: Relaxation) -> None:
        nonlocal progress, last
        if index != last:
            last, progress = index, Progress(run.options.steps)
            formula = now.atoms.get_chemical_formula(mode="hill")
            print(f"structure {index + 1} of {count}: {formula}, model {run.models[index][0]}")
        line = f"energy {now.energy:.6f} eV  fmax {now.fmax:.5f} eV/Å"
        progress.show(now.steps, line)

    def ended(index: int, end: RelaxResult) -> None:
        progress.close()
        about = _line(end) if end.error is None else f"dropped: {end.error}"
        which = "  " if index == last else f"structure {index + 1} of {count}: "
        print(f"{which}{about}", flush=True)

    run.ended = ended
    if run.batch_size == 1:
        run.observer = show


def _line(end: RelaxResult) -> str:
    how = "converged" if end.converged else "NOT converged"
    stress = "" if end.stress_left is None else f", stress left {end.stress_left:.4f} GPa"
    return (
        f"{how} after {end.steps} steps: energy {end.energy:.6f} eV "
        f"({end.energy_change:+.6f} eV), fmax {end.fmax:.5f} eV/Å{stress}"
    )
