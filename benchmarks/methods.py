"""What is timed: one step of a model by one method, on one structure.

    python benchmarks/methods.py MODEL METHOD STRUCTURE.extxyz      # a worker of engine.py

Weights are random: they do not change what is computed.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.io import read
from torch import Tensor
from torch.nn.functional import linear

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import oracle as reference
from network_oracle import official_state
from oracle_graphs import OracleEdges
from turns import serve

from jmp_md.calculators.ase import JMPCalculator
from jmp_md.graph.pairs import find_pairs
from jmp_md.graph.policy import GRAPHS, GraphPolicy
from jmp_md.header import HeadInfo, ModelHeader
from jmp_md.memory import give_back_freed_memory, keep_freed_memory
from jmp_md.nn.activation import sigma
from jmp_md.nn.config import preset
from jmp_md.potential import Potential

OFFICIAL = GraphPolicy.official(12.0, 30)
MODELS = {
    "jmp-xs": ("jmp-xs", GraphPolicy.smooth()),  # as shipped
    "jmp-xs-official": ("jmp-xs", OFFICIAL),
    "jmp-s": ("jmp-s", OFFICIAL),
    "jmp-l": ("jmp-l", OFFICIAL),
}
# Options of the calculator, by method.
OURS: dict[str, dict[str, Any]] = {
    "fast": {"memory": "fast"},
    "plain": {"memory": "fast", "kernels": False},
    "lean": {"memory": "lean"},
    "bf16": {"memory": "fast", "precision": "bf16"},
    "compiled": {"memory": "fast", "compile": True},
    "fast64": {"memory": "fast", "dtype": "float64"},
    "plain64": {"memory": "fast", "dtype": "float64", "kernels": False},
}
Call = Callable[[], object]


def make_potential(model: str) -> Potential:
    """Random weights of a size, with the graphs it is used with."""
    size, graph = MODELS[model]
    header = ModelHeader(size, preset(size), (HeadInfo(name="energy", graph=graph),))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Potential(header).float().requires_grad_(False)


def make_call(model: str, method: str, atoms: Atoms) -> Call:
    """One step of a model: energy and forces, and stress where there is one.

    - fast, plain, lean, bf16, compiled: :class:`JMPCalculator` with these options, after every atom
      has moved a little; neighbours are searched for when it is due. fast64, plain64: in float64.
    - oracle: the enumerating reference network of the tests, the algorithm of the official code.
    - floor: the dense layers on edges alone, forward and input gradient.
    """
    potential = make_potential(model)
    if method in OURS:
        return calculator_step(JMPCalculator(potential, **OURS[method]), atoms)
    return {"oracle": oracle, "floor": floor}[method](potential, atoms)


def calculator_step(calculator: Any, atoms: Atoms) -> Call:
    """A step of an ASE calculator, with positions that differ from call to call."""
    rng = np.random.default_rng(0)
    moved = atoms.copy()

    def run() -> object:
        moved.positions = atoms.positions + rng.uniform(-0.02, 0.02, atoms.positions.shape)
        calculator.calculate(moved, ["energy", "forces"])
        return calculator.results["forces"]

    return run


def oracle(potential: Potential, atoms: Atoms) -> Call:
    """The enumerating network, on given edges."""
    state, graphs = official_state(potential), edges(potential.policy, atoms)
    numbers = torch.from_numpy(atoms.numbers)
    cell = torch.from_numpy(atoms.cell.array).float()
    c = potential.header.architecture

    def run() -> object:
        x = torch.from_numpy(atoms.positions).float().requires_grad_()
        out = reference.oracle_forward(state, c, numbers, x, cell, graphs)
        energy = reference.energy_head(state, "out_energy", out["X_E"]).sum()
        return torch.autograd.grad(energy, x)

    return run


def floor(potential: Potential, atoms: Atoms) -> Call:
    """The dense layers of the blocks that act on main edges, with input gradients."""
    n_edges = len(edges(potential.policy, atoms)["main"])
    weights = edge_weights(potential)
    inputs = {w.shape[1]: torch.randn(n_edges, w.shape[1]) for w in weights}

    def run() -> object:
        x = {width: t.detach().requires_grad_() for width, t in inputs.items()}
        for w in weights:  # one after the other, so that nothing but a layer is kept
            y = sigma(linear(x[w.shape[1]], w))
            torch.autograd.grad(y.sum(), x[w.shape[1]])
        return None

    return run


def edges(policy: GraphPolicy, atoms: Atoms) -> dict[str, OracleEdges]:
    """Edges of the four graphs, without weights."""
    cell = atoms.cell.array
    if policy.kind == "official":
        base = policy.counts[0]
        assert base is not None
        tags = torch.full((len(atoms),), 2)
        x = torch.from_numpy(atoms.positions)
        return reference.official_graphs(
            x, torch.from_numpy(cell), atoms.pbc, tags, policy.cutoff, base
        )
    graphs = {}
    for name, cutoff in zip(GRAPHS, policy.cutoffs, strict=True):
        pairs = find_pairs(atoms.positions, cell, atoms.pbc, cutoff)
        graphs[name] = OracleEdges(pairs.source, pairs.target, pairs.offset, None)
    return graphs


# Layers of a block that act once per atom, or that are applied once per structure.
_ON_ATOMS = (
    "atom_emb_layers",
    ".atom_interaction",
    "atom_update.layers",
    "atom_edge_interaction.dense",
    "atom_edge_interaction.down",
    "atom_edge_interaction.mlp_rbf",
    "edge_atom_interaction.up",
    "edge_atom_interaction.mlp_cbf",
)


def edge_weights(potential: Potential) -> list[Tensor]:
    """(out, in) weights of the layers of the blocks that are applied once per main edge."""
    width = potential.header.architecture.emb_size_atom
    weights = []
    for name, weight in potential.native_state().items():
        if ".int_blocks." not in name or weight.dim() != 2:
            continue
        if any(part in name for part in _ON_ATOMS):
            continue
        # What embeds both atoms of an edge acts on atoms: the rest is for the edge.
        weights.append(weight[:, 2 * width :] if "concat_layer" in name else weight)
    return weights


def main() -> None:
    """Serve the turns of ``engine.py``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", choices=list(MODELS))
    parser.add_argument("method", choices=[*OURS, "oracle", "floor"])
    parser.add_argument("structure", type=Path)
    parser.add_argument("--memory", type=float, help="GiB that steps may take")
    parser.add_argument("--keep", action="store_true", help="keep freed memory for the next step")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    warnings.filterwarnings("error", ".* runs in eager mode")  # instead of compiled code
    atoms = read(args.structure)
    assert isinstance(atoms, Atoms)
    call = make_call(args.model, args.method, atoms)
    give_back_freed_memory()  # what the making of weights took must not hide what steps take
    if args.keep:
        keep_freed_memory()
    serve(call, args.memory)


if __name__ == "__main__":
    main()
