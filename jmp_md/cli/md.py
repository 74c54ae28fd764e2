"""``jmp-md md``: molecular dynamics."""

from __future__ import annotations

import argparse
from pathlib import Path

from jmp_md.cli.common import add_model_arguments, calculators_for, read_structures
from jmp_md.cli.config import add_config
from jmp_md.simulate.frames import FORMATS
from jmp_md.simulate.md import ENSEMBLES, md

NAME = "md"
HELP = "molecular dynamics that can be killed and continued"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments, with the defaults of :func:`jmp_md.simulate.md.md`."""
    parser.add_argument("structure", type=Path, help="file of a structure; the last of several")
    add_model_arguments(parser, dtype="float32")
    parser.add_argument("--output", type=Path, help="folder of the run (default: STEM-md here)")
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
    parser.add_argument("--interval", type=int, help="steps between frames (default: %(default)s)")
    parser.add_argument(
        "--save-interval", type=int, help="steps between saved states (default: %(default)s)"
    )
    parser.add_argument("--trajectory", choices=FORMATS, help="format (default: %(default)s)")
    parser.add_argument("--seed", type=int, help="of velocities and noise (default: %(default)s)")
    parser.add_argument(
        "--report", action=argparse.BooleanOptionalAction, help="write report.html, default: yes"
    )
    parser.set_defaults(**(md.__kwdefaults__ or {}))


def run(args: argparse.Namespace) -> int:
    """Execute the command."""
    atoms = read_structures(args.structure)[-1]
    [(model, atoms.calc)] = calculators_for([atoms], args)
    output = args.output or Path(f"{args.structure.stem}-md")
    options = {name: getattr(args, name) for name in md.__kwdefaults__ or {}}
    if args.time is not None:
        options["steps"] = round(1000 * args.time / args.timestep)
    print(f"{atoms.get_chemical_formula(mode='hill')}, model {model}, {options['steps']} steps")
    try:
        result = md(atoms, output, **(options | {"progress": _print_line}))
    except KeyboardInterrupt:
        print(f"stopped; continue with --restart --output {output}")
        raise
    print(f"mean temperature {result.temperature:.1f} K", end="")
    print(f", drift {result.drift:+.4f} meV/atom/ps" if result.drift == result.drift else "")
    print(f"wrote {result.trajectory} and {result.log}")
    return 0


def _print_line(line: dict[str, float]) -> None:
    print(
        f"  step {line['step']:8.0f}  time {line['time_fs'] / 1000:10.4f} ps  "
        f"energy {line['total_eV']:16.6f} eV  temperature {line['temperature_K']:8.1f} K",
        flush=True,
    )
