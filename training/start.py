"""What a run starts from: a new network, or the backbone of a model trained before."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import torch
from torch import Tensor, nn

from jmp_md.errors import InputError
from jmp_md.graph.policy import GraphPolicy
from jmp_md.header import ModelHeader
from jmp_md.load import read_model
from jmp_md.models.catalogue import non_commercial
from jmp_md.nn.config import BackboneConfig, preset
from jmp_md.training.config import check_keys
from jmp_md.training.sections import ModelSection

_DIRECT_PARTS = (".seq_forces.", ".dense_rbf_F.", ".scale_rbf_F.", ".out_mlp_F.")


@dataclasses.dataclass(frozen=True)
class Start:
    """Sizes of the network, and weights for it where there are any.

    Attributes:
        architecture: Sizes.
        weights: Of embedding and backbone; empty for a new network.
        licence: Licence of what is trained.
        data: What it was or will be trained on, in words.
        graphs: Those the base was trained with, by head; empty for a new network.
    """

    architecture: BackboneConfig
    weights: dict[str, Tensor]
    licence: str
    data: str
    graphs: dict[str, GraphPolicy] = dataclasses.field(default_factory=dict)

    def header(self, section: ModelSection, **fields: Any) -> ModelHeader:
        """Header of the model to be trained."""
        return ModelHeader(
            name=section.name,
            architecture=self.architecture,
            licence=self.licence,
            data=self.data,
            weights="ema",
            **fields,
        )

    def load_into(self, model: nn.Module) -> None:
        """Put the weights in place; heads keep theirs."""
        if self.weights:
            result = model.load_state_dict(self.weights, strict=False)
            wrong = [n for n in result.missing_keys if n.startswith(("embedding.", "backbone."))]
            if wrong or result.unexpected_keys:
                raise InputError(
                    f"the base model does not fit: {(wrong + result.unexpected_keys)[0]}"
                )


def start_from(section: ModelSection) -> Start:
    """Read the base of a recipe, or lay out a new network.

    Raises:
        InputError: Sizes that do not exist, sizes besides a base, or a base without the branch
            for direct forces that ``forces: direct`` needs.
    """
    direct = section.forces == "direct"
    if section.base is None:
        names = [f.name for f in dataclasses.fields(BackboneConfig)]
        check_keys(section.sizes, names, "model.sizes.")
        sizes = dataclasses.replace(preset(section.preset, direct_forces=direct), **section.sizes)
        return Start(sizes, {}, section.licence, section.data)
    if section.sizes:
        raise InputError("model.sizes and model.base: the sizes are those of the base, leave them")
    header, state = read_model(section.base)
    if direct and not header.architecture.direct_forces:
        raise InputError(
            f"model.forces = 'direct': {section.base} has no branch for direct forces, use "
            "'conservative' or another base"
        )
    weights = {
        name: value
        for name, value in state.items()
        if name.startswith(("embedding.", "backbone."))
        and (direct or not any(part in name for part in _DIRECT_PARTS))
    }
    licence = header.licence if non_commercial(header.licence) else section.licence
    data = f"{header.data}; then {section.data}"
    sizes = dataclasses.replace(header.architecture, direct_forces=direct)
    graphs = {head.name: head.graph for head in header.heads}
    return Start(sizes, weights, licence, data, graphs)


def graph_policy(options: dict[str, Any], start: Start) -> GraphPolicy:
    """Graphs from the options of a recipe.

    Without any, those of the base, whose weights were trained on them; smooth ones for a new
    network, and wherever there are options of which ``kind`` does not say official.

    Raises:
        InputError: An option that this kind does not have, or none and a base whose heads differ.
    """
    if not options and start.graphs:
        graphs = set(start.graphs.values())
        if len(graphs) > 1:
            raise InputError(
                f"the heads {', '.join(start.graphs)} of the base have different graphs: choose "
                "with model.graph, e.g. {kind: smooth}"
            )
        return graphs.pop()
    options = dict(options)
    kind = options.pop("kind", "smooth")
    if kind not in ("smooth", "official"):
        raise InputError(f"recipe key model.graph.kind = {kind!r}: expected smooth or official")
    make = GraphPolicy.smooth if kind == "smooth" else GraphPolicy.official
    known = [name for name in inspect.signature(make).parameters if name != "options"]
    if kind == "smooth":
        known += ["width", "rank_width", "inline_sin2", "counts"]
    check_keys(options, known, "model.graph.")
    try:
        return make(**options)
    except TypeError as error:
        raise InputError(f"recipe section model.graph: {error}") from error


def build(make: Any, seed: int, device: torch.device) -> Any:
    """A module with weights drawn from ``seed``, in float32 on the device."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make().float().to(device)
