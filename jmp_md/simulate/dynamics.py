"""A molecular dynamics run between two steps: everything the next step depends on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms, units
from ase.md.velocitydistribution import Stationary

from jmp_md.errors import InputError
from jmp_md.graph.neighbours import NeighbourCache
from jmp_md.simulate import integrators
from jmp_md.simulate.halves import halves

if TYPE_CHECKING:
    from ase.md.md import MolecularDynamics


@dataclass
class Dynamics:
    """Atoms on their way.

    Attributes:
        atoms: Structure with momenta and calculator.
        integrator: ASE's object that moves them.
        rng: Source of random forces.
        ensemble: One of :data:`jmp_md.simulate.options.ENSEMBLES`.
        centred: Whether the total momentum is zero and stays so.
        searched: Positions and cell at which a JMP model last searched neighbours. It computes
            with positions relative to those, so that they decide about the last bits of forces.
        step: Steps done.
    """

    atoms: Atoms
    integrator: MolecularDynamics
    rng: np.random.Generator
    ensemble: str
    centred: bool
    searched: dict[str, np.ndarray]
    step: int = 0

    @classmethod
    def start(cls, given: Atoms, settings: dict[str, Any]) -> Dynamics:
        """Begin with a copy of a structure; momenta are drawn where it has none.

        Args:
            given: Structure with a calculator.
            settings: Arguments of :func:`jmp_md.simulate.md.md`.
        """
        atoms = given.copy()
        atoms.calc = given.calc
        rng = np.random.default_rng(settings["seed"])
        if not atoms.get_momenta().any():
            width = np.sqrt(atoms.get_masses() * units.kB * settings["temperature"])
            atoms.set_momenta(width[:, None] * rng.standard_normal((len(atoms), 3)))
        if _centred(given, settings):
            Stationary(atoms)
        return cls._make(atoms, settings, rng, _search_neighbours(atoms))

    @classmethod
    def resume(
        cls,
        given: Atoms,
        settings: dict[str, Any],
        arrays: dict[str, np.ndarray],
        facts: dict[str, Any],
    ) -> Dynamics:
        """Continue from what :meth:`arrays` and :meth:`facts` said.

        Args:
            given: The structure the run was started with.
            settings: Arguments of :func:`jmp_md.simulate.md.md`.
            arrays: Saved arrays.
            facts: Saved facts.

        Raises:
            InputError: The run is of another structure.
        """
        for name in ("numbers", "pbc"):
            if not np.array_equal(arrays[name], getattr(given, name)):
                raise InputError(
                    f"the saved run is of another structure, its {name} are "
                    f"{arrays[name].tolist()}: give the structure it was started with, or start "
                    "again in another folder"
                )
        atoms = given.copy()
        atoms.calc = given.calc
        atoms.positions, atoms.cell = arrays["searched_positions"], arrays["searched_cell"]
        searched = _search_neighbours(atoms)
        atoms.positions, atoms.cell = arrays["positions"], arrays["cell"]
        atoms.set_array("momenta", arrays["momenta"])
        rng = np.random.default_rng()
        rng.bit_generator.state = facts["rng"]
        run = cls._make(atoms, settings, rng, searched)
        integrators.restore_state(run.integrator, arrays)
        run.step = facts["step"]
        return run

    @classmethod
    def _make(
        cls,
        atoms: Atoms,
        settings: dict[str, Any],
        rng: np.random.Generator,
        searched: dict[str, np.ndarray],
    ) -> Dynamics:
        centred, ensemble = _centred(atoms, settings), settings["ensemble"]
        names = ("timestep", "temperature", "pressure", "tdamp", "pdamp")
        options = {name: settings[name] for name in names}
        integrator = integrators.make_integrator(
            atoms, ensemble, rng=rng, centred=centred, **options
        )
        return cls(atoms, integrator, rng, ensemble, centred, searched)

    def advance(self) -> None:
        """Do a step."""
        before = _searches(self.atoms)
        self.integrator.step()
        self.step += 1
        if _searches(self.atoms) != before:
            self.searched = _here(self.atoms)

    def halves(self) -> Iterator[None]:
        """Do a step, and yield where atoms have moved and need forces."""
        before = _searches(self.atoms)
        yield from halves(self.integrator)
        self.step += 1
        if _searches(self.atoms) != before:
            self.searched = _here(self.atoms)

    def heat(self, settings: dict[str, Any], steps: int) -> None:
        """Set the temperature of a ramp over ``steps`` steps, where ``settings`` have one."""
        start, end = settings["temperature"], settings["temperature_end"]
        if end is not None:
            temperature = start + (end - start) * self.step / steps
            integrators.set_temperature(self.integrator, temperature)

    def temperature(self) -> float:
        """K, by the degrees of freedom that can move."""
        freedom = integrators.degrees_of_freedom(self.atoms, self.centred)
        return float(2 * self.atoms.get_kinetic_energy() / (max(freedom, 1) * units.kB))

    def conserved_energy(self) -> float:
        """eV; see :func:`jmp_md.simulate.integrators.conserved_energy`."""
        return integrators.conserved_energy(self.integrator)

    def arrays(self) -> dict[str, np.ndarray]:
        """All arrays that :meth:`resume` needs."""
        atoms = self.atoms
        arrays = {"numbers": atoms.numbers, "pbc": atoms.pbc, "positions": atoms.positions}
        arrays |= {"cell": atoms.cell.array, "momenta": atoms.get_momenta()}
        return arrays | self.searched | integrators.extended_state(self.integrator)

    def facts(self) -> dict[str, Any]:
        """What else :meth:`resume` needs, as JSON can hold it."""
        return {"step": self.step, "rng": self.rng.bit_generator.state}


def _centred(atoms: Atoms, settings: dict[str, Any]) -> bool:
    return settings["remove_drift"] and not atoms.constraints and len(atoms) > 1


def _search_neighbours(atoms: Atoms) -> dict[str, np.ndarray]:
    """Make a JMP model search neighbours here and now, whatever it has computed before."""
    old = _neighbours(atoms)
    if old is not None:
        atoms.calc.neighbours = NeighbourCache(old.cutoff, old.skin)
        atoms.calc.neighbours.update(atoms.positions, atoms.numbers, atoms.cell.array, atoms.pbc)
        atoms.calc.reset()
    return _here(atoms)


def _here(atoms: Atoms) -> dict[str, np.ndarray]:
    cell = atoms.cell.array.copy()
    return {"searched_positions": atoms.positions.copy(), "searched_cell": cell}


def _searches(atoms: Atoms) -> int:
    """Neighbour searches of a JMP model so far."""
    neighbours = _neighbours(atoms)
    return 0 if neighbours is None else neighbours.rebuilds


def _neighbours(atoms: Atoms) -> NeighbourCache | None:
    """The neighbour list of a JMP model."""
    return getattr(atoms.calc, "neighbours", None)
