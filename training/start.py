"""What a run starts from: a new network, or the backbone of a model trained before."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Collection
from typing import Any, TypeVar

import torch
from ase.data import atomic_numbers, chemical_symbols
from torch import Tensor, nn

from jmp_md.errors import InputError
from jmp_md.graph.policy import GraphPolicy
from jmp_md.header import HeadInfo, ModelHeader
from jmp_md.load import read_model
from jmp_md.models.catalogue import non_commercial
from jmp_md.nn.config import BackboneConfig, preset
from jmp_md.potential import own_names
from jmp_md.training.config import check_keys
from jmp_md.training.sections import ModelSection

ModelT = TypeVar("ModelT", bound=nn.Module)
THEN = "; then "  # between what a model and its base were trained on
_SHARED = ("embedding.", "backbone.")
_DIRECT_PARTS = (
    ".seq_forces.",
    ".dense_rbf_F.",
    ".scale_rbf_F.",
    ".out_mlp_F.",
    ".forces.layers.",
)


@dataclasses.dataclass(frozen=True)
class Start:
    """Sizes of the network, and weights for it where there are any.

    Attributes:
        architecture: Sizes.
        state: Tensors of the base as its file has them; empty for a new network.
        licence: Licence of what is trained.
        data: What it was or will be trained on, in words.
        heads: Of the base, by name.
        base: Header of the base, where there is one.
    """

    architecture: BackboneConfig
    state: dict[str, Tensor]
    licence: str
    data: str
    heads: dict[str, HeadInfo] = dataclasses.field(default_factory=dict)
    base: ModelHeader | None = None

    def header(self, section: ModelSection, **fields: Any) -> ModelHeader:
        """Header of the model to be trained."""
        return ModelHeader(
            name=section.name,
            architecture=self.architecture,
            licence=self.licence,
            data=self.data,
            **fields,
        )

    def load_into(self, model: nn.Module, head: str | None = None) -> None:
        """Put the weights in place; heads keep theirs, unless one of the base is named."""
        if self.state:
            weights = own_names(self.state, head)
            result = model.load_state_dict(weights, strict=False)
            wrong = [n for n in result.missing_keys if head or n.startswith(_SHARED)]
            if wrong or result.unexpected_keys:
                raise InputError(
                    f"the base model does not fit: {(wrong + result.unexpected_keys)[0]}"
                )


def head_to_keep(section: ModelSection, start: Start, elements: Collection[int]) -> HeadInfo | None:
    """The head of the base that training goes on from; None for a new one.

    Args:
        section: What the recipe asks for.
        start: The base.
        elements: Atomic numbers in the training frames.

    Raises:
        InputError: One is asked for that the base does not have, or that has no direct forces
            where the recipe wants them.
    """
    wanted, heads = section.keep_head, start.heads
    direct = section.forces == "direct"
    fitting = [
        head
        for head in heads.values()
        if same_level(head.level_of_theory, section.level_of_theory)
        and set(elements) <= set(head.elements)
        and not (direct and head.force_scale is None)
    ]
    if wanted is False or (wanted is None and len(fitting) != 1):
        return None
    if wanted in (None, True):
        choice = fitting if len(fitting) == 1 else list(heads.values())
        name = choice[0].name if len(choice) == 1 else ""
    else:
        name = str(wanted)
    if name not in heads:
        raise InputError(
            f"model.keep_head = {wanted!r}: {section.base or 'a new network'} has the heads "
            f"{', '.join(heads) or 'none'}; name one of them, or leave the key out"
        )
    if direct and heads[name].force_scale is None:
        raise InputError(f"model.keep_head: the head {name!r} has no direct forces")
    return heads[name]


def prior_references(section: ModelSection, elements: Collection[int]) -> dict[int, float] | None:
    """``model.references`` in eV by atomic number; None where the recipe gives none.

    Raises:
        InputError: Some element has none.
    """
    given = {atomic_numbers.get(symbol, 0): e for symbol, e in section.references.items()}
    if given and (missing := [chemical_symbols[z] for z in sorted(set(elements) - set(given))]):
        raise InputError(f"model.references: there is none for {', '.join(missing)}")
    return given or None


def same_level(one: str, other: str) -> bool:
    """Whether two names of a level of theory mean the same; unknown ones never do."""
    a, b = (name.casefold().replace("g*", "g(d)").replace(" ", "") for name in (one, other))
    return a == b != "unknown"


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
    if not direct:
        state = {n: x for n, x in state.items() if not any(part in n for part in _DIRECT_PARTS)}
    licence = header.licence if non_commercial(header.licence) else section.licence
    known = section.data in header.data.split(THEN)  # stages of one training name it once
    data = header.data if known else f"{header.data}{THEN}{section.data}"
    sizes = dataclasses.replace(header.architecture, direct_forces=direct)
    return Start(sizes, state, licence, data, {head.name: head for head in header.heads}, header)


def graph_policy(
    options: dict[str, Any], start: Start, kept: HeadInfo | None = None
) -> GraphPolicy:
    """Graphs from the options of a recipe.

    Without any, those of the head that is kept, else of the base, whose weights were trained on
    them; smooth ones for a new network, and wherever there are options of which ``kind`` does not
    say official.

    Raises:
        InputError: An option that this kind does not have, or none and a base whose heads differ.
    """
    if not options and kept is not None:
        return kept.graph
    if not options and start.heads:
        graphs = {head.graph for head in start.heads.values()}
        if len(graphs) > 1:
            raise InputError(
                f"the heads {', '.join(start.heads)} of the base have different graphs: choose "
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


def build(make: Callable[[], ModelT], seed: int, device: torch.device) -> ModelT:
    """A module with weights drawn from ``seed``, in float32 on the device."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make().float().to(device)
