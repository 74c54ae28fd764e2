"""JMP (GemNet-OC) interatomic potentials, from checkpoint to simulation.

Names are imported when first used: ``import jmp_md`` alone is instant.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from jmp_md._version import __version__
from jmp_md.errors import CheckpointError, InputError, JMPError, ModelNotFoundError

if TYPE_CHECKING:
    from jmp_md.calculators.ase import JMPCalculator
    from jmp_md.evaluation import evaluate
    from jmp_md.load import load_model
    from jmp_md.potential import Potential
    from jmp_md.training.tuning.run import finetune

__all__ = [
    "CheckpointError",
    "InputError",
    "JMPCalculator",
    "JMPError",
    "ModelNotFoundError",
    "Potential",
    "__version__",
    "evaluate",
    "finetune",
    "load_model",
]

_LAZY = {
    "JMPCalculator": "jmp_md.calculators.ase",
    "Potential": "jmp_md.potential",
    "evaluate": "jmp_md.evaluation",
    "finetune": "jmp_md.training.tuning.run",
    "load_model": "jmp_md.load",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'jmp_md' has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
