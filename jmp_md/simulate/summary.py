"""What a run was: versions, model, settings, timings and results, as ``summary.json``."""

from __future__ import annotations

import json
import math
import platform
import shlex
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jmp_md._version import __version__
from jmp_md.files import atomic_write
from jmp_md.simulate.forces import as_jmp

if TYPE_CHECKING:
    from ase.calculators.calculator import Calculator

    from jmp_md.potential import Potential

NAME = "summary.json"


def describe(calculator: Calculator) -> dict[str, Any]:
    """What identifies a calculator: for a JMP model all that its numbers depend on.

    Returns:
        ``calculator``, the name of its class, and for a JMP model ``name``, ``head``, ``dtype``,
        ``device``, ``precision``, ``forces``, ``tags`` and ``sha256``, a hash of the
        head, graphs, references and weights, which does not depend on the precision in use, nor on
        names and notes in the header.
    """
    from jmp_md.fingerprint import fingerprint

    about: dict[str, Any] = {"calculator": type(calculator).__name__}
    if (jmp := as_jmp(calculator)) is not None:
        potential = jmp.potential
        weight = potential.embedding.weight
        about |= {
            "name": potential.header.name,
            "head": potential.head.name,
            "dtype": str(weight.dtype).removeprefix("torch."),
            "device": str(weight.device),
            "precision": "bf16" if _in_bf16(potential) else "full",
            "forces": "direct" if jmp.direct else "conservative",
            "tags": "oc" if jmp.oc_tags else None,
            "sha256": fingerprint(potential),
        }
    return about


def write_summary(folder: Path, verb: str, **parts: Any) -> dict[str, Any]:
    """Write ``summary.json`` atomically.

    Args:
        folder: Folder of the run.
        verb: What was done, e.g. ``"md"``.
        parts: The others of :func:`make_summary`.

    Returns:
        What was written.
    """
    summary = make_summary(verb, **parts)
    with atomic_write(folder / NAME) as temporary:
        temporary.write_text(summary_text(summary), encoding="utf-8")
    return summary


def make_summary(
    verb: str,
    *,
    model: Mapping[str, Any],
    settings: Mapping[str, Any],
    results: Mapping[str, Any],
    seconds: float,
    domain: Mapping[str, Any] | None = None,
    ns_per_day: float | None = None,
) -> dict[str, Any]:
    """The summary of a run.

    Args:
        verb: What was done, e.g. ``"md"``.
        model: From :func:`describe`.
        settings: Options of the run.
        results: Its figures, with units in their names; what is not finite becomes null.
        seconds: Wall time.
        domain: From :meth:`~jmp_md.simulate.watch.DomainWatch.record`, where structures lay
            outside of what the model was trained on; by name of the model where there are several.
        ns_per_day: Speed of dynamics.

    Returns:
        What JSON can hold.
    """
    program = Path(sys.argv[0]).name if sys.argv[0] else platform.python_implementation()
    summary = {
        "verb": verb,
        "command": shlex.join([program, *sys.argv[1:]]),
        "written": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "model": dict(model),
        "settings": dict(settings),
        "results": dict(results),
        **({} if domain is None else {"domain": dict(domain)}),
        "seconds": round(seconds, 3),
        **({} if ns_per_day is None else {"ns_per_day": round(ns_per_day, 6)}),
        "versions": versions(),
    }
    found: dict[str, Any] = finite(summary)
    return found


def versions() -> dict[str, str]:
    """Of what computes."""
    others = {name: version(name) for name in ("ase", "numpy", "torch")}
    return {"jmp-md": __version__, "python": platform.python_version(), **others}


def summary_text(summary: Mapping[str, Any]) -> str:
    """A summary as JSON."""
    return json.dumps(summary, indent=2, default=str, allow_nan=False) + "\n"


def finite(value: Any) -> Any:
    """``value`` with None for NaN and infinities, which JSON does not know."""
    if isinstance(value, Mapping):
        return {key: finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _in_bf16(potential: Potential) -> bool:
    return bool(getattr(getattr(potential, "backbone", None), "bf16", False))  # not if exported
