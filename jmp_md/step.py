"""A step of a simulation: what a potential asks its network for, and how it is computed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from torch import Tensor

from jmp_md.graph.layout import Graph
from jmp_md.nn.fold import FoldedNetwork

if TYPE_CHECKING:
    from jmp_md.potential import Potential


class StepResult(NamedTuple):
    """What the network gives for a graph.

    Attributes:
        energies: (n_atoms,) as :meth:`jmp_md.potential.Potential.network` gives them.
        forces: (n_atoms, 3) direct forces, or empty.
        roots: Tensors that depend on the positions, from which gradients go on.
        gradients: Gradient of the total energy by each of them; None where they are its sum.
    """

    energies: Tensor
    forces: Tensor
    roots: list[Tensor]
    gradients: list[Tensor] | None


class Step(Protocol):
    """Computes the network of a potential on a graph."""

    def __call__(self, numbers: Tensor, graph: Graph, *, direct: bool, lean: bool) -> StepResult:
        """Run it; gradients are wanted where they are enabled.

        Args:
            numbers: (n_atoms,) atomic numbers.
            graph: Graph whose distances, unit vectors and weights can be differentiated.
            direct: Whether direct forces are wanted.
            lean: Whether to compute blocks again in the backward pass, to need less memory.
        """
        ...

    def forget(self) -> None:
        """Expect other weights, of another type or on another device."""
        ...


class FoldedStep:
    """The folded network of a potential, in eager mode.

    It is folded at the first step, and again when weights have changed since. They are changed by
    operations on them, not through ``.data``, which nothing can notice.
    """

    def __init__(self, potential: Potential) -> None:
        self._potential = potential
        self._network: FoldedNetwork | None = None
        self._weights: list[Tensor] = []
        self._made_of: list[int] = []

    def __getstate__(self) -> dict[str, Any]:
        return {"_potential": self._potential}

    def __setstate__(self, state: dict[str, Any]) -> None:
        FoldedStep.__init__(self, state["_potential"])

    @property
    def network(self) -> FoldedNetwork:
        """The network, of the weights as they are now."""
        if self._network is None or self._made_of != self._stamp():
            weights = [*self._potential.parameters(), *self._potential.buffers()]
            self._weights = [w for w in weights if not w.is_inference()]  # others cannot change
            self._made_of = self._stamp()
            self._network = self._potential.fold()
        return self._network

    def _stamp(self) -> list[int]:
        return [self._potential.backbone.bf16, *[w._version for w in self._weights]]

    def forget(self) -> None:
        """Fold again at the next step."""
        self._network = None

    def __call__(self, numbers: Tensor, graph: Graph, *, direct: bool, lean: bool) -> StepResult:
        network = self.network
        run = network.lean if lean else network
        energies, forces = run(numbers, graph)
        return StepResult(energies, forces, [energies.sum()], None)
