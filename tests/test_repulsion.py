"""The repulsion of nuclei, against published numbers and by what physics asks of it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from factories import random_potential

from jmp_md.calculators.ase import JMPCalculator
from jmp_md.check.physics import force_gradient, size_consistency
from jmp_md.check.subject import Subject
from jmp_md.checkpoints.native import read_native, write_native
from jmp_md.export import export
from jmp_md.header import ModelHeader
from jmp_md.potential import Potential


def with_repulsion(reach: float | None = 0.9) -> Potential:
    """A random potential whose head carries the repulsion."""
    plain = random_potential()
    head = dataclasses.replace(plain.header.heads[0], repulsion=reach)
    header = dataclasses.replace(plain.header, heads=(head,))
    return Potential.from_state(header, plain.native_state(), dtype=torch.float64)


def energy(atoms: Atoms, potential: Potential) -> float:
    atoms = atoms.copy()
    atoms.calc = JMPCalculator(potential, dtype="float64")
    return float(atoms.get_potential_energy())


def known(symbol: str, distance: float, reach: float = 0.9) -> float:
    """eV that the repulsion adds to a diatomic."""
    atoms = Atoms([symbol, symbol], [[0, 0, 0], [distance, 0, 0]])
    return energy(atoms, with_repulsion(reach)) - energy(atoms, with_repulsion(None))


@pytest.mark.parametrize(
    ("symbol", "distance"), [("H", 0.05), ("C", 0.1), ("O", 0.2), ("Cu", 0.3), ("Au", 0.1)]
)
def test_energies_are_those_of_ziegler_biersack_and_littmark(symbol: str, distance: float) -> None:
    """Written down once more, in the atomic units of the book; the switch is wide open."""
    z = Atoms(symbol).numbers[0]
    bohr, hartree = 0.529177210903, 27.211386245988
    x = distance / bohr / (0.88534 / (2 * z**0.23))
    screening = (
        0.18175 * np.exp(-3.1998 * x)
        + 0.50986 * np.exp(-0.94229 * x)
        + 0.28022 * np.exp(-0.4029 * x)
        + 0.02817 * np.exp(-0.20162 * x)
    )
    expected = hartree * z * z / (distance / bohr) * screening
    assert known(symbol, distance, 1e3) == pytest.approx(expected, rel=2e-4)


def test_it_ends_inside_bonds_and_grows_without_limit() -> None:
    for name, reach in (("H2", 0.9), ("CH3CH2OH", 0.7)):
        atoms = molecule(name)
        assert energy(atoms, with_repulsion(reach)) == energy(atoms, with_repulsion(None))
    assert known("H", 0.3) > known("H", 0.4) > known("H", 0.5) > 0.0
    assert known("C", 0.1) > 1000.0


def test_forces_are_its_gradient_and_energies_extensive() -> None:
    squeezed = molecule("CH3CH2OH")
    squeezed.positions *= 0.6
    squeezed.rattle(0.05, seed=1)
    subject = Subject(squeezed, with_repulsion(), "float64", seed=0, steps=20)
    assert energy(squeezed, with_repulsion()) > energy(squeezed, with_repulsion(None)) + 1.0
    assert force_gradient(subject).measured == pytest.approx(0.0, abs=1e-4)
    assert size_consistency(subject).passed


def test_files_keep_it_and_older_files_have_none(tmp_path: Path) -> None:
    potential = with_repulsion()
    write_native(tmp_path / "new.safetensors", potential.header, potential.native_state())
    header, state = read_native(tmp_path / "new.safetensors")
    assert header.head().repulsion == 0.9
    squeezed = Atoms("N2", [[0, 0, 0], [0.6, 0, 0]])
    again = Potential.from_state(header, state)
    assert energy(squeezed, again) == energy(squeezed, potential)

    old = json.loads(potential.header.to_json()) | {"format_version": 1}
    del old["default_head"], old["heads"][0]["repulsion"]
    assert ModelHeader.from_json(json.dumps(old)).head().repulsion is None


def test_exported_files_have_it(tmp_path: Path) -> None:
    squeezed = Atoms("N2", [[0, 0, 0], [0.6, 0, 0]])
    potential = with_repulsion()
    path = tmp_path / "exported.pt"
    export(potential, path, dtype="float64")
    squeezed.calc = JMPCalculator(path, dtype="float64", trust=True)
    assert squeezed.get_potential_energy() == pytest.approx(energy(squeezed, potential), abs=1e-8)
