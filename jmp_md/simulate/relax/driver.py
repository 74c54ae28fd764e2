"""Relaxation of any number of structures, in batches where a model computes them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TextIO, cast

import numpy as np

from jmp_md.errors import InputError, JMPError
from jmp_md.files import locked_file
from jmp_md.options import with_options
from jmp_md.simulate.forces import Batched, Forces, OneByOne, as_jmp, has_stress
from jmp_md.simulate.options import RelaxOptions
from jmp_md.simulate.relax.cell import check_fit
from jmp_md.simulate.relax.relaxation import InProgress, Relaxation, RelaxResult
from jmp_md.simulate.relax.trajectory import RelaxTrajectory
from jmp_md.validate import check_geometry

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import Calculator

_BATCH_SIZE = 256  # structures on their way at a time on a model
_FEW = 1  # of any other calculator, which keeps what it knows of a structure for the next step


class Record(Protocol):
    """What a run keeps of its relaxations, so that they go on after a kill."""

    def start(self, index: int, given: Atoms) -> InProgress | RelaxResult | None:
        """How far a structure has got before, or its end; None where it begins."""

    def see(self, moving: Sequence[Relaxation]) -> None:
        """Keep where structures are, once a step of all."""

    def end(self, index: int, result: RelaxResult) -> None:
        """Keep what became of a structure."""


@with_options(RelaxOptions)
def relax(
    atoms: Atoms,
    options: RelaxOptions | None = None,
    *,
    trajectory: str | Path | None = None,
    restart: bool = False,
    log: str | Path | None = None,
    progress: Callable[[int, float, float], None] | None = None,
    observer: Callable[[int, Atoms], None] | None = None,
    **changes: Any,
) -> RelaxResult:
    """Relax a structure with its ASE calculator; the given one is left as it is.

    Constraints hold. With ``relax_cell`` the cell moves along the logarithm of its deformation
    (ASE's ``FrechetCellFilter``), and its gradient, in eV/Å per atom, counts in ``fmax``. Atoms
    under ``FixAtoms`` then keep their places relative to the cell. Of a structure that is periodic
    in one or two directions, only strains within these relax.

    Forces that vanish by symmetry hold a structure at a saddle point as well as at a minimum;
    frequencies tell which it is.

    Args:
        atoms: Structure with a calculator, of any kind.
        options: See :class:`~jmp_md.simulate.options.RelaxOptions`; None for the defaults.
        trajectory: ASE trajectory of all steps.
        restart: Go on from the last step in ``trajectory``, where there is one, with an optimizer
            that has forgotten how it came there; ``steps`` counts from the start. The model, the
            structure and what relaxes must be those it was started with.
        log: Text file ASE's optimizer appends its log to.
        progress: Called with step, energy in eV and largest force in eV/Å, from step 0 on.
        observer: Called with step and the structure on its way, likewise; it has energy and
            forces.
        changes: Options by name, in place of those of ``options``.

    Raises:
        InputError: No calculator, no atoms, a cell without volume, or an option that does not
            exist or does not fit.
    """
    options = (options or RelaxOptions()).changed(changes)
    if atoms.calc is None:
        raise InputError("the structure has no calculator: set atoms.calc = JMPCalculator(...)")
    if restart and trajectory is None:
        raise InputError("restart goes on from a trajectory: give one (--trajectory)")
    _check(atoms, options)  # before a file is touched

    def see(now: Relaxation) -> None:
        if progress is not None:
            progress(now.steps, now.energy, now.fmax)
        if observer is not None:
            observer(now.steps, now.atoms)

    with ExitStack() as stack:
        record = None
        if trajectory is not None:
            stack.enter_context(locked_file(trajectory))
            record = RelaxTrajectory(trajectory, atoms.calc, options, restart)
        [end] = relax_batched(
            [atoms], atoms.calc, options, batch_size=1, record=record, log=log, observer=see
        )
    if end.error is not None:
        raise end.error
    end.atoms.calc = atoms.calc
    return end


@with_options(RelaxOptions)
def relax_batched(
    structures: Iterable[Atoms],
    calculator: Calculator,
    options: RelaxOptions | None = None,
    *,
    batch_size: int | None = None,
    on_error: str = "keep",
    record: Record | None = None,
    log: str | Path | None = None,
    progress: Callable[[int, RelaxResult], None] | None = None,
    observer: Callable[[Relaxation], None] | None = None,
    **changes: Any,
) -> list[RelaxResult]:
    """Relax structures together, each as :func:`relax` does, with an optimizer of its own.

    A JMP model computes them in one batch per step, any other calculator one after the other; what
    converges leaves and the next structure enters. One that cannot be computed is dropped, the
    others go on.

    Args:
        structures: Any number, of any sizes; they are left as they are, and taken one by one as
            there is room, so that a generator will do.
        calculator: ASE calculator; a JMP model best in float64, for tight ``fmax``.
        options: See :class:`~jmp_md.simulate.options.RelaxOptions`; None for the defaults.
        batch_size: Structures on their way at a time; None for 256 of a JMP model, and one after
            the other with any other calculator.
        on_error: What becomes of a structure that cannot be computed: ``"keep"`` gives an end with
            the error as its attribute ``error``, ``"raise"`` raises it.
        record: Where it is kept how far all are, such as
            :class:`~jmp_md.simulate.relax.state.RelaxState`; what that holds goes on.
        log: Text file ASE's optimizers append their logs to, each line with the index of its
            structure where several are on their way.
        progress: Called with the index and the end of each structure, also of those that ``record``
            holds.
        observer: Called after each step of each structure, from step 0 on.
        changes: Options by name, in place of those of ``options``.

    Returns:
        The end of each structure, in the order given.

    Raises:
        InputError: An option that does not exist or does not fit, a calculator without the stress
            that moves a cell, or a record of another run.
    """
    options = (options or RelaxOptions()).changed(changes)
    jmp = as_jmp(calculator)
    size = (_BATCH_SIZE if jmp is not None else _FEW) if batch_size is None else batch_size
    if size < 1:
        raise InputError(f"batch_size {batch_size!r}: must be 1 or more")
    if on_error not in ("keep", "raise"):
        raise InputError(f"on_error {on_error!r}: choose keep or raise")
    if options.relax_cell and not has_stress(calculator):
        raise InputError(
            f"{type(calculator).__name__} gives no stress, by which a cell relaxes: take another "
            "calculator (conservative forces of a JMP model), or leave out relax_cell "
            "(--relax-cell)"
        )
    optimizer = options.optimizer or ("BFGS" if size == 1 else "LBFGS")
    forces: Forces
    if jmp is not None and size > 1:
        forces = Batched(jmp, cells_move=options.relax_cell)
    else:
        forces = OneByOne(calculator, stress=options.relax_cell)
    with ExitStack() as stack:
        lines = None if log is None else stack.enter_context(_appended(log))
        batch = _Batch(forces, options, optimizer, record, lines, progress, observer)
        return batch.run(enumerate(structures), size, on_error == "raise")


class _Batch:
    """Structures on their way together."""

    def __init__(
        self,
        forces: Forces,
        options: RelaxOptions,
        optimizer: str,
        record: Record | None,
        log: TextIO | None,
        progress: Callable[[int, RelaxResult], None] | None,
        observer: Callable[[Relaxation], None] | None,
    ) -> None:
        self._forces, self._options, self._optimizer = forces, options, optimizer
        self._record, self._log = record, log
        self._progress, self._observer = progress, observer
        self._moving: list[Relaxation] = []  # in the order of forces
        self._ends: dict[int, RelaxResult] = {}

    def run(
        self, waiting: Iterator[tuple[int, Atoms]], size: int, raises: bool
    ) -> list[RelaxResult]:
        """All ends, in order of the structures."""
        self._size, self._raises = size, raises
        self._let_in(waiting)
        while self._moving:
            self._step()
            self._let_in(waiting)
        return [self._ends[index] for index in sorted(self._ends)]

    def _step(self) -> None:
        cells = np.array([each.atoms.cell.array for each in self._moving])
        computed = self._forces.compute(
            np.concatenate([each.atoms.positions for each in self._moving]), cells
        )
        starts = np.cumsum([len(each.atoms) for each in self._moving])[:-1]
        for k, (each, forces) in enumerate(
            zip(self._moving, np.split(computed.forces, starts), strict=True)
        ):
            each.see(computed.energy[k], forces, computed.stress[k], computed.errors.get(k))
        well = [each for each in self._moving if each.error is None]
        if self._record is not None:
            self._record.see(well)
        if self._observer is not None:
            for each in well:
                self._observer(each)
        stay = np.array([each.goes_on for each in self._moving])
        for each in self._moving:
            if each.goes_on:
                each.move()
            else:
                self._finish(each.index, each.end())
        if not stay.all():
            self._forces.keep(stay)
            self._moving = [each for each, k in zip(self._moving, stay, strict=True) if k]

    def _let_in(self, waiting: Iterator[tuple[int, Atoms]]) -> None:
        while len(self._moving) < self._size and (entry := next(waiting, None)) is not None:
            index, given = entry
            known = None if self._record is None else self._record.start(index, given)
            if isinstance(known, RelaxResult):
                self._end(index, known)
                continue
            try:
                _check(given, self._options)
                entering = self._relaxation(index, given, known)
                if (refused := self._forces.add(entering.atoms)) is not None:
                    raise refused
            except JMPError as error:
                self._finish(index, RelaxResult.failed(given, error))
            else:
                self._moving.append(entering)

    def _relaxation(self, index: int, given: Atoms, start: InProgress | None) -> Relaxation:
        log = self._log
        if log is not None and self._size > 1:
            log = cast("TextIO", _Numbered(log, index))
        return Relaxation(index, given, self._options, self._optimizer, start, log)

    def _finish(self, index: int, end: RelaxResult) -> None:
        if end.error is not None and self._raises:
            raise InputError(f"structure {index}: {end.error}") from end.error
        if self._record is not None:
            self._record.end(index, end)
        self._end(index, end)

    def _end(self, index: int, end: RelaxResult) -> None:
        self._ends[index] = end
        if self._progress is not None:
            self._progress(index, end)


class _Numbered:
    """Lines of one of several optimizers that write to one file."""

    def __init__(self, file: TextIO, index: int) -> None:
        self._file, self._index = file, index

    def write(self, text: str) -> None:
        """Write a line, with the index before it."""
        self._file.write(f"{self._index:6d} {text}")


def _appended(path: str | Path) -> TextIO:
    return Path(path).open("a", encoding="utf-8", buffering=1)


def _check(given: Atoms, options: RelaxOptions) -> None:
    """Refuse what cannot be relaxed, with any calculator."""
    check_geometry(given.positions, given.numbers, given.cell.array, given.pbc)
    check_fit(given, options)
