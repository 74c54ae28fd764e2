"""What is written of a state: frames of trajectories and lines of logs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from ase import units
from ase.geometry import cell_to_cellpar
from ase.stress import full_3x3_to_voigt_6_stress

from jmp_md.simulate.md.barostat import pressure
from jmp_md.simulate.md.integrators import Integrator
from jmp_md.simulate.md.options import MDOptions
from jmp_md.simulate.md.recorder import CELL_COLUMNS, COLUMNS
from jmp_md.simulate.md.state import State
from jmp_md.structure_files import attach_results, with_results

if TYPE_CHECKING:
    from ase import Atoms


class Snapshots:
    """Makes frames and lines.

    Args:
        templates: Structures at the start, by number of the run: all that does not change.
        options: Of the dynamics.

    Attributes:
        columns: Of the lines.
    """

    def __init__(self, templates: Sequence[Atoms], options: MDOptions) -> None:
        # Without labels of the file they come from, which would pass for results of a frame.
        self._templates, self._options = [with_results(each, {}) for each in templates], options
        self.columns = COLUMNS + (CELL_COLUMNS if options.constant_pressure else ())

    def atoms(self, state: State, place: int, index: int) -> Atoms:
        """A structure of a state, with momenta.

        Args:
            state: The state.
            place: Its place in there.
            index: Its number among the templates.
        """
        own = state.segments.slices()[place]
        atoms = self._templates[index].copy()
        atoms.positions, atoms.cell = state.positions[own], state.cells[place]
        atoms.set_array("momenta", state.momenta[own])
        return atoms

    def frame(self, state: State, place: int, index: int, line: Mapping[str, float]) -> Atoms:
        """The same with energy, forces and stress of its calculator, its step and time."""
        atoms, computed = self.atoms(state, place, index), state.computed
        atoms.info.update(step=int(line["step"]), time_fs=line["time_fs"])
        known = {
            "energy": float(computed.energy[place]),
            "forces": computed.forces[state.segments.slices()[place]],
        }
        if np.isfinite(computed.stress[place]).all():
            known["stress"] = full_3x3_to_voigt_6_stress(computed.stress[place])
        return attach_results(atoms, known)

    def lines(
        self, state: State, integrator: Integrator, step: int, numbers: Sequence[int]
    ) -> list[dict[str, float]]:
        """A line of the log for each structure of a state.

        Args:
            state: The state.
            integrator: What moves it.
            step: Its step.
            numbers: Those of the structures among the templates.
        """
        kinetic, temperatures = state.kinetic(), integrator.temperature(state)
        periodic = np.array([self._templates[i].pbc.all() for i in numbers])
        values = {
            "potential_eV": state.energy,
            "kinetic_eV": kinetic,
            "total_eV": state.energy + kinetic,
            "conserved_eV": integrator.conserved(state),
            "temperature_K": temperatures,
            "volume_A3": np.where(periodic, state.volumes(), np.nan),
        }
        if self._options.constant_pressure:
            cells = np.array([cell_to_cellpar(cell) for cell in state.cells]).T
            gpa = pressure(state, temperatures) / units.GPa
            values |= dict(zip(CELL_COLUMNS, [gpa, *cells], strict=True))
        time = round(step * self._options.timestep, 9)
        return [
            {"step": step, "time_fs": time} | {k: float(v[i]) for k, v in values.items()}
            for i in range(len(state))
        ]
