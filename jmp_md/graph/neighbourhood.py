"""What a structure's graphs can be while no atom moves far: found once, measured at every step."""

from typing import NamedTuple

from torch import Tensor

from jmp_md.graph.pairs import Pairs
from jmp_md.graph.topology import Topology


class Neighbourhood(NamedTuple):
    """The graphs of a structure or a batch, but for distances, directions and weights.

    It holds while no atom moves farther than half the margin it was found with. A value without
    state, on the device of the model: whoever drives the structure keeps it, and nobody else.

    Attributes:
        pairs: Those that can be an edge of any graph.
        place: (n_pairs,) place of each pair among those into the same atom.
        shift: (n_pairs, 3) cell offsets in floating point; empty (0, 3) where all are zero.
        owner: (n_pairs,) structure of each pair.
        topology: Edges: all that can come to have a weight.
    """

    pairs: Pairs
    place: Tensor
    shift: Tensor
    owner: Tensor
    topology: Topology

    def vectors(self, positions: Tensor, cells: Tensor) -> Tensor:
        """r_st = x_t - x_s - n . cell of every pair: (n_pairs, 3) Å."""
        source, target = self.pairs.source, self.pairs.target
        vector = positions.index_select(0, target) - positions.index_select(0, source)
        if self.shift.shape[0] == 0:
            return vector
        if cells.shape[0] == 1:
            return vector - self.shift @ cells[0]
        cell = cells.index_select(0, self.owner)
        return vector - (self.shift.unsqueeze(1) @ cell).squeeze(1)
