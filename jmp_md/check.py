"""The checks of a careful user: does a model, on a structure, do what physics asks of it?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from ase import Atoms, units
from ase.md.velocitydistribution import Stationary
from ase.md.verlet import VelocityVerlet
from scipy.spatial.transform import Rotation

from jmp_md.batch import Result
from jmp_md.calculators.ase import JMPCalculator
from jmp_md.checkpoints.exported import FixedPotential
from jmp_md.errors import InputError
from jmp_md.evaluation import evaluate
from jmp_md.export.write import general_module
from jmp_md.graph.pairs import find_pairs, pair_distances
from jmp_md.load import load_model
from jmp_md.potential import Potential
from jmp_md.systems import BatchedSystems

# Five-point rule for the first derivative, error of fourth order in the step.
_STENCIL = ((-2, 1 / 12), (-1, -8 / 12), (1, 8 / 12), (2, -1 / 12))
_STEP, _STRAIN = 1e-3, 5e-4  # Å and share of the cell
_ATOMS_DISPLACED = 4
_SCAN = np.arange(-40, 41) * 0.0025  # Å
_TIMESTEP, _TEMPERATURE = 0.5, 300.0  # fs, K
MEV = 1000.0


@dataclass(frozen=True)
class Outcome:
    """What a check measured.

    Attributes:
        name: Name of the check.
        measured: The number; None where the check does not apply.
        limit: Largest number that passes; None where there is nothing to fail.
        unit: Unit of both.
        note: What else there is to know, such as why a check does not apply.
    """

    name: str
    measured: float | None
    limit: float | None
    unit: str
    note: str = ""

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong; a value that is not a number is."""
        return self.measured is None or self.limit is None or self.measured <= self.limit


@dataclass(frozen=True)
class Subject:
    """What is checked.

    Attributes:
        atoms: The structure, without constraints.
        potential: The model in float64.
        dtype: ``"float32"`` or ``"float64"``, what simulations run in.
        seed: Of random displacements, rotations and velocities.
        steps: Steps of the dynamics.
        compile: Whether to compile the network.
    """

    atoms: Atoms
    potential: Potential
    dtype: str
    seed: int
    steps: int
    compile: bool = False

    @property
    def rng(self) -> np.random.Generator:
        """A fresh source of random numbers, so that checks do not depend on each other."""
        return np.random.default_rng(self.seed)

    @cached_property
    def own(self) -> Result:
        """The structure as it is, by itself."""
        return self.results([self.atoms])[0]

    def results(self, structures: Sequence[Atoms]) -> list[Result]:
        """Energies, forces and stress where there is one, in float64."""
        return evaluate(structures, self.potential, properties=("energy", "forces", "stress"))

    def energies(self, structures: Sequence[Atoms]) -> np.ndarray:
        """(n_structures,) eV in float64."""
        return np.array([r.energy for r in evaluate(structures, self.potential, properties=())])

    def moved(self, positions: np.ndarray) -> Atoms:
        """A copy with other positions."""
        copy = self.atoms.copy()
        copy.positions = positions
        return copy

    def rattled(self, amplitude: float) -> Atoms:
        """A copy with every coordinate displaced by up to ``amplitude`` Å."""
        shift = self.rng.uniform(-amplitude, amplitude, self.atoms.positions.shape)
        return self.moved(self.atoms.positions + shift)


def check(
    atoms: Atoms,
    model: str | Path | Potential,
    *,
    head: str | None = None,
    dtype: str = "float32",
    device: str | torch.device | None = None,
    seed: int = 0,
    steps: int = 200,
    compile: bool = False,
) -> Iterator[Outcome]:
    """Check a model on a structure; outcomes come as they are found.

    Args:
        atoms: The structure, best near a minimum; constraints are left out.
        model: Name that ``jmp-md models`` lists, file of a model, or a loaded potential.
        head: Task of a model with several.
        dtype: ``"float32"`` or ``"float64"``, for the dynamics; other checks are in float64.
        device: E.g. ``"cuda:1"``; None takes CUDA where there is one.
        seed: Of random displacements, rotations and velocities.
        steps: Steps of the dynamics, of 0.5 fs.
        compile: Whether to compile the network, which can take minutes, and compare.

    Raises:
        InputError: A structure or option that cannot be used.
        ModelNotFoundError: The model is not at hand.
        CheckpointError: The file is damaged, or has no such head.
    """
    if steps < 10:
        raise InputError(f"steps = {steps}: a drift shows in 10 steps or more, 200 is usual")
    potential = load_model(model, head=head, dtype=torch.float64, device=device)
    if isinstance(potential, FixedPotential):
        dtype = "float64"  # as it was exported
    free = atoms.copy()
    free.set_constraint()
    subject = Subject(free, potential, dtype, seed, steps, compile)
    for function in CHECKS:
        yield function(subject)


