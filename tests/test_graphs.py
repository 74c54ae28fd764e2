"""Graphs hold the edges of the rules, in layouts that fit together."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import oracle
import pytest
import torch
from ase import Atoms
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from network_oracle import (
    official_graphs,
    sensitive_potential,
    smooth_graphs,
    structures_of,
)
from oracle_graphs import OracleEdges
from torch import Tensor

from jmp_md.errors import InputError
from jmp_md.graph.builder import GraphBuilder
from jmp_md.graph.layout import Edges, Graph, from_slots, source_slots, sum_to_target, to_slots
from jmp_md.graph.policy import GRAPHS, GraphPolicy
from jmp_md.structures import Structures

# Not shrunk: structures come from seeds, of which none is simpler than another.
few = settings(max_examples=25, deadline=None, derandomize=True, phases=[Phase.generate])
POLICIES = {
    "official": GraphPolicy.official(4.0, 7),
    "smooth": GraphPolicy.smooth(4.0, 3.6, 2.8, 4.5),
    "smooth with counts": GraphPolicy("smooth", (4.0, 3.6, 2.8, 4.5), (7, 4, 2, 12)),
}
policies = pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)


def random_structure(seed: int) -> Atoms:
    """Up to six atoms in a skewed cell shorter than the cutoff, or without periodicity."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 7))
    cell = np.diag(rng.uniform(2.8, 3.6, 3)) + np.tril(rng.uniform(-1.2, 1.2, (3, 3)), -1)
    sites = np.stack(np.unravel_index(rng.permutation(8)[:n], (2, 2, 2)), axis=1)
    scaled = 0.5 * sites + rng.uniform(-0.15, 0.15, (n, 3))
    pbc, tags = rng.random(3) < 0.7, rng.integers(0, 3, n)
    return Atoms("C" * n, scaled_positions=scaled, cell=cell, pbc=pbc, tags=tags)


def build(policy: GraphPolicy, atoms: Atoms, reach: float = 0.0) -> Graph:
    """Graphs from pairs found ``reach`` farther out than need be."""
    s = structures_of(atoms, policy.cutoff + reach)
    return GraphBuilder(policy)(s.positions, s.cells, s.structure, s.tags, s.pairs)


def edges_of(graph: Graph) -> dict[str, Edges]:
    return {name: getattr(graph, name) for name in GRAPHS}


def rows(source: Tensor, target: Tensor, vector: Tensor, weight: Tensor) -> np.ndarray:
    """(E, 6) source, target, vector and weight, in an order of their own."""
    table = torch.cat([torch.stack([target, source], dim=1), vector, weight[:, None]], dim=1)
    return table[np.lexsort(table[:, :5].round(decimals=6).numpy().T[::-1])].numpy()


def assert_same_edges(edges: Edges, expected: OracleEdges, x: Tensor, cell: Tensor) -> None:
    vector = x[expected.target] - x[expected.source] - expected.offset.double() @ cell
    weight = expected.weight if expected.weight is not None else torch.ones(len(expected))
    np.testing.assert_allclose(
        rows(edges.source, edges.target, edges.unit * edges.distance[:, None], edges.weight),
        rows(expected.source, expected.target, vector, weight),
        rtol=0,
        atol=1e-12,
    )


@policies
@few
@given(seed=st.integers(0, 2**32 - 1))
def test_edges_are_those_of_brute_force(policy: GraphPolicy, seed: int) -> None:
    atoms = random_structure(seed)
    x, cell = torch.tensor(atoms.positions), torch.tensor(atoms.cell.array)
    expected = (official_graphs if policy.kind == "official" else smooth_graphs)(
        policy, atoms, x, cell
    )
    for name, edges in edges_of(build(policy, atoms)).items():
        assert_same_edges(edges, expected[name], x, cell)


