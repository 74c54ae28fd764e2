"""ASE's nudged elastic band, its images computed together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.singlepoint import SinglePointCalculator
from ase.mep import NEB
from ase.mep.neb import ImprovedTangentMethod

from jmp_md.simulate.path_ends import is_free
from jmp_md.simulate.singlepoint import singlepoint
from jmp_md.structure_files import with_results


class Band(NEB):
    """A band with improved tangents whose inner images are computed in one batch.

    Args:
        images: The whole path; calculators of the images are replaced.
        calculator: What computes them.
        spring: eV/Å², between images.
        method: ``"neb"``, or ``"string"`` for images spread evenly along a spline, without springs
            (E, Ren and Vanden-Eijnden, J. Chem. Phys. 126, 164103 (2007)).
    """

    def __init__(
        self, images: list[Atoms], calculator: Calculator, spring: float, method: str = "neb"
    ) -> None:
        super().__init__(
            images,
            k=spring,
            method="string" if method == "string" else "improvedtangent",
            remove_rotation_and_translation=is_free(images[0]),
        )
        self.calculator = calculator
        self._known: tuple[np.ndarray, np.ndarray] | None = None
        for end in (images[0], images[-1]):
            [result] = singlepoint([end], calculator)
            end.calc = _End(end, energy=result.energy)
        for image in images[1:-1]:
            image.calc = _ImageCalculator(self)

    def set_climbing(self, climb: bool) -> None:
        """Let the highest image climb, or stop it; on a string it would be moved back."""
        if climb:
            self.method, self.neb_method = "improvedtangent", ImprovedTangentMethod(self)
        self.climb = climb
        self._known = None

    def get_forces(self) -> np.ndarray:
        """Forces on the inner images, (n_inner * n_atoms, 3) eV/Å, with those of the springs.

        Turning the images upon each other moves them by rounding each time: positions that are
        known already are not computed again.
        """
        if self._known is None or not np.array_equal(self._known[0], self.get_positions()):
            forces = super().get_forces()
            self._known = self.get_positions(), forces
        return self._known[1].copy()

    def largest_force(self) -> float:
        """eV/Å, the largest force on an atom of the band."""
        return float(np.linalg.norm(self.get_forces(), axis=1).max())

    def compute(self) -> None:
        """Compute all inner images where they are now."""
        inner: list[Atoms] = self.images[1:-1]
        for image, result in zip(inner, singlepoint(inner, self.calculator), strict=True):
            image.calc.atoms = image.copy()
            image.calc.results = {"energy": result.energy, "forces": result.forces}

    def frozen_images(self) -> list[Atoms]:
        """Copies of all images, with their energies and forces."""
        results = singlepoint(self.images, self.calculator)
        return [
            with_results(image, {"energy": result.energy, "forces": result.forces})
            for image, result in zip(self.images, results, strict=True)
        ]


class _End(SinglePointCalculator):
    """Energy of an end, which may be turned but does not change."""

    def check_state(self, atoms: Atoms, tol: float = 1e-15) -> list[str]:
        return []


class _ImageCalculator(Calculator):
    """Calculator of one image: when it is asked, it has all of the band computed."""

    implemented_properties: ClassVar = ["energy", "forces"]

    def __init__(self, band: Band) -> None:
        super().__init__()
        self._band = band

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        super().calculate(atoms, properties, system_changes)
        self._band.compute()