def force_gradient(s: Subject) -> Outcome:
    """Forces against finite differences of the energy, for a few atoms."""
    n = len(s.atoms)
    chosen = s.rng.choice(n, min(n, _ATOMS_DISPLACED), replace=False)
    places = [(int(i), axis) for i in chosen for axis in range(3)]
    displaced = []
    for i, axis in places:
        for step, _ in _STENCIL:
            positions = s.atoms.positions.copy()
            positions[i, axis] += step * _STEP
            displaced.append(s.moved(positions))
    numeric = -_derivatives(s.energies(displaced), _STEP)
    analytic = _forces(s.own)[tuple(np.array(places).T)]
    error = float(np.abs(numeric - analytic).max())
    return Outcome("forces are the gradient", error, 1e-5, "eV/Å", f"{len(chosen)} atoms displaced")


def stress_gradient(s: Subject) -> Outcome:
    """Stress against finite differences of the energy, for all six strains."""
    name, unit = "stress is the gradient", "eV/Å³"
    if s.own.stress is None:
        return Outcome(name, None, None, unit, "not periodic in three directions")
    strained = []
    for i, j in _STRAINS:
        for step, _ in _STENCIL:
            deformation = np.eye(3)
            deformation[i, j] += 0.5 * step * _STRAIN
            deformation[j, i] += 0.5 * step * _STRAIN
            copy = s.atoms.copy()
            copy.set_cell(copy.cell.array @ deformation, scale_atoms=True)
            strained.append(copy)
    numeric = _derivatives(s.energies(strained), _STRAIN) / s.atoms.get_volume()
    analytic = np.array([s.own.stress[i, j] for i, j in _STRAINS])
    return Outcome(name, float(np.abs(numeric - analytic).max()), 1e-6, unit)


def translation(s: Subject) -> Outcome:
    """The structure elsewhere, periodic ones wrapped differently."""
    shift = s.rng.uniform(-20, 20, 3)
    (result,) = s.results([s.moved(s.atoms.positions + shift)])
    return Outcome("translation", _difference(result, s.own), 1e-8, "eV, eV/Å")


def rotation(s: Subject) -> Outcome:
    """The structure and its cell turned at random."""
    turn = Rotation.random(random_state=s.seed).as_matrix()
    turned = s.atoms.copy()
    turned.set_cell(turned.cell.array @ turn.T)
    turned.positions = s.atoms.positions @ turn.T
    (result,) = s.results([turned])
    back = Result(result.energy, result.energies, _forces(result) @ turn)
    return Outcome("rotation", _difference(back, s.own), 1e-8, "eV, eV/Å")


def permutation(s: Subject) -> Outcome:
    """The atoms in reverse order."""
    order = np.arange(len(s.atoms))[::-1]
    (result,) = s.results([s.atoms[order]])
    back = np.argsort(order)
    restored = Result(result.energy, result.energies[back], _forces(result)[back])
    note = "the official main graph depends on the order of atoms where it is truncated"
    error = _difference(restored, s.own)
    return Outcome("order of atoms", error, 1e-8, "eV, eV/Å", note if error > 1e-8 else "")


