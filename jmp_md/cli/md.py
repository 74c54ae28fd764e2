"""``jmp-md md``: molecular dynamics."""

from __future__ import annotations

import argparse
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jmp_md.cli.common import add_model_arguments, calculators_for, read_structures
from jmp_md.cli.config import add_config
from jmp_md.cli.signals import signals_as_question
from jmp_md.simulate.frames import FORMATS
from jmp_md.simulate.md import ENSEMBLES, md, md_many

if TYPE_CHECKING:
    from ase import Atoms

NAME = "md"
HELP = "molecular dynamics that can be killed and continued; exit code 2 where a replica failed"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments, with the defaults of :func:`jmp_md.simulate.md.md`."""
    parser.add_argument("structure", type=Path, help="file of a structure; the last of several")
    add_model_arguments(parser, dtype="float32")
    parser.add_argument("--output", type=Path, help="folder of the run (default: STEM-md here)")
    parser.add_argument(
        "--replicas",
        type=int,
        default=1,
        metavar="N",
        help="runs in one batch, with independent random numbers",
    )
    parser.add_argument(
        "--all", action="store_true", help="run all structures of the file, in one batch"
    )
    parser.add_argument("--restart", action="store_true", help="continue the run in the folder")
    add_config(parser)
    parser.add_argument("--ensemble", choices=ENSEMBLES, help="default: %(default)s")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--steps", type=int, help="length of the run (default: %(default)s)")
    length.add_argument("--time", type=float, metavar="PS", help="length of the run in ps")
    for name, text in (
        ("timestep", "fs"),
        ("temperature", "K"),
        ("temperature_end", "K to heat or cool to; Langevin and Bussi"),
        ("pressure", "GPa, for npt"),
        ("tdamp", "fs, time constant of the thermostat, 1 / friction"),
        ("pdamp", "fs, time constant of the barostat"),
    ):
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=float, metavar="X", help=f"{text} (default: %(default)s)")
    parser.add_argument(
        "--remove-drift",
        action=argparse.BooleanOptionalAction,
        help="start, and stay, without total momentum (default: %(default)s)",
    )
    parser.add_argument(
        "--redraw-velocities",
        action="store_true",
        help="draw velocities at the temperature also where the file has momenta",
    )
    parser.add_argument("--interval", type=int, help="steps between frames (default: %(default)s)")
    parser.add_argument(
        "--save-interval", type=int, help="steps between saved states (default: %(default)s)"
    )
    parser.add_argument("--trajectory", choices=FORMATS, help="format (default: %(default)s)")
    parser.add_argument("--seed", type=int, help="of velocities and noise (default: %(default)s)")
    parser.add_argument(
        "--report",
        action=argparse.BooleanOptionalAction,
        help="write report.html, default: yes",
    )
    parser.set_defaults(**(md.__kwdefaults__ or {}))


def run(args: argparse.Namespace) -> int:
    """Execute the command."""
    structures = read_structures(args.structure)
    chosen = structures if args.all else structures[-1:]
    output = args.output or Path(f"{args.structure.stem}-md")
    options = {name: getattr(args, name) for name in md.__kwdefaults__ or {}}
    if args.time is not None:
        options["steps"] = _steps(args.time, args.timestep)
    with signals_as_question() as signals:
        options["stop"] = signals.asked
        try:
            if args.all or args.replicas != 1:
                return _run_many(chosen, output, args, options)
            return _run_one(chosen[0], output, args, options)
        except KeyboardInterrupt:
            saved = "the state is saved; " if signals.asked() else ""
            print(f"stopped, {saved}continue with --restart --output {output}", flush=True)
            if signals.received == signal.SIGTERM:
                return 128 + signal.SIGTERM
            raise


def _steps(time: float, timestep: float) -> int:
    from jmp_md.errors import InputError

    if not (0 <= time < float("inf") and 0 < timestep < float("inf")):
        raise InputError(f"time {time!r} ps, timestep {timestep!r} fs: must be positive")
    return round(1000 * time / timestep)


def _run_one(atoms: Atoms, output: Path, args: argparse.Namespace, options: dict[str, Any]) -> int:
    [(model, atoms.calc)] = calculators_for([atoms], args)
    print(f"{atoms.get_chemical_formula(mode='hill')}, model {model}, {options['steps']} steps")
    result = md(atoms, output, **(options | {"progress": _print_line}))
    print(f"mean temperature {result.temperature:.1f} K", end="")
    if result.volume == result.volume:
        print(f", volume {result.volume:.3f} Å³, pressure {result.pressure:.3f} GPa", end="")
    print(f", drift {result.drift:+.4f} meV/atom/ps" if result.drift == result.drift else "")
    print(f"wrote {result.trajectory} and {result.log}")
    return 0


def _run_many(
    structures: Sequence[Atoms], output: Path, args: argparse.Namespace, options: dict[str, Any]
) -> int:
    model, calculator = calculators_for(structures, args, together=True)[0]
    count = len(structures) * args.replicas
    print(f"{count} replicas in one batch, model {model}, {options['steps']} steps")
    own = options | {"progress": _print_lines, "replicas": args.replicas}
    results = md_many(structures, calculator, output, **own)
    for index, result in enumerate(results):
        if result.error is not None:
            print(f"replica {index} was dropped after step {result.steps}: {result.error}")
    done = [result for result in results if result.error is None]
    if done:
        mean = sum(result.temperature for result in done) / len(done)
        print(f"mean temperature {mean:.1f} K of {len(done)} replicas")
    print(f"wrote {output}: {count} folders {results[0].log.parent.name} and so on")
    return 0 if len(done) == count else 2


def _print_line(line: dict[str, float]) -> None:
    print(
        f"  step {line['step']:8.0f}  time {line['time_fs'] / 1000:10.4f} ps  "
        f"energy {line['total_eV']:16.6f} eV  temperature {line['temperature_K']:8.1f} K",
        flush=True,
    )


def _print_lines(step: int, lines: Sequence[dict[str, float]]) -> None:
    if lines:
        mean = sum(line["temperature_K"] for line in lines) / len(lines)
        print(
            f"  step {step:8d}  time {lines[0]['time_fs'] / 1000:10.4f} ps  {len(lines):4d} "
            f"replicas  mean temperature {mean:8.1f} K",
            flush=True,
        )
