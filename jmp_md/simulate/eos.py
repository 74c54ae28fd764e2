"""Equation of state of a crystal: equilibrium volume and bulk modulus."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from jmp_md.errors import InputError
from jmp_md.options import with_options
from jmp_md.simulate.crystals import (
    check_crystal,
    official_verdicts,
    relax_positions,
    warn_official,
)
from jmp_md.simulate.forces import has_stress
from jmp_md.simulate.options import EOSOptions
from jmp_md.simulate.singlepoint import singlepoint
from jmp_md.simulate.verdict import Verdict, doubts

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import Calculator

SUBJECT = "equations of state"
_RESIDUAL = 0.02  # share of the span of energies that a fit may miss
_UNCERTAIN = 0.05  # share of the bulk modulus that its standard error may be
_DERIVATIVES = 0.0, 15.0  # of the bulk modulus with pressure; crystals have 2 to 8
_UNEVEN = 0.2  # share of the pressure by which stress may differ between directions


@dataclass(frozen=True)
class EquationOfState:
    """Energy over volume, computed and fitted.

    Attributes:
        volumes: (n,) Å³ of the given cell, ascending.
        energies: (n,) eV.
        form: Name of the equation, one of ASE's whose parameters are energy, bulk modulus, its
            derivative and volume.
        energy: eV at the minimum.
        volume: Å³ at the minimum.
        bulk_modulus: eV/Å³; divided by ``ase.units.GPa`` in GPa.
        derivative: Of the bulk modulus with pressure; no unit.
        modulus_error: eV/Å³, standard error of the bulk modulus by the scatter of the fit.
        rms: eV, root of the mean square deviation of the fit.
        bracketed: Whether the minimum lies between the volumes; where not, the rest is a guess.
        uneven: How much the stress at the outermost volumes differs between directions, as a share
            of the pressure: a crystal for which it is large changes its shape under pressure, which
            the volumes here do not; NaN for a calculator without stress.
        verdicts: Whether the figures stand.
    """

    volumes: np.ndarray
    energies: np.ndarray
    form: str
    energy: float
    volume: float
    bulk_modulus: float
    derivative: float
    modulus_error: float
    rms: float
    bracketed: bool
    uneven: float
    verdicts: tuple[Verdict, ...]

    @property
    def doubts(self) -> tuple[str, ...]:
        """Why the figures may be wrong; empty where nothing speaks against them."""
        return doubts(self.verdicts)

    def fit(self, volumes: np.ndarray) -> np.ndarray:
        """Energies in eV of the fitted equation at volumes in Å³."""
        import ase.eos

        parameters = self.energy, self.bulk_modulus, self.derivative, self.volume
        energies: np.ndarray = getattr(ase.eos, self.form)(np.asarray(volumes), *parameters)
        return energies


@with_options(EOSOptions)
def eos(
    atoms: Atoms,
    calculator: Calculator,
    options: EOSOptions | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
    **changes: Any,
) -> EquationOfState:
    """Fit an equation of state of ASE to energies of scaled cells.

    Unless clamped, positions relax at every volume; the shape of the cell stays.

    Args:
        atoms: A crystal near its minimum.
        calculator: ASE calculator; a ``JMPCalculator`` computes all volumes in batches.
        options: See :class:`~jmp_md.simulate.options.EOSOptions`; None for the defaults.
        progress: Called with how many volumes are relaxed, and of how many; not where clamped.
        changes: Options by name, in place of those of ``options``.

    Raises:
        InputError: No crystal, an option that does not exist or does not fit, a volume that cannot
            be computed, or energies that have no minimum near.
    """
    options = (options or EOSOptions()).changed(changes)
    check_crystal(atoms, SUBJECT)
    warn_official(calculator)
    steps = np.linspace(-options.strain, options.strain, options.points)
    images = [_scaled(atoms, 1 + change) for change in steps]
    if not options.clamped:
        images = relax_positions(images, calculator, options.fmax, progress=progress)
    results = singlepoint(images, calculator, stress=has_stress(calculator))
    energies = np.array([result.energy for result in results])
    volumes = np.array([image.cell.volume for image in images])
    fitted, energy, span = _fit(volumes, energies, options.form)
    volume, modulus = float(fitted.v0), float(fitted.B) * span
    deviation = span * (fitted.func(volumes, *fitted.eos_parameters) - fitted.e)
    figures: dict[str, Any] = {
        "derivative": float(fitted.eos_parameters[2]),
        "modulus_error": span * _modulus_error(fitted),
        "rms": float(np.sqrt(np.mean(deviation**2))),
        "bracketed": bool(volumes[0] < volume < volumes[-1]),
        "uneven": _uneven([results[0].stress, results[-1].stress]),
    }
    verdicts = [*_verdicts(modulus, span, **figures), *official_verdicts(calculator)]
    return EquationOfState(
        volumes,
        energies,
        options.form,
        energy,
        float(volume),
        float(modulus),
        **figures,
        verdicts=tuple(verdicts),
    )


def _fit(volumes: np.ndarray, energies: np.ndarray, form: str) -> tuple[Any, float, float]:
    """ASE's fit, the energy at its minimum, and the span that the energies were divided by.

    Energies are given to it from 1 to 2: near zero its start from a parabola may not converge, far
    from it digits are lost.
    """
    import ase.eos

    span = float(np.ptp(energies)) or 1.0
    scaled = (energies - energies.min()) / span + 1
    fitted = ase.eos.EquationOfState(volumes, scaled, eos=form)
    try:
        found = fitted.fit(warn=False)
    except (RuntimeError, ValueError) as error:
        raise _no_minimum(volumes, energies) from error
    if not (np.isfinite(found).all() and fitted.v0 > 0 and fitted.B > 0):
        raise _no_minimum(volumes, energies)
    return fitted, (float(fitted.e0) - 1) * span + float(energies.min()), span


def _modulus_error(fitted: Any) -> float:
    """Standard error of the second of four parameters, from the slopes of the fit in each."""
    parameters = np.array(fitted.eos_parameters, dtype=float)
    columns = []
    for step in np.diag(1e-5 * np.maximum(np.abs(parameters), 1e-3)):
        up, down = (fitted.func(fitted.v, *(parameters + sign * step)) for sign in (1, -1))
        columns.append((up - down) / (2 * step.max()))
    deviation = fitted.func(fitted.v, *parameters) - fitted.e
    variance = float((deviation**2).sum()) / (len(fitted.v) - len(parameters))
    slopes = np.array(columns).T
    return float(np.sqrt(variance * np.linalg.pinv(slopes.T @ slopes)[1, 1]))


def _uneven(stresses: list[np.ndarray | None]) -> float:
    shares = []
    for stress in stresses:
        if stress is None:
            return float("nan")
        mean = float(np.trace(stress)) / 3
        shares.append(float(np.abs(stress - mean * np.eye(3)).max() / max(abs(mean), 1e-12)))
    return max(shares)


def _verdicts(
    modulus: float,
    span: float,
    *,
    derivative: float,
    modulus_error: float,
    rms: float,
    bracketed: bool,
    uneven: float,
) -> list[Verdict]:
    uncertain = modulus_error / modulus
    return [
        Verdict(
            "minimum",
            bracketed,
            "between the volumes" if bracketed else "beyond the volumes",
            "between the volumes",
            "elsewhere the fit extrapolates",
            "the minimum is not between the volumes: relax the cell, or raise the strain "
            "(--strain)",
        ),
        Verdict(
            "fit",
            not rms > _RESIDUAL * span,
            f"misses the energies by {1000 * rms:.2g} meV",
            f"at most {1000 * _RESIDUAL * span:.2g} meV",
            f"{_RESIDUAL:.0%} of the span of energies: they lie on one smooth curve",
            f"the fit misses the energies by {rms:.2g} eV, of a span of {span:.2g} eV: they do not "
            "lie on one smooth curve, or the strain is too large",
        ),
        Verdict(
            "error of the bulk modulus",
            not uncertain > _UNCERTAIN,
            f"{uncertain:.2%}",
            f"at most {_UNCERTAIN:.0%}",
            "standard error by the scatter of the fit",
            f"the bulk modulus is uncertain by {uncertain:.0%}: take more volumes (--points) or a "
            "larger strain (--strain)",
        ),
        Verdict(
            "derivative of the bulk modulus",
            _DERIVATIVES[0] < derivative < _DERIVATIVES[1],
            f"{derivative:.2f}",
            f"between {_DERIVATIVES[0]:g} and {_DERIVATIVES[1]:g}",
            "crystals have 2 to 8",
            f"the bulk modulus has a derivative of {derivative:.2f} with pressure, crystals have 2 "
            "to 8: the energies are not those of one crystal that is compressed",
        ),
        Verdict(
            "shape under pressure",
            None if np.isnan(uneven) else not uneven > _UNEVEN,
            "not known, without stress" if np.isnan(uneven) else f"stress uneven by {uneven:.0%}",
            f"at most {_UNEVEN:.0%} of the pressure",
            "the volumes here keep the shape of the cell",
            f"stress differs between directions by {uneven:.0%} of the pressure: this crystal "
            "changes its shape, and the bulk modulus is that of a fixed shape, an upper bound "
            "('jmp-md elastic' gives both bounds)",
        ),
    ]


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
