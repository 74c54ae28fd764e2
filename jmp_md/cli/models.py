"""``jmp-md models``: list the registry, add a model file, print a card or a path."""

from __future__ import annotations

import argparse
import shutil
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jmp_md.models.registry import ModelEntry

MOST_ELEMENTS = 12  # that a row of the list names


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    actions = parser.add_subparsers(dest="action", title="actions (without one: list all models)")
    add = actions.add_parser("add", help="copy a model file into the cache under a name")
    add.add_argument("name", help="name it gets")
    add.add_argument("file", help="native .safetensors file or official .pt or .ckpt checkpoint")
    add.add_argument("--force", action="store_true", help="replace a cached model of that name")
    card = actions.add_parser("card", help="print what is known about a model, as markdown")
    card.add_argument("name", help="name or path of a native model")
    record = actions.add_parser(
        "record", help="write into a model that jmp-md trained what its training data held"
    )
    record.add_argument("file", type=Path, help="native .safetensors file")
    record.add_argument("--data", type=Path, required=True, help="folder of the data")
    remove = actions.add_parser("remove", help="remove a model that was added, or made by finetune")
    remove.add_argument("name", help="name of the model")
    path = actions.add_parser("path", help="print the file of a model; downloads an official one")
    path.add_argument("name", help="name of the model")


def run(args: argparse.Namespace) -> int:
    """Execute the command."""
    from jmp_md.models import registry

    if args.action == "add":
        print(registry.add_model(args.name, args.file, force=args.force))
    elif args.action == "card":
        _print_card(args.name)
    elif args.action == "record":
        from jmp_md.training.seen import record

        record(args.file, args.data)
        print(f"wrote {args.file}: see 'jmp-md models card {args.file}'")
    elif args.action == "remove":
        print("removed", *registry.remove_model(args.name))
    elif args.action == "path":
        print(registry.resolve(args.name))
    else:
        _print_list()
    return 0


def _print_list() -> None:
    from jmp_md.models.cards import symbols
    from jmp_md.models.registry import list_models

    def row(entry: ModelEntry) -> tuple[str, str, str, str, str, str]:
        size = f"{entry.size / 1e6:.1f} MB" if entry.size is not None else "unknown"
        where = str(entry.path) if entry.where == "cached" else entry.where
        many = len(entry.elements) > MOST_ELEMENTS
        elements = f"{len(entry.elements)} elements" if many else symbols(entry.elements)
        elements += f" (only {entry.domain})" if entry.domain else ""
        error = "unusable" if entry.problem else _test_error(entry)
        return entry.name, size, entry.licence, elements, error, where

    entries = list_models()
    rows = [("name", "size", "licence", "elements", "test error", "where")]
    rows += [row(entry) for entry in entries if entry.where != "to train"]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for cells in rows:
        line = "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        print(line.rstrip())
    for entry in entries:
        if entry.problem:
            print(f"\n{entry.name} is unusable: {entry.problem}")
    to_train = ", ".join(entry.name for entry in entries if entry.where == "to train")
    print("\nKnown, but to be trained or added ('jmp-md models path NAME' says how):")
    width = shutil.get_terminal_size().columns
    print(textwrap.fill(to_train, width, break_on_hyphens=False))


def _test_error(entry: ModelEntry) -> str:
    """Mean absolute force error in meV/Å, the one figure that compares models of a data set."""
    if entry.header and len(entry.header.heads) > 1:
        return "by head, see its card"
    metrics = entry.header.metrics if entry.header else {}
    error = metrics.get("force_mae_meV_per_A")
    return f"F {error:.1f} meV/Å" if isinstance(error, int | float) else "not recorded"


def _print_card(name: str) -> None:
    from jmp_md.checkpoints.native import SUFFIX, read_header
    from jmp_md.errors import InputError
    from jmp_md.models.cards import model_card
    from jmp_md.models.registry import resolve

    path = resolve(name)
    if path.suffix != SUFFIX:
        raise InputError(
            f"{path} is an official checkpoint, without a header to make a card from: convert it "
            f"with 'jmp-md convert {path} OUT{SUFFIX}' and ask for the card of OUT{SUFFIX}"
        )
    print(model_card(read_header(path), path.stat().st_size, _tested(path)), end="")


def _tested(path: Path) -> dict[str, str]:
    """By head, what ``jmp-md benchmark --keep`` found with the weights that the file holds."""
    from jmp_md.benchmarking.kept import kept
    from jmp_md.benchmarking.tables import overview, table
    from jmp_md.fingerprint import fingerprint
    from jmp_md.load import load_model

    tables = {}
    for head, result in kept(path).items():
        if fingerprint(load_model(path, head=head, device="cpu")) == result.about["sha256"]:
            tables[head] = table(*overview([result]))
        else:
            tables[head] = "Only tests of other weights are kept: 'jmp-md benchmark --keep' again."
    return tables
