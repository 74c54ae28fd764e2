"""Pairs are those a search by brute force finds, and stay right while a structure moves."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest
import torch

from jmp_md.errors import InputError
from jmp_md.graph.neighbours import NeighbourCache
from jmp_md.graph.pairs import Pairs, complete_cell, find_pairs, pair_distances

TRICLINIC = np.array([[4.0, 0.3, -0.8], [1.7, 3.5, 0.2], [-0.9, 1.1, 5.0]])
ALL_PBC = list(itertools.product((False, True), repeat=3))


def brute_force(
    positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, cutoff: float, reach: int
) -> list[tuple[int, ...]]:
    """(target, source, offset) of every pair, over all images within ``reach`` cells."""
    ranges = [range(-reach, reach + 1) if periodic else (0,) for periodic in pbc]
    found = []
    for offset in itertools.product(*ranges):
        shift = np.array(offset) @ cell
        for t, s in itertools.product(range(len(positions)), repeat=2):
            if t == s and not any(offset):
                continue
            if np.linalg.norm(positions[t] - positions[s] - shift) <= cutoff:
                found.append((t, s, *offset))
    return sorted(found)


def as_tuples(pairs: Pairs) -> list[tuple[int, ...]]:
    columns = torch.cat([pairs.target[:, None], pairs.source[:, None], pairs.offset], dim=1)
    return [tuple(row) for row in columns.tolist()]


def assert_reversed(pairs: Pairs) -> None:
    back = Pairs(*(column[pairs.reverse] for column in pairs[:3]), pairs.reverse[pairs.reverse])
    assert torch.equal(back.source, pairs.target)
    assert torch.equal(back.target, pairs.source)
    assert torch.equal(back.offset, -pairs.offset)
    assert torch.equal(back.reverse, torch.arange(len(pairs.source)))


@pytest.mark.parametrize("pbc", ALL_PBC)
@pytest.mark.parametrize("open_cell", ["vectors", "zeros", "parallel"])
def test_pairs_equal_brute_force_in_small_triclinic_cells(
    pbc: tuple[bool, bool, bool], open_cell: str
) -> None:
    rng = np.random.default_rng(3)
    periodic = np.array(pbc)
    cell = TRICLINIC.copy()
    if open_cell == "zeros":
        cell[~periodic] = 0.0
    elif open_cell == "parallel":
        cell[~periodic] = cell[periodic][0] if any(pbc) else 1.0
    positions = rng.uniform(-9.0, 9.0, (4, 3))  # most of them outside the cell
    pairs = find_pairs(positions, cell, periodic, 6.0)
    assert as_tuples(pairs) == brute_force(positions, cell, periodic, 6.0, reach=12)
    assert_reversed(pairs)


@pytest.mark.parametrize("pbc", ALL_PBC)
def test_a_single_atom_meets_only_its_images(pbc: tuple[bool, bool, bool]) -> None:
    periodic = np.array(pbc)
    position = np.array([[7.3, -2.0, 11.0]])
    pairs = find_pairs(position, TRICLINIC, periodic, 8.0)
    assert as_tuples(pairs) == brute_force(position, TRICLINIC, periodic, 8.0, reach=5)
    assert_reversed(pairs)


def test_left_handed_cells_are_cells() -> None:
    cell = TRICLINIC[[1, 0, 2]]
    positions = np.random.default_rng(1).uniform(0.0, 4.0, (3, 3))
    pbc = np.ones(3, dtype=bool)
    pairs = find_pairs(positions, cell, pbc, 5.0)
    assert as_tuples(pairs) == brute_force(positions, cell, pbc, 5.0, reach=4)


def test_a_pair_exactly_at_the_cutoff_is_found_both_ways() -> None:
    pbc = np.ones(3, dtype=bool)
    pairs = find_pairs(np.zeros((1, 3)), np.eye(3) * 4.0, pbc, 12.0)
    at_cutoff = (pairs.offset.square().sum(dim=1) == 9).sum()
    assert at_cutoff == 30  # (3, 0, 0) and (2, 2, 1) with their permutations and signs
    assert_reversed(pairs)


@pytest.mark.parametrize("pbc", [(False, False, False), (True, False, False)])
def test_atoms_far_apart_cost_no_time_or_memory(pbc: tuple[bool, bool, bool]) -> None:
    positions = np.array([[0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.5, 1e7, 1e7], [0.5, 1e7, 1e7 + 1.5]])
    start = time.perf_counter()
    pairs = find_pairs(positions, np.eye(3) * 50.0, np.array(pbc), 6.0)
    assert time.perf_counter() - start < 1.0
    assert as_tuples(pairs) == [(t, s, 0, 0, 0) for t, s in ((0, 1), (1, 0), (2, 3), (3, 2))]


def test_open_directions_are_completed_by_normals() -> None:
    for pbc in ALL_PBC:
        periodic = np.array(pbc)
        cell = complete_cell(TRICLINIC, periodic)
        assert np.array_equal(cell[periodic], TRICLINIC[periodic])
        assert np.allclose(cell[~periodic] @ cell[~periodic].T, np.eye(3 - sum(pbc)))
        assert np.allclose(cell[~periodic] @ cell[periodic].T, 0.0)


def geometry(pairs: Pairs, positions: np.ndarray, cell: np.ndarray, cutoff: float) -> np.ndarray:
    """(n, 5) target, source and vector of each pair within the cutoff, in the order of pairs."""
    source, target, offset = (column.numpy() for column in pairs[:3])
    vector = positions[target] - positions[source] - offset @ cell
    near = pair_distances(positions, cell, source, target, offset) <= cutoff
    return np.column_stack([target, source, vector])[near]


@pytest.mark.parametrize("pbc", ALL_PBC)
def test_cached_pairs_equal_fresh_ones_while_atoms_move_and_wrap(
    pbc: tuple[bool, bool, bool],
) -> None:
    rng = np.random.default_rng(5)
    periodic = np.array(pbc)
    cell = TRICLINIC * 1.5
    positions = rng.uniform(0.0, 6.0, (6, 3))
    numbers = np.array([1, 6, 8, 1, 1, 7])
    cached, fresh = NeighbourCache(4.0, 1.0), NeighbourCache(4.0, 0.0)
    for _ in range(40):
        positions = positions + rng.normal(0.0, 0.05, (6, 3))
        shift = rng.integers(-3, 4, (6, 3)) * periodic  # atoms put into other cells at random
        seen = positions + shift @ cell
        rows = geometry(*cached.update(seen, numbers, cell, periodic), cell, 4.0)
        expected = geometry(*fresh.update(seen, numbers, cell, periodic), cell, 4.0)
        # Where a pair has several images, wrapping may number them anew but keeps their order.
        assert np.allclose(rows, expected, atol=1e-12)
    assert fresh.rebuilds == 40
    assert 1 < cached.rebuilds < 20


def test_searching_again_happens_only_when_it_must() -> None:
    pbc = np.ones(3, dtype=bool)
    cell = np.eye(3) * 9.0
    numbers = np.array([1, 8])
    positions = np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    cache = NeighbourCache(4.0, 1.0)

    def rebuilds(*args: np.ndarray) -> int:
        cache.update(*args)
        return cache.rebuilds

    assert rebuilds(positions, numbers, cell, pbc) == 1
    assert rebuilds(positions + 0.28, numbers, cell, pbc) == 1
    assert rebuilds(positions + np.array([9.0, -18.0, 0.2]), numbers, cell, pbc) == 1
    assert rebuilds(positions + 0.29, numbers, cell, pbc) == 2  # 0.502 Å
    assert rebuilds(positions + 0.29, numbers[::-1].copy(), cell, pbc) == 3
    assert rebuilds(positions + 0.29, numbers[::-1].copy(), cell * 1.001, pbc) == 4
    assert rebuilds(positions + 0.29, numbers[::-1].copy(), cell * 1.001, ~pbc) == 5
    assert rebuilds(positions[:1], numbers[:1], cell, ~pbc) == 6


def test_close_pairs_are_those_that_could_collide_before_the_next_search() -> None:
    line = np.zeros((4, 3))
    line[:, 0] = [0.0, 1.005, 2.5, 3.4]
    cache = NeighbourCache(4.0, 1.0)
    cache.update(line, np.ones(4), np.zeros((3, 3)), np.zeros(3, dtype=bool))
    assert as_tuples(cache.close) == [(t, s, 0, 0, 0) for t, s in ((0, 1), (1, 0), (2, 3), (3, 2))]
    assert_reversed(cache.close)


def test_returned_positions_are_the_same_structure_near_the_origin() -> None:
    rng = np.random.default_rng(2)
    positions = rng.uniform(0.0, 4.0, (5, 3))
    cache = NeighbourCache(4.0, 1.0)
    nowhere = np.zeros(3, dtype=bool)
    _, near = cache.update(positions + 1e5, np.ones(5), np.zeros((3, 3)), nowhere)
    assert np.abs(near).max() < 4.0
    assert np.allclose(near - near[0], positions - positions[0], atol=1e-9)


@pytest.mark.parametrize("skin", [-0.5, float("nan"), float("inf")])
def test_a_skin_that_cannot_be_meant_is_refused(skin: float) -> None:
    with pytest.raises(InputError, match=r"skin.*must be 0 or more"):
        NeighbourCache(5.0, skin)
