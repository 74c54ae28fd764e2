"""The ASE calculator: physics of its numbers, and clear errors where there are none."""

from __future__ import annotations

import contextlib
import pickle
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.emt import EMT
from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress
from ase.db import connect
from factories import random_potential

from jmp_md import InputError, JMPCalculator
from jmp_md.embeddings import embed
from jmp_md.evaluation import evaluate
from jmp_md.graph.policy import GraphPolicy
from jmp_md.models import catalogue
from jmp_md.system import System
from jmp_md.systems import BatchedSystems

SMALL = GraphPolicy.smooth(4.0, 4.0, 2.5, 4.5)


def calculator(dtype: str = "float64", skin: float = 1.0, **options: Any) -> JMPCalculator:
    return JMPCalculator(random_potential(**options), dtype=dtype, device="cpu", skin=skin)


@pytest.fixture(scope="module")
def smooth() -> JMPCalculator:
    return calculator()


@pytest.fixture
def ethanol() -> Atoms:
    return molecule("CH3CH2OH")


def crystal() -> Atoms:
    """Three atoms in a skewed cell, off symmetric places."""
    cell = [[4.0, 0.3, -0.8], [1.2, 3.8, 0.2], [-0.9, 1.1, 4.4]]
    scaled = [[0.1, 0.0, 0.05], [0.45, 0.5, 0.4], [0.7, 0.2, 0.8]]
    return Atoms("SiOC", cell=cell, scaled_positions=scaled, pbc=True)


@pytest.mark.parametrize("kind", ["smooth", "official"])
def test_forces_are_the_gradient_of_the_energy(kind: str) -> None:
    atoms = molecule("CH3OH")
    atoms.rattle(0.05, seed=1)
    atoms.calc = calculator(smooth=kind == "smooth")
    numerical = calculate_numerical_forces(atoms, eps=1e-4)
    assert np.abs(atoms.get_forces()).max() > 1e-2
    assert np.abs(atoms.get_forces() - numerical).max() < 1e-6


def test_forces_and_stress_of_a_crystal_are_derivatives_of_the_energy() -> None:
    atoms = crystal()
    atoms.calc = calculator(graph=SMALL)
    forces, stress = atoms.get_forces(), atoms.get_stress()
    numerical = calculate_numerical_stress(atoms, eps=1e-4)  # Voigt order and sign of ASE
    assert np.abs(stress).min() > 1e-5
    assert np.abs(stress - numerical).max() < 1e-7
    assert np.abs(forces - calculate_numerical_forces(atoms, eps=1e-4)).max() < 1e-6


def test_moving_and_turning_a_molecule_moves_and_turns_its_forces(
    smooth: JMPCalculator, ethanol: Atoms
) -> None:
    ethanol.calc = smooth
    energy, forces = ethanol.get_potential_energy(), ethanol.get_forces()
    rotation, _ = np.linalg.qr(np.random.default_rng(4).normal(size=(3, 3)))
    ethanol.positions = ethanol.positions @ rotation + [3.0, -7.0, 11.0]
    assert ethanol.get_potential_energy() == pytest.approx(energy, abs=1e-11)
    assert np.allclose(ethanol.get_forces(), forces @ rotation, atol=1e-11)


def test_the_order_of_atoms_does_not_matter(ethanol: Atoms) -> None:
    policy = GraphPolicy("smooth", (4.0, 4.0, 3.0, 5.0), (3, 2, 2, 4))  # counts in use
    ethanol.calc = calculator(graph=policy)
    energy, forces = ethanol.get_potential_energy(), ethanol.get_forces()
    order = np.random.default_rng(6).permutation(len(ethanol))
    shuffled = ethanol[order]
    shuffled.calc = ethanol.calc
    assert shuffled.get_potential_energy() == pytest.approx(energy, abs=1e-12)
    assert np.allclose(shuffled.get_forces(), forces[order], atol=1e-12)