@policies
@few
@given(seed=st.integers(0, 2**32 - 1))
def test_graphs_fit_together(policy: GraphPolicy, seed: int) -> None:
    atoms = random_structure(seed)
    graph, n = build(policy, atoms), len(atoms)
    for edges in edges_of(graph).values():
        assert torch.equal(edges.target, edges.target.sort().values)
        degree = torch.bincount(edges.target, minlength=n)
        assert edges.slots == degree.max()
        assert len(edges.slot.unique()) == len(edges.slot)
        if edges.slots > 0:
            assert torch.equal(edges.slot // edges.slots, edges.target)
    main, swap = graph.main, graph.swap
    assert torch.equal(swap[swap], torch.arange(len(swap)))
    assert torch.equal(main.source[swap], main.target)
    assert torch.equal(main.unit[swap], -main.unit)
    assert torch.equal(main.distance[swap], main.distance)
    torch.testing.assert_close(main.weight[swap], main.weight, rtol=1e-12, atol=1e-15)


@policies
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_main_graph_is_symmetric_where_weights_vanish_to_rounding(
    policy: GraphPolicy, dtype: torch.dtype
) -> None:
    """Thousands of pairs at all distances, some so close to the cutoff that 1 - s(t) is noise."""
    rng = np.random.default_rng(1)
    cell = np.array([[9.0, 0.0, 0.0], [2.1, 8.7, 0.0], [-1.3, 2.4, 9.3]])
    atoms = Atoms("C30", scaled_positions=rng.random((30, 3)), cell=cell, pbc=True)
    policy = GraphPolicy(policy.kind, (9.0, 8.0, 3.0, 9.0), policy.counts)
    s = structures_of(atoms, policy.cutoff)
    s = s.to(s.positions.device, dtype)
    graph = GraphBuilder(policy)(s.positions, s.cells, s.structure, s.tags, s.pairs)
    main, swap = graph.main, graph.swap
    assert torch.equal(swap[swap], torch.arange(len(swap)))
    assert torch.equal(main.source[swap], main.target)
    assert torch.equal(main.unit[swap], -main.unit)


@policies
def test_pairs_beyond_the_cutoff_are_passed_over(policy: GraphPolicy) -> None:
    atoms = random_structure(5)
    near, far = build(policy, atoms), build(policy, atoms, reach=2.0)
    for edges, expected in zip(edges_of(far).values(), edges_of(near).values(), strict=True):
        for value, reference in zip(edges, expected, strict=True):
            if isinstance(value, Tensor):
                torch.testing.assert_close(value, reference, rtol=1e-14, atol=0)
    assert torch.equal(near.swap, far.swap)
    assert torch.equal(near.closing, far.closing)


@policies
@pytest.mark.parametrize("n_atoms", [1, 2])
def test_atoms_without_neighbours_have_no_edges(policy: GraphPolicy, n_atoms: int) -> None:
    atoms = Atoms("H" * n_atoms, positions=[[50.0 * i, 0, 0] for i in range(n_atoms)])
    for edges in edges_of(build(policy, atoms)).values():
        assert (len(edges.source), edges.slots, edges.unit.shape) == (0, 0, (0, 3))


# --- The official rule ----------------------------------------------------------------------


def neighbours(edges: Edges, atom: int) -> list[int]:
    return edges.source[edges.target == atom].tolist()


def test_each_atom_keeps_its_nearest_neighbours() -> None:
    atoms = random_structure(2)
    atoms.pbc = True
    policy = GraphPolicy.official(6.0, 12)
    counts = {"atom_edge": 8, "quadruplet": 3, "atom_atom": 400}
    edges = edges_of(build(policy, atoms))
    everything = edges["atom_atom"]
    touched = atoms.get_tags() > 0
    for name, count in counts.items():
        for atom in range(len(atoms)):
            into = everything.target == atom
            nearest = everything.distance[into].sort()
            sources = everything.source[into][nearest.indices[:count]].numpy()
            kept = edges[name].distance[edges[name].target == atom].sort().values
            expected = nearest.values[:count]
            if name == "quadruplet":
                expected = expected[torch.from_numpy(touched[sources] | touched[atom])]
            assert torch.equal(kept, expected)


def test_ties_go_to_the_lower_source() -> None:
    x = [[0.0, 0, 0], [1, 0, 0], [-1, 0, 0], [0, 1, 0]]
    graph = build(GraphPolicy("official", (5.0,) * 4, (2, 2, 1, 1)), Atoms("H4", positions=x))
    assert neighbours(graph.atom_edge, 0) == [1, 2]
    assert neighbours(graph.quadruplet, 0) == [1]
    # 3 -> 0 lost its place, but 0 -> 3 did not: the edge with s < t brings its reverse.
    assert neighbours(graph.main, 0) == [1, 2, 3]


@pytest.mark.parametrize("skew", [0.0, 0.37])
def test_ties_among_images_go_to_the_lower_offset(skew: float) -> None:
    """Images n and -n of an atom are at the same distance, to the last bit."""
    cell = np.array([[2.0, 0, 0], [skew, 2.1, 0], [-0.7 * skew, 1.3 * skew, 2.2]])
    atoms = Atoms("H", cell=cell, pbc=True)
    one = build(GraphPolicy("official", (2.15,) * 4, (3, 1, 1, 9)), atoms).atom_edge
    np.testing.assert_allclose(one.unit * one.distance[:, None], [cell[0]])  # n = (-1, 0, 0)


def test_main_edges_follow_the_lower_atom() -> None:
    """An edge into the lower atom alone is dropped, one into the higher brings its reverse."""
    x = [[0.0, 0, 0], [1.0, 0, 0], [2.1, 0, 0], [3.3, 0, 0]]
    policy = GraphPolicy("official", (5.0,) * 4, (1, 1, 1, 9))
    forward = build(policy, Atoms("H4", positions=x)).main
    assert sorted(zip(forward.source.tolist(), forward.target.tolist(), strict=True)) == [
        (0, 1),
        (1, 0),
        (1, 2),
        (2, 1),
        (2, 3),
        (3, 2),
    ]
    # In the opposite order each atom but one is nearest to a higher one: 1 -> 0 is no s < t.
    backward = build(policy, Atoms("H4", positions=x[::-1])).main
    assert sorted(zip(backward.source.tolist(), backward.target.tolist(), strict=True)) == [
        (2, 3),
        (3, 2),
    ]


def test_quadruplet_edges_touch_an_atom_that_is_not_below_the_surface() -> None:
    atoms = Atoms("H3", positions=[[0.0, 0, 0], [1, 0, 0], [0, 1.1, 0]], tags=[0, 0, 1])
    graph = build(GraphPolicy.official(5.0, 30), atoms)
    assert [neighbours(graph.quadruplet, a) for a in range(3)] == [[2], [2], [0, 1]]
    assert [neighbours(graph.main, a) for a in range(3)] == [[1, 2], [0, 2], [0, 1]]


@pytest.mark.parametrize("base", [4, 5, 10, 30, 59, 60, 100])
def test_official_counts_are_those_of_the_reference(base: int) -> None:
    """Atoms with more neighbours than any count: the reference says how many are kept."""
    counts = GraphPolicy.official(4.0, base).counts
    assert counts == (base, 2 * base // 3, 4 * base // 15, 100 * base // 3)
    x = torch.zeros(1, 3, dtype=torch.float64)
    cell, pbc = torch.diag(torch.tensor([0.1, 9.0, 9.0])).double(), (True, False, False)
    tags = torch.tensor([2])
    directed = oracle.directed_graphs(x, cell, pbc, tags, 180.0, base)
    assert tuple(len(directed[name]) for name in GRAPHS) == counts


# --- Steps of a simulation ------------------------------------------------------------------


MARGIN = 0.6


def known_and_moved(policy: GraphPolicy, seed: int) -> tuple[Structures, Structures]:
    """A structure with its neighbourhood there, and where its atoms have moved half the margin."""
    atoms = random_structure(seed)
    s = structures_of(atoms, policy.cutoff + MARGIN)
    find = GraphBuilder(policy).neighbourhood
    known = find(s.positions, s.cells, s.structure, s.tags, s.pairs, MARGIN)
    assert known is not None
    step = np.random.default_rng(seed).normal(size=atoms.positions.shape)
    step *= 0.5 * MARGIN / np.linalg.norm(step, axis=1, keepdims=True)
    moved = s._replace(positions=s.positions + torch.from_numpy(step))
    return moved._replace(known=known), moved


@pytest.fixture
def any_margin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it costs."""
    monkeypatch.setattr("jmp_md.graph.builder._MORE_EDGES", np.inf)


@pytest.mark.parametrize("kind", ["official", "smooth"])
@pytest.mark.usefixtures("any_margin")
def test_a_neighbourhood_holds_all_edges_that_have_a_weight_within_its_margin(kind: str) -> None:
    policy = POLICIES[kind]
    dead = 0
    for seed in range(40):
        known, moved = known_and_moved(policy, seed)
        assert known.known is not None
        builder = GraphBuilder(policy)
        graph = builder.measure(known.positions, known.cells, known.known)
        fresh = builder(moved.positions, moved.cells, moved.structure, moved.tags, moved.pairs)
        for edges, expected in zip(graph[:4], fresh[:4], strict=True):
            has = edges.weight > 0
            dead += int((~has).sum())
            vector = edges.unit * edges.distance[:, None]
            found = rows(edges.source[has], edges.target[has], vector[has], edges.weight[has])
            vector = expected.unit * expected.distance[:, None]
            wanted = rows(expected.source, expected.target, vector, expected.weight)
            np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-12)
    assert dead > 100


@pytest.mark.parametrize("kind", ["official", "smooth"])
@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.usefixtures("any_margin")
def test_edges_without_weight_change_neither_energies_nor_forces(kind: str, direct: bool) -> None:
    policy = POLICIES[kind]
    potential = sensitive_potential(policy, direct=direct)
    for seed in range(12):
        both = known_and_moved(policy, seed)
        found, expected = (potential.predict(s, direct=direct) for s in both)
        torch.testing.assert_close(found.energy, expected.energy, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(found.forces, expected.forces, rtol=1e-11, atol=1e-12)


# --- Layouts --------------------------------------------------------------------------------


def test_padded_layouts_give_back_what_was_spread() -> None:
    atoms = random_structure(7)
    edges, n = build(POLICIES["smooth"], atoms).main, len(atoms)
    x = torch.arange(1.0, 2 * len(edges.source) + 1).view(-1, 2)
    padded = to_slots(x, edges, n)
    assert padded.shape == (n, edges.slots, 2)
    assert torch.equal(from_slots(padded.flatten(0, 1), edges), x)
    torch.testing.assert_close(padded.sum(dim=1), sum_to_target(x, edges, n))
    assert torch.equal(source_slots(edges, n)[edges.slot], edges.source)


# --- Graphs that are kept while atoms move ---------------------------------------------------


@pytest.mark.parametrize(
    "policy",
    [
        POLICIES["official"],
        POLICIES["smooth"],
        # Of pairs beyond 3 Å, those below a surface are edges of no graph, but count as nearer.
        GraphPolicy("official", (3.0, 3.0, 5.0, 3.0), (6, 5, 25, 9)),
    ],
)
def test_a_neighbourhood_gives_energies_of_graphs_built_anew(
    policy: GraphPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jmp_md.graph.builder._MORE_EDGES", float("inf"))
    potential, rng = sensitive_potential(policy), np.random.default_rng(0)
    for seed in range(8):
        atoms = random_structure(seed)
        atoms.set_tags(2 * (rng.random(len(atoms)) < 0.4))
        s = structures_of(atoms, policy.cutoff + 0.4)
        kept = potential.prepare(s, margin=0.4)
        assert kept.known is not None
        moved = s.positions + torch.from_numpy(rng.uniform(-0.11, 0.11, s.positions.shape))
        expected = potential.predict(s._replace(positions=moved), forces=False).energies
        found = potential.predict(kept._replace(positions=moved), forces=False).energies
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


# --- Rules that cannot be meant -------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GraphPolicy("hard", (5.0,) * 4), "'hard': choose 'official' or 'smooth'"),
        (lambda: GraphPolicy("smooth", (5.0, 5.0)), "four cutoffs"),  # type: ignore[arg-type]
        (lambda: GraphPolicy.smooth(main=-1.0), "-1.0.* must be positive"),
        (lambda: GraphPolicy("smooth", (5.0,) * 4, (0, 1, 1, 1)), "at least 1"),
        (lambda: GraphPolicy("official", (5.0,) * 4), "needs a neighbour count"),
        (lambda: GraphPolicy.smooth(width=1.5), "width 1.5"),
    ],
)
def test_bad_rules_are_refused(make: Callable[[], GraphPolicy], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()
