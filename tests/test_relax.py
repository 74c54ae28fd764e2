"""Relaxation finds a minimum, says whether it did, and never harms a file."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from ase.io import read, write
from factories import write_model

from jmp_md.cli.main import main
from jmp_md.errors import InputError
from jmp_md.graph.policy import GraphPolicy
from jmp_md.models import registry
from jmp_md.simulate.relax import relax


def stretched(formula: str = "N2") -> Atoms:
    atoms = molecule(formula)
    atoms.rattle(0.1, seed=3)
    atoms.calc = EMT()
    return atoms


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory and cache."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JMP_MD_HOME", str(tmp_path / "home"))
    return tmp_path


@pytest.fixture
def model(here: Path) -> str:
    return str(write_model(here, head={"elements": (1, 6, 8)}))


def water(path: Path) -> Path:
    atoms = molecule("H2O")
    atoms.positions[1] += [0.0, 0.2, 0.1]
    write(path, atoms)
    return path


@pytest.mark.parametrize("optimizer", ["BFGS", "LBFGS", "FIRE"])
def test_relaxation_with_any_calculator_reaches_the_force_asked_for(optimizer: str) -> None:
    atoms = stretched()
    before = atoms.positions.copy()
    result = relax(atoms, fmax=0.005, optimizer=optimizer)
    assert result.converged
    assert 0 < result.steps < 500
    assert np.linalg.norm(result.atoms.get_forces(), axis=1).max() == result.fmax < 0.005
    assert result.energy_change == result.energy - atoms.get_potential_energy() < 0
    assert np.array_equal(atoms.positions, before)


def test_progress_starts_with_the_given_structure_and_ends_with_the_result() -> None:
    atoms = stretched()
    seen: list[tuple[int, float, float]] = []
    result = relax(atoms, progress=lambda *now: seen.append(now))
    assert [step for step, _, _ in seen] == list(range(result.steps + 1))
    assert seen[0][1] == atoms.get_potential_energy()
    assert seen[-1][1:] == (result.energy, result.fmax)


def test_constraints_hold() -> None:
    atoms = stretched("CO")
    atoms.set_constraint(FixAtoms([0]))
    result = relax(atoms)
    assert result.converged
    assert np.array_equal(result.atoms.positions[0], atoms.positions[0])
    assert not np.array_equal(result.atoms.positions[1], atoms.positions[1])


def test_a_relaxed_cell_has_no_stress() -> None:
    atoms = bulk("Cu", a=3.75)
    atoms.calc = EMT()
    result = relax(atoms, relax_cell=True, fmax=1e-4)
    assert result.converged
    assert np.abs(result.atoms.get_stress()).max() < 1e-4
    assert result.atoms.cell.volume < atoms.cell.volume
    assert relax(atoms, fmax=1e-4).steps == 0  # symmetry: no forces, the cell stays


def test_too_few_steps_do_not_converge() -> None:
    result = relax(stretched(), steps=1)
    assert not result.converged
    assert result.steps == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimizer": "Newton"}, "optimizer 'Newton': choose one of BFGS, LBFGS, FIRE"),
        ({"fmax": 0.0}, r"fmax 0.0 eV/Å: must be positive"),
        ({"fmax": float("nan")}, r"fmax nan eV/Å: must be positive"),
        ({"steps": -1}, r"steps -1: must be 0 or more"),
        ({"relax_cell": True}, r"pbc \[False, False, False\]: leave out relax_cell"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        relax(stretched(), **options)


def test_a_structure_without_calculator_is_refused() -> None:
    with pytest.raises(InputError, match=r"set atoms.calc = JMPCalculator"):
        relax(molecule("H2O"))


def test_the_command_writes_the_result_and_exits_0(
    here: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source = water(here / "water.xyz")
    before = source.read_bytes()
    assert main(["relax", "water.xyz", "--model", model, "--fmax", "0.005", "--log", "log"]) == 0
    relaxed = read("water-relaxed.extxyz")
    assert np.linalg.norm(relaxed.get_forces(), axis=1).max() < 0.005
    out = capsys.readouterr().out
    assert f"H2O, model {model}" in out
    assert "step    0  energy" in out
    assert f"energy {relaxed.get_potential_energy():.6f} eV (-" in out
    assert "wrote water-relaxed.extxyz: 1 of 1" in out
    assert "BFGS" in Path("log").read_text()
    assert source.read_bytes() == before


def test_the_command_relaxes_every_structure_and_exits_2_where_one_did_not_converge(
    here: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    far = water(here / "a.xyz")
    write("two.xyz", [molecule("H"), read(far)])
    args = ["relax", "two.xyz", "--model", model, "--steps", "1", "--fmax", "0.0001"]
    args += ["--optimizer", "FIRE", "--trajectory", "path.traj", "--output", "two.traj"]
    assert main(args) == 2
    assert [len(atoms) for atoms in read("two.traj", index=":")] == [1, 3]
    assert len(read("path-1.traj", index=":")) == 1
    assert len(read("path-2.traj", index=":")) == 2
    out = capsys.readouterr().out
    assert out.index("converged after 0") < out.index("NOT converged after 1 steps")


def test_the_command_relaxes_cells(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_model(here, graph=GraphPolicy.smooth(3.0, 3.0, 2.0, 3.0))
    write("si.cif", bulk("Si"))
    args = ["relax", "si.cif", "--model", str(path), "--relax-cell", "--steps", "2"]
    assert main([*args, "--fmax", "1e-6"]) == 2
    assert read("si-relaxed.extxyz").cell.volume != pytest.approx(bulk("Si").cell.volume)
    assert read("si-relaxed.extxyz").get_stress().shape == (6,)


def test_without_a_name_the_shipped_model_that_covers_the_elements_is_used(
    here: Path, model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shipped = here / "shipped"
    shipped.mkdir()
    shutil.copy(model, shipped / "jmp-tiny.safetensors")
    monkeypatch.setattr(registry, "_shipped_dir", lambda: shipped)
    water(here / "water.xyz")
    assert main(["relax", "water.xyz", "--steps", "0", "--fmax", "1e-6"]) == 2
    assert "model jmp-tiny" in capsys.readouterr().out
    write("n2.xyz", molecule("N2"))
    assert main(["relax", "n2.xyz"]) == 1
    assert "no shipped model covers N2, nor does any" in capsys.readouterr().err
    registry.add_model("all", write_model(here, "all", head={"elements": (1, 6, 7, 8)}))
    assert main(["relax", "n2.xyz"]) == 1
    assert "no shipped model covers N2, all does: pass --model" in capsys.readouterr().err


def test_what_is_done_is_kept_when_a_later_structure_fails(
    here: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write("mixed.xyz", [molecule("H"), molecule("N2")])
    assert main(["relax", "mixed.xyz", "--model", model]) == 1
    captured = capsys.readouterr()
    assert "atom 0 (N): head 'test'" in captured.err
    assert "wrote mixed-relaxed.extxyz: 1 of 2" in captured.out
    assert len(read("mixed-relaxed.extxyz", index=":")) == 1


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["none.xyz"], "there is no structure file none.xyz"),
        (["broken.xyz"], "cannot read structures from broken.xyz"),
        (["empty.cif"], "empty.cif holds no structures"),
        (["water.xyz", "--output", "water.xyz"], "is the input and would be overwritten"),
        (["water.xyz", "--output", "./a/../water.xyz"], "is the input and would be overwritten"),
        (["water.xyz", "--output", "none/out.xyz"], "there is no folder none for out.xyz"),
        (["water.xyz", "--output", "out.unknown"], "cannot write 1 structures to out.unknown"),
        (["two.xyz", "--output", "out.vasp"], "cannot write 2 structures to out.vasp"),
        (["water.xyz", "--model", "jmp-tyni"], "unknown model 'jmp-tyni'"),
        (["water.xyz", "--relax-cell"], "leave out relax_cell (--relax-cell)"),
        (["water.xyz", "--head", "oc20"], "no head 'oc20'"),
    ],
)
def test_a_command_that_cannot_work_exits_1_and_says_why(
    here: Path, model: str, args: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "a").mkdir()
    water(here / "water.xyz")
    write("two.xyz", [molecule("H"), molecule("H2O")])
    (here / "broken.xyz").write_text("3\n\nO 0 0\n")
    (here / "empty.cif").write_text("data_nothing\n")
    files = set(here.iterdir())
    assert main(["relax", *args, *([] if "--model" in args else ["--model", model])]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert set(here.iterdir()) == files
