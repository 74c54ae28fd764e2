"""The search in torch finds, in many structures at once, the pairs that matscipy finds in each."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from jmp_md.graph.found import Found, Place, Reach, at_once, find_here, find_on_device
from jmp_md.graph.pairs import Pairs, complete_cell, find_pairs
from jmp_md.graph.search import search

BY_BINS, ONE_BY_ONE = 0, 10**9  # candidates up to which bins do not pay
ALL_PBC = list(itertools.product((False, True), repeat=3))


class Structure(NamedTuple):
    positions: np.ndarray
    cell: np.ndarray
    pbc: np.ndarray

    @property
    def wrapped(self) -> np.ndarray:
        complete = complete_cell(self.cell, self.pbc)
        turns = np.floor(self.positions @ np.linalg.inv(complete)) * self.pbc
        return self.positions - turns @ complete


def together(
    structures: list[Structure], cutoff: float, few: int, at_once: int = 2_000_000
) -> tuple[list[Pairs], torch.Tensor]:
    """Pairs of each structure, of a search in all of them, and all distances."""
    sizes = [len(s.positions) for s in structures]
    found, distance = search(
        torch.from_numpy(np.concatenate([s.wrapped for s in structures])),
        torch.from_numpy(np.repeat(np.arange(len(sizes)), sizes)),
        torch.from_numpy(np.array([complete_cell(s.cell, s.pbc) for s in structures])),
        torch.from_numpy(np.array([s.pbc for s in structures])),
        any(s.pbc.any() for s in structures),
        cutoff,
        few,
        at_once,
    )
    parts, atoms, before = [], 0, 0
    for size in sizes:
        own = (found.target >= atoms) & (found.target < atoms + size)
        source, target, offset, reverse = (column[own] for column in found)
        parts.append(Pairs(source - atoms, target - atoms, offset, reverse - before))
        atoms, before = atoms + size, before + int(own.sum())
    return parts, distance


def assert_same(found: list[Pairs], structures: list[Structure], cutoff: float) -> None:
    for pairs, s in zip(found, structures, strict=True):
        expected = find_pairs(s.wrapped, s.cell, s.pbc, cutoff)
        for got, wanted in zip(pairs, expected, strict=True):
            assert torch.equal(got, wanted)


@st.composite
def structure(draw: st.DrawFn) -> Structure:
    """Atoms in and outside of a triclinic cell, some of them in the same place or far away."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    pbc = np.array(draw(st.tuples(st.booleans(), st.booleans(), st.booleans())))
    lengths = draw(st.tuples(*[st.floats(1.5, 12.0)] * 3))
    cell = np.diag(lengths) @ (np.eye(3) + rng.uniform(-0.4, 0.4, (3, 3)))
    cell[~pbc] = draw(st.sampled_from([0.0, 1.0])) * cell[~pbc]
    positions = rng.uniform(-8.0, 8.0, (draw(st.integers(1, 12)), 3))
    positions[draw(st.integers(0, len(positions) - 1))] = positions[0]
    if draw(st.booleans()):
        positions[-1] += draw(st.sampled_from([30.0, 1e4, 1e6]))
    return Structure(positions, cell, pbc)


@pytest.mark.parametrize("few", [BY_BINS, ONE_BY_ONE])
@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    structures=st.lists(structure(), min_size=1, max_size=5),
    cutoff=st.sampled_from([0.5, 3.0, 7.3]),
)
def test_any_structures_at_once(few: int, structures: list[Structure], cutoff: float) -> None:
    found, _ = together(structures, cutoff, few)
    assert_same(found, structures, cutoff)


