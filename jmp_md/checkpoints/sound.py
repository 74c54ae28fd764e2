"""What the header of a model may say: values that can be meant, and sizes that can be built."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from jmp_md.checkpoints.hyperparameters import most_of
from jmp_md.errors import CheckpointError
from jmp_md.header import HeadInfo, ModelHeader

_LARGEST = 1e12  # eV, eV/Å, ...
_LONGEST_CUTOFF = 100.0  # Å
_MOST_NEIGHBOURS = 100_000
_MOST_HEADS = 64


def require_sound(header: ModelHeader) -> None:
    """Refuse values that fit their fields as JSON but cannot be meant.

    Raises:
        CheckpointError: There are such values; their fields are named.
    """
    checks = {
        "heads": 1 <= len(header.heads) <= _MOST_HEADS,
        "default_head": header.default_head in (None, *(head.name for head in header.heads)),
        "metrics": isinstance(header.metrics, dict),
        "training": isinstance(header.training, dict),
    }
    for name, size in dataclasses.asdict(header.architecture).items():
        checks[f"architecture.{name}"] = _is_size(name, size)
    for name in ("name", "licence", "data", "weights", "written_by"):
        checks[name] = isinstance(getattr(header, name), str)
    for k, head in enumerate(header.heads):
        for what, sound in _head_checks(head, header.architecture.num_elements).items():
            checks[f"{what} of head {k}"] = sound
    if checks["training"]:
        domain = header.training.get("domain", {})
        checks["domain"] = isinstance(domain, dict) and _is_table(domain.get("molecules", {}), dict)
        for k, head in enumerate(header.heads):
            checks[f"training range of head {k}"] = _is_range(header.training_range(head))
    wrong = [name for name, sound in checks.items() if not sound]
    if wrong:
        raise CheckpointError(f"the model header is damaged: wrong values in {', '.join(wrong)}")


def _head_checks(head: HeadInfo, num_elements: Any) -> dict[str, bool]:
    graph = head.graph
    scales = (head.energy_scale, head.energy_mean, head.force_scale or 0, head.repulsion or 0)
    shares = (graph.width, graph.rank_width, graph.inline_sin2)
    last = num_elements if isinstance(num_elements, int) else 0
    return {
        "name": isinstance(head.name, str),
        "level_of_theory": isinstance(head.level_of_theory, str),
        "scales": all(map(_is_number, scales)),
        "references": all(map(_is_number, head.references.values())),
        "graph": isinstance(graph.kind, str)
        and all(map(_is_number, shares))
        and all(0 < c <= _LONGEST_CUTOFF for c in graph.cutoffs)
        and all(c is None or _is_integer(c, 0, _MOST_NEIGHBOURS) for c in graph.counts),
        "elements": all(_is_integer(z, 1, 118) for z in head.elements)
        and all(_is_integer(z, 1, min(last, 118)) for z in head.references),
        "flags": isinstance(head.has_references, bool) and isinstance(head.bias, bool),
    }


def _is_range(known: Mapping[str, Any]) -> bool:
    """Whether the record of training data, see :func:`jmp_md.domain.seen`, can be used."""
    spans, closest = known.get("coordination", {}), known.get("closest_A", {})
    largest = known.get("max_force_eV_per_A")
    return (
        _is_table(spans, list)
        and all(len(span) == 2 and all(map(_is_number, span)) for span in spans.values())
        and _is_table(closest, int | float)
        and all(map(_is_number, closest.values()))
        and (largest is None or _is_number(largest))
    )


def _is_table(value: Any, kind: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(entry, kind) for entry in value.values())


def _is_size(name: str, size: Any) -> bool:
    if name == "direct_forces":
        return isinstance(size, bool)
    if name == "basis_cutoff":
        return _is_number(size) and 0 < size <= _LONGEST_CUTOFF
    return _is_integer(size, 0, most_of(name))


def _is_integer(value: Any, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _is_number(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and abs(value) <= _LARGEST
