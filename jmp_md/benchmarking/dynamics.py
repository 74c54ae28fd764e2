"""Dynamics: conservation of energy, whether molecules stay whole, and speed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from ase import Atoms
from ase.io import read

from jmp_md.benchmarking.results import Case
from jmp_md.benchmarking.subject import Subject, molecules
from jmp_md.connectivity import Contacts, same_molecule
from jmp_md.domain import forms
from jmp_md.runs.md import run_md
from jmp_md.simulate.relax import relax

# Closed shells of H, C, N, O, S, F and Cl: chains, rings, hydrogen bonded groups.
MOLECULES = (
    "trans-butane", "isobutane", "C3H6_Cs", "OCHCHO", "C4H4O", "H2CCHCN", "C5H5N", "CH3CONH2",
    "CH3COOH", "CH3SCH3", "CH2SCH2", "CH3CH2Cl",
)  # fmt: skip
TIMED = {"CH3CH2OH": 1, "C6H6": 1, "C5H5N": 6}  # copies, stacked 4 Å apart
STEPS, TIMESTEP, TEMPERATURE = 1000, 0.5, 300.0
MOVED = 0.02  # Å, each atom, from one timed step to the next


def drift(subject: Subject) -> list[Case]:
    """Drift of the total energy in half a ps without a thermostat, from 300 K."""

    def measure(name: str, atoms: Atoms) -> Case:
        minimum = relax(atoms, fmax=0.02).atoms
        with TemporaryDirectory() as folder:
            found = run_md(minimum, folder, ensemble="nve", steps=STEPS, timestep=TIMESTEP,
                       temperature=2 * TEMPERATURE, report=False)  # fmt: skip
        return Case(name, found.drift, 0.0)

    return subject.attempt(molecules(MOLECULES[:4]), measure)


def stability(subject: Subject) -> list[Case]:
    """Share of frames in which a molecule has lost or made a bond, in half a ps at 300 K."""

    def measure(name: str, atoms: Atoms) -> Case:
        own = forms([atoms])
        with TemporaryDirectory() as folder:
            run = run_md(atoms, folder, steps=STEPS, timestep=TIMESTEP, temperature=TEMPERATURE,
                     report=False)  # fmt: skip
            frames = read(Path(run.trajectory), ":")
        broken = [not same_molecule(Contacts(frame), own) for frame in frames]
        return Case(name, float(np.mean(broken)), 0.0)

    return subject.attempt(molecules(MOLECULES), measure)


def speed(subject: Subject) -> list[Case]:
    """Wall time of a step, energy and forces after all atoms have moved; median of ten."""

    def measure(name: str, atoms: Atoms) -> Case:
        times = []
        rng = np.random.default_rng(0)
        start = atoms.positions.copy()
        for _ in range(13):
            atoms.positions = start + rng.normal(0, MOVED, start.shape)
            began = time.perf_counter()
            atoms.get_forces()
            times.append(1000 * (time.perf_counter() - began))
        return Case(f"{len(atoms)} atoms", float(np.median(times[3:])))

    return subject.attempt(_apart(), measure)


def _apart() -> Iterator[tuple[str, Atoms]]:
    for (name, one), copies in zip(molecules(tuple(TIMED)), TIMED.values(), strict=True):
        atoms = Atoms()
        for k in range(copies):
            copy = one.copy()
            copy.positions += [0.0, 0.0, 4.0 * k]
            atoms += copy
        yield name, atoms
