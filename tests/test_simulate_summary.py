"""Summaries say which model computed, with which settings, in JSON that any reader takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ase.build import molecule
from ase.constraints import FixBondLength
from factories import random_potential

from jmp_md.calculators.ase import JMPCalculator
from jmp_md.errors import InputError
from jmp_md.export import export
from jmp_md.runs.md import run_md
from jmp_md.runs.neb import PATH, run_neb
from jmp_md.simulate.summary import describe, write_summary


def jmp(**options: Any) -> JMPCalculator:
    model = random_potential(num_blocks=1, direct=True, smooth=False)
    return JMPCalculator(model, **({"dtype": "float64", "device": "cpu"} | options))


@pytest.mark.parametrize(
    "options",
    [
        {"forces": "direct"},
        {"tags": "oc"},
        {"cutoff": 5.0},
        {"precision": "bf16", "dtype": "float32"},
        {"references": {"H": -13.6}},
    ],
)
def test_whatever_changes_numbers_changes_the_description(options: dict[str, Any]) -> None:
    assert describe(jmp()) == describe(jmp())
    assert describe(jmp(**options)) != describe(jmp(dtype=options.get("dtype", "float64")))
    assert describe(jmp(dtype="float32"))["sha256"] == describe(jmp())["sha256"]


def test_an_exported_model_runs_and_is_described(tmp_path: Path) -> None:
    export(random_potential(num_blocks=1), tmp_path / "m.pt")
    atoms = molecule("H2O")
    atoms.calc = JMPCalculator(tmp_path / "m.pt", device="cpu", trust=True)
    run_md(atoms, tmp_path / "run", steps=1, report=False)
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert summary["model"]["name"] == "random"
    assert len(summary["model"]["sha256"]) == 64


def test_what_is_not_finite_becomes_null(tmp_path: Path) -> None:
    results = {"drift": float("nan"), "all": [float("inf"), 1.0], "n": 3, "path": Path("a")}
    write_summary(tmp_path, "md", model={}, settings={}, results=results, seconds=0.0)

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    found = json.loads((tmp_path / "summary.json").read_text(), parse_constant=refuse)["results"]
    assert found == {"drift": None, "all": [None, 1.0], "n": 3, "path": "a"}


def test_frequencies_that_cannot_be_had_are_told_before_any_work(tmp_path: Path) -> None:
    ends = [molecule("H2O"), molecule("H2O")]
    ends[1].set_angle(1, 0, 2, 90)
    for end in ends:
        end.set_constraint(FixBondLength(0, 1))
    options: dict[str, Any] = {"n_images": 3, "steps": 0, "relax_ends": False, "verify": True}
    with pytest.raises(InputError, match="FixAtoms only"):
        run_neb(ends, jmp(), tmp_path, interpolation="linear", **options)
    assert not (tmp_path / PATH).exists()
