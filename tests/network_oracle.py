"""One structure through the shipped network and through the enumerating reference."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import oracle
import torch
from ase import Atoms
from factories import random_potential
from oracle_graphs import OracleEdges, pairs_within, swap_index
from torch import Tensor

from jmp_md.graph.pairs import find_pairs
from jmp_md.graph.policy import GRAPHS, GraphPolicy
from jmp_md.potential import Potential, Prediction
from jmp_md.structures import Structures, single_structure

# No two sizes that meet in a layer are equal, so that nothing transposed goes unseen.
_SIZES = {
    "num_radial": 9,
    "emb_size_atom": 6,
    "emb_size_edge": 8,
    "emb_size_trip_in": 5,
    "emb_size_trip_out": 7,
    "emb_size_quad_in": 3,
    "emb_size_quad_out": 4,
    "emb_size_aint_in": 5,
    "emb_size_aint_out": 9,
    "emb_size_rbf": 4,
    "emb_size_cbf": 2,
    "emb_size_sbf": 3,
}
# Weak with random weights.
_AMPLIFIED = {
    "trip_interaction.scale_cbf_sum": 5.0,
    "atom_edge_interaction.scale_cbf_sum": 5.0,
    "quad_interaction.scale_sbf_sum": 100.0,
}
# The radial basis is stored once per graph in official checkpoints.
_RADIAL_COPIES = (
    "radial_basis",
    "radial_basis_aeaint",
    "radial_basis_aint",
    "cbf_basis_tint.radial_basis",
    "cbf_basis_aeint.radial_basis",
    "cbf_basis_eaint.radial_basis",
    "cbf_basis_qint.radial_basis",
    "sbf_basis_qint.radial_basis",
)


def sensitive_potential(graph: GraphPolicy, *, direct: bool = False) -> Potential:
    """A random potential in which every kind of message moves some force by a percent or more."""
    potential = random_potential(graph=graph, direct=direct, **_SIZES)
    generator = torch.Generator().manual_seed(1)
    for name, factor in potential.named_buffers():
        if name.endswith("scale_factor"):
            factor.uniform_(0.7, 1.4, generator=generator)
            for message, amplify in _AMPLIFIED.items():
                factor.mul_(amplify if f".{message}." in name else 1.0)
    return potential


def structures_of(atoms: Atoms, cutoff: float) -> Structures:
    """The structure with its pairs, as the network takes it. Without tags set, all are 2."""
    x, cell = atoms.positions, atoms.cell.array
    pairs = find_pairs(x, cell, atoms.pbc, cutoff)
    return single_structure(x, atoms.numbers, cell, pairs, _tags(atoms))


def oracle_prediction(
    potential: Potential, atoms: Atoms, *, stress: bool = False, direct: bool = False
) -> Prediction:
    """What :meth:`Potential.predict` should give, by the reference and brute-force graphs."""
    x = torch.tensor(atoms.positions, requires_grad=True)
    strain = torch.zeros(3, 3, dtype=torch.float64, requires_grad=True)
    moved, cell = oracle.strained(x, torch.tensor(atoms.cell.array), strain)
    state = official_state(potential)
    policy = potential.policy
    smooth = policy.kind == "smooth"
    graphs = (smooth_graphs if smooth else official_graphs)(policy, atoms, moved, cell)
    output = oracle.oracle_forward(
        state,
        potential.header.architecture,
        torch.tensor(atoms.numbers),
        moved,
        cell,
        graphs,
        inline_switch=(lambda sin2: switch(sin2 / policy.inline_sin2)) if smooth else None,
    )
    energies = oracle.energy_head(state, "out_energy", output["X_E"]) * potential.head.energy_scale
    gradient, virial = torch.autograd.grad(energies.sum(), (x, strain))
    forces = -gradient
    if direct:
        assert potential.head.force_scale is not None
        forces = oracle.direct_forces(state, "out_forces", output) * potential.head.force_scale
    return Prediction(
        energies.detach().sum()[None],
        energies.detach(),
        forces.detach(),
        (0.5 * (virial + virial.T) / atoms.get_volume())[None] if stress else None,
    )


def official_state(potential: Potential) -> dict[str, Tensor]:
    """The weights under the names of an official fine-tuned checkpoint."""
    return official_names(potential.state_dict())


def official_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same of a state dict."""
    state = {}
    for key, value in weights.items():
        if key.startswith("backbone.radial."):
            name = key.removeprefix("backbone.radial.")
            state |= {f"backbone.bases.{copy}.rbf.{name}": value for copy in _RADIAL_COPIES}
        elif key.startswith(("energy_head.", "force_head.")):
            state[key.replace("energy_head", "out_energy").replace("force_head", "out_forces")] = (
                value
            )
        else:
            state[key] = value
            if key.startswith("backbone.out_blocks."):
                state[key.replace(".layers.", ".seq_energy_pre.")] = value
    return state


