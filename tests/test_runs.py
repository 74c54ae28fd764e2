"""Runs around calculations: what is killed goes on where it was, and nothing is lost silently."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.io import read, write
from factories import random_potential, write_model

from jmp_md.calculators.ase import JMPCalculator
from jmp_md.cli.main import main
from jmp_md.errors import InputError
from jmp_md.runs.elastic import run_elastic
from jmp_md.runs.eos import run_eos
from jmp_md.runs.md import run_md
from jmp_md.runs.phonons import run_phonons
from jmp_md.runs.singlepoint import run_singlepoint
from jmp_md.runs.vibrations import run_vibrations


class Counted(EMT):
    """EMT that counts what it computes."""

    calls = 0

    def calculate(self, *args: Any, **options: Any) -> None:
        self.calls += 1
        super().calculate(*args, **options)


def water_like() -> Atoms:
    atoms = molecule("H2O")
    atoms.rattle(0.02, seed=1)
    return atoms


def summary(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return found


@pytest.mark.parametrize(
    ("run", "atoms", "options", "figure"),
    [
        (run_vibrations, water_like(), {}, "frequencies_per_cm"),
        (
            run_phonons,
            bulk("Cu", a=3.65) * (1, 1, 2),
            {"supercell": [2], "mesh": 5, "points": 3, "report": False, "relax": "atoms"},
            "highest_THz",
        ),
    ],
)
def test_displaced_structures_are_computed_once_however_often_a_run_is_killed(
    run: Callable[..., Any],
    atoms: Atoms,
    options: dict[str, Any],
    figure: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("jmp_md.simulate.displaced._TOGETHER", 1)
    atoms.rattle(0.01, seed=3)
    whole = Counted()
    run(atoms, whole, tmp_path / "whole", **options)

    def stop(done: int, count: int) -> None:
        if done % 2 == 0 and done < count:
            raise KeyboardInterrupt

    parts, kills = Counted(), 0
    while True:
        around = {"restart": kills > 0, "progress": stop} | options
        try:
            run(atoms, parts, tmp_path / "parts", **around)
            break
        except KeyboardInterrupt:
            kills += 1
    assert kills >= 2
    # A restart evaluates the relaxed structure again, and nothing else that was done.
    assert parts.calls <= whole.calls + 4 * kills
    one, other = (summary(tmp_path / name)["results"][figure] for name in ("whole", "parts"))
    assert np.array(other) == pytest.approx(np.array(one), rel=1e-9)


def test_forces_of_another_geometry_are_not_taken_for_those_of_this(tmp_path: Path) -> None:
    """A relaxation that goes on moves the atoms whose displacements were computed before."""
    atoms = water_like()
    first = run_vibrations(atoms, EMT(), tmp_path, steps=1)
    assert not first.relaxation.converged
    again = run_vibrations(atoms, EMT(), tmp_path, steps=200, fmax=1e-4, restart=True)
    assert again.relaxation.converged
    fresh = run_vibrations(atoms, EMT(), tmp_path / "fresh", steps=200, fmax=1e-4)
    assert again.modes.frequencies == pytest.approx(fresh.modes.frequencies, abs=1.0)
    assert abs(first.modes.frequencies - fresh.modes.frequencies).max() > 10
    with pytest.raises(InputError, match=r"different: settings.delta: 0.01, now 0.02"):
        run_vibrations(atoms, EMT(), tmp_path, delta=0.02, restart=True, fmax=1e-4)


@pytest.mark.parametrize("run", [run_eos, run_elastic])
def test_a_folder_is_neither_overwritten_nor_mixed_without_a_word(
    run: Callable[..., Any], tmp_path: Path
) -> None:
    copper = bulk("Cu", a=3.59)
    options: dict[str, Any] = {"relax": "none", "points": 5, "clamped": True}
    run(copper, EMT(), tmp_path / "run", **options)
    (tmp_path / "run" / "mine.txt").write_text("notes")
    with pytest.raises(InputError, match=r"holds a run: continue it .*--restart.*--overwrite"):
        run(copper, EMT(), tmp_path / "run", **options)
    with pytest.warns(UserWarning, match="overwriting the run in"):
        run(copper, EMT(), tmp_path / "run", overwrite=True, **options)
    assert (tmp_path / "run" / "mine.txt").read_text() == "notes"
    with pytest.raises(InputError, match="choose one"):
        run(copper, EMT(), tmp_path / "run", overwrite=True, restart=True, **options)


def test_an_unrelaxed_crystal_keeps_its_ions_at_every_volume(tmp_path: Path) -> None:
    """Displaced silicon-like atoms in copper would relax away and lower the energies."""
    atoms = bulk("Cu", a=3.6, cubic=True)
    atoms.positions[0] += [0.1, 0.05, 0.0]
    kept = run_eos(atoms, EMT(), tmp_path / "none", relax="none", points=5)
    clamped = run_eos(atoms, EMT(), tmp_path / "clamped", relax="none", points=5, clamped=True)
    assert kept.energies == pytest.approx(clamped.energies, abs=1e-12)
    scaled = atoms.copy()
    scaled.set_cell(atoms.cell * 0.94 ** (1 / 3), scale_atoms=True)
    scaled.calc = EMT()
    assert kept.energies[0] == pytest.approx(scaled.get_potential_energy(), abs=1e-9)
    assert summary(tmp_path / "none")["settings"]["relax"] == "none"


class Pulled(JMPCalculator):
    """A model, and 1 eV/Å on every atom along x."""

    def calculate(self, *args: Any, **options: Any) -> None:
        super().calculate(*args, **options)
        self.results["forces"] = self.results["forces"] + [1.0, 0.0, 0.0]


def test_what_a_class_adds_to_a_model_counts(tmp_path: Path) -> None:
    atoms = molecule("H2O")
    atoms.calc = Pulled(random_potential(), dtype="float64", device="cpu")
    options: dict[str, Any] = {"ensemble": "nve", "steps": 1, "interval": 1, "report": False}
    run = run_md(atoms, tmp_path / "md", remove_drift=False, **options)
    assert read(run.trajectory, 0).get_forces().sum(axis=0)[0] == pytest.approx(3.0)


def test_one_name_is_one_calculator(tmp_path: Path) -> None:
    models = [("mine", JMPCalculator(random_potential(), device="cpu")) for _ in range(2)]
    with pytest.raises(InputError, match="two calculators have the name 'mine'"):
        run_singlepoint([molecule("H2O")] * 2, models, tmp_path)
    with pytest.raises(InputError, match="no structures"):
        run_singlepoint([], [], tmp_path)


def test_a_finished_relaxation_goes_on_as_itself_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    model = str(write_model(tmp_path))
    write("a.xyz", molecule("H2O"))
    write("b.xyz", Atoms("H2", [[0, 0, 0], [0, 0, 0.8]]))
    words = ["--model", model, "--fmax", "1000", "--output", "run", "--no-report"]
    assert main(["relax", "a.xyz", *words]) == 0
    before = {
        path.name: path.read_bytes() for path in Path("run").glob("*.*") if path.suffix != ".log"
    }
    assert main(["relax", "b.xyz", *words, "--restart"]) == 1
    assert "structures.formula: 'H2O', now 'H2'" in capsys.readouterr().err
    # Nor does another verb, or another format, put its results beside those of the run.
    assert main(["singlepoint", "a.xyz", "--model", model, "--output", "run"]) == 1
    assert "run holds a run" in capsys.readouterr().err
    assert main(["relax", "a.xyz", *words, "--format", "traj"]) == 1
    after = {
        path.name: path.read_bytes() for path in Path("run").glob("*.*") if path.suffix != ".log"
    }
    assert after == before
    Path("run/relaxed.docx").write_text("mine")
    assert main(["relax", "b.xyz", *words, "--overwrite"]) in (0, 2)
    assert Path("run/relaxed.docx").read_text() == "mine"


def test_a_run_that_failed_at_once_may_begin_with_another_structure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = str(write_model(tmp_path))
    write("bad.xyz", Atoms("H2", [[0, 0, 0], [0, 0, 1e-4]]))
    write("good.xyz", Atoms("H2", [[0, 0, 0], [0, 0, 0.8]]))
    for verb in ("vibrations", "relax"):
        words = ["--model", model, "--output", verb, "--steps", "1", "--no-report"]
        assert main([verb, "bad.xyz", *words]) == 1
        assert main([verb, "good.xyz", *words]) in (0, 2)


def test_a_relaxation_that_ran_out_of_steps_goes_on_with_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = str(write_model(tmp_path))
    write("a.xyz", molecule("H2O"))
    words = ["relax", "a.xyz", "--model", model, "--fmax", "1e-9", "--no-report", "--output"]
    assert main([*words, "run", "--steps", "3"]) == 2
    assert main([*words, "run", "--steps", "7", "--restart"]) == 2
    (row,) = json.loads(Path("run/summary.json").read_text())["results"]["structures"]
    assert row["steps"] == 7
    lines = [line for line in Path("run/optimizer.log").read_text().splitlines() if "BFGS:" in line]
    assert len(lines) == 4 + 5  # 0 to 3, and 3 to 7
