"""Batches give the results of single structures, whatever is in them and whatever goes wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from factories import random_potential, write_model

from jmp_md.batch import BatchPredictor, Result
from jmp_md.calculators.ase import JMPCalculator
from jmp_md.errors import InputError
from jmp_md.evaluation import evaluate
from jmp_md.potential import Potential
from jmp_md.structures import Structures
from jmp_md.systems import BatchedSystems

ALL = ("energy", "forces", "stress")


def mixed() -> list[Atoms]:
    """Sizes from 1 to 12 atoms, with and without periodicity, in no order."""
    rng = np.random.default_rng(1)
    slab = bulk("Al", cubic=True)
    slab.pbc = (True, True, False)
    structures = [
        molecule("CH3CH2OH"),
        bulk("Si"),
        Atoms("H"),
        molecule("C6H6"),
        slab,
        molecule("H2O"),
        bulk("NaCl", "rocksalt", a=5.6, cubic=True),
        Atoms("He2", [(0, 0, 0), (0, 0, 30)]),
    ]
    for atoms in structures:
        atoms.positions += 0.05 * rng.standard_normal(atoms.positions.shape)
    return structures


def assert_close(a: Result, b: Result, tolerance: float) -> None:
    assert abs(a.energy - b.energy) < tolerance
    for x, y in ((a.energies, b.energies), (a.forces, b.forces), (a.stress, b.stress)):
        assert (x is None) == (y is None)
        if x is not None and y is not None:
            np.testing.assert_allclose(x, y, rtol=0, atol=tolerance)


@pytest.mark.parametrize("smooth", [True, False])
def test_results_do_not_depend_on_the_batch(smooth: bool) -> None:
    structures, potential = mixed(), random_potential(smooth=smooth)
    together = evaluate(structures, potential, properties=ALL, max_edges=100_000)
    for max_edges in (1, 150):
        for a, b in zip(
            together,
            evaluate(structures, potential, properties=ALL, max_edges=max_edges),
            strict=True,
        ):
            assert_close(a, b, 1e-12)
    back = evaluate(structures[::-1], potential, properties=ALL)[::-1]
    for a, b in zip(together, back, strict=True):
        assert_close(a, b, 1e-12)


def test_results_are_those_of_the_calculator_with_stress_where_there_is_a_cell() -> None:
    structures, potential = mixed(), random_potential(head={"references": {}, "energy_mean": 3.0})
    calculator = JMPCalculator(potential, dtype="float64")
    for atoms, result in zip(
        structures, evaluate(structures, potential, properties=ALL), strict=True
    ):
        atoms.calc = calculator
        assert result.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-12)
        np.testing.assert_allclose(result.forces, atoms.get_forces(), rtol=0, atol=1e-12)
        np.testing.assert_allclose(result.energies.sum(), result.energy, rtol=0, atol=1e-12)
        assert (result.stress is not None) == atoms.pbc.any()
        if result.stress is not None:
            expected = atoms.get_stress(voigt=False)
            np.testing.assert_allclose(result.stress, expected, rtol=0, atol=1e-12)


def test_only_what_is_asked_for_comes() -> None:
    (result,) = evaluate([bulk("Si")], random_potential(), properties=["energy"])
    assert result.forces is None
    assert result.stress is None
    assert evaluate([], random_potential()) == []


def test_a_model_is_loaded_by_path_in_the_type_asked_for(tmp_path: Path) -> None:
    path, atoms = write_model(tmp_path), molecule("H2O")
    exact = evaluate([atoms], path, dtype="float64")[0]
    assert_close(exact, evaluate([atoms], random_potential())[0], 1e-6)  # stored as float32
    single = evaluate([atoms], random_potential(), dtype="float32")[0]
    assert 0 < abs(single.energy - exact.energy) < 1e-4


def test_direct_forces_are_used_when_asked_for() -> None:
    potential, atoms = random_potential(direct=True), molecule("H2O")
    direct = evaluate([atoms], potential, forces="direct")[0].forces
    expected = JMPCalculator(potential, forces="direct", dtype="float64").get_forces(atoms)
    np.testing.assert_allclose(direct, expected, rtol=0, atol=1e-12)
    with pytest.raises(InputError, match="no direct force head"):
        evaluate([atoms], random_potential(), forces="direct")


@pytest.mark.parametrize(
    "bad",
    [
        Atoms(),
        Atoms("H2", [(0, 0, 0), (0, 0, 0.001)]),
        Atoms("H", [(np.nan, 0, 0)]),
        Atoms("H", pbc=True),
    ],
)
def test_one_bad_structure_is_named_or_left_in_its_place(bad: Atoms) -> None:
    potential = random_potential()
    structures = [molecule("H2O"), molecule("CH4"), bad, molecule("NH3")]
    with pytest.raises(InputError, match="structure 2: "):
        evaluate(structures, potential)
    results = evaluate(structures, potential, on_error="keep")
    assert isinstance(results[2].error, InputError)
    assert np.isnan(results[2].energy)
    for i in (0, 1, 3):
        assert results[i].error is None
        assert_close(results[i], evaluate([structures[i]], potential)[0], 1e-12)


def test_values_that_are_not_finite_stay_in_their_structure() -> None:
    potential = random_potential()
    potential.embedding.weight[8] = torch.inf  # fluorine
    results = evaluate(
        [molecule("HF"), molecule("H2O"), molecule("CH4")], potential, on_error="keep"
    )
    assert "not finite" in str(results[0].error)
    assert_close(results[1], evaluate([molecule("H2O")], potential)[0], 1e-12)
    assert results[2].error is None


class SmallMemory:
    """Makes a potential run out of memory, as torch says it, above a number of atoms."""

    def __init__(self, potential: Potential, n_atoms: int, message: str) -> None:
        self.sizes: list[int] = []
        self._n_atoms, self._message, self._network = n_atoms, message, potential.network
        potential.network = self  # type: ignore[method-assign, assignment]

    def __call__(self, structures: Structures) -> tuple[torch.Tensor, torch.Tensor]:
        self.sizes.append(len(structures.numbers))
        if self.sizes[-1] > self._n_atoms:
            raise RuntimeError(self._message)
        return self._network(structures)


OUT_OF_MEMORY = [
    "[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: you tried",
    "DefaultCPUAllocator: not enough memory: you tried to allocate 1099511627776 bytes",
    "CUDA out of memory. Tried to allocate 2.00 GiB",
]


@pytest.mark.parametrize("message", OUT_OF_MEMORY)
def test_out_of_memory_halves_batches_and_the_limit_is_kept(message: str) -> None:
    potential = random_potential()
    waters = [molecule("H2O") for _ in range(16)]
    expected = evaluate(waters[:1], potential)[0]
    memory = SmallMemory(potential, 14, message)
    for result in evaluate(waters, potential, max_edges=10_000):
        assert_close(result, expected, 1e-12)
    # 48 and 24 atoms fail, 12 fit; larger batches are not tried again.
    assert memory.sizes == [48, 24, 12, 12, 12, 12]


def test_a_structure_that_fits_no_memory_is_named() -> None:
    potential = random_potential()
    SmallMemory(potential, 8, OUT_OF_MEMORY[0])
    structures = [molecule("H2O"), molecule("C6H6"), molecule("CH4")]
    with pytest.raises(InputError, match="structure 1: the structure, of 12 atoms, does not fit"):
        evaluate(structures, potential)
    results = evaluate(structures, potential, on_error="keep")
    assert [result.error is None for result in results] == [True, False, True]


def test_other_errors_of_torch_are_not_taken_for_a_lack_of_memory() -> None:
    potential = random_potential()
    SmallMemory(potential, 0, "mat1 and mat2 shapes cannot be multiplied")
    with pytest.raises(RuntimeError, match="mat1"):
        evaluate([molecule("H2O")], potential)


@pytest.mark.parametrize(
    "option",
    [
        {"properties": ["dipole"]},
        {"forces": "numerical"},
        {"dtype": "float16"},
        {"tags": "all"},
        {"on_error": "skip"},
        {"max_edges": 0},
    ],
)
def test_unknown_options_are_refused(option: dict) -> None:
    with pytest.raises(InputError, match=next(iter(option))):
        evaluate([molecule("H2O")], random_potential(), **option)


def test_the_limit_on_edges_holds_and_alike_structures_share_batches() -> None:
    potential = random_potential()
    memory = SmallMemory(potential, 10**6, "")
    structures = [molecule(name) for name in ("H2", "C6H6") * 8]
    evaluate(structures, potential, max_edges=300)
    # Hydrogen: 2 atoms of degree 1, all 8 fit. Benzene: 12 atoms of degree 11, two fit.
    assert memory.sizes == [16] + [24] * 4


def test_moving_systems_reuse_neighbours_and_match_fresh_ones() -> None:
    rng = np.random.default_rng(2)
    potential, structures = random_potential(), mixed()
    systems = BatchedSystems(potential, structures, stress=True, skin=1.0)
    for _ in range(3):
        for atoms in structures:
            atoms.positions += 0.1 * rng.uniform(-1, 1, atoms.positions.shape)
        results = systems.compute([atoms.positions for atoms in structures])
        for a, b in zip(results, evaluate(structures, potential, properties=ALL), strict=True):
            assert_close(a, b, 1e-12)
    assert systems.rebuilds == len(structures)
    flat = systems.compute(np.concatenate([atoms.positions for atoms in structures]))
    for a, b in zip(results, flat, strict=True):
        assert_close(a, b, 1e-12)


def test_what_systems_are_made_of_is_replaced_and_not_changed_in_place() -> None:
    systems = BatchedSystems(random_potential(), [molecule("H2O")])
    for array in (systems[0].cell, systems[0].numbers, systems[0].pbc):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
    cell = np.eye(3)
    systems[0].cell = cell
    cell[0] = 7.0
    assert systems[0].cell[0, 0] == 1.0


def test_batches_stay_right_while_systems_move_far_wrap_collide_come_and_go() -> None:
    rng, potential, structures = np.random.default_rng(3), random_potential(), mixed()
    systems = BatchedSystems(potential, structures, stress=True, max_edges=200)
    for step in range(10):
        for atoms in structures:
            atoms.positions += rng.normal(0.0, 0.02, atoms.positions.shape)
            turns = rng.integers(-1, 2, atoms.positions.shape) * atoms.pbc
            atoms.positions += turns @ atoms.cell.array
        if step == 4:
            systems.remove(systems.keys[0])
            structures = [*structures[1:], molecule("NH3")]
            systems.add(structures[-1])
        given = [atoms.positions.copy() for atoms in structures]
        if step == 7:  # one is refused for once, the others are not
            given[-1][1] = given[-1][0]
        results = systems.compute(given, on_error="keep")
        expected = evaluate(structures, potential, properties=ALL)
        for k, (a, b) in enumerate(zip(results, expected, strict=True)):
            if step == 7 and k == len(structures) - 1:
                assert a.error is not None
            else:
                assert_close(a, b, 1e-12)
    assert len(structures) < systems.rebuilds < 6 * len(structures)


def test_cells_may_change_between_steps() -> None:
    potential, silicon = random_potential(), bulk("Si")
    systems = BatchedSystems(potential, [molecule("H2O"), silicon], stress=True)
    water = systems.compute()[0]
    silicon.set_cell(silicon.cell * 1.02, scale_atoms=True)
    positions = [molecule("H2O").positions, silicon.positions]
    results = systems.compute(positions, [np.zeros((3, 3)), silicon.cell.array])
    assert_close(results[0], water, 1e-12)
    assert_close(results[1], evaluate([silicon], potential, properties=ALL)[0], 1e-12)


def test_systems_come_and_go() -> None:
    potential = random_potential()
    systems = BatchedSystems(potential, [molecule("H2O"), molecule("CH4")])
    key = systems.add(molecule("NH3"))
    systems.remove(0)
    assert systems.keys == [1, key]
    expected = evaluate([molecule("CH4"), molecule("NH3")], potential)
    for a, b in zip(systems.compute(), expected, strict=True):
        assert_close(a, b, 1e-12)
    assert systems.add(molecule("H2O")) == key + 1
    with pytest.raises(InputError, match="no system 0"):
        systems.remove(0)


def test_systems_that_cannot_be_computed_are_named() -> None:
    systems = BatchedSystems(random_potential(), [molecule("H2O"), molecule("H2")])
    water, hydrogen = molecule("H2O").positions, np.zeros((2, 3))
    with pytest.raises(InputError, match=r"system 1: .* apart"):
        systems.compute([water, hydrogen])
    with pytest.raises(InputError, match="system 1 have shape"):
        systems.compute([water, water])
    with pytest.raises(InputError, match="1 positions for 2 systems"):
        systems.compute([water])
    with pytest.raises(InputError, match="all systems have shape"):
        systems.compute(water)
    with pytest.raises(InputError, match=r"system 2: .*no atoms"):
        systems.add(Atoms())


def test_the_default_limit_follows_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def limit(free: int, **sizes: int) -> int:
        monkeypatch.setattr("jmp_md.nn.footprint.free_memory", lambda device: free)
        return BatchPredictor(random_potential(**sizes)).max_edges

    assert limit(2**26) == pytest.approx(2 * limit(2**25), abs=1)
    assert limit(2**26, num_blocks=4) == pytest.approx(limit(2**26) / 2, abs=1)
    assert limit(2**50) == limit(2**49)
    assert limit(0) == 1
    monkeypatch.undo()
    assert BatchPredictor(random_potential()).max_edges > 1
