"""What a model says of itself: the JSON header of a model file.

The header holds everything needed to rebuild a potential around its tensors, and what a user
must know before trusting it: elements, level of theory, data, licence and measured errors.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jmp_md._version import __version__
from jmp_md.errors import CheckpointError, shown
from jmp_md.graph.policy import GraphPolicy
from jmp_md.nn.config import BackboneConfig

FORMAT_VERSION = 2
_MOST_BRACKETS = 5000  # json overruns the stack where a program has raised Python's limit
_READABLE = (1, 2)  # version 1 had no repulsion of nuclei

OFFICIAL_LICENCE = "CC-BY-NC-4.0"  # of the published weights, and of what is made from them


@dataclass(frozen=True)
class HeadInfo:
    """One output head: an energy and, where the model has it, a direct force.

    Physical values (spec section 6): E = energy_scale * network + energy_mean + sum of
    references + repulsion, conservative forces are -dE/dx, direct forces are force_scale * network.

    Attributes:
        name: Task name, e.g. ``"ani1x"``.
        graph: Graphs the head was trained with.
        energy_scale: eV per unit of network output.
        energy_mean: eV, added once per structure. Only converted checkpoints of single molecules
            have one: energies with it are not size-consistent.
        references: Energy in eV to add for each atom of an element (atomic number -> eV).
        has_references: False when the training data had references that are not known here, so
            that energies are relative to an unknown constant per element.
        repulsion: Where the repulsion of nuclei ends, as a share of the sum of covalent radii; None
            without. See :class:`jmp_md.nn.repulsion.NuclearRepulsion`.
        force_scale: eV/Å per unit of direct-force output; None without a direct-force head.
        bias: Whether the head's linear layers have biases (all but the last).
        elements: Atomic numbers seen in training; empty when unknown.
        level_of_theory: E.g. ``"PBE/def2-SVP"``.
    """

    name: str
    graph: GraphPolicy
    energy_scale: float = 1.0
    energy_mean: float = 0.0
    references: dict[int, float] = field(default_factory=dict)
    has_references: bool = True
    repulsion: float | None = None
    force_scale: float | None = None
    bias: bool = True
    elements: tuple[int, ...] = ()
    level_of_theory: str = "unknown"


@dataclass(frozen=True)
class ModelHeader:
    """Everything about a model but its tensors.

    Attributes:
        name: Registry name or file stem.
        architecture: Sizes of the network.
        heads: One entry per output head, in the order of the file.
        licence: Licence of the weights.
        data: Data sets it was trained on, with their licences, in words.
        metrics: Measured errors, e.g. ``{"force_mae_meV_per_A": 11.2, "test": "..."}``.
        training: How it was trained: recipe, machine, time, seeds, hashes.
        default_head: The head that is taken where none is named; None where one has to be.
        weights: ``"ema"`` or ``"raw"``, where a checkpoint offered both.
        written_by: Version of jmp-md that wrote the file.
    """

    name: str
    architecture: BackboneConfig
    heads: tuple[HeadInfo, ...]
    licence: str = "unknown"
    data: str = "unknown"
    metrics: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    default_head: str | None = None
    weights: str = "raw"
    written_by: str = __version__
    format_version: int = FORMAT_VERSION

    def to_json(self) -> str:
        """Serialise; :meth:`from_json` restores an equal header."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> ModelHeader:
        """Parse a header.

        Raises:
            CheckpointError: Not JSON, of a newer format, or with unknown or missing fields.
        """
        try:
            if text.count("[") + text.count("{") > _MOST_BRACKETS:
                raise ValueError("it is nested deeper than any header")
            raw = json.loads(text)
            version = raw["format_version"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise CheckpointError(f"the model header is not readable: {shown(error)}") from error
        if version not in _READABLE:
            raise CheckpointError(
                f"the model file has format version {shown(version)}, this jmp-md {__version__} "
                f"reads up to {FORMAT_VERSION}: upgrade jmp-md"
            )
        try:
            raw["architecture"] = BackboneConfig(**raw["architecture"])
            raw["format_version"] = FORMAT_VERSION
            raw["heads"] = tuple(_head_from_dict(head) for head in raw["heads"])
            return cls(**raw)
        except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
            # Errors of graphs and sizes among them.
            raise CheckpointError(
                f"the model header is incomplete or damaged: {str(error)[:200]}"
            ) from error

    def head(self, name: str | None = None) -> HeadInfo:
        """The head of that name; without a name, the default or the only one.

        Raises:
            CheckpointError: Unknown name, or none given where there are several and no default.
        """
        names = [head.name for head in self.heads]
        name = name or self.default_head
        if name is None and len(names) == 1:
            return self.heads[0]
        if name is None:
            raise CheckpointError(
                f"model {self.name!r} has several heads; choose with head= (--head) one of "
                f"{', '.join(names)}"
            )
        if name not in names:
            raise CheckpointError(
                f"model {self.name!r} has no head {name!r}: choose one of {', '.join(names)}"
            )
        return self.heads[names.index(name)]

    def training_range(self, head: HeadInfo) -> Mapping[str, Any]:
        """What :func:`jmp_md.domain.seen` recorded of the training data of a head, or nothing."""
        record = self.training.get("seen")
        if isinstance(record, dict) and isinstance(record.get("heads"), dict):
            record = record["heads"].get(head.name)
        return record if isinstance(record, dict) else {}


def _head_from_dict(raw: dict[str, Any]) -> HeadInfo:
    # JSON turns integer keys into strings and tuples into lists.
    raw = dict(raw)
    raw["graph"] = GraphPolicy(**raw["graph"])
    raw["references"] = {int(z): float(e) for z, e in raw.get("references", {}).items()}
    raw["elements"] = tuple(raw.get("elements", ()))
    return HeadInfo(**raw)
