"""What reports judge beside the verdicts of the results: dynamics, and the domain of the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from ase.units import kB

from jmp_md.analysis.statistics import statistical_inefficiency
from jmp_md.domain import CLOSER, STRONGER
from jmp_md.simulate.md.log import Log
from jmp_md.simulate.verdict import Verdict
from jmp_md.units import EV_IN_KJ_PER_MOL

ERRORS = 3.0  # standard errors that a mean may be off: chance alone does more in 1 run of 370
MOST_DRIFT = 0.005 * 1000 / EV_IN_KJ_PER_MOL  # meV/atom/ps
_INDEPENDENT = 10  # values that a standard error needs
_MOST = 5  # findings in a sentence
_PHASES = {"start": "at the start", "run": "on the way", "end": "at the end"}


def judge_dynamics(
    logs: Sequence[Log], n_atoms: Sequence[int], settings: Mapping[str, Any]
) -> list[Verdict]:
    """Whether runs of the same settings kept energy, temperature and pressure.

    Args:
        logs: Of each run.
        n_atoms: Of each run.
        settings: Options of the runs.
    """
    verdicts = [_drift(logs, n_atoms)]
    if (target := held_temperature(settings)) is not None:
        verdicts.append(_mean(logs, "temperature_K", "temperature", target))
    if settings["ensemble"].startswith("npt"):
        verdicts.append(_mean(logs, "pressure_GPa", "pressure", settings["pressure"]))
    return verdicts


def held_temperature(settings: Mapping[str, Any]) -> float | None:
    """K that a thermostat holds; None without one, and where it heats or cools."""
    if settings["ensemble"] == "nve" or settings.get("temperature_end") is not None:
        return None
    return float(settings["temperature"])


def judge_domain(records: Sequence[Mapping[str, Any] | None]) -> Verdict:
    """Whether structures stayed within what the model was trained on.

    Args:
        records: From :meth:`jmp_md.simulate.watch.DomainWatch.record`, of each model.
    """
    known = [record for record in records if record is not None]
    phases = [part for record in known for part in record.values() if isinstance(part, Mapping)]
    found = list(dict.fromkeys(_findings(phases)))
    silent = not known or not all(record["recorded"] for record in known)
    more = f"; and {len(found) - _MOST} more, see summary.json" if len(found) > _MOST else ""
    return Verdict(
        "domain of the model",
        False if found else None if silent else True,
        f"{_outside(known)} outside" if known else "not known of this calculator",
        "none",
        "elements, bonds and neighbours are those of its training, no pair is closer than "
        f"{CLOSER:g} of the closest there, and no force larger than {STRONGER:g} of the largest"
        if not silent
        else "nothing says what it was trained on, elements aside",
        f"numbers may be wrong: {'; '.join(found[:_MOST])}{more}",
    )


def _outside(records: Sequence[Mapping[str, Any]]) -> str:
    """How many structures lay outside, at the start, on the way and at the end."""
    said = []
    for phase, when in _PHASES.items():
        parts = [record[phase] for record in records if phase in record]
        outside, looked = (sum(part[name] for part in parts) for name in ("outside", "structures"))
        if looked:
            said.append(f"{outside} of {looked} {when}")
    return ", ".join(said)


def _findings(phases: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for part in phases:
        for each in part["findings"]:
            if part["structures"] == 1:
                yield f"{each['text']} ({each['first']})"
            else:
                yield (
                    f"{each['text']} (in {each['structures']} of {part['structures']}, first "
                    f"{each['first']})"
                )


def _drift(logs: Sequence[Log], n_atoms: Sequence[int]) -> Verdict:
    pairs = list(zip(logs, n_atoms, strict=True))
    drift = float(np.mean([1000 * log.slope / count for log, count in pairs]))
    squares = [(1000 * _slope_error(log) / count) ** 2 for log, count in pairs]
    error = ERRORS * float(np.sqrt(sum(squares))) / len(logs)
    good = abs(drift) <= MOST_DRIFT
    known = np.isfinite(error) and (good or abs(drift) > error)
    return Verdict(
        "drift of the conserved energy",
        good if known else None,
        f"{drift:+.2g} ± {error:.1g} meV/atom/ps" if np.isfinite(error) else "too few lines",
        f"at most {MOST_DRIFT:.3f} meV/atom/ps",
        "what GROMACS allows by default, 0.005 kJ/mol/ps per atom (verlet-buffer-tolerance); "
        f"harmonic atoms, with 3 k each, it heats by {MOST_DRIFT / (3000 * kB):.1g} K in a ps. "
        f"The error is {ERRORS:g} standard errors" + ("" if known else ": the run is too short"),
        "energy is not kept: take a shorter timestep, conservative forces, float64, and a model "
        "without jumps ('jmp-md check')",
    )


def _slope_error(log: Log) -> float:
    """eV/ps, standard error of the straight line through the conserved energy."""
    time, energy = log["time_fs"] / 1000, log["conserved_eV"]
    length = float(np.ptp(time)) if len(time) else 0.0
    if len(time) < _INDEPENDENT or not length > 0:
        return float("nan")
    left = energy - np.polyval(np.polyfit(time, energy, 1), time)
    independent = len(time) / statistical_inefficiency(left)
    return float(left.std() * np.sqrt(12 / independent) / length)


def _mean(logs: Sequence[Log], column: str, subject: str, target: float) -> Verdict:
    unit = column.rpartition("_")[2]
    mean = float(np.mean([log.mean(column) for log in logs]))
    error, independent = _error(logs, column)
    return Verdict(
        subject,
        abs(mean - target) <= error if independent >= _INDEPENDENT else None,
        f"mean {mean:.4g} {unit}",
        f"{target:g} ± {error:.2g} {unit}",
        f"{ERRORS:g} standard errors of the mean of {independent:.0f} independent values; the "
        "start counts, too",
        f"the mean {subject} is not the one asked for: let the run find its balance first, and go "
        "on from its end",
    )


def _error(logs: Sequence[Log], column: str) -> tuple[float, float]:
    """So many standard errors of the mean over all runs, and the independent values behind it."""
    counts = np.array([len(log[column]) / statistical_inefficiency(log[column]) for log in logs])
    variances = np.array([log.deviation(column) ** 2 for log in logs]) / counts
    return ERRORS * float(np.sqrt(variances.sum())) / len(logs), float(counts.sum())
