"""The motion in a trajectory as arrays, with the faults of trajectories found before they count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from ase import units

from jmp_md.errors import InputError
from jmp_md.simulate.trajectory.formats import iterate_frames

if TYPE_CHECKING:
    from ase import Atoms

_MOST_BYTES = 4e9  # of positions and velocities
_WRAPPED = 1e-4  # share of a cell by which atoms that are folded into it may lie outside
_FARTHEST = 0.4  # of a cell in one interval; at a half, nothing tells which way an atom went
_UNEVEN = 1e-6  # share of the interval
_LEAST = 3  # frames


@dataclass(frozen=True)
class Series:
    """Frames that are evenly spaced in time.

    Attributes:
        template: The first structure.
        times: (n,) fs.
        positions: (n, n_atoms, 3) Å, which go on across the borders of a cell.
        velocities: The same in Å/fs; None without momenta.
        cells: (n, 3, 3) Å.
        energies: (n,) eV; None where they are not known.
    """

    template: Atoms
    times: np.ndarray
    positions: np.ndarray
    velocities: np.ndarray | None
    cells: np.ndarray
    energies: np.ndarray | None

    @property
    def interval(self) -> float:
        """fs between frames."""
        return float(self.times[-1] - self.times[0]) / (len(self.times) - 1)

    def frames(self, most: int) -> list[Atoms]:
        """At most so many structures, evenly spread."""
        chosen = np.unique(np.linspace(0, len(self.times) - 1, most).round().astype(int))
        found = []
        for i in chosen:
            atoms = self.template.copy()
            atoms.set_constraint()
            atoms.set_cell(self.cells[i])
            atoms.set_positions(self.positions[i])
            atoms.info["time_fs"] = float(self.times[i])
            if self.velocities is not None:
                atoms.set_velocities(self.velocities[i] / units.fs)
            found.append(atoms)
        return found


def read_series(
    path: str | Path, *, interval: float | None = None, start: float = 0.0, stride: int = 1
) -> Series:
    """Read a trajectory of any format ASE reads, or HDF5 of jmp-md.

    A run writes its last structure out of turn: a last frame that comes too early is left out.
    Where all atoms lie in the cell in every frame, those that cross a border are followed across
    it, by the nearest image in fractions of the cell.

    Args:
        path: The trajectory.
        interval: fs between its frames; None takes ``time_fs`` of their ``info``.
        start: fs to leave out at the start.
        stride: Take every so many frames.

    Raises:
        InputError: Frames whose times are not known or not evenly spaced, fewer than three of
            them, ones of different atoms, ones too far apart to follow an atom, or more than fit in
            4 GB.
    """
    frames = _Frames(path)
    for number, atoms in enumerate(iterate_frames(Path(path))):
        time = _time(atoms, number, interval, path)
        if number % stride == 0 and time >= start - 1e-9:
            frames.add(number, time, atoms, stride)
    times = _evenly(frames.times, path)
    count = len(times)
    cells, positions = np.array(frames.cells[:count]), np.array(frames.positions[:count])
    momenta, energies = frames.momenta[:count], frames.energies[:count]
    first = frames.first[0]
    scale = units.fs / first.get_masses()[:, None]
    return Series(
        first,
        times,
        _followed(positions, cells, first.pbc, path),
        None if any(each is None for each in momenta) else np.array(momenta) * scale,
        cells,
        None if None in energies else np.array(energies, dtype=float),
    )


class _Frames:
    """What is kept of frames, which take more memory as ASE has them."""

    def __init__(self, path: str | Path) -> None:
        self._path = path
        self.first: list[Atoms] = []
        self.times: list[float] = []
        self.positions: list[np.ndarray] = []
        self.momenta: list[np.ndarray | None] = []
        self.cells: list[np.ndarray] = []
        self.energies: list[float | None] = []

    def add(self, number: int, time: float, atoms: Atoms, stride: int) -> None:
        if not self.first:
            self.first.append(atoms.copy())
        if not np.array_equal(atoms.numbers, self.first[0].numbers):
            raise InputError(f"{self._path}, frame {number}: other atoms than in the first")
        if 48.0 * len(atoms) * (len(self.times) + 1) > _MOST_BYTES:
            raise InputError(
                f"{self._path}: frames take more than {_MOST_BYTES / 1e9:g} GB, take fewer of them "
                f"(--stride {2 * stride})"
            )
        self.times.append(time)
        self.positions.append(atoms.positions)
        self.momenta.append(atoms.get_momenta() if atoms.has("momenta") else None)
        self.cells.append(atoms.cell.array)
        known = {} if atoms.calc is None else atoms.calc.results
        self.energies.append(known.get("energy"))


def _time(atoms: Atoms, number: int, interval: float | None, path: str | Path) -> float:
    if interval is not None:
        return number * interval
    if "time_fs" not in atoms.info:
        raise InputError(
            f"{path}, frame {number}: has no time_fs in its info: give the time between frames, "
            "interval in fs (--interval)"
        )
    return float(atoms.info["time_fs"])


def _evenly(found: Sequence[float], path: str | Path) -> np.ndarray:
    """Times without a last one that comes too early."""
    times = np.array(found)
    steps = np.diff(times)
    if len(steps) > 1 and 0 < steps[-1] < steps[0] * (1 - _UNEVEN):
        times, steps = times[:-1], steps[:-1]
    if len(times) < _LEAST:
        raise InputError(
            f"{path}: {len(times)} frames, evenly spaced, from the start asked for; an analysis "
            f"needs {_LEAST} or more"
        )
    uneven = np.flatnonzero(abs(steps - steps[0]) > _UNEVEN * abs(steps[0]))
    if len(uneven) or not steps[0] > 0:
        place = int(uneven[0]) if len(uneven) else 0
        raise InputError(
            f"{path}: frames are not evenly spaced in time, {steps[0]:g} fs at first and "
            f"{steps[place]:g} fs before frame {place + 1}: correlations need even steps; take out "
            "frames, or give the time between them (--interval)"
        )
    return times


def _followed(
    positions: np.ndarray, cells: np.ndarray, pbc: np.ndarray, path: str | Path
) -> np.ndarray:
    """Positions across borders, where a program has folded them into the cell.

    Each step is the nearest image in the cell of its end (von Bülow, Bullerjahn and Hummer,
    J. Chem. Phys. 153, 021101 (2020): so that fluctuations of the cell do not add up).
    """
    if not pbc.any() or abs(np.linalg.det(cells[0])) < 1e-9:
        return positions
    inside = np.einsum("nai,nij->naj", positions, np.linalg.inv(cells))[..., pbc]
    if inside.min() < -_WRAPPED or inside.max() > 1 + _WRAPPED:
        return positions
    moves = np.diff(positions, axis=0)
    shares = np.einsum("nai,nij->naj", moves, np.linalg.inv(cells[1:]))
    shares[..., pbc] -= shares[..., pbc].round()
    if (farthest := float(np.abs(shares[..., pbc]).max())) > _FARTHEST:
        raise InputError(
            f"{path}: an atom moves by {farthest:.2f} of the cell between two frames: nothing "
            "tells which way it went across the border; write frames more often, or positions that "
            "are not folded into the cell"
        )
    steps = np.einsum("nai,nij->naj", shares, cells[1:])
    return positions[:1] + np.concatenate([np.zeros_like(steps[:1]), np.cumsum(steps, axis=0)])
