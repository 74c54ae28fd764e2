"""Entropies and heats of published molecules, from measured geometries and fundamentals."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from scipy import constants
from springs import with_frequencies

from jmp_md.errors import InputError
from jmp_md.simulate.rotations import symmetry_number
from jmp_md.simulate.thermochemistry import Thermochemistry, thermochemistry
from jmp_md.simulate.vibrations import vibrations

JOULE_PER_MOL = constants.e * constants.N_A  # of an eV


def bent(symbols: str, length: float, angle: float) -> Atoms:
    half = np.radians(angle / 2)
    side, down = length * np.sin(half), length * np.cos(half)
    return Atoms(symbols, [[0, 0, 0], [side, 0, down], [-side, 0, down]])


def line(symbols: str, *places: float) -> Atoms:
    return Atoms(symbols, [[0, 0, z] for z in places])


def ammonia() -> Atoms:
    length, angle = 1.0124, np.radians(106.67)
    radius = 2 * length * np.sin(angle / 2) / np.sqrt(3)
    turns = 2 * np.pi * np.arange(3) / 3
    down = np.sqrt(length**2 - radius**2)
    hydrogens = [[radius * np.cos(t), radius * np.sin(t), -down] for t in turns]
    return Atoms("NH3", [[0, 0, 0], *hydrogens])


def methane() -> Atoms:
    corners = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) / np.sqrt(3)
    return Atoms("CH4", [[0, 0, 0], *(1.0870 * corners)])


# Geometries and fundamentals in cm⁻¹: NIST CCCBDB; entropy in J/mol/K and H(298.15) - H(0) in
# kJ/mol at 1 bar: CODATA key values (Cox, Wagman and Medvedev 1989), ethene: NIST WebBook.
GASES = {
    "N2": (line("N2", 0, 1.0977), [2330], 191.609, 8.670, 2, 0.0),
    "O2": (line("O2", 0, 1.2075), [1556], 205.152, 8.680, 2, 1.0),
    "CO": (line("CO", 0, 1.1283), [2143], 197.660, 8.671, 1, 0.0),
    "HCl": (line("HCl", 0, 1.2746), [2886], 186.902, 8.640, 1, 0.0),
    "CO2": (line("OCO", -1.162, 0, 1.162), [667, 667, 1333, 2349], 213.785, 9.365, 2, 0.0),
    "H2O": (bent("OH2", 0.9578, 104.48), [1595, 3657, 3756], 188.835, 9.905, 2, 0.0),
    "NH3": (ammonia(), [950, 1627, 1627, 3337, 3444, 3444], 192.77, 10.043, 3, 0.0),
    "CH4": (
        methane(),
        [1306] * 3 + [1534] * 2 + [2917] + [3019] * 3,
        186.25,
        10.016,
        12,
        0.0,
    ),
    "Ar": (Atoms("Ar"), [], 154.846, 6.197, 1, 0.0),
}


def gas(name: str, **options: float) -> Thermochemistry:
    atoms, wavenumbers = GASES[name][:2]
    modes = vibrations(atoms, with_frequencies(atoms, wavenumbers))
    assert modes.frequencies == pytest.approx(sorted(wavenumbers), abs=0.1)
    return thermochemistry(modes, **options)


@pytest.mark.parametrize("name", GASES)
def test_entropy_and_heat_are_those_published(name: str) -> None:
    _, wavenumbers, entropy, heat, sigma, spin = GASES[name]
    result = gas(name, **({"spin": spin} if spin else {}))
    assert result.symmetry_number == sigma
    assert result.spin == spin
    assert result.entropy * JOULE_PER_MOL == pytest.approx(entropy, abs=0.25)
    zero = result.zero_point_energy
    assert (result.enthalpy - zero) * JOULE_PER_MOL / 1000 == pytest.approx(heat, abs=0.045)
    quanta = constants.h * constants.c * 100 * sum(wavenumbers) / 2 / constants.e
    assert zero == pytest.approx(quanta, rel=1e-4)
    assert result.gibbs_energy == pytest.approx(result.enthalpy - 298.15 * result.entropy)


def test_what_a_wrong_symmetry_number_or_spin_would_cost_is_not_given_away() -> None:
    kilo = JOULE_PER_MOL
    found = gas("CH4")
    assert (gas("CH4", symmetry_number=1).entropy - found.entropy) * kilo == pytest.approx(
        constants.R * np.log(12)
    )
    assert (gas("O2", spin=1.0).entropy - gas("O2").entropy) * kilo == pytest.approx(
        constants.R * np.log(3)
    )
    radical = molecule("CH3")
    modes = vibrations(radical, with_frequencies(radical, [606, 1396, 1396, 3004, 3161, 3161]))
    result = thermochemistry(modes)
    assert result.spin == 0.5
    assert result.symmetry_number == 6
    assert result.entropy * kilo == pytest.approx(194.2, abs=0.6)  # NIST-JANAF
    with pytest.raises(InputError, match=r"spin 0.0 does not go with 9 electrons: give 0.5 or 1.5"):
        thermochemistry(modes, spin=0.0)


def test_magnetic_moments_tell_the_spin_where_electrons_allow_it() -> None:
    oxygen, wavenumbers = GASES["O2"][:2]
    oxygen = oxygen.copy()
    oxygen.set_initial_magnetic_moments([1.0, 1.0])
    result = thermochemistry(vibrations(oxygen, with_frequencies(oxygen, wavenumbers)))
    assert result.spin == 1.0
    assert result.entropy * JOULE_PER_MOL == pytest.approx(205.152, abs=0.25)
    oxygen.set_initial_magnetic_moments([1.0, 0.0])  # no state of 16 electrons
    assert thermochemistry(vibrations(oxygen, with_frequencies(oxygen, wavenumbers))).spin == 0.0


def test_temperatures_of_no_classical_gas_are_refused() -> None:
    hydrogen = line("H2", 0, 0.7414)
    modes = vibrations(hydrogen, with_frequencies(hydrogen, [4161]))
    # Published: the constant of rotation of H2 is 60.85 cm-1, 87.5 K.
    with pytest.raises(InputError, match=r"below 87\.\d K the rotations"):
        thermochemistry(modes, temperature=80.0)
    assert thermochemistry(modes, temperature=298.15).entropy > 0
    argon = Atoms("Ar")
    with pytest.raises(InputError, match="the entropy of a classical gas is negative"):
        thermochemistry(vibrations(argon, with_frequencies(argon, [])), temperature=1e-3)


def test_ions_have_the_spin_of_their_electrons() -> None:
    atoms = line("N2", 0, 1.116)
    atoms.info["charge"] = 1
    modes = vibrations(atoms, with_frequencies(atoms, [2207]))
    assert thermochemistry(modes).spin == 0.5


@pytest.mark.parametrize(
    ("name", "sigma"),
    [
        ("H2O2", 2),
        ("C2H6", 6),
        ("C2H4", 4),
        ("C6H6", 12),
        ("C2H2", 2),
        ("HCN", 1),
        ("BF3", 6),
        ("CH3Cl", 3),
        ("CH3OH", 1),
        ("C3H4_D2d", 4),
        ("isobutane", 3),
        ("trans-butane", 2),
        ("CCl4", 12),
        ("C60", 60),
    ],
)
def test_symmetry_numbers_are_those_of_the_point_groups(name: str, sigma: int) -> None:
    atoms = molecule(name)
    atoms.rotate(33, (1, 2, 3))
    atoms.rattle(0.003, seed=1)
    assert symmetry_number(atoms) == sigma


def test_octahedra_have_24_rotations_and_isotopes_lower_the_number() -> None:
    ligands = [1.56 * sign * axis for axis in np.eye(3) for sign in (1, -1)]
    assert symmetry_number(Atoms("SF6", [np.zeros(3), *ligands])) == 24
    atoms = methane()
    atoms.set_masses([12.0, 2.014, 1.008, 1.008, 1.008])
    assert symmetry_number(atoms) == 3
    heavy = line("N2", 0, 1.1)
    heavy.set_masses([14.003, 15.0])
    assert symmetry_number(heavy) == 1


def test_a_molecule_that_is_neither_clearly_one_nor_the_other_is_asked_about() -> None:
    atoms = bent("OH2", 0.9578, 104.48)
    atoms.positions[1] *= 1.1
    modes = vibrations(atoms, with_frequencies(atoms, [1595, 3657, 3756]))
    with pytest.raises(InputError, match="the symmetry number is 1, but 2 where atoms may miss"):
        thermochemistry(modes)
    assert thermochemistry(modes, symmetry_number=1).symmetry_number == 1
    nearly = bent("OCO", 1.16, 176)
    nearly = Atoms("COO", nearly.positions)
    modes = vibrations(nearly, with_frequencies(nearly, [600, 1333, 2349]))
    with pytest.raises(InputError, match=r"neither linear nor clearly bent, atoms lie 0.0"):
        thermochemistry(modes)
