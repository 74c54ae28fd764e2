"""Systems for the tests of OpenMM, and what OpenMM computes for them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch  # before openmm

# isort: split
import openmm
from ase import Atoms
from openmm import app, unit
from openmm.app.internal.unitcell import reducePeriodicBoxVectors

from jmp_md.units import EV_IN_KJ_PER_MOL

KJ = EV_IN_KJ_PER_MOL


def crystal() -> Atoms:
    """Three atoms in a skewed cell, in the reduced form OpenMM asks for."""
    cell = [[4.0, 0.0, 0.0], [1.2, 3.8, 0.0], [-0.9, 1.1, 4.4]]
    box = reducePeriodicBoxVectors([openmm.Vec3(*row) for row in cell] * unit.angstrom)
    scaled = [[0.1, 0.0, 0.05], [0.45, 0.5, 0.4], [0.7, 0.2, 0.8]]
    reduced = np.array([list(row) for row in box.value_in_unit(unit.angstrom)])
    return Atoms("SiOC", cell=reduced, scaled_positions=scaled, pbc=True)


def topology_of(atoms: Atoms, bonds: list[tuple[int, int]] | None = None) -> app.Topology:
    """Every atom in one residue, or a virtual site where the symbol is X."""
    topology = app.Topology()
    residue = topology.addResidue("MOL", topology.addChain())
    made = []
    for symbol, number in zip(atoms.symbols, atoms.numbers, strict=True):
        element = app.Element.getByAtomicNumber(int(number)) if number > 0 else None
        made.append(topology.addAtom(symbol, element, residue))
    for i, j in bonds or []:
        topology.addBond(made[i], made[j])
    if atoms.pbc.all():
        topology.setPeriodicBoxVectors(
            [openmm.Vec3(*row) for row in atoms.cell.array] * unit.angstrom
        )
    return topology


def empty_system(atoms: Atoms) -> openmm.System:
    """Particles without forces."""
    system = openmm.System()
    for mass in atoms.get_masses():
        system.addParticle(mass)
    if atoms.pbc.all():
        system.setDefaultPeriodicBoxVectors(*atoms.cell.array / 10)
    return system


def platforms() -> list[str]:
    """Platforms on which a context can be made here."""
    found = []
    for k in range(openmm.Platform.getNumPlatforms()):
        platform = openmm.Platform.getPlatform(k)
        system = openmm.System()
        system.addParticle(1.0)
        try:
            openmm.Context(system, openmm.VerletIntegrator(0.001), platform)
        except openmm.OpenMMException:  # no device
            continue
        found.append(platform.getName())
    return found


def context_of(
    system: openmm.System,
    positions: Any,
    integrator: openmm.Integrator | None = None,
    platform: str = "Reference",  # double precision
) -> openmm.Context:
    """A context; positions in Å, or with their unit."""
    if not unit.is_quantity(positions):
        positions = np.asarray(positions) * unit.angstrom
    where = openmm.Platform.getPlatformByName(platform)
    context = openmm.Context(system, integrator or openmm.VerletIntegrator(0.0002), where)
    context.setPositions(positions)
    return context


def energy_of(context: openmm.Context) -> float:
    """Potential energy in kJ/mol."""
    with torch.jit.optimized_execution(False):  # see jmp_md.calculators.openmm_torch
        state = context.getState(energy=True)
    return float(state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole))


def forces_of(context: openmm.Context) -> np.ndarray:
    """(n, 3) kJ/mol/nm."""
    with torch.jit.optimized_execution(False):
        forces = context.getState(forces=True).getForces(asNumpy=True)
    return np.array(forces.value_in_unit(unit.kilojoule_per_mole / unit.nanometer))


def energy_and_forces(context: openmm.Context) -> tuple[float, np.ndarray]:
    """Both from one evaluation: kJ/mol and (n, 3) kJ/mol/nm."""
    with torch.jit.optimized_execution(False):
        state = context.getState(energy=True, forces=True)
    return state.getPotentialEnergy()._value, np.array(state.getForces(asNumpy=True)._value)


def step(context: openmm.Context, steps: int) -> None:
    """Run dynamics."""
    with torch.jit.optimized_execution(False):
        context.getIntegrator().step(steps)


def water_box(**options: Any) -> tuple[app.Modeller, openmm.System]:
    """A box of TIP3P water and its system."""
    modeller = app.Modeller(app.Topology(), [])
    field = app.ForceField("amber14/tip3p.xml")
    modeller.addSolvent(field, numAdded=60)
    options = {
        "nonbondedMethod": app.PME,
        "nonbondedCutoff": 0.5 * unit.nanometer,
        "constraints": None,
        "rigidWater": False,
        **options,
    }
    return modeller, field.createSystem(modeller.topology, **options)


def waters(n: int, **options: Any) -> tuple[app.Modeller, openmm.System]:
    """The first few molecules of a water box, without a box."""
    modeller, _ = water_box()
    modeller.delete(list(modeller.topology.residues())[n:])
    modeller.topology.setPeriodicBoxVectors(None)
    field = app.ForceField("amber14/tip3p.xml")
    options = {"constraints": None, "rigidWater": False, **options}
    return modeller, field.createSystem(modeller.topology, **options)
