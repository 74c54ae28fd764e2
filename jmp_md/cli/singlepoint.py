"""``jmp-md singlepoint``: energies and forces of the structures of files."""

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
    folder_options,
    read_structures,
    say_plan,
)
from jmp_md.cli.options import add_options, options_from
from jmp_md.runs.options import FolderOptions
from jmp_md.simulate.options import SinglepointOptions

if TYPE_CHECKING:
    from jmp_md.runs.singlepoint import Computed

OPTIONS = SinglepointOptions


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("structures", nargs="+", type=Path, help="files of structures")
    add_model_arguments(parser, dtype="float32")
    add_run_arguments(parser, "a table to the terminal", FolderOptions)
    parser.add_argument(
        "--format",
        choices=("extxyz", "json", "csv"),
        default="extxyz",
        help="of results.FORMAT in the folder of --output; csv has no forces (default: extxyz)",
    )
    add_options(parser, OPTIONS)


def run(args: argparse.Namespace) -> int:
    """Execute the command."""
    from jmp_md.runs.folder import refuse_used
    from jmp_md.runs.singlepoint import FILES, RESULTS, compute, run_singlepoint
    from jmp_md.simulate.summary import summary_text

    options = options_from(args, OPTIONS)
    output = folder_of(args.output)
    if output is not None:
        refuse_used(output, FILES, options_from(args, FolderOptions))
    found = [(path, read_structures(path)) for path in args.structures]
    structures = [atoms for _, own in found for atoms in own]
    origins = [(str(path), i) for path, own in found for i in range(len(own))]
    models = calculators_for(structures, args)
    if args.dry_run:
        say_plan(structures, models, output or Path(RESULTS), options)
        return 0
    if output is None:
        computed = compute(structures, models, options, origins)
        _say(computed)
        args.summary = summary_text(computed.with_table())
        return 2 if computed.failed else 0
    computed = run_singlepoint(
        structures,
        models,
        output,
        options,
        origins=origins,
        format=args.format,
        **folder_options(args),
    )
    count = len(structures)
    file = output / f"{RESULTS}.{args.format}"
    print(f"wrote {file}: {count - computed.failed} of {count} structures")
    finish(args, output)
    return 2 if computed.failed else 0


def _say(computed: Computed) -> None:
    for row in computed.rows:
        about = f"{row['file']}[{row['index']}]  {row['formula']}  model {row['model']}"
        print(about, end="  ")
        print(
            row["error"]
            or f"energy {row['energy_eV']:.6f} eV  fmax {row['fmax_eV_per_A']:.6f} eV/Å"
        )
