"""Descriptors of structures from the embeddings of a model, and maps of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from jmp_md.errors import InputError

if TYPE_CHECKING:
    from ase import Atoms

    from jmp_md.batch import Item
    from jmp_md.calculators.ase import JMPCalculator

METHODS = ("tsne", "pca")
LEAST = 5  # structures on a map
_AT_ONCE = 256  # rows whose distances to all are in memory together


@dataclass(frozen=True)
class Descriptors:
    """One row per structure; the same for all rotations, shifts and orders of its atoms.

    Attributes:
        nodes: (n, emb_size_atom), the mean of the embeddings of the atoms.
        edges: (n, emb_size_edge), the mean of the embeddings of the main graph's edges.
    """

    nodes: np.ndarray
    edges: np.ndarray


def descriptors(structures: Sequence[Atoms], calculator: JMPCalculator) -> Descriptors:
    """Mean-pooled embeddings, computed in batches.

    Args:
        structures: Any number, of any sizes.
        calculator: A model; its head decides on the graphs only.

    Raises:
        InputError: No structures, one that the model cannot be used for (its index is named), or
            a calculator without embeddings.
    """
    from jmp_md.batch import BatchPredictor
    from jmp_md.embeddings import embed
    from jmp_md.simulate.forces import require_jmp
    from jmp_md.structures import concatenate
    from jmp_md.system import System

    calculator = require_jmp(calculator, "descriptors need")
    if not structures:
        raise InputError("there are no structures to describe")
    potential = calculator.potential
    items = []
    for i, atoms in enumerate(structures):
        try:
            items.append(System(atoms, potential, 0.0, calculator.oc_tags).item())
        except InputError as error:
            raise InputError(f"structure {i}: {error}") from error
    nodes, edges = [], []
    for batch in _batches(items, BatchPredictor(potential, forces=False).max_edges):
        found = embed(potential, concatenate([item.structures for item in batch]))
        sizes = [item.n_atoms for item in batch]
        nodes += [part.mean(0) for part in found.atoms.double().cpu().split(sizes)]
        edges += list(found.edges.double().cpu())
    return Descriptors(np.stack([n.numpy() for n in nodes]), np.stack([e.numpy() for e in edges]))


def plane(rows: np.ndarray, method: str = "tsne", seed: int = 0) -> np.ndarray:
    """A map of descriptors in the plane.

    Args:
        rows: (n, features), n at least 5.
        method: ``"tsne"``, neighbours stay neighbours (needs scikit-learn), or ``"pca"``, the two
            directions of largest variance.
        seed: Of t-SNE.

    Returns:
        (n, 2) coordinates without a unit.

    Raises:
        InputError: An unknown method, too few rows, or scikit-learn is missing.
    """
    check_map(method, len(rows))
    centred = rows - rows.mean(axis=0)
    if method == "pca":
        left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
        return left[:, :2] * sizes[:2]
    from sklearn.manifold import TSNE

    perplexity = min(30.0, (len(rows) - 1) / 3)  # as the authors of t-SNE advise
    fitted = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(centred)
    return np.asarray(fitted, dtype=np.float64)


def plane_share(rows: np.ndarray) -> float:
    """Share of the variance that the two directions of a principal component map have.

    Args:
        rows: (n, features).
    """
    sizes = np.linalg.svd(rows - rows.mean(axis=0), compute_uv=False) ** 2
    return float(sizes[:2].sum() / sizes.sum()) if sizes.sum() > 0 else 1.0


def nearest(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance to the nearest other row, and which that is.

    Args:
        rows: (n, features).

    Returns:
        (n,) Euclidean distances and (n,) indices; both are empty for a single row.
    """
    if len(rows) < 2:
        return np.empty(0), np.empty(0, dtype=int)
    found, which = np.empty(len(rows)), np.empty(len(rows), dtype=int)
    moved = rows - rows.mean(axis=0)  # so that squares lose fewer digits
    squares = (moved**2).sum(axis=1)
    for start in range(0, len(rows), _AT_ONCE):
        part = moved[start : start + _AT_ONCE]
        own = np.arange(len(part))
        apart = squares[None] - 2 * part @ moved.T
        apart[own, start + own] = np.inf
        which[start : start + len(part)] = other = apart.argmin(axis=1)
        found[start : start + len(part)] = np.linalg.norm(part - moved[other], axis=1)
    return found, which


def check_map(method: str, count: int) -> None:
    """Refuse what :func:`plane` would, before anything is computed.

    Args:
        method: How to find the map.
        count: Structures on it.

    Raises:
        InputError: See there.
    """
    if method not in METHODS:
        raise InputError(f"method {method!r}: choose {' or '.join(METHODS)}")
    if method == "tsne":
        try:
            import sklearn  # noqa: F401
        except ImportError as error:
            raise InputError(
                "t-SNE needs scikit-learn, which is not installed: pip install scikit-learn, or "
                "choose pca"
            ) from error
    if count < LEAST:
        raise InputError(f"a map needs {LEAST} structures or more, not {count}")


def _batches(items: Iterable[Item], most: int) -> Iterator[list[Item]]:
    """Neighbours in the list together, up to ``most`` edge slots."""
    batch: list[Item] = []
    for item in items:
        together = [*batch, item]
        slots = sum(each.n_atoms for each in together) * max(each.degree for each in together)
        if batch and slots > most:
            yield batch
            together = [item]
        batch = together
    yield batch
