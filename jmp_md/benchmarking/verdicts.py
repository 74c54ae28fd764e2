"""Which limits a benchmark has passed: what a user may conclude of a model, part by part."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jmp_md.benchmarking import PARTS
from jmp_md.benchmarking.results import Part
from jmp_md.report.accuracy import CHEMICAL
from jmp_md.report.judgement import MOST_DRIFT
from jmp_md.simulate.verdict import Verdict


@dataclass(frozen=True)
class Limit:
    """The largest mean absolute error that passes.

    Attributes:
        most: In the unit of the part, or a share of the references.
        reason: Why that.
        doubt: What follows from more.
        relative: Whether it is a share.
    """

    most: float
    reason: str
    doubt: str
    relative: bool = False


_KCAL = "1 kcal/mol, chemical accuracy"
LIMITS: dict[str, Limit] = {
    "diatomics": Limit(0.02, "twice what hybrid functionals are off by", "bonds are off"),
    "curves": Limit(
        0.0,
        "a bond has one minimum, and atoms that are pressed together repel each other",
        "bonds that are stretched or pressed end in places that do not exist: keep to moderate "
        "temperatures, and look at the distances in trajectories",
    ),
    "bonds": Limit(
        0.02, "MP2, which they are compared with, and DFT differ by 0.01 Å", "geometries are off"
    ),
    "frequencies": Limit(
        50.0,
        "harmonic frequencies of hybrid functionals are off by 30 to 50 1/cm",
        "spectra and zero-point energies are off",
    ),
    "barriers": Limit(
        26.0,
        "kT at 300 K: rates are off by a factor of e there",
        "rotors turn at wrong rates: do not trust populations and times of conformers",
    ),
    "reactions": Limit(CHEMICAL, _KCAL, "energies of reactions are off"),
    "torsions": Limit(CHEMICAL, _KCAL, "conformers have wrong energies"),
    "dimers": Limit(
        CHEMICAL, _KCAL, "molecules attract each other wrongly: do not trust liquids and clusters"
    ),
    "separation": Limit(
        1.0,
        "energies of molecules that do not feel each other add up; rounding is less",
        "energies are not additive: systems of different sizes do not compare",
    ),
    "drift": Limit(
        MOST_DRIFT,
        "what GROMACS allows by default, 0.005 kJ/mol/ps per atom",
        "energy is not kept in dynamics: take shorter timesteps and float64",
    ),
    "stability": Limit(
        0.0, "molecules that are stable stay whole at 300 K", "molecules break or rearrange"
    ),
    "lattices": Limit(
        0.05, "what functionals differ from each other by", "crystals have wrong sizes"
    ),
    "moduli": Limit(
        0.15, "PBE is off by 10 % of experiment", "crystals have wrong stiffness", relative=True
    ),
    "phonon": Limit(
        0.05, "PBE is off by 3 % of experiment", "phonons of crystals are off", relative=True
    ),
}
_FAILED = re.compile(r"\w*Error: ")  # see Subject.attempt
_BY_NAME = {PARTS[key].name: limit for key, limit in LIMITS.items()}


def judge_parts(parts: Sequence[Part]) -> list[Verdict]:
    """A verdict for each part that compares with something."""
    return [_judge(part, _BY_NAME[part.name]) for part in parts if part.name in _BY_NAME]


def _judge(part: Part, limit: Limit) -> Verdict:
    compared = [case for case in part.cases if case.reference is not None]
    sizes = [abs(case.reference or 0.0) if limit.relative else 1.0 for case in compared]
    errors = [abs(case.error) / size for case, size in zip(compared, sizes, strict=True)]
    mean = float(np.mean(errors)) if errors else float("nan")
    left = f", {len(part.left_out)} left out" if part.left_out else ""
    said = f"no case{left}"
    if (worst := part.worst) is not None:
        said = (
            f"mean error {_value(mean, part, limit)} of {len(compared)} cases, the worst "
            f"{worst.name} {worst.error:+.3g}{left}"
        )
    holds: bool | None = None
    if compared:
        holds = mean <= limit.most
    # What fails is the hardest; elements that a model does not know are another matter.
    if holds and any(_FAILED.match(why) for why in part.left_out.values()):
        holds = None
    return Verdict(
        part.name,
        holds,
        said,
        f"at most {_value(limit.most, part, limit)}" if limit.most else "none",
        limit.reason,
        limit.doubt,
    )


def _value(number: float, part: Part, limit: Limit) -> str:
    return f"{100 * number:.3g} %" if limit.relative else f"{number:.3g} {part.unit}".rstrip()
