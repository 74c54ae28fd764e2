"""Model cards: what a user must know before trusting a model, from its header."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from ase.data import chemical_symbols

from jmp_md.graph.policy import GRAPHS, GraphPolicy
from jmp_md.header import HeadInfo, ModelHeader
from jmp_md.models.catalogue import non_commercial

_MOST_PAIRS = 15  # of elements, whose least distances a card names

_LIMITS = (
    "Only structures like those of the training data are covered; energies and forces elsewhere "
    "may be wrong without any sign of it.",
    "The network sees no charge and no spin.",
    "Interactions end at the largest cutoff of the graphs.",
)


def symbols(numbers: Iterable[int]) -> str:
    """Element symbols by atomic number, e.g. ``"H C O"``; ``"unknown"`` for none."""
    return " ".join(chemical_symbols[z] for z in sorted(numbers)) or "unknown"


def model_card(
    header: ModelHeader, size_bytes: int, found: Mapping[str, str] = MappingProxyType({})
) -> str:
    """Markdown page about a model.

    Args:
        header: Header of the model file.
        size_bytes: Size of the file.
        found: By head, tables of what tests of the model found.
    """
    sizes = header.architecture
    sections = [
        f"# {header.name}",
        _bullets(
            {
                "Network": f"GemNet-OC, {sizes.num_blocks} blocks, "
                f"embeddings {sizes.emb_size_atom} (atom) and {sizes.emb_size_edge} (edge)",
                "File": f"{size_bytes / 1e6:.1f} MB, {header.weights} weights, format "
                f"{header.format_version}, written by jmp-md {header.written_by}",
                "Licence": header.licence,
                "Training data": header.data,
            }
        ),
        *(_head_section(head, header) for head in header.heads),
        *(f"## Head {head} against published numbers\n\n{table}" for head, table in found.items()),
        "## Errors on its own data",
        _bullets(header.metrics) or "None were recorded: measure before use.",
        "## Training",
        _bullets(_history(header)) or "Not recorded.",
        "## Intended use and limits",
        "\n".join(f"- {line}" for line in (_purpose(header), *_limits(header))),
    ]
    return "\n\n".join(sections) + "\n"


def _head_section(head: HeadInfo, header: ModelHeader) -> str:
    if not head.has_references:
        energy = "relative to an unknown constant per element"
    elif head.references:
        energy = f"with references for {symbols(head.references)}"
    else:
        energy = "as the network gives it, without references per element"
    forces = "conservative"
    if head.force_scale is not None:
        forces += ", and direct ones"
    facts = {
        "Elements": symbols(head.elements),
        "Level of theory": head.level_of_theory,
        "Energy": energy,
        "Forces": forces,
        "Graphs": _graphs(head.graph),
        "Training structures": _held(header.training_range(head)),
    }
    return f"## Head {head.name}\n\n{_bullets(facts)}"


def _held(known: Mapping[str, Any]) -> str:
    """What training structures held, in words; the header has it in numbers."""
    if not known:
        return "not recorded"
    parts = {"none": "no periodic ones", "all": "all periodic", "some": "some periodic"}
    words = [parts[known["periodic"]]] if known.get("periodic") in parts else []
    if (most := known.get("molecules")) and known.get("periodic") != "all":
        words.append("one molecule each" if most == 1 else f"up to {most} separate molecules")
    if largest := known.get("max_force_eV_per_A"):
        words.append(f"forces up to {largest:.3g} eV/Å")
    if isinstance(closest := known.get("closest_A"), dict) and 0 < len(closest) <= _MOST_PAIRS:
        pairs = ", ".join(f"{name} {distance:.2f}" for name, distance in closest.items())
        words.append(f"least distances in Å {pairs}")
    return "; ".join(words) or "not recorded"


def _history(header: ModelHeader) -> dict[str, Any]:
    """How it was trained, less what the card says elsewhere."""
    return {key: value for key, value in header.training.items() if key not in ("seen", "domain")}


def _graphs(policy: GraphPolicy) -> str:
    each = (
        f"{name} {cutoff:g} Å" + (f" (nearest {count})" if count else "")
        for name, cutoff, count in zip(GRAPHS, policy.cutoffs, policy.counts, strict=True)
    )
    kind = (
        "official, energy jumps where neighbours change"
        if policy.kind == "official"
        else "smooth, energy and forces continuous"
    )
    return f"{kind}; {', '.join(each)}"


def _purpose(header: ModelHeader) -> str:
    domain = header.training.get("domain")
    if isinstance(domain, dict) and "formula" in domain:
        forms = domain.get("molecules") or {}
        bonds = " or ".join(
            ", ".join(f"{n} {kind}" for kind, n in b.items()) for b in forms.values()
        )
        which = f" with the bonds of its training frames ({bonds})" if bonds else ""
        return f"For simulations of the molecule {domain['formula']} only{which}."
    return "For simulations of structures like those in the training data."


def _limits(header: ModelHeader) -> list[str]:
    limits = list(_LIMITS)
    if any(not head.has_references for head in header.heads):
        limits.append(
            "Energies compare structures of equal composition only (relaxation, dynamics, "
            "barriers), unless references are supplied."
        )
    if any(head.graph.kind == "official" for head in header.heads):
        limits.append("Energy drifts in constant-energy dynamics: the graphs are not smooth.")
    if non_commercial(header.licence):
        limits.append("Non-commercial use only, with attribution.")
    return limits


def _bullets(facts: Mapping[str, Any]) -> str:
    return "\n".join(f"- {key}: {_text(value)}" for key, value in facts.items())


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, str) and "\n" in value:  # such as a recipe
        return "\n\n" + textwrap.indent(value.rstrip(), " " * 6) + "\n"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
