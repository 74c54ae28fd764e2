"""Errors against labels are judged by limits, each on the side of it where it is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from jmp_md.report.accuracy import CHEMICAL, judge_errors, judge_property
from jmp_md.training.metrics import ErrorSums, Values
from jmp_md.training.property_metrics import property_summary

ERRORS: dict[str, Any] = {
    "n_frames": 100,
    "n_skipped": 0,
    "energy_mae_meV": 20.0,
    "energy_shift_eV": 0.005,
    "labels": {"n_energies": 100, "force_rms_meV_per_A": 1000.0},
    "after_shift": {"energy_mae_meV": 19.0},
    "size_inconsistency_eV": 1e-6,
    "force_mae_meV_per_A": 30.0,
    "force_rmse_meV_per_A": 50.0,
    "stress_mae_meV_per_A3": 1.0,
}


def judged(**changes: Any) -> dict[str, bool | None]:
    errors = {name: value for name, value in (ERRORS | changes).items() if value is not None}
    return {v.subject: v.holds for v in judge_errors(errors)}


def test_one_kcal_per_mol_is_the_limit() -> None:
    assert pytest.approx(4184 / 96.485, abs=0.01) == CHEMICAL  # meV
    assert all(judged().values())


@pytest.mark.parametrize(
    ("subject", "changes"),
    [
        ("relative energies", {"energy_mae_meV": 50.0, "after_shift": {"energy_mae_meV": 50.0}}),
        ("level of the energies", {"energy_mae_meV": 2e6, "energy_shift_eV": -2000.0}),
        ("forces", {"force_mae_meV_per_A": 44.0}),
        ("forces", {"force_mae_meV_per_A": float("nan")}),
        ("forces, beside their size", {"force_rmse_meV_per_A": 110.0}),
        ("stress", {"stress_mae_meV_per_A3": 6.3}),  # 1 GPa is 6.24 meV/Å³
        ("additivity", {"size_inconsistency_eV": 0.01}),
        ("frames", {"n_skipped": 1}),
    ],
)
def test_what_passes_a_limit_alone_is_in_doubt(subject: str, changes: dict[str, Any]) -> None:
    assert [name for name, holds in judged(**changes).items() if not holds] == [subject]


def test_without_labels_nothing_is_known() -> None:
    found = judged(energy_mae_meV=None, force_mae_meV_per_A=None, stress_mae_meV_per_A3=None)
    assert found == {"energies": None, "forces": None, "additivity": True, "frames": True}
    one = {"n_energies": 1, "force_rms_meV_per_A": 1000.0}
    assert judged(labels=one, after_shift={"energy_mae_meV": 0.0})["relative energies"] is None
    still = {"n_energies": 100, "force_rms_meV_per_A": 0.0}
    assert judged(labels=still)["forces, beside their size"] is None


def test_a_property_is_compared_with_the_best_constant() -> None:
    errors = {"target": "gap", "n_skipped": 0, "mae": 1.0, "mae_of_median": 1.5}
    assert judge_property(errors)[0].holds is True
    assert judge_property(errors | {"mae": 1.6})[0].holds is False
    assert judge_property({"target": "gap", "n_skipped": 0})[0].holds is None
    known = {"target": "gap", "n_skipped": 2, "accuracy": 0.75, "accuracy_of_larger_class": 0.75}
    assert [v.holds for v in judge_property(known)] == [False, False]
    assert judge_property(known | {"accuracy": 0.8})[0].holds is True


def test_sizes_are_those_of_all_labels() -> None:
    """Not of as many as a plot shows."""
    sums = ErrorSums()
    numbers, constant = np.ones(30_000, dtype=int), np.zeros(1)
    for size in (1.0, 3.0):
        label = Values(np.array([np.nan]), np.full((30_000, 3), size))
        sums.add(Values(np.zeros(1), np.zeros((30_000, 3))), label, numbers, constant)
    assert sums.labels() == {"n_energies": 0, "force_rms_meV_per_A": pytest.approx(1000 * 5**0.5)}
    assert (sums + sums).labels()["force_rms_meV_per_A"] == pytest.approx(1000 * 5**0.5)
    found = property_summary("scalar", np.zeros(4), np.array([0.0, 1.0, 2.0, 5.0]))
    assert found["mae_of_median"] == 1.5
