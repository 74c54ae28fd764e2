"""Properties of whole structures: the network, its model file and its errors."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from ase.data import atomic_masses
from torch import Tensor, nn

from jmp_md.checkpoints.native import read_native
from jmp_md.errors import CheckpointError
from jmp_md.forks import expect_threads
from jmp_md.graph.builder import GraphBuilder
from jmp_md.header import HeadInfo, ModelHeader
from jmp_md.nn.activation import ScaledSiLU
from jmp_md.nn.backbone import GemNetOC
from jmp_md.potential import element_references
from jmp_md.structures import Structures
from jmp_md.training.config import build
from jmp_md.training.sections import TargetSection

_HEADER_KEY = "property"


class PropertyModel(nn.Module):
    """A backbone and a head that pools the outputs of atoms into a property.

    Args:
        header: Architecture, with one head: its ``energy_scale`` and ``energy_mean`` are the
            standard deviation and the mean of the target, in the target's own unit; with
            ``references`` the former is of what those leave, and there is no mean.
        target: What is predicted.
    """

    masses: Tensor

    def __init__(self, header: ModelHeader, target: TargetSection) -> None:
        super().__init__()
        c = header.architecture
        about = {**header.training, _HEADER_KEY: target.model_dump()}
        self.header = dataclasses.replace(header, training=about)
        self.target = target
        self.head: HeadInfo = header.head()
        self.graph = GraphBuilder(self.head.graph)
        self.embedding = nn.Embedding(c.num_elements, c.emb_size_atom)
        self.backbone = GemNetOC(c)
        n_outputs = 2 if target.kind == "classes" else 1
        self.property_head = property_head(
            c.emb_size_atom, n_outputs, bias=target.kind != "extent", dropout=target.dropout
        )
        masses = torch.from_numpy(atomic_masses.copy())
        self.register_buffer("masses", masses, persistent=False)

    def forward(self, structures: Structures) -> Tensor:
        """Normalised property (n_structures,), or logits (n_structures, 2) of classes."""
        expect_threads()
        s = structures
        graph = self.graph(s.positions, s.cells, s.structure, s.tags, s.pairs)
        x, _ = self.backbone(self.embedding(s.numbers - 1), graph)
        outputs = self.property_head(x)
        if self.target.kind == "extent":
            outputs = outputs * self._squared_distances(s).unsqueeze(1)
        reduce = {"sum": "sum", "mean": "mean", "max": "amax"}[self.target.pooling]
        place = s.structure.unsqueeze(1).expand_as(outputs)
        pooled = outputs.new_zeros(len(s.cells), outputs.shape[1])
        pooled = pooled.scatter_reduce(0, place, outputs, reduce, include_self=False)
        return pooled if self.target.kind == "classes" else pooled.squeeze(1)

    @torch.no_grad()
    def predict(self, structures: Structures) -> Tensor:
        """The property in its unit, or the probability of class 1: (n_structures,) float64."""
        weight = self.embedding.weight
        output = self(structures.to(weight.device, weight.dtype)).double()
        if self.target.kind == "classes":
            return output.softmax(dim=1)[:, 1]
        return output * self.head.energy_scale + self.constant(structures).to(output.device)

    def constant(self, structures: Structures) -> Tensor:
        """(n_structures,) float64, what the network does not learn: mean and references."""
        s = structures
        references = element_references(self.head, self.header.architecture.num_elements)
        constant = torch.full((len(s.cells),), self.head.energy_mean, dtype=torch.float64)
        return constant.index_add(0, s.structure.cpu(), references[s.numbers.cpu()])

    def native_state(self) -> dict[str, Tensor]:
        """The tensors under the names of the native format."""
        prefix = f"heads.{self.head.name}.property."
        return {k.replace("property_head.", prefix): v for k, v in self.state_dict().items()}

    @classmethod
    def load(cls, path: str | Path) -> PropertyModel:
        """Read a model file, for inference.

        Raises:
            CheckpointError: The file cannot be read, or holds another kind of model.
        """
        return cls.from_state(*read_native(path), str(path))

    @classmethod
    def from_state(cls, header: ModelHeader, state: dict[str, Tensor], where: str) -> PropertyModel:
        """As :meth:`load`, of tensors that messages say to be in ``where``."""
        settings = header.training.get(_HEADER_KEY)
        if not isinstance(settings, dict):
            raise CheckpointError(
                f"{where} predicts energies and forces, not a property: use JMPCalculator"
            )
        prefix = f"heads.{header.head().name}.property."
        model = cls(header, build(TargetSection, settings))
        model.load_state_dict({k.replace(prefix, "property_head."): v for k, v in state.items()})
        return model.eval().requires_grad_(False)

    def _squared_distances(self, s: Structures) -> Tensor:
        """(n_atoms,) Å², from the centre of mass of the atom's structure."""
        masses = self.masses.to(s.positions.dtype)[s.numbers].unsqueeze(1)
        total = masses.new_zeros(len(s.cells), 1).index_add(0, s.structure, masses)
        moment = s.positions.new_zeros(len(s.cells), 3)
        centre = moment.index_add(0, s.structure, masses * s.positions) / total
        return (s.positions - centre[s.structure]).square().sum(dim=1)


def property_head(features: int, n_outputs: int, bias: bool, dropout: float) -> nn.Sequential:
    """Four (linear + sigma + dropout) layers of constant width, then a linear layer."""
    layers: list[nn.Module] = []
    for _ in range(4):
        layers += [nn.Linear(features, features, bias=bias), ScaledSiLU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers, nn.Linear(features, n_outputs, bias=False))
