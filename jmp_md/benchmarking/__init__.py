"""What a careful user asks of a potential before trusting it, in minutes and without downloads."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jmp_md._version import __version__
from jmp_md.benchmarking import crystals, dynamics, energies, molecules
from jmp_md.benchmarking.results import Benchmark, Case, Part
from jmp_md.benchmarking.subject import Subject
from jmp_md.options import with_options
from jmp_md.runs.options import BenchmarkOptions
from jmp_md.simulate.identity import identify_calculator
from jmp_md.simulate.summary import describe

if TYPE_CHECKING:
    from ase.calculators.calculator import Calculator

__all__ = ["PARTS", "Benchmark", "BenchmarkOptions", "Case", "Part", "about", "benchmark"]


@dataclass(frozen=True)
class Kind:
    """A part that can be run.

    Attributes:
        run: Gives the cases.
        name: In tables.
        unit: Of its values.
        source: Of its references.
    """

    run: Callable[[Subject], list[Case]]
    name: str
    unit: str
    source: str


G2 = "MP2/6-31G(d) geometries of the G2 set"
PARTS: dict[str, Kind] = {
    "diatomics": Kind(
        molecules.diatomic_lengths, "bond lengths of diatomics", "Å", "experiment, r_e"
    ),
    "curves": Kind(
        molecules.diatomic_curves, "faults of curves of diatomics", "", "one minimum, repulsion"
    ),
    "bonds": Kind(molecules.bond_lengths, "worst bond of molecules", "Å", G2),
    "frequencies": Kind(
        molecules.frequencies, "harmonic frequencies", "1/cm", "experiment, harmonic"
    ),
    "barriers": Kind(
        molecules.rotation_barriers, "barriers of methyl rotors", "meV", "experiment, V3"
    ),
    "reactions": Kind(
        energies.reactions, "reaction energies", "meV", "DFT of the model's level, or wB97M-D3"
    ),
    "torsions": Kind(
        energies.torsions, "rigid torsions", "meV", "DFT of the model's level, or wB97M-D3"
    ),
    "dimers": Kind(energies.dimers, "interactions of S22", "meV", "CCSD(T), complete basis set"),
    "separation": Kind(energies.separation, "two molecules far apart", "meV", "additivity"),
    "drift": Kind(dynamics.drift, "drift of the energy", "meV/atom/ps", "conservation"),
    "stability": Kind(
        dynamics.stability, "share of frames with other bonds", "", "molecules stay whole"
    ),
    "speed": Kind(dynamics.speed, "time of a step", "ms", ""),
    "lattices": Kind(crystals.lattice_constants, "lattice constants", "Å", "PBE, all-electron"),
    "moduli": Kind(crystals.bulk_moduli, "bulk moduli", "GPa", "experiment"),
    "phonon": Kind(crystals.silicon_phonon, "highest phonon of silicon", "THz", "experiment"),
}


@with_options(BenchmarkOptions)
def benchmark(
    calculator: Calculator,
    name: str,
    options: BenchmarkOptions | None = None,
    *,
    known: Sequence[Part] = (),
    progress: Callable[[Part], None] | None = None,
    **changes: Any,
) -> Benchmark:
    """Test a calculator on published numbers.

    Structures that a JMP model was not made for, and those on which another calculator fails, are
    left out and named. Energies are compared at one level of theory where there is a choice:
    see :func:`jmp_md.benchmarking.energies.reference_level`.

    Args:
        calculator: Any of ASE's; a ``JMPCalculator`` best in float64.
        name: Of it, in tables.
        options: See :class:`~jmp_md.runs.options.BenchmarkOptions`; None for the defaults.
        known: Parts that were done before with the same calculator; they are not done again.
        progress: Called with each part that is done.
        changes: Options by name, in place of those of ``options``.

    Returns:
        The parts that were known, and then those that are asked for.

    Raises:
        InputError: A part that does not exist.
    """
    options = (options or BenchmarkOptions()).changed(changes)
    found = {part.name: part for part in known}
    for kind in (PARTS[part] for part in options.parts or PARTS):
        if kind.name not in found:
            found[kind.name] = _test(kind, calculator)
            if progress is not None:
                progress(found[kind.name])
    return Benchmark(name, about(calculator), tuple(found.values()))


def about(calculator: Calculator) -> dict[str, Any]:
    """What the numbers of a calculator depend on: its model or parameters, version, machine."""
    here = {"jmp_md": __version__, "machine": platform.machine()}
    return describe(calculator) | identify_calculator(calculator) | here


def _test(kind: Kind, calculator: Calculator) -> Part:
    began, subject = time.perf_counter(), Subject(calculator)
    cases = tuple(kind.run(subject))
    seconds = time.perf_counter() - began
    return Part(kind.name, kind.unit, kind.source, cases, subject.left_out, seconds)
