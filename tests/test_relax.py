"""Relaxation finds a minimum, says whether it did, and never harms a file."""

from __future__ import annotations

import json
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
from ase.units import GPa
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


def test_a_pressed_cell_has_that_pressure_and_a_mask_holds_the_rest() -> None:
    atoms = bulk("Cu", a=3.59, cubic=True)
    atoms.calc = EMT()
    pressed = relax(atoms, relax_cell=True, pressure=5.0, fmax=1e-4)
    assert -pressed.atoms.get_stress()[:3] / GPa == pytest.approx(np.full(3, 5.0), abs=0.01)
    long = relax(atoms, relax_cell=True, cell_mask=(0, 0, 1, 0, 0, 0), pressure=5.0, fmax=1e-4)
    lengths = long.atoms.cell.lengths()
    assert lengths[:2].tolist() == atoms.cell.lengths()[:2].tolist()
    assert lengths[2] < pressed.atoms.cell.lengths()[2]
    assert -long.atoms.get_stress()[2] / GPa == pytest.approx(5.0, abs=0.01)


def test_symmetry_is_kept_where_it_is_asked_for() -> None:
    spglib = pytest.importorskip("spglib")

    def group(atoms: Atoms) -> int:
        cell = atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers
        return int(spglib.get_symmetry_dataset(cell, symprec=1e-5).number)

    atoms = bulk("Cu", "hcp", a=2.6, c=4.1)
    atoms.positions[1] += [0.002, 0.001, -0.003]  # a sloppy file
    atoms.calc = EMT()
    assert group(atoms) < 194
    kept = relax(atoms, relax_cell=True, keep_symmetry=True, fmax=1e-4)
    assert kept.converged
    assert group(kept.atoms) == 194
    assert kept.atoms.constraints == []
    atoms.set_constraint(FixAtoms([0]))
    with pytest.raises(InputError, match="1 constraints: leave out keep_symmetry"):
        relax(atoms, keep_symmetry=True)


