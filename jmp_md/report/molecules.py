"""The reports of relaxations and of vibrations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from jmp_md.report.judgement import judge_domain
from jmp_md.report.page import Report
from jmp_md.simulate.verdict import Verdict

if TYPE_CHECKING:
    from jmp_md.simulate.relax import RelaxResult
    from jmp_md.simulate.thermochemistry import Thermochemistry
    from jmp_md.simulate.vibrations import Vibrations

_MOST_ROWS = 200  # of a table


def write_relaxation_report(
    folder: Path, ends: Sequence[RelaxResult], left: Sequence[str], summary: Mapping[str, Any]
) -> Path:
    """Write ``report.html`` of relaxations.

    Args:
        folder: Where to.
        ends: What became of each structure.
        left: Names of models whose structures became other molecules than theirs.
        summary: What ``summary.json`` says.

    Returns:
        The file.
    """
    good = [i for i, end in enumerate(ends) if end.error is None]
    formulas = [end.atoms.get_chemical_formula(mode="hill") for end in ends]
    title = formulas[0] if len(ends) == 1 else f"{len(ends)} structures"
    report = Report(f"Relaxation of {title}")
    domains = list((summary.get("domain") or {"": None}).values())
    verdicts = [_convergence(ends, summary["settings"]), *_losses(ends)]
    report.add_verdicts([*verdicts, _identity(left), judge_domain(domains)])
    report.add_headlines(_headlines([ends[i] for i in good]))
    if good:
        labels = [f"{i}: {formulas[i]}, {ends[i].energy:.4f} eV" for i in good]
        report.add_structures([ends[i].atoms for i in good], "The structures at their ends", labels)
    order = sorted(range(len(ends)), key=lambda i: ends[i].converged)[:_MOST_ROWS]
    some = f" (of {len(ends)}, those that did not converge first)" if len(order) < len(ends) else ""
    report.add_heading(f"{len(order)} structures{some}")
    columns = ("structure", "", "converged", "steps", "energy (eV)", "change (eV)", "force (eV/Å)")
    rows = [
        (
            i,
            formulas[i],
            "yes" if ends[i].converged else "NO",
            ends[i].steps,
            f"{ends[i].energy:.6f}",
            f"{ends[i].energy_change:+.6f}",
            ends[i].fmax,
        )
        for i in order
    ]
    report.add_table(columns, rows)
    return report.write_run(folder, summary)


def _convergence(ends: Sequence[RelaxResult], settings: Mapping[str, Any]) -> Verdict:
    known = [end for end in ends if end.error is None]
    done = sum(end.converged for end in known)
    largest = max((end.fmax for end in known), default=float("nan"))
    return Verdict(
        "convergence",
        done == len(ends),
        f"{done} of {len(ends)}, largest force {largest:.4f} eV/Å",
        f"at most {settings['fmax']} eV/Å, and no rise of the energy",
        "fmax; a relaxed cell counts its stress in it. A minimum lies below its start",
        f"{len(ends) - done} of {len(ends)} NOT converged: take more steps (--steps), or look at "
        "what holds them",
    )


def _losses(ends: Sequence[RelaxResult]) -> list[Verdict]:
    lost = [f"structure {i}: {end.error}" for i, end in enumerate(ends) if end.error is not None]
    if not lost:
        return []
    counts = f"{len(ends) - len(lost)} of {len(ends)}"
    return [Verdict("computed", False, counts, "all", "others were dropped", "; ".join(lost))]


def _identity(left: Sequence[str]) -> Verdict:
    return Verdict(
        "the same molecule",
        not left,
        "became others" if left else "as it began",
        "the molecule of the model",
        "a model of one molecule says nothing of others",
        f"structures became other molecules than that of {', '.join(left)}",
    )


def _headlines(ends: Sequence[RelaxResult]) -> dict[str, str]:
    if len(ends) != 1:
        return {"computed": f"{len(ends)} structures"}
    [end] = ends
    found = {
        "energy": f"{end.energy:.6f} eV",
        "change": f"{end.energy_change:+.6f} eV",
        "largest force": f"{end.fmax:.5f} eV/Å",
        "steps": str(end.steps),
    }
    if end.stress_left is not None:
        found["stress left"] = f"{end.stress_left:.4f} GPa"
    return found


def write_vibrations_report(
    folder: Path,
    modes: Vibrations,
    gas: Thermochemistry | None,
    verdicts: Sequence[Verdict],
    summary: Mapping[str, Any],
) -> Path:
    """Write ``report.html`` of vibrations.

    Args:
        folder: Where to.
        modes: Normal modes.
        gas: Thermochemistry, where it was asked for.
        verdicts: Whether they stand.
        summary: What ``summary.json`` says.

    Returns:
        The file.
    """
    atoms = modes.data.get_atoms()
    count = len(modes.frequencies)
    report = Report(f"Vibrations of {atoms.get_chemical_formula(mode='hill')}", f"{count} modes")
    report.add_verdicts([*verdicts, judge_domain([summary.get("domain")])])
    found = {
        "frequencies": f"{modes.frequencies[0]:.1f} to {modes.frequencies[-1]:.1f} cm⁻¹",
        "imaginary": str(int((modes.frequencies < 0).sum())),
        "energy": f"{modes.energy:.6f} eV",
    }
    if gas is not None:
        found[f"Gibbs energy at {gas.temperature:g} K, {gas.pressure:g} bar"] = (
            f"{gas.gibbs_energy:.4f} eV"
        )
        found["entropy"] = f"{1000 * gas.entropy:.4f} meV/K"
    report.add_headlines(found)
    shapes = {f"{i}: {value:.1f} cm⁻¹": shape for i, (value, shape) in enumerate(modes.shapes(), 1)}
    report.add_structures([atoms], "The mode chosen beside the slider", modes=shapes)
    report.add_heading("Frequencies")
    report.add_figure(
        spectrum(modes.frequencies),
        "Frequencies of the normal modes",
        {"mode": np.arange(1, count + 1), "frequency_per_cm": modes.frequencies},
    )
    rows = [(i + 1, float(frequency)) for i, frequency in enumerate(modes.frequencies)]
    report.add_table(("mode", "cm⁻¹ (negative: imaginary)"), rows)
    return report.write_run(folder, summary)


def spectrum(frequencies: np.ndarray) -> Figure:
    """Normal modes as sticks; cm⁻¹."""
    figure = Figure(figsize=(5.5, 1.6), layout="constrained")
    axes = figure.add_subplot()
    axes.vlines(frequencies, 0.0, 1.0, color="tab:blue", lw=1.5)
    axes.set(xlabel="frequency (cm$^{-1}$)", yticks=[], ylim=(0, 1.1))
    return figure
