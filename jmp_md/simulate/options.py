"""Options of calculations but dynamics, whose are in ``md.options``."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from jmp_md.options import Options, option

Relaxes = Annotated[int, Field(ge=0, le=1)]


class SinglepointOptions(Options):
    """Options of :func:`jmp_md.simulate.singlepoint.singlepoint`."""

    stress: bool = option(False, "also stress, of periodic structures")


class RelaxOptions(Options):
    """Options of :func:`jmp_md.simulate.relax.relax`."""

    fmax: float = option(0.01, "largest force at which to stop", unit="eV/Å", gt=0)
    steps: int = option(500, "most steps to take", ge=0)
    optimizer: Literal["BFGS", "LBFGS", "FIRE"] | None = option(
        None, "LBFGS takes less memory, FIRE is robust far from a minimum; None is BFGS, and LBFGS "
        "for a batch"
    )  # fmt: skip
    relax_cell: bool = option(False, "relax the cell too, in its periodic directions")
    cell_mask: tuple[Relaxes, Relaxes, Relaxes, Relaxes, Relaxes, Relaxes] | None = option(
        None, "1 for strains xx, yy, zz, yz, xz, xy that relax, 0 for those that stay"
    )
    pressure: float = option(
        0.0,
        "pressure on a cell that is relaxed; also as '1 bar' = 0.0001 GPa",
        unit="GPa",
        gt=-1e4,
        lt=1e4,
    )
    keep_symmetry: bool = option(
        False, "make the structure as symmetric as it is to 0.01 Å, and keep it so"
    )

    @model_validator(mode="after")
    def _go_together(self) -> RelaxOptions:
        if not self.relax_cell and (self.cell_mask is not None or self.pressure != 0):
            raise ValueError(
                f"cell_mask {self.cell_mask} and pressure {self.pressure!r} GPa are for a cell "
                "that is relaxed: add relax_cell (--relax-cell)"
            )
        return self


class NEBOptions(Options):
    """Options of :func:`jmp_md.simulate.neb.neb`."""

    n_images: int = option(9, "images, with both ends, to put between two ends", ge=3)
    fmax: float = option(0.05, "largest force on an image at which to stop", unit="eV/Å", gt=0)
    steps: int = option(500, "most steps to take", ge=0)
    climb: bool = option(True, "drive the highest image to the saddle point")
    spring: float = option(0.1, "springs between images", unit="eV/Å²", gt=0)
    method: Literal["neb", "string"] = option(
        "neb", "string spreads images evenly along a spline in place of springs"
    )
    optimizer: Literal["FIRE", "BFGS", "MDMin"] = option("FIRE", "optimizer of ASE")
    interpolation: Literal["idpp", "linear"] = option(
        "idpp", "first path between two ends; idpp is the image-dependent pair potential"
    )
    relax_ends: bool = option(True, "relax both ends first, to fmax / 5")
    atom_order: Literal["check", "given", "nearest"] = option(
        "check", "where identical atoms change places: refuse, keep as given, or take the nearest"
    )
    verify: bool = option(
        False, "compute frequencies of the transition state, of which one must be imaginary"
    )


class VibrationOptions(Options):
    """Options of :func:`jmp_md.simulate.vibrations.vibrations`."""

    delta: float = option(0.01, "displacement of atoms", unit="Å", gt=0, lt=0.5)


class PhononOptions(Options):
    """Options of :func:`jmp_md.simulate.phonons.phonons`."""

    supercell: tuple[int, ...] | None = option(
        None, "repeats of the cell: 1, 3 or 9 numbers; None takes as many as make it 10 Å high in "
        "every direction"
    )  # fmt: skip
    delta: float = option(0.01, "displacement of atoms", unit="Å", gt=0, lt=0.5)
    mesh: float = option(
        100.0, "length that gives the mesh of q-points for density of states and thermal "
        "properties: so many per 1/length of each reciprocal vector", unit="Å", gt=0
    )  # fmt: skip
    points: int = option(51, "q-points along the longest segment of the path", ge=2)
    max_temperature: float = option(1000.0, "of the thermal properties", unit="K", gt=0)


class _ClampableOptions(Options):
    renamed: ClassVar = {"relax": "clamped=True (--clamped) is what relax=False was"}
    clamped: bool = option(False, "leave ions where the strain moves them")
    fmax: float = option(1e-3, "largest force that relaxations leave", unit="eV/Å", gt=0)


class EOSOptions(_ClampableOptions):
    """Options of :func:`jmp_md.simulate.eos.eos`."""

    form: Literal["birchmurnaghan", "murnaghan", "birch", "pouriertarantola", "vinet"] = option(
        "birchmurnaghan", "equation of state"
    )
    # Of smaller strains, rounding is all that is left of the energy.
    strain: float = option(0.06, "largest change of the volume, as a share of it", ge=1e-5, lt=0.5)
    points: int = option(9, "volumes, evenly spaced", ge=5)


class ElasticOptions(_ClampableOptions):
    """Options of :func:`jmp_md.simulate.elastic.elastic`."""

    # Of smaller strains, rounding is all that is left of the stress.
    strain: float = option(0.005, "largest strain, a change of lengths as a share", ge=1e-6, lt=0.1)
    points: int = option(5, "strains of each component, evenly spaced", ge=3)


class GasOptions(Options):
    """Options of :func:`jmp_md.simulate.thermochemistry.thermochemistry`."""

    temperature: float = option(298.15, "temperature of the gas", unit="K", gt=0)
    pressure: float = option(1.0, "pressure of the gas; also as '1 atm'", unit="bar", gt=0)
    symmetry_number: int | None = option(
        None, "rotations that leave the molecule as it is, e.g. 2 for water; None finds it from "
        "the geometry, isotopes told apart", ge=1
    )  # fmt: skip
    spin: float | None = option(
        None, "total electronic spin, e.g. 1 for O2; None takes half the sum of the initial "
        "magnetic moments where the number of electrons allows it, else the lowest, 0 or 0.5", ge=0
    )  # fmt: skip
