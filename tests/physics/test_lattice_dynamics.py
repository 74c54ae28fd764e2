"""Phonons are those of analysis, whatever cell, isotopes and order of atoms describe a crystal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from ase.io import write
from ase.units import kB
from springs import Keating, Springs, terahertz

from jmp_md.cli import job
from jmp_md.cli.main import main
from jmp_md.errors import InputError
from jmp_md.report.phonon_files import write_phonons
from jmp_md.simulate.crystals import right_handed
from jmp_md.simulate.phonon_cells import supercell_matrix
from jmp_md.simulate.phonons import Phonons, phonons
from jmp_md.simulate.vibrations import vibrations

pytest.importorskip("phonopy")

SIDE, SPRING = 3.0, 2.0  # Å, eV/Å²


def rock_salt(symbols: str, masses: list[float]) -> Atoms:
    atoms = bulk("NaCl", "rocksalt", a=2 * SIDE)
    return Atoms(symbols, atoms.positions, cell=atoms.cell, pbc=True, masses=masses)


def diatomic_chain(masses: list[float], x: np.ndarray) -> np.ndarray:
    """Bands (n, 6) in THz along Γ-X of rock salt, of which each row is a diatomic chain."""
    inverse, product = sum(1 / m for m in masses), 4 / (masses[0] * masses[1])
    bands = []
    for phase in (np.pi * x, 0 * x, 0 * x):  # springs across the wave see no phase
        root = np.sqrt(np.maximum(inverse**2 - product * np.sin(phase) ** 2, 0))
        for sign in (1, -1):
            square = SPRING * np.maximum(inverse + sign * root, 0)
            bands.append(np.sqrt(square) * terahertz(1.0, 1.0))
    return np.sort(np.array(bands).T, axis=1)


@pytest.mark.parametrize(
    ("symbols", "masses"),
    [("NaCl", [22.99, 35.45]), ("Po2", [209.0, 209.0 * 2]), ("Po2", [209.0, 210.0])],
)
def test_elements_and_isotopes_have_the_bands_of_a_diatomic_chain(
    symbols: str, masses: list[float]
) -> None:
    atoms = rock_salt(symbols, masses)
    result = phonons(atoms, Springs(SPRING, SIDE), supercell=[3], delta=1e-4, mesh=10)
    assert sorted(result.phonopy.primitive.masses) == pytest.approx(masses)
    along = result.bands.labels.index(("Γ", "X"))
    q = result.bands.qpoints[along]
    x = np.linalg.norm(q @ np.linalg.inv(result.phonopy.primitive.cell).T, axis=1) * 2 * SIDE
    expected = diatomic_chain(masses, x)
    assert result.bands.frequencies[along] == pytest.approx(expected, abs=2e-3)
    assert result.highest == pytest.approx(terahertz(2 * SPRING * sum(1 / m for m in masses), 1.0))
    assert not result.doubts


def test_isotopes_change_the_classical_entropy_by_their_masses_alone() -> None:
    # At high temperature S rises by 3/2 k ln(m'/m) for each atom, however isotopes are arranged.
    entropies = []
    for factor in (1.001, 2.0):
        atoms = bulk("Cu", a=3.59, cubic=True)
        atoms.set_masses(atoms.get_masses() * [factor, 1, 1, 1])
        result = phonons(atoms, EMT(), supercell=[2], mesh=30, points=5, max_temperature=2000)
        assert result.bands.frequencies[0].shape[1] == 12
        assert result.n_displacements == 1  # forces know no masses
        entropies.append(result.thermal.entropy[-1])
    assert np.diff(entropies) == pytest.approx(1.5 * kB * np.log(2 / 1.001), rel=3e-3)


@pytest.mark.slow
def test_isotopes_at_gamma_vibrate_as_the_cell_does_by_itself() -> None:
    atoms = bulk("Cu", a=3.59, cubic=True)
    atoms.set_masses([63.5, 127.0, 70.0, 63.5])
    result = phonons(atoms, EMT(), supercell=[3], mesh=5, points=3)
    result.phonopy.run_qpoints([[0, 0, 0]])
    modes = vibrations(atoms, EMT()).frequencies * 2.99792458e-2  # THz for cm⁻¹
    assert result.phonopy.qpoints.frequencies[0][3:] == pytest.approx(modes, abs=2e-3)


def cells() -> dict[str, Atoms]:
    copper = bulk("Cu", a=3.59)
    left = copper.copy()
    left.set_cell(copper.cell.array[[1, 0, 2]])
    skewed = copper.copy()
    skewed.set_cell(np.array([[1, 0, 0], [3, 1, 0], [-2, 4, 1]]) @ copper.cell.array)
    skewed.wrap()
    turned = copper.copy()
    turned.rotate(40, (1, 2, 3), rotate_cell=True)
    moved = bulk("Cu", a=3.59, cubic=True)[[2, 0, 3, 1]]
    moved.positions += [50.0, -3.0, 0.4]
    return {"left": left, "skewed": skewed, "turned": turned, "cubic": moved}


@pytest.mark.parametrize(
    "name",
    ["left", "skewed", *(pytest.param(n, marks=pytest.mark.slow) for n in ("turned", "cubic"))],
)
def test_the_cell_that_describes_a_crystal_does_not_matter(name: str) -> None:
    atoms = cells()[name]
    options: dict[str, Any] = {"mesh": 20, "points": 11}
    plain = phonons(bulk("Cu", a=3.59), EMT(), supercell=[4], **options)
    result = phonons(atoms, EMT(), supercell=[2] if name == "cubic" else [4], **options)
    close = 0.01 if name == "cubic" else 1e-4  # another supercell
    assert result.highest == pytest.approx(8.138, abs=0.01)  # as published of this potential
    assert result.highest == pytest.approx(plain.highest, abs=close)
    assert result.bands.labels == plain.bands.labels
    assert result.thermal.free_energy[30] == pytest.approx(plain.thermal.free_energy[30], rel=5e-3)


def test_a_skewed_cell_gets_the_supercell_of_the_reduced_one() -> None:
    for name in ("left", "skewed"):
        matrix = supercell_matrix(right_handed(cells()[name]), None)
        assert round(np.linalg.det(matrix)) == 5**3


def test_diamond_of_keating_has_its_optical_mode() -> None:
    alpha, beta, side = 3.0, 0.8, 5.43
    result = phonons(bulk("Si", a=side), Keating(alpha, beta, side), supercell=[3], mesh=10)
    assert result.highest == pytest.approx(terahertz(8 * (alpha + beta), 28.085), rel=1e-4)
    assert not result.doubts


class Seeing(Calculator):
    """Springs whose stiffness depends on tags."""

    implemented_properties = ("energy", "forces")

    def calculate(
        self, atoms: Atoms | None = None, properties: tuple = (), changes: list = all_changes
    ) -> None:
        super().calculate(atoms, properties, changes)
        inner = Springs(1.0 + float(self.atoms.get_tags().mean()), SIDE)
        inner.calculate(self.atoms)
        self.results = inner.results


def test_calculators_see_the_tags_of_the_crystal_in_every_supercell() -> None:
    atoms = rock_salt("NaCl", [22.99, 35.45])
    atoms.set_tags([1, 1])
    result = phonons(atoms, Seeing(), supercell=[2], mesh=5, points=3)
    assert result.highest == pytest.approx(
        terahertz(2 * 2.0 * (1 / 22.99 + 1 / 35.45), 1.0), rel=1e-3
    )


def doubts(result: Phonons) -> str:
    return "; ".join(result.doubts)


def test_what_puts_frequencies_in_doubt_is_said() -> None:
    assert "the supercell is too small" in doubts(
        phonons(bulk("Cu", a=3.59), EMT(), supercell=[2], mesh=5)
    )
    assert not phonons(bulk("Cu", a=3.59), EMT(), mesh=5).doubts
    shaken = bulk("Cu", a=3.59, cubic=True)
    shaken.positions[0] += [0.02, 0, 0]
    assert "is not relaxed" in doubts(phonons(shaken, EMT(), supercell=[2], mesh=5))
    assert "imaginary modes" in doubts(phonons(bulk("Cu", a=4.4), EMT(), supercell=[4], mesh=10))


def test_what_is_no_free_crystal_is_refused() -> None:
    single = Atoms("Cu", cell=[2.5] * 3, pbc=True)
    with pytest.raises(InputError, match="has one atom, and moving it moves the whole crystal"):
        phonons(single, EMT(), supercell=[1])
    held = bulk("Cu", cubic=True)
    held.set_constraint(FixAtoms([0]))
    with pytest.raises(InputError, match=r"constraints \(FixAtoms\): remove them"):
        phonons(held, EMT())
    far = Atoms("Cu", cell=[12.0] * 3, pbc=True)
    with pytest.raises(InputError, match="no forces act between the atoms"):
        phonons(far, EMT(), supercell=[2])


def test_phonopy_reads_isotopes_from_the_files(tmp_path: Path) -> None:
    import phonopy

    atoms = bulk("Cu", a=3.59, cubic=True)
    atoms.set_masses([63.5, 127.0, 63.5, 63.5])
    result = phonons(atoms, EMT(), supercell=[2], mesh=5, points=3)
    write_phonons(result, tmp_path)
    loaded = phonopy.load(tmp_path / "phonopy_params.yaml", log_level=0)
    loaded.run_qpoints([[0.1, 0.2, 0.3]])
    result.phonopy.run_qpoints([[0.1, 0.2, 0.3]])
    expected = result.phonopy.qpoints.frequencies
    assert loaded.qpoints.frequencies == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("verb", ["phonons", "eos", "elastic"])
def test_left_handed_cells_and_constraints_on_the_command_line(
    verb: str, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(job, "calculators_for", lambda *_, **__: [("EMT", EMT())])
    write("left.traj", cells()["left"])
    quick = {"phonons": ["--supercell", "4", "--mesh", "10", "--points", "5", "--no-report"]}
    assert main([verb, "left.traj", *quick.get(verb, [])]) == 0
    said = {"phonons": "8.13", "eos": "bulk modulus 134.", "elastic": "bulk    134."}
    assert said[verb] in capsys.readouterr().out
    held = bulk("Cu", cubic=True)
    held.set_constraint(FixAtoms([0]))
    write("held.traj", held)
    assert main([verb, "held.traj"]) == 1
    assert "constraints (FixAtoms): remove them" in capsys.readouterr().err
    assert not Path(f"held-{verb}").exists()
