"""Every ensemble samples what statistical mechanics says, whatever is held, for one and for many.

Runs are many copies in one row, as replicas are; bounds are 4.5 standard errors of the mean over
copies, which are independent. Copies start from a canonical sample, drawn by Langevin dynamics that
is itself compared with analysis, so that no ergodicity is needed: every ensemble has to keep it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from analytic import Analytic, Free, LennardJones, Quartic, Run, Wells, copies
from ase import Atoms, units
from ase.build import molecule
from ase.constraints import (
    FixAtoms,
    FixBondLengths,
    FixCartesian,
    FixedLine,
    FixedPlane,
    FixScaled,
)

from jmp_md.simulate.md import initial_conditions as start
from jmp_md.simulate.md.constraints import Constraints
from jmp_md.simulate.md.integrators import Integrator
from jmp_md.simulate.md.options import MDOptions

KT = units.kB * 300
SIGMAS = 4.5


def require_mean(samples: np.ndarray, expected: float) -> None:
    """Refuse a mean over copies (n_copies,) that differs by more than its error allows."""
    error = samples.std(ddof=1) / np.sqrt(len(samples))
    assert abs(samples.mean() - expected) < SIGMAS * error, (samples.mean(), error, expected)


def row(count: int, constraint: Any = None, masses: Any = None) -> Atoms:
    atoms = Atoms(f"Ar{count}", 3.0 * np.arange(3.0 * count).reshape(count, 3), cell=[9, 10, 11])
    atoms.cell[1, 0] = 3.0
    atoms.set_constraint(constraint)
    if masses is not None:
        atoms.set_masses(masses)
    return atoms


PLANE_AND_LINE = [FixedPlane(0, (1, 1, 0)), FixedLine(1, (0, 1, 2))]
# Structure, whether drift is removed, and degrees of freedom counted by hand.
CASES: dict[str, tuple[Callable[[], Atoms], bool, int]] = {
    "drift removed": (lambda: row(4), True, 9),
    "drift kept": (lambda: row(4), False, 12),
    "isotopes": (lambda: row(3, masses=[10, 20, 40]), True, 6),
    "one atom": (lambda: row(1), True, 3),
    "two atoms": (lambda: row(2), True, 3),
    "slab": (lambda: row(5, FixAtoms([0, 1, 2])), True, 6),
    "components": (lambda: row(3, FixCartesian([0, 2], (True, False, True))), True, 5),
    "plane and line": (
        lambda: row(3, [FixedPlane(0, (1, 1, 0)), FixedLine(1, (0, 1, 2))]),
        True,
        6,
    ),
    "scaled": (lambda: row(2, FixScaled([0], (True, False, True))), True, 4),
}


@pytest.mark.parametrize("case", CASES)
def test_temperature_fluctuation_and_conserved_energy(case: str) -> None:
    make, remove_drift, freedom = CASES[case]
    atoms = make()
    forces = Quartic(atoms.positions.copy())
    options: dict[str, Any] = {"timestep": 4.0, "tdamp": 100.0, "remove_drift": remove_drift}
    run = Run(atoms, forces, 400, ensemble="nvt-langevin", **(options | {"tdamp": 30.0}))
    run.steps(100)
    sample = run.state.arrays()
    for ensemble in ("nve", "nvt-langevin", "nvt-bussi", "nvt-nose-hoover"):
        run.restart(MDOptions(ensemble=ensemble, **options), sample)
        assert (run.state.constraints.freedom == freedom).all()
        before, seen = run.conserved(), []
        for _ in range(6):
            run.steps(10)
            seen.append(run.temperature())
        seen = np.array(seen) / 300.0
        require_mean(seen.mean(axis=0), 1.0)
        require_mean(((seen - 1.0) ** 2).mean(axis=0), 2.0 / freedom)
        change = run.conserved() - before
        assert np.sqrt(np.mean(change**2)) < 0.002, ensemble
        held = run.state.positions - np.tile(atoms.positions, (400, 1))
        require_held(case, held.reshape(400, -1, 3), atoms)


def require_held(case: str, moved: np.ndarray, atoms: Atoms) -> None:
    """Refuse atoms (n_copies, n_atoms, 3) that moved where they may not."""
    assert abs(moved).max() > 0.05
    if case == "slab":
        assert not moved[:, :3].any()
    elif case == "components":
        assert not moved[:, [0, 2]][..., [0, 2]].any()
    elif case == "plane and line":
        assert abs(moved[:, 0] @ [1, 1, 0]).max() < 1e-12
        assert abs(np.cross(moved[:, 1], [0, 1, 2])).max() < 1e-12
    elif case == "scaled":
        fractions = moved[:, 0] @ np.linalg.inv(atoms.cell.array)
        assert abs(fractions[:, [0, 2]]).max() < 1e-12
    elif case == "drift removed":
        assert abs(moved.mean(axis=1)).max() < 1e-12


def test_bonds_that_follow_from_others_take_no_freedom() -> None:
    methane = molecule("CH4")
    every = [(i, j) for i in range(5) for j in range(i)]  # ten lengths hold a body of 15 - 9
    for pairs, freedom in (([(0, 1), (1, 0)], 14), (every, 6), (every[:9], 6)):
        methane.set_constraint(FixBondLengths(pairs))
        assert Constraints([methane], remove_drift=False).freedom.tolist() == [freedom]
    methane.set_constraint([FixBondLengths([(0, 1)]), FixBondLengths([(0, 1), (0, 2)])])
    assert Constraints([methane], remove_drift=False).freedom.tolist() == [13]


@pytest.mark.parametrize("ensemble", ["nve", "nvt-langevin", "nvt-bussi", "nvt-nose-hoover"])
def test_bonds_of_fixed_length_hold_and_share_the_temperature(ensemble: str) -> None:
    atoms = row(3, FixBondLengths([(0, 1), (1, 2)]), masses=[1, 16, 2])
    forces = Quartic(atoms.positions.copy())
    drawn = Run(atoms, forces, 300)
    assert (drawn.state.constraints.freedom == 7).all()
    require_mean(drawn.temperature(), 300.0)
    run = Run(atoms, forces, 8, ensemble=ensemble, timestep=1.0)
    before = run.conserved()
    run.steps(60)
    assert run.temperature().mean() > 50
    assert abs(run.conserved() - before).max() < 0.002
    places = run.state.positions.reshape(8, 3, 3)
    lengths = np.linalg.norm(places[:, 1:] - places[:, :-1], axis=2)
    assert abs(lengths - atoms.get_distance(0, 1)).max() < 1e-9


@pytest.mark.parametrize(
    ("remove_drift", "constraint", "freedom"),
    [(True, None, 6), (False, None, 9), (True, FixAtoms([0]), 6)],
)
def test_the_first_step_has_the_temperature_asked_for_over_1000_seeds(
    remove_drift: bool, constraint: Any, freedom: int
) -> None:
    water = molecule("H2O")
    water.set_constraint(constraint)
    options = MDOptions(remove_drift=remove_drift)
    seen = []
    for seed in range(1000):
        state = copies(water, 1, seed, remove_drift)
        start.begin(state, options)
        state.take(Free().compute(state.positions, state.cells))
        seen.append(Integrator(options).temperature(state)[0])
    seen = np.array(seen) / 300.0
    require_mean(seen, 1.0)
    require_mean((seen - 1.0) ** 2, 2.0 / freedom)


def test_equipartition_by_element_and_direction() -> None:
    atoms = row(3, masses=[1, 16, 40])
    run = Run(atoms, Quartic(atoms.positions.copy()), 500, timestep=1.0, tdamp=30.0)
    run.steps(150)
    seen = np.zeros((500, 3, 3))
    for _ in range(10):
        run.steps(15)
        seen += (run.state.momenta**2 / run.state.masses).reshape(500, 3, 3) / 10
    for atom, mass in enumerate((1, 16, 40)):
        for direction in range(3):
            require_mean(seen[:, atom, direction], KT * (1 - mass / 57))


@pytest.mark.parametrize("ensemble", ["nvt-langevin", "nvt-bussi", "nvt-nose-hoover"])
def test_long_steps_leave_harmonic_positions_and_the_thermometer_right(ensemble: str) -> None:
    atoms = row(2)
    forces = Wells(atoms.positions.copy(), (1.0, 2.0, 3.5))
    slowest, fastest = np.sqrt(np.array([1.0, 3.5]) / atoms.get_masses()[0])
    step = 0.8 / fastest  # momenta at whole steps are 16 % too cold along z
    options = MDOptions(
        ensemble=ensemble,
        timestep=step / units.fs,
        tdamp=5 / slowest / units.fs,
        remove_drift=False,
    )
    run = Run(atoms, forces, 600, timestep=options.timestep, tdamp=20.0, remove_drift=False)
    run.steps(60)
    run.restart(options, run.state.arrays())
    heat, whole, squares = np.zeros(600), np.zeros(600), np.zeros((600, 3))
    for _ in range(20):
        run.steps(5)
        moved = (run.state.positions.reshape(600, 2, 3) - forces.centres) ** 2
        squares += forces.stiffness * moved.mean(axis=1) / 20
        heat += run.temperature() / 20
        whole += 2 * run.state.kinetic() / (6 * units.kB) / 20
    for direction in range(3):
        require_mean(squares[:, direction], KT)
    require_mean(heat, 300.0)
    cold = 1 - (step**2 * np.array([1.0, 2.0, 3.5]) / atoms.get_masses()[0] / 4).mean()
    require_mean(whole, 300.0 * cold)


def test_free_particles_diffuse_and_forget_as_langevin_says() -> None:
    mass, friction, step = 39.95, 1 / (100 * units.fs), 2.0
    run = Run(row(1, masses=[mass]), Free(), 4000, timestep=step, remove_drift=False)
    first, place = run.state.momenta.copy(), run.state.positions.copy()
    for count in range(1, 4):
        run.steps(50)
        time = count * 50 * step * units.fs
        left = np.exp(-friction * time)
        require_mean((run.state.momenta * first).mean(axis=1), mass * KT * left)
        walked = 2 * KT / (mass * friction) * (time - (1 - left) / friction)
        require_mean(((run.state.positions - place) ** 2).mean(axis=1), walked)


def cluster() -> tuple[Atoms, Analytic]:
    atoms = Atoms("Ar4", 3.8 * np.array([[0, 0, 0], [1, 0, 0], [0.5, 0.87, 0], [0.5, 0.29, 0.82]]))
    return atoms, LennardJones()


def test_the_error_of_the_energy_falls_with_the_square_of_the_step() -> None:
    errors = []
    for step in (8.0, 4.0, 2.0):
        run = Run(*cluster(), 20, ensemble="nve", timestep=step, temperature=20, seed=3)
        before, seen = run.conserved(), []
        for _ in range(round(800 / step)):
            run.steps(1)
            seen.append(run.conserved() - before)
        errors.append(np.sqrt(np.mean(np.square(seen))))
    assert errors[0] / errors[1] == pytest.approx(4.0, rel=0.1)
    assert errors[1] / errors[2] == pytest.approx(4.0, rel=0.05)
    assert errors[2] < 1e-5


@pytest.mark.parametrize("ensemble", ["nve", "nvt-nose-hoover"])
def test_time_can_be_turned_back(ensemble: str) -> None:
    run = Run(*cluster(), 5, ensemble=ensemble, timestep=4.0, tdamp=50.0, temperature=20)
    place, momenta = run.state.positions.copy(), run.state.momenta.copy()
    run.steps(200)
    assert abs(run.state.positions - place).max() > 0.1
    run.turn_back()
    run.steps(200)
    assert run.state.positions == pytest.approx(place, abs=1e-8)
    assert run.state.momenta == pytest.approx(-momenta, abs=1e-8)
