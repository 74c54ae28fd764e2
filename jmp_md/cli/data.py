"""``jmp-md data``: look at data sets, prepare them for training, fit reference energies."""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jmp_md.training.data.frame import Dataset

PARTS = ("train", "validation", "test")


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the three commands and their options."""
    commands = parser.add_subparsers(metavar="ACTION", required=True)
    inspect = commands.add_parser("inspect", help="what a data set holds and what looks wrong")
    inspect.set_defaults(action=_inspect)
    prepare = commands.add_parser(
        "prepare", help="write the format training reads; run again to continue"
    )
    prepare.add_argument("--output", required=True, help="folder to write")
    prepare.add_argument("--processes", type=int, default=1, help="processes (default: 1)")
    prepare.add_argument("--shard-size", type=int, help="frames per file (default: 100000)")
    prepare.add_argument("--max-force", type=float, help="leave out frames above this, eV/Å")
    prepare.add_argument("--double", action="store_true", help="keep double precision")
    prepare.add_argument(
        "--part", choices=PARTS, help="write this part of a split that keeps systems together"
    )
    prepare.add_argument(
        "--shares",
        default="0.9,0.05,0.05",
        metavar="A,B,C",
        help="of train, validation and test in such a split (default: %(default)s)",
    )
    prepare.set_defaults(action=_prepare)
    reference = commands.add_parser(
        "reference", help="energy of each element by least squares, and the scales of the labels"
    )
    reference.set_defaults(action=_reference)
    for command in (inspect, prepare, reference):
        command.add_argument("files", nargs="+", metavar="FILE", help="files or folders, as one")
        command.add_argument("--sample", type=int, metavar="N", help="take N frames at random")
        command.add_argument(
            "--seed", type=int, default=42, help="of such choices (default: %(default)s)"
        )
        add_format_arguments(command)
    for command in (inspect, reference):
        command.add_argument("--json", metavar="FILE", help="also write the result as JSON")


def add_format_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what the files are."""
    parser.add_argument("--format", help="format of the data, where it is not recognised")
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="option of the format, e.g. subset=dipeptides for SPICE",
    )


def run(args: argparse.Namespace) -> int:
    """Run the chosen command."""
    status: int = args.action(args)
    return status


def _inspect(args: argparse.Namespace) -> int:
    from jmp_md.training.data.statistics import inspect

    found = inspect(_sample(open_data(args.files, args), args))
    _save(args.json, found)
    for name, value in found.items():
        print(f"{name + ':':18}{_words(value)}")
    print(f"{'next:':18}{_next_command(args)}")
    return 0


def _next_command(args: argparse.Namespace) -> str:
    """What is usually done with data that were looked at."""
    from jmp_md.training.data.prepared import INDEX_FILE

    words = [shlex.quote(file) for file in args.files]
    if len(words) == 1 and (Path(args.files[0]) / INDEX_FILE).is_file():
        folder = shlex.quote(str(Path(args.files[0]).resolve().parent))
        return f"jmp-md train RECIPE --data {folder}"
    words += [word for option in args.option for word in ("--option", shlex.quote(option))]
    words += ["--format", args.format] if args.format else []
    return f"jmp-md data prepare {' '.join(words)} --output FOLDER"


def _prepare(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from jmp_md.errors import InputError
    from jmp_md.training.data.hashing import sha256_of
    from jmp_md.training.data.prepared import SHARD_SIZE, prepare

    for name in ("processes", "shard_size"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise InputError(f"--{name.replace('_', '-')} {value}: must be at least 1")
    dataset, reading = open_data(args.files, args), {}
    if args.format or args.option:
        reading = {"format": args.format, "options": args.option}
    if args.part:
        dataset = _part(dataset, args)
        reading |= {"part": args.part, "shares": args.shares, "seed": args.seed}
    if args.sample is not None:
        dataset = _sample(dataset, args)
        reading |= {"sample": args.sample, "seed": args.seed}
    with tqdm(total=len(dataset), unit=" frames") as bar:
        prepared = prepare(
            dataset,
            args.output,
            source={str(file): sha256_of(file) for file in args.files},
            reading=reading,
            shard_size=args.shard_size or SHARD_SIZE,
            processes=args.processes,
            max_force=args.max_force,
            double=args.double,
            progress=bar.update,
        )
    print(f"{args.output}: {len(prepared)} of {len(dataset)} frames")
    return 0


def _part(dataset: Dataset, args: argparse.Namespace) -> Dataset:
    """The frames of one part of a split by system."""
    from jmp_md.errors import InputError
    from jmp_md.training.data.frame import Subset
    from jmp_md.training.data.splits import split_by_system

    try:
        shares = [float(word) for word in args.shares.split(",")]
    except ValueError as error:
        raise InputError(f"--shares {args.shares}: write three numbers as 0.9,0.05,0.05") from error
    split = split_by_system(dataset, shares, args.seed)
    return Subset(dataset, (split.train, split.val, split.test)[PARTS.index(args.part)])


def _sample(dataset: Dataset, args: argparse.Namespace) -> Dataset:
    """As many frames as were asked for, in their order."""
    from jmp_md.errors import InputError
    from jmp_md.training.data.frame import sampled

    if args.sample is None:
        return dataset
    if not 1 <= args.sample <= len(dataset):
        raise InputError(f"--sample {args.sample}: there are {len(dataset)} frames")
    return sampled(dataset, args.sample, args.seed)


def _reference(args: argparse.Namespace) -> int:
    from ase.data import chemical_symbols

    from jmp_md.training.summary import summarised

    summary = summarised(_sample(open_data(args.files, args), args))
    references = summary.references()
    energy_std = summary.energy_std(references)
    by_symbol = {chemical_symbols[z]: energy for z, energy in references.items()}
    result = {
        "references": by_symbol,
        "energy_std": energy_std,
        "force_rms": summary.force_rms,
    }
    _save(args.json, result)
    for symbol, energy in by_symbol.items():
        print(f"{symbol:3}{energy:18.6f} eV")
    print(f"energy, standard deviation from these: {energy_std:.6f} eV")
    print(f"forces, root mean square: {summary.force_rms:.6f} eV/Å")
    return 0


def open_data(files: Sequence[str], args: argparse.Namespace) -> Dataset:
    """Files or folders as one data set; ``args`` holds :func:`add_format_arguments`.

    Raises:
        InputError: One cannot be read, or an option is not written as it should be.
    """
    from jmp_md.errors import InputError
    from jmp_md.training.data.frame import Concatenation
    from jmp_md.training.data.open import open_dataset
    from jmp_md.yaml_text import parse_yaml

    options: dict[str, Any] = {}
    for option in args.option:
        key, separator, value = option.partition("=")
        if not separator:
            raise InputError(f"--option {option!r}: write it as KEY=VALUE")
        options[key] = parse_yaml(value, f"--option {key}")
    parts = [open_dataset(file, args.format, **options) for file in files]
    return parts[0] if len(parts) == 1 else Concatenation(parts)


def _save(path: str | None, content: dict[str, Any]) -> None:
    from jmp_md.files import atomic_write

    if path:
        with atomic_write(Path(path)) as temporary:
            temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _words(value: Any) -> str:
    """A value, or a table of values, on one line."""
    if isinstance(value, dict):
        return "  ".join(f"{key} {_words(v)}" for key, v in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "-"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
