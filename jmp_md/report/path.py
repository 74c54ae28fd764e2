"""The report of a minimum energy path."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jmp_md.report.figures import energy_path
from jmp_md.report.judgement import judge_domain
from jmp_md.report.page import Report
from jmp_md.simulate.path_curve import path_curve
from jmp_md.simulate.verdict import Verdict

if TYPE_CHECKING:
    from jmp_md.simulate.neb import NEBResult


def write_path_report(folder: Path, result: NEBResult, summary: Mapping[str, Any]) -> Path:
    """Write ``report.html`` of a path.

    Args:
        folder: Where to.
        result: The path.
        summary: What ``summary.json`` says.

    Returns:
        The file.
    """
    images = result.images
    formula = images[0].get_chemical_formula(mode="hill")
    report = Report(f"Minimum energy path of {formula}", f"{len(images)} images")
    verdicts = [*result.verdicts, judge_domain([summary.get("domain")])]
    if result.transition_state is not None and result.frequencies is None:
        verdicts.append(_NOT_VERIFIED)
    report.add_verdicts(verdicts)
    report.add_headlines(
        {
            "barrier": f"{result.barrier:.4f} eV",
            "from the other side": f"{result.reverse_barrier:.4f} eV",
            "difference of the ends": f"{result.energies[-1] - result.energies[0] + 0.0:+.4f} eV",
        }
    )
    report.add_notes(result.notes)
    curve = path_curve(images)
    above = result.energies - result.energies[0]
    labels = [f"image {i}, {energy + 0.0:+.4f} eV" for i, energy in enumerate(above)]
    places = np.interp(np.arange(len(images)), curve.indices, curve.path)
    report.add_structures(images, "The images from one end to the other", labels)
    report.add_figure(
        energy_path(images),
        "Energy along the path; the curve has the slopes of the forces",
        {"path_A": curve.fine_path, "energy_eV": curve.fine_energies},
        places,
    )
    if result.frequencies is not None:
        report.add_heading("Frequencies at the transition state")
        rows = [(i + 1, float(f)) for i, f in enumerate(result.frequencies)]
        report.add_table(("mode", "cm⁻¹ (negative: imaginary)"), rows)
    return report.write_run(folder, summary)


_NOT_VERIFIED = Verdict(
    "transition state",
    None,
    "no frequencies computed",
    "one imaginary frequency",
    "at a saddle the energy falls along one direction only; verify (--verify) looks",
)
