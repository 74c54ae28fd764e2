"""Simulations of one structure in ASE, PythonForce and TorchForce, driven alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch  # before openmm

# isort: split
from ase import Atoms, units
from ase.build import molecule
from ase.io import read
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution, Stationary
from ase.md.verlet import VelocityVerlet
from structures import water

from jmp_md.calculators.ase import JMPCalculator
from jmp_md.units import EV_IN_KJ_PER_MOL, NM_IN_ANGSTROM

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
ENGINES = ("ase", "python", "torch")
STEP = 0.5  # fs
TEMPERATURE = 300.0  # K
SPEED = 1000 * units.fs / NM_IN_ANGSTROM  # ASE's unit of velocity in nm/ps


@dataclass
class Run:
    """A simulation in one engine: potential and kinetic energy in eV, positions in Å."""

    step: Callable[[int], object]
    energies: Callable[[], tuple[float, float]]
    forces: Callable[[], np.ndarray]
    state: Callable[[], tuple[np.ndarray, np.ndarray]]  # positions, velocities in ASE's units


def simulation(
    engine: str,
    atoms: Atoms,
    model: str,
    *,
    dtype: str = "float32",
    friction: float = 0.0,
    seed: int = 1,
) -> Run:
    """Velocity Verlet, or Langevin dynamics at 300 K where there is friction (1/fs)."""
    if engine == "ase":
        return _ase(atoms.copy(), JMPCalculator(model, dtype=dtype, device="cpu"), friction, seed)
    import openmm

    from jmp_md.calculators.openmm import jmp_force

    system = openmm.System()
    for mass in atoms.get_masses():
        system.addParticle(mass)
    periodic = bool(atoms.pbc.all())
    if periodic:
        system.setDefaultPeriodicBoxVectors(*atoms.cell.array / NM_IN_ANGSTROM)
    options: dict[str, Any] = {"device": "cpu", "periodic": periodic, "dtype": dtype}
    system.addForce(jmp_force(model, atoms.numbers, backend=engine, **options))
    integrator = openmm.VerletIntegrator(STEP / 1000)
    if friction:
        integrator = openmm.LangevinMiddleIntegrator(TEMPERATURE, 1000 * friction, STEP / 1000)
        integrator.setRandomNumberSeed(seed)
    # The platform that computes in double precision, where the potential takes all the time.
    reference = openmm.Platform.getPlatformByName("Reference")
    context = openmm.Context(system, integrator, reference)
    context.setPositions(atoms.positions / NM_IN_ANGSTROM)
    context.setVelocities(atoms.get_velocities() * SPEED)

    def energies() -> tuple[float, float]:
        state = context.getState(energy=True)
        both = state.getPotentialEnergy()._value, state.getKineticEnergy()._value
        return both[0] / EV_IN_KJ_PER_MOL, both[1] / EV_IN_KJ_PER_MOL

    def forces() -> np.ndarray:
        found = context.getState(forces=True).getForces(asNumpy=True)._value
        return found / (EV_IN_KJ_PER_MOL * NM_IN_ANGSTROM)

    def state() -> tuple[np.ndarray, np.ndarray]:
        now = context.getState(positions=True, velocities=True)
        positions = now.getPositions(asNumpy=True)._value * NM_IN_ANGSTROM
        return positions, now.getVelocities(asNumpy=True)._value / SPEED

    # TorchScript would optimise for seconds and gain nothing; contexts are made with the optimiser.
    plain = torch.jit.optimized_execution(False)
    return Run(plain(integrator.step), plain(energies), plain(forces), state)


def _ase(atoms: Atoms, calculator: JMPCalculator, friction: float, seed: int) -> Run:
    atoms.calc = calculator
    if friction:
        dynamics = Langevin(
            atoms,
            STEP * units.fs,
            temperature_K=TEMPERATURE,
            friction=friction / units.fs,
            fixcm=False,
            rng=np.random.default_rng(seed),
        )
    else:
        dynamics = VelocityVerlet(atoms, STEP * units.fs)
    return Run(
        dynamics.run,
        lambda: (atoms.get_potential_energy(), atoms.get_kinetic_energy()),
        atoms.get_forces,
        lambda: (atoms.positions, atoms.get_velocities()),
    )


def systems(folder: Path) -> dict[str, tuple[Atoms, str]]:
    """Structures by name, with the model for each."""
    ethanol, aspirin = molecule("CH3CH2OH"), read(EXAMPLES / "aspirin.xyz")
    return {
        "ethanol": (ethanol, "jmp-xs-rmd17-ethanol"),
        "aspirin": (aspirin, "jmp-xs-rmd17-aspirin"),
        "water box": (water(8), str(folder / "random.safetensors")),
    }


def warm(atoms: Atoms) -> Atoms:
    """With velocities of 300 K, the same in all engines."""
    MaxwellBoltzmannDistribution(atoms, temperature_K=TEMPERATURE, rng=np.random.default_rng(2))
    Stationary(atoms)
    return atoms
