"""The reference network gives the official outputs, and its index lists are the right ones."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import oracle
import pytest
import reference_cases
import torch
from ase.neighborlist import primitive_neighbor_list
from oracle_graphs import OracleEdges, Quadruplets, pairs_within, symmetric, triplets
from torch import Tensor

# Tight, because quadruplets change these energies by 1e-6 and forces by 1e-4 only.
TOLERANCE = 1e-11
FREE = (False, False, False)
NO_CELL = torch.zeros(3, 3, dtype=torch.float64)


def relative_error(value: Tensor, reference: object) -> float:
    expected = torch.as_tensor(reference, dtype=torch.float64)
    assert value.shape == expected.shape
    return float((value.detach() - expected).abs().max() / expected.abs().max())


def graphs_of(
    case: reference_cases.Case, positions: Tensor, cell: Tensor | None = None
) -> dict[str, OracleEdges]:
    cell = case.cell if cell is None else cell
    return oracle.official_graphs(positions, cell, case.pbc, case.tags, case.cutoff, case.base)


def energy(
    case: reference_cases.Case,
    positions: Tensor,
    cell: Tensor | None = None,
    graphs: dict[str, OracleEdges] | None = None,
    switch: oracle.Switch | None = None,
) -> Tensor:
    """Energy of the first head; graphs default to the official ones."""
    cell = (case.cell if cell is None else cell).to(positions)
    graphs = graphs_of(case, positions, cell) if graphs is None else graphs
    output = oracle.oracle_forward(
        case.state, case.config, case.numbers, positions, cell, graphs, inline_switch=switch
    )
    return oracle.energy_head(case.state, case.heads[0][0], output["X_E"]).sum()


@pytest.fixture
def acid(shared: Path) -> reference_cases.Case:
    return reference_cases.load("tiny-pretrain/ema/acetic_acid/8A_30")


@pytest.fixture
def crystal(shared: Path) -> reference_cases.Case:
    case = reference_cases.load("tiny-pretrain/ema/si_primitive/3.9A_60")
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(2, 3, generator=generator, dtype=torch.float64)
    return replace(case, positions=case.positions + 0.05 * noise, cutoff=3.0)


# --- Parity with the official network -------------------------------------------------------


@pytest.mark.parametrize("name", reference_cases.names())
def test_oracle_gives_official_outputs(name: str) -> None:
    case = reference_cases.load(name)
    expected = case.expected
    arguments = (case.cell, case.pbc, case.tags, case.cutoff, case.base)
    x = case.positions.clone().requires_grad_()
    graphs = oracle.official_graphs(x, *arguments)
    directed = oracle.directed_graphs(x, *arguments)
    official_names = {"main": "main", "atom_atom": "a2a", "atom_edge": "a2ee2a"}
    official_names["quadruplet"] = "qint"
    assert {official_names[k]: len(v) for k, v in directed.items()} == expected["n_edges"]
    assert len(graphs["main"]) == expected["n_edges_main_symmetrised"]

    output = oracle.oracle_forward(case.state, case.config, case.numbers, x, case.cell, graphs)
    X_E = output["X_E"]
    assert relative_error(X_E.sum(), expected["node_embedding_sum"]) < TOLERANCE
    assert relative_error(X_E.abs().mean(), expected["node_embedding_abs_mean"]) < TOLERANCE
    for t, (energy_prefix, force_prefix) in enumerate(case.heads):
        energies = oracle.energy_head(case.state, energy_prefix, X_E)
        more = t + 1 < len(case.heads)
        (gradient,) = torch.autograd.grad(energies.sum(), x, retain_graph=more)
        assert relative_error(energies, expected[f"energies_{t}"]) < TOLERANCE
        assert relative_error(energies.sum(), expected[f"energy_{t}"]) < TOLERANCE
        assert relative_error(-gradient, expected[f"conservative_forces_{t}"]) < TOLERANCE
        if force_prefix is not None:
            forces = oracle.direct_forces(case.state, force_prefix, output)
            assert relative_error(forces, expected[f"direct_forces_{t}"]) < TOLERANCE


# --- Index lists ----------------------------------------------------------------------------


def complete_graph(n: int) -> OracleEdges:
    generator = torch.Generator().manual_seed(0)
    positions = torch.rand(n, 3, generator=generator, dtype=torch.float64)
    return symmetric(pairs_within(positions, NO_CELL, FREE, 10.0))


@pytest.mark.parametrize(
    ("n_atoms", "n_triplets", "n_quadruplets"),
    [(1, 0, 0), (2, 0, 0), (3, 6, 0), (4, 24, 24), (5, 60, 120)],  # n(n-1)(n-2), times (n-3)
)
def test_complete_molecule_has_all_ordered_tuples(
    n_atoms: int, n_triplets: int, n_quadruplets: int
) -> None:
    edges = complete_graph(n_atoms)
    assert len(triplets(edges, edges)) == n_triplets
    assert len(Quadruplets.build(edges, edges).pairs) == n_quadruplets


def test_images_of_one_atom_count_as_different_atoms() -> None:
    """An atom at every integer of a line, neighbours +-1: only c, a, b, d in a row remain."""
    edges = symmetric(
        pairs_within(
            torch.zeros(1, 3, dtype=torch.float64),
            torch.eye(3, dtype=torch.float64),
            (True, False, False),
            1.1,
        )
    )
    assert edges.offset[:, 0].tolist() == [-1, 1]
    assert len(triplets(edges, edges)) == 2
    assert len(Quadruplets.build(edges, edges).pairs) == 2


def columns(*lists: Tensor) -> list[tuple[int, ...]]:
    return [tuple(row) for row in torch.stack(lists, dim=1).tolist()]


def test_lists_agree_with_loops_over_positions() -> None:
    """Loops that compare where atoms are, not their numbers and offsets."""
    generator = torch.Generator().manual_seed(3)
    positions = 2 * torch.rand(3, 3, generator=generator, dtype=torch.float64)
    cell = torch.tensor([[2.4, 0, 0], [0.7, 2.5, 0], [0.2, -0.5, 9.0]], dtype=torch.float64)
    arguments = (cell, (True, True, False), torch.tensor([0, 1, 0]), 3.0, 12)
    graphs = oracle.official_graphs(positions, *arguments)
    main, inter = graphs["main"], graphs["quadruplet"]
    x, lattice = positions.numpy(), cell.numpy()

    def place(atom: int, image: np.ndarray) -> tuple[float, ...]:
        return tuple(np.round(x[atom] + image @ lattice, 6) + 0.0)

    def ends(edges: OracleEdges) -> list[tuple[int, int, np.ndarray]]:
        lists = (edges.source.tolist(), edges.target.tolist(), edges.offset.numpy())
        return list(zip(*lists, strict=True))

    expected_triplets, expected = [], []
    home = np.zeros(3)
    for (i, ca), (j, ba) in itertools.product(enumerate(ends(main)), enumerate(ends(inter))):
        a, b, c = place(ca[1], home), place(ba[0], ba[2]), place(ca[0], ca[2])
        if ca[1] != ba[1] or b == c:
            continue
        expected_triplets.append((i, j))
        for k, db in enumerate(ends(main)):
            if db[1] == ba[0] and place(db[0], db[2] + ba[2]) not in (a, c):
                expected.append((i, j, k))

    pairs = triplets(main, inter)
    assert sorted(columns(pairs.out, pairs.inp)) == sorted(expected_triplets)
    quads = Quadruplets.build(main, inter)
    middle, inner = quads.middle, quads.pairs.inp
    assert torch.equal(quads.ca[middle], quads.pairs.out)
    assert torch.equal(quads.ba[middle], quads.ba_in[inner])
    assert len(expected) > 500
    listed = columns(quads.pairs.out, quads.ba_in[inner], quads.db[inner])
    assert sorted(listed) == sorted(expected)


# --- Graphs ---------------------------------------------------------------------------------


@pytest.mark.parametrize("pbc", list(itertools.product((False, True), repeat=3)))
def test_pairs_agree_with_ase(pbc: tuple[bool, bool, bool]) -> None:
    """A skewed cell smaller than the cutoff, atoms outside it."""
    rng = np.random.default_rng(0)
    cell = np.array([[2.6, 0.1, 0.0], [1.4, 3.0, 0.0], [-0.9, 0.8, 2.8]])
    x = rng.uniform(-4, 4, (5, 3))
    pairs = pairs_within(torch.tensor(x), torch.tensor(cell), pbc, 4.0)
    i, j, shift = primitive_neighbor_list("ijS", pbc, cell, x, 4.0)
    # ASE: r = x_j - x_i + shift . cell
    found = torch.cat([pairs.source[:, None], pairs.target[:, None], pairs.offset], dim=1)
    expected = np.column_stack([i, j, -shift])
    assert sorted(map(tuple, found.tolist())) == sorted(map(tuple, expected.tolist()))


def test_pairs_on_top_of_each_other_are_dropped_only_with_periodicity() -> None:
    x = torch.tensor([[0.0, 0, 0], [0.005, 0, 0]], dtype=torch.float64)
    cell = 20 * torch.eye(3, dtype=torch.float64)
    assert len(pairs_within(x, cell, (True, True, True), 3.0)) == 0
    assert len(pairs_within(x, cell, FREE, 3.0)) == 2


def test_nearest_neighbours_are_kept_and_ties_go_to_the_lower_source() -> None:
    x = torch.tensor([[0.0, 0, 0], [1, 0, 0], [-1, 0, 0], [0, 1, 0]], dtype=torch.float64)
    tags = torch.full((4,), 2)
    directed = oracle.directed_graphs(x, NO_CELL, FREE, tags, 5.0, 2)
    main = directed["main"]
    assert main.source[main.target == 0].tolist() == [1, 2]
    assert main.source[main.target == 3].tolist() == [0, 1]
    # 3 -> 0 lost its reverse: kept edges have s < t, so 0 -> 3 brings 3 -> 0 back.
    edges = oracle.official_graphs(x, NO_CELL, FREE, tags, 5.0, 2)["main"]
    assert edges.source[edges.target == 0].tolist() == [1, 2, 3]


def test_quadruplet_edges_need_an_atom_that_is_not_below_the_surface() -> None:
    x = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1.1, 0]], dtype=torch.float64)
    tags = torch.tensor([0, 0, 1])
    graph = oracle.official_graphs(x, NO_CELL, FREE, tags, 5.0, 30)["quadruplet"]
    pairs = set(zip(graph.source.tolist(), graph.target.tolist(), strict=True))
    assert pairs == {(0, 2), (2, 0), (1, 2), (2, 1)}


def test_a_main_graph_without_a_reverse_is_refused(acid: reference_cases.Case) -> None:
    graphs = graphs_of(acid, acid.positions)
    graphs["main"] = graphs["main"][torch.arange(1, len(graphs["main"]))]
    with pytest.raises(ValueError, match="not symmetric"):
        energy(acid, acid.positions, graphs=graphs)


# --- Derivatives, small and degenerate structures, the smooth variant -----------------------


def test_stress_and_second_derivatives_agree_with_finite_differences(
    crystal: reference_cases.Case,
) -> None:
    graphs = graphs_of(crystal, crystal.positions)

    def at(x: Tensor, strain: Tensor) -> Tensor:
        return energy(crystal, *oracle.strained(x, crystal.cell, strain), graphs)

    x = crystal.positions.clone().requires_grad_()
    strain = torch.zeros(3, 3, dtype=torch.float64, requires_grad=True)
    gradient, virial = torch.autograd.grad(at(x, strain), (x, strain), create_graph=True)
    mixed, curvature = torch.autograd.grad(virial[0, 1], (x, strain))

    h = 1e-5
    ends = []
    for sign in (1, -1):
        moved = strain.detach().clone()
        moved[0, 1] = sign * h
        moved.requires_grad_()
        value = at(x, moved)
        ends.append((value.detach(), *torch.autograd.grad(value, (x, moved))))
    slopes = [(plus - minus) / (2 * h) for plus, minus in zip(*ends, strict=True)]
    assert relative_error(slopes[0], virial[0, 1].detach()) < 1e-6
    assert relative_error(slopes[1], mixed) < 1e-6
    assert relative_error(slopes[2], curvature) < 1e-6
    assert gradient.sum(0).abs().max() < 1e-12
    assert torch.allclose(virial, virial.T, rtol=0, atol=1e-12)


def test_single_precision_follows_double(acid: reference_cases.Case) -> None:
    acid = reference_cases.strong_quadruplets(acid)
    single = energy(acid, acid.positions.float())
    assert single.dtype == torch.float32
    assert single.item() == pytest.approx(energy(acid, acid.positions).item(), rel=1e-5)


@pytest.mark.parametrize("n_atoms", [1, 2, 3])
def test_few_atoms_have_finite_energy_and_forces(acid: reference_cases.Case, n_atoms: int) -> None:
    few = replace(acid, numbers=acid.numbers[:n_atoms], tags=acid.tags[:n_atoms])
    x = acid.positions[:n_atoms].clone().requires_grad_()
    total = energy(few, x)
    (gradient,) = torch.autograd.grad(total, x)
    assert torch.isfinite(total)
    assert torch.isfinite(gradient).all()
    assert (gradient.abs().max() > 1e-3) == (n_atoms > 1)


def test_energies_of_far_fragments_add(acid: reference_cases.Case) -> None:
    pair = replace(acid, numbers=acid.numbers.repeat(2), tags=acid.tags.repeat(2))
    far = torch.cat([acid.positions, acid.positions + 50])
    assert energy(pair, far).item() == pytest.approx(2 * energy(acid, acid.positions).item())


def switch(sin2: Tensor) -> Tensor:
    t = (sin2 / 0.03).clamp(0, 1)
    return t**3 * (10 - 15 * t + 6 * t**2)


@pytest.fixture
def chain(acid: reference_cases.Case) -> reference_cases.Case:
    """The atoms of bent(), in a network that feels its quadruplets."""
    case = reference_cases.strong_quadruplets(acid)
    return replace(case, numbers=torch.tensor([6, 6, 7, 1, 1]), tags=acid.tags[:5])


def bent(angle: float) -> Tensor:
    """C-C-N in line but for an angle, with two hydrogens off the axis at different azimuths."""
    x = [[0, 0, 0], [1.4, 0, 0], [2.6 - 0.1 * angle, 1.2 * angle, 0]]
    return torch.tensor([*x, [-0.5, 0.9, 0], [-0.4, -0.3, 0.9]], dtype=torch.float64)


def test_triples_in_line_give_bounded_derivatives(chain: reference_cases.Case) -> None:
    x = bent(0.0).requires_grad_()
    (gradient,) = torch.autograd.grad(energy(chain, x), x, create_graph=True)
    (second,) = torch.autograd.grad((gradient**2).sum(), x)
    assert gradient.abs().max() < 100
    assert second.abs().max() < 1e4


def test_inline_switch_makes_the_energy_continuous(chain: reference_cases.Case) -> None:
    def jump(s: oracle.Switch | None) -> float:
        return abs(energy(chain, bent(1e-6), switch=s) - energy(chain, bent(0.0), switch=s)).item()

    assert jump(None) > 1e-3
    assert jump(switch) < 1e-4 * jump(None)
    always_on = energy(chain, bent(0.3), switch=torch.ones_like).item()
    assert always_on == pytest.approx(energy(chain, bent(0.3)).item(), rel=1e-12)


@pytest.mark.parametrize("name", ["main", "atom_edge", "quadruplet", "atom_atom"])
def test_an_edge_of_zero_weight_is_as_good_as_absent(acid: reference_cases.Case, name: str) -> None:
    acid = reference_cases.strong_quadruplets(acid)
    graphs = graphs_of(acid, acid.positions)
    edges = graphs[name]
    # Both directions, so that the main graph stays symmetric.
    low = torch.minimum(edges.source, edges.target)
    kept = ~((low == 0) & (edges.source + edges.target == 3))
    weighted = graphs | {name: replace(edges, weight=kept.double())}
    removed = energy(acid, acid.positions, graphs=graphs | {name: edges[kept]}).item()
    assert (~kept).sum() == 2
    assert energy(acid, acid.positions, graphs=weighted).item() == pytest.approx(removed, rel=1e-12)
    assert abs(energy(acid, acid.positions, graphs=graphs).item() - removed) > 1e-5


def test_direct_forces_leave_out_edges_of_zero_weight(acid: reference_cases.Case) -> None:
    prefix = acid.heads[0][1]
    assert prefix is not None
    graphs = graphs_of(acid, acid.positions)
    edges = graphs["main"]
    kept = edges.source + edges.target != 3

    def forces(main: OracleEdges) -> Tensor:
        inputs = (acid.state, acid.config, acid.numbers, acid.positions, acid.cell)
        output = oracle.oracle_forward(*inputs, graphs | {"main": main})
        return oracle.direct_forces(acid.state, prefix, output)

    weighted = forces(replace(edges, weight=kept.double()))
    assert relative_error(weighted, forces(edges[kept])) < 1e-12
