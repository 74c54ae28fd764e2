"""Units that look wrong, by distances, by the base's predictions and by energies along forces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from jmp_md.connectivity import Contacts
from jmp_md.errors import InputError
from jmp_md.training.data.frame import ENERGY_UNITS, FORCE_UNITS, HARTREE, Frame
from jmp_md.training.metrics import to_atoms

SURE = 0.8  # correlation from which a slope says something
LOOKED_AT = 40  # frames
_REACH = 8.0  # Å
_NOBLE = {2, 10, 18, 36, 54, 86}
_STEP = 0.5  # Å: pairs of frames whose atoms moved less are near enough for a trapezoid


@dataclass(frozen=True)
class Slope:
    """Labels against what they should be: ``slope`` is 1 in the right units."""

    slope: float
    correlation: float
    count: int

    @property
    def sure(self) -> bool:
        """Whether it says something of units."""
        return self.count >= 6 and abs(self.correlation) > SURE


def slope_of(label: np.ndarray, expected: np.ndarray) -> Slope:
    """Ratio of the norms, which noise of the expected values does not flatten as least squares."""
    label, expected = np.ravel(label), np.ravel(expected)
    norms = float(np.linalg.norm(label) * np.linalg.norm(expected))
    if not norms:
        return Slope(1.0, 0.0, 0)
    product = float(label @ expected)
    ratio = float(np.linalg.norm(label) / np.linalg.norm(expected))
    return Slope(np.copysign(ratio, product), product / norms, len(label))


def check_lengths(frames: Sequence[Frame], given: str | None) -> None:
    """Refuse positions whose nearest neighbours are not where atoms can be, unless told the unit.

    Raises:
        InputError: They look like bohr or nm.
    """
    if given is not None:
        return
    ratios = []
    for frame in frames[:: max(len(frames) // LOOKED_AT, 1)]:
        if set(frame.numbers.tolist()) <= _NOBLE:
            continue
        contacts = Contacts(to_atoms(frame), _REACH)
        if len(contacts.ratio):
            nearest = np.full(len(frame), np.inf)
            np.minimum.at(nearest, contacts.first, contacts.ratio)
            ratios.append(float(np.median(nearest)))
    if not ratios:
        return
    ratio = float(np.median(ratios))
    unit = "bohr" if 1.55 < ratio < 2.6 else "nm" if ratio < 0.2 else None
    if unit is not None:
        raise InputError(
            f"positions look like {unit}: nearest atoms are {ratio:.2f} sums of covalent radii "
            f"apart, where bonded ones are 1.0; add --length-unit {unit}, or --length-unit Å if "
            "they are right"
        )


def check_forces(against_base: Slope, along: Slope, given: str | None) -> None:
    """Refuse forces in other units than eV/Å, unless told the unit.

    Args:
        against_base: Forces against those of the base.
        along: Energies' differences against the forces' work.
        given: The unit that the user told.

    Raises:
        InputError: They look like others.
    """
    if given is not None:
        return
    if against_base.sure:
        usual = {unit: factor for unit, factor in FORCE_UNITS.items() if unit != "eV/bohr"}
        unit = _nearest(1.0 / abs(against_base.slope), usual)  # bases err by as much as eV/bohr
        minus = "-" if against_base.correlation < 0 else ""
        if unit != "eV/Å" or minus:
            what = "gradients, the negative of forces, in " if minus else ""
            raise InputError(
                f"forces look like {what}{unit}: they are {against_base.slope:.3g} times those of "
                f"the base (correlation {against_base.correlation:.2f}); add --force-unit="
                f"{minus}{unit}, or --force-unit eV/Å if they are right"
            )
    elif along.sure and along.correlation < 0:
        raise InputError(
            "forces look like gradients: energies rise along them (correlation "
            f"{along.correlation:.2f} over {along.count} pairs of frames); add "
            "--force-unit=-eV/Å, or --force-unit eV/Å if they are right"
        )


def check_energies(
    frames: Sequence[Frame], against_base: Slope, along: Slope, given: str | None
) -> None:
    """Refuse energies in other units than eV, unless told the unit.

    Args:
        frames: With energies.
        against_base: Differences of energies against those of the base.
        along: Differences of energies against the work of the forces, which are right.
        given: The unit that the user told.

    Raises:
        InputError: They look like others.
    """
    if given is not None:
        return
    for slope, what in (
        (along, "the work of the forces between neighbouring frames"),
        (against_base, "what the base predicts"),
    ):
        if slope.sure and slope.correlation > 0:
            unit = _nearest(1.0 / slope.slope, ENERGY_UNITS)
            if unit != "eV":
                raise InputError(
                    f"energies look like {unit}: their differences are {slope.slope:.3g} times "
                    f"{what}; add --energy-unit {unit}, or --energy-unit eV if they are right"
                )
            return
    ratio = _against_atoms(frames)
    if ratio is not None and abs(ratio * HARTREE - 1) < 0.04:
        raise InputError(
            "energies look like Ha: those of all electrons would be about "
            f"{1 / ratio:.1f} times as large in eV; add --energy-unit Ha, or --energy-unit eV if "
            "they are right"
        )


def along_forces(frames: Sequence[Frame]) -> Slope:
    """Differences of energies of neighbouring frames against the work of the mean of their forces.

    Molecules are laid upon each other first (Kabsch), as frames may be rotated.
    """
    differences, work = [], []
    for a, b in pairwise(frames):
        if (pair := _work(a, b)) is not None:
            differences.append(pair[0])
            work.append(pair[1])
    return slope_of(np.array(differences), np.array(work))


def _work(a: Frame, b: Frame) -> tuple[float, float] | None:
    known = a.energy is not None and b.energy is not None
    if not known or a.forces is None or b.forces is None or len(a) < 2:
        return None
    if not np.array_equal(a.numbers, b.numbers):
        return None
    moved, forces = b.positions, b.forces
    if a.cell is None or not any(a.pbc):
        centre, own = a.positions.mean(axis=0), moved.mean(axis=0)
        u, _, vt = np.linalg.svd((moved - own).T @ (a.positions - centre))
        u[:, -1] *= np.sign(np.linalg.det(u @ vt))
        moved, forces = (moved - own) @ u @ vt + centre, forces @ u @ vt
        step = moved - a.positions
    elif b.cell is not None and np.allclose(a.cell, b.cell):
        change = np.linalg.solve(a.cell.T, (moved - a.positions).T).T
        step = (change - change.round()) @ a.cell
    else:
        return None
    if np.abs(step).max() > _STEP:
        return None
    assert a.energy is not None
    assert b.energy is not None
    return b.energy - a.energy, -0.5 * float(np.sum((a.forces + forces) * step))


def _against_atoms(frames: Sequence[Frame]) -> float | None:
    """Energies as a share of the sum over neutral atoms, all electrons, in eV.

    Atoms by the Thomas-Fermi energy with Scott's and Schwinger's corrections (Englert and
    Schwinger, Phys. Rev. A 32, 26 (1985)), which is right to a few percent.
    """
    shares = []
    for frame in frames[:: max(len(frames) // LOOKED_AT, 1)]:
        if frame.energy is not None:
            z = frame.numbers.astype(float)
            atoms = np.sum(0.768745 * z ** (7 / 3) - 0.5 * z**2 + 0.269900 * z ** (5 / 3))
            shares.append(-frame.energy / (HARTREE * atoms))
    return float(np.median(shares)) if shares else None


def _nearest(factor: float, units: Mapping[str, float]) -> str:
    return min(units, key=lambda unit: abs(np.log(units[unit] / factor)))
