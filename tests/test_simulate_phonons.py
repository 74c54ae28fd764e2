"""Phonons are those of the dynamical matrix, whoever computes it; the files are phonopy's."""

from __future__ import annotations

import csv
import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.io import read, write
from ase.neighborlist import neighbor_list
from ase.phonons import Phonons as AsePhonons
from ase.units import _amu, _e, kB
from factories import random_potential, write_model

from jmp_md.calculators.ase import JMPCalculator
from jmp_md.cli.main import main
from jmp_md.errors import InputError
from jmp_md.graph.policy import GraphPolicy
from jmp_md.report.phonon_files import write_phonons
from jmp_md.simulate.phonon_cells import supercell_matrix
from jmp_md.simulate.phonons import phonons
from jmp_md.units import EV_IN_KJ_PER_MOL

pytest.importorskip("phonopy")

SPRING, SIDE = 2.0, 3.0  # eV/Å², Å
EV_PER_TERAHERTZ = 4.135667696e-3
SMALL = GraphPolicy.smooth(3.0, 3.0, 2.0, 3.0)


class Springs(Calculator):
    """Nearest neighbours on harmonic springs of length ``SIDE``."""

    implemented_properties = ("energy", "forces")

    def __init__(self, spring: float = SPRING) -> None:
        super().__init__()
        self.spring = spring

    def calculate(
        self, atoms: Atoms | None = None, properties: tuple = (), changes: list = all_changes
    ) -> None:
        super().calculate(atoms, properties, changes)
        i, d, vectors = neighbor_list("idD", self.atoms, 1.2 * SIDE)
        pull = self.spring * (d - SIDE)
        forces = np.zeros((len(self.atoms), 3))
        np.add.at(forces, i, (pull / d)[:, None] * vectors)
        self.results = {"energy": 0.25 * float((pull**2).sum()) / self.spring, "forces": forces}


def cube(element: str = "Po") -> Atoms:
    return bulk(element, "sc", a=SIDE)


def terahertz(square: float, mass: float) -> float:
    """Frequency of a force constant in eV/Å² on a mass in u."""
    return float(np.sqrt(square * _e * 1e20 / (mass * _amu)) / (2 * np.pi) / 1e12)


def test_a_cubic_lattice_of_springs_has_the_analytic_bands() -> None:
    # Along x, springs along x make omega^2 = 4 K / m sin^2(q a / 2); those across carry nothing.
    atoms = cube()
    result = phonons(atoms, Springs(), supercell=[3], delta=1e-4, mesh=10)
    assert result.n_displacements == 1
    along = result.bands.labels.index(("Γ", "X"))
    q = np.linalg.norm(result.bands.qpoints[along], axis=1)
    expected = terahertz(4 * SPRING, atoms.get_masses()[0]) * np.sin(np.pi * q)
    found = result.bands.frequencies[along]
    assert found[:, 2] == pytest.approx(expected, rel=1e-4, abs=1e-4)
    assert np.abs(found[:, :2]).max() < 1e-3
    assert result.highest == pytest.approx(terahertz(4 * SPRING, atoms.get_masses()[0]), rel=1e-3)


def test_progress_counts_the_supercells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jmp_md.simulate.displaced._TOGETHER", 10)
    seen: list[tuple[int, int]] = []
    atoms = bulk("NaCl", "rocksalt", a=2 * SIDE)
    options = {"supercell": [1], "mesh": 5, "points": 3}
    phonons(atoms, Springs(), **options, progress=lambda *now: seen.append(now))
    assert seen == [(3, 3)]
    seen.clear()
    phonons(atoms, Springs(), **(options | {"supercell": [2]}), progress=lambda *n: seen.append(n))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_springs_that_push_show_as_imaginary() -> None:
    result = phonons(cube(), Springs(-SPRING), supercell=[3], mesh=10)
    assert result.imaginary
    assert result.lowest == pytest.approx(-terahertz(4 * SPRING, cube().get_masses()[0]), rel=1e-2)


def test_copper_has_the_frequencies_of_ase(tmp_path: Path) -> None:
    atoms = bulk("Cu", a=3.59)
    ours = phonons(atoms, EMT(), supercell=[3], mesh=20)
    theirs = AsePhonons(atoms, EMT(), supercell=(3, 3, 3), delta=0.01, name=str(tmp_path / "ase"))
    theirs.run()
    theirs.read(acoustic=True)
    # Only q-points that fit into the supercell: ASE interpolates others with other weights.
    qpoints = np.array([[1, 0, 0], [1, 1, 0], [1, 2, 0], [1, 1, 1]]) / 3
    own = qpoints @ atoms.cell.reciprocal() @ ours.phonopy.primitive.cell.T
    ours.phonopy.run_qpoints(own)
    expected = theirs.band_structure(qpoints, verbose=False) / EV_PER_TERAHERTZ
    assert expected.max() > 7
    assert ours.phonopy.qpoints.frequencies == pytest.approx(np.sort(expected), abs=5e-3)


