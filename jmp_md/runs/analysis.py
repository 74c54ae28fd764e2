"""Analysis of a trajectory in a folder: tables, figures in numbers, doubts."""

from __future__ import annotations

import csv
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jmp_md.analysis import (
    Analysis,
    Diffusion,
    Series,
    Spectrum,
    blocked_errors,
    diffusion,
    element_temperature_series,
    radial_distribution,
    read_series,
    velocity_autocorrelation,
    vibrational_spectrum,
)
from jmp_md.errors import InputError
from jmp_md.files import atomic_write
from jmp_md.options import with_options
from jmp_md.report.page import NAME as REPORT
from jmp_md.runs.folder import opened
from jmp_md.runs.options import AnalysisOptions, FolderOptions, divided
from jmp_md.simulate.summary import NAME as SUMMARY
from jmp_md.simulate.summary import write_summary
from jmp_md.simulate.verdict import Verdict

if TYPE_CHECKING:
    from ase import Atoms

VERB = "analyse"
RDF, MSD, VACF, SPECTRUM = "rdf.csv", "msd.csv", "vacf.csv", "spectrum.csv"
BLOCKS = "blocks.csv"
FILES = (RDF, MSD, VACF, SPECTRUM, BLOCKS, SUMMARY, REPORT)
_MOST_FRAMES = 1000  # of which distances between atoms are counted
_FASTEST = 4200.0  # cm⁻¹, beyond the stretches of hydrogen (H2 has 4161)
_LEAST_SPECTRUM = 8  # frames
_COARSER = 2.0


def analyse(path: str | Path, options: AnalysisOptions | None = None, **changes: Any) -> Analysis:
    """Analyse a trajectory, without writing anything.

    Displacements are those relative to the centre of mass of all atoms.

    Args:
        path: Of any format ASE reads, or HDF5 of jmp-md.
        options: See :class:`~jmp_md.runs.options.AnalysisOptions`; None for the defaults.
        changes: Options by name, in place of those of ``options``.

    Raises:
        InputError: As of :func:`~jmp_md.analysis.read_series`, or an option that does not exist or
            does not fit.
    """
    options = (options or AnalysisOptions()).changed(changes)
    series = read_series(
        path, interval=options.interval, start=1000 * options.start, stride=options.stride
    )
    first = series.template
    frames = series.frames(_MOST_FRAMES)
    periodic = bool(first.pbc.all()) and len(first) > 1
    rdf = radial_distribution(frames, options.reach, options.bins) if periodic else None
    moving = _diffusion(series, options) if periodic else {}
    correlation = spectrum = None
    if series.velocities is not None and len(series.times) >= _LEAST_SPECTRUM:
        masses = first.get_masses()
        correlation = velocity_autocorrelation(series.velocities, masses)
        spectrum = vibrational_spectrum(
            series.velocities, series.interval, masses, options.resolution
        )
    temperatures = {} if first.constraints else element_temperature_series(frames)
    verdicts = _verdicts(first, moving, spectrum, options.resolution)
    return Analysis(series, rdf, moving, correlation, spectrum, temperatures, verdicts)


@with_options(AnalysisOptions, FolderOptions)
def run_analysis(
    path: str | Path,
    output: str | Path,
    options: AnalysisOptions | None = None,
    **changes: Any,
) -> Analysis:
    """Analyse a trajectory, and write what it says into a folder.

    It gets ``summary.json``, ``report.html`` and, as far as there is something to say,
    ``rdf.csv``, ``msd.csv``, ``vacf.csv``, ``spectrum.csv`` and ``blocks.csv``, the error of the
    mean energy by blocks.

    Args:
        path: Of any format ASE reads, or HDF5 of jmp-md.
        output: Folder, created if need be.
        options: See :class:`~jmp_md.runs.options.AnalysisOptions`; None for the defaults.
        changes: Options by name, in place of those of ``options``, and ``overwrite``
            and ``report``, see :class:`~jmp_md.runs.options.FolderOptions`.

    Raises:
        InputError: As of :func:`analyse`, or a folder that holds another run.
    """
    started, folder = time.monotonic(), Path(output)
    options, around = divided(options or AnalysisOptions(), changes, FolderOptions)
    with opened(folder, FILES, around):
        found = analyse(path, options)
        _write(found, folder)
        summary = write_summary(
            folder,
            VERB,
            model={},
            settings=options.model_dump() | {"trajectory": str(path)},
            results=found.figures(),
            seconds=time.monotonic() - started,
        )
        if around.report:
            from jmp_md.report.analysis import write_analysis_report

            write_analysis_report(folder, found, summary)
    return found


