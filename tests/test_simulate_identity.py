"""A run is what is computed of what: place, device and notes do not count, all else does."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.lj import LennardJones
from ase.calculators.mixing import SumCalculator
from ase.constraints import FixAtoms, FixCartesian
from factories import random_potential

from jmp_md.calculators.ase import JMPCalculator
from jmp_md.errors import InputError
from jmp_md.simulate.identity import (
    identify_calculator,
    identify_structure,
    identify_structures,
    identity,
    require_same,
)


def water(**changes: Any) -> Atoms:
    atoms = molecule("H2O", vacuum=5.0)
    for name, value in changes.items():
        getattr(atoms, f"set_{name}")(value)
    return atoms


CHANGES: dict[str, dict[str, Any]] = {
    "masses": {"masses": [16.0, 2.014, 1.008]},
    "positions": {"positions": water().positions + 1e-6},
    "cell": {"cell": [10.0, 10.0, 10.001]},
    "pbc": {"pbc": [True, True, False]},
    "tags": {"tags": [1, 2, 2]},
    "formula": {"atomic_numbers": [16, 1, 1]},
    "constraints": {"constraint": FixAtoms([0])},
    "charges": {"initial_charges": [-1.0, 0.0, 0.0]},
}


@pytest.mark.parametrize("name", CHANGES)
def test_whatever_changes_the_physics_of_a_structure_is_named(name: str) -> None:
    saved = json.loads(json.dumps(identity(LennardJones(), {}, [water()])))
    require_same(saved, identity(LennardJones(), {}, [water()]), "run")
    with pytest.raises(InputError, match=rf"run as another one.*structures\.{name}"):
        require_same(saved, identity(LennardJones(), {}, [water(**CHANGES[name])]), "run")


def test_many_structures_are_who_they_are_whatever_computes_them() -> None:
    many = [water(), water(positions=water().positions + 1e-6)]
    known = identify_structures(many)
    assert known["number"] == 2
    assert known == identity(LennardJones(), {"fmax": 0.1}, many)["structures"]
    assert identify_structures(many[::-1])["positions"] != known["positions"]
    assert identify_structures(many[::-1])["elements"] == known["elements"]
    assert identify_structures(many[:1]) == {"number": 1, **identify_structure(many[0])}


def test_momenta_count_where_they_are_asked_for() -> None:
    moving = water(momenta=np.ones((3, 3)))
    assert identify_structure(water()) == identify_structure(moving)
    assert identify_structure(water(), momenta=True) != identify_structure(moving, momenta=True)


def test_constraints_with_other_directions_differ() -> None:
    one, other = (water(constraint=FixCartesian([0], mask=mask)) for mask in ((1, 0, 0), (0, 1, 0)))
    assert identify_structure(one) != identify_structure(other)


def test_a_model_is_its_weights_and_not_its_name_or_notes() -> None:
    model, other = random_potential(num_blocks=1), random_potential(num_blocks=1)
    other.embedding.weight[0, 0] += 1e-6
    own = identify_calculator(JMPCalculator(model, device="cpu"))
    renamed = random_potential(num_blocks=1)
    renamed.header = replace(renamed.header, name="copy", metrics={"note": 1}, licence="other")
    assert identify_calculator(JMPCalculator(renamed, device="cpu")) == own
    require_same({"model": own}, {"model": own}, "run")
    changed = identify_calculator(JMPCalculator(other, device="cpu"))
    with pytest.raises(InputError, match=r"model\.sha256"):
        require_same({"model": own}, {"model": changed}, "run")


def test_other_calculators_are_their_class_and_parameters() -> None:
    saved = identify_calculator(LennardJones(sigma=1.0))
    with pytest.raises(InputError, match=r"sigma: 1\.0, now 1\.1"):
        require_same(saved, identify_calculator(LennardJones(sigma=1.1)), "run")
    sums = [SumCalculator([LennardJones(sigma=s), LennardJones()]) for s in (1.0, 1.1)]
    assert identify_calculator(sums[0]) != identify_calculator(sums[1])


def test_settings_are_named_with_both_values() -> None:
    saved = identity(LennardJones(), {"fmax": 0.01, "steps": 3}, [water()])
    with pytest.raises(InputError, match=r"settings\.fmax: 0\.01, now 0\.02: give"):
        require_same(saved, identity(LennardJones(), {"fmax": 0.02, "steps": 3}, [water()]), "run")
    twice = identity(LennardJones(), {"fmax": 0.01, "steps": 3}, [water()] * 2)
    with pytest.raises(InputError, match="number of structures: 1, now 2"):
        require_same(saved, twice, "run")


def test_many_structures_take_a_few_lines_and_their_order_counts() -> None:
    first, second = water(), water(positions=water().positions + 0.1)
    saved = identity(LennardJones(), {}, [first, second] * 50)
    assert len(json.dumps(saved)) < 2000
    require_same(saved, identity(LennardJones(), {}, [first, second] * 50), "run")
    with pytest.raises(InputError, match=r"different: structures\.positions: give"):
        require_same(saved, identity(LennardJones(), {}, [second, first] * 50), "run")