def test_the_whole_crystal_moves_without_force_and_heat_obeys_dulong_and_petit() -> None:
    result = phonons(bulk("Cu", a=3.59), EMT(), supercell=[3], mesh=40)
    along = result.bands.labels.index(("Γ", "X"))
    assert np.abs(result.bands.frequencies[along][0]).max() < 1e-5  # three acoustic modes at Γ
    assert result.sum_rule < 1e-9
    assert result.fmax < 1e-9
    assert not result.imaginary
    width = np.gradient(result.dos_frequencies)
    assert float((result.dos * width).sum()) == pytest.approx(3.0, abs=0.05)
    thermal = result.thermal
    assert thermal.temperatures[[0, -1]].tolist() == [0.0, 1000.0]
    assert thermal.heat_capacity[-1] == pytest.approx(3 * kB, rel=0.01)
    assert thermal.entropy[0] == pytest.approx(0.0, abs=1e-9)
    # dF/dT = -S
    slope = np.gradient(thermal.free_energy, thermal.temperatures)
    assert slope[5:-5] == pytest.approx(-thermal.entropy[5:-5], rel=0.02)


def test_zero_point_energy_is_half_the_mean_frequency() -> None:
    result = phonons(bulk("Cu", a=3.59), EMT(), supercell=[2], mesh=20)
    mesh = result.phonopy.mesh
    mean = np.average(np.clip(mesh.frequencies, 0, None).sum(axis=1), weights=mesh.weights)
    assert result.thermal.free_energy[0] == pytest.approx(mean * EV_PER_TERAHERTZ / 2, rel=1e-3)


def test_the_cell_that_describes_a_crystal_does_not_matter() -> None:
    small = phonons(bulk("Cu", a=3.59), EMT(), supercell=[-1, 1, 1, 1, -1, 1, 1, 1, -1], mesh=10)
    large = phonons(bulk("Cu", a=3.59, cubic=True), EMT(), supercell=[1], mesh=10)
    assert len(small.phonopy.supercell) == len(large.phonopy.supercell) == 4
    assert small.highest == pytest.approx(large.highest, abs=1e-4)
    assert small.bands.labels == large.bands.labels


def test_a_model_computes_in_batches_what_its_forces_say_one_by_one() -> None:
    calculator = JMPCalculator(random_potential(graph=SMALL), dtype="float64", device="cpu")

    class OneByOne(Calculator):  # any other calculator is asked one structure at a time
        implemented_properties = ("energy", "forces")

        def calculate(self, atoms: Atoms, *args: object) -> None:
            super().calculate(atoms)
            forces = calculator.get_forces(atoms)
            self.results = {"energy": calculator.results["energy"], "forces": forces}

    atoms = bulk("NaCl", "rocksalt", a=5.4)
    seen: list[tuple[int, int]] = []
    batched = phonons(
        atoms, calculator, supercell=[2], mesh=10, progress=lambda *now: seen.append(now)
    )
    single = phonons(atoms, OneByOne(), supercell=[2], mesh=10)
    assert batched.n_displacements == 2
    assert seen == [(3, 3)]
    for one, other in zip(batched.bands.frequencies, single.bands.frequencies, strict=True):
        assert one == pytest.approx(other, abs=1e-4)


def test_official_graphs_are_warned_of() -> None:
    potential = random_potential(graph=GraphPolicy.official(3.0, 8))
    calculator = JMPCalculator(potential, dtype="float64", device="cpu")
    with pytest.warns(UserWarning, match="nearest 8 neighbours.*ill-defined"):
        phonons(bulk("Si"), calculator, supercell=[1], mesh=5, points=3)


