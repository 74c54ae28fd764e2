"""What computes forces: any ASE calculator, or a JMP model, which takes many structures at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jmp_md.errors import InputError

if TYPE_CHECKING:
    from ase.calculators.calculator import Calculator

    from jmp_md.calculators.ase import JMPCalculator


def as_jmp(calculator: Calculator | None) -> JMPCalculator | None:
    """The calculator where it is a JMP model; None for any other, and for none."""
    from jmp_md.calculators.ase import JMPCalculator

    return calculator if isinstance(calculator, JMPCalculator) else None


def require_jmp(calculator: Calculator, what: str) -> JMPCalculator:
    """The calculator, which has to be a JMP model.

    Args:
        calculator: Any.
        what: What needs it, for the message.

    Raises:
        InputError: It is none.
    """
    if (jmp := as_jmp(calculator)) is None:
        raise InputError(f"{what} a JMPCalculator, not {type(calculator).__name__}")
    return jmp


def has_stress(calculator: Calculator) -> bool:
    """Whether a calculator gives stress; direct forces of a JMP model have none."""
    if (jmp := as_jmp(calculator)) is not None:
        return not jmp.direct
    return "stress" in calculator.implemented_properties
