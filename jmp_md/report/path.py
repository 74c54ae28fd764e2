"""The report of a minimum energy path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jmp_md.report.dynamics import domain_warnings
from jmp_md.report.figures import energy_path
from jmp_md.report.page import NAME, Report

if TYPE_CHECKING:
    import numpy as np
    from ase import Atoms
    from ase.calculators.calculator import Calculator


def write_path_report(
    folder: Path,
    images: Sequence[Atoms],
    summary: Mapping[str, Any],
    calculator: Calculator | None = None,
    frequencies: np.ndarray | None = None,
    warnings: Sequence[str] = (),
) -> Path:
    """Write ``report.html`` of a path.

    Args:
        folder: Where to.
        images: From one end to the other, with energies and forces.
        summary: Settings and results, by name.
        calculator: What computed them.
        frequencies: cm⁻¹ at the transition state, imaginary ones negative.
        warnings: What else the reader must not miss.

    Returns:
        The file.
    """
    formula = images[0].get_chemical_formula(mode="hill")
    report = Report(f"Minimum energy path of {formula}", f"{len(images)} images")
    report.add_warnings([*warnings, *domain_warnings(images, calculator)])
    report.add_figure(
        energy_path(images), "Energy along the path; the curve has the slopes of the forces"
    )
    report.add_structures(images, "The images from one end to the other")
    report.add_values(summary)
    if frequencies is not None:
        report.add_heading("Frequencies at the transition state")
        rows = [(i + 1, float(f)) for i, f in enumerate(frequencies)]
        report.add_table(("mode", "cm⁻¹ (negative: imaginary)"), rows)
    path = folder / NAME
    report.write(path)
    return path