@pytest.mark.parametrize("distance", [30.0, 1e4])
def test_far_fragments_do_not_know_of_each_other(smooth: JMPCalculator, distance: float) -> None:
    parts = [molecule("H2O"), molecule("CO"), Atoms("H")]
    expected = []
    for part in parts:
        part.calc = smooth
        expected.append((part.get_potential_energy(), part.get_forces()))
    far = parts[0].copy()
    for i in (1, 2):
        part = parts[i].copy()
        part.translate([i * distance, 0.0, i * distance])
        far += part
    far.calc = smooth
    assert far.get_potential_energy() == pytest.approx(sum(e for e, _ in expected), abs=1e-10)
    assert np.allclose(far.get_forces(), np.concatenate([f for _, f in expected]), atol=1e-9)


@pytest.mark.parametrize("kind", ["smooth", "official"])
@pytest.mark.parametrize("name", ["H", "N2", "CO2", "H2O"])
def test_one_two_and_three_atoms_are_enough(name: str, kind: str) -> None:
    atoms = molecule(name)
    atoms.calc = calculator(smooth=kind == "smooth")
    assert np.isfinite(atoms.get_potential_energy())
    assert np.allclose(atoms.get_forces().sum(axis=0), 0.0, atol=1e-12)


def test_energies_per_atom_add_up_to_the_energy(ethanol: Atoms) -> None:
    ethanol.calc = calculator(head={"references": {1: -13.6, 6: -1030.0, 8: -2040.0}})
    energies = ethanol.get_potential_energies()
    assert energies.shape == (9,)
    assert energies.sum() == pytest.approx(ethanol.get_potential_energy())
    assert ethanol.get_potential_energy(force_consistent=True) == ethanol.get_potential_energy()


def test_a_trajectory_with_wrapping_is_the_same_with_and_without_a_skin() -> None:
    potential = random_potential(graph=SMALL)
    cached = JMPCalculator(potential, dtype="float64", device="cpu", skin=1.0)
    fresh = JMPCalculator(potential, dtype="float64", device="cpu", skin=0.0)
    rng = np.random.default_rng(8)
    atoms = crystal()
    for _ in range(12):
        atoms.positions += rng.normal(0.0, 0.06, (3, 3))
        other = atoms.copy()
        other.wrap()
        for copy, calc in ((atoms, cached), (other, fresh)):
            copy.calc = calc
        assert atoms.get_potential_energy() == pytest.approx(
            other.get_potential_energy(), abs=1e-12
        )
        assert np.allclose(atoms.get_forces(), other.get_forces(), atol=1e-12)
        assert np.allclose(atoms.get_stress(), other.get_stress(), atol=1e-12)
        atoms.wrap()
    assert cached.neighbours.rebuilds < fresh.neighbours.rebuilds == 12


def test_single_precision_survives_a_structure_far_from_the_origin(ethanol: Atoms) -> None:
    ethanol.calc = calculator("float32")
    forces = ethanol.get_forces()
    ethanol.translate(2.0**20)
    ethanol.positions[:] = np.round(ethanol.positions * 2.0**20) / 2.0**20
    assert np.allclose(ethanol.get_forces(), forces, atol=1e-5)


def test_calculators_of_different_precision_live_side_by_side(ethanol: Atoms) -> None:
    potential = random_potential()
    single, double = (
        JMPCalculator(potential, dtype=dtype, device="cpu") for dtype in ("float32", "float64")
    )
    forces = []
    for calc in (single, double, single):
        ethanol.calc = calc
        calc.reset()
        forces.append(ethanol.get_forces())
        assert forces[-1].dtype == np.float64
    assert np.array_equal(forces[0], forces[2])
    assert 0.0 < np.abs(forces[0] - forces[1]).max() < 1e-5
    assert potential.embedding.weight.dtype == torch.float64  # the given one is left alone


def test_global_state_is_left_alone(ethanol: Atoms) -> None:
    def state() -> tuple[Any, ...]:
        return (
            torch.get_default_dtype(),
            torch.get_num_threads(),
            torch.is_grad_enabled(),
            torch.initial_seed(),
            torch.random.get_rng_state().sum().item(),
            np.random.get_state()[1].tolist(),
            np.geterr(),
            warnings.filters[:],
        )

    before = state()
    ethanol.calc = calculator("float32")
    ethanol.get_forces()
    assert state() == before


