"""Fitted scale factors are the ratios of variances the paper defines, listed one by one here."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from ase.build import molecule
from factories import random_potential
from torch import Tensor, nn
from training_cases import tiny_trainer

from jmp_md.graph.layout import Graph
from jmp_md.graph.pairs import find_pairs
from jmp_md.graph.policy import GraphPolicy
from jmp_md.nn.layers import ScaleFactor
from jmp_md.structures import concatenate, single_structure
from jmp_md.training import assembly
from jmp_md.training.scale_factors import fit_scale_factors


def pairs_of(edges: tuple) -> list[tuple[int, int]]:
    return list(zip(edges.source.tolist(), edges.target.tolist(), strict=True))


def variance(rows: Tensor) -> float:
    return float(rows.var(dim=0, correction=0).mean())


def listed(name: str, before: Tensor, graph: Graph) -> Tensor:
    """The rows of the input that a sum adds up, once for each time it adds them."""
    main, near = pairs_of(graph.main), pairs_of(graph.atom_edge)
    if name == "trip_interaction.scale_cbf_sum":
        chosen = [i for c, a in main for i, (b, t) in enumerate(main) if t == a and b != c]
    elif name == "atom_edge_interaction.scale_cbf_sum":
        chosen = [i for c, a in main for i, (b, t) in enumerate(near) if t == a and b != c]
    elif name == "edge_atom_interaction.scale_cbf_sum":
        chosen = [i for c, a in near for i, (b, t) in enumerate(main) if t == a and b != c]
    elif name == "atom_interaction.scale_rbf_sum":
        chosen = [b for b, _ in pairs_of(graph.atom_atom)]
    else:
        return before
    return before[chosen]


def triplets(graph: Graph) -> list[tuple[int, int, int, int, int]]:
    """(row, column, d, b, a) of every input triplet d -> b -> a, with its place in the padding."""
    quad, main, found = graph.quadruplet, graph.main, []
    for q, (b, a) in enumerate(pairs_of(quad)):
        for e, (d, t) in enumerate(pairs_of(main)):
            if t == b and d != a:
                column = int(main.slot[e]) % main.slots
                found.append((int(quad.slot[q]), column, d, b, a))
    return found


def test_factors_are_ratios_of_enumerated_variances() -> None:
    graph_rule = GraphPolicy("official", (4.0, 4.0, 3.0, 4.5), (4, 3, 2, 1000))
    potential = random_potential(graph=graph_rule)
    parts = []
    for name in ("CH3CH2OH", "C2H4", "HCN"):
        atoms = molecule(name)
        atoms.rattle(0.05, seed=1)
        pairs = find_pairs(atoms.positions, atoms.cell.array, atoms.pbc, 5.0)
        parts.append(single_structure(atoms.positions, atoms.numbers, atoms.cell.array, pairs))
    s = concatenate(parts)
    factors = fit_scale_factors(potential, s)

    seen: dict[str, tuple[Tensor, Tensor]] = {}

    def watch(name: str, module: nn.Module) -> None:
        def hook(_m: nn.Module, inputs: tuple[Tensor, Tensor], _o: Tensor) -> None:
            after, before = inputs
            seen[name] = after / factors[name], before

        module.register_forward_hook(hook)

    for name, module in potential.backbone.named_modules():
        if isinstance(module, ScaleFactor):
            watch(name, module)
    graph = potential.graph(s.positions, s.cells, s.structure, s.tags, s.pairs)
    potential.backbone(potential.embedding(s.numbers - 1), graph)
    assert factors.keys() == seen.keys()

    known = triplets(graph)
    by_edge = pairs_of(graph.main)
    for name, (after, before) in seen.items():
        kind = ".".join(name.split(".")[-2:])
        if kind == "quad_interaction.scale_cbf":
            after = torch.stack([after[row, column] for row, column, *_ in known])
            before = torch.stack([before[row, column] for row, column, *_ in known])
        elif kind == "quad_interaction.scale_sbf_sum":
            times = [sum(t == a and c not in (b, d) for c, t in by_edge) for _, _, d, b, a in known]
            rows = [before[row, column] for row, column, *_ in known]
            before = torch.stack([x for x, n in zip(rows, times, strict=True) for _ in range(n)])
        else:
            before = listed(kind, before, graph)
        expected = (variance(before) / variance(after)) ** 0.5
        assert factors[name] == pytest.approx(expected, rel=1e-9), name


def test_an_interaction_that_never_occurs_keeps_a_factor_of_one() -> None:
    """Two atoms have neither triplets nor quadruplets."""
    potential = random_potential()
    atoms = molecule("OH")
    pairs = find_pairs(atoms.positions, atoms.cell.array, atoms.pbc, 6.5)
    factors = fit_scale_factors(
        potential, single_structure(atoms.positions, atoms.numbers, atoms.cell.array, pairs)
    )
    assert factors["int_blocks.0.trip_interaction.scale_cbf_sum"] == 1.0
    assert all(0 < factor < 1e6 for factor in factors.values())


def test_of_large_structures_fewer_are_fitted_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of eight molecules half are taken where memory has room for no more."""
    found = []
    fit = assembly.fit_scale_factors
    monkeypatch.setattr(
        assembly, "fit_scale_factors", lambda model, s: found.append(len(s.cells)) or fit(model, s)
    )
    tiny_trainer(tmp_path)
    monkeypatch.setattr(assembly, "edges_in", lambda *_: 24)
    tiny_trainer(tmp_path)
    assert found == [8, 4]
