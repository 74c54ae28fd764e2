"""Equation of state of a crystal: equilibrium volume and bulk modulus."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from jmp_md.errors import InputError
from jmp_md.simulate.crystals import check_crystal, relax_positions, warn_official
from jmp_md.simulate.singlepoint import singlepoint

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import Calculator

# Those of ASE whose parameters are energy, bulk modulus, its derivative and volume.
FORMS = ("birchmurnaghan", "murnaghan", "birch", "pouriertarantola", "vinet")


@dataclass(frozen=True)
class EquationOfState:
    """Energy over volume, computed and fitted.

    Attributes:
        volumes: (n,) Å³ of the given cell, ascending.
        energies: (n,) eV.
        form: Name of the equation.
        energy: eV at the minimum.
        volume: Å³ at the minimum.
        bulk_modulus: eV/Å³; divided by ``ase.units.GPa`` in GPa.
        derivative: Of the bulk modulus with pressure; no unit.
        rms: eV, root of the mean square deviation of the fit.
        bracketed: Whether the minimum lies between the volumes; where not, the rest is a guess.
    """

    volumes: np.ndarray
    energies: np.ndarray
    form: str
    energy: float
    volume: float
    bulk_modulus: float
    derivative: float
    rms: float
    bracketed: bool

    def fit(self, volumes: np.ndarray) -> np.ndarray:
        """Energies in eV of the fitted equation at volumes in Å³."""
        import ase.eos

        parameters = self.energy, self.bulk_modulus, self.derivative, self.volume
        energies: np.ndarray = getattr(ase.eos, self.form)(np.asarray(volumes), *parameters)
        return energies


def eos(
    atoms: Atoms,
    calculator: Calculator,
    *,
    form: str = "birchmurnaghan",
    strain: float = 0.06,
    points: int = 9,
    relax: bool = True,
    fmax: float = 1e-3,
) -> EquationOfState:
    """Fit an equation of state of ASE to energies of scaled cells.

    Args:
        atoms: A crystal near its minimum.
        calculator: ASE calculator; a ``JMPCalculator`` computes all volumes in batches.
        form: One of :data:`FORMS`.
        strain: Largest change of the volume, as a share of that of ``atoms``.
        points: Volumes, evenly spaced; at least 5.
        relax: Relax the positions at every volume; the shape of the cell stays.
        fmax: eV/Å, the largest force that leaves.

    Raises:
        InputError: No crystal, an option that cannot be meant, a volume that cannot be computed,
            or energies that have no minimum near.
    """
    import ase.eos

    check_options(atoms, form, strain, points)
    warn_official(calculator)
    images = [_scaled(atoms, 1 + change) for change in np.linspace(-strain, strain, points)]
    if relax:
        images = relax_positions(images, calculator, fmax)
    energies = np.array([result.energy for result in singlepoint(images, calculator)])
    volumes = np.array([image.cell.volume for image in images])
    fitted = ase.eos.EquationOfState(volumes, energies, eos=form)
    try:
        volume, energy, modulus = (float(value) for value in fitted.fit(warn=False))
    except (RuntimeError, ValueError) as error:
        raise _no_minimum(volumes, energies) from error
    if not (np.isfinite([volume, energy, modulus]).all() and volume > 0 and modulus > 0):
        raise _no_minimum(volumes, energies)
    result: dict[str, Any] = {
        "volumes": volumes,
        "energies": energies,
        "form": form,
        "energy": energy,
        "volume": volume,
        "bulk_modulus": modulus,
        "derivative": float(fitted.eos_parameters[2]),
    }
    deviation = fitted.func(volumes, *fitted.eos_parameters) - energies
    rms = float(np.sqrt(np.mean(deviation**2)))
    bracketed = bool(volumes[0] < volume < volumes[-1])
    return EquationOfState(**result, rms=rms, bracketed=bracketed)


def check_options(atoms: Atoms, form: str, strain: float, points: int) -> None:
    """Refuse what :func:`eos` would, before anything is computed.

    Raises:
        InputError: See there.
    """
    check_crystal(atoms, "equations of state")
    if form not in FORMS:
        raise InputError(f"form {form!r}: choose one of {', '.join(FORMS)}")
    if not (0 < strain < 0.5 and points >= 5):
        raise InputError(
            f"strain {strain!r}, points {points!r}: give a share of the volume below 0.5, 0.06 is "
            "usual, and at least 5 points"
        )


def _scaled(atoms: Atoms, factor: float) -> Atoms:
    """A copy with a volume ``factor`` times as large, without constraints."""
    copy = atoms.copy()
    copy.set_constraint()
    copy.set_cell(atoms.cell * factor ** (1 / 3), scale_atoms=True)
    return copy


def _no_minimum(volumes: np.ndarray, energies: np.ndarray) -> InputError:
    pairs = ", ".join(f"{v:.2f}: {e:.4f}" for v, e in zip(volumes, energies, strict=True))
    return InputError(
        f"the energies have no minimum near these volumes (Å³: eV): {pairs}; relax the cell first "
        "(jmp-md relax --relax-cell), or raise strain"
    )
