"""A process that was forked computes, or says why not; it never waits for ever."""

from __future__ import annotations

import multiprocessing
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from factories import random_potential
from processes import run_alone

from jmp_md.calculators.ase import JMPCalculator
from jmp_md.errors import InputError
from jmp_md.forks import expect_threads_of
from jmp_md.potential import Potential
from jmp_md.training.batches import PairedFrames, TaskFrames, batches
from jmp_md.training.data.ase_files import open_ase
from jmp_md.training.sampling import EpochSampler

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing forks by itself")


def energy(potential: Potential) -> float:
    atoms = molecule("H2O")
    atoms.calc = JMPCalculator(potential, dtype="float64", device="cpu")
    return float(atoms.get_potential_energy())


def in_fork(function: Callable[..., object], *arguments: object) -> object:
    with multiprocessing.get_context("fork").Pool(1) as pool:
        return pool.apply(function, arguments)


def energy_with_one_thread(potential: Potential) -> float:
    torch.set_num_threads(1)
    return energy(potential)


def fork_after_computing() -> None:
    torch.set_num_threads(2)
    potential = random_potential()
    torch.ones(1_000_000).exp()  # what leaves threads behind, whatever the machine
    expected = energy(potential)
    for function, arguments in ((energy, (potential,)), (random_potential, ())):
        with pytest.raises(InputError, match=r"get_context\('spawn'\).*set_num_threads\(1\)"):
            in_fork(function, *arguments)
    assert in_fork(energy_with_one_thread, potential) == pytest.approx(expected, abs=1e-9)
    torch.set_num_threads(1)
    assert in_fork(energy, potential) == pytest.approx(expected, abs=1e-9)


def energy_with_two_threads(potential: Potential) -> float:
    torch.set_num_threads(2)
    return energy(potential)


def fork_without_losing_threads() -> None:
    torch.set_num_threads(1)
    potential = random_potential()
    expected = pytest.approx(energy(potential), abs=1e-9)
    assert in_fork(energy_with_two_threads, potential) == expected

    torch.set_num_threads(2)
    found: list[float] = []
    # Each thread has OpenMP threads of its own, so that the one that forks has none to lose.
    thread = threading.Thread(target=lambda: found.append(energy(potential)))
    thread.start()
    thread.join()
    assert in_fork(energy, potential) == expected == found[0]

    expect_threads_of(torch.nn.Linear(100, 100))  # torch copies it with one thread
    assert in_fork(energy, potential) == expected
    expect_threads_of(torch.nn.Linear(200, 200))  # as a model of the paper's size was loaded
    with pytest.raises(InputError, match="forked"):
        in_fork(energy, potential)


def batches_after_computing(path: Path) -> None:
    torch.set_num_threads(2)
    torch.ones(1_000_000).exp()
    energy(random_potential())
    here = TaskFrames({"a": PairedFrames(open_ase(path), 5.0)})
    keys = [EpochSampler("a", len(here.tasks["a"]), 2, 0).batch(step) for step in range(3)]
    one = [batch["a"].positions for batch in batches(here, keys, 0)]
    other = [batch["a"].positions for batch in batches(here, keys, 2)]
    assert len(one) == len(other) == 3
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_a_fork_after_computing_with_threads_is_refused_or_computes_with_one() -> None:
    run_alone(fork_after_computing)


def test_a_fork_that_lost_no_threads_computes_with_several() -> None:
    run_alone(fork_without_losing_threads)


def test_workers_make_batches_after_threads_have_computed(tmp_path: Path) -> None:
    frames = [molecule("H2O") for _ in range(6)]
    for i, atoms in enumerate(frames):
        atoms.rattle(0.1, seed=i)
        atoms.calc = SinglePointCalculator(atoms, energy=-1.0 * i, forces=atoms.positions)
    write(tmp_path / "water.extxyz", frames)
    run_alone(batches_after_computing, tmp_path / "water.extxyz")
