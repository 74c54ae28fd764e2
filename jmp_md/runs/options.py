"""Options of what runs do around calculations, and of those that do more than one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import model_validator
from typing_extensions import Self

from jmp_md.options import Options, option
from jmp_md.simulate.options import (
    ElasticOptions,
    EOSOptions,
    GasOptions,
    PhononOptions,
    VibrationOptions,
)


class FolderOptions(Options):
    """What a run does with its folder, whatever it computes."""

    overwrite: bool = option(False, "remove the files of the run in the folder first")
    report: bool = option(True, "write report.html")
    inputs: tuple[Path, ...] = option((), "files that are read, which are never removed")


class RestartOptions(FolderOptions):
    """The same, of runs that can be continued."""

    restart: bool = option(False, "continue the run in the folder")

    @model_validator(mode="after")
    def _either(self) -> Self:
        if self.restart and self.overwrite:
            raise ValueError("restart goes on with a run, and overwrite removes it: choose one")
        return self


OptionsT = TypeVar("OptionsT", bound=Options)
AroundT = TypeVar("AroundT", bound=FolderOptions)


def divided(
    options: OptionsT, changes: Mapping[str, Any], around: type[AroundT]
) -> tuple[OptionsT, AroundT]:
    """Options of a calculation, and of what is around it.

    Args:
        options: Those of the calculation.
        changes: Others by name, in their place, and those of the folder.
        around: Class of the latter.

    Raises:
        InputError: One does not exist or does not fit.
    """
    outer = {name: value for name, value in changes.items() if name in around.model_fields}
    own = {name: value for name, value in changes.items() if name not in outer}
    return options.changed(own), around(**outer)


class VibrationRunOptions(VibrationOptions, GasOptions):
    """Options of :func:`jmp_md.runs.vibrations.run_vibrations`."""

    relax: bool = option(True, "relax first, to fmax")
    fmax: float = option(1e-3, "largest force that the relaxation leaves", unit="eV/Å", gt=0)
    steps: int = option(500, "most steps to relax", ge=0)
    thermo: bool = option(False, "also thermochemistry, as an ideal gas")


class RelaxedCrystalOptions(Options):
    """How a crystal is relaxed first."""

    relax: Literal["cell", "atoms", "none"] = option(
        "cell", "relax first, with the symmetry kept: cell and atoms, atoms only, or nothing"
    )
    fmax: float = option(1e-3, "largest force that relaxations leave", unit="eV/Å", gt=0)


class PhononRunOptions(PhononOptions, RelaxedCrystalOptions):
    """Options of :func:`jmp_md.runs.phonons.run_phonons`."""


class EOSRunOptions(EOSOptions, RelaxedCrystalOptions):
    """Options of :func:`jmp_md.runs.eos.run_eos`."""


class ElasticRunOptions(ElasticOptions, RelaxedCrystalOptions):
    """Options of :func:`jmp_md.runs.elastic.run_elastic`."""


class DescriptorOptions(Options):
    """Options of :func:`jmp_md.runs.descriptors.run_descriptors`."""

    map: Literal["tsne", "pca"] | None = option(
        None, "also a figure of the structures in the plane"
    )
    colour: Literal["formula", "file"] = option("formula", "what the colours of the map show")
    seed: int = option(0, "of t-SNE", ge=0)


class ScreenOptions(Options):
    """Options of :func:`jmp_md.runs.screen.run_screen`."""

    task: Literal["relax", "singlepoint"] = option("relax", "what to do with each structure")
    chunk: int = option(256, "structures in a chunk, the most that a kill costs a worker", ge=1)
    fmax: float = option(0.01, "largest force at which to stop", unit="eV/Å", gt=0)
    steps: int = option(500, "most steps to take", ge=0)


BenchmarkPart = Literal[
    "diatomics", "curves", "bonds", "frequencies", "barriers", "reactions", "torsions", "dimers",
    "separation", "drift", "stability", "speed", "lattices", "moduli", "phonon"
]  # fmt: skip


class BenchmarkOptions(Options):
    """Options of :func:`jmp_md.benchmarking.benchmark`."""

    parts: tuple[BenchmarkPart, ...] | None = option(None, "what to test; None for all")


class AnalysisOptions(Options):
    """Options of :func:`jmp_md.runs.analysis.run_analysis`."""

    start: float = option(0.0, "time to leave out at the start", unit="ps", ge=0)
    stride: int = option(1, "take every so many frames", ge=1)
    interval: float | None = option(
        None, "time between frames; None reads it from frames, as runs here write it", unit="fs",
        gt=0
    )  # fmt: skip
    reach: float | None = option(
        None, "largest distance of radial distributions; None takes half the least height of the "
        "cell, at most 8 Å", unit="Å", gt=0
    )  # fmt: skip
    bins: int = option(150, "of radial distributions", ge=10)
    resolution: float = option(10.0, "of the vibrational spectrum", unit="cm⁻¹", gt=0)
    fit_from: float = option(
        0.02, "share of the length from which mean squared displacements are fitted", ge=0, lt=1
    )
    fit_to: float = option(0.1, "share of the length up to which they are", gt=0, le=1)