@pytest.mark.parametrize("few", [BY_BINS, ONE_BY_ONE])
@pytest.mark.parametrize("pbc", ALL_PBC)
def test_pairs_and_distances_are_those_over_all_images(
    pbc: tuple[bool, bool, bool], few: int
) -> None:
    rng = np.random.default_rng(4)
    cell = np.array([[4.0, 0.3, -0.8], [1.7, 3.5, 0.2], [-0.9, 1.1, 5.0]])
    s = Structure(rng.uniform(-9.0, 9.0, (4, 3)), cell, np.array(pbc))
    (pairs,), distance = together([s], 6.0, few)
    found = sorted(
        zip(pairs.target.tolist(), pairs.source.tolist(), distance.tolist(), strict=True)
    )
    steps = [range(-6, 7) if periodic else (0,) for periodic in pbc]
    offsets = np.array(list(itertools.product(*steps)))
    gaps = s.wrapped[:, None] - s.wrapped[None, :]
    apart = np.linalg.norm(gaps[:, :, None] - offsets @ cell, axis=-1)
    own = np.eye(4, dtype=bool)[:, :, None] & ~offsets.any(axis=1)
    t, r, k = np.nonzero((apart <= 6.0) & ~own)
    expected = list(zip(t, r, apart[t, r, k], strict=True))
    np.testing.assert_allclose(found, sorted(expected), rtol=0, atol=1e-9)


@pytest.mark.parametrize("few", [BY_BINS, ONE_BY_ONE])
def test_pairs_exactly_at_the_cutoff_are_found_both_ways(few: int) -> None:
    cube = Structure(np.zeros((1, 3)), 4.0 * np.eye(3), np.ones(3, dtype=bool))
    (pairs,), distance = together([cube], 12.0, few)
    assert int((distance == 12.0).sum()) == 30  # (3, 0, 0), (2, 2, 1), all orders and signs
    assert torch.equal(pairs.offset[pairs.reverse], -pairs.offset)


def test_memory_is_bounded_by_looking_at_a_part_of_the_atoms_at_a_time() -> None:
    rng = np.random.default_rng(6)
    box = Structure(rng.uniform(0.0, 14.0, (300, 3)), 14.0 * np.eye(3), np.ones(3, dtype=bool))
    for few in (BY_BINS, ONE_BY_ONE):
        found, _ = together([box], 5.0, few, at_once=20_000)
        assert_same(found, [box], 5.0)


def test_structures_side_by_side_do_not_meet_however_large_they_are() -> None:
    rng = np.random.default_rng(7)
    line = np.zeros((30, 3))
    line[:, 0] = 40.0 * np.arange(30)
    wide = Structure(line + rng.uniform(-1, 1, (30, 3)), np.zeros((3, 3)), np.zeros(3, dtype=bool))
    structures = [wide, wide._replace(positions=wide.positions[:5]), wide]
    found, _ = together(structures, 41.0, BY_BINS)
    assert_same(found, structures, 41.0)


def rows(found: Found) -> list[list[list[int]]]:
    """All that was found, as numbers."""
    every = [column.tolist() for column in (*found.pairs, *found.close)]
    return [*every, found.degree]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(structures=st.lists(structure(), min_size=1, max_size=5))
def test_a_device_tells_what_the_processor_tells(structures: list[Structure]) -> None:
    places = [Place(s.wrapped, s.cell, complete_cell(s.cell, s.pbc), s.pbc) for s in structures]
    reach = Reach(pairs=5.0, close=1.5, counted=4.0)
    found = find_on_device(places, reach, torch.device("cpu"))
    assert [rows(one) for one in found] == [rows(find_here(place, reach)) for place in places]


@given(sizes=st.lists(st.integers(1, 100_000), max_size=20), cutoff=st.floats(1.0, 20.0))
def test_what_is_searched_in_one_go_is_everything_once_and_bounded(
    sizes: list[int], cutoff: float
) -> None:
    parts = [sizes[part] for part in at_once(sizes, cutoff)]
    assert [size for part in parts for size in part] == sizes
    most = 4_000_000 / (0.4 * cutoff**3)
    assert all(len(part) <= 1 or sum(part) <= most for part in parts)
