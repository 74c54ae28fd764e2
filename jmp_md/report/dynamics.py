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
from jmp_md.report.page import Report
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
    times = _times(frames, log)
    some = f" ({len(frames)} of {log.count} frames)" if len(frames) < log.count else ""
    shown = report.add_structures(frames, f"The trajectory{some}", _labels(frames, times))
    _add_series(report, log, settings, times[shown])
    if "pressure_GPa" in log.columns:
        _add_cell(report, log, frames[0], settings, times[shown])
    elements = element_temperatures(frames)
    if elements:
        drawn = f"mean temperature (K){' of the frames shown' if len(frames) < log.count else ''}"
        report.add_table(("element", drawn), elements.items())
    report.add_heading("Structure")
    add_structure(report, frames)
    return report.write_run(folder, summary)


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


def _times(frames: Sequence[Atoms], log: Log) -> np.ndarray:
    """(n_frames,) ps; formats that do not keep them have a frame for each line of the log."""
    if all("time_fs" in frame.info for frame in frames):
        return np.array([frame.info["time_fs"] for frame in frames]) / 1000
    return np.linspace(log["time_fs"][0], log["time_fs"][-1], len(frames)) / 1000


def _labels(frames: Sequence[Atoms], times: np.ndarray) -> list[str]:
    labels = []
    for frame, time in zip(frames, times, strict=True):
        known = frame.calc is not None and "energy" in frame.calc.results
        energy = f", {frame.calc.results['energy']:.4f} eV" if known else ""
        labels.append(f"{time:.4g} ps{energy}")
    return labels


def _add_series(report: Report, log: Log, settings: Mapping[str, Any], times: np.ndarray) -> None:
    start, time = log["potential_eV"][0], {"time_ps": log["time_fs"] / 1000}
    energies = {
        "potential": log["potential_eV"] - start,
        "total": log["total_eV"] - start,
    }
    report.add_heading("Energy")
    report.add_figure(
        time_series(time["time_ps"], energies, "energy (eV)"),
        "Potential and total energy relative to the potential energy at the start",
        time | {f"{name}_eV": values for name, values in energies.items()},
        times,
    )
    conserved = log["conserved_eV"]
    if len(conserved) > 2 and np.isfinite(conserved).all():
        change = {"conserved": 1000 * (conserved - conserved[0])}
        report.add_figure(
            time_series(time["time_ps"], change, "change (meV)", trend=True),
            "Drift: the change of the energy that the equations of motion conserve, with what the "
            "thermostat has given taken off",
            time | {"change_meV": change["conserved"]},
            times,
        )
    report.add_heading("Temperature")
    values = {"temperature": log["temperature_K"]}
    report.add_figure(
        time_series(time["time_ps"], values, "temperature (K)", target=held_temperature(settings)),
        f"Temperature; mean {log.mean('temperature_K'):.1f} K, standard deviation "
        f"{log.deviation('temperature_K'):.1f} K",
        time | {"temperature_K": values["temperature"]},
        times,
    )


def _add_cell(
    report: Report, log: Log, first: Atoms, settings: Mapping[str, Any], times: np.ndarray
) -> None:
    """Add pressure, volume with density, and the shape of the cell."""
    time, volume = {"time_ps": log["time_fs"] / 1000}, log["volume_A3"]
    mass, pressure = _mass(first), log["pressure_GPa"]
    report.add_heading("Cell")
    report.add_figure(
        time_series(time["time_ps"], {"volume": volume}, "volume (Å³)"),
        f"Volume; mean {log.mean('volume_A3'):.2f} Å³, standard deviation "
        f"{log.deviation('volume_A3'):.2f} Å³",
        time | {"volume_A3": volume},
        times,
    )
    report.add_figure(
        time_series(time["time_ps"], {"density": mass / volume}, "density (g/cm³)"),
        f"Density; {mass / log.mean('volume_A3'):.4f} g/cm³ at the mean volume",
        time | {"density_g_per_cm3": mass / volume},
        times,
    )
    report.add_figure(
        time_series(
            time["time_ps"],
            {"pressure": pressure},
            "pressure (GPa)",
            target=settings["pressure"],
        ),
        f"Pressure; mean {log.mean('pressure_GPa'):.3f} GPa, standard deviation "
        f"{log.deviation('pressure_GPa'):.3f} GPa",
        time | {"pressure_GPa": pressure},
        times,
    )
    lengths = {name: log[f"{name}_A"] for name in "abc"}
    report.add_figure(
        time_series(time["time_ps"], lengths, "length (Å)"),
        "Lengths of the lattice vectors",
        time | {f"{name}_A": values for name, values in lengths.items()},
        times,
    )


def add_structure(report: Report, frames: Sequence[Atoms]) -> None:
    """Add distributions of bond lengths, of forces where known and, in crystals, of distances."""
    add_bonds(report, frames)
    if all(frame.calc is not None and "forces" in frame.calc.results for frame in frames):
        forces = np.concatenate([np.linalg.norm(f.get_forces(), axis=1) for f in frames])
        report.add_figure(histogram({"all atoms": forces}, "force (eV/Å)"), "Forces on atoms")
    if frames[0].pbc.all() and len(frames[0]) > 1:
        found = radial_distribution(frames)
        report.add_figure(
            figures.radial_distribution(found.distances, {"all atoms": found.total}),
            "Radial distribution function of all atoms",
        )


def add_bonds(report: Report, frames: Sequence[Atoms]) -> None:
    """Add distributions of bond lengths, where there are bonds."""
    bonds, at_start = bond_lengths(frames)
    if bonds:
        report.add_figure(
            histogram(bonds, "bond length (Å)", at_start),
            "Lengths of the bonds of the first frame during the run; marks are the first frame",
        )
