"""How fast engines are, and what of their time is outside the network."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch  # before openmm

# isort: split
from ase import Atoms
from openmm_engines import ENGINES, STEP, simulation, systems, warm

from jmp_md.export.neighbours import neighbours
from jmp_md.units import NM_IN_ANGSTROM

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
FEW = 4  # steps before it is the next engine's turn
SKIN = 0.3  # Å, of neighbours that are kept


def speed(folder: Path, engine: str, args: argparse.Namespace) -> dict[str, Any]:
    """Steps per second and the share of time outside the network, engines taking turns.

    With TorchForce all engines run, in its environment; with PythonForce, it and ASE.
    """
    found: dict[str, Any] = {}
    engines = ENGINES[: ENGINES.index(engine) + 1]
    clock = CLOCKS[args.clock]
    for name, (atoms, model) in list(systems(folder).items())[:2]:
        runs = {engine: simulation(engine, warm(atoms), model) for engine in engines}
        calls = {engine: (lambda run=run: run.step(FEW)) for engine, run in runs.items()}
        calls["network"] = _network(atoms, model)
        if engine == "torch":
            calls["neighbours"] = _without_network(atoms, model)
        for call in calls.values():
            call()
        times: dict[str, list[float]] = {each: [] for each in calls}
        for _ in range(args.rounds):
            for each, call in calls.items():
                start = clock()
                call()
                times[each].append((clock() - start) / FEW)
        median = {each: statistics.median(values) for each, values in times.items()}
        found[name] = {
            engine: {
                "steps_per_s": 1 / median[engine],
                # Scripted, the network takes another time than here.
                "outside_network": median["neighbours"] / median[engine]
                if engine == "torch"
                else 1 - median["network"] / median[engine],
            }
            for engine in engines
        }
    return found


def _network(atoms: Atoms, model: str) -> Callable[[], object]:
    """A few times the network and its gradient for one structure, whose graph is known."""
    from jmp_md.graph.neighbours import NeighbourCache
    from jmp_md.load import load_model
    from jmp_md.structures import single_structure

    potential = load_model(model, dtype=torch.float32, device="cpu")
    cache = NeighbourCache(potential.policy.cutoff, SKIN)
    pairs, placed = cache.update(atoms.positions, atoms.numbers, atoms.cell.array, atoms.pbc)
    s = single_structure(placed, atoms.numbers, atoms.cell.array, pairs)
    s = potential.prepare(s, SKIN)

    def few() -> None:
        for _ in range(FEW):
            potential.predict(s)

    return few


class NeighboursOnly(torch.nn.Module):
    """What an exported model does but the network: for TorchForce, with an energy of zero."""

    def __init__(self, cutoff: float) -> None:
        super().__init__()
        self.cutoff = cutoff

    def forward(self, positions: torch.Tensor) -> torch.Tensor:
        x = positions.double() * 10.0
        cells, pbc = x.new_zeros(1, 3, 3), torch.zeros(1, 3, dtype=torch.bool)
        structure = torch.zeros(x.shape[0], dtype=torch.long)
        with torch.no_grad():
            _, placed = neighbours(x, structure, cells, pbc, self.cutoff)
        return 0.0 * (x - placed).sum()


def _without_network(atoms: Atoms, model: str) -> Callable[[], object]:
    """A few steps of TorchForce without the network."""
    import openmm
    import openmmtorch

    from jmp_md.load import load_model

    module = torch.jit.script(NeighboursOnly(load_model(model).policy.cutoff))
    system = openmm.System()
    for mass in atoms.get_masses():
        system.addParticle(mass)
    system.addForce(openmmtorch.TorchForce(module))
    reference = openmm.Platform.getPlatformByName("Reference")
    context = openmm.Context(system, openmm.VerletIntegrator(STEP / 1000), reference)
    context.setPositions(atoms.positions / NM_IN_ANGSTROM)

    @torch.jit.optimized_execution(False)
    def few() -> None:
        context.getIntegrator().step(FEW)

    return few
