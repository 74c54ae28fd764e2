"""Relaxation of many structures on one model: a batch per step instead of one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jmp_md.calculators.ase import JMPCalculator
from jmp_md.errors import InputError
from jmp_md.simulate.given import Given
from jmp_md.simulate.many_state import ManyState, Relaxed
from jmp_md.simulate.summary import describe
from jmp_md.systems import BatchedSystems

if TYPE_CHECKING:
    from ase import Atoms
    from ase.optimize.optimize import Optimizer

    from jmp_md.batch import Result
    from jmp_md.systems import System

__all__ = ["OPTIMIZERS", "Relaxed", "relax_many"]

OPTIMIZERS = ("LBFGS", "FIRE")


def relax_many(
    structures: Iterable[Atoms],
    calculator: JMPCalculator,
    *,
    fmax: float = 0.01,
    optimizer: str = "LBFGS",
    steps: int = 500,
    batch_size: int = 256,
    output: str | Path | None = None,
    restart: bool = False,
    save_interval: int = 20,
    progress: Callable[[int, Relaxed], None] | None = None,
) -> list[Relaxed]:
    """Relax structures together, each with an ASE optimizer of its own.

    The optimizers are ASE's and see forces of one batch; what converges leaves the batch and the
    next structure enters. One that cannot be computed is dropped, the others go on. Constraints
    hold; cells stay as they are.

    With ``output``, that folder gets ``state.npz``, from which a run that was killed continues:
    what is done is not done again, and others go on from where they were, with an optimizer that
    has forgotten how they came there.

    Args:
        structures: Any number, of any sizes; they are left as they are, and taken one by one as
            there is room, so that a generator will do.
        calculator: Model, with its graph and precision; float64 for tight ``fmax``.
        fmax: eV/Å, the largest force at which a structure is done.
        optimizer: ``"LBFGS"`` or ``"FIRE"``.
        steps: Most steps for each structure.
        batch_size: Structures on their way at a time.
        output: Folder of the state, created if need be; None keeps none.
        restart: Continue the run in ``output``; one that has no state yet starts anew.
        save_interval: Steps of the batch between states.
        progress: Called with the index and the end of each structure that is done.

    Returns:
        The end of each structure, in the order given.

    Raises:
        InputError: An option that does not exist or does not fit, or a folder that holds another
            run.
    """
    if not isinstance(calculator, JMPCalculator):
        raise InputError(
            f"relax_many needs a JMPCalculator, not {type(calculator).__name__}: use relax for "
            "each structure"
        )
    if optimizer not in OPTIMIZERS:
        raise InputError(f"optimizer {optimizer!r}: choose one of {', '.join(OPTIMIZERS)}")
    if not fmax > 0 or steps < 0 or batch_size < 1 or save_interval < 1:
        raise InputError(
            f"fmax {fmax!r} eV/Å, steps {steps!r}, batch_size {batch_size!r}, save_interval "
            f"{save_interval!r}: must be positive, 0 or more, 1 or more and 1 or more"
        )
    systems = BatchedSystems(
        calculator.potential,
        direct=calculator.direct,
        oc_tags=calculator.oc_tags,
        skin=calculator.neighbours.skin,
    )
    state = None
    if output is not None:
        settings = {"fmax": fmax, "optimizer": optimizer, "model": describe(calculator)}
        state = ManyState(output, settings, restart)
    waiting = enumerate(structures)
    moving: dict[int, _Walker] = {}  # by key in systems
    done: dict[int, Relaxed] = {}

    def finish(index: int, end: Relaxed) -> None:
        done[index] = end
        if progress is not None:
            progress(index, end)

    def let_in() -> None:
        while len(moving) < batch_size and (entry := next(waiting, None)) is not None:
            index, given = entry
            if state is not None and (end := state.end(index, given)) is not None:
                done[index] = end
                continue
            atoms, count = (given, 0) if state is None else state.start(index, given)
            try:
                key = systems.add(atoms)
            except InputError as error:
                reason = error.__cause__ if isinstance(error.__cause__, InputError) else error
                nothing = float("nan")
                finish(index, Relaxed(given.copy(), False, 0, nothing, nothing, reason))
            else:
                moving[key] = _Walker(index, atoms, systems[key], optimizer, count)

    def save() -> None:
        if state is not None:
            state.save({w.index: (w.atoms, w.steps) for w in moving.values()}, done)

    let_in()
    batches = 0
    while moving:
        for walker, result in zip(moving.values(), systems.compute(on_error="keep"), strict=True):
            walker.see(result)
        for key, walker in list(moving.items()):
            if walker.error is None and walker.fmax > fmax and walker.steps < steps:
                walker.move()
            else:
                systems.remove(key)
                del moving[key]
                finish(walker.index, walker.end(fmax))
        let_in()
        batches += 1
        if batches % save_interval == 0:
            save()
    save()
    return [done[index] for index in sorted(done)]


class _Walker:
    """A structure on its way, with its optimizer."""

    def __init__(
        self, index: int, given: Atoms, system: System, optimizer: str, steps: int
    ) -> None:
        import ase.optimize

        self.index = index
        self.system = system
        self.atoms = given.copy()
        self.atoms.calc = Given(system)
        self._optimizer: Optimizer = getattr(ase.optimize, optimizer)(self.atoms, logfile=None)
        self.steps = steps
        self.error: InputError | None = None

    def see(self, result: Result) -> None:
        """Take energy and forces of where the structure is."""
        self.error = result.error
        self.atoms.calc.take(self.atoms, result)
        self.fmax = float(np.linalg.norm(self.atoms.get_forces(), axis=1).max())

    def move(self) -> None:
        """Take a step."""
        self._optimizer.step()
        self.steps += 1
        self.system.positions = self.atoms.positions.copy()

    def end(self, fmax: float) -> Relaxed:
        """What became of the structure."""
        from ase.calculators.singlepoint import SinglePointCalculator

        atoms = self.atoms.copy()
        results = self.atoms.calc.results
        if self.error is None:
            known = {"energy": results["energy"], "forces": results["forces"]}
            atoms.calc = SinglePointCalculator(atoms, **known)
        converged = self.fmax <= fmax
        return Relaxed(atoms, converged, self.steps, results["energy"], self.fmax, self.error)
