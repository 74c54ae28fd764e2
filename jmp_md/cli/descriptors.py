"""``jmp-md descriptors``: what a model knows of structures, as vectors and as a map."""

from __future__ import annotations

import argparse
from pathlib import Path

from jmp_md.cli.common import (
    add_model_arguments,
    add_run_arguments,
    read_structures,
)
from jmp_md.cli.job import job_of
from jmp_md.cli.options import add_options, options_from
from jmp_md.runs.options import DescriptorOptions, FolderOptions

OPTIONS = DescriptorOptions


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("structures", nargs="+", type=Path, help="files of structures")
    add_model_arguments(parser, dtype="float32")
    add_run_arguments(parser, "STEM-descriptors here", FolderOptions)
    add_options(parser, OPTIONS)


def run(args: argparse.Namespace) -> int:
    """Execute the command."""
    from jmp_md.runs.descriptors import run_descriptors
    from jmp_md.simulate.descriptors import check_map

    options = options_from(args, OPTIONS)
    found = {path: read_structures(path) for path in args.structures}
    structures = [atoms for own in found.values() for atoms in own]
    files = [str(path) for path, own in found.items() for _ in own]
    if options.map is not None:
        check_map(options.map, len(structures))
    job = job_of(args, args.structures[0], structures, options)
    if args.dry_run:
        return job.plan()
    job.done(run_descriptors, structures, files=files)
    return job.end()