def continuity(s: Subject) -> Outcome:
    """Jumps of the energy, beyond what the forces explain, while all atoms move straight on."""
    direction = s.rng.standard_normal(s.atoms.positions.shape)
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    results = s.results([s.moved(s.atoms.positions + x * direction) for x in _SCAN])
    energy = np.array([r.energy for r in results])
    slope = -np.array([np.vdot(_forces(r), direction) for r in results])
    work = (slope[:-2] + 4 * slope[1:-1] + slope[2:]) * (_SCAN[1] - _SCAN[0]) / 3  # Simpson
    jump = energy[2:] - energy[:-2] - work
    note = f"atoms moved by up to {_SCAN[-1]:.1f} Å; {_truncation(s)}"
    return Outcome("energy has no jumps", MEV * float(np.abs(jump).max()), 0.1, "meV", note)


def batch_independence(s: Subject) -> Outcome:
    """The structure in a batch with copies that have fewer neighbours, against each alone."""
    apart = s.atoms.copy()
    apart.set_cell(2 * apart.cell.array)
    apart.positions *= 2
    batch = [apart, s.rattled(0.1), s.atoms]
    alone = [*(s.results([atoms])[0] for atoms in batch[:2]), s.own]
    error = max(_difference(a, b) for a, b in zip(s.results(batch), alone, strict=True))
    return Outcome("independent of the batch", error, 1e-9, "eV, eV/Å")


def cached_neighbours(s: Subject) -> Outcome:
    """Neighbours searched for before the atoms moved, against fresh ones."""
    systems = BatchedSystems(s.potential, [s.atoms])
    systems.compute()
    moved = s.rattled(0.25)
    (cached,), (fresh,) = systems.compute([moved.positions]), s.results([moved])
    note = "" if systems.rebuilds == 1 else "neighbours were searched for again"
    return Outcome("reused neighbours", _difference(cached, fresh), 1e-9, "eV, eV/Å", note)


def single_precision(s: Subject) -> Outcome:
    """Forces in float32 against float64."""
    if isinstance(s.potential, FixedPotential):
        note = "an exported file has its own precision"
        return Outcome("float32 against float64", None, None, "meV/Å", note)
    (result,) = evaluate([s.atoms], s.potential, dtype="float32")
    error = MEV * float(np.abs(_forces(result) - _forces(s.own)).max())
    return Outcome("float32 against float64", error, 1.0, "meV/Å")


def bfloat16(s: Subject) -> Outcome:
    """Forces with dense layers in bfloat16 against float64; told, as it is a choice."""
    name, unit = "bf16 against float64", "meV/Å"
    if isinstance(s.potential, FixedPotential):
        return Outcome(name, None, None, unit, "an exported file has its own precision")
    device = s.potential.embedding.weight.device
    reduced = load_model(s.potential, dtype=torch.float32, device=device, precision="bf16")
    (result,) = evaluate([s.atoms], reduced)
    error = MEV * float(np.abs(_forces(result) - _forces(s.own)).max())
    return Outcome(name, error, None, unit, "what precision='bf16' would cost")


def compiled(s: Subject) -> Outcome:
    """The model in TorchScript, as it is exported, against the one in Python."""
    name, unit = "TorchScript", "eV, eV/Å"
    if isinstance(s.potential, FixedPotential):
        return Outcome(name, None, None, unit, "the model is a TorchScript file already")
    device = s.potential.embedding.weight.device
    with torch.jit.optimized_execution(False):
        energy, forces, _ = general_module(s.potential, "conservative")(
            torch.from_numpy(s.atoms.positions).to(device),
            torch.from_numpy(s.atoms.numbers).to(device),
            torch.from_numpy(s.atoms.cell.array).to(device).unsqueeze(0),
            torch.from_numpy(s.atoms.pbc).to(device).unsqueeze(0),
            torch.zeros(len(s.atoms), dtype=torch.long, device=device),
        )
    result = Result(float(energy), s.own.energies, forces.cpu().numpy())
    return Outcome(name, _difference(result, s.own), 1e-9, unit)


