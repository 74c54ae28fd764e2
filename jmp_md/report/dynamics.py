"""The report of a molecular dynamics run, made from its files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jmp_md.analysis.structure import bond_lengths, radial_distribution
from jmp_md.analysis.temperature import element_temperatures
from jmp_md.report import figures
from jmp_md.report.figures import histogram, time_series
from jmp_md.report.judgement import held_temperature, judge_domain, judge_dynamics
from jmp_md.report.page import NAME, Report
from jmp_md.report.sample import sample_frames
from jmp_md.simulate.md.log import Log, read_log

if TYPE_CHECKING:
    from ase import Atoms

    from jmp_md.simulate.md import MDResult

_AMU_A3_IN_G_CM3 = 1.66053906660  # CODATA 2018


def write_dynamics_report(folder: Path, result: MDResult, summary: Mapping[str, Any]) -> Path:
    """Write ``report.html`` of a run; the memory it takes does not grow with the run.

    Args:
        folder: Where to.
        result: The run, with the files of its trajectory and log.
        summary: What ``summary.json`` says.

    Returns:
        The file.
    """
    log = read_log(result.log)
    frames = sample_frames(result.trajectory, log.count)
    formula = frames[0].get_chemical_formula(mode="hill")
    length = f"{log['time_fs'][-1] / 1000:g} ps, {log.count} frames"
    report = Report(f"Molecular dynamics of {formula}", length)
    settings = summary["settings"]
    report.add_verdicts(
        [
            *judge_dynamics([log], [len(frames[0])], settings),
            judge_domain([summary.get("domain")]),
        ]
    )
    report.add_headlines(headlines(log, frames[0]))
    shown = f" ({len(frames)} of {log.count} frames)" if len(frames) < log.count else ""
    report.add_structures(frames, f"The trajectory{shown}; drag to turn, scroll to zoom")
    _add_series(report, log, settings)
    if "pressure_GPa" in log.columns:
        _add_cell(report, log, frames[0], settings)
    elements = element_temperatures(frames)
    if elements:
        report.add_table(("element", "mean temperature (K)"), elements.items())
    report.add_heading("Structure")
    add_structure(report, frames)
    report.add_settings(summary)
    path = folder / NAME
    report.write(path)
    return path


def headlines(log: Log, first: Atoms) -> dict[str, str]:
    """Numbers of a run that a reader wants first, with their units.

    Means, deviations and the slope are those of all lines of the log, not of the ones drawn.
    """
    mean, spread = log.mean("temperature_K"), log.deviation("temperature_K")
    found = {
        "mean temperature": f"{mean:.1f} K (standard deviation {spread:.1f} K)",
        "mean potential energy": f"{log.mean('potential_eV'):.4f} eV",
    }
    if np.isfinite(log.slope):
        found["drift"] = f"{1000 * log.slope / len(first):.3g} meV/atom/ps"
    if "pressure_GPa" in log.columns:
        found["mean volume"] = f"{log.mean('volume_A3'):.2f} Å³"
        found["density"] = f"{_mass(first) / log.mean('volume_A3'):.4f} g/cm³"
    return found


def _mass(atoms: Atoms) -> float:
    """Mass that gives, divided by a volume in Å³, a density in g/cm³."""
    return float(atoms.get_masses().sum()) * _AMU_A3_IN_G_CM3


def _add_series(report: Report, log: Log, settings: Mapping[str, Any]) -> None:
    time, start = log["time_fs"] / 1000, log["potential_eV"][0]
    energies = {
        "potential": log["potential_eV"] - start,
        "total": log["total_eV"] - start,
    }
    report.add_heading("Energy")
    report.add_figure(
        time_series(time, energies, "energy (eV)"),
        "Potential and total energy relative to the potential energy at the start",
    )
    conserved = log["conserved_eV"]
    if len(time) > 2 and np.isfinite(conserved).all():
        change = {"conserved": 1000 * (conserved - conserved[0])}
        report.add_figure(
            time_series(time, change, "change (meV)", trend=True),
            "Drift: the change of the energy that the equations of motion conserve, with what the "
            "thermostat has given taken off",
        )
    report.add_heading("Temperature")
    report.add_figure(
        time_series(
            time,
            {"temperature": log["temperature_K"]},
            "temperature (K)",
            target=held_temperature(settings),
        ),
        f"Temperature; mean {log.mean('temperature_K'):.1f} K, standard deviation "
        f"{log.deviation('temperature_K'):.1f} K",
    )


def _add_cell(report: Report, log: Log, first: Atoms, settings: Mapping[str, Any]) -> None:
    """Add pressure, volume with density, and the shape of the cell."""
    time, volume = log["time_fs"] / 1000, log["volume_A3"]
    mass = _mass(first)
    report.add_heading("Cell")
    report.add_figure(
        time_series(time, {"volume": volume}, "volume (Å³)"),
        f"Volume; mean {log.mean('volume_A3'):.2f} Å³, standard deviation "
        f"{log.deviation('volume_A3'):.2f} Å³",
    )
    report.add_figure(
        time_series(time, {"density": mass / volume}, "density (g/cm³)"),
        f"Density; {mass / log.mean('volume_A3'):.4f} g/cm³ at the mean volume",
    )
    report.add_figure(
        time_series(
            time,
            {"pressure": log["pressure_GPa"]},
            "pressure (GPa)",
            target=settings["pressure"],
        ),
        f"Pressure; mean {log.mean('pressure_GPa'):.3f} GPa, standard deviation "
        f"{log.deviation('pressure_GPa'):.3f} GPa",
    )
    lengths = {name: log[f"{name}_A"] for name in "abc"}
    report.add_figure(time_series(time, lengths, "length (Å)"), "Lengths of the lattice vectors")


def add_structure(report: Report, frames: Sequence[Atoms]) -> None:
    """Add distributions of bond lengths, of forces where known and, in crystals, of distances."""
    bonds, at_start = bond_lengths(frames)
    if bonds:
        report.add_figure(
            histogram(bonds, "bond length (Å)", at_start),
            "Lengths of the bonds of the first frame during the run; marks are the first frame",
        )
    if all(frame.calc is not None and "forces" in frame.calc.results for frame in frames):
        forces = np.concatenate([np.linalg.norm(f.get_forces(), axis=1) for f in frames])
        report.add_figure(histogram({"all atoms": forces}, "force (eV/Å)"), "Forces on atoms")
    if frames[0].pbc.all() and len(frames[0]) > 1:
        found = radial_distribution(frames)
        report.add_figure(
            figures.radial_distribution(found.distances, found.total),
            "Radial distribution function of all atoms",
        )
