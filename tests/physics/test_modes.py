"""Frequencies of molecules are those of analysis and of the literature, isotopes included."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from ase.io import write
from ase.optimize import BFGS
from springs import EV, Harmonic, Springs, per_cm

from jmp_md.cli import job
from jmp_md.cli.main import main
from jmp_md.simulate.vibrations import vibrations

NEWTON_PER_METRE = 1e-20 / EV  # eV/Å²
H, D, CL = 1.00782503, 2.01410178, 34.96885268


def stretch(stiffness: float, axis: np.ndarray) -> np.ndarray:
    """Hessian (6, 6) of a bond."""
    block = stiffness * np.outer(axis, axis)
    return np.block([[block, -block], [-block, block]])


@pytest.mark.parametrize(
    ("masses", "published"),
    [((H, CL), 2990.95), ((D, CL), 2145.16), ((H, 36.96590259), 2988.69)],
)
def test_hydrogen_chloride_and_its_isotopes_have_their_published_harmonic_frequencies(
    masses: tuple[float, float], published: float
) -> None:
    # Huber and Herzberg, Constants of Diatomic Molecules (1979); 516.3 N/m is that of H35Cl.
    axis = np.array([1.0, 2.0, 2.0]) / 3
    atoms = Atoms("HCl", [[0, 0, 0], 1.2746 * axis], masses=masses)
    stiffness = 516.3 * NEWTON_PER_METRE
    result = vibrations(atoms, Harmonic(atoms.positions, stretch(stiffness, axis)))
    reduced = masses[0] * masses[1] / sum(masses)
    assert result.frequencies == pytest.approx([per_cm(stiffness, reduced)], rel=1e-5)
    assert result.frequencies == pytest.approx([published], rel=4e-4)
    assert not result.doubts


@pytest.mark.parametrize("masses", [(15.9949, 12.0, 15.9949), (17.9992, 12.0, 15.9949)])
def test_a_linear_molecule_of_springs_has_the_frequencies_of_analysis(
    masses: tuple[float, float, float],
) -> None:
    along, across = 100.0, 3.6  # eV/Å²
    atoms = Atoms("OCO", [[-1.16, 0, 0], [0, 0, 0], [1.16, 0, 0]], masses=masses)
    bonds = np.array([[-1.0, 1.0, 0.0], [0.0, -1.0, 1.0]])
    bend = np.array([1.0, -2.0, 1.0])
    hessian = np.kron(along * bonds.T @ bonds, np.diag([1, 0, 0]))
    hessian += np.kron(across * np.outer(bend, bend), np.diag([0, 1, 1]))
    result = vibrations(atoms, Harmonic(atoms.positions, hessian))
    inverse = 1 / np.array(masses)
    bending = across * (bend**2 @ inverse)
    stretching = np.linalg.eigvalsh(along * (bonds * inverse) @ bonds.T)
    expected = [per_cm(value, 1.0) for value in (bending, bending, *stretching)]
    assert result.frequencies == pytest.approx(expected, rel=1e-5)
    shaken = atoms.copy()
    shaken.positions[1] += [0, 0.004, 0.003]  # what relaxation leaves of a linear molecule
    again = vibrations(shaken, Harmonic(atoms.positions, hessian))
    assert again.frequencies == pytest.approx(expected, rel=1e-4)


def test_frequencies_do_not_depend_on_the_frame_or_the_order_of_atoms() -> None:
    atoms = molecule("CH3OH")
    atoms.calc = EMT()
    BFGS(atoms, logfile=None).run(fmax=1e-5)
    atoms.set_masses([12.0, 17.999, 2.014, 1.008, 1.008, 2.014])
    expected = vibrations(atoms, EMT(), delta=1e-3).frequencies
    turned = atoms[[5, 0, 3, 1, 4, 2]]
    turned.rotate(77, (3, 1, 2))
    turned.translate([5, -3, 2])
    found = vibrations(turned, EMT(), delta=1e-3).frequencies
    assert found == pytest.approx(expected, abs=0.2)
    assert len(expected) == 12


def test_a_crystal_vibrates_at_gamma_without_its_translations() -> None:
    # Both sublattices of rock salt move against each other on two springs for each axis.
    side, stiffness = 2.8, 3.0
    atoms = bulk("NaCl", "rocksalt", a=2 * side)
    result = vibrations(atoms, Springs(stiffness, side))
    masses = atoms.get_masses()
    reduced = masses[0] * masses[1] / masses.sum()
    assert result.frequencies == pytest.approx([per_cm(2 * stiffness, reduced)] * 3, rel=1e-4)


def test_an_atom_between_walls_of_fixed_ones_has_the_frequency_of_its_springs() -> None:
    atoms = bulk("Po", "sc", a=3.0) * (2, 2, 2)
    atoms.set_constraint(FixAtoms(range(1, 8)))
    result = vibrations(atoms, Springs(2.0, 3.0))
    expected = per_cm(4.0, atoms.get_masses()[0])
    assert result.frequencies == pytest.approx([expected] * 3, rel=1e-4)


class Crooked(Calculator):
    """Forces that are no derivatives of an energy."""

    implemented_properties = ("energy", "forces")

    def calculate(
        self, atoms: Atoms | None = None, properties: tuple = (), changes: list = all_changes
    ) -> None:
        super().calculate(atoms, properties, changes)
        bond = self.atoms.positions[1] - self.atoms.positions[0]
        force = -5 * (bond - [1.1, 0, 0]) + np.cross([0, 0, 3.0], bond - [1.1, 0, 0])
        self.results = {"energy": 0.0, "forces": np.array([-force, force])}


def test_forces_that_are_no_derivatives_put_frequencies_in_doubt() -> None:
    result = vibrations(Atoms("N2", [[0, 0, 0], [1.1, 0, 0]]), Crooked())
    assert any("misses its transpose" in doubt for doubt in result.doubts)


@pytest.fixture
def emt(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(job, "calculators_for", lambda *_, **__: [("EMT", EMT())])
    return here


def results(folder: str) -> dict:
    return json.loads(Path(folder, "summary.json").read_text())["results"]


def test_no_free_energy_is_given_away_from_a_minimum(
    emt: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write("water.xyz", molecule("H2O"))
    assert main(["vibrations", "water.xyz", "--no-relax", "--thermo", "--output", "far"]) == 2
    out = capsys.readouterr().out
    assert "Gibbs" not in out
    assert "NO thermochemistry: the molecule is not at a minimum, it has forces of" in out
    assert results("far")["relaxed"] is False
    assert results("far")["thermochemistry_eV_K_bar"] is None
    assert len(results("far")["frequencies_per_cm"]) == 3
    assert results("far")["fmax_eV_per_A"] > 0.05
    assert main(["vibrations", "water.xyz", "--thermo", "--output", "near"]) == 0
    out = capsys.readouterr().out
    assert "nonlinear molecule with symmetry number 2 (found) and spin 0 (assumed)" in out
    assert results("near")["relaxed"] is True
    assert results("near")["thermochemistry_eV_K_bar"]["symmetry_number"] == 2


def test_imaginary_modes_leave_the_summary(emt: Path, capsys: pytest.CaptureFixture[str]) -> None:
    atoms = Atoms("Au3", [[-2.7, 0, 0], [0, 0, 0], [2.7, 0, 0]])  # a chain that wants to bend
    write("chain.xyz", atoms)
    assert main(["vibrations", "chain.xyz", "--thermo"]) == 2
    assert "NO thermochemistry" in capsys.readouterr().out
    found = results("chain-vibrations")
    assert found["frequencies_per_cm"][0] < 0
    assert found["relaxed"] is True
    assert found["thermochemistry_eV_K_bar"] is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--spin", "0.3"], "spin 0.3: give a multiple of 0.5"),
        (["--spin", "0.5"], "spin 0.5 does not go with 10 electrons: give 0 or 1"),
        (["--temperature", "0"], "temperature 0.0 K: must be positive"),
        (["--pressure", "-1"], "pressure -1.0 bar: must be positive"),
        (["--symmetry-number", "0"], "symmetry_number 0: must be 1 or more"),
    ],
)
def test_a_gas_that_cannot_be_meant_is_refused_before_any_work(
    here: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write("water.xyz", molecule("H2O"))
    assert main(["vibrations", "water.xyz", "--thermo", *options]) == 1
    assert message in capsys.readouterr().err
    assert not Path("water-vibrations").exists()