def machine_code(s: Subject) -> Outcome:
    """The compiled network against eager mode, both in the type that simulations run in."""
    name, unit = "compiled", "eV, eV/Å"
    if isinstance(s.potential, FixedPotential):
        return Outcome(name, None, None, unit, "an exported file is not compiled")
    if not s.compile:
        return Outcome(name, None, None, unit, "not asked for: --compile, or compile=True")
    dtype, device = getattr(torch, s.dtype), s.potential.embedding.weight.device
    fast = load_model(s.potential, dtype=dtype, device=device, memory="fast", compile=True)
    (result,), (eager,) = evaluate([s.atoms], fast), evaluate([s.atoms], s.potential, dtype=s.dtype)
    assert fast.compiled is not None
    if fast.compiled.failure or not fast.compiled.seconds:
        return Outcome(
            name, None, None, unit, fast.compiled.failure or "the structure is too small"
        )
    limit = {"float32": 1e-3, "float64": 1e-9}[s.dtype]
    note = f"{s.dtype}, ready after {fast.compiled.seconds:.1f} s"
    return Outcome(name, _difference(result, eager), limit, unit, note)


def energy_drift(s: Subject) -> Outcome:
    """Drift of the total energy in dynamics at constant energy, by a straight line."""
    name, unit = "energy is conserved", "meV/atom"
    if len(s.atoms) < 2:
        return Outcome(name, None, None, unit, "dynamics needs two atoms or more")
    atoms = s.atoms.copy()
    device = s.potential.embedding.weight.device
    atoms.calc = JMPCalculator(s.potential, dtype=s.dtype, device=device)
    width = np.sqrt(units.kB * _TEMPERATURE * atoms.get_masses())  # Maxwell and Boltzmann
    atoms.set_momenta(s.rng.standard_normal((len(atoms), 3)) * width[:, None])
    Stationary(atoms)
    dynamics = VelocityVerlet(atoms, timestep=_TIMESTEP * units.fs)
    total = [atoms.get_total_energy() for _ in dynamics.irun(s.steps)]
    slope = np.polyfit(np.arange(len(total)), total, 1)[0]
    drift = MEV * abs(float(slope)) * s.steps / len(atoms)
    note = f"{s.steps * _TIMESTEP:g} fs of NVE from {_TEMPERATURE:g} K, {s.dtype}"
    return Outcome(name, drift, 0.5, unit, note)


CHECKS: tuple[Callable[[Subject], Outcome], ...] = (
    force_gradient,
    stress_gradient,
    translation,
    rotation,
    permutation,
    continuity,
    batch_independence,
    cached_neighbours,
    single_precision,
    bfloat16,
    compiled,
    machine_code,
    energy_drift,
)
_STRAINS = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))


def _derivatives(energies: np.ndarray, step: float) -> np.ndarray:
    """First derivatives from energies at the points of the stencil, one row per derivative."""
    weights = np.array([weight for _, weight in _STENCIL])
    # Less the first of a row: the difference matters, and energies may be large.
    rows = energies.reshape(-1, len(_STENCIL))
    derivatives: np.ndarray = (rows - rows[:, :1]) @ weights / step
    return derivatives


def _forces(result: Result) -> np.ndarray:
    assert result.forces is not None
    return result.forces


def _difference(a: Result, b: Result) -> float:
    """Largest difference in energy (eV) or a force component (eV/Å)."""
    return max(abs(a.energy - b.energy), float(np.abs(_forces(a) - _forces(b)).max()))


def _truncation(s: Subject) -> str:
    """How many atoms have more neighbours within a cutoff than a graph keeps."""
    policy, atoms = s.potential.policy, s.atoms
    cell, pbc = atoms.cell.array, atoms.pbc
    pairs = find_pairs(atoms.positions, cell, pbc, policy.cutoff)
    source, target, offset = (p.numpy() for p in (pairs.source, pairs.target, pairs.offset))
    distance = pair_distances(atoms.positions, cell, source, target, offset)
    truncated = np.zeros(len(atoms), dtype=bool)
    for cutoff, count in zip(policy.cutoffs, policy.counts, strict=True):
        if count is not None:
            near = np.bincount(target[distance <= cutoff], minlength=len(atoms))
            truncated |= near > count
    if not truncated.any():
        return "no neighbours are left out"
    return f"{truncated.sum()} of {len(atoms)} atoms have more neighbours than the graphs keep"
