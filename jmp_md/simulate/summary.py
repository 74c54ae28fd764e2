"""What a run was: versions, model, settings, timings and results, as ``summary.json``."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jmp_md._version import __version__
from jmp_md.checkpoints.native import atomic_write

if TYPE_CHECKING:
    from ase.calculators.calculator import Calculator

NAME = "summary.json"


def describe(calculator: Calculator) -> dict[str, Any]:
    """What identifies a calculator: for a JMP model also the hash of its weights.

    Returns:
        ``calculator``, the name of its class, and for a JMP model ``name``, ``head``, ``dtype``,
        ``device`` and ``sha256``, which does not depend on the precision in use.
    """
    from jmp_md.calculators.ase import JMPCalculator

    about: dict[str, Any] = {"calculator": type(calculator).__name__}
    if isinstance(calculator, JMPCalculator):
        potential = calculator.potential
        weight = next(potential.parameters())
        about |= {
            "name": potential.header.name,
            "head": potential.head.name,
            "dtype": str(weight.dtype).removeprefix("torch."),
            "device": str(weight.device),
            "sha256": _weights_hash(calculator),
        }
    return about


def write_summary(
    folder: Path,
    verb: str,
    *,
    model: Mapping[str, Any],
    settings: Mapping[str, Any],
    results: Mapping[str, Any],
    seconds: float,
    name: str = NAME,
) -> None:
    """Write ``summary.json`` atomically.

    Args:
        folder: Folder of the run.
        verb: What was done, e.g. ``"md"``.
        model: From :func:`describe`.
        settings: Options of the run.
        results: Its figures, with units in their names.
        seconds: Wall time.
        name: Name of the file, where results are a file and not a folder.
    """
    versions = {name: version(name) for name in ("ase", "numpy", "torch")}
    summary = {
        "verb": verb,
        "model": dict(model),
        "settings": dict(settings),
        "results": dict(results),
        "seconds": round(seconds, 3),
        "versions": {"jmp-md": __version__, "python": platform.python_version(), **versions},
    }
    with atomic_write(folder / name) as temporary:
        temporary.write_text(json.dumps(summary, indent=2, default=str) + "\n")


def _weights_hash(calculator: Any) -> str:
    from hashlib import sha256

    state = calculator.potential.native_state()
    digest = sha256(calculator.potential.header.to_json().encode())
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(state[name].double().numpy().tobytes())
    return digest.hexdigest()
