"""Energies and forces of many structures: in batches on a JMP model, else one by one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from jmp_md.errors import InputError
from jmp_md.simulate.forces import as_jmp

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import Calculator

    from jmp_md.batch import Result


def singlepoint(
    structures: Sequence[Atoms],
    calculator: Calculator,
    *,
    stress: bool = False,
    on_error: str = "raise",
) -> list[Result]:
    """Compute structures as they are.

    Args:
        structures: Any number, of any sizes.
        calculator: ASE calculator; with a ``JMPCalculator`` they go through the model in batches.
        stress: Whether stress is wanted, where a structure is periodic and its cell has a volume.
        on_error: ``"raise"``, or ``"keep"`` to get a result of NaN, with its ``error``, for a
            structure that cannot be computed.

    Returns:
        Energy in eV, forces (n_atoms, 3) in eV/Å and stress (3, 3) in eV/Å³ of each; energies of
        atoms are NaN where the calculator has none.

    Raises:
        InputError: A structure cannot be computed; its index is named.
    """
    from jmp_md.evaluation import evaluate

    if (jmp := as_jmp(calculator)) is not None:
        return evaluate(
            structures,
            jmp.potential,
            properties=("energy", "forces", "stress") if stress else ("energy", "forces"),
            forces="direct" if jmp.direct else "conservative",
            tags="oc" if jmp.oc_tags else None,
            on_error=on_error,
        )
    return [_compute(i, atoms, calculator, stress, on_error) for i, atoms in enumerate(structures)]


def _compute(
    index: int, given: Atoms, calculator: Calculator, stress: bool, on_error: str
) -> Result:
    import numpy as np

    from jmp_md.batch import Result
    from jmp_md.structures import has_stress

    atoms = given.copy()  # without constraints, which would hide forces
    atoms.set_constraint()
    atoms.calc = calculator
    try:
        energy, forces = float(atoms.get_potential_energy()), np.array(atoms.get_forces())
        if not (np.isfinite(energy) and np.isfinite(forces).all()):
            raise InputError(f"{type(calculator).__name__} gives values that are not finite")
        wanted = stress and has_stress(atoms.cell.array, atoms.pbc)
        tensor = np.array(atoms.get_stress(voigt=False)) if wanted else None
    except Exception as error:  # every calculator has errors of its own
        failure = InputError(f"structure {index}: {error}")
        if on_error == "raise":
            raise failure from error
        return Result.failed(len(atoms), InputError(str(error)))
    return Result(energy, np.full(len(atoms), np.nan), forces, tensor)
