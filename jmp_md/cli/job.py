"""What commands that compute with one model share: what they are asked, the run, its end."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from jmp_md.cli.common import (
    add_model_arguments,
    add_run_arguments,
    calculators_for,
    finish,
    folder_options,
    read_structures,
    say_plan,
    stoppable,
)
from jmp_md.cli.options import add_options, options_from
from jmp_md.cli.progress import Progress
from jmp_md.options import Options

if TYPE_CHECKING:
    from ase import Atoms

    from jmp_md.calculators.ase import JMPCalculator

OptionsT = TypeVar("OptionsT", bound=Options)
ResultT = TypeVar("ResultT")
_MOST_STEPS = 500  # of the relaxation where there is no option for it


def add_arguments(parser: argparse.ArgumentParser, cls: type[Options], verb: str) -> None:
    """Add the structure, the model, the folder of the run and the options of the calculation.

    Args:
        parser: Parser of a command on one structure.
        cls: Class of its options.
        verb: Its name.
    """
    parser.add_argument("structure", type=Path, help="file of a structure; the last of several")
    add_model_arguments(parser, dtype="float64")
    add_run_arguments(parser, f"STEM-{verb} here")
    add_options(parser, cls)


@dataclass(frozen=True)
class Job(Generic[OptionsT]):
    """What a command is asked to do with a model.

    Attributes:
        structures: What it is done with.
        model: Name of the model.
        calculator: The model, one for all structures.
        output: Folder of the run.
        options: Of the calculation.
        args: The command line.
    """

    structures: Sequence[Atoms]
    model: str
    calculator: JMPCalculator
    output: Path
    options: OptionsT
    args: argparse.Namespace

    def plan(self) -> int:
        """Say what would be done; the exit code."""
        models = [(self.model, self.calculator)] * len(self.structures)
        say_plan(self.structures, models, self.output, self.options)
        return 0

    def done(
        self, run: Callable[..., ResultT], given: Any, line: Progress | None = None, **more: Any
    ) -> ResultT:
        """Do it.

        Args:
            run: One of :mod:`jmp_md.runs`.
            given: What it takes first.
            line: That shows how far it is.
            more: What it takes besides.
        """
        print(f"{self._subject()}, model {self.model}", flush=True)
        more |= folder_options(self.args)
        with stoppable(line, self.output) if "restart" in more else nullcontext():
            return run(given, self.calculator, self.output, self.options, **more)

    def done_relaxed(self, run: Callable[..., ResultT]) -> ResultT:
        """Do it with the only structure, which relaxes first.

        Args:
            run: One of :mod:`jmp_md.runs`.
        """
        line = Progress(getattr(self.options, "steps", _MOST_STEPS), what="relaxing: step")
        last: tuple[int, float] | None = None

        def relaxing(step: int, energy: float, fmax: float) -> None:
            nonlocal last
            last = step, fmax
            line.show(step, f"energy {energy:.6f} eV  fmax {fmax:.5f} eV/Å")

        def counted(done: int, count: int) -> None:
            line.close()
            print(f"  {done} of {count} structures", flush=True)

        result = self.done(run, self.structures[0], line, relaxing=relaxing, progress=counted)
        if last is not None:
            how = "relaxed" if last[1] <= self.options.model_dump()["fmax"] else "NOT relaxed"
            print(f"{how} in {last[0]} steps to fmax {last[1]:.5f} eV/Å")
        return result

    def end(self, doubts: Sequence[str] = ()) -> int:
        """Say what puts the results in doubt, and where they are; the exit code."""
        for text in doubts:
            print(f"in doubt: {text}")
        finish(self.args, self.output)
        return 2 if doubts else 0

    def _subject(self) -> str:
        formulas = {atoms.get_chemical_formula(mode="hill") for atoms in self.structures}
        count = f"{len(self.structures)} structures"
        if len(formulas) > 1:
            return count
        return formulas.pop() if len(self.structures) == 1 else f"{count} of {formulas.pop()}"


def job_of(
    args: argparse.Namespace, file: Path, structures: Sequence[Atoms], options: OptionsT
) -> Job[OptionsT]:
    """Load the one model for some structures.

    Args:
        args: With the options of models and runs.
        file: First of the structures' files, after which the folder is named.
        structures: What the command is for.
        options: Of the calculation.

    Raises:
        InputError: The model does not fit.
        ModelNotFoundError: No model was named and no shipped one covers the structures.
    """
    model, calculator = calculators_for(structures, args, one_model=True)[0]
    output = args.output or Path(f"{file.stem}-{args.command}")
    return Job(structures, model, calculator, output, options, args)


def single_job(
    args: argparse.Namespace, cls: type[OptionsT], check: Callable[[Atoms, OptionsT], None]
) -> Job[OptionsT]:
    """Read the structure and the options, and load the model.

    Args:
        args: With the arguments of :func:`add_arguments`.
        cls: Class of the options.
        check: Refuses what cannot be done, before a model is loaded.

    Raises:
        InputError: It does, or options or the structure do not fit.
        ModelNotFoundError: No model was named and no shipped one covers the structure.
    """
    options = options_from(args, cls)
    atoms = read_structures(args.structure)[-1]
    check(atoms, options)
    return job_of(args, args.structure, [atoms], options)
