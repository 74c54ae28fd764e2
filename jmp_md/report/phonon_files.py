"""The files of a phonon calculation: those phonopy reads, tables, figures, a report."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jmp_md.files import atomic_write

if TYPE_CHECKING:
    from jmp_md.simulate.phonons import Bands, Phonons

PARAMETERS, FORCES = "phonopy_params.yaml", "FORCE_SETS"
BANDS, DOS, THERMAL = "bands.json", "dos.csv", "thermal.csv"
FIGURES = ("bands.svg", "thermal.svg")


def write_phonons(result: Phonons, folder: Path) -> None:
    """Write what phonopy reads, tables and figures.

    ``phonopy_params.yaml`` has cells, displacements and forces, all that ``phonopy-load`` needs;
    ``FORCE_SETS`` has the forces for other programs. ``bands.json``, ``dos.csv`` and
    ``thermal.csv`` have the curves, ``bands.svg`` and ``thermal.svg`` show them.

    Args:
        result: Phonons.
        folder: An existing folder.
    """
    from phonopy.file_IO import write_FORCE_SETS

    from jmp_md.report.crystals import phonon_bands, thermal_properties

    with atomic_write(folder / PARAMETERS) as temporary:
        result.phonopy.save(filename=temporary)
    with atomic_write(folder / FORCES) as temporary:
        write_FORCE_SETS(result.phonopy.dataset, filename=temporary)
    with atomic_write(folder / BANDS) as temporary:
        temporary.write_text(json.dumps(_bands(result.bands)) + "\n", encoding="utf-8")
    thermal = result.thermal
    columns = {"frequency_THz": result.dos_frequencies, "dos_per_THz": result.dos}
    _write_columns(folder / DOS, columns)
    columns = {
        "temperature_K": thermal.temperatures,
        "free_energy_eV": thermal.free_energy,
        "entropy_eV_per_K": thermal.entropy,
        "heat_capacity_eV_per_K": thermal.heat_capacity,
    }
    _write_columns(folder / THERMAL, columns)
    for name, figure in zip(FIGURES, (phonon_bands, thermal_properties), strict=True):
        with atomic_write(folder / name) as temporary:
            figure(result).savefig(temporary, format="svg", metadata={"Date": None})


def _bands(bands: Bands) -> list[Mapping[str, Any]]:
    """One entry per segment."""
    return [
        {
            "labels": list(labels),
            "qpoints": qpoints.tolist(),
            "distances_per_A": distances.tolist(),
            "frequencies_THz": frequencies.tolist(),
        }
        for labels, qpoints, distances, frequencies in zip(
            bands.labels, bands.qpoints, bands.distances, bands.frequencies, strict=True
        )
    ]


def _write_columns(path: Path, columns: Mapping[str, np.ndarray]) -> None:
    rows: Iterable[Sequence[float]] = zip(*(c.tolist() for c in columns.values()), strict=True)
    with atomic_write(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)
