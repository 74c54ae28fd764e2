"""Relaxation of many structures on one model: a batch per step instead of one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jmp_md.errors import InputError
from jmp_md.options import with_options
from jmp_md.simulate.forces import require_jmp
from jmp_md.simulate.identity import identity
from jmp_md.simulate.options import RelaxOptions
from jmp_md.simulate.precomputed import PrecomputedCalculator
from jmp_md.simulate.relax import RelaxResult, has_risen
from jmp_md.simulate.relax_state import InProgress, RelaxState
from jmp_md.structure_files import with_results
from jmp_md.systems import BatchedSystems

if TYPE_CHECKING:
    from ase import Atoms
    from ase.optimize.optimize import Optimizer

    from jmp_md.batch import Result
    from jmp_md.calculators.ase import JMPCalculator
    from jmp_md.systems import System

OPTIMIZERS = ("LBFGS", "FIRE")


@with_options(RelaxOptions)
def relax_batched(
    structures: Iterable[Atoms],
    calculator: JMPCalculator,
    options: RelaxOptions | None = None,
    *,
    batch_size: int = 256,
    output: str | Path | None = None,
    restart: bool = False,
    save_interval: int = 20,
    progress: Callable[[int, RelaxResult], None] | None = None,
    observer: Callable[[int, int, Atoms], None] | None = None,
    **changes: Any,
) -> list[RelaxResult]:
    """Relax structures together, each with an ASE optimizer of its own.

    The optimizers are ASE's and see forces of one batch; what converges leaves the batch and the
    next structure enters. One that cannot be computed is dropped, the others go on. Constraints
    hold; cells stay as they are.

    With ``output``, that folder holds what a run that was killed is continued from: what is done is
    not done again, others go on from where they were, with an optimizer that has forgotten how they
    came there. A structure that was stopped after fewer ``steps`` goes on, too.

    Args:
        structures: Any number, of any sizes; they are left as they are, and taken one by one as
            there is room, so that a generator will do.
        calculator: Model, with its graph and precision; float64 for tight ``fmax``.
        options: See :class:`~jmp_md.simulate.options.RelaxOptions`, without those of cells; None
            for the defaults.
        batch_size: Structures on their way at a time.
        output: Folder of the state, created if need be; None keeps none.
        restart: Continue the run in ``output``; one that has no state yet starts anew.
        save_interval: Steps of the batch between states.
        progress: Called with the index and the end of each structure that is done.
        observer: Called every ``save_interval`` steps of the batch, with the index, the steps so
            far and each structure on its way, which has its forces.
        changes: Options by name, in place of those of ``options``.

    Returns:
        The end of each structure, in the order given.

    Raises:
        InputError: An option that does not exist or does not fit, or a folder that holds another
            run.
    """
    calculator = require_jmp(calculator, "relax_batched needs")
    options = (options or RelaxOptions()).changed(changes)
    optimizer = options.optimizer or "LBFGS"
    if optimizer == "BFGS":
        raise InputError("optimizer 'BFGS': choose one of LBFGS, FIRE for a batch")
    if options.relax_cell or options.keep_symmetry:
        raise InputError(
            "relax_cell and keep_symmetry are not for a batch: relax structures one by one"
        )
    if batch_size < 1 or save_interval < 1:
        raise InputError(
            f"batch_size {batch_size!r}, save_interval {save_interval!r}: must be 1 or more"
        )
    systems = BatchedSystems(
        calculator.potential,
        direct=calculator.direct,
        oc_tags=calculator.oc_tags,
        skin=calculator.neighbours.skin,
    )
    with ExitStack() as stack:
        state = None
        if output is not None:
            about = identity(calculator, {"fmax": options.fmax, "optimizer": optimizer})
            state = stack.enter_context(RelaxState(output, about, options.steps, restart))
        batch = _Batch(systems, state, options, optimizer, progress, observer)
        return batch.run(enumerate(structures), batch_size, save_interval)


class _Batch:
    """Structures on their way together."""

    def __init__(
        self,
        systems: BatchedSystems,
        state: RelaxState | None,
        options: RelaxOptions,
        optimizer: str,
        progress: Callable[[int, RelaxResult], None] | None,
        observer: Callable[[int, int, Atoms], None] | None,
    ) -> None:
        self._systems, self._state = systems, state
        self._progress, self._observer = progress, observer
        self._options, self._optimizer = options, optimizer
        self._moving: dict[int, _Relaxation] = {}  # by key in systems
        self._done: dict[int, RelaxResult] = {}

    def run(
        self, waiting: Iterator[tuple[int, Atoms]], size: int, save_interval: int
    ) -> list[RelaxResult]:
        """All ends, in order of the structures."""
        try:
            self._let_in(waiting, size)
            count = 0
            while self._moving:
                count += 1
                self._step(observed=count % save_interval == 0)
                self._let_in(waiting, size)
                if count % save_interval == 0:
                    self._save()
        finally:  # an interrupt costs nothing
            self._save()
        return [self._done[index] for index in sorted(self._done)]

    def _step(self, observed: bool) -> None:
        results = self._systems.compute(on_error="keep")
        for relaxation, result in zip(self._moving.values(), results, strict=True):
            relaxation.see(result)
            if observed and self._observer is not None and relaxation.error is None:
                self._observer(relaxation.index, relaxation.steps, relaxation.atoms)
        for key, relaxation in list(self._moving.items()):
            due = relaxation.fmax > self._options.fmax and relaxation.steps < self._options.steps
            if relaxation.error is None and due:
                relaxation.move()
            else:
                self._systems.remove(key)
                del self._moving[key]
                self._finish(relaxation.index, relaxation.end(self._options.fmax))

    def _let_in(self, waiting: Iterator[tuple[int, Atoms]], size: int) -> None:
        while len(self._moving) < size and (entry := next(waiting, None)) is not None:
            index, given = entry
            if self._state is not None and (end := self._state.end(index, given)) is not None:
                self._done[index] = end
                continue
            start = InProgress(given) if self._state is None else self._state.start(index, given)
            try:
                key = self._systems.add(start.atoms)
            except InputError as error:
                reason = error.__cause__ if isinstance(error.__cause__, InputError) else error
                nothing = float("nan")
                failed = RelaxResult(given.copy(), False, 0, nothing, nothing, nothing, reason)
                self._finish(index, failed)
            else:
                self._moving[key] = _Relaxation(index, start, self._systems[key], self._optimizer)

    def _finish(self, index: int, end: RelaxResult) -> None:
        self._done[index] = end
        if self._state is not None:
            self._state.add(index, end)
        if self._progress is not None:
            self._progress(index, end)

    def _save(self) -> None:
        if self._state is not None:
            relaxations = self._moving.values()
            self._state.save(
                {w.index: InProgress(w.atoms, w.steps, w.initial) for w in relaxations}
            )


class _Relaxation:
    """A structure on its way, with its optimizer."""

    def __init__(self, index: int, start: InProgress, system: System, optimizer: str) -> None:
        import ase.optimize

        self.index = index
        self.system = system
        self.atoms, self.steps, self.initial = start.atoms.copy(), start.steps, start.initial
        self.atoms.calc = PrecomputedCalculator(system)
        self._optimizer: Optimizer = getattr(ase.optimize, optimizer)(self.atoms, logfile=None)
        self.error: InputError | None = None

    def see(self, result: Result) -> None:
        """Take energy and forces of where the structure is."""
        self.error = result.error
        self.atoms.calc.take(self.atoms, result)
        self.fmax = float(np.linalg.norm(self.atoms.get_forces(), axis=1).max())
        if self.initial is None:
            self.initial = result.energy

    def move(self) -> None:
        """Take a step."""
        self._optimizer.step()
        self.steps += 1
        self.system.positions = self.atoms.positions.copy()

    def end(self, fmax: float) -> RelaxResult:
        """What became of the structure."""
        results = self.atoms.calc.results
        energy = results["energy"]
        initial = energy if self.initial is None else self.initial
        known = {"energy": energy, "forces": results["forces"]} if self.error is None else {}
        return RelaxResult(
            with_results(self.atoms, known),
            self.fmax <= fmax and not has_risen(initial, energy),
            self.steps,
            energy,
            energy - initial,
            self.fmax,
            self.error,
        )
