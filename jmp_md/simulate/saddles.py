"""What a finished path shows: whether it has a saddle, and what puts its barrier in doubt."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from jmp_md.simulate.path_curve import path_curve
from jmp_md.simulate.path_ends import shortest
from jmp_md.simulate.verdict import Verdict

if TYPE_CHECKING:
    from ase import Atoms

IMAGINARY = 20.0  # cm⁻¹ from which on an imaginary frequency counts
_ABOVE = 1e-3  # eV by which a saddle lies above both ends, more than rounding
_DEEP = 0.01  # eV by which a minimum on the way lies below what is before and behind it


def rises_inside(energies: np.ndarray) -> bool:
    """Whether an image between the ends lies above both: only there can one climb to a saddle.

    Args:
        energies: (n_images,) eV.
    """
    return bool(energies[1:-1].max() > max(energies[0], energies[-1]) + _ABOVE)


def verdicts_of_path(images: Sequence[Atoms], energies: np.ndarray, fmax: float) -> list[Verdict]:
    """Whether the barrier of a path is one.

    Args:
        images: From one end to the other, with forces.
        energies: (n_images,) eV.
        fmax: eV/Å, the largest force that ends at a minimum have.
    """
    verdicts = []
    for name, end in (("first", images[0]), ("last", images[-1])):
        left = float(np.linalg.norm(end.get_forces(), axis=1).max())
        verdicts.append(
            Verdict(
                f"{name} end",
                not left > fmax,
                f"force {left:.4f} eV/Å",
                f"at most {fmax} eV/Å",
                "barriers are counted from minima, which have no forces",
                f"the {name} end is at no minimum, it has a force of {left:.3f} eV/Å: relax it, "
                "barriers are counted from it",
            )
        )
    above = float(energies[1:-1].max() - max(energies[0], energies[-1]))
    rises = rises_inside(energies)
    verdicts.append(
        Verdict(
            "saddle",
            rises,
            f"{above:+.4f} eV above the higher end",
            f"above {_ABOVE} eV",
            "two minima have a saddle between; less is rounding",
            "" if rises else _no_saddle(images, energies),
        )
    )
    if rises:
        folded = _folded(images, int(energies[1:-1].argmax()) + 1)
        verdicts.append(
            Verdict(
                "way at the top",
                folded is None,
                "goes on" if folded is None else "turns back",
                "less than a right angle",
                "an image beside the way has left it",
                folded or "",
            )
        )
    return verdicts


def verdict_of_frequencies(frequencies: np.ndarray) -> Verdict:
    """Whether a structure has the number of imaginary modes of a saddle.

    Args:
        frequencies: cm⁻¹, imaginary ones negative.
    """
    count = int((frequencies < -IMAGINARY).sum())
    return Verdict(
        "transition state",
        count == 1,
        f"{count} imaginary frequencies",
        f"one, beyond {IMAGINARY:g} cm⁻¹",
        "at a saddle the energy falls along one direction only; less is rounding",
        f"NOT a transition state: {count} imaginary frequencies in place of one",
    )


def notes_of_path(images: Sequence[Atoms]) -> list[str]:
    """What a curve with the slopes of the forces shows between images: minima, a higher top.

    Args:
        images: From one end to the other, with energies and forces.
    """
    found = path_curve(images)
    curve, notes = found.fine_energies, []
    if curve.max() > found.energies.max() + _DEEP / 2:
        notes.append(
            f"between images the energy rises to about {curve.max():.3f} eV above the first end, "
            "more than at any image: let the top climb, or take more images"
        )
    inner = np.flatnonzero((curve[1:-1] < curve[:-2]) & (curve[1:-1] <= curve[2:])) + 1
    for i in inner:
        if min(curve[:i].max(), curve[i:].max()) > curve[i] + _DEEP:
            nearest = found.indices[np.abs(found.path - found.fine_path[i]).argmin()]
            notes.append(
                f"a minimum lies on the way, near image {nearest}, {curve[i]:+.3f} eV from the "
                f"first end; from there {curve[i:].max() - curve[i]:.3f} eV lie ahead: relax it, "
                "and compute both parts"
            )
    return notes


def _no_saddle(images: Sequence[Atoms], energies: np.ndarray) -> str:
    """Two minima have a saddle between: where none shows, an end or the spacing is to blame."""
    gaps = [np.linalg.norm(shortest(a, b)) for a, b in pairwise(images)]
    way = "rises" if energies[-1] > energies[0] else "falls"
    return (
        f"NO saddle: no image between the ends lies above both, the energy {way} from the first "
        f"end to the last; the barrier is narrower than the spacing of images, "
        f"{max(gaps):.2f} Å (take more images), or the higher end is at no minimum"
    )


def _folded(images: Sequence[Atoms], top: int) -> str | None:
    """Whether the path turns back at its top: the image there has left the way between the ends."""
    before = shortest(images[top], images[top - 1])
    after = shortest(images[top], images[top + 1])
    if float((before * after).sum()) <= 0:
        return None
    return (
        f"the path turns back at image {top}, its top: that image has left the way between its "
        "neighbours; take more images, or other ends"
    )