def test_forces_bring_the_energy_and_the_stress_and_results_are_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    atoms = crystal()
    atoms.calc = calculator(graph=SMALL)
    calls: list[dict[str, Any]] = []
    predict = atoms.calc.potential.predict

    def counted(*args: Any, **options: Any) -> Any:
        calls.append(options)
        return predict(*args, **options)

    monkeypatch.setattr(atoms.calc.potential, "predict", counted)
    atoms.get_forces()
    atoms.get_stress()
    atoms.get_potential_energy()
    atoms.set_initial_charges([1.0, 0.0, 0.0])  # the network sees none
    atoms.get_forces()
    assert len(calls) == 1
    atoms.positions[0, 0] += 0.01
    atoms.get_potential_energy()
    assert len(calls) == 2
    assert not calls[-1]["forces"]


def test_direct_forces_come_from_the_force_head(ethanol: Atoms) -> None:
    potential = random_potential(smooth=False, direct=True)
    ethanol.calc = JMPCalculator(potential, forces="direct", dtype="float64", device="cpu")
    direct = ethanol.get_forces()
    ethanol.calc = JMPCalculator(potential, dtype="float64", device="cpu")
    assert np.abs(direct - ethanol.get_forces()).max() > 1e-3
    atoms = crystal()
    atoms.calc = JMPCalculator(
        potential, forces="direct", dtype="float64", device="cpu", cutoff=4.0
    )
    with pytest.raises(PropertyNotImplementedError, match="direct forces have no stress"):
        atoms.get_stress()


def test_oc_tags_are_read_only_when_asked_for() -> None:
    atoms = molecule("CH3OH")
    potential = random_potential(smooth=False)
    plain = JMPCalculator(potential, dtype="float64", device="cpu")
    tagged = JMPCalculator(potential, dtype="float64", device="cpu", tags="oc")
    energies = {}
    for name, calc in (("plain", plain), ("tagged", tagged)):
        atoms.calc = calc
        for tag in (0, 1, 2):
            atoms.set_tags(tag)
            energies[name, tag] = atoms.get_potential_energy()
    assert energies["plain", 0] == energies["plain", 2] == energies["tagged", 2]
    assert energies["tagged", 1] == energies["tagged", 2]
    assert abs(energies["tagged", 0] - energies["tagged", 2]) > 1e-8  # no quadruplets
    atoms.set_tags([2, 2, 3, 2, 2, 2])
    with pytest.raises(InputError, match=r"atom 2 has tag 3: .*0 \(sub-surface\)"):
        atoms.get_potential_energy()


def test_references_shift_the_energy_per_atom() -> None:
    potential = random_potential(head={"has_references": False})
    with pytest.warns(UserWarning, match=r"relative to an unknown constant.*give references="):
        plain = JMPCalculator(potential, dtype="float64", device="cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        shifted = JMPCalculator(
            potential, dtype="float64", device="cpu", references={"H": -13.6, "O": -2000}
        )
    atoms = molecule("H2O")
    energies = [calc.get_potential_energy(atoms) for calc in (plain, shifted)]
    assert energies[1] - energies[0] == pytest.approx(-2027.2)
    with pytest.raises(InputError, match=r"no reference energy for C .*references="):
        shifted.get_potential_energy(molecule("CO"))


def test_a_model_of_one_molecule_warns_once_about_another(ethanol: Atoms) -> None:
    header = {"name": "eth", "training": {"domain": {"formula": "C2H6O"}}}
    calc = calculator(header=header)
    water = molecule("H2O")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        calc.get_potential_energy(ethanol)
    with pytest.warns(UserWarning, match=r"'eth' was trained on one molecule only, C2H6O; .*H2O"):
        calc.get_potential_energy(water)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        water.rattle(0.01)
        calc.get_potential_energy(water)


def test_non_commercial_weights_say_so(caplog: pytest.LogCaptureFixture) -> None:
    catalogue._notify.cache_clear()
    calculator(header={"licence": "CC-BY-NC-4.0"})
    assert "non-commercial use only" in caplog.text


