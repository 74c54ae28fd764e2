"""The report of a training run, and of an evaluation: curves, parity plots, errors, settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jmp_md.report.accuracy import judge_errors, judge_property
from jmp_md.report.figures import parity
from jmp_md.report.page import Report
from jmp_md.training.config import flat, plain
from jmp_md.training.parity import Pair
from jmp_md.training.recipe import AnyRecipe

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REPORT_FILE = "report.html"
_UNITS = {
    "meV_per_A3": "stress error (meV/Å³)",
    "meV_per_A": "force error (meV/Å)",
    "meV": "energy error (meV)",
}
_NOT_ERRORS = ("epoch", "step", "seconds", "loss", "learning_rate")


def write_training_report(
    path: Path,
    recipe: AnyRecipe,
    history: Sequence[Mapping[str, float]],
    metrics: Mapping[str, Any],
    pairs: Mapping[str, Pair],
) -> None:
    """Write what a run did.

    Args:
        path: File to write.
        recipe: Its recipe.
        history: Rows of its log.
        metrics: Errors of the model it gave.
        pairs: Labels and predictions of that model.
    """
    report = Report(f"Training of {recipe.model.name}", _summary(history))
    report.add_heading("Errors of the model")
    report.add_values(dict(metrics))
    add_parity(report, pairs)
    report.add_heading("Progress")
    report.add_figure(curves(history, ["loss"], "loss"), "Mean loss of the training steps")
    errors = [name for name in history[-1] if name not in _NOT_ERRORS]
    for unit, names in _by_unit(errors).items():
        report.add_figure(curves(history, names, unit), "Validation errors of averaged weights")
    report.add_figure(curves(history, ["learning_rate"], "learning rate"), "Highest learning rate")
    report.add_heading("Settings")
    report.add_values(dict(flat(plain(recipe))))
    report.write(path)


def write_evaluation_report(
    folder: Path,
    title: str,
    errors: Mapping[str, Any],
    pairs: Mapping[str, Pair],
    summary: Mapping[str, Any],
) -> None:
    """Write verdicts, errors, nested ones as tables, and parity plots as ``report.html``.

    Args:
        folder: Where to.
        title: Of the page.
        errors: By name.
        pairs: Labels and predictions, by what they are of.
        summary: What ``summary.json`` says.
    """
    report = Report(title)
    judge = judge_property if "target" in errors else judge_errors
    report.add_verdicts(judge(errors))
    report.add_values({k: v for k, v in errors.items() if not isinstance(v, Mapping)})
    add_parity(report, pairs)
    for name, values in errors.items():
        if isinstance(values, Mapping) and values:
            report.add_heading(name.replace("_", " "))
            report.add_values(dict(flat(values)))
    report.write_run(folder, summary)


def add_parity(report: Report, pairs: Mapping[str, Pair]) -> None:
    """Add a parity plot of each kind."""
    for kind, pair in pairs.items():
        caption = f"Predicted against reference {kind}, {len(pair.label)} values"
        report.add_figure(parity(pair.label, pair.predicted, kind), caption)


def curves(history: Sequence[Mapping[str, float]], names: Sequence[str], label: str) -> Figure:
    """Columns of a log over its epochs, on a logarithmic scale where all are positive."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 3.2), layout="constrained")
    axes = figure.add_subplot()
    steps = [row["step"] for row in history]
    columns = [[row.get(name, np.nan) for row in history] for name in names]
    for name, values in zip(names, columns, strict=True):
        axes.plot(steps, values, ".-", lw=0.9, ms=3, label=name)
    if np.nanmin(columns) > 0:
        axes.set_yscale("log")
    axes.set(xlabel="step", ylabel=label)
    if len(names) > 1:
        axes.legend(fontsize="small", frameon=False)
    return figure


def _summary(history: Sequence[Mapping[str, float]]) -> str:
    last = history[-1]
    return f"{last['epoch']:.0f} epochs, {last['step']:.0f} steps, {last['seconds'] / 60:.1f} min"


def _by_unit(names: Sequence[str]) -> dict[str, list[str]]:
    """Errors that one figure can show; shifts of energies are none."""
    groups: dict[str, list[str]] = {}
    for name in names:
        if not name.endswith("energy_shift_eV"):
            ending = next((e for e in _UNITS if name.endswith(e)), name)
            unit = _UNITS.get(ending)
            groups.setdefault(unit or name, []).append(name)
    return groups
