"""Options of single points, relaxations and paths; those of dynamics are in ``md.options``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from jmp_md.options import Options, option

Strain = Annotated[int, Field(ge=0, le=1)]


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
    cell_mask: tuple[Strain, Strain, Strain, Strain, Strain, Strain] | None = option(
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
