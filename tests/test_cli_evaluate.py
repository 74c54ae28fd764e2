"""``jmp-md evaluate`` prints and writes the errors that the labels of a data set give."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.io import write
from factories import random_potential, write_model

from jmp_md.cli.main import main
from jmp_md.evaluation import evaluate
from jmp_md.graph.policy import GraphPolicy
from jmp_md.load import load_model

NOISE = 0.01  # eV/Å, on every force component of oxygen


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path)


def labelled(model: Path, shift: float, structures: list[Atoms]) -> list[Atoms]:
    """Structures with the model's own energies, some 3 meV off, and forces wrong on oxygen."""
    results = evaluate(structures, model, dtype="float64")
    for k, (atoms, result) in enumerate(zip(structures, results, strict=True)):
        assert result.forces is not None
        forces = result.forces + NOISE * (atoms.numbers == 8)[:, None]
        energy = result.energy + shift + 0.003 * (-1) ** k
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
    return structures


def run(model: Path, data: Path, *options: str) -> tuple[int, dict]:
    out = data.with_suffix("")
    arguments = ["evaluate", "--model", str(model), "--data", str(data), "--output", str(out)]
    status = main([*arguments, "--dtype", "float64", "--overwrite", *options])
    summary = out / "summary.json"
    return status, json.loads(summary.read_text())["results"] if summary.exists() else {}