def official_graphs(
    policy: GraphPolicy, atoms: Atoms, positions: Tensor, cell: Tensor
) -> dict[str, OracleEdges]:
    """Graphs of the published rule."""
    base = policy.counts[0]
    assert base is not None
    tags = torch.tensor(_tags(atoms))
    return oracle.official_graphs(positions, cell, atoms.pbc, tags, policy.cutoff, base)


def smooth_graphs(
    policy: GraphPolicy, atoms: Atoms, positions: Tensor, cell: Tensor
) -> dict[str, OracleEdges]:
    """Graphs of the smooth rule, with weights differentiable in positions and cell."""
    tags = torch.tensor(_tags(atoms))
    graphs = {}
    for name, cutoff, count in zip(GRAPHS, policy.cutoffs, policy.counts, strict=True):
        edges = pairs_within(positions, cell, atoms.pbc, cutoff)
        weight = smooth_weights(edges, positions, cell, cutoff, count, policy)
        kept = weight.detach() > 0
        if name == "quadruplet":
            kept &= (tags[edges.source] > 0) | (tags[edges.target] > 0)
        graphs[name] = OracleEdges(edges.source, edges.target, edges.offset, weight)[kept]
    return graphs


def smooth_weights(
    edges: OracleEdges,
    positions: Tensor,
    cell: Tensor,
    cutoff: float,
    count: int | None,
    policy: GraphPolicy,
) -> Tensor:
    """(E,) weights of all edges within a cutoff: a fade by distance and one by soft rank."""
    vector = positions[edges.target] - positions[edges.source] - edges.offset.to(cell) @ cell
    d = vector.norm(dim=1)
    width = policy.width * cutoff
    by_distance = 1 - switch((d - (cutoff - width)) / width)
    if count is None:
        return by_distance
    # Soft rank: weights of the other edges into the same atom, by how much closer they are.
    closer = switch((d[:, None] - d[None, :] + 0.25) / 0.5)
    rival = (edges.target[:, None] == edges.target[None, :]) & ~torch.eye(len(d), dtype=torch.bool)
    rank = (closer * by_distance * rival).sum(dim=1)
    by_rank = 1 - switch((rank - (count - 1)) / policy.rank_width)
    return by_distance * by_rank * by_rank[swap_index(edges)]


def switch(t: Tensor) -> Tensor:
    """0 below t = 0, 1 above 1, with two continuous derivatives at both."""
    return torch.where(t < 0, 0.0, torch.where(t > 1, 1.0, 10 * t**3 - 15 * t**4 + 6 * t**5))


def largest_errors(got: Prediction, expected: Prediction) -> Mapping[str, float]:
    """Largest difference of each quantity, relative to its largest value.

    Values that vanish by symmetry are compared as if they were 1e-5, so as not to compare noise.
    """
    errors = {}
    for name, value, reference in zip(Prediction._fields, got, expected, strict=True):
        if reference is not None:
            assert value is not None
            size = max(float(reference.abs().max()), 1e-5)
            errors[name] = float((value - reference).abs().max()) / size
    return errors


def _tags(atoms: Atoms) -> np.ndarray:
    return atoms.get_tags() if atoms.has("tags") else np.full(len(atoms), 2)
