"""``jmp-md md``: molecular dynamics."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jmp_md.cli.common import (
    add_model_arguments,
    add_run_arguments,
    calculators_for,
    finish,
    folder_options,
    read_structures,
    say_plan,
)
from jmp_md.cli.options import add_options, options_from
from jmp_md.cli.progress import Progress
from jmp_md.signals import SIGNALS, StopRequest, Terminated
from jmp_md.simulate.md.options import MDOptions

if TYPE_CHECKING:
    from ase import Atoms

OPTIONS = MDOptions


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("structure", type=Path, help="file of a structure; the last of several")
    add_model_arguments(parser, dtype="float32")
    add_run_arguments(parser, "STEM-md here")
    parser.add_argument(
        "--replicas",
        type=int,
        default=1,
        metavar="N",
        help="runs in one batch, with independent random numbers (default: 1)",
    )
    parser.add_argument(
        "--all", action="store_true", help="run all structures of the file, in one batch"
    )
    parser.add_argument("--time", metavar="PS", help="length of the run in ps, in place of --steps")
    add_options(parser, MDOptions)


def run(args: argparse.Namespace) -> int:
    """Execute the command."""
    options = _options(args)
    structures = read_structures(args.structure)
    chosen = structures if args.all else structures[-1:]
    output = args.output or Path(f"{args.structure.stem}-md")
    several = args.all or args.replicas != 1
    models = calculators_for(chosen, args, one_model=several)
    if args.dry_run:
        say_plan(chosen, models, output, options)
        return 0
    progress = Progress(options.steps, options.timestep)
    with StopRequest().listening() as request:
        more = {**folder_options(args), "stop": request.came}
        [model, calculator] = models[0]
        try:
            if several:
                more |= {"replicas": args.replicas, "progress": _show_replicas(progress)}
                status = _run_replicas(chosen, calculator, model, output, options, more)
            else:
                chosen[0].calc = calculator
                more |= {"progress": _show(progress)}
                status = _run_one(chosen[0], model, output, options, more)
        except KeyboardInterrupt:
            progress.close()
            saved = "the state is saved; " if request.came() else ""
            print(f"stopped, {saved}continue with --restart --output {output}", flush=True)
            if request.signum == SIGNALS[1]:
                raise Terminated from None
            raise
        finally:
            progress.close()
    finish(args, output)
    return status


def _options(args: argparse.Namespace) -> MDOptions:
    """Those of the command line, with the length that ``--time`` asks for."""
    from jmp_md.errors import InputError

    options = options_from(args, MDOptions)
    if args.time is None:
        return options
    if hasattr(args, "steps"):
        raise InputError(f"--steps {options.steps} and --time {args.time} ps: give one of the two")
    try:
        steps = round(1000 * float(args.time) / options.timestep)
    except (ValueError, OverflowError):
        steps = -1
    if steps < 0:
        raise InputError(f"time {args.time!r} ps: must be positive")
    return options.changed({"steps": steps})


def _run_one(
    atoms: Atoms, model: str, output: Path, options: MDOptions, more: dict[str, Any]
) -> int:
    from jmp_md.runs.md import run_md

    print(f"{atoms.get_chemical_formula(mode='hill')}, model {model}, {options.steps} steps")
    result = run_md(atoms, output, options, **more)
    error = result.temperature_error
    known = f" ± {error:.1f}" if error == error else ""
    print(f"mean temperature {result.temperature:.1f}{known} K", end="")
    if result.volume == result.volume:
        print(f", volume {result.volume:.3f} Å³, pressure {result.pressure:.3f} GPa", end="")
    print(f", drift {result.drift:+.4f} meV/atom/ps" if result.drift == result.drift else "")
    return 0


def _run_replicas(
    structures: Sequence[Atoms],
    calculator: Any,
    model: str,
    output: Path,
    options: MDOptions,
    more: dict[str, Any],
) -> int:
    from jmp_md.runs.md import run_md_replicas

    count = len(structures) * more["replicas"]
    print(f"{count} replicas in one batch, model {model}, {options.steps} steps")
    results = run_md_replicas(structures, calculator, output, options, **more)
    for index, result in enumerate(results):
        if result.error is not None:
            print(f"replica {index} was dropped after step {result.steps}: {result.error}")
    done = [result for result in results if result.error is None]
    if done:
        mean = sum(result.temperature for result in done) / len(done)
        print(f"mean temperature {mean:.1f} K of {len(done)} replicas")
    return 0 if len(done) == count else 2


def _show(progress: Progress) -> Callable[[dict[str, float]], None]:
    def show(line: dict[str, float]) -> None:
        progress.show(
            int(line["step"]),
            f"time {line['time_fs'] / 1000:.4f} ps  energy {line['total_eV']:.6f} eV  "
            f"temperature {line['temperature_K']:.1f} K",
        )

    return show


def _show_replicas(progress: Progress) -> Callable[[int, Sequence[dict[str, float]]], None]:
    def show(step: int, lines: Sequence[dict[str, float]]) -> None:
        if lines:
            mean = sum(line["temperature_K"] for line in lines) / len(lines)
            progress.show(
                step,
                f"time {lines[0]['time_fs'] / 1000:.4f} ps  {len(lines)} replicas  "
                f"mean temperature {mean:.1f} K",
            )

    return show
