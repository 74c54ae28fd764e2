"""The kernels compute what the network's definition says, and stay out of the way elsewhere."""

from __future__ import annotations

import copy
import logging
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from factories import random_potential, write_model
from network_oracle import (
    largest_errors,
    oracle_prediction,
    sensitive_potential,
    structures_of,
)

from jmp_md import JMPCalculator
from jmp_md.evaluation import evaluate
from jmp_md.graph.pairs import Pairs
from jmp_md.graph.policy import GraphPolicy
from jmp_md.load import kernel_folder
from jmp_md.nn.kernels import library
from jmp_md.potential import Potential, Prediction
from jmp_md.step import FoldedStep

SMOOTH = GraphPolicy.smooth(4.0, 3.5, 2.9, 4.5)
OFFICIAL = GraphPolicy.official(6.0, 6)
DEEP = {"num_before_skip": 2, "num_concat": 3, "num_blocks": 3, "num_global_out_layers": 2}
NONE = {
    f"num_{name}": 0 for name in ("before_skip", "after_skip", "concat", "atom", "output_afteratom")
} | {"num_atom_emb_layers": 0, "num_global_out_layers": 0}
POTENTIALS = {
    "smooth": lambda: sensitive_potential(SMOOTH),
    "official": lambda: sensitive_potential(OFFICIAL),
    "deep": lambda: random_potential(graph=SMOOTH, **DEEP),
    "shallow": lambda: random_potential(graph=SMOOTH, **NONE),
    "wide": lambda: random_potential(
        graph=SMOOTH, emb_size_atom=36, emb_size_edge=36, emb_size_sbf=9, emb_size_cbf=17
    ),
    "repulsion": lambda: random_potential(graph=SMOOTH, head={"repulsion": 1.5, "bias": True}),
    "ranked": lambda: sensitive_potential(
        GraphPolicy("smooth", (4.0, 4.0, 2.9, 4.5), (5, 4, 2, 6))
    ),
}


def with_kernels(potential: Potential) -> Potential:
    copied = copy.deepcopy(potential)
    copied.step = FoldedStep(copied, kernel_folder())
    if shutil.which("g++") is None:
        pytest.skip("there is no C++ compiler to test the kernels with")
    assert copied.step.kernels is not None
    return copied


def ethanol() -> Atoms:
    atoms = molecule("CH3CH2OH")
    atoms.rattle(0.1, seed=0)
    return atoms


def salt() -> Atoms:
    atoms = bulk("NaCl", "rocksalt", 5.0)
    atoms.rattle(0.05, seed=1)
    return atoms


def predict(potential: Potential, atoms: Atoms, stress: bool = False) -> Prediction:
    s = structures_of(atoms, potential.policy.cutoff)
    return potential.predict(s, stress=stress)


@pytest.mark.parametrize("atoms", [ethanol(), salt()], ids=["molecule", "crystal"])
@pytest.mark.parametrize("name", POTENTIALS)
def test_kernels_give_what_the_operations_of_the_network_give(name: str, atoms: Atoms) -> None:
    potential = POTENTIALS[name]()
    stress = bool(atoms.pbc.any())
    got = predict(with_kernels(potential), atoms, stress)
    assert max(largest_errors(got, predict(potential, atoms, stress)).values()) < 1e-12


@pytest.mark.parametrize("graph", [SMOOTH, OFFICIAL], ids=["smooth", "official"])
def test_kernels_give_what_enumerating_triplets_and_quadruplets_gives(graph: GraphPolicy) -> None:
    potential, atoms = sensitive_potential(graph), salt()
    expected = oracle_prediction(potential, atoms, stress=True)
    got = predict(with_kernels(potential), atoms, stress=True)
    assert max(largest_errors(got, expected).values()) < 1e-10


def test_forces_of_kernels_are_differences_of_their_energies() -> None:
    potential, atoms, step = with_kernels(sensitive_potential(SMOOTH)), ethanol(), 1e-4
    forces = predict(potential, atoms).forces
    assert forces is not None
    for atom, axis in ((0, 0), (2, 1), (8, 2)):
        energies = []
        for shift in (-2, -1, 1, 2):
            moved = atoms.copy()
            moved.positions[atom, axis] += shift * step
            s = structures_of(moved, potential.policy.cutoff)
            energies.append(float(potential.predict(s, forces=False).energy))
        slope = (energies[0] - 8 * energies[1] + 8 * energies[2] - energies[3]) / (12 * step)
        assert float(forces[atom, axis]) == pytest.approx(-slope, abs=1e-9)


@pytest.mark.parametrize(
    "atoms",
    [
        Atoms("H"),
        Atoms("OH", [[0, 0, 0], [0, 0, 1.0]]),
        Atoms("HeNe", [[0, 0, 0], [0, 0, 30.0]]),
        Atoms("HCN", [[0, 0, 0], [0, 0, 1.07], [0, 0, 2.2]]),
        molecule("H2O") + Atoms("Ar", [[0, 0, 20.0]]),
    ],
    ids=["atom", "pair", "far apart", "in line", "with a lonely atom"],
)
@pytest.mark.parametrize("graph", [SMOOTH, OFFICIAL], ids=["smooth", "official"])
def test_structures_with_empty_sums(atoms: Atoms, graph: GraphPolicy) -> None:
    potential = sensitive_potential(graph)
    got, expected = predict(with_kernels(potential), atoms), predict(potential, atoms)
    assert max(largest_errors(got, expected).values()) < 1e-12


