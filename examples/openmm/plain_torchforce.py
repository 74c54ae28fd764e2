"""Run an exported file with openmm, openmmtorch and torch alone; jmp-md is not needed here.

Make the file with

    jmp-md export --model jmp-xs-rmd17-ethanol --structure ethanol.xyz --output ethanol.pt
"""

import argparse

import torch  # before openmm, or the plugin does not load

# isort: split
import openmm
import openmmtorch
from openmm import unit

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("file", help="the .pt file")
parser.add_argument("structure", help="the .xyz file it was made for")
parser.add_argument("--steps", type=int, default=2000)
args = parser.parse_args()

MASSES = {"H": 1.008, "C": 12.011, "N": 14.007, "O": 15.999}
with open(args.structure) as lines:
    rows = [line.split() for line in lines][2:]
system = openmm.System()
for symbol, *_ in rows:
    system.addParticle(MASSES[symbol])
system.addForce(openmmtorch.TorchForce(args.file))

integrator = openmm.LangevinMiddleIntegrator(300, 1, 0.0005)
context = openmm.Context(system, integrator)
context.setPositions([[float(x) for x in row[1:4]] for row in rows] * unit.angstrom)
context.setVelocitiesToTemperature(300)
with torch.jit.optimized_execution(False):  # spares seconds of optimisation that gain nothing
    for _ in range(4):
        integrator.step(args.steps // 4)
        state = context.getState(energy=True)
        print(state.getTime(), state.getPotentialEnergy())