def test_phonopy_reads_the_files(tmp_path: Path) -> None:
    import phonopy

    result = phonons(bulk("Cu", a=3.59), EMT(), supercell=[2], mesh=10, points=11)
    write_phonons(result, tmp_path)
    loaded = phonopy.load(tmp_path / "phonopy_params.yaml", log_level=0)
    path = result.bands.qpoints[0]
    loaded.run_qpoints(path)
    assert loaded.qpoints.frequencies == pytest.approx(result.bands.frequencies[0], abs=1e-4)
    forces = phonopy.file_IO.parse_FORCE_SETS(filename=tmp_path / "FORCE_SETS")
    assert forces["natom"] == 8
    segment = json.loads((tmp_path / "bands.json").read_text())[0]
    assert segment["labels"] == ["Γ", "X"]
    assert segment["frequencies_THz"] == result.bands.frequencies[0].tolist()
    with (tmp_path / "thermal.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert float(rows[-1]["temperature_K"]) == 1000
    assert float(rows[-1]["free_energy_eV"]) * EV_IN_KJ_PER_MOL == pytest.approx(
        result.phonopy.thermal_properties.free_energy[-1]
    )
    for name in ("bands.svg", "thermal.svg"):
        assert "<svg" in (tmp_path / name).read_text()


def test_a_supercell_that_is_not_given_is_high_enough() -> None:
    atoms = bulk("Si")  # 3.1 Å high
    assert supercell_matrix(atoms, None).tolist() == (4 * np.eye(3, dtype=int)).tolist()
    assert supercell_matrix(atoms, [1, 2, 3]).tolist() == np.diag([1, 2, 3]).tolist()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"supercell": [2, 2]}, r"supercell \[2, 2\]: give one, three or nine"),
        ({"supercell": [0]}, r"supercell \[0\] makes 0 cells"),
        ({"supercell": [-1, -1, 1]}, "must be positive"),
        ({"supercell": [2.5]}, r"supercell 2\.5: must be a whole number"),
        ({"supercell": [99]}, "has 970299 atoms: choose a smaller one"),
        ({"delta": 0.0}, r"delta 0.0 Å: must be positive"),
        ({"mesh": -1.0}, r"mesh -1.0 Å"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        phonons(bulk("Cu"), EMT(), **options)


def test_molecules_are_refused() -> None:
    with pytest.raises(InputError, match=r"phonons are of crystals.*'jmp-md vibrations'"):
        phonons(molecule("H2O"), EMT())
    with pytest.raises(InputError, match="too little volume for 1 atoms"):
        phonons(bulk("Cu", a=0.3), EMT())


def test_the_command_writes_files_and_a_report(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(write_model(here, graph=SMALL, head={"elements": (14,)}))
    write("si.cif", bulk("Si"))
    command = ["phonons", "si.cif", "--model", model, "--mesh", "10", "--points", "5"]
    status = main([*command, "--supercell", "2", "2", "1"])
    out = capsys.readouterr().out
    assert "relaxed in" in out
    folder = Path("si-phonons")
    summary = json.loads((folder / "summary.json").read_text())
    results = summary["results"]
    assert status == (2 if results["doubts"] else 0)
    assert summary["settings"]["supercell"] == [2, 2, 1]
    assert results["n_atoms_supercell"] == 8
    assert results["imaginary"] == ("there are imaginary modes" in out)
    names = {"phonopy_params.yaml", "FORCE_SETS", "bands.json", "bands.svg", "dos.csv"}
    names |= {"thermal.csv", "thermal.svg", "structure.extxyz", "summary.json", "report.html"}
    names |= {"relaxation.traj", "state.npz", "run.json", "jmp-md.log"}
    assert {p.name for p in folder.iterdir() if not p.name.startswith(".")} == names
    assert "Phonons of Si2" in (folder / "report.html").read_text()
    assert len(read(folder / "structure.extxyz")) == 2


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["none.cif"], "there is no structure file none.cif"),
        (["broken.cif"], "cannot read structures from broken.cif"),
        (["water.xyz"], "give a file with a cell"),
        (["cu.cif"], "atom 0 (Cu): head 'test' of model 'random' never saw this element"),
        (["si.cif", "--supercell", "2", "2"], "supercell [2, 2]: give one, three or nine"),
        (["si.cif", "--supercell", "2", "0", "2"], "makes 0 cells of one"),
        (["si.cif", "--delta", "3"], "delta 3.0 Å: must be below 0.5"),
    ],
)
def test_a_command_that_cannot_work_exits_1_and_says_why(
    here: Path, args: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(write_model(here, graph=SMALL, head={"elements": (1, 8, 14)}))
    write("si.cif", bulk("Si"))
    write("cu.cif", bulk("Cu"))
    write("water.xyz", molecule("H2O"))
    Path("broken.cif").write_text("no crystal\n")
    assert main(["phonons", *args, "--model", model]) == 1
    error = capsys.readouterr().err
    assert error.splitlines()[-1].startswith("error: ")
    assert message in error


def test_the_example_runs(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(write_model(here, graph=SMALL))
    example = Path(__file__).parents[1] / "examples" / "silicon_phonons.py"
    monkeypatch.setattr(sys, "argv", [str(example), model])
    runpy.run_path(str(example), run_name="__main__")
    out = capsys.readouterr().out
    assert "lattice constant" in out
    assert "2 of 2 supercells" in out
    assert Path("silicon-phonons/report.html").exists()
