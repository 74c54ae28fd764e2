"""Structures of any sizes in batches that fit in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from torch_geometric.data import Data

from jmp_md.batch import make_item, usual_edges
from jmp_md.graph.policy import GraphPolicy
from jmp_md.nn.footprint import edges_in
from jmp_md.potential import Potential
from jmp_md.training.batches import to_structures
from jmp_md.training.property import PropertyModel

BYTES = 2**30  # of a batch on a processor, which gains nothing from larger ones

Model = Potential | PropertyModel


def packed(model: Model, items: Iterable[Data], limit: int | None = None) -> Iterator[list[Data]]:
    """Consecutive structures, as many as fit in memory together; at least one.

    Args:
        model: What will evaluate them.
        items: The structures.
        limit: Edge slots of the main graph; by default what memory has room for.
    """
    policy = model.policy if isinstance(model, Potential) else model.head.graph
    limit = limit or _edges(model)
    part: list[Data] = []
    n_atoms = degree = 0
    for item in items:
        own = _degree(item, policy)
        if part and (n_atoms + item.num_nodes) * max(degree, own) > limit:
            yield part
            part, n_atoms, degree = [], 0, 0
        part.append(item)
        n_atoms, degree = n_atoms + item.num_nodes, max(degree, own)
    if part:
        yield part


def _edges(model: Model) -> int:
    """Largest number of edge slots of the main graph in a batch."""
    sizes, weight = model.header.architecture, model.embedding.weight
    usual = usual_edges(sizes, weight)
    return usual if weight.is_cuda else min(usual, edges_in(BYTES, sizes, weight))


def _degree(item: Data, policy: GraphPolicy) -> int:
    return make_item(to_structures(item), np.zeros(3, dtype=bool), policy).degree
