"""Elastic constants of a crystal, with matscipy, from strained cells in one batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.units import GPa

from jmp_md.errors import InputError
from jmp_md.options import with_options
from jmp_md.simulate.crystals import (
    check_crystal,
    official_verdicts,
    relax_positions,
    warn_official,
)
from jmp_md.simulate.forces import has_stress
from jmp_md.simulate.options import ElasticOptions
from jmp_md.simulate.singlepoint import singlepoint
from jmp_md.simulate.verdict import Verdict, doubts
from jmp_md.structure_files import attach_results

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import Calculator

SUBJECT = "elastic constants"
# Shares of the largest constant: of standard errors, and of differences from the transpose
_SCATTER = _ASYMMETRY = 0.05
_STRESS = 0.05  # share of the softest constant that stress left in the cell may be
_RELAXED = 0.01  # eV/Å that may be left where ions are clamped


@dataclass(frozen=True)
class Moduli:
    """Moduli of a polycrystal, in eV/Å³.

    Attributes:
        bulk: Bulk modulus.
        shear: Shear modulus.
    """

    bulk: float
    shear: float

    @property
    def young(self) -> float:
        """Young's modulus, eV/Å³."""
        return 9 * self.bulk * self.shear / (3 * self.bulk + self.shear)

    @property
    def poisson(self) -> float:
        """Poisson's ratio; no unit."""
        return (3 * self.bulk - 2 * self.shear) / (2 * (3 * self.bulk + self.shear))


@dataclass(frozen=True)
class Elastic:
    """Elastic constants, in eV/Å³; divided by ``ase.units.GPa`` in GPa.

    Attributes:
        stiffness: (6, 6) C_ij in the frame of the given structure, strains in the order xx, yy,
            zz, yz, xz, xy, shear strains as angles.
        errors: (6, 6) standard errors of the straight lines: large where the strain is.
        voigt: Averages for a uniform strain, an upper bound.
        reuss: Averages for a uniform stress, a lower bound; NaN where the crystal is unstable.
        stress: (3, 3) eV/Å³ in the given cell; elastic constants have a meaning near zero.
        asymmetry: Largest difference of the constants from their transpose before they are
            averaged, as a share of the largest: a measure of the error of stresses.
        fmax: eV/Å, the largest force in the given cell.
        verdicts: Whether the constants stand.
    """

    stiffness: np.ndarray
    errors: np.ndarray
    voigt: Moduli
    reuss: Moduli
    stress: np.ndarray
    asymmetry: float
    fmax: float
    verdicts: tuple[Verdict, ...]

    @property
    def doubts(self) -> tuple[str, ...]:
        """Why the constants may be wrong; empty where nothing speaks against them."""
        return doubts(self.verdicts)

    @property
    def pressure(self) -> float:
        """eV/Å³ in the given cell."""
        return -float(np.trace(self.stress)) / 3

    @property
    def hill(self) -> Moduli:
        """Mean of the averages of Voigt and Reuss, the usual estimate."""
        return Moduli(
            (self.voigt.bulk + self.reuss.bulk) / 2, (self.voigt.shear + self.reuss.shear) / 2
        )

    @property
    def stable(self) -> bool:
        """Whether every strain costs energy (Born's criterion): C is positive definite."""
        return bool(np.linalg.eigvalsh(self.stiffness).min() > 0)


@with_options(ElasticOptions)
def elastic(
    atoms: Atoms,
    calculator: Calculator,
    options: ElasticOptions | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
    **changes: Any,
) -> Elastic:
    """All 21 elastic constants, from straight lines through stress over strain.

    No symmetry is assumed: that of the crystal shows in the constants. Unless clamped, positions
    relax in every strained cell.

    Args:
        atoms: A crystal with relaxed cell and positions.
        calculator: ASE calculator with stress; a ``JMPCalculator`` computes all strained cells in
            batches.
        options: See :class:`~jmp_md.simulate.options.ElasticOptions`; None for the defaults.
        progress: Called with how many strained cells are relaxed, and of how many; not where
            clamped.
        changes: Options by name, in place of those of ``options``.

    Raises:
        InputError: No crystal, an option that does not exist or does not fit, or a cell that
            cannot be computed.
    """
    from ase.stress import full_3x3_to_voigt_6_stress
    from matscipy.elasticity import fit_elastic_constants, generate_strained_configs

    options = (options or ElasticOptions()).changed(changes)
    points = options.points
    check_crystal(atoms, SUBJECT)
    if not has_stress(calculator):
        raise InputError(
            f"elastic constants need stress, which {type(calculator).__name__} does not give here; "
            "of JMP models, conservative forces do"
        )
    warn_official(calculator)
    start = atoms.copy()
    steps = {"N_steps": points, "delta": 2 * options.strain / (points - 1)}
    strained = list(generate_strained_configs(start, "triclinic", **steps))
    strains = [image.info["strain"] for image in strained]
    if not options.clamped:
        strained = relax_positions(strained, calculator, options.fmax, progress=progress)
    here, *results = singlepoint([start, *strained], calculator, stress=True)
    images = []
    for image, applied, result in zip(strained, strains, results, strict=True):
        images.append(_with_stress(image, full_3x3_to_voigt_6_stress(_stress(result.stress))))
        images[-1].info["strain"] = applied
    stiffness, errors = fit_elastic_constants(
        images, symmetry="triclinic", N_steps=points, verbose=False
    )
    assert here.forces is not None
    left = float(np.linalg.norm(here.forces, axis=1).max())
    found = Elastic(
        stiffness,
        errors,
        voigt(stiffness),
        reuss(stiffness),
        _stress(here.stress),
        _asymmetry(images, points, stiffness),
        left,
        (),
    )
    verdicts = (*_verdicts(found, options.clamped), *official_verdicts(calculator))
    return replace(found, verdicts=verdicts)


