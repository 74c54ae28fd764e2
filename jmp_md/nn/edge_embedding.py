"""The embedding of an edge from its two atoms and features of its own."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from jmp_md.graph.layout import Edges
from jmp_md.nn.layers import Dense, Derived, Scaled, sigma


class EdgeEmbedding(nn.Module):
    """m_ca = sigma(W [h_c, h_a, x_ca]), evaluated by columns of W.

    The columns of atoms act on n_atoms rows, not n_edges, before they are gathered.
    """

    def __init__(self, emb_atom: int, n_edge_features: int, out_features: int) -> None:
        super().__init__()
        self.emb_atom = emb_atom
        self.dense = Dense(2 * emb_atom + n_edge_features, out_features)
        self._on_atoms, self._on_edges = Derived(), Derived()

    def forward(self, h: Scaled, x: Scaled, edges: Edges) -> Scaled:
        if torch.jit.is_scripting():
            on_atoms, on_edges = self._on_atoms.kept, self._on_edges.kept
        else:
            weight = [self.dense.linear.weight]
            on_atoms = self._on_atoms.of(self._atom_columns, weight, h.gain)
            on_edges = self._on_edges.of(self._edge_columns, weight, x.gain)
        from_source, from_target = functional.linear(h.value, on_atoms).chunk(2, dim=1)
        from_atoms = from_source.index_select(0, edges.source)
        from_atoms = from_atoms + from_target.index_select(0, edges.target)
        return sigma(torch.addmm(from_atoms, x.value, on_edges))

    def _atom_columns(self, weight: list[Tensor], gain: float) -> Tensor:
        """gain times the columns of sources, above those of targets: (2 * out, emb_atom)."""
        n = self.emb_atom
        return torch.cat([weight[0][:, :n], weight[0][:, n : 2 * n]]) * gain

    def _edge_columns(self, weight: list[Tensor], gain: float) -> Tensor:
        """gain times the columns of edges, transposed: (n_edge_features, out)."""
        return weight[0][:, 2 * self.emb_atom :].t() * gain