def test_single_precision_rounds_only() -> None:
    exact = predict(sensitive_potential(SMOOTH), ethanol())
    got = predict(with_kernels(sensitive_potential(SMOOTH).float()), ethanol())
    assert got.forces is not None
    assert got.forces.dtype == torch.float32
    assert max(largest_errors(got.on_host(), exact).values()) < 1e-5


def test_a_batch_gives_what_its_structures_give() -> None:
    potential = with_kernels(sensitive_potential(SMOOTH))
    structures = [ethanol(), salt(), Atoms("H"), molecule("C6H6")]
    together = evaluate(structures, potential)
    for atoms, got in zip(structures, together, strict=True):
        (alone,) = evaluate([atoms], potential)
        np.testing.assert_allclose(got.forces, alone.forces, rtol=0, atol=1e-12)
        assert got.energy == pytest.approx(alone.energy, abs=1e-12)


def test_the_number_of_threads_changes_no_bit() -> None:
    potential, atoms = with_kernels(sensitive_potential(SMOOTH)), molecule("C6H6")
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(predict(potential, atoms).forces)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1])


def test_threads_that_share_a_potential_do_not_disturb_each_other() -> None:
    potential = with_kernels(sensitive_potential(SMOOTH))
    structures = [ethanol(), salt()]
    expected = [predict(potential, atoms).forces for atoms in structures]
    wrong: list[int] = []

    def work(i: int) -> None:
        for _ in range(50):
            if not torch.equal(predict(potential, structures[i]).forces, expected[i]):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_changed_weights_count_at_once() -> None:
    potential = with_kernels(sensitive_potential(SMOOTH))
    before = predict(potential, ethanol())
    with torch.no_grad():
        for parameter in potential.backbone.parameters():
            parameter.mul_(0.9)
    plain = copy.deepcopy(potential)
    plain.step = None
    after = predict(potential, ethanol())
    assert float(after.energy) != float(before.energy)
    assert max(largest_errors(after, predict(plain, ethanol())).values()) < 1e-12


def test_auto_counts_what_kernels_need_where_they_compute(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sixth of what operations need in jmp-xs: more than these would have been lean."""
    structures = structures_of(ethanol(), SMOOTH.cutoff)
    potential = with_kernels(sensitive_potential(SMOOTH))
    sizes, slots = potential.header.architecture, 9 * 8
    between = 60 * sizes.emb_size_edge * sizes.num_blocks * slots * 8
    monkeypatch.setattr("jmp_md.nn.footprint._FEW", 0)
    forces = {}
    for memory, free in (("fast", 0), ("lean", 0), ("auto", 2 * between), ("auto", between // 4)):
        monkeypatch.setattr("jmp_md.nn.footprint.free_memory", lambda device, free=free: free)
        potential.memory = memory
        forces[memory, free] = potential.predict(structures).forces
    by_kernels, by_operations, enough, little = forces.values()
    assert not torch.equal(by_kernels, by_operations)  # they round differently
    assert torch.equal(enough, by_kernels)
    assert torch.equal(little, by_operations)


@pytest.mark.skipif(sys.platform != "linux", reason="measures with /proc")
def test_kernels_take_no_more_memory_than_auto_counts_with() -> None:
    code = """
from pathlib import Path
from ase import Atoms
from jmp_md import JMPCalculator
import numpy as np

def peak():
    # Not ru_maxrss, which a new process has from the one that started it.
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

rng = np.random.default_rng(0)
cell = 6 * np.mgrid[0:4, 0:4, 0:4].reshape(3, -1).T
small = Atoms("CH4", [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [-0.6, -0.6, -0.6]])
small.calc = JMPCalculator("jmp-xs-organic", memory="fast")
small.get_forces()
assert small.calc.potential.step.kernels is not None
many = Atoms("CH4" * 64, np.concatenate([small.positions + place for place in 0.65 * cell]))
before = peak()
many.calc = small.calc
many.get_forces()
taken = peak() - before
structures = small.calc._structure.at(many.positions, many.numbers, many.cell.array, many.pbc)
slots = small.calc.potential.graph_of(structures).differ_quadruplet.shape[:2].numel()
c = small.calc.potential.header.architecture
print(taken, 40 * c.emb_size_edge * c.num_blocks * 4 * slots)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    taken, counted = map(float, done.stdout.split())
    assert 0.3 * counted < taken < 1.1 * counted


def test_direct_forces_lean_memory_and_other_types_are_left_to_operations() -> None:
    potential = sensitive_potential(SMOOTH, direct=True)
    other = with_kernels(potential)
    s = structures_of(ethanol(), potential.policy.cutoff)
    for memory, direct in (("fast", True), ("lean", False)):
        other.memory = memory
        got, expected = (p.predict(s, direct=direct) for p in (other, potential))
        assert max(largest_errors(got, expected).values()) < 1e-12
    other.backbone.bf16 = True
    assert isinstance(other.step, FoldedStep)
    assert other.step.kernels is None
    other.predict(s)


def step_of(model: Path, **options: bool) -> FoldedStep:
    potential = JMPCalculator(model, dtype="float64", **options).potential
    assert isinstance(potential.step, FoldedStep)
    return potential.step


def test_kernels_are_the_default_and_can_be_turned_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = write_model(tmp_path)
    assert step_of(model).kernels is not None
    assert step_of(model, kernels=False).kernels is None
    monkeypatch.setenv("JMP_MD_KERNELS", "off")
    assert step_of(model).kernels is None


@pytest.mark.parametrize("compiler", ["none", "broken"])
def test_without_a_compiler_that_works_operations_do(
    compiler: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    broken = tmp_path / "g++"
    broken.write_bytes(b"#!/bin/sh\necho 'error: no \xff' >&2\nexit 1\n")
    broken.chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path) if compiler == "broken" else "")
    monkeypatch.setenv("CXX", "")
    potential = sensitive_potential(SMOOTH)
    other = copy.deepcopy(potential)
    other.step = FoldedStep(other, tmp_path / "kernels")
    assert other.step.kernels is None
    assert predict(other, ethanol()).energy == pytest.approx(
        predict(potential, ethanol()).energy, rel=1e-12
    )
    why = library.load(tmp_path / "kernels", torch.float64, 4)
    assert why == (
        "there is no C++ compiler"
        if compiler == "none"
        else f"{broken} fails with 1: error: no \ufffd"
    )
    assert f"computing without kernels, slower: {why}" in caplog.messages
    assert not list((tmp_path / "kernels").glob("*")) if compiler == "broken" else True


