"""Molecular dynamics: one driver and one set of integrators, for one structure and for many."""

from jmp_md.simulate.md.options import ENSEMBLES
from jmp_md.simulate.md.recorder import CELL_COLUMNS, COLUMNS, LOG
from jmp_md.simulate.md.results import MDResult, ReplicaResult
from jmp_md.simulate.md.run import md, md_many

__all__ = [
    "CELL_COLUMNS",
    "COLUMNS",
    "ENSEMBLES",
    "LOG",
    "MDResult",
    "ReplicaResult",
    "md",
    "md_many",
]
