"""The embedding of an edge from its two atoms and features of its own."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from jmp_md.graph.layout import Edges
from jmp_md.nn.activation import sigma
from jmp_md.nn.layers import Dense


class EdgeEmbedding(nn.Module):
    """m_ca = sigma(W [h_c, h_a, x_ca])."""

    def __init__(self, emb_atom: int, n_edge_features: int, out_features: int) -> None:
        super().__init__()
        self.emb_atom = emb_atom
        self.dense = Dense(2 * emb_atom + n_edge_features, out_features)

    def forward(self, h: Tensor, x: Tensor, edges: Edges) -> Tensor:
        on_atoms, on_edges = self.columns()
        return sigma(by_columns(h, x, on_atoms, on_edges, edges))

    def columns(self) -> tuple[Tensor, Tensor]:
        """The columns of W for sources, above those for targets, and those for edges."""
        n, weight = self.emb_atom, self.dense.linear.weight
        return torch.cat([weight[:, :n], weight[:, n : 2 * n]]), weight[:, 2 * n :]


def by_columns(h: Tensor, x: Tensor, on_atoms: Tensor, on_edges: Tensor, edges: Edges) -> Tensor:
    """W [h_c, h_a, x_ca] by columns of W: those of atoms act on atoms, before they are gathered."""
    from_source, from_target = functional.linear(h, on_atoms).chunk(2, dim=1)
    from_atoms = from_source.index_select(0, edges.source)
    from_atoms = from_atoms + from_target.index_select(0, edges.target)
    return torch.addmm(from_atoms, x, on_edges.t())