def _diffusion(series: Series, options: AnalysisOptions) -> dict[str, Diffusion]:
    """Of each element, and of all atoms; empty where the trajectory is too short."""
    masses = series.template.get_masses()
    centre = np.einsum("a,nai->ni", masses / masses.sum(), series.positions)
    moved = series.positions - centre[:, None]
    symbols = np.array(series.template.get_chemical_symbols())
    kinds = list(dict.fromkeys(symbols.tolist()))
    groups = {"all": np.ones(len(symbols), dtype=bool)}
    groups |= {kind: symbols == kind for kind in kinds} if len(kinds) > 1 else {}
    window = {"first": options.fit_from, "last": options.fit_to}
    try:
        return {
            name: diffusion(moved[:, own], series.interval, **window)
            for name, own in groups.items()
        }
    except InputError:
        usual = AnalysisOptions()
        if (options.fit_from, options.fit_to) != (usual.fit_from, usual.fit_to):
            raise  # it was asked for
        return {}


def _verdicts(
    first: Atoms, moving: Mapping[str, Diffusion], spectrum: Spectrum | None, resolution: float
) -> tuple[Verdict, ...]:
    found = list(moving["all"].verdicts) if moving else []
    if spectrum is not None:
        found.append(
            Verdict(
                "resolution of the spectrum",
                spectrum.resolution <= _COARSER * resolution,
                f"{spectrum.resolution:.1f} cm⁻¹",
                f"at most {_COARSER * resolution:g} cm⁻¹",
                f"{_COARSER:g} times what was asked for; it is the inverse of the length of a run",
                f"the run is too short: it resolves {spectrum.resolution:.0f} cm⁻¹, asked for were "
                f"{resolution:g}; run longer, or ask for less (--resolution)",
            )
        )
    if spectrum is not None and (first.numbers == 1).any():
        highest = float(spectrum.wavenumbers[-1])
        found.append(
            Verdict(
                "range of the spectrum",
                highest >= _FASTEST,
                f"up to {highest:.0f} cm⁻¹",
                f"at least {_FASTEST:.0f} cm⁻¹",
                "faster motion shows at a wrong place, and hydrogen moves as fast",
                f"the spectrum ends at {highest:.0f} cm⁻¹: vibrations of hydrogen lie beyond and "
                "show at wrong places; write frames more often (--interval of 'jmp-md md')",
            )
        )
    return tuple(found)


def _write(found: Analysis, folder: Path) -> None:
    """Tables, each with units in the names of its columns."""
    if (rdf := found.rdf) is not None:
        pairs = {f"g_{name}": g for name, g in rdf.pairs.items()}
        _table(folder / RDF, {"distance_A": rdf.distances, "g": rdf.total} | pairs)
    if found.diffusion:
        columns = {"lag_fs": found.diffusion["all"].lags}
        columns |= {f"msd_{n}_A2": each.displacements for n, each in found.diffusion.items()}
        _table(folder / MSD, columns)
    if found.correlation is not None:
        lags = found.series.interval * np.arange(len(found.correlation))
        _table(folder / VACF, {"lag_fs": lags, "correlation": found.correlation})
    if (spectrum := found.spectrum) is not None:
        columns = {"wavenumber_per_cm": spectrum.wavenumbers, "density_cm": spectrum.density}
        _table(folder / SPECTRUM, columns)
    if found.series.energies is not None:
        lengths, errors = blocked_errors(found.series.energies)
        columns = {"block_fs": found.series.interval * lengths, "energy_error_eV": errors}
        _table(folder / BLOCKS, columns)


def _table(path: Path, columns: Mapping[str, np.ndarray]) -> None:
    with atomic_write(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*(column.tolist() for column in columns.values()), strict=True))
