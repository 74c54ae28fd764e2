"""Benchmarks kept beside the file of a model, for its card."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from jmp_md.benchmarking.results import Benchmark
from jmp_md.benchmarking.tables import from_json
from jmp_md.errors import InputError
from jmp_md.files import atomic_write
from jmp_md.simulate.summary import finite

SUFFIX = ".benchmark.json"


def keep(model: Path, result: Benchmark) -> Path:
    """Add a benchmark of one head, in place of an older one of the same; the file is returned.

    Only what has references is kept: times are of a machine, not of a model.

    Args:
        model: File of the model.
        result: Of a JMP model, whose head and hash it names.
    """
    compared = tuple(part for part in result.parts if part.worst is not None)
    found = kept(model) | {result.about["head"]: replace(result, parts=compared)}
    with atomic_write(_beside(model)) as path:
        content = {head: finite(each.to_dict()) for head, each in sorted(found.items())}
        path.write_text(json.dumps(content, indent=1), encoding="utf-8")
    return _beside(model)


def kept(model: Path) -> dict[str, Benchmark]:
    """Benchmarks beside the file of a model, by head.

    Raises:
        InputError: There is something else.
    """
    path = _beside(model)
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {head: from_json(each) for head, each in content.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path}: not what 'jmp-md benchmark --keep' writes ({error}): remove it"
        ) from error


def _beside(model: Path) -> Path:
    return model.with_name(model.stem + SUFFIX)
