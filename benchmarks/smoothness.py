"""How smooth the energy is: official graphs against smooth ones, same random weights.

    python benchmarks/smoothness.py [--svg FILE]

A cluster of three aspirins (63 atoms, random jmp-xs weights). One atom moves along a line, so that
its neighbours swap ranks and pairs cross the cutoff. The jump of a step is what the energy changes
beyond the integral of the force (trapezoid); where there is no discontinuity it falls with the
cube of the step. Order of atoms: the largest change of a force when all atoms are renumbered.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import figures
import numpy as np
import torch
from ase import Atoms
from structures import aspirins

from jmp_md.calculators.ase import JMPCalculator
from jmp_md.evaluation import evaluate
from jmp_md.graph.pairs import find_pairs
from jmp_md.graph.policy import GraphPolicy
from jmp_md.header import HeadInfo, ModelHeader
from jmp_md.nn.config import preset
from jmp_md.potential import Potential
from jmp_md.structures import single_structure
from jmp_md.training.scale_factors import fit_scale_factors

# As published for rMD17's cutoff and the base count of the other sets.
OFFICIAL = GraphPolicy.official(7.0, 30)
POLICIES = {
    "official": OFFICIAL,
    "smooth": GraphPolicy("smooth", OFFICIAL.cutoffs, OFFICIAL.counts),
    "smooth, own cutoffs": GraphPolicy.smooth(),
}
_ATOM, _DIRECTION = 30, np.array([0.48, 0.6, 0.64])


def random_potentials(atoms: Atoms, rms_force: float = 1.0) -> dict[str, Potential]:
    """One set of random weights on the graphs of every policy, in float64.

    Scale factors are fitted to the structure, as training does, and the energy is scaled to
    forces of ``rms_force`` eV/Å with official graphs.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        head = HeadInfo("energy", OFFICIAL)
        potential = Potential(ModelHeader("random", preset("jmp-xs"), (head,))).double()
    pairs = find_pairs(atoms.positions, atoms.cell.array, atoms.pbc, OFFICIAL.cutoff)
    single = single_structure(atoms.positions, atoms.numbers, atoms.cell.array, pairs)
    fit_scale_factors(potential, single)
    forces = potential.predict(single).forces
    assert forces is not None
    scale = rms_force / float(forces.square().mean().sqrt())
    header = ModelHeader(
        "random", preset("jmp-xs"), (HeadInfo("energy", OFFICIAL, energy_scale=scale),)
    )
    state = potential.native_state()
    return {
        name: Potential.from_state(header, state, graph=policy) for name, policy in POLICIES.items()
    }


def scan(potential: Potential, atoms: Atoms, distance: np.ndarray) -> dict[str, np.ndarray]:
    """Energies (eV) along the path of one atom, forces (eV/Å) along it and jumps (eV)."""
    atoms = atoms.copy()
    atoms.calc = JMPCalculator(potential, dtype="float64")
    start = atoms.positions[_ATOM].copy()
    energy, force = np.empty(len(distance)), np.empty(len(distance))
    for i, x in enumerate(distance):
        atoms.positions[_ATOM] = start + x * _DIRECTION
        energy[i] = atoms.get_potential_energy()
        force[i] = atoms.get_forces()[_ATOM] @ _DIRECTION
    return {"energy": energy, "force": force, "jump": jumps(energy, force, distance)}


def jumps(energy: np.ndarray, force: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """(n - 1,) eV: changes of the energy beyond the integral of the force."""
    work = 0.5 * (force[1:] + force[:-1]) * np.diff(distance)
    change: np.ndarray = np.diff(energy) + work
    return change


def renumbering(potential: Potential, atoms: Atoms) -> float:
    """Largest change of a force component (eV/Å) when the order of atoms is reversed."""
    one, other = evaluate([atoms, atoms[::-1]], potential, max_edges=1)
    assert one.forces is not None
    assert other.forces is not None
    return float(np.abs(one.forces - other.forces[::-1]).max())


def main() -> None:
    """Print the table and draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=400, help="steps of the path of 1 Å; even")
    parser.add_argument("--svg", type=Path, help="draw the path here")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    atoms = aspirins()
    distance = np.linspace(0.0, 1.0, args.steps + 1)
    curves = {}
    print("graphs                at twice the step   largest jump   order of atoms")
    for name, potential in random_potentials(atoms).items():
        curves[name] = curve = scan(potential, atoms, distance)
        coarse = jumps(curve["energy"][::2], curve["force"][::2], distance[::2])
        largest = (1e3 * np.abs(jump).max() for jump in (coarse, curve["jump"]))
        before, now = largest
        order = renumbering(potential, atoms)
        print(f"{name:20} {before:14.5f} meV {now:10.5f} meV {order:9.1e} eV/Å", flush=True)
    if args.svg:
        figures.save(figures.path_scan(distance, curves), args.svg)


if __name__ == "__main__":
    main()
