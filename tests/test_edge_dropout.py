"""Edge dropout leaves out directed pairs while training, and only then."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase.build import bulk, molecule
from factories import random_potential

from jmp_md.graph.builder import GraphBuilder
from jmp_md.graph.layout import Graph
from jmp_md.graph.pairs import find_pairs
from jmp_md.graph.policy import GraphPolicy
from jmp_md.structures import Structures, single_structure

POLICIES = {
    "smooth": GraphPolicy.smooth(4.0, 4.0, 3.0, 4.5),
    "official": GraphPolicy.official(4.5, 12),
}


def structure(periodic: bool) -> Structures:
    atoms = bulk("CO", "rocksalt", 4.3) if periodic else molecule("C6H6")
    atoms.rattle(0.05, seed=2)
    pairs = find_pairs(atoms.positions, atoms.cell.array, atoms.pbc, 5.0)
    return single_structure(atoms.positions, atoms.numbers, atoms.cell.array, pairs)


def build(builder: GraphBuilder, s: Structures, seed: int = 0) -> Graph:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return builder(s.positions, s.cells, s.structure, s.tags, s.pairs)


@pytest.mark.parametrize("kind", POLICIES)
@pytest.mark.parametrize("periodic", [False, True])
def test_main_edges_keep_their_reverses_and_the_share_dropped(kind: str, periodic: bool) -> None:
    builder = GraphBuilder(POLICIES[kind])
    s = structure(periodic)
    full = build(builder, s)
    builder.edge_dropout = 0.4
    shares = []
    for seed in range(40):
        graph = build(builder, s, seed)
        main = graph.main
        assert graph.kept == pytest.approx(0.6)
        assert torch.equal(main.source[graph.swap], main.target)
        assert torch.allclose(main.unit[graph.swap], -main.unit)
        assert torch.allclose(main.weight[graph.swap], main.weight)
        shares.append(len(graph.atom_atom.source) / len(full.atom_atom.source))
    assert np.mean(shares) == pytest.approx(0.6, abs=0.05)


def test_nearest_neighbours_are_chosen_among_the_survivors() -> None:
    s = structure(False)
    builder = GraphBuilder(GraphPolicy("official", (4.5,) * 4, (3, 3, 2, 1000)))
    builder.edge_dropout = 0.5
    graph = build(builder, s)
    survivors = graph.atom_atom  # its count is never reached
    for atom in range(len(s.numbers)):
        near = survivors.distance[survivors.target == atom].sort().values[:3]
        chosen = graph.atom_edge.distance[graph.atom_edge.target == atom].sort().values
        assert torch.allclose(chosen, near)


def test_only_training_drops_edges() -> None:
    potential = random_potential()
    expected = potential.predict(structure(False)).energy
    potential.graph.edge_dropout = 0.5
    assert not torch.allclose(potential.predict(structure(False)).energy, expected)
    potential.eval()
    assert torch.equal(potential.predict(structure(False)).energy, expected)
