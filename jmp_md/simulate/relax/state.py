"""The saved state of relaxations: what is done, and how far the others are.

The folder holds ``state.npz``, with the identity of the run and the structures that are on their
way, and ``done.jsonl``, a line for each that is done. Lines are only ever added, so that the cost
of keeping results does not grow with their number.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from jmp_md.errors import InputError
from jmp_md.files import LOCK, locked, remove_if_empty
from jmp_md.simulate.identity import identify_structure, identity, require_same
from jmp_md.simulate.relax.relaxation import InProgress, Relaxation, RelaxResult
from jmp_md.simulate.relax.trajectory import RelaxTrajectory
from jmp_md.simulate.state import NAME, load_state, save_state
from jmp_md.simulate.trajectory.append_only import TextFile
from jmp_md.structure_files import attach_results

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import Calculator

    from jmp_md.simulate.options import RelaxOptions

DONE = "done.jsonl"
_FACTS = ("converged", "steps", "energy", "energy_change", "fmax", "stress_left")
_SAVE_INTERVAL = 10  # steps; each takes much longer than writing where structures are


class RelaxState:
    """State of a run in a folder that no other process writes to, from ``with`` to its end.

    What is done is not done again, others go on from where they were; so does a structure that was
    stopped after fewer steps than there may be now.

    Args:
        folder: Where it is saved; created if need be.
        calculator: What computes.
        options: Of the relaxations. All but ``steps`` make the run the one it is.
        restart: Take up what is there.
        trajectory: File of the steps of a structure, by its index; there they are kept, and the
            file says where a structure was left, which may be further than the state.

    Raises:
        InputError: The folder holds a run that is not to be continued, or another one, or another
            process writes to it.
    """

    def __init__(
        self,
        folder: str | Path,
        calculator: Calculator,
        options: RelaxOptions,
        restart: bool,
        trajectory: Callable[[int], Path] | None = None,
    ) -> None:
        self._folder, self._options, self._restart = Path(folder), options, restart
        self._identity = identity(calculator, options.model_dump(exclude={"steps"}))
        self._calculator, self._trajectory = calculator, trajectory
        self._given: dict[int, dict[str, Any]] = {}  # identities of structures that were given
        self._trajectories: dict[int, RelaxTrajectory] = {}
        self._now: dict[int, Relaxation] = {}
        self._seen = 0
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
        with self._open:
            self._save()  # an interrupt costs nothing
            self._file.close()
            if not self._moving and not (self._folder / DONE).stat().st_size:
                _remove(self._folder)  # nothing to continue

    def start(self, index: int, given: Atoms) -> InProgress | RelaxResult | None:
        """How far a structure has got, or its end where nothing is left to do for it.

        Raises:
            InputError: It is not the structure that was saved.
        """
        self._given[index] = identify_structure(given)
        done, moving = self._done.get(index), self._moving.get(index)
        saved = moving or done
        if saved is not None:
            where = f"{self._folder} (structure {index})"
            require_same(saved["structure"], self._given[index], where)
        if done is not None and not self._may_go_on(done):
            self._forget(index)
            return _result(self._done.pop(index), given)
        left = None
        if saved is not None:
            left = InProgress(*_places(saved), saved["steps"], saved["initial"])
        if self._trajectory is None:
            return left
        path = self._trajectory(index)
        file = RelaxTrajectory(path, self._calculator, self._options, self._restart)
        self._trajectories[index] = file
        return file.start(index, given, left)

    def see(self, moving: Sequence[Relaxation]) -> None:
        """Keep where structures are; on the disk once in some steps."""
        for each in moving:
            self._now[each.index] = each
            if (file := self._trajectories.get(each.index)) is not None:
                file.see([each])
        self._seen += 1
        if self._seen % _SAVE_INTERVAL == 0:
            self._save()

    def end(self, index: int, result: RelaxResult) -> None:
        """Keep what became of a structure that was given to :meth:`start`."""
        results = {} if result.atoms.calc is None else result.atoms.calc.results
        atoms, initial = result.atoms, result.energy - result.energy_change
        reached = InProgress(atoms.positions, atoms.cell.array, result.steps, initial)
        record = self._entry(index, reached) | {
            "index": index,
            "results": {name: np.asarray(value).tolist() for name, value in results.items()},
            "error": None if result.error is None else str(result.error),
        }
        record |= {name: getattr(result, name) for name in _FACTS}
        self._file.write(json.dumps(record) + "\n")
        del self._given[index]
        self._forget(index)

    def _entry(self, index: int, reached: InProgress) -> dict[str, Any]:
        """What is kept of how far a structure has got."""
        positions, cell = reached.positions.tolist(), reached.cell.tolist()
        known = reached._replace(positions=positions, cell=cell)._asdict()
        return {"structure": self._given[index], **known}

    def _forget(self, index: int) -> None:
        """What is done is not on its way."""
        self._now.pop(index, None)
        self._trajectories.pop(index, None)
        self._moving.pop(index, None)

    def _save(self) -> None:
        """Replace what is known of structures on their way; all before is then on the disk."""
        self._file.mark()
        self._moving |= {i: self._entry(i, each.progress) for i, each in self._now.items()}
        save_state(self._folder, {}, {"identity": self._identity, "moving": self._moving})

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
        # Where structures were when the state was saved, also of those not taken up yet.
        self._moving: dict[int, dict[str, Any]] = {}
        if saved is None:
            if path.stat().st_size:
                raise InputError(f"{path} is of no run of this kind: choose another output")
            save_state(self._folder, {}, {"identity": self._identity, "moving": {}})
            return
        facts = saved[1]
        if "identity" not in facts:
            raise InputError(
                f"{self._folder} holds a run of another kind or of an older version: choose "
                "another output"
            )
        require_same(facts["identity"], self._identity, self._folder)
        self._moving = {int(i): entry for i, entry in facts["moving"].items()}

    def _may_go_on(self, record: Mapping[str, Any]) -> bool:
        stopped = record["error"] is None and record["fmax"] > self._options.fmax
        return bool(stopped and record["steps"] < self._options.steps)


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
    atoms, (positions, cell) = given.copy(), _places(record)
    atoms.set_cell(cell, apply_constraint=False)
    atoms.set_positions(positions, apply_constraint=False)
    known = {
        name: value if isinstance(value, float) else np.array(value)
        for name, value in record["results"].items()
    }
    error = None if record["error"] is None else InputError(record["error"])
    facts = {name: record[name] for name in _FACTS}
    return RelaxResult(attach_results(atoms, known), error=error, **facts)


def _places(record: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Positions and cell."""
    return np.array(record["positions"]).reshape(-1, 3), np.array(record["cell"])