def test_too_few_steps_do_not_converge() -> None:
    result = relax(stretched(), steps=1)
    assert not result.converged
    assert result.steps == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimizer": "Newton"}, "optimizer 'Newton': choose one of BFGS, LBFGS, FIRE"),
        ({"fmax": 0.0}, r"fmax 0.0 eV/Å: must be positive"),
        ({"fmax": float("nan")}, r"fmax nan eV/Å: must be a finite number"),
        ({"steps": -1}, r"steps -1: must be 0 or more"),
        ({"pressure": 1.0}, r"pressure 1.0 GPa are for a cell that is relaxed"),
        ({"cell_mask": (1, 1, 1, 0, 0, 0)}, "cell_mask .* add relax_cell"),
        ({"keep_symmetry": True}, "symmetry can be kept in crystals"),
        ({"relax_cell": True}, r"pbc \[False, False, False\]: leave out relax_cell"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        relax(stretched(), **options)


def test_a_mask_has_six_numbers() -> None:
    atoms = bulk("Cu")
    atoms.calc = EMT()
    for mask in ((1, 1, 1), (2, 0, 0, 0, 0, 0)):
        with pytest.raises(InputError, match=r"cell_mask.*1 for strains xx, yy"):
            relax(atoms, relax_cell=True, cell_mask=mask)


def test_a_structure_without_calculator_is_refused() -> None:
    with pytest.raises(InputError, match=r"set atoms.calc = JMPCalculator"):
        relax(molecule("H2O"))


def test_the_command_writes_the_result_and_exits_0(
    here: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source = water(here / "water.xyz")
    before = source.read_bytes()
    assert main(["relax", "water.xyz", "--model", model, "--fmax", "0.005"]) == 0
    relaxed = read("water-relax/relaxed.extxyz")
    assert np.linalg.norm(relaxed.get_forces(), axis=1).max() < 0.005
    out = capsys.readouterr().out
    assert f"H2O, model {model}" in out
    assert "step   0/500  energy" in out
    assert f"energy {relaxed.get_potential_energy():.6f} eV (-" in out
    assert "wrote water-relax/relaxed.extxyz: 1 of 1" in out
    assert "BFGS" in Path("water-relax/optimizer.log").read_text()
    assert source.read_bytes() == before


def test_the_command_relaxes_every_structure_and_exits_2_where_one_did_not_converge(
    here: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    far = water(here / "a.xyz")
    write("two.xyz", [molecule("H"), read(far)])
    args = ["relax", "two.xyz", "--model", model, "--steps", "1", "--fmax", "0.0001"]
    args += ["--optimizer", "FIRE", "--trajectory", "traj", "--output", "run", "--format", "traj"]
    assert main(args) == 2
    assert [len(atoms) for atoms in read("run/relaxed.traj", index=":")] == [1, 3]
    assert len(read("run/trajectory-1.traj", index=":")) == 1
    assert len(read("run/trajectory-2.traj", index=":")) == 2
    out = capsys.readouterr().out
    assert out.index("converged after 0") < out.index("NOT converged after 1 steps")


def test_the_command_relaxes_cells(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_model(here, graph=GraphPolicy.smooth(3.0, 3.0, 2.0, 3.0))
    write("si.cif", bulk("Si"))
    args = ["relax", "si.cif", "--model", str(path), "--relax-cell", "--steps", "2"]
    assert main([*args, "--fmax", "1e-6"]) == 2
    assert read("si-relax/relaxed.extxyz").cell.volume != pytest.approx(bulk("Si").cell.volume)
    assert read("si-relax/relaxed.extxyz").get_stress().shape == (6,)


def test_the_command_knows_pressure_mask_and_symmetry(here: Path) -> None:
    pytest.importorskip("spglib")
    path = write_model(here, graph=GraphPolicy.smooth(3.0, 3.0, 2.0, 3.0))
    write("si.cif", bulk("Si", cubic=True))
    args = ["relax", "si.cif", "--model", str(path), "--relax-cell", "--steps", "2"]
    args += ["--fmax", "1e-6", "--pressure", "3"]
    assert main([*args, "--keep-symmetry"]) == 2
    lengths = read("si-relax/relaxed.extxyz").cell.lengths()
    assert lengths == pytest.approx(np.full(3, lengths[0]))
    assert lengths[0] < 5.43
    assert main([*args, "--overwrite", "--cell-mask", "1", "0", "0", "0", "0", "0"]) == 2
    lengths = read("si-relax/relaxed.extxyz").cell.lengths()
    assert lengths[1:] == pytest.approx(np.full(2, 5.43))
    assert lengths[0] < 5.43
    summary = json.loads(Path("si-relax/summary.json").read_text())
    assert summary["settings"]["cell_mask"] == [1, 0, 0, 0, 0, 0]
    assert summary["results"]["structures"][0]["converged"] is False


@pytest.mark.parametrize("name", ["fixed.extxyz", "fixed.vasp", "fixed.traj"])
def test_constraints_in_the_file_hold(here: Path, model: str, name: str) -> None:
    atoms = molecule("H2O", vacuum=4.0, pbc=True)
    atoms.positions[1] += [0.0, 0.2, 0.1]
    atoms.set_constraint(FixAtoms([0, 1]))
    columns = {"columns": ["symbols", "positions", "move_mask"]} if name.endswith("xyz") else {}
    write(name, atoms, **columns)
    assert main(["relax", name, "--model", model, "--steps", "3", "--fmax", "1e-6"]) == 2
    given, relaxed = read(name), read("fixed-relax/relaxed.extxyz")
    moved = np.linalg.norm(relaxed.positions - given.positions, axis=1) > 1e-6
    assert moved.tolist() == [False, False, True]


def test_structures_of_several_files_relax_together(
    here: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    structures = [molecule("H2O"), molecule("N2"), molecule("OH"), molecule("H2O")]
    structures[3].rattle(0.05, seed=1)
    write("a.xyz", structures[:2])
    write("b.xyz", structures[2:])
    command = ["relax", "a.xyz", "b.xyz", "--model", model, "--fmax", "0.002"]
    assert main([*command, "--batch-size", "8"]) == 2  # N2 is not for this model
    out = capsys.readouterr().out
    assert "structure 2 of 4: dropped: atom 0 (N)" in out
    assert "wrote a-relax/relaxed.extxyz: 3 of 4 structures" in out
    together = read("a-relax/relaxed.extxyz", index=":")
    assert [len(atoms) for atoms in together] == [3, 2, 3]
    rows = json.loads(Path("a-relax/summary.json").read_text())["results"]["structures"]
    assert [(row["fmax_eV_per_A"] or 1) < 0.002 for row in rows] == [True, False, True, True]
    assert "atom 0 (N)" in rows[1]["error"]
    for atoms in together:
        assert np.linalg.norm(atoms.get_forces(), axis=1).max() < 0.002
    assert rows[3]["energy_eV"] == pytest.approx(together[2].get_potential_energy(), abs=1e-6)
    before = sorted(Path("a-relax").iterdir())
    assert main([*command, "--batch-size", "8", "--overwrite", "--relax-cell"]) == 1
    assert "structure 0 (H2O): the structure has no cell to relax" in capsys.readouterr().err
    assert sorted(Path("a-relax").iterdir()) == before


def test_crystals_relax_together_with_cells_and_trajectories(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_model(here, graph=GraphPolicy.smooth(3.0, 3.0, 2.0, 3.0))
    crystals = [bulk("Si"), bulk("Cu", cubic=True), bulk("NaCl", "rocksalt", a=5.0)]
    write("all.traj", crystals)
    command = ["relax", "all.traj", "--model", str(path), "--relax-cell", "--pressure", "1"]
    command += ["--steps", "3", "--fmax", "1e-6", "--optimizer", "BFGS"]
    assert main([*command, "--output", "alone"]) == 2
    assert main([*command, "--batch-size", "2", "--trajectory", "traj", "--output", "batch"]) == 2
    alone, batch = (read(f"{name}/relaxed.extxyz", index=":") for name in ("alone", "batch"))
    for i, (one, other, given) in enumerate(zip(alone, batch, crystals, strict=True)):
        assert other.cell.array == pytest.approx(one.cell.array, abs=1e-6)
        assert other.get_potential_energy() == pytest.approx(one.get_potential_energy(), abs=1e-6)
        assert other.get_stress() == pytest.approx(one.get_stress(), abs=1e-6)
        assert other.cell.volume != pytest.approx(given.cell.volume)
        steps = read(f"batch/trajectory-{i + 1}.traj", index=":")
        assert len(steps) == 4
        assert steps[0].cell.array == pytest.approx(given.cell.array)
        assert steps[-1].cell.array == pytest.approx(other.cell.array)
    rows = json.loads(Path("batch/summary.json").read_text())["results"]["structures"]
    for row, end in zip(rows, batch, strict=True):
        left = np.abs(end.get_stress() / GPa + [1, 1, 1, 0, 0, 0]).max()
        assert row["stress_left_GPa"] == pytest.approx(left, abs=1e-6)
    lines = Path("batch/optimizer.log").read_text().splitlines()
    for i in range(3):
        own = [line for line in lines if line.startswith(f"{i:6d} BFGS:")]
        assert [int(line.split()[2]) for line in own] == [0, 1, 2, 3]
    write("all.traj", [*crystals, molecule("H2O")])
    capsys.readouterr()
    assert main([*command, "--batch-size", "2", "--output", "mixed"]) == 1
    assert "error: structure 3 (H2O): the structure has no cell" in capsys.readouterr().err
    assert not Path("mixed").exists()


def test_a_run_that_is_done_is_overwritten_only_when_asked_and_not_without_a_word(
    here: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    water(here / "water.xyz")
    command = ["relax", "water.xyz", "--model", model, "--steps", "1", "--fmax", "1e-6"]
    assert main([*command, "--dry-run"]) == 0
    assert "fmax: 1e-06" in capsys.readouterr().out
    assert not Path("water-relax").exists()
    assert main(command) == 2
    before = Path("water-relax/relaxed.extxyz").read_bytes()
    Path("water-relax/notes.txt").write_text("mine")
    assert main([*command[:-3], "2", *command[-2:]]) == 1
    assert "water-relax holds a run: continue it with restart" in capsys.readouterr().err
    assert Path("water-relax/relaxed.extxyz").read_bytes() == before
    assert main([*command[:-3], "2", *command[-2:], "--overwrite"]) == 2
    assert "warning: overwriting the run in water-relax: 9 files" in capsys.readouterr().err
    assert Path("water-relax/relaxed.extxyz").read_bytes() != before
    assert Path("water-relax/notes.txt").read_text() == "mine"


def test_tags_are_read_where_they_count(
    here: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    atoms = read(water(here / "water.xyz"))
    atoms.set_tags([0, 1, 7])
    write("tags.traj", atoms)
    assert main(["relax", "tags.traj", "--model", model, "--steps", "0", "--fmax", "9"]) == 0
    assert main(["relax", "tags.traj", "--model", model, "--tags", "oc", "--overwrite"]) == 1
    assert "atom 2 has tag 7" in capsys.readouterr().err


def test_options_come_from_a_file(here: Path, model: str) -> None:
    water(here / "water.xyz")
    Path("run.yaml").write_text(f"model: {model}\nsteps: 1\nfmax: 0.0001\noptimizer: FIRE\n")
    assert main(["relax", "water.xyz", "--config", "run.yaml", "--steps", "2"]) == 2
    summary = json.loads(Path("water-relax/summary.json").read_text())
    assert summary["settings"]["optimizer"] == "FIRE"
    assert summary["results"]["structures"][0]["steps"] == 2
    assert len(next(iter(summary["model"].values()))["sha256"]) == 64


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
    error = capsys.readouterr().err
    assert "no shipped model is taken for N2 by itself; pass --model FILE" in error
    registry.add_model("all", write_model(here, "all", head={"elements": (1, 6, 7, 8)}))
    assert main(["relax", "n2.xyz"]) == 1
    assert "for N2 by itself; pass --model all, --model FILE" in capsys.readouterr().err


def test_what_is_done_is_kept_when_a_later_structure_fails(
    here: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write("mixed.xyz", [molecule("H"), molecule("N2")])
    assert main(["relax", "mixed.xyz", "--model", model]) == 1
    captured = capsys.readouterr()
    assert "atom 0 (N): head 'test'" in captured.err
    assert "wrote mixed-relax/relaxed.extxyz: 1 of 2" in captured.out
    assert len(read("mixed-relax/relaxed.extxyz", index=":")) == 1


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["none.xyz"], "there is no structure file none.xyz"),
        (["broken.xyz"], "broken.xyz, record 0: cut short, it has 3 atoms"),
        (["empty.cif"], "empty.cif holds no structures"),
        (["water.xyz", "--output", "out.cif"], "give --output out --format cif"),
        (["water.xyz", "--log", "log"], "--log is no option any more: the log of the optimizer is"),
        (["water.xyz", "--format", "unknown"], "cannot write 1 structures to water-relax/relaxed"),
        (["two.xyz", "--format", "vasp"], "cannot write 2 structures to two-relax/relaxed.vasp"),
        (["water.xyz", "--restart", "--overwrite"], "restart goes on with a run, and overwrite"),
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