def test_errors_are_those_put_into_the_labels(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    structures = [
        molecule("H2O"),
        molecule("CH3OH"),
        bulk("MgO", "rocksalt", a=4.2),
        molecule("O2"),
    ]
    write(tmp_path / "set.extxyz", labelled(model, 0.0, structures))
    status, report = run(model, tmp_path / "set.extxyz", "--batch-size", "3")
    assert status == 0
    assert report["n_frames"] == 4
    assert report["energy_mae_meV"] == pytest.approx(3.0, abs=1e-3)
    assert report["energy_rmse_meV"] == pytest.approx(3.0, abs=1e-3)
    by_element = report["force_mae_meV_per_A_by_element"]
    assert by_element["O"] == pytest.approx(10.0, abs=1e-3)
    assert {by_element[s] < 1e-3 for s in ("H", "C", "Mg")} == {True}
    assert report["force_rmse_meV_per_A_by_element"]["O"] == pytest.approx(10.0, abs=1e-3)
    oxygens, atoms = 1 + 1 + 1 + 2, 3 + 6 + 2 + 2
    assert report["force_mae_meV_per_A"] == pytest.approx(10.0 * oxygens / atoms, abs=1e-3)
    rmse = 10.0 * np.sqrt(oxygens / atoms)
    assert report["force_rmse_meV_per_A"] == pytest.approx(rmse, abs=1e-3)
    printed = capsys.readouterr().out
    assert "4 frames" in printed
    assert "shifted" not in printed
    assert f"MAE {report['force_mae_meV_per_A']:10.2f}" in printed


def test_labels_are_drawn_against_predictions(model: Path, tmp_path: Path) -> None:
    structures = [molecule("H2O"), molecule("CH3OH"), molecule("O2")]
    write(tmp_path / "set.extxyz", labelled(model, 5.0, structures))
    page = tmp_path / "set" / "report.html"
    status, report = run(model, tmp_path / "set.extxyz")
    assert status == 0
    text = page.read_text()
    assert text.count("<img") == 2
    assert text.index('class="verdicts"') < text.index("<tbody>") < text.index("<img")
    assert "in doubt" in text[text.index('class="verdicts"') :]  # energies are 5 eV off
    assert "force (eV/Å), 33 values" in text
    assert "Command, settings, results, model and versions" in text
    assert f"{report['force_mae_meV_per_A']:.6g}" in text
    run(model, tmp_path / "set.extxyz", "--no-report")
    assert not page.exists()


def test_a_constant_is_told_apart_from_the_energy_error(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    structures = [molecule("H2O") for _ in range(4)]
    write(tmp_path / "set.extxyz", labelled(model, -2000.0, structures))
    _, report = run(model, tmp_path / "set.extxyz")
    assert report["energy_mae_meV"] == pytest.approx(2e6, rel=1e-5)
    assert report["energy_shift_eV"] == pytest.approx(-2000.0, abs=1e-4)
    assert report["after_shift"]["energy_mae_meV"] == pytest.approx(3.0, abs=1e-3)
    assert "once -2000.0000 eV are added to each" in capsys.readouterr().out


def test_missing_labels_and_fixed_atoms_are_left_out(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fixed, bare = labelled(model, 0.0, [molecule("H2O")])[0], molecule("H2O")
    fixed.set_constraint(FixAtoms([0]))  # the oxygen
    write(tmp_path / "set.extxyz", [bare, fixed])
    _, report = run(model, tmp_path / "set.extxyz")
    assert report["n_frames"] == 2
    assert list(report["force_mae_meV_per_A_by_element"]) == ["H"]
    assert "without those on 1 atoms held by constraints" in capsys.readouterr().out
    assert report["energy_mae_meV"] == pytest.approx(3.0, abs=1e-3)


def test_data_without_labels_say_so(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "set.extxyz", molecule("H2O"))
    status, report = run(model, tmp_path / "set.extxyz")
    assert status == 0
    assert "energy_mae_meV" not in report
    assert capsys.readouterr().out.count("no labels") == 2


def test_a_frame_that_cannot_be_evaluated_is_named_or_left_out(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    structures = labelled(model, 0.0, [molecule("H2O"), molecule("H2")])
    structures.append(Atoms("H2", [(0, 0, 0), (0, 0, 0.001)]))
    write(tmp_path / "set.extxyz", structures)
    status, report = run(model, tmp_path / "set.extxyz", "--batch-size", "2")
    assert (status, report) == (1, {})
    assert "frame 2: atom 0 (H) and atom 1 (H) are 0.0010 Å apart" in capsys.readouterr().err
    status, report = run(model, tmp_path / "set.extxyz", "--skip-bad")
    assert (status, report["n_frames"], report["n_skipped"]) == (0, 2, 1)
    assert "2 frames, 1 left out" in capsys.readouterr().out


def test_direct_forces_can_be_measured(tmp_path: Path) -> None:
    model, water = write_model(tmp_path, direct=True), molecule("H2O")
    (result,) = evaluate([water], load_model(model), forces="direct", dtype="float64")
    assert result.forces is not None
    water.calc = SinglePointCalculator(water, energy=result.energy, forces=result.forces)
    write(tmp_path / "set.extxyz", water)
    assert (
        run(model, tmp_path / "set.extxyz", "--forces", "direct")[1]["force_mae_meV_per_A"] < 1e-3
    )
    assert run(model, tmp_path / "set.extxyz")[1]["force_mae_meV_per_A"] > 1.0


def test_an_rmd17_file_is_read_as_published(shared: Path, tmp_path: Path) -> None:
    model = write_model(tmp_path)
    source = np.load(shared / "data/rmd17/rmd17_ethanol_test_01.npz")
    few = {key: source[key][:3] if len(source[key]) > 9 else source[key] for key in source.files}
    np.savez(tmp_path / "few.npz", **few)
    status, report = run(model, tmp_path / "few.npz")
    assert (status, report["n_frames"]) == (0, 3)
    assert set(report["force_mae_meV_per_A_by_element"]) == {"H", "C", "O"}
    assert report["model"] == str(model)
    assert random_potential().head.name == report["head"]


def test_tags_count_where_they_are_asked_for_and_else_are_told_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = write_model(tmp_path, graph=GraphPolicy.official(6.0, 30))
    slab = bulk("MgO", "rocksalt", a=4.2, cubic=True)
    slab.set_tags([0, 0, 0, 0, 1, 1, 2, 2])
    [result] = evaluate([slab], model, dtype="float64", tags="oc")
    slab.calc = SinglePointCalculator(slab, energy=result.energy, forces=result.forces)
    write(tmp_path / "set.extxyz", [slab, slab])
    status, tagged = run(model, tmp_path / "set.extxyz", "--tags", "oc")
    assert (status, tagged["energy_mae_meV"]) == (0, pytest.approx(0.0, abs=1e-6))
    assert capsys.readouterr().err.count("tags") == 0
    status, plain = run(model, tmp_path / "set.extxyz")
    assert (status, plain["energy_mae_meV"] > 1.0) == (0, True)
    assert capsys.readouterr().err.count("the data set has tags, which do not count") == 1