def with_nan(atoms: Atoms) -> Atoms:
    atoms.positions[4, 1] = np.nan
    return atoms


def flat(pbc: Any) -> Atoms:
    return Atoms("He", cell=[[5.0, 0, 0], [0, 5.0, 0], [5.0, 5.0, 0.0]], pbc=pbc)


@pytest.mark.parametrize(
    ("atoms", "message"),
    [
        (Atoms(), r"no atoms"),
        (with_nan(molecule("CH4")), r"position of atom 4 \(H\) is \[.*nan.*\]: not finite"),
        (Atoms("C2", [[0, 0, 0], [1e999, 0, 0]]), r"position of atom 1 \(C\) is \[inf"),
        (
            Atoms("OCO", [[0, 0, 0], [1, 1, 1], [0, 0.009, 0]]),
            r"atom 0 \(O\) and atom 2 \(O\).*0.00",
        ),
        (
            Atoms("HCl", [[0, 0, 0], [0, 0, 4.999]], cell=[5, 5, 5], pbc=True),
            r"atom 0 \(H\) and atom 1 \(Cl\) are 0.0010 Å apart: remove the duplicate",
        ),
        (flat(True), r"no volume in its periodic directions .*atoms.cell, or atoms.pbc = False"),
        (Atoms("He", pbc=[True, False, False]), r"no volume in its periodic directions"),
        (Atoms("He", cell=[0.5, 0.5, 0.5], pbc=True), r"1 atoms in a cell of 0.125 Å³: no matter"),
        (Atoms(numbers=[1, 0], positions=np.eye(3)[:2]), r"atom 1 \(X\).*never saw this element"),
    ],
)
def test_impossible_structures_are_refused_by_name(
    smooth: JMPCalculator, atoms: Atoms, message: str
) -> None:
    atoms.calc = smooth
    for _ in range(2):  # a failed calculation leaves no results behind
        with pytest.raises(InputError, match=message):
            atoms.get_forces()


def test_atoms_that_meet_between_two_searches_are_refused(smooth: JMPCalculator) -> None:
    atoms = Atoms("H2", [[0, 0, 0], [0, 0, 0.9]])
    atoms.calc = smooth
    atoms.get_forces()
    rebuilds = smooth.neighbours.rebuilds
    atoms.positions[:, 2] = 0.45, 0.451
    with pytest.raises(InputError, match=r"atom 0 \(H\) and atom 1 \(H\) are 0.0010 Å apart"):
        atoms.get_forces()
    assert smooth.neighbours.rebuilds == rebuilds


def test_a_flat_cell_is_fine_without_periodicity_across(smooth: JMPCalculator) -> None:
    atoms = flat([True, True, False])
    assert np.isfinite(smooth.get_potential_energy(atoms))


def test_elements_the_model_never_saw_are_refused() -> None:
    calc = calculator(head={"elements": (1, 6, 8)})
    with pytest.raises(
        InputError, match=r"atom 0 \(N\): head 'test' of model 'random' never saw .*only H C O;"
    ):
        calc.get_potential_energy(molecule("N2"))


def test_an_exploded_network_is_no_result() -> None:
    potential = random_potential()
    potential.energy_head[-1].weight.fill_(1e308)
    calc = JMPCalculator(potential, dtype="float64", device="cpu")
    atoms = molecule("CH4")
    for _ in range(2):
        with pytest.raises(InputError, match=r"'random' gives energ.* not finite"):
            calc.get_potential_energy(atoms)


