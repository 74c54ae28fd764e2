"""What reports judge is judged by the numbers of the run, and by the thresholds they name."""

from __future__ import annotations

from typing import Any

import numpy as np

from jmp_md.report.judgement import judge_domain, judge_dynamics
from jmp_md.simulate.md.log import Log
from jmp_md.simulate.verdict import Verdict

NVT = {"ensemble": "nvt-langevin", "temperature": 300.0, "temperature_end": None}


def a_log(
    n: int = 2000, *, mean: float = 300.0, slope: float = 0.0, noise: float = 1e-3, seed: int = 0
) -> Log:
    """Independent temperatures of a standard deviation of 30 K, and a line with noise in eV."""
    rng = np.random.default_rng(seed)
    time = np.arange(n) * 5.0
    temperature = mean + 30.0 * rng.standard_normal(n)
    energy = slope * time / 1000 + noise * rng.standard_normal(n)
    rows = np.stack([time, energy, temperature], axis=1)
    columns = ("time_fs", "conserved_eV", "temperature_K")
    found = float(np.polyfit(time / 1000, energy, 1)[0]) if n > 1 else float("nan")
    return Log(rows, columns, n, rows.mean(axis=0), rows.std(axis=0), found)


def judged(log: Log, settings: dict[str, Any] = NVT) -> dict[str, bool | None]:
    return {v.subject.split()[0]: v.holds for v in judge_dynamics([log], [10], settings)}


def test_a_mean_within_three_standard_errors_is_good_and_one_beyond_is_not() -> None:
    error = 3 * 30 / np.sqrt(2000)
    assert judged(a_log())["temperature"] is True
    assert judged(a_log(mean=300 + 2 * error))["temperature"] is False


def test_few_right_runs_are_doubted() -> None:
    doubted = sum(judged(a_log(400, seed=seed))["temperature"] is False for seed in range(300))
    assert doubted <= 5  # 0.3 % expected of independent values


def test_drift_is_judged_in_energy_per_atom_and_time() -> None:
    # 0.005 kJ/mol/ps per atom is 0.0518 meV/atom/ps; of 10 atoms, 0.518 meV/ps
    assert judged(a_log(slope=0.4e-3, noise=1e-5))["drift"] is True
    assert judged(a_log(slope=0.6e-3, noise=1e-5))["drift"] is False
    assert judged(a_log(slope=-0.6e-3, noise=1e-5))["drift"] is False


def test_runs_too_short_to_say_are_not_judged() -> None:
    assert judged(a_log(5)) == {"drift": None, "temperature": None}
    assert judged(a_log(1)) == {"drift": None, "temperature": None}


def test_without_a_held_temperature_there_is_none_to_judge() -> None:
    assert "temperature" not in judged(a_log(), NVT | {"ensemble": "nve"})
    assert "temperature" not in judged(a_log(), NVT | {"temperature_end": 500.0})


def domain(record: dict[str, Any] | None) -> Verdict:
    return judge_domain([record])


def test_the_domain_is_good_only_where_it_is_recorded() -> None:
    phase = {"structures": 3, "outside": 0, "findings": []}
    assert domain(None).holds is None
    assert domain({"recorded": False, "run": phase}).holds is None
    assert domain({"recorded": True, "run": phase}).holds is True
    finding = {"kind": "elements", "text": "elements the model never saw: Xe", "structures": 2}
    left = phase | {"outside": 2, "findings": [finding | {"first": "step 4"}]}
    found = domain({"recorded": False, "run": left})
    assert found.holds is False
    assert "Xe (in 2 of 3, first step 4)" in found.doubt
