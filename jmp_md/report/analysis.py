"""The report of what a trajectory says."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from jmp_md.analysis.diffusion import M2_PER_S, Diffusion
from jmp_md.analysis.statistics import blocked_errors, standard_error
from jmp_md.report.dynamics import add_bonds
from jmp_md.report.figures import radial_distribution, time_series
from jmp_md.report.page import Report
from jmp_md.report.sample import SAMPLE
from jmp_md.report.view import evenly

if TYPE_CHECKING:
    from ase import Atoms

    from jmp_md.analysis import Analysis, Series, Spectrum

_WIDE = (5.5, 2.8)
_MOST_POINTS = 2000  # of a curve; more of them make a large page that shows no more
_MOST_PAIRS = 6  # of elements, that one can tell apart
_MOST_PEAKS = 12  # that are named


def write_analysis_report(folder: Path, found: Analysis, summary: Mapping[str, Any]) -> Path:
    """Write ``report.html`` of an analysis.

    Args:
        folder: Where to.
        found: What the trajectory says.
        summary: What ``summary.json`` says.

    Returns:
        The file.
    """
    series, numbers = found.series, found.figures()
    formula = series.template.get_chemical_formula(mode="hill")
    length = f"{numbers['n_frames']} frames, {numbers['interval_fs']:g} fs apart, "
    report = Report(f"Analysis of {formula}", f"{length}{numbers['length_ps']:g} ps")
    report.add_verdicts(found.verdicts)
    report.add_headlines(_headlines(numbers))
    frames = series.frames(SAMPLE)
    shown = report.add_structures(frames, "The trajectory", _labels(frames))
    times = np.array([frames[i].info["time_fs"] for i in shown]) / 1000
    if series.energies is not None:
        _add_energy(report, series, series.energies, times)
    if numbers["temperatures_K"]:
        report.add_heading("Temperature")
        rows = [(n, each["value"], each["error"]) for n, each in numbers["temperatures_K"].items()]
        report.add_table(("element", "mean temperature (K)", "standard error (K)"), rows)
    report.add_heading("Structure")
    add_bonds(report, frames)
    if found.rdf is not None:
        few = len(found.rdf.pairs) <= _MOST_PAIRS
        curves = {"all atoms": found.rdf.total} | (found.rdf.pairs if few else {})
        data = {"distance_A": found.rdf.distances, **{f"g {n}": g for n, g in curves.items()}}
        caption = "Radial distribution functions; 1 in an ideal gas"
        report.add_figure(radial_distribution(found.rdf.distances, curves), caption, data)
    if found.diffusion:
        _add_diffusion(report, found.diffusion)
    if found.spectrum is not None and found.correlation is not None:
        _add_motion(report, found.spectrum, found.correlation, series.interval)
    return report.write_run(folder, summary)


def _headlines(numbers: Mapping[str, Any]) -> dict[str, str]:
    found = {}
    if "energy_eV" in numbers:
        error = numbers["energy_error_eV"]
        found["mean potential energy"] = f"{_rounded(numbers['energy_eV'], error)} eV"
    for name, each in numbers["temperatures_K"].items():
        found[f"temperature of {name}"] = f"{_rounded(each['value'], each['error'])} K"
    if (whole := numbers["diffusion_m2_per_s"].get("all")) is not None:
        found["diffusion"] = f"{whole['value']:.3g} ± {whole['error']:.2g} m²/s"
    if "spectrum_peaks_per_cm" in numbers:
        found["resolution of the spectrum"] = f"{numbers['spectrum_resolution_per_cm']:.1f} cm⁻¹"
    return found


def _rounded(value: float, error: float) -> str:
    """A value with its error, to two digits of that."""
    if not (math.isfinite(error) and error > 0):
        return f"{value:.6g} (error not known)"
    digits = max(0, 1 - math.floor(math.log10(error)))
    return f"{value:.{digits}f} ± {error:.{digits}f}"


def _labels(frames: list[Atoms]) -> list[str]:
    return [f"{frame.info['time_fs'] / 1000:.4g} ps" for frame in frames]


def _add_energy(report: Report, series: Series, energies: np.ndarray, times: np.ndarray) -> None:
    chosen = evenly(len(energies), _MOST_POINTS)
    time, values = series.times[chosen] / 1000, energies[chosen] - energies[0]
    error = standard_error(energies)
    report.add_heading("Energy")
    report.add_figure(
        time_series(time, {"potential": values}, "energy (eV)"),
        "Potential energy relative to the first frame; mean "
        f"{_rounded(energies.mean(), error)} eV, with the standard error of a correlated series",
        {"time_ps": time, "potential_eV": energies[chosen]},
        times,
    )
    lengths, errors = blocked_errors(energies)
    if len(lengths) > 1:
        report.add_figure(
            block_errors(series.interval * lengths, errors, error),
            "Standard error of the mean energy by the spread of blocks: it is where the points "
            "level off; the line is the error above",
            {"block_fs": series.interval * lengths, "energy_error_eV": errors},
        )


def _add_diffusion(report: Report, moving: Mapping[str, Diffusion]) -> None:
    few = moving if len(moving) <= _MOST_PAIRS else {"all": moving["all"]}
    half = max(len(few["all"].lags) // 2, 2)  # beyond, few starts are left
    chosen = evenly(half, _MOST_POINTS)
    data = {"lag_fs": few["all"].lags[chosen]}
    data |= {f"msd_{name}_A2": each.displacements[chosen] for name, each in few.items()}
    report.add_heading("Diffusion")
    report.add_figure(
        displacements(few, chosen),
        "Mean squared displacements relative to the centre of mass, and the lines whose slopes "
        "give the coefficients, where they are laid",
        data,
    )
    rows = [
        (name, f"{each.coefficient * M2_PER_S:.3g}", f"{each.error * M2_PER_S:.2g}", each.exponent)
        for name, each in moving.items()
    ]
    columns = ("atoms", "coefficient (m²/s)", "standard error (m²/s)", "exponent (1 in diffusion)")
    report.add_table(columns, rows)


def _add_motion(
    report: Report, spectrum: Spectrum, correlation: np.ndarray, interval: float
) -> None:
    report.add_heading("Vibrations")
    peaks = ", ".join(f"{peak:.0f}" for peak in spectrum.peaks[:_MOST_PEAKS])
    more = ", ..." if len(spectrum.peaks) > _MOST_PEAKS else ""
    report.add_figure(
        density_of_states(spectrum),
        f"Vibrational density of states, resolution {spectrum.resolution:.1f} cm⁻¹; peaks at "
        f"{peaks}{more} cm⁻¹",
        {"wavenumber_per_cm": spectrum.wavenumbers, "density_cm": spectrum.density},
    )
    chosen = evenly(max(len(correlation) // 2, 2), _MOST_POINTS)
    time = interval * np.array(chosen) / 1000
    report.add_figure(
        time_series(time, {"correlation": correlation[chosen]}, "autocorrelation", target=0.0),
        "Mass-weighted autocorrelation of the velocities",
        {"lag_ps": time, "correlation": correlation[chosen]},
    )


def block_errors(lengths: np.ndarray, errors: np.ndarray, error: float) -> Figure:
    """Errors by blocks over their lengths in fs, with the one of correlations as a line; eV."""
    figure = Figure(figsize=_WIDE, layout="constrained")
    axes = figure.add_subplot()
    axes.plot(lengths, errors, "o-", ms=4, lw=0.9)
    axes.axhline(error, color="gray", lw=0.8, ls=":")
    axes.set(xscale="log", xlabel="length of blocks (fs)", ylabel="standard error (eV)")
    axes.set_ylim(0, None)
    return figure


def displacements(moving: Mapping[str, Diffusion], chosen: list[int]) -> Figure:
    """Mean squared displacements over lags in ps, with the lines of the coefficients."""
    figure = Figure(figsize=_WIDE, layout="constrained")
    axes = figure.add_subplot()
    for name, each in moving.items():
        (curve,) = axes.plot(
            each.lags[chosen] / 1000, each.displacements[chosen], lw=1.2, label=name
        )
        first, last = each.window
        laid = (each.lags >= first) & (each.lags <= last)
        lags, slope = each.lags[laid], 6 * each.coefficient
        line = each.displacements[laid].mean() + slope * (lags - lags.mean())
        axes.plot(lags / 1000, line, "--", lw=2.0, color=curve.get_color())
    axes.set(xlabel="lag (ps)", ylabel="displacement (Å²)", xlim=(0, None), ylim=(0, None))
    axes.legend(fontsize="small", frameon=False)
    return figure


def density_of_states(spectrum: Spectrum) -> Figure:
    """The density over wavenumbers in cm⁻¹, with marks at the peaks."""
    figure = Figure(figsize=_WIDE, layout="constrained")
    axes = figure.add_subplot()
    axes.plot(spectrum.wavenumbers, spectrum.density, lw=1.0)
    axes.plot(spectrum.peaks, np.zeros_like(spectrum.peaks), "|", ms=10, color="C1")
    axes.set(xlabel="wavenumber (cm$^{-1}$)", ylabel="density (cm)", xlim=(0, None))
    axes.set_ylim(0, None)
    return figure
