"""Fitting of the scale factors of a new network (spec section 6).

Each factor restores the variance its operation changed: sqrt(var(before) / var(after)). Factors
are fitted in forward order, earlier ones applied, which one forward pass over a large batch does:
all start at one, so that what a layer gives is not scaled yet.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from jmp_md.graph.layout import Graph, source_slots, to_slots
from jmp_md.nn.layers import ScaleFactor
from jmp_md.potential import Potential
from jmp_md.structures import Structures
from jmp_md.training.property import PropertyModel


@torch.no_grad()
def fit_scale_factors(
    potential: Potential | PropertyModel, structures: Structures
) -> dict[str, float]:
    """Set every scale factor of a network from one batch; returns them by name."""
    weight = potential.embedding.weight
    s = structures.to(weight.device, weight.dtype)
    graph = potential.graph(s.positions, s.cells, s.structure, s.tags, s.pairs)
    uses = _uses(graph, len(s.numbers))
    fitted: dict[str, float] = {}
    hooks = []
    for name, module in potential.backbone.named_modules():
        if isinstance(module, ScaleFactor):
            module.scale_factor.fill_(1.0)
            hooks.append(module.register_forward_hook(_fit(name, uses, fitted)))
    try:
        potential.backbone(potential.embedding(s.numbers - 1), graph)
    finally:
        for hook in hooks:
            hook.remove()
    return fitted


def _fit(
    name: str, uses: dict[str, tuple[Tensor | None, Tensor]], fitted: dict[str, float]
) -> Callable[[nn.Module, Any, Any], Any]:
    rows_after, rows_before = uses.get(".".join(name.split(".")[-2:]), (None, None))

    def hook(module: nn.Module, inputs: tuple[Tensor, Tensor], output: Tensor) -> Tensor:
        after, before = inputs
        v_after, v_before = _variance(after, rows_after), _variance(before, rows_before)
        # An interaction that no structure of the batch has teaches nothing: leave it at one.
        factor = (v_before / v_after) ** 0.5 if v_before > 0 and v_after > 0 else 1.0
        assert isinstance(module, ScaleFactor)
        module.scale_factor.fill_(factor)
        fitted[name] = factor
        return after * factor

    return hook


def _variance(x: Tensor, weight: Tensor | None) -> float:
    """Variance over rows averaged over features; a row may count several times."""
    x = x.reshape(-1, x.shape[-1]).double()
    w = x.new_ones(len(x), 1) if weight is None else weight.reshape(-1, 1).to(x)
    n = w.sum().clamp(min=1)
    mean = (w * x).sum(dim=0) / n
    return float(((w * (x - mean) ** 2).sum(dim=0) / n).mean())


def _uses(graph: Graph, n_atoms: int) -> dict[str, tuple[Tensor | None, Tensor]]:
    """How often each row counts, (after, before), for the factors where rows do not count once.

    ``*_sum`` factors compare with the inputs repeated once per triplet, quadruplet or edge that
    is summed; those repeats are counted here, not listed.
    """
    main, atom_edge, quad, atom_atom = (
        graph.main,
        graph.atom_edge,
        graph.quadruplet,
        graph.atom_atom,
    )
    filled = to_slots(torch.ones_like(main.distance), main, n_atoms)
    filled_ae = to_slots(torch.ones_like(atom_edge.distance), atom_edge, n_atoms)
    filled_q = to_slots(torch.ones_like(quad.distance), quad, n_atoms)
    pairs_ae = graph.differ_atom_edge * filled.unsqueeze(2) * filled_ae.unsqueeze(1)
    degree = filled.sum(dim=1)

    triplet = graph.open_triplet * filled.index_select(0, source_slots(quad, n_atoms))
    triplet = triplet * filled_q.view(-1, 1)
    outputs = (graph.differ_quadruplet * filled.unsqueeze(2)).sum(dim=1).view(-1, 1)
    closes = torch.zeros_like(triplet).view(-1)
    closes[graph.closing[graph.is_closing.view(-1)]] = 1.0
    quadruplets = triplet * outputs - closes.view_as(triplet)

    by_source = torch.bincount(atom_atom.source, minlength=n_atoms)
    return {
        "trip_interaction.scale_cbf_sum": (None, degree[main.target] - 1),
        "quad_interaction.scale_cbf": (triplet, triplet),
        "quad_interaction.scale_sbf_sum": (None, quadruplets),
        "atom_edge_interaction.scale_cbf_sum": (
            None,
            pairs_ae.sum(dim=1).view(-1)[atom_edge.slot],
        ),
        "edge_atom_interaction.scale_cbf_sum": (None, pairs_ae.sum(dim=2).view(-1)[main.slot]),
        "atom_interaction.scale_rbf_sum": (None, by_source),
    }
