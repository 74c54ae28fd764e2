"""Molecular dynamics: one driver and one set of integrators, for one structure and for many."""

from jmp_md.simulate.md.options import MDOptions
from jmp_md.simulate.md.recorder import CELL_COLUMNS, COLUMNS, LOG
from jmp_md.simulate.md.results import MDResult, ReplicaResult

__all__ = [
    "CELL_COLUMNS",
    "COLUMNS",
    "LOG",
    "MDOptions",
    "MDResult",
    "ReplicaResult",
]
