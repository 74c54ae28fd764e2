"""What the commands on structures share: files, and the choice of a model."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jmp_md.cli.config import add_config
from jmp_md.errors import InputError
from jmp_md.runs.options import FolderOptions, RestartOptions
from jmp_md.structure_files import read_structures, write_structures

if TYPE_CHECKING:
    from ase import Atoms

    from jmp_md.calculators.ase import JMPCalculator
    from jmp_md.cli.progress import Progress
    from jmp_md.options import Options

__all__ = [
    "add_loading_arguments",
    "add_model_arguments",
    "add_run_arguments",
    "add_words_arguments",
    "calculators_for",
    "finish",
    "folder_of",
    "folder_options",
    "load_calculator",
    "read_structures",
    "require_own",
    "say_plan",
    "stoppable",
    "write_structures",
    "written_format",
]

_MOST_NAMES = 12  # of files that a line lists
_ENDINGS = {".csv", ".json", ".extxyz", ".xyz", ".traj", ".cif", ".vasp", ".pdb", ".db", ".h5"}


def add_model_arguments(parser: argparse.ArgumentParser, dtype: str) -> None:
    """Add the options that choose a model and how it computes.

    Args:
        parser: Parser of a command.
        dtype: Default precision of the command.
    """
    parser.add_argument(
        "--model",
        default=os.environ.get("JMP_MD_MODEL"),
        help="name or file of a model (default: $JMP_MD_MODEL, or a shipped one that is made for "
        "the structure, where the command takes one by itself)",
    )
    parser.add_argument(
        "--force-model",
        action="store_true",
        help="use --model although it was made for another molecule",
    )
    add_loading_arguments(parser, dtype)


def add_loading_arguments(parser: argparse.ArgumentParser, dtype: str) -> None:
    """Add the options that say how a model computes.

    Args:
        parser: Parser of a command.
        dtype: Default precision of the command.
    """
    parser.add_argument("--head", help="task of a model with several, e.g. ani1x")
    parser.add_argument(
        "--device",
        default=os.environ.get("JMP_MD_DEVICE"),
        help="cpu or cuda (default: $JMP_MD_DEVICE, or cuda where there is one)",
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "float64"),
        default=dtype,
        help="precision (default: %(default)s)",
    )
    parser.add_argument(
        "--compile",
        action="store_true",
        help="compile the network: faster steps, after minutes once per kind of model and machine",
    )
    parser.add_argument(
        "--trust", action="store_true", help="load an exported file, which runs code that it holds"
    )
    parser.add_argument(
        "--tags",
        choices=("oc",),
        help="read OC20's tags from the file: 0 sub-surface, 1 surface, 2 adsorbate (default: all "
        "atoms get 2, right for molecules and bulk)",
    )


def add_run_arguments(
    parser: argparse.ArgumentParser, default: str, around: type[FolderOptions] = RestartOptions
) -> None:
    """Add the options of a run in a folder.

    Args:
        parser: Parser of a command.
        default: What its folder is by default.
        around: Class of what it does with the folder.
    """
    fields = around.model_fields
    parser.add_argument("--output", type=Path, help=f"folder of the run (default: {default})")
    for name in ("restart", "overwrite"):
        if name in fields:
            parser.add_argument(f"--{name}", action="store_true", help=fields[name].description)
    parser.add_argument(
        "--dry-run", action="store_true", help="check everything, say what would be done, and stop"
    )
    parser.add_argument(
        "--report",
        action=argparse.BooleanOptionalAction,
        default=True,
        help=f"{fields['report'].description} (default: yes)",
    )
    add_words_arguments(parser)
    add_config(parser)


def folder_options(args: argparse.Namespace) -> dict[str, Any]:
    """What a command line says of the folder of its run, for the functions of jmp_md.runs."""
    known = RestartOptions.model_fields
    return {name: value for name, value in vars(args).items() if name in known}


def add_words_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how much a command tells, and in which form."""
    parser.add_argument(
        "--quiet",
        action="store_true",
        help="say nothing but warnings, errors and what is asked for",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="write the summary of the run to standard output as JSON, all else to standard error",
    )


def folder_of(output: Path | None, formats: bool = True) -> Path | None:
    """The folder of a run, where ``--output`` does not name a file, as it once did.

    Args:
        output: What was given.
        formats: Whether there is an option for the format of the file in the folder.

    Raises:
        InputError: It does.
    """
    if output is not None and output.suffix.lower() in _ENDINGS and not output.is_dir():
        raise InputError(
            f"--output is a folder now, not the file {output.name}: give --output "
            f"{output.with_suffix('')}" + (f" --format {output.suffix[1:]}" if formats else "")
        )
    return output


