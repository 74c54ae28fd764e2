"""``jmp-md relax``: relax the structures of files, one after another or together."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jmp_md.cli.common import (
    add_model_arguments,
    add_tags_argument,
    calculators_for,
    check_output,
    read_structures,
    watch_domain,
    write_structures,
)
from jmp_md.cli.config import add_config
from jmp_md.cli.options import add_options, options_from
from jmp_md.simulate.options import RelaxOptions
from jmp_md.structure_files import with_results

if TYPE_CHECKING:
    from ase import Atoms

    from jmp_md.calculators.ase import JMPCalculator
    from jmp_md.simulate.relax import RelaxResult
    from jmp_md.simulate.watch import DomainWatch

    Models = Sequence[tuple[str, JMPCalculator]]
    Ends = dict[int, RelaxResult]
    Watches = Mapping[str, DomainWatch]

NAME = "relax"
OPTIONS = RelaxOptions
_NOT_IN_A_BATCH = ("relax_cell", "cell_mask", "pressure", "keep_symmetry", "trajectory", "log")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("structures", nargs="+", type=Path, help="files of structures")
    add_model_arguments(parser, dtype="float64")
    add_tags_argument(parser)
    add_config(parser)
    parser.add_argument(
        "--batch-size",
        type=int,
        default=1,
        metavar="N",
        help="relax so many structures together on one model, faster (default: one after another)",
    )
    parser.add_argument(
        "--output", type=Path, help="result, any format of ASE (default: STEM-relaxed.extxyz here)"
    )
    parser.add_argument("--trajectory", type=Path, help="ASE trajectory of all steps, .traj")
    parser.add_argument(
        "--restart",
        action="store_true",
        help="continue a stopped run, from OUTPUT.state and --trajectory",
    )
    parser.add_argument("--log", type=Path, help="log of ASE's optimizer")
    add_options(parser, RelaxOptions)


def run(args: argparse.Namespace) -> int:
    """Execute the command."""
    from jmp_md.files import remove_if_empty
    from jmp_md.simulate.relax_state import remove_state

    started = time.monotonic()
    options = options_from(args, RelaxOptions)
    structures = [atoms for path in args.structures for atoms in read_structures(path)]
    output = _output(args)
    for path in args.structures:
        check_output(output, path, len(structures))
    _check_batch(args, options)
    models = calculators_for(structures, args)
    watches = watch_domain(structures, models)
    ends: Ends = {}
    try:
        if args.batch_size > 1:
            _in_batches(structures, models, watches, args, options, ends)
        else:
            _one_by_one(structures, models, watches, args, options, ends)
    except KeyboardInterrupt:
        print(f"stopped; the same command with --restart goes on, from {_state(args)}")
        raise
    finally:  # an error or an interrupt does not cost what is done
        good = [i for i in sorted(ends) if ends[i].error is None]
        if good:
            write_structures(output, [_written(i, ends[i]) for i in good])
            print(f"wrote {output}: {len(good)} of {len(structures)} structures{_gaps(good)}")
        remove_if_empty(_state(args))
    for name, watch in watches.items():
        watch.end([ends[i].atoms for i in good if models[i][0] == name])
    _summarise(output, structures, models, watches, args, options, ends, time.monotonic() - started)
    for model in dict(models):
        remove_state(_state(args) / Path(model).name)
    remove_if_empty(_state(args))
    left = any(watch.left for watch in watches.values())
    return 0 if all(end.converged for end in ends.values()) and not left else 2


def _written(index: int, end: RelaxResult) -> Atoms:
    """A structure of the result, which says which of those given it is."""
    return with_results(end.atoms, index=index, converged=end.converged, steps=end.steps)


def _gaps(good: Sequence[int]) -> str:
    """What to say where structures are missing in between."""
    return "" if list(good) == list(range(len(good))) else "; index in each says which it is"


def _check_batch(args: argparse.Namespace, options: RelaxOptions) -> None:
    from jmp_md.errors import InputError

    if args.batch_size < 1:
        raise InputError(f"batch-size {args.batch_size}: must be 1 or more")
    given = [f"--{name.replace('_', '-')}" for name in _NOT_IN_A_BATCH if getattr(args, name, None)]
    if args.batch_size > 1 and given:
        raise InputError(
            f"{', '.join(given)} cannot be had for structures that relax together: leave out "
            "--batch-size"
        )


def _one_by_one(
    structures: Sequence[Atoms],
    models: Models,
    watches: Watches,
    args: argparse.Namespace,
    options: RelaxOptions,
    ends: Ends,
) -> None:
    """Fill ``ends`` in order."""
    from jmp_md.simulate.identity import identity
    from jmp_md.simulate.relax_state import RelaxState, relax_resumable

    options = options.changed({"optimizer": options.optimizer or "BFGS"})
    settings = options.model_dump(exclude={"steps"})
    several = len(structures) > 1
    if options.keep_symmetry:
        print("note: the symmetry is kept at a saddle point, too; frequencies tell which it is")
    with ExitStack() as stack:
        states = {
            model: stack.enter_context(
                RelaxState(
                    _state(args) / Path(model).name,
                    identity(calculator, settings),
                    options.steps,
                    args.restart,
                )
            )
            for model, calculator in dict(models).items()
        }
        for i, (atoms, (model, calculator)) in enumerate(zip(structures, models, strict=True)):
            formula = atoms.get_chemical_formula(mode="hill")
            print(f"structure {i + 1} of {len(structures)}: {formula}, model {model}")
            atoms.calc = calculator
            ends[i] = relax_resumable(
                states[model],
                i,
                atoms,
                options,
                trajectory=_numbered(args.trajectory, i) if several else args.trajectory,
                restart=args.restart,
                log=_numbered(args.log, i) if several else args.log,
                progress=_print_step,
                observer=_observer(watches[model], i),
            )
            print(_line(ends[i]))


def _observer(watch: DomainWatch, index: int) -> Callable[[int, Atoms], None]:
    return lambda step, atoms: watch.see(atoms, f"step {step} of structure {index}")


def _in_batches(
    structures: Sequence[Atoms],
    models: Models,
    watches: Watches,
    args: argparse.Namespace,
    options: RelaxOptions,
    ends: Ends,
) -> None:
    """Fill ``ends`` as structures are done, those of each model in batches."""
    from jmp_md.simulate.relax_batched import relax_batched

    for model, calculator in dict(models).items():
        mine = [i for i, (name, _) in enumerate(models) if name == model]
        print(f"{len(mine)} structures, model {model}, {args.batch_size} at a time")

        def note(k: int, end: RelaxResult, mine: Sequence[int] = mine) -> None:
            ends[mine[k]] = end
            about = f"  dropped: {end.error}" if end.error is not None else _line(end)
            print(f"structure {mine[k] + 1} of {len(structures)}: {about.strip()}", flush=True)

        def observe(
            k: int,
            step: int,
            atoms: Atoms,
            watch: DomainWatch = watches[model],
            mine: Sequence[int] = mine,
        ) -> None:
            watch.see(atoms, f"step {step} of structure {mine[k]}")

        relaxed = relax_batched(
            [structures[i] for i in mine],
            calculator,
            options,
            batch_size=args.batch_size,
            output=_state(args) / Path(model).name,
            restart=args.restart,
            progress=note,
            observer=observe,
        )
        ends.update(zip(mine, relaxed, strict=True))  # also what was done before a restart


def _output(args: argparse.Namespace) -> Path:
    return args.output or Path(f"{args.structures[0].stem}-relaxed.extxyz")


def _state(args: argparse.Namespace) -> Path:
    """Folder of what is needed to continue; it is removed when all is done."""
    output = _output(args)
    return output.with_name(f"{output.name}.state")


def _summarise(
    output: Path,
    structures: Sequence[Atoms],
    models: Models,
    watches: Watches,
    args: argparse.Namespace,
    options: RelaxOptions,
    ends: Ends,
    seconds: float,
) -> None:
    """Write ``OUTPUT.summary.json``, beside the result."""
    from jmp_md.simulate.summary import describe, write_summary

    files = {name: getattr(args, name) for name in ("batch_size", "trajectory", "log", "restart")}
    rows: list[dict[str, Any]] = []
    for i, atoms in enumerate(structures):
        end = ends[i]
        rows.append(
            {
                "formula": atoms.get_chemical_formula(mode="hill"),
                "model": models[i][0],
                "converged": end.converged,
                "steps": end.steps,
                "energy_eV": end.energy,
                "fmax_eV_per_A": end.fmax,
                "error": end.error,
            }
        )
    write_summary(
        output.parent,
        NAME,
        model={name: describe(calculator) for name, calculator in dict(models).items()},
        settings=options.model_dump() | files,
        results={"structures": rows},
        seconds=seconds,
        domain={name: watch.record() for name, watch in watches.items()},
        name=f"{output.stem}.summary.json",
    )


def _print_step(step: int, energy: float, fmax: float) -> None:
    print(f"  step {step:4d}  energy {energy:16.6f} eV  fmax {fmax:10.5f} eV/Å", flush=True)


def _line(end: RelaxResult) -> str:
    how = "converged" if end.converged else "NOT converged"
    stress = "" if end.stress_left is None else f", stress left {end.stress_left:.4f} GPa"
    return (
        f"  {how} after {end.steps} steps: energy {end.energy:.6f} eV "
        f"({end.energy_change:+.6f} eV), fmax {end.fmax:.5f} eV/Å{stress}"
    )


def _numbered(path: Path | None, index: int) -> Path | None:
    """A file for each structure: relax.traj becomes relax-1.traj, relax-2.traj, ..."""
    return path and path.with_name(f"{path.stem}-{index + 1}{path.suffix}")
