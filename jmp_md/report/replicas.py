"""The report of many runs in one batch, made from their files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jmp_md.analysis.temperature import element_temperatures
from jmp_md.report.dynamics import add_structure
from jmp_md.report.figures import time_series
from jmp_md.report.judgement import held_temperature, judge_domain, judge_dynamics
from jmp_md.report.page import Report
from jmp_md.report.sample import SAMPLE, sample_frames
from jmp_md.simulate.md.log import Log, read_log
from jmp_md.simulate.verdict import Verdict

if TYPE_CHECKING:
    from ase import Atoms

    from jmp_md.simulate.md import ReplicaResult


def write_replicas_report(
    folder: Path, results: Sequence[ReplicaResult], summary: Mapping[str, Any]
) -> Path:
    """Write ``report.html`` of many runs.

    Args:
        folder: Where to.
        results: All runs.
        summary: What ``summary.json`` says.

    Returns:
        The file.
    """
    begun = [r for r in results if np.isfinite(r.temperature)]  # others wrote nothing
    lost = sum(r.error is not None for r in results)
    count = f"{len(results)} replicas, {lost} dropped"
    report = Report(f"Molecular dynamics of {len(results)} replicas", count)
    frames = _by_formula(begun)
    whole = [r for r in begun if r.error is None] or begun
    logs, settings = [read_log(result.log) for result in whole], summary["settings"]
    verdicts = [_losses(results)]
    if whole:
        verdicts += judge_dynamics(logs, [len(r.atoms) for r in whole], settings)
    report.add_verdicts([*verdicts, judge_domain([summary.get("domain")])])
    if whole:
        report.add_headlines(_headlines(whole, logs))
        _add_spread(report, whole, logs, settings)
    for formula, own in frames.items():
        report.add_heading(formula)
        last = [r.atoms for r in begun if r.atoms.get_chemical_formula(mode="hill") == formula]
        report.add_structures(last, "The last structure of each replica", _numbers(results, last))
        elements = element_temperatures(own)
        if elements:
            report.add_table(("element", "mean temperature (K)"), elements.items())
        add_structure(report, own)
    report.add_heading("Replicas")
    columns = ("replica", "structure", "steps", "temperature (K)", "drift (meV/atom/ps)")
    report.add_table(columns, [_row(i, result) for i, result in enumerate(results)])
    return report.write_run(folder, summary)


def _losses(results: Sequence[ReplicaResult]) -> Verdict:
    lost = [
        f"replica {i} was dropped after step {r.steps}: {r.error}"
        for i, r in enumerate(results)
        if r.error is not None
    ]
    return Verdict(
        "replicas",
        not lost,
        f"{len(results) - len(lost)} of {len(results)} got to the end",
        "all",
        "those that cannot be computed any more, or explode, are dropped",
        "; ".join(lost),
    )


def _headlines(results: Sequence[ReplicaResult], logs: Sequence[Log]) -> dict[str, str]:
    means = np.array([log.mean("temperature_K") for log in logs])
    found = {
        "mean temperature": f"{means.mean():.1f} K (replicas {means.min():.1f} to "
        f"{means.max():.1f} K)"
    }
    drifts = np.array([result.drift for result in results])
    if np.isfinite(drifts).all():
        found["mean drift"] = f"{drifts.mean():.3g} meV/atom/ps"
    return found


def _numbers(results: Sequence[ReplicaResult], last: Sequence[Atoms]) -> list[str]:
    numbers = {id(result.atoms): index for index, result in enumerate(results)}
    return [f"replica {numbers[id(atoms)]}" for atoms in last]


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
    report: Report,
    results: Sequence[ReplicaResult],
    logs: Sequence[Log],
    settings: Mapping[str, Any],
) -> None:
    """Temperature and drift of the replicas as mean and extremes, as far as all of them got."""
    length = min(log.count for log in logs)
    pairs = zip(logs, results, strict=True)
    same = [(log, r) for log, r in pairs if log.count == length]  # others have other lines at hand
    logs = [log for log, _ in same]
    time = logs[0]["time_fs"] / 1000
    temperature = np.stack([log["temperature_K"] for log in logs])
    mean = np.mean([log.mean("temperature_K") for log in logs])
    report.add_heading("Temperature")
    report.add_figure(
        time_series(
            time, _spread(temperature), "temperature (K)", target=held_temperature(settings)
        ),
        f"Temperature of all replicas; mean {mean:.1f} K",
    )
    conserved = np.stack([1000 * log["conserved_eV"] / len(r.atoms) for log, r in same])
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