def written_format(*known: str) -> Callable[[str], str]:
    """Type of ``--trajectory``, which once named a file.

    Args:
        known: Formats.
    """

    def read(text: str) -> str:
        if text.lower() not in known:
            raise argparse.ArgumentTypeError(
                f"{text!r} is none of the formats {', '.join(known)}; the file is "
                "trajectory.FORMAT in the folder of --output"
            )
        return text.lower()

    return read


def say_plan(
    structures: Sequence[Atoms],
    models: Sequence[tuple[str, JMPCalculator]],
    output: Path,
    options: Options,
) -> None:
    """Say what a run would do."""
    for atoms, (model, calculator) in zip(structures, models, strict=True):
        weight = calculator.potential.embedding.weight
        formula = atoms.get_chemical_formula(mode="hill")
        print(f"{formula}, {len(atoms)} atoms: model {model}, {weight.device}, {weight.dtype}")
    print("".join(f"  {name}: {value}\n" for name, value in options.model_dump().items()), end="")
    print(f"dry run: nothing was computed, {output} was not written")


@contextmanager
def stoppable(progress: Progress | None, output: Path) -> Iterator[None]:
    """Say how a run that is interrupted goes on, and end the line that shows how far it is."""
    try:
        yield
    except KeyboardInterrupt:
        if progress is not None:
            progress.close()
        print(f"stopped; continue with --restart --output {output}", flush=True)
        raise
    finally:
        if progress is not None:
            progress.close()


def finish(args: argparse.Namespace, folder: Path) -> None:
    """Say where the files of a run and its report are.

    Args:
        args: The command line, which is told of the summary for ``--json``.
        folder: Of the run.
    """
    from jmp_md.report.page import NAME as REPORT
    from jmp_md.simulate.summary import NAME as SUMMARY

    args.summary = (folder / SUMMARY).read_text(encoding="utf-8")
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    shown = names if len(names) <= _MOST_NAMES else [*names[: _MOST_NAMES - 1], "..."]
    print(f"wrote {folder}: {', '.join(shown)}")
    if REPORT in names:
        print(f"report: {folder / REPORT}")


def calculators_for(
    structures: Sequence[Atoms], args: argparse.Namespace, *, one_model: bool = False
) -> list[tuple[str, JMPCalculator]]:
    """The model that ``args`` or the bonds choose for each structure, loaded once each.

    Args:
        structures: What is to be computed.
        args: With the options of :func:`add_model_arguments`.
        one_model: Choose one model for all structures.

    Raises:
        InputError: The model named is of another molecule than a structure, and not forced.
        ModelNotFoundError: No model was named and no shipped one covers a structure.
    """
    from jmp_md.memory import keep_freed_memory
    from jmp_md.models.choice import choose

    if args.force_model and not args.model:
        raise InputError("--force-model needs the model that is meant: add --model NAME or FILE")
    keep_freed_memory()
    if args.model or one_model:
        names = [args.model or choose(*structures)] * len(structures)
    else:
        names = [choose(atoms) for atoms in structures]
    loaded = {name: load_calculator(name, args) for name in dict.fromkeys(names)}
    if not args.force_model:
        for name, calculator in loaded.items():
            own = {i: structures[i] for i, chosen in enumerate(names) if chosen == name}
            require_own(own, calculator)
    if args.compile:
        for name, calculator in loaded.items():
            _warm_up(name, calculator, structures[names.index(name)])
    return [(name, loaded[name]) for name in names]


def load_calculator(name: str, args: argparse.Namespace) -> JMPCalculator:
    """A model as the options of :func:`add_loading_arguments` ask for it.

    Args:
        name: Name or file of the model.
        args: The command line.
    """
    from jmp_md.calculators.ase import JMPCalculator

    return JMPCalculator(
        name,
        head=args.head,
        dtype=args.dtype,
        device=args.device,
        compile=args.compile,
        trust=args.trust,
        tags=args.tags,
    )


def require_own(structures: Mapping[int, Atoms], calculator: JMPCalculator) -> None:
    """Refuse structures that are another molecule than the only one of a model.

    Args:
        structures: By index, which the message has where there are several.
        calculator: The model.

    Raises:
        InputError: One is.
    """
    from jmp_md.domain import foreign

    for index, atoms in structures.items():
        if message := foreign(atoms, calculator.potential.header):
            which = f"structure {index}: " if len(structures) > 1 else ""
            raise InputError(f"{which}{message}; pass --force-model to compute all the same")


def _warm_up(name: str, calculator: JMPCalculator, atoms: Atoms) -> None:
    """Compile before the command starts, and say how long it took."""

    print(f"compiling {name} ...", end=" ", file=sys.stderr, flush=True)
    try:
        print(f"ready after {calculator.warmup(atoms):.1f} s", file=sys.stderr)
    except InputError:  # the command reports it
        print("failed", file=sys.stderr)