@pytest.mark.slow
def test_compiled_code_that_a_disk_has_spoiled_is_compiled_again(tmp_path: Path) -> None:
    code = (
        "import sys, torch; from pathlib import Path; from jmp_md.nn.kernels.library import load\n"
        "assert callable(load(Path(sys.argv[1]), torch.float32, 3))"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    subprocess.run(command, check=True)
    (compiled,) = tmp_path.glob("*.so")
    whole = compiled.read_bytes()
    compiled.write_bytes(whole[: len(whole) // 2])
    subprocess.run(command, check=True)
    assert compiled.stat().st_size > len(whole) // 2


@pytest.mark.parametrize("number", [-1, 0, 10_000_000])
def test_elements_that_do_not_exist_are_refused(number: int) -> None:
    potential = with_kernels(sensitive_potential(SMOOTH))
    structures = structures_of(ethanol(), SMOOTH.cutoff)
    numbers = structures.numbers.clone()
    numbers[2] = number
    with pytest.raises(IndexError):
        potential.predict(structures._replace(numbers=numbers))


def test_indices_may_be_of_any_integer_type() -> None:
    potential = with_kernels(sensitive_potential(SMOOTH))
    s = structures_of(ethanol(), SMOOTH.cutoff)
    narrow = s._replace(
        numbers=s.numbers.to(torch.uint8),
        structure=s.structure.int(),
        pairs=Pairs(*(column.int() for column in s.pairs)),
    )
    assert torch.equal(potential.predict(narrow).energy, potential.predict(s).energy)


def test_a_position_that_is_no_number_gives_no_forces() -> None:
    potential = sensitive_potential(SMOOTH)
    s = structures_of(ethanol(), SMOOTH.cutoff)
    positions = s.positions.clone()
    positions[0, 0] = float("nan")
    for either in (potential, with_kernels(potential)):
        assert either.predict(s._replace(positions=positions)).forces.isnan().any()


@pytest.mark.slow
def test_processes_that_compile_at_once_both_get_whole_code(tmp_path: Path) -> None:
    code = (
        "import sys, torch; from pathlib import Path; from jmp_md.nn.kernels.library import load\n"
        "assert callable(load(Path(sys.argv[1]), torch.float32, 3))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "kernels")]
    processes = [subprocess.Popen(command) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    (only,) = (tmp_path / "kernels").iterdir()
    assert only.suffix == ".so"


@pytest.mark.slow
def test_compiling_is_told_with_its_time_and_done_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    potential = random_potential(graph=SMOOTH, num_spherical=7).float()
    with caplog.at_level(logging.INFO, "jmp_md"):
        potential.step = FoldedStep(potential, tmp_path)
        assert potential.step.kernels is not None
    assert [message.split()[0] for message in caplog.messages] == ["compiling", "compiled"]
    caplog.clear()
    plain = copy.deepcopy(potential)
    plain.step = None
    errors = largest_errors(
        predict(potential, ethanol()).on_host(), predict(plain, ethanol()).on_host()
    )
    assert max(errors.values()) < 1e-5
    assert not caplog.messages


def test_code_that_others_may_write_to_is_not_run(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    why = library.load(tmp_path, torch.float64, 4)
    assert isinstance(why, str)
    assert "others may write to" in why