@pytest.mark.parametrize("pbc", [False, [True, True, False]])
def test_stress_without_a_volume_is_explained(smooth: JMPCalculator, pbc: Any) -> None:
    atoms = bulk("Si")
    atoms.cell[2] = 0.0
    atoms.pbc = pbc
    atoms.calc = smooth
    with pytest.raises(
        PropertyNotImplementedError, match="periodic structure in a cell with a volume, this one"
    ):
        atoms.get_stress()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"forces": "analytic"}, r"forces = 'analytic': choose 'conservative' or 'direct'"),
        ({"dtype": "float16"}, r"dtype = 'float16': choose 'float32' or 'float64'"),
        ({"tags": "guess"}, r"tags = 'guess': choose None or 'oc'"),
        ({"weights": "best"}, r"weights = 'best': choose 'ema' or 'raw'"),
        ({"skin": -1.0}, r"skin -1.0 Å: must be 0 or more"),
        ({"forces": "direct"}, r"head 'test' .* no direct forces: use forces='conservative'"),
        ({"cutoff": 5.0}, r"smooth graphs of \(5.0, 5.0, 2.2, 6.0\) Å .*leave out cutoff"),
        ({"references": {"Hx": 1.0}}, r"'Hx' is not the symbol of an element"),
        ({"references": {"H": float("nan")}}, r"nan for H is not an energy"),
        ({"device": "abacus"}, r"device 'abacus' cannot be used"),
    ],
)
def test_options_that_do_not_exist_or_fit_are_refused(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        JMPCalculator(random_potential(), **options)


def test_options_cannot_be_changed_afterwards(smooth: JMPCalculator) -> None:
    with pytest.raises(InputError, match=r"cannot set dtype: make a new JMPCalculator"):
        smooth.set(dtype="float32")


def test_a_refused_structure_leaves_no_result(smooth: JMPCalculator, ethanol: Atoms) -> None:
    ethanol.calc = smooth
    ethanol.get_potential_energy()
    broken = ethanol.copy()
    broken.calc = smooth
    broken.positions[1] = broken.positions[0]
    for attempt in (lambda: smooth.warmup(broken), broken.get_potential_energy):
        with pytest.raises(InputError, match="Å"):
            attempt()


def test_known_results_stay_where_stress_is_refused_as_with_emt() -> None:
    """And nothing stays of another structure (metatensor#867)."""
    for calc in (EMT(), calculator()):
        atoms = molecule("CH3OH")
        atoms.calc = calc
        energy, forces = atoms.get_potential_energy(), atoms.get_forces()
        with pytest.raises(PropertyNotImplementedError):
            atoms.get_stress()
        assert calc.results["energy"] == energy
        assert np.array_equal(calc.results["forces"], forces)
        atoms.positions[0, 0] += 0.01
        with pytest.raises(PropertyNotImplementedError):
            atoms.get_stress()
        assert calc.results.get("energy") != energy


def test_the_structure_of_a_refused_calculation_has_no_results(smooth: JMPCalculator) -> None:
    smooth.calculate(molecule("H2O"), ["energy"])
    with pytest.raises(InputError):
        smooth.calculate(Atoms(), ["energy"])
    assert not smooth.results


def own_results(atoms: Atoms, potential: Any) -> dict[str, np.ndarray]:
    """Energies and forces of every way to compute, in single precision."""
    calc = JMPCalculator(potential, dtype="float32", device="cpu")
    (result,) = evaluate([atoms], potential, dtype="float32", device="cpu")
    item = System(atoms, calc.potential, skin=1.0, oc_tags=False).item()
    found = embed(calc.potential, item.structures)
    return {
        "energy": calc.get_potential_energy(atoms),
        "forces": calc.get_forces(atoms),
        "batch energy": np.array(result.energy),
        "batch forces": result.forces,
        "embedding": found.atoms.numpy(),
    }


@contextlib.contextmanager
def default_type(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


MODES: dict[str, Callable[[], contextlib.AbstractContextManager[Any]]] = {
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "no_grad": torch.no_grad,
    "inference": torch.inference_mode,
    "double": lambda: default_type(torch.float64),
    "half": lambda: default_type(torch.float16),
}


@pytest.mark.parametrize("mode", MODES)
def test_the_modes_of_the_caller_make_no_difference(mode: str) -> None:
    atoms, potential = molecule("H2O"), random_potential(num_blocks=1)
    expected = own_results(atoms, random_potential(num_blocks=1))
    with MODES[mode]():
        inside = own_results(atoms, potential)
    after = own_results(atoms, potential)  # what was kept for later is right, too
    for name, value in expected.items():
        assert np.array_equal(inside[name], value), name
        assert np.array_equal(after[name], value), name


def test_databases_record_which_model_computed(tmp_path: Any) -> None:
    calc = calculator(head={"references": {1: -13.6, 8: -2040.0}})
    atoms = molecule("H2O")
    atoms.calc = calc
    atoms.get_potential_energy()
    with connect(tmp_path / "rows.db") as rows:
        rows.write(atoms)
    recorded = connect(tmp_path / "rows.db").get(1).calculator_parameters
    assert recorded == calc.todict() == calc.parameters
    assert recorded["graph"]["cutoffs"] == list(calc.potential.policy.cutoffs)
    assert (recorded["model"], recorded["head"]) == ("random", "test")
    assert len(recorded["sha256"]) == 64
    for part in ("model='random'", "dtype='float64'", recorded["sha256"][:12]):
        assert part in repr(calc)
    other = calculator(head={"references": {1: -13.6, 8: -2041.0}})
    assert other.parameters["sha256"] != recorded["sha256"]
    copied = pickle.loads(pickle.dumps(calc))
    assert copied.parameters == recorded
    assert copied.get_potential_energy(atoms) == atoms.get_potential_energy()


@pytest.mark.parametrize("given", ["charge", "spin", "initial charges", "initial magmoms"])
def test_charges_and_spins_are_said_to_be_ignored_once(given: str) -> None:
    atoms = [molecule("H2O"), molecule("CH4")]
    for each in atoms:
        if given.startswith("initial"):
            each.set_array(given.replace(" ", "_"), np.eye(1, len(each))[0])
        else:
            each.info[given] = 3
    calc = calculator()
    systems = BatchedSystems(calc.potential, [])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for each in atoms:
            calc.get_potential_energy(each)
        evaluate(atoms, calc.potential)
        for each in atoms:
            systems.add(each)
    told = [str(w.message) for w in caught if "ignored" in str(w.message)]
    assert len(told) == 3
    assert all(given in message for message in told)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for each in atoms:
            each.info |= {"charge": 0, "spin": 1}
            each.set_initial_charges(np.zeros(len(each)))
            each.set_initial_magnetic_moments(np.zeros(len(each)))
        calculator().get_potential_energy(atoms[0])
        evaluate(atoms, calc.potential)


@pytest.mark.parametrize("shared", ["nothing", "potential", "calculator"])
def test_threads_get_the_results_of_their_own_structures(shared: str) -> None:
    potential = random_potential(num_blocks=1)
    one = JMPCalculator(potential, dtype="float64", device="cpu")
    structures = [molecule(name) for name in ("H2O", "CH4", "CH3OH", "NH3")]
    expected = [(one.get_potential_energy(a), one.get_forces(a)) for a in structures]

    def compute(k: int) -> float:
        calc = one if shared == "calculator" else JMPCalculator(potential, dtype="float64")
        if shared == "potential":
            calc.potential = potential
        worst = 0.0
        for _ in range(8):
            atoms = structures[k].copy()
            atoms.calc = calc
            energy, forces = expected[k]
            worst = max(worst, abs(atoms.get_potential_energy() - energy))
            worst = max(worst, float(np.abs(atoms.get_forces() - forces).max()))
            if shared == "potential":
                item = System(atoms, potential, 1.0, False).item()
                assert embed(potential, item.structures).atoms.shape[0] == len(atoms)
        return worst

    with ThreadPoolExecutor(4) as pool:
        assert max(pool.map(compute, range(4))) < 1e-10


def test_threads_may_calculate_without_asking_for_a_property() -> None:
    """Drivers call it, with a structure each, and results are those of one of them."""
    calc = JMPCalculator(random_potential(num_blocks=1), dtype="float64", device="cpu")
    structures = [molecule(name) for name in ("H2O", "CH4", "CH3OH", "NH3")]
    expected = {round(calc.get_potential_energy(atoms), 8) for atoms in structures}
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(calc.calculate, structures * 10))
    assert round(calc.results["energy"], 8) in expected
