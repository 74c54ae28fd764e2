"""``jmp-md analyse``: what a trajectory says."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from jmp_md.cli.common import add_run_arguments, finish, folder_options
from jmp_md.cli.options import add_options, options_from
from jmp_md.errors import InputError
from jmp_md.runs.options import AnalysisOptions, FolderOptions

if TYPE_CHECKING:
    from jmp_md.analysis import Analysis

OPTIONS = AnalysisOptions


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "file", type=Path, help="a trajectory, or the folder of an md run that holds one"
    )
    add_run_arguments(parser, "STEM-analyse here", FolderOptions)
    add_options(parser, OPTIONS)


def run(args: argparse.Namespace) -> int:
    """Execute the command."""
    from jmp_md.runs.analysis import run_analysis

    options = options_from(args, OPTIONS)
    path = _trajectory(args.file)
    stem = args.file.name if args.file.is_dir() else path.stem
    output = args.output or Path(f"{stem}-{args.command}")
    if args.dry_run:
        print(f"dry run: {path} was not analysed, {output} was not written")
        return 0
    found = run_analysis(path, output, options, **folder_options(args))
    _say(found)
    for text in found.doubts:
        print(f"in doubt: {text}")
    finish(args, output)
    return 2 if found.doubts else 0


def _trajectory(path: Path) -> Path:
    """The file, of a run the one in its folder."""
    from jmp_md.simulate.trajectory.formats import FORMATS

    if not path.is_dir():
        return path
    found = [path / f"trajectory.{ending}" for ending in FORMATS]
    found = [each for each in found if each.is_file()]
    if len(found) != 1:
        raise InputError(
            f"{path} holds {len(found)} trajectories of an md run: give the file that is meant"
        )
    return found[0]


def _say(found: Analysis) -> None:
    figures = found.figures()
    formula = found.series.template.get_chemical_formula(mode="hill")
    print(
        f"{formula}: {figures['n_frames']} frames, {figures['interval_fs']:g} fs apart, "
        f"{figures['length_ps']:g} ps"
    )
    for symbol, each in figures["temperatures_K"].items():
        print(f"  temperature of {symbol:2}  {each['value']:8.1f} ± {each['error']:.2g} K")
    if "energy_eV" in figures:
        error = figures["energy_error_eV"]
        print(f"  potential energy  {figures['energy_eV']:.5f} ± {error:.2g} eV")
    for pair, place in figures.get("first_peak_of_g_A", {}).items():
        if place is not None:
            print(f"  g of {pair} is largest at {place:.2f} Å")
    for name, each in figures["diffusion_m2_per_s"].items():
        print(f"  diffusion of {name}  {each['value']:.3g} ± {each['error']:.2g} m²/s")
    if found.spectrum is not None:
        peaks = " ".join(f"{peak:.0f}" for peak in found.spectrum.peaks[:20])
        print(f"  spectrum, resolution {found.spectrum.resolution:.1f} cm⁻¹: peaks at {peaks} cm⁻¹")