def _asymmetry(images: Sequence[Atoms], points: int, stiffness: np.ndarray) -> float:
    """Of the lines through stress over each strain; matscipy averages C_ij and C_ji."""
    slopes = []
    for start in range(0, len(images), points):
        some = images[start : start + points]
        size = float(np.abs(some[0].info["strain"]).sum())  # of a shear as an angle
        strains = np.linspace(-size, size, points)
        slopes.append(np.polyfit(strains, np.array([image.get_stress() for image in some]), 1)[0])
    return float(np.abs(np.array(slopes) - np.array(slopes).T).max() / np.abs(stiffness).max())


def _verdicts(found: Elastic, clamped: bool) -> list[Verdict]:
    largest, softest = np.abs(found.stiffness).max(), np.linalg.eigvalsh(found.stiffness).min()
    stress, scatter = float(np.abs(found.stress).max()), float(found.errors.max() / largest)
    verdicts = [
        Verdict(
            "stability",
            found.stable,
            f"softest constant {softest / GPa:.2f} GPa",
            "above 0",
            "Born's criterion: every strain costs energy",
            "a strain lowers the energy: the crystal is unstable in this model",
        )
    ]
    if found.stable:
        verdicts.append(
            Verdict(
                "stress in the cell",
                not stress > _STRESS * softest,
                f"{stress / GPa:.3f} GPa",
                f"at most {_STRESS * softest / GPa:.3f} GPa",
                f"{_STRESS:.0%} of the softest constant: constants are second derivatives where "
                "the first vanish",
                f"a stress of {stress / GPa:.2f} GPa is left in the cell, the softest constant is "
                f"{softest / GPa:.2f} GPa: relax the cell",
            )
        )
    verdicts += [
        Verdict(
            "straight lines",
            not scatter > _SCATTER,
            f"standard errors to {scatter:.2%}",
            f"at most {_SCATTER:.0%} of the largest constant",
            "Hooke's law: stress is proportional to a small strain",
            f"stress over strain is no straight line, standard errors reach {scatter:.0%} of the "
            "largest constant: take another strain (--strain), more points, or a smaller fmax",
        ),
        Verdict(
            "symmetry of the constants",
            not found.asymmetry > _ASYMMETRY,
            f"differ from their transpose by {found.asymmetry:.2%}",
            f"at most {_ASYMMETRY:.0%} of the largest",
            "second derivatives of an energy do not depend on their order",
            f"constants differ from their transpose by {found.asymmetry:.0%} of the largest: "
            "stresses are no derivatives of an energy, or the cell is not relaxed",
        ),
    ]
    if clamped:
        verdicts.append(
            Verdict(
                "relaxation",
                not found.fmax > _RELAXED,
                f"force {found.fmax:.4f} eV/Å",
                f"at most {_RELAXED} eV/Å",
                "clamped ions stay where the strain moves them",
                f"forces of {found.fmax:.3f} eV/Å are left, and ions are clamped: relax them",
            )
        )
    return verdicts


def voigt(stiffness: np.ndarray) -> Moduli:
    """Averages for a uniform strain (Hill, Proc. Phys. Soc. A 65, 349 (1952)).

    Args:
        stiffness: (6, 6) in any unit, which the moduli share.
    """
    normal, mixed, shear = _sums(stiffness)
    return Moduli((normal + 2 * mixed) / 9, (normal - mixed + 3 * shear) / 15)


def reuss(stiffness: np.ndarray) -> Moduli:
    """Averages for a uniform stress (Hill, Proc. Phys. Soc. A 65, 349 (1952)).

    NaN where the crystal is unstable.

    Args:
        stiffness: (6, 6) in any unit, which the moduli share.
    """
    if np.linalg.eigvalsh(stiffness).min() <= 0:
        return Moduli(float("nan"), float("nan"))
    normal, mixed, shear = _sums(np.linalg.inv(stiffness))
    return Moduli(1 / (normal + 2 * mixed), 15 / (4 * normal - 4 * mixed + 3 * shear))


def _sums(matrix: np.ndarray) -> tuple[float, float, float]:
    """11 + 22 + 33, 12 + 13 + 23 and 44 + 55 + 66."""
    diagonal = np.diag(matrix)
    mixed = matrix[0, 1] + matrix[0, 2] + matrix[1, 2]
    return float(diagonal[:3].sum()), float(mixed), float(diagonal[3:].sum())


def _stress(stress: np.ndarray | None) -> np.ndarray:
    assert stress is not None  # asked for, of a crystal
    return stress


def _with_stress(image: Atoms, stress: np.ndarray) -> Atoms:
    return attach_results(image.copy(), {"stress": stress})
