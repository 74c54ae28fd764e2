"""A pseudo-random order of any number of things that takes no memory."""

from __future__ import annotations

import numpy as np

_ROUNDS = 6


class Shuffle:
    """A permutation of 0 .. n-1 evaluated place by place.

    A Feistel network on the smallest even number of bits that holds n, walked along its cycles
    until it falls below n (Black and Rogaway, CT-RSA 2002). An epoch of hundreds of millions of
    structures thus needs no list of them, and starting again in its middle costs nothing.

    Args:
        n: How many there are.
        seed: Words the order depends on.
    """

    def __init__(self, n: int, seed: list[int]) -> None:
        self.n = n
        half = max((max(n - 1, 1).bit_length() + 1) // 2, 1)
        self._half = np.uint64(half)
        self._mask = np.uint64((1 << half) - 1)
        self._keys = np.random.SeedSequence(seed).generate_state(_ROUNDS, np.uint64)

    def __getitem__(self, places: np.ndarray) -> np.ndarray:
        """What is at the given places: (k,) int64."""
        values = np.asarray(places, dtype=np.uint64)
        values = self._encrypt(values)
        outside = values >= self.n
        while outside.any():
            values[outside] = self._encrypt(values[outside])
            outside = values >= self.n
        return values.astype(np.int64)

    def _encrypt(self, values: np.ndarray) -> np.ndarray:
        left, right = values >> self._half, values & self._mask
        for key in self._keys:
            left, right = right, left ^ (_mixed(right ^ key) & self._mask)
        return (left << self._half) | right


def _mixed(x: np.ndarray) -> np.ndarray:
    """Finaliser of splitmix64 (Steele et al., OOPSLA 2014): every bit depends on every other."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
