"""The saved state of relaxations: what is done, and how far the others are.

The folder holds ``state.npz``, with the identity of the run and the structures that are on their
way, and ``done.jsonl``, a line for each that is done. Lines are only ever added, so that the cost
of keeping results does not grow with their number.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jmp_md.errors import InputError
from jmp_md.files import LOCK, locked, remove_if_empty
from jmp_md.simulate.identity import identify_structure, require_same
from jmp_md.simulate.options import RelaxOptions
from jmp_md.simulate.relax import RelaxResult, relax
from jmp_md.simulate.state import NAME, load_state, save_state
from jmp_md.simulate.trajectory.append_only import TextFile
from jmp_md.structure_files import with_results

if TYPE_CHECKING:
    from ase import Atoms

DONE = "done.jsonl"
_SAVE_INTERVAL = 10  # steps; each takes much longer than writing where a structure is


class InProgress(NamedTuple):
    """A structure on its way.

    Attributes:
        atoms: Where it is.
        steps: Optimizer steps it has taken.
        initial: eV, energy of the structure given; None where it is not known yet.
    """

    atoms: Atoms
    steps: int = 0
    initial: float | None = None


class RelaxState:
    """State of a run in a folder that no other process writes to, from ``with`` to its end.

    Args:
        folder: Where it is saved; created if need be.
        identity: Of the run, from :func:`jmp_md.simulate.identity.identity`.
        steps: Most steps for each structure; those that were stopped before go on.
        restart: Take up what is there.

    Raises:
        InputError: The folder holds a run that is not to be continued, or another one, or another
            process writes to it.
    """

    def __init__(
        self, folder: str | Path, identity: Mapping[str, Any], steps: int, restart: bool
    ) -> None:
        self._folder, self._identity = Path(folder), dict(identity)
        self._steps, self._restart = steps, restart
        self._given: dict[int, dict[str, Any]] = {}  # identities of structures that were given
        self._open = ExitStack()

    def __enter__(self) -> RelaxState:
        with ExitStack() as stack:
            stack.enter_context(locked(self._folder))
            self._take_up()
            self._file = TextFile(self._folder / DONE, {"size": self._length})
            stack.callback(self._file.close)
            self._open = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        if self._empty and not (self._folder / DONE).stat().st_size:
            _remove(self._folder)  # nothing to continue
        self._open.close()

    def end(self, index: int, given: Atoms) -> RelaxResult | None:
        """What became of a structure, where nothing is left to do for it.

        Raises:
            InputError: It is not the structure that was saved.
        """
        self._check(index, given)
        record = self._done.get(index)
        if record is None or self._is_open(record):
            return None
        return _result(self._done.pop(index), given)

    def start(self, index: int, given: Atoms) -> InProgress:
        """Where to go on with a structure.

        Raises:
            InputError: It is not the structure that was saved.
        """
        self._check(index, given)
        record = self._done.pop(index, None)
        if (entry := self._moving.pop(index, None)) is not None:
            positions, cell = (self._arrays.pop(f"{index}/{of}") for of in ("positions", "cell"))
            return InProgress(_placed(given, positions, cell), entry["steps"], entry["initial"])
        if record is not None:
            end = _result(record, given)
            return InProgress(end.atoms, end.steps, end.energy - end.energy_change)
        return InProgress(given)

    def add(self, index: int, end: RelaxResult) -> None:
        """Keep what became of a structure that was given to :meth:`end` or :meth:`start`."""
        results = {} if end.atoms.calc is None else end.atoms.calc.results
        record = {
            "index": index,
            "structure": self._given.pop(index),
            "positions": end.atoms.positions.tolist(),
            "cell": end.atoms.cell.array.tolist(),
            "results": {name: np.asarray(value).tolist() for name, value in results.items()},
            "converged": end.converged,
            "steps": end.steps,
            "energy": end.energy,
            "energy_change": end.energy_change,
            "fmax": end.fmax,
            "stress_left": end.stress_left,
            "error": None if end.error is None else str(end.error),
        }
        self._file.write(json.dumps(record) + "\n")

    def save(self, moving: Mapping[int, InProgress]) -> None:
        """Replace what is known of structures on their way; all before is then on the disk."""
        self._file.mark()
        arrays, entries = dict(self._arrays), dict(self._moving)  # those not taken up yet stay
        for index, each in moving.items():
            arrays[f"{index}/positions"] = each.atoms.positions
            arrays[f"{index}/cell"] = each.atoms.cell.array
            entries[index] = {
                "steps": each.steps,
                "initial": each.initial,
                "structure": self._given[index],
            }
        self._write(arrays, entries)

    def _take_up(self) -> None:
        saved = load_state(self._folder)
        if saved is not None and not self._restart:
            raise InputError(
                f"{self._folder} holds a run: continue it with restart (--restart), choose "
                "another output, or delete that folder"
            )
        path = self._folder / DONE
        if not path.exists():
            path.touch()
        self._done, self._length = _read_lines(path) if saved else ({}, 0)
        self._arrays: dict[str, np.ndarray] = {}
        self._moving: dict[int, dict[str, Any]] = {}
        if saved is None:
            if path.stat().st_size:
                raise InputError(f"{path} is of no run of this kind: choose another output")
            self._write({}, {})
            return
        self._arrays, facts = saved
        if "identity" not in facts:
            raise InputError(
                f"{self._folder} holds a run of another kind or of an older version: choose "
                "another output"
            )
        require_same(facts["identity"], self._identity, self._folder)
        self._moving = {int(i): entry for i, entry in facts["moving"].items()}
        self._empty = not self._moving

    def _write(
        self, arrays: Mapping[str, np.ndarray], moving: Mapping[int, Mapping[str, Any]]
    ) -> None:
        save_state(self._folder, arrays, {"identity": self._identity, "moving": moving})
        self._empty = not moving

    def _check(self, index: int, given: Atoms) -> None:
        self._given[index] = identify_structure(given)
        saved = self._done.get(index) or self._moving.get(index)
        if saved is not None:
            require_same(
                saved["structure"], self._given[index], f"{self._folder} (structure {index})"
            )

    def _is_open(self, record: Mapping[str, Any]) -> bool:
        stopped = not record["converged"] and record["error"] is None
        return stopped and record["steps"] < self._steps


def relax_resumable(
    state: RelaxState,
    index: int,
    given: Atoms,
    options: RelaxOptions,
    *,
    trajectory: Path | None = None,
    restart: bool = False,
    progress: Callable[[int, float, float], None] | None = None,
    observer: Callable[[int, Atoms], None] | None = None,
    **files: Any,
) -> RelaxResult:
    """Relax a structure from where it was left, and keep where it gets to.

    Args:
        state: State of the run.
        index: Of the structure in it.
        given: The structure, with its calculator.
        options: See :class:`~jmp_md.simulate.options.RelaxOptions`; steps count from its start.
        trajectory: Where there is one, it and not the state says where the structure was left.
        restart: Continue ``trajectory``.
        progress, observer: As for :func:`relax`.
        files: Others of :func:`relax`.

    Returns:
        Its end, with energy, forces and, where it was computed, stress, but no calculator.
    """
    if (end := state.end(index, given)) is not None:
        return end
    start = state.start(index, given) if trajectory is None else InProgress(given)
    now = start

    def see(step: int, atoms: Atoms) -> None:
        nonlocal now
        initial = now.initial
        if initial is None:
            initial = float(atoms.get_potential_energy(apply_constraint=False))
        now = InProgress(atoms, start.steps + step, initial)
        if step and step % _SAVE_INTERVAL == 0:
            state.save({index: now})
        if observer is not None:
            observer(now.steps, atoms)

    def shifted(step: int, energy: float, largest: float) -> None:
        if progress is not None:
            progress(start.steps + step, energy, largest)

    atoms = start.atoms.copy()
    atoms.calc = given.calc
    try:
        found = relax(
            atoms,
            options.changed({"steps": max(options.steps - start.steps, 0)}),
            trajectory=trajectory,
            restart=restart and trajectory is not None,
            progress=shifted,
            observer=see,
            **files,
        )
    except (KeyboardInterrupt, OSError):
        state.save({index: now})
        raise
    initial = found.energy - found.energy_change if start.initial is None else start.initial
    result = replace(
        found,
        atoms=with_results(found.atoms),
        steps=start.steps + found.steps,
        energy_change=found.energy - initial,
    )
    state.add(index, result)
    return result


def remove_state(folder: Path) -> None:
    """Remove what a run has saved, once it is not needed any more; other files stay.

    Raises:
        InputError: Another process writes there.
    """
    if folder.exists():
        with locked(folder):
            _remove(folder)


def _remove(folder: Path) -> None:
    for name in (NAME, DONE, LOCK):
        (folder / name).unlink(missing_ok=True)
    remove_if_empty(folder)


def _read_lines(path: Path) -> tuple[dict[int, dict[str, Any]], int]:
    """Records by index, the last of each, and the length of the whole lines in the file."""
    records = {}
    length = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                break  # cut short by a kill
            try:
                record = json.loads(line)
                records[int(record["index"])] = record
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(
                    f"cannot read line {number} of {path}: {error}; start the run again with "
                    "another output"
                ) from error
            length += len(line)
    return records, length


def _result(record: Mapping[str, Any], given: Atoms) -> RelaxResult:
    atoms = _placed(given, np.array(record["positions"]), np.array(record["cell"]))
    known = {
        name: value if isinstance(value, float) else np.array(value)
        for name, value in record["results"].items()
    }
    error = None if record["error"] is None else InputError(record["error"])
    names = ("converged", "steps", "energy", "energy_change", "fmax", "stress_left")
    facts = {name: record[name] for name in names}
    return RelaxResult(with_results(atoms, known), error=error, **facts)


def _placed(given: Atoms, positions: np.ndarray, cell: np.ndarray) -> Atoms:
    atoms = given.copy()
    atoms.set_cell(cell, apply_constraint=False)
    atoms.set_positions(positions.reshape(-1, 3), apply_constraint=False)
    return atoms
