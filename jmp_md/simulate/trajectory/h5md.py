"""Compressed HDF5 trajectories in the H5MD layout, which MDAnalysis and ASE users can read.

Layout: de Buyl, Colberg and Höfling, Comput. Phys. Commun. 185, 1546 (2014), version 1.1. Numbers
are single precision, but energies and times; units are those MDAnalysis knows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from ase import Atoms, units

from jmp_md._version import __version__
from jmp_md.errors import InputError
from jmp_md.files import atomic_write
from jmp_md.simulate.trajectory.patched_file import PatchedFile
from jmp_md.structure_files import attach_results

SUFFIX = ".h5"
_GROUP = "particles/trajectory"
_CHUNK = 2**14  # bytes that are compressed together, about
_FS = units.fs  # ASE's velocities are in Å per 10.18 fs
_FORCE = units.kJ / units.mol  # eV/Å in a kJ/mol/Å, the unit that MDAnalysis knows
_UNITS = {
    "position": "Angstrom",
    "velocity": "Angstrom fs-1",
    "force": "kJ mol-1 Angstrom-1",
    "box/edges": "Angstrom",
}
_ENERGY = "observables/potential_energy/value"


class H5Frames:
    """An HDF5 trajectory that only grows, safe against a kill at any moment.

    Args:
        path: File; created, or taken back to ``mark``.
        mark: Where to continue, from :meth:`mark`; None starts the file anew.

    Raises:
        InputError: The file holds less than when the mark was made.
    """

    def __init__(self, path: Path, mark: Mapping[str, Any] | None = None) -> None:
        self.path = path
        self._bytes = PatchedFile(path, mark)
        self._file = h5py.File(self._bytes, "w" if mark is None else "r+", libver="v110")
        self._waiting: list[Atoms] = []

    def write(self, atoms: Atoms) -> None:
        """Append a frame, with ``step`` and ``time_fs`` of its ``info`` and known results.

        Args:
            atoms: Structure that does not change any more; it is written with the next mark.
        """
        self._waiting.append(atoms)

    def write_end(self, atoms: Atoms) -> dict[str, Any]:
        """Append a frame that the mark returned takes back; all before has been committed."""
        self._append([atoms])
        self._file.flush()
        return self._bytes.mark_end()

    def mark(self) -> dict[str, Any]:
        """Where the file is now, to be saved with the state of the run; then :meth:`commit`."""
        if self._waiting:
            self._append(self._waiting)
            self._waiting = []
        self._file.flush()
        return self._bytes.mark()

    def commit(self) -> None:
        """Bring the file itself to the last mark, now that the mark is saved."""
        self._bytes.commit()

    def close(self) -> None:
        """Close the file as of the last commit."""
        self._file.close()
        self._bytes.close()

    def _append(self, frames: Sequence[Atoms]) -> None:
        if _GROUP not in self._file:
            self._create(frames[0])
        group = self._file[_GROUP]
        known = len(group["position/value"])
        infos = [{"step": known + i, "time_fs": known + i} | a.info for i, a in enumerate(frames)]
        columns: dict[str, list[Any]] = {
            "position/value": [atoms.positions for atoms in frames],
            "velocity/value": [atoms.get_velocities() * _FS for atoms in frames],
            "position/step": [info["step"] for info in infos],
            "position/time": [info["time_fs"] for info in infos],
        }
        if "force" in group:
            columns["force/value"] = [atoms.calc.results["forces"] / _FORCE for atoms in frames]
        if "edges" in group["box"]:
            columns["box/edges/value"] = [atoms.cell.array for atoms in frames]
        if _ENERGY in self._file:
            columns[_ENERGY] = [atoms.calc.results["energy"] for atoms in frames]
        for name, values in columns.items():
            dataset = self._file[name] if name == _ENERGY else group[name]
            dataset.resize(known + len(frames), axis=0)
            dataset[known:] = np.array(values)

    def _create(self, atoms: Atoms) -> None:
        file, n = self._file, len(atoms)
        about = file.create_group("h5md")
        about.attrs["version"] = np.array([1, 1])
        for role, name in (("author", "unknown"), ("creator", "jmp-md")):
            about.create_group(role).attrs["name"] = name
        about["creator"].attrs["version"] = __version__
        group = file.create_group(_GROUP)
        group["species"] = atoms.numbers.astype(np.int32)
        group["mass"] = atoms.get_masses()
        box = group.create_group("box")
        box.attrs["dimension"] = 3
        boundary = ["periodic" if periodic else "none" for periodic in atoms.pbc]
        box.attrs["boundary"] = np.array(boundary, dtype=h5py.string_dtype())
        results = atoms.calc.results if atoms.calc is not None else {}
        position = group.create_group("position")
        _grow(position, "step", (), np.int64)
        _grow(position, "time", (), np.float64).attrs["unit"] = "fs"
        grown = [("position", (n, 3)), ("velocity", (n, 3))]
        grown += [("force", (n, 3))] if "forces" in results else []
        grown += [("box/edges", (3, 3))] if atoms.pbc.any() else []
        for name, shape in grown:
            element = _grow(group.require_group(name), "value", shape, np.float32)
            element.attrs["unit"] = _UNITS[name]
            _same_times(group[name], position)
        if "energy" in results:
            energy = _grow(file, _ENERGY, (), np.float64)
            energy.attrs["unit"] = "eV"
            _same_times(energy.parent, position)


def read_h5md(path: str | Path, index: str | slice | Sequence[int] = ":") -> list[Atoms]:
    """Frames of an HDF5 trajectory, with velocities and the energies and forces that are in it.

    Args:
        path: File of :func:`write_h5md` or of a run.
        index: Slice of frames, e.g. ``"-100:"``, or numbers of frames in ascending order.

    Raises:
        InputError: The file is not such a trajectory.
    """
    try:
        chosen = _slice(index) if isinstance(index, str) else index
        with h5py.File(path, "r") as file:
            group = file[_GROUP]
            numbers, masses = group["species"][:], group["mass"][:]
            pbc = [kind == "periodic" for kind in group["box"].attrs["boundary"]]
            stored = {
                name: group[f"{name}/value"][chosen].astype(float)
                for name in _UNITS
                if name in group
            }
            steps, times = group["position/step"][chosen], group["position/time"][chosen]
            energies = file[_ENERGY][chosen] if _ENERGY in file else None
    except (OSError, KeyError, ValueError) as error:
        raise InputError(
            f"cannot read frames {index} of {path} as an H5MD trajectory of jmp-md: {error}"
        ) from error
    frames = []
    for i in range(len(steps)):
        cell = stored["box/edges"][i] if "box/edges" in stored else None
        atoms = Atoms(numbers, stored["position"][i], masses=masses, cell=cell, pbc=pbc)
        atoms.set_velocities(stored["velocity"][i] / _FS)
        atoms.info.update(step=int(steps[i]), time_fs=float(times[i]))
        results: dict[str, Any] = {} if energies is None else {"energy": float(energies[i])}
        if "force" in stored:
            results["forces"] = stored["force"][i] * _FORCE
        attach_results(atoms, results)
        frames.append(atoms)
    return frames


def write_h5md(path: str | Path, frames: Iterable[Atoms]) -> None:
    """Write a trajectory atomically.

    Args:
        path: File to replace, usually ``*.h5``.
        frames: Structures of the same atoms; ``step`` and ``time_fs`` come from their ``info``.
    """
    with atomic_write(path) as temporary:
        writer = H5Frames(temporary)
        for atoms in frames:
            writer.write(atoms)
        writer.mark()
        writer.commit()
        writer.close()


def _slice(text: str) -> slice:
    return slice(*(int(part) if part else None for part in text.split(":")))


def _grow(group: h5py.Group, name: str, shape: tuple[int, ...], dtype: Any) -> h5py.Dataset:
    """An empty dataset that grows by frames."""
    frame = int(np.prod(shape)) * np.dtype(dtype).itemsize
    chunk = (max(min(_CHUNK // frame, 1024), 1), *shape)
    return group.create_dataset(
        name,
        shape=(0, *shape),
        maxshape=(None, *shape),
        chunks=chunk,
        dtype=dtype,
        compression="gzip",
        shuffle=True,
    )


def _same_times(group: h5py.Group, position: h5py.Group) -> None:
    if group != position:
        for name in ("step", "time"):
            group[name] = position[name]  # a hard link
