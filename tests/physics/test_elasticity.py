"""Elastic constants, volumes and bulk moduli are those of analysis and of published sums."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from scipy.optimize import brentq
from springs import ElasticBody, Keating, LennardJones, Springs

from jmp_md.errors import InputError
from jmp_md.simulate.elastic import elastic
from jmp_md.simulate.eos import eos

ALPHA, BETA, SIDE = 3.0, 0.8, 5.43
KEATING = {
    "C11": (ALPHA + 3 * BETA) / SIDE,
    "C12": (ALPHA - BETA) / SIDE,
    "C44": 4 * ALPHA * BETA / (ALPHA + BETA) / SIDE,
    "clamped C44": (ALPHA + BETA) / SIDE,
}


def keating() -> tuple[Atoms, Keating]:
    return bulk("Si", a=SIDE), Keating(ALPHA, BETA, SIDE)


def three(stiffness: np.ndarray) -> tuple[float, float, float]:
    return float(stiffness[0, 0]), float(stiffness[0, 1]), float(stiffness[3, 3])


def test_keatings_diamond_has_its_constants_with_ions_relaxed_and_clamped() -> None:
    atoms, calculator = keating()
    free = elastic(atoms, calculator, strain=1e-3, fmax=1e-5)
    expected = KEATING["C11"], KEATING["C12"], KEATING["C44"]
    assert three(free.stiffness) == pytest.approx(expected, rel=2e-3)
    assert not free.doubts
    held = elastic(atoms, calculator, strain=1e-3, clamped=True)
    expected = KEATING["C11"], KEATING["C12"], KEATING["clamped C44"]
    assert three(held.stiffness) == pytest.approx(expected, rel=2e-3)
    assert free.asymmetry < 1e-3


@pytest.mark.slow
def test_left_handed_skewed_and_large_cells_have_the_same_constants() -> None:
    atoms, calculator = keating()
    left, skewed = atoms.copy(), atoms.copy()
    left.set_cell(atoms.cell.array[[1, 0, 2]])
    skewed.set_cell(np.array([[1, 0, 0], [2, 1, 0], [0, -3, 1]]) @ atoms.cell.array)
    options: dict[str, Any] = {"strain": 1e-3, "points": 3, "fmax": 1e-5}
    expected = KEATING["C11"], KEATING["C12"], KEATING["C44"]
    for cell in (left, skewed, atoms * (1, 2, 1)):
        assert three(elastic(cell, calculator, **options).stiffness) == pytest.approx(
            expected, rel=2e-3
        )


def lennard_jones(n_shells: int) -> tuple[Atoms, LennardJones, np.ndarray]:
    """A face-centred crystal at zero pressure, its cutoff between shells, and its neighbours."""
    epsilon, sigma = 0.0104, 3.4
    grid = np.array(np.meshgrid(*[range(-9, 10)] * 3)).reshape(3, -1).T
    sites = grid[(grid.sum(axis=1) % 2 == 0) & (grid**2).sum(axis=1).astype(bool)] / 2
    square = (sites**2).sum(axis=1)
    near = sites[square < (n_shells + 0.5) / 2]
    calculator = LennardJones(epsilon, sigma, 1.0)

    def virial(a: float) -> float:
        r = a * np.linalg.norm(near, axis=1)
        return float((calculator.pair(r)[1] * r).sum())

    a = brentq(virial, 1.3 * sigma, 1.8 * sigma)
    calculator.cutoff = a * np.sqrt((n_shells + 0.5) / 2)
    return bulk("Ar", a=a), calculator, a * near


def test_a_lennard_jones_crystal_has_the_constants_of_its_lattice_sums() -> None:
    # Born and Huang: C_ijkl = 1/(2 V) sum (phi'' - phi'/r) x_i x_j x_k x_l / r², at zero stress
    atoms, calculator, vectors = lennard_jones(2)
    r = np.linalg.norm(vectors, axis=1)
    _, slope, curvature = calculator.pair(r)
    weight = (curvature - slope / r) / r**2 / (2 * atoms.cell.volume)
    squares = vectors**2
    expected_11 = float((weight * squares[:, 0] ** 2).sum())
    expected_12 = float((weight * squares[:, 0] * squares[:, 1]).sum())
    result = elastic(atoms, calculator, strain=2e-3, fmax=1e-5)
    assert three(result.stiffness) == pytest.approx(
        (expected_11, expected_12, expected_12), rel=3e-3
    )
    assert not result.doubts
    modulus = (expected_11 + 2 * expected_12) / 3
    assert eos(atoms, calculator, strain=0.02).bulk_modulus == pytest.approx(modulus, rel=2e-3)
    assert result.hill.bulk == pytest.approx(modulus, rel=3e-3)


@pytest.mark.parametrize("form", ["birchmurnaghan", pytest.param("vinet", marks=pytest.mark.slow)])
def test_the_lennard_jones_crystal_has_its_published_volume_and_modulus(form: str) -> None:
    # Lattice sums of face-centred crystals, Kittel: 12.13188 and 14.45392. Of E = a V^-4 - b V^-2
    # B V is 8 |E| at the minimum, and the derivative of B with pressure 8.
    calculator = LennardJones(0.0104, 3.4, 6 * 3.4)
    nearest = (2 * 12.13188 / 14.45392) ** (1 / 6) * 3.4
    depth = 0.0104 * 14.45392**2 / (2 * 12.13188)
    atoms = bulk("Ar", a=np.sqrt(2) * nearest)
    result = eos(atoms, calculator, form=form, strain=0.03, points=7, clamped=True)
    volume = nearest**3 / np.sqrt(2)
    assert result.volume == pytest.approx(volume, rel=3e-3)
    assert result.bulk_modulus == pytest.approx(8 * depth / volume, rel=2e-2)
    assert result.derivative == pytest.approx(8, abs=0.4)
    assert not result.doubts
    assert result.uneven < 1e-6


def test_keatings_diamond_has_its_bulk_modulus() -> None:
    result = eos(*keating(), strain=0.01)
    assert result.bulk_modulus == pytest.approx((3 * ALPHA + BETA) / (3 * SIDE), rel=1e-3)
    assert result.volume == pytest.approx(SIDE**3 / 4, rel=1e-4)


CUBE = np.eye(3) * 4.0
ISOTROPIC = np.diag([1.0, 1, 1, 0.3, 0.3, 0.3]) + np.pad(np.full((3, 3), 0.4), (0, 3))


def layered() -> np.ndarray:
    """Stiff in the plane, soft across: bulk modulus 0.64 by Voigt and 0.05 by Reuss."""
    stiffness = np.diag([2.0, 2.0, 0.05, 0.05, 0.05, 0.7])
    stiffness[0, 1] = stiffness[1, 0] = 0.85
    return stiffness


def box() -> Atoms:
    return Atoms("Cu", cell=CUBE, pbc=True)


def test_constants_of_any_body_come_back() -> None:
    rng = np.random.default_rng(3)
    noise = rng.normal(0, 0.05, (6, 6))
    stiffness = ISOTROPIC + noise @ noise.T
    body = ElasticBody(stiffness, CUBE, np.zeros(6))
    result = elastic(box(), body, clamped=True)
    assert result.stiffness == pytest.approx(stiffness, abs=1e-9)
    assert not result.doubts


def test_a_fixed_shape_does_not_pass_for_a_free_one() -> None:
    body = ElasticBody(layered(), CUBE, np.zeros(6))
    constants = elastic(box(), body, clamped=True)
    result = eos(box(), body, strain=0.01, clamped=True)
    assert result.bulk_modulus == pytest.approx(constants.voigt.bulk, rel=0.02)
    assert constants.reuss.bulk < 0.1 * constants.voigt.bulk
    assert any("the bulk modulus is that of a fixed shape" in doubt for doubt in result.doubts)


class Rough(Calculator):
    """Copper whose energies and stresses are off by steps, as of neighbours that come and go."""

    implemented_properties = ("energy", "forces", "stress")

    def calculate(
        self, atoms: Atoms | None = None, properties: tuple = (), changes: list = all_changes
    ) -> None:
        super().calculate(atoms, properties, changes)
        inner = EMT()
        inner.calculate(self.atoms, list(self.implemented_properties), all_changes)
        step = np.sign(np.sin(1e4 * self.atoms.cell.array.sum()))
        self.results = dict(inner.results)
        self.results["energy"] += 0.003 * step
        self.results["stress"] = inner.results["stress"] + 0.003 * step


class Curve(Calculator):
    """Energies as a function of volume."""

    implemented_properties = ("energy", "forces")

    def __init__(self, volumes: tuple, energies: tuple) -> None:
        super().__init__()
        self.curve = np.polynomial.Polynomial.fit(volumes, energies, len(volumes) - 1)

    def calculate(
        self, atoms: Atoms | None = None, properties: tuple = (), changes: list = all_changes
    ) -> None:
        super().calculate(atoms, properties, changes)
        energy = float(self.curve(self.atoms.cell.volume / 64))
        self.results = {"energy": energy, "forces": np.zeros((len(self.atoms), 3))}


def test_what_puts_a_bulk_modulus_in_doubt_is_said() -> None:
    copper = bulk("Cu", a=3.59)
    assert not eos(copper, EMT()).doubts
    rough = " ".join(eos(copper, Rough(), strain=0.03, clamped=True).doubts)
    assert "the fit misses the energies" in rough
    assert "the bulk modulus is uncertain by" in rough
    outside = " ".join(eos(bulk("Cu", a=3.75), EMT(), strain=0.03).doubts)
    assert "the minimum is not between the volumes" in outside
    x = np.array([0.94, 0.97, 1.0, 1.03, 1.06])
    stiffening = Curve(tuple(x), tuple(30 * (x - 1) ** 2 + 60 * (x - 1) ** 3))
    result = eos(box(), stiffening, clamped=True)
    assert result.derivative < 0
    assert any("has a derivative of -" in doubt for doubt in result.doubts)
    assert np.isnan(result.uneven)


def test_what_puts_elastic_constants_in_doubt_is_said() -> None:
    copper = bulk("Cu", a=3.59, cubic=True)
    assert not elastic(copper, EMT(), points=3).doubts
    rough = " ".join(elastic(copper, Rough(), clamped=True).doubts)
    assert "is no straight line" in rough
    shear = ElasticBody(ISOTROPIC, CUBE, np.array([0.1, -0.1, 0, 0, 0, 0]))
    result = elastic(box(), shear, clamped=True)
    assert result.pressure == pytest.approx(0, abs=1e-12)  # which alone would not show it
    assert any("a stress of 16.02 GPa is left" in doubt for doubt in result.doubts)
    crooked = ISOTROPIC.copy()
    crooked[0, 1] += 0.3
    result = elastic(box(), ElasticBody(crooked, CUBE, np.zeros(6)), clamped=True)
    assert any("differ from their transpose" in doubt for doubt in result.doubts)
    shaken = copper.copy()
    shaken.positions[0] += [0.1, 0, 0]
    result = elastic(shaken, EMT(), clamped=True, points=3)
    assert any("ions are clamped" in doubt for doubt in result.doubts)


def test_a_lattice_without_shear_is_unstable() -> None:
    cube = bulk("Po", "sc", a=3.0)
    result = elastic(cube, Springs(2.0, 3.0), clamped=True, strain=1e-3)
    assert result.stiffness[0, 0] == pytest.approx(2.0 / 3.0, rel=5e-3)
    pushed = ElasticBody(np.diag([1.0, 1, 1, 0.3, 0.3, -0.1]), CUBE, np.zeros(6))
    result = elastic(box(), pushed, clamped=True)
    assert not result.stable
    assert any("a strain lowers the energy" in doubt for doubt in result.doubts)


def test_held_atoms_are_refused() -> None:
    held = bulk("Cu", cubic=True)
    held.set_constraint(FixAtoms([1, 2]))
    for verb in (eos, elastic):
        with pytest.raises(InputError, match=r"constraints \(FixAtoms\): remove them"):
            verb(held, EMT())
