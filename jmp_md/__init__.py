"""JMP (GemNet-OC) interatomic potentials, from checkpoint to simulation.

Names are imported when first used: ``import jmp_md`` alone is instant.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from jmp_md._version import __version__
from jmp_md.errors import CheckpointError, InputError, JMPError, ModelNotFoundError

if TYPE_CHECKING:
    from jmp_md.benchmarking import benchmark
    from jmp_md.calculators.ase import JMPCalculator
    from jmp_md.evaluation import evaluate
    from jmp_md.load import load_model
    from jmp_md.potential import Potential
    from jmp_md.runs.md import run_md as md
    from jmp_md.runs.neb import run_neb as neb
    from jmp_md.simulate.phonons import phonons
    from jmp_md.simulate.relax import relax
    from jmp_md.simulate.vibrations import vibrations
    from jmp_md.training.tuning.run import finetune

__all__ = [
    "CheckpointError",
    "InputError",
    "JMPCalculator",
    "JMPError",
    "ModelNotFoundError",
    "Potential",
    "__version__",
    "benchmark",
    "evaluate",
    "finetune",
    "load_model",
    "md",
    "neb",
    "phonons",
    "relax",
    "vibrations",
]

_LAZY = {
    "JMPCalculator": "jmp_md.calculators.ase:JMPCalculator",
    "Potential": "jmp_md.potential:Potential",
    "benchmark": "jmp_md.benchmarking:benchmark",
    "evaluate": "jmp_md.evaluation:evaluate",
    "finetune": "jmp_md.training.tuning.run:finetune",
    "load_model": "jmp_md.load:load_model",
    "md": "jmp_md.runs.md:run_md",
    "neb": "jmp_md.runs.neb:run_neb",
    "phonons": "jmp_md.simulate.phonons:phonons",
    "relax": "jmp_md.simulate.relax:relax",
    "vibrations": "jmp_md.simulate.vibrations:vibrations",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'jmp_md' has no attribute {name!r}")
    module, _, attribute = _LAZY[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted(__all__)
