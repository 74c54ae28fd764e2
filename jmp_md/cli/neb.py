"""``jmp-md neb``: minimum energy path between two structures."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jmp_md.cli.common import (
    add_model_arguments,
    add_run_arguments,
    read_structures,
)
from jmp_md.cli.job import job_of
from jmp_md.cli.options import add_options, options_from
from jmp_md.cli.progress import Progress
from jmp_md.simulate.options import NEBOptions

if TYPE_CHECKING:
    from ase import Atoms

    from jmp_md.calculators.ase import JMPCalculator

OPTIONS = NEBOptions


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "structures",
        nargs="+",
        type=Path,
        help="files of the two ends or of more structures on the way, the last structure of each; "
        "or one file of a whole path",
    )
    parser.add_argument(
        "--all-frames", action="store_true", help="take all structures of every file as the path"
    )
    add_model_arguments(parser, dtype="float64")
    add_run_arguments(parser, "STEM-neb here")
    add_options(parser, NEBOptions)


def run(args: argparse.Namespace) -> int:
    """Execute the command."""
    from jmp_md.runs.neb import run_neb

    options = options_from(args, NEBOptions)
    images = _images(args.structures, args.all_frames)
    job = job_of(args, args.structures[0], [images[0], images[-1]], options)
    if args.dry_run:
        return job.plan()
    line = Progress(options.steps)

    def show(step: int, barrier: float, fmax: float) -> None:
        line.show(step, f"barrier {barrier:.4f} eV  fmax {fmax:.5f} eV/Å")

    result = job.done(run_neb, images, line, progress=show)
    how = "converged" if result.converged else "NOT converged"
    print(f"{how} after {result.steps} steps: barrier {result.barrier:.4f} eV, ", end="")
    print(f"from the other side {result.reverse_barrier:.4f} eV")
    if result.frequencies is not None:
        lowest = ", ".join(f"{frequency:.0f}" for frequency in result.frequencies[:3])
        print(f"lowest frequencies {lowest} cm⁻¹, negative ones are imaginary")
    for text in result.notes:
        print(f"note: {text}")
    if text := _tested(job.model, job.calculator):
        print(text)
    return job.end(result.doubts)


def _tested(model: str, calculator: JMPCalculator) -> str:
    """How good the model was at barriers when it was tested; empty where it was not."""
    from jmp_md.benchmarking import PARTS
    from jmp_md.benchmarking.kept import kept
    from jmp_md.fingerprint import fingerprint
    from jmp_md.models.registry import resolve
    from jmp_md.simulate.forces import as_jmp

    if as_jmp(calculator) is None:
        return ""
    found = kept(resolve(model)).get(calculator.potential.head.name)
    if found is None or found.about["sha256"] != fingerprint(calculator.potential):
        return ""
    part = next((each for each in found.parts if each.name == PARTS["barriers"].name), None)
    if part is None:
        return ""
    size = sum(abs(case.reference or 0.0) for case in part.cases) / len(part.cases)
    return (
        f"what this model is worth here: {part.name} were off by {part.mean_error:.0f} of "
        f"{size:.0f} {part.unit} on average ('jmp-md models card {model}')"
    )


def _images(files: Sequence[Path], all_frames: bool) -> list[Atoms]:
    """The last structure of each file, or all of one file or where asked for."""
    found = [read_structures(path) for path in files]
    if all_frames or len(files) == 1:
        return [atoms for structures in found for atoms in structures]
    for path, structures in zip(files, found, strict=True):
        if len(structures) > 1:
            print(f"{path}: the last of {len(structures)} structures (--all-frames takes all)")
    return [structures[-1] for structures in found]
