"""Relaxing many structures in batches ends where ASE ends, and a bad one harms no other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from factories import random_potential

from jmp_md.calculators.ase import JMPCalculator
from jmp_md.errors import InputError
from jmp_md.simulate.options import RelaxOptions
from jmp_md.simulate.relax import RelaxResult, relax, relax_batched
from jmp_md.simulate.relax.state import RelaxState


@pytest.fixture(scope="module")
def calculator() -> JMPCalculator:
    return JMPCalculator(random_potential(), dtype="float64", device="cpu")


def shaken(*formulas: str) -> list[Atoms]:
    structures = [molecule(formula) for formula in formulas]
    for i, atoms in enumerate(structures):
        atoms.rattle(0.1, seed=i)
    return structures


@pytest.mark.parametrize("optimizer", ["LBFGS", "FIRE"])
def test_the_ends_are_those_of_ase(calculator: JMPCalculator, optimizer: str) -> None:
    structures = shaken("H2O", "CH3", "H2O", "CO2")
    ends = relax_batched(structures, calculator, optimizer=optimizer, fmax=0.006, batch_size=2)
    for atoms, end in zip(structures, ends, strict=True):
        atoms.calc = calculator
        alone = relax(atoms, optimizer=optimizer, fmax=0.006)
        assert end.converged == alone.converged
        assert end.steps == alone.steps
        assert end.energy == pytest.approx(alone.energy, abs=1e-6)
        assert end.fmax == pytest.approx(alone.fmax, abs=1e-6)
        assert end.atoms.positions == pytest.approx(alone.atoms.positions, abs=1e-5)
        assert end.atoms.get_potential_energy() == end.energy
    assert max(end.steps for end in ends) > 2


def test_a_bad_structure_is_reported_and_the_rest_finish(calculator: JMPCalculator) -> None:
    water, other = shaken("H2O", "H2O")
    broken = water.copy()
    broken.positions[0, 0] = np.nan
    fused = water.copy()
    fused.positions[1] = fused.positions[0]
    seen: dict[int, RelaxResult] = {}
    ends = relax_batched(
        iter([broken, water, fused, other]),
        calculator,
        fmax=0.01,
        batch_size=2,
        progress=seen.__setitem__,
    )
    assert [end.error is None for end in ends] == [False, True, False, True]
    assert [end.converged for end in ends] == [False, True, False, True]
    assert "not finite" in str(ends[0].error)
    assert np.isnan(ends[2].energy)
    assert set(seen) == {0, 1, 2, 3}
    assert seen[1] is ends[1]


def test_constraints_hold_and_steps_end(calculator: JMPCalculator) -> None:
    [atoms] = shaken("H2O")
    atoms.set_constraint(FixAtoms([0]))
    [end] = relax_batched([atoms], calculator, fmax=1e-9, steps=2)
    assert not end.converged
    assert end.steps == 2
    assert np.array_equal(end.atoms.positions[0], atoms.positions[0])
    assert not np.array_equal(end.atoms.positions[1], atoms.positions[1])


def test_a_stopped_run_continues_and_does_nothing_twice(
    calculator: JMPCalculator, tmp_path: Path
) -> None:
    structures = [*shaken("H2O", "CO2", "H2O", "CH3"), Atoms("H", [[np.nan, 0, 0]])]
    options = RelaxOptions(fmax=0.01)
    whole = relax_batched(structures, calculator, options, batch_size=2)
    seen: list[int] = []

    def stop(index: int, end: RelaxResult) -> None:
        seen.append(index)
        if len(seen) == 3:
            raise KeyboardInterrupt

    def run(restart: bool, **around: Any) -> list[RelaxResult]:
        with RelaxState(tmp_path, calculator, options, restart) as state:
            return relax_batched(
                structures, calculator, options, batch_size=2, record=state, **around
            )

    with pytest.raises(KeyboardInterrupt):
        run(False, progress=stop)
    again: set[int] = set()
    ends = run(True, observer=lambda now: again.add(now.index))
    assert again.isdisjoint(seen)
    assert set(seen) | again >= {0, 1, 2, 3}
    for end, alone in zip(ends[:4], whole[:4], strict=True):
        assert end.fmax <= 0.01
        assert end.energy == pytest.approx(alone.energy, abs=1e-3)
        assert end.atoms.get_forces().shape == alone.atoms.positions.shape
    assert "not finite" in str(ends[4].error)
    with pytest.raises(InputError, match="holds a run"):
        run(False)
    other = options.changed({"fmax": 0.02})
    with (
        pytest.raises(InputError, match=r"fmax: 0.01, now 0.02"),
        RelaxState(tmp_path, calculator, other, restart=True),
    ):
        pass
    structures[0] = molecule("CO2")
    with pytest.raises(
        InputError, match=r"\(structure 0\) as another one.*formula: 'H2O', now 'CO2'"
    ):
        run(True)


def test_what_cannot_be_meant_is_refused(calculator: JMPCalculator) -> None:
    with pytest.raises(InputError, match="on_error 'ignore': choose keep or raise"):
        relax_batched([], calculator, on_error="ignore")
    direct = JMPCalculator(random_potential(direct=True), forces="direct", device="cpu")
    plain = Calculator()
    plain.implemented_properties = ["energy", "forces"]
    for none in (direct, plain):
        with pytest.raises(InputError, match="gives no stress, by which a cell relaxes"):
            relax_batched([], none, relax_cell=True)
    with pytest.raises(InputError, match="batch_size 0"):
        relax_batched([], calculator, batch_size=0)
    assert relax_batched([], calculator) == []


class Shared(EMT):
    """Whenever forces were asked for, another thread computes a structure of its own."""

    def get_property(self, name: str, atoms: Atoms, allow_calculation: bool = True) -> Any:
        value = super().get_property(name, atoms, allow_calculation)
        if name == "forces":
            other = bulk("Cu", a=3.3)
            self.calculate(other, ["energy", "forces", "stress"], all_changes)
        return value


def test_energy_and_stress_belong_to_the_forces_where_a_calculator_is_shared() -> None:
    atoms = bulk("Cu", a=3.8) * (2, 1, 1)
    atoms.rattle(0.05, seed=1)
    [alone], [shared] = (
        relax_batched([atoms], calculator, relax_cell=True, fmax=1e-3)
        for calculator in (EMT(), Shared())
    )
    assert shared.converged
    assert shared.energy == pytest.approx(alone.energy, abs=1e-9)
    assert shared.energy_change == pytest.approx(alone.energy_change, abs=1e-9)
    assert shared.atoms.get_stress() == pytest.approx(alone.atoms.get_stress(), abs=1e-9)
