"""What the backbone of a model knows of atoms and structures: its embeddings."""

from __future__ import annotations

import threading
from typing import Any, NamedTuple

import torch
from torch import Tensor

from jmp_md.checkpoints.exported import FixedPotential
from jmp_md.errors import InputError
from jmp_md.potential import Potential
from jmp_md.structures import Structures


class Embeddings(NamedTuple):
    """Embeddings of a batch, detached; none depends on the head.

    Attributes:
        atoms: (n_atoms, emb_size_atom), X_E, which energy heads read.
        edges: (n_structures, emb_size_edge), the mean of the edges of the main graph after the
            last block, weighted as in the network's sums; zero where there are none.
    """

    atoms: Tensor
    edges: Tensor


@torch.inference_mode(False)
def embed(potential: Potential, structures: Structures) -> Embeddings:
    """Embed a batch, in the type and on the device of the weights.

    The caller's modes (autocast, inference_mode) make no difference.

    Args:
        potential: Any model but an exported one.
        structures: Any type and device.

    Raises:
        InputError: An exported model, which has no embeddings to show.
    """
    if isinstance(potential, FixedPotential):
        raise InputError(
            f"the exported file of model {potential.header.name!r} keeps its embeddings to itself: "
            "use the model file it was exported from"
        )
    weight = potential.embedding.weight
    s = structures.to(weight.device, weight.dtype)
    blocks: list[tuple[Tensor, Tensor]] = []
    thread = threading.get_ident()  # others may compute with the same model meanwhile

    def keep(module: torch.nn.Module, args: Any, output: tuple[Tensor, Tensor]) -> None:
        if threading.get_ident() == thread:
            blocks.append(output)

    graph = potential.graph_of(s)
    handle = potential.backbone.int_blocks[-1].register_forward_hook(keep)
    try:
        with torch.no_grad(), torch.autocast(weight.device.type, enabled=False):
            atoms, _ = potential.backbone(potential.embedding(s.numbers - 1), graph)
    finally:
        handle.remove()
    ((_, edges),) = blocks
    owner, share = s.structure[graph.main.target], graph.main.weight.to(weight.dtype)
    total = edges.new_zeros(len(s.cells), edges.shape[1], dtype=weight.dtype)
    total.index_add_(0, owner, edges.to(weight.dtype) * share.unsqueeze(-1))
    shares = share.new_zeros(len(s.cells)).index_add(0, owner, share)
    return Embeddings(atoms, total / shares.clamp_min(torch.finfo(weight.dtype).tiny).unsqueeze(-1))
