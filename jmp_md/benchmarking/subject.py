"""What is tested: an ASE calculator, and which structures it is for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from ase import Atoms
from ase.build import molecule

from jmp_md.domain import UNSUITED, findings
from jmp_md.errors import InputError
from jmp_md.simulate.forces import as_jmp
from jmp_md.simulate.relax import RelaxResult, relax

if TYPE_CHECKING:
    from ase.calculators.calculator import Calculator


_NO_SURFACE = 2  # OC20's tag of adsorbates, which is that of all else


class Subject:
    """A calculator under test.

    Args:
        calculator: Any of ASE's; a JMP model best in float64.

    Attributes:
        left_out: Why cases of the part in progress were not computed, by name.
    """

    def __init__(self, calculator: Calculator) -> None:
        self.calculator = calculator
        self.left_out: dict[str, str] = {}

    @property
    def level_of_theory(self) -> str:
        """Of the labels a JMP model was trained on; ``"unknown"`` for another calculator."""
        if (jmp := as_jmp(self.calculator)) is not None:
            return jmp.potential.head.level_of_theory
        return "unknown"

    def attempt(self, cases: Iterable[tuple[str, Atoms]], measure: Callable[..., Any]) -> list[Any]:
        """What ``measure(name, atoms)`` gives for the structures that the calculator is for.

        The others are in :attr:`left_out`, with the reason: elements that it does not know, or an
        error of the calculator, which other programs raise as they please.
        """
        found = []
        for name, atoms in cases:
            if reason := self._unsuited(atoms):
                self.left_out[name] = reason
                continue
            atoms.set_tags(_NO_SURFACE)  # molecules and bulk, also where tags count
            atoms.calc = self.calculator
            try:
                found.append(measure(name, atoms))
            except (InputError, NotImplementedError, KeyError, ValueError, RuntimeError) as error:
                self.left_out[name] = f"{type(error).__name__}: {error}"
        return found

    def _unsuited(self, atoms: Atoms) -> str:
        if (jmp := as_jmp(self.calculator)) is None:
            return ""
        potential = jmp.potential
        strange = [f.text for f in findings(atoms, potential.header, potential.head)
                   if f.kind in UNSUITED]  # fmt: skip
        return "; ".join(strange)


def molecules(names: Iterable[str]) -> Iterator[tuple[str, Atoms]]:
    """Molecules of the G2 set, without the magnetic moments that it gives."""
    for name in names:
        atoms = molecule(name)
        yield name, Atoms(atoms.numbers, atoms.positions)


def minimum(atoms: Atoms, fmax: float) -> RelaxResult:
    """A relaxed structure.

    Raises:
        InputError: It did not converge, so that its numbers would mean nothing.
    """
    found = relax(atoms, fmax=fmax)
    if not found.converged:
        raise InputError(f"not relaxed after {found.steps} steps: {found.fmax:.3f} eV/Å are left")
    return found
