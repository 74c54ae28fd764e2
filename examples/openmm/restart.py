"""Stop a simulation of ethanol, and continue it from a checkpoint file as if it had not stopped."""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import openmm
from ase.io import read
from openmm import app

from jmp_md.calculators.openmm import create_system, topology_from_ase

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--model", default="jmp-xs-rmd17-ethanol")
parser.add_argument("--steps", type=int, default=200)
parser.add_argument("--trust", action="store_true", help="the model is an exported file of mine")
args = parser.parse_args()

atoms = read(Path(__file__).parents[1] / "ethanol.xyz")
topology = topology_from_ase(atoms)
system = create_system(topology, args.model, trust=args.trust)


def simulation() -> app.Simulation:
    """A new simulation, as another process would make it."""
    integrator = openmm.LangevinMiddleIntegrator(300, 1, 0.0005)
    integrator.setRandomNumberSeed(1)
    new = app.Simulation(topology, system, integrator)
    new.context.setPositions(atoms.positions / 10)
    return new


def end(of: app.Simulation) -> np.ndarray:
    """Positions in nm after some steps."""
    of.step(args.steps)
    return np.array(of.context.getState(positions=True).getPositions(asNumpy=True)._value)


first = simulation()
first.minimizeEnergy(maxIterations=20)
first.step(args.steps)
with tempfile.TemporaryDirectory() as folder:
    checkpoint = str(Path(folder) / "ethanol.chk")
    first.saveCheckpoint(checkpoint)
    unbroken = end(first)
    second = simulation()
    second.loadCheckpoint(checkpoint)
    restarted = end(second)
print(f"{args.steps} steps after the restart: {abs(unbroken - restarted).max():.1e} nm apart")
