"""Potentials that share one network: a head for each task on one backbone."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from torch import Tensor, nn

from jmp_md.errors import InputError
from jmp_md.header import ModelHeader
from jmp_md.potential import Potential


class Heads(nn.Module):
    """Potentials that share embedding and backbone, by the name of their head.

    Args:
        header: One head or several.

    Raises:
        InputError: A name that a head cannot have.
    """

    def __init__(self, header: ModelHeader) -> None:
        super().__init__()
        self.header = header
        potentials = {head.name: Potential(header, head.name) for head in header.heads}
        try:
            self.tasks = nn.ModuleDict(potentials)
        except KeyError as error:  # a point, or what torch calls something of its own
            raise InputError(
                f"a head cannot have this name ({error.args[0]}): choose another as model.head, or "
                "as the name of the task"
            ) from error
        self.first = header.heads[0].name
        self.embedding = self.potential(self.first).embedding
        self.backbone = self.potential(self.first).backbone
        for name in self.tasks:
            potential = self.potential(name)
            potential.embedding, potential.backbone = self.embedding, self.backbone

    def potential(self, head: str | None = None) -> Potential:
        """The potential of a head; without a name, that of the default or the only one."""
        potential = self.tasks[self.header.head(head).name]
        assert isinstance(potential, Potential)
        return potential

    def take_references(self, head: str, references: Mapping[int, float]) -> None:
        """Replace the energies of elements of a head, eV by atomic number."""
        potential = self.potential(head)
        potential.take_references(references)
        heads = tuple(potential.head if h.name == head else h for h in self.header.heads)
        self.header = dataclasses.replace(self.header, heads=heads)

    def native_state(self) -> dict[str, Tensor]:
        """The tensors of all heads under the names of the native format."""
        state: dict[str, Tensor] = {}
        for name in self.tasks:
            state |= self.potential(name).native_state()
        return state
