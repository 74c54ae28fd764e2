"""Projections of the bases (spec section 3), which all interaction blocks share."""

import torch
from torch import Tensor, nn

from jmp_md.graph.layout import Graph
from jmp_md.nn.angular import cosine_coefficients, legendre_scales
from jmp_md.nn.coefficients import (
    BasisProjections,
    BasisWeights,
    RadialFeatures,
    Sizes,
    basis_projections,
)
from jmp_md.nn.config import BackboneConfig
from jmp_md.nn.edge_embedding import EdgeEmbedding
from jmp_md.nn.layers import Dense, he_orthogonal_


class BasisWeight(nn.Module):
    """A bare weight that maps the radial basis to something, in the official layout."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(*shape))
        with torch.no_grad():
            if len(shape) == 2:
                he_orthogonal_(self.weight)
            else:
                fan_in = shape[0] * shape[1]
                for i in range(shape[2]):
                    he_orthogonal_(self.weight[:, :, i], fan_in)


class Bases(nn.Module):
    """The weights of the projections, and the coefficients made with them."""

    legendre_scales: Tensor
    cosine_series: Tensor

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        c = config
        self.sizes = Sizes(c.num_spherical, c.emb_size_rbf, c.emb_size_cbf, c.emb_size_sbf)
        self.mlp_rbf_tint = Dense(c.num_radial, c.emb_size_rbf, activation=False)
        self.mlp_rbf_qint = Dense(c.num_radial, c.emb_size_rbf, activation=False)
        self.mlp_rbf_aeint = Dense(c.num_radial, c.emb_size_rbf, activation=False)
        self.mlp_rbf_eaint = Dense(c.num_radial, c.emb_size_rbf, activation=False)
        self.mlp_rbf_h = Dense(c.num_radial, c.emb_size_rbf, activation=False)
        self.mlp_rbf_out = Dense(c.num_radial, c.emb_size_rbf, activation=False)
        self.mlp_rbf_aint = BasisWeight(c.emb_size_rbf, c.num_radial)
        cbf_shape = (c.num_radial, c.num_spherical, c.emb_size_cbf)
        self.mlp_cbf_tint = BasisWeight(*cbf_shape)
        self.mlp_cbf_aeint = BasisWeight(*cbf_shape)
        self.mlp_cbf_eaint = BasisWeight(*cbf_shape)
        self.mlp_cbf_qint = BasisWeight(*cbf_shape)
        self.mlp_sbf_qint = BasisWeight(c.num_radial, c.num_spherical**2, c.emb_size_sbf)
        self.edge_emb = EdgeEmbedding(c.emb_size_atom, c.num_radial, c.emb_size_edge)
        # Constants of mathematics: kept in float64, cast on use, never saved.
        scales, cosines = legendre_scales(c.num_spherical), cosine_coefficients(c.num_spherical)
        self.register_buffer("legendre_scales", scales, persistent=False)
        self.register_buffer("cosine_series", cosines, persistent=False)

    def forward(self, radial: RadialFeatures, graph: Graph, n_atoms: int) -> BasisProjections:
        """Coefficients for all blocks of a structure or batch."""
        return basis_projections(self.weights(), self.sizes, radial, graph, n_atoms)

    def weights(self) -> BasisWeights:
        """The weights on the radial basis of each graph, side by side."""
        filters = [
            self.mlp_rbf_tint,
            self.mlp_rbf_qint,
            self.mlp_rbf_eaint,
            self.mlp_rbf_h,
            self.mlp_rbf_out,
        ]
        main = [layer.linear.weight.t() for layer in filters]
        main += [
            self._circular(self.mlp_cbf_tint.weight),
            self._circular(self.mlp_cbf_aeint.weight),
        ]
        main.append(self._spherical(self.mlp_sbf_qint.weight))
        atom_edge = [
            self.mlp_rbf_aeint.linear.weight.t(),
            self._circular(self.mlp_cbf_eaint.weight),
        ]
        return BasisWeights(
            main=torch.cat(main, dim=1),
            atom_edge=torch.cat(atom_edge, dim=1),
            quadruplet=self._circular(self.mlp_cbf_qint.weight),
            atom_atom=self.mlp_rbf_aint.weight.t(),
        )

    def _circular(self, weight: Tensor) -> Tensor:
        """A circular weight times the scales of Legendre functions: (num_radial, emb_cbf * S)."""
        # The official code flattens (radial, S, I) and reads it back as (radial, I, S).
        factors = weight.reshape(-1, self.sizes.spherical) * self.legendre_scales.to(weight.dtype)
        return factors.view(weight.shape[0], -1)

    def _spherical(self, weight: Tensor) -> Tensor:
        """A spherical weight with the cosines of dihedrals folded in, times those scales.

        (num_radial, emb_sbf * (S + 1) * S).
        """
        S = self.sizes.spherical
        # As in _circular: flattened, then read back with the angular index last.
        series = weight.reshape(-1, S) @ self.cosine_series.to(weight.dtype)
        series = series.view(-1, S, S + 1).transpose(1, 2)
        return (series * self.legendre_scales.to(weight.dtype)).reshape(weight.shape[0], -1)
