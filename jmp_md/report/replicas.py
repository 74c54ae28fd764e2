"""The report of many runs in one batch, made from their files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jmp_md.report.dynamics import (
    add_structure,
    domain_warnings,
    element_temperatures,
)
from jmp_md.report.figures import time_series
from jmp_md.report.page import NAME, Report
from jmp_md.report.sample import SAMPLE, sample_frames
from jmp_md.simulate.md.log import read_log

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import Calculator

    from jmp_md.simulate.md import ReplicaResult


def write_replicas_report(
    folder: Path,
    results: Sequence[ReplicaResult],
    summary: Mapping[str, Any],
    calculator: Calculator | None = None,
) -> Path:
    """Write ``report.html`` of many runs.

    Args:
        folder: Where to.
        results: All runs.
        summary: Settings, by name.
        calculator: What computed them; see
            :func:`~jmp_md.report.dynamics.write_dynamics_report`.

    Returns:
        The file.
    """
    begun = [r for r in results if np.isfinite(r.temperature)]  # others wrote nothing
    lost = sum(r.error is not None for r in results)
    count = f"{len(results)} replicas, {lost} dropped"
    report = Report(f"Molecular dynamics of {len(results)} replicas", count)
    frames = _by_formula(begun)
    every = [frame for own in frames.values() for frame in own]
    report.add_warnings([*_losses(results), *domain_warnings(every, calculator)])
    report.add_values(summary)
    if begun:
        _add_spread(report, [r for r in begun if r.error is None] or begun, summary)
    for formula, own in frames.items():
        report.add_heading(formula)
        last = [r.atoms for r in begun if r.atoms.get_chemical_formula(mode="hill") == formula]
        report.add_structures(last, "The last structure of each replica; drag to turn")
        elements = element_temperatures(own)
        if elements:
            report.add_table(("element", "mean temperature (K)"), elements.items())
        add_structure(report, own)
    report.add_heading("Replicas")
    columns = ("replica", "structure", "steps", "temperature (K)", "drift (meV/atom/ps)")
    report.add_table(columns, [_row(i, result) for i, result in enumerate(results)])
    path = folder / NAME
    report.write(path)
    return path


def _losses(results: Sequence[ReplicaResult]) -> list[str]:
    return [
        f"replica {i} was dropped after step {r.steps}: {r.error}"
        for i, r in enumerate(results)
        if r.error is not None
    ]


def _row(index: int, result: ReplicaResult) -> tuple[Any, ...]:
    formula = result.atoms.get_chemical_formula(mode="hill")
    return index, formula, result.steps, result.temperature, result.drift


def _by_formula(results: Sequence[ReplicaResult]) -> dict[str, list[Atoms]]:
    """Some frames of all replicas of each formula, the same number of each, first frames first."""
    groups: dict[str, list[ReplicaResult]] = {}
    for result in results:
        groups.setdefault(result.atoms.get_chemical_formula(mode="hill"), []).append(result)
    found: dict[str, list[Atoms]] = {}
    for formula, own in groups.items():
        share = max(SAMPLE // len(own), 1)
        found[formula] = []
        for result in own[:SAMPLE]:
            count = read_log(result.log, most=2).count
            found[formula] += sample_frames(result.trajectory, count, share)
    return found


def _add_spread(
    report: Report, results: Sequence[ReplicaResult], summary: Mapping[str, Any]
) -> None:
    """Temperature and drift of the replicas as mean and extremes, as far as all of them got."""
    logs = [read_log(result.log) for result in results]
    length = min(log.count for log in logs)
    logs = [log for log in logs if log.count == length]  # the others have other lines at hand
    time = logs[0]["time_fs"] / 1000
    temperature = np.stack([log["temperature_K"] for log in logs])
    mean = np.mean([log.mean("temperature_K") for log in logs])
    report.add_heading("Temperature")
    report.add_figure(
        time_series(
            time, _spread(temperature), "temperature (K)", target=summary.get("temperature")
        ),
        f"Temperature of all replicas; mean {mean:.1f} K",
    )
    pairs = zip(logs, results, strict=True)
    conserved = np.stack([1000 * log["conserved_eV"] / len(r.atoms) for log, r in pairs])
    if len(time) > 2 and np.isfinite(conserved).all():
        report.add_heading("Energy")
        report.add_figure(
            time_series(time, _spread(conserved - conserved[:, :1]), "change (meV/atom)"),
            "Drift: the change of the energy that the equations of motion conserve, with what the "
            "thermostat has given taken off",
        )
    if "pressure_GPa" in logs[0].columns:
        report.add_heading("Cell")
        for name, label in (("volume_A3", "volume (Å³)"), ("pressure_GPa", "pressure (GPa)")):
            values = np.stack([log[name] for log in logs])
            mean = np.mean([log.mean(name) for log in logs])
            caption = f"{label.capitalize()} of all replicas; mean {mean:.4g}"
            report.add_figure(time_series(time, _spread(values), label), caption)


def _spread(values: np.ndarray) -> dict[str, np.ndarray]:
    """Mean, lowest and highest of (n_replicas, n) values at each time."""
    if len(values) == 1:
        return {"replica": values[0]}
    return {
        "highest": values.max(axis=0),
        "mean": values.mean(axis=0),
        "lowest": values.min(axis=0),
    }
