"""Ethanol with a JMP model alone: minimise, then NVE and Langevin dynamics."""

import argparse

import openmm
from openmm import app, unit

from jmp_md.calculators.openmm import add_jmp_force

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--model", default="jmp-xs-rmd17-ethanol")
parser.add_argument("--backend", default="auto", choices=("auto", "python", "torch"))
parser.add_argument("--steps", type=int, default=2000)
args = parser.parse_args()

ETHANOL = (  # element, position in nm
    ("C", (0.1168, -0.0400, 0.0000)),
    ("C", (0.0000, 0.0559, 0.0000)),
    ("O", (-0.1190, -0.0228, 0.0000)),
    ("H", (-0.1946, 0.0378, 0.0000)),
    ("H", (0.0038, 0.1204, 0.0891)),
    ("H", (0.0038, 0.1204, -0.0891)),
    ("H", (0.2116, 0.0145, 0.0000)),
    ("H", (0.1129, -0.1037, 0.0886)),
    ("H", (0.1129, -0.1037, -0.0886)),
)
topology = app.Topology()
residue = topology.addResidue("EOH", topology.addChain())
for symbol, _ in ETHANOL:
    topology.addAtom(symbol, app.Element.getBySymbol(symbol), residue)
positions = [openmm.Vec3(*place) for _, place in ETHANOL] * unit.nanometer


def run(name: str, integrator: openmm.Integrator, start: unit.Quantity) -> unit.Quantity:
    """Minimise, run, print energies, and return the last positions."""
    system = openmm.System()
    for atom in topology.atoms():
        system.addParticle(atom.element.mass)
    add_jmp_force(system, topology, args.model, backend=args.backend)
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


last = run("NVE", openmm.VerletIntegrator(0.0005), positions)
run("Langevin", openmm.LangevinMiddleIntegrator(300, 1, 0.0005), last)
