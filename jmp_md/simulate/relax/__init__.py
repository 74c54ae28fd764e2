"""Relaxation: one driver, for one structure and for many, with and without their cells."""

from jmp_md.simulate.relax.driver import relax, relax_batched
from jmp_md.simulate.relax.relaxation import RelaxResult

__all__ = ["RelaxResult", "relax", "relax_batched"]
