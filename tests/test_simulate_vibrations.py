"""Frequencies are ASE's, without rigid motion; thermochemistry is that of the textbook."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms, FixCom
from ase.optimize import BFGS
from ase.units import kB
from ase.vibrations import Vibrations as AseVibrations
from factories import random_potential

from jmp_md.calculators.ase import JMPCalculator
from jmp_md.errors import InputError
from jmp_md.simulate.thermochemistry import thermochemistry
from jmp_md.simulate.vibrations import vibrations


def relaxed(formula: str) -> Atoms:
    atoms = molecule(formula)
    atoms.calc = EMT()
    BFGS(atoms, logfile=None).run(fmax=1e-5)
    return atoms


def test_frequencies_are_those_of_ase(tmp_path: Path) -> None:
    atoms = relaxed("H2O")
    ours = vibrations(atoms, EMT())
    theirs = AseVibrations(atoms, name=str(tmp_path / "vib"))
    theirs.run()
    expected = theirs.get_frequencies().real
    assert len(ours.frequencies) == 3
    assert expected[-3:].min() > 100
    assert ours.frequencies == pytest.approx(np.sort(expected)[-3:], abs=0.5)
    assert ours.fmax < 1e-5


def test_a_batch_through_a_model_gives_what_single_structures_give() -> None:
    calculator = JMPCalculator(random_potential(), dtype="float64", device="cpu")
    atoms = molecule("H2O")
    batched = vibrations(atoms, calculator)

    class OneByOne(EMT):  # any other calculator is asked one structure at a time
        def calculate(self, atoms: Atoms, *args: object) -> None:
            super(EMT, self).calculate(atoms)
            forces = calculator.get_forces(atoms)
            self.results = {"energy": calculator.results["energy"], "forces": forces}

    single = vibrations(atoms, OneByOne())
    assert batched.frequencies == pytest.approx(single.frequencies, abs=1e-3)


def test_rigid_motion_stays_out_even_away_from_a_minimum() -> None:
    atoms = relaxed("N2")
    atoms.set_distance(0, 1, 1.6)
    atoms.rotate(40, (1, 2, 3))
    assert len(vibrations(atoms, EMT()).frequencies) == 1
    water = relaxed("H2O")
    water.rattle(0.05, seed=2)
    modes = vibrations(water, EMT())
    assert len(modes.frequencies) == 3
    assert sum(abs(modes.data.get_frequencies()) < 0.1) == 6


def test_the_sign_of_curvature_shows() -> None:
    atoms = relaxed("N2")
    atoms.set_distance(0, 1, 3.0)  # beyond the inflection of the bond
    assert vibrations(atoms, EMT()).frequencies[0] < -20


def test_fixed_atoms_do_not_vibrate() -> None:
    atoms = relaxed("H2O")
    atoms.set_constraint(FixAtoms([0]))
    modes = vibrations(atoms, EMT())
    assert len(modes.frequencies) == 6
    assert modes.data.get_indices().tolist() == [1, 2]
    atoms.set_constraint(FixCom())
    with pytest.raises(InputError, match="FixAtoms only"):
        vibrations(atoms, EMT())
    atoms.set_constraint(FixAtoms([0, 1, 2]))
    with pytest.raises(InputError, match="none can vibrate"):
        vibrations(atoms, EMT())
    with pytest.raises(InputError, match=r"delta 0.0 Å"):
        vibrations(atoms, EMT(), delta=0.0)


def test_an_ideal_diatomic_gas_has_the_textbook_heat() -> None:
    atoms = relaxed("N2")
    modes = vibrations(atoms, EMT())
    cold = thermochemistry(modes, temperature=10.0, symmetry_number=2)
    zero = modes.energy + cold.zero_point_energy
    assert cold.internal_energy == pytest.approx(zero + 2.5 * kB * 10)  # no vibration at 10 K
    assert cold.enthalpy == pytest.approx(zero + 3.5 * kB * 10)
    dense = thermochemistry(modes, temperature=10.0, pressure=2.0, symmetry_number=2)
    assert cold.entropy - dense.entropy == pytest.approx(kB * np.log(2), rel=1e-6)
    assert cold.gibbs_energy == pytest.approx(cold.enthalpy - 10 * cold.entropy)


def test_what_is_no_gas_or_no_minimum_is_refused() -> None:
    atoms = relaxed("N2")
    with pytest.raises(InputError, match="symmetry_number 0: must be 1 or more"):
        thermochemistry(vibrations(atoms, EMT()), symmetry_number=0)
    atoms.set_distance(0, 1, 3.0)
    with pytest.raises(InputError, match="not at a minimum"):
        thermochemistry(vibrations(atoms, EMT()))
    atoms.set_constraint(FixAtoms([0]))
    with pytest.raises(InputError, match="free molecules"):
        thermochemistry(vibrations(atoms, EMT()))
