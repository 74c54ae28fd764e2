"""Ethanol with a JMP model alone: minimise, then NVE and Langevin dynamics."""

import argparse
from pathlib import Path

import openmm
from ase.io import read
from openmm import app, unit

from jmp_md.calculators.openmm import create_system, topology_from_ase

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--model", default="jmp-xs-rmd17-ethanol")
parser.add_argument("--backend", default="auto", choices=("auto", "python", "torch"))
parser.add_argument("--steps", type=int, default=2000)
parser.add_argument("--trust", action="store_true", help="the model is an exported file of mine")
args = parser.parse_args()

atoms = read(Path(__file__).parents[1] / "ethanol.xyz")
topology = topology_from_ase(atoms)


def run(name: str, integrator: openmm.Integrator, start: unit.Quantity) -> unit.Quantity:
    """Minimise, run, print energies, and return the last positions."""
    system = create_system(topology, args.model, backend=args.backend, trust=args.trust)
    simulation = app.Simulation(topology, system, integrator)
    simulation.context.setPositions(start)
    simulation.minimizeEnergy(maxIterations=20)
    simulation.context.setVelocitiesToTemperature(300 * unit.kelvin, 1)
    for _ in range(4):
        simulation.step(args.steps // 4)
        state = simulation.context.getState(energy=True, positions=True)
        potential = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
        kinetic = state.getKineticEnergy().value_in_unit(unit.kilojoule_per_mole)
        time = state.getTime().value_in_unit(unit.picosecond)
        print(f"{name}  {time:7.3f} ps  total energy {potential + kinetic:14.4f} kJ/mol")
    return state.getPositions()


last = run("NVE", openmm.VerletIntegrator(0.0005), atoms.positions * unit.angstrom)
run("Langevin", openmm.LangevinMiddleIntegrator(300, 1, 0.0005), last)
