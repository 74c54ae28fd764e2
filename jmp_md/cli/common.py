"""What the commands on structures share: files, and the choice of a model."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ase import Atoms

    from jmp_md.calculators.ase import JMPCalculator


def add_model_arguments(parser: argparse.ArgumentParser, dtype: str) -> None:
    """Add the options that choose a model and how it computes.

    Args:
        parser: Parser of a command.
        dtype: Default precision of the command.
    """
    parser.add_argument(
        "--model", help="name or file of a model (default: a shipped one that knows the elements)"
    )
    parser.add_argument("--head", help="task of a model with several, e.g. ani1x")
    parser.add_argument("--device", help="cpu or cuda (default: cuda where there is one)")
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


def add_tags_argument(parser: argparse.ArgumentParser) -> None:
    """Add the option that makes tags of structures count, for surfaces."""
    parser.add_argument(
        "--tags",
        choices=("oc",),
        help="read OC20's tags from the file: 0 sub-surface, 1 surface, 2 adsorbate (default: all "
        "atoms get 2, right for molecules and bulk)",
    )


def read_structures(path: Path) -> list[Atoms]:
    """All structures in a file of any format ASE reads.

    Raises:
        InputError: The file cannot be read as structures, or holds none.
    """
    from ase.io import read

    from jmp_md.errors import InputError

    if not path.exists():
        raise InputError(f"there is no structure file {path}: check the path")
    try:
        structures: list[Atoms] = read(path, index=":")
    except Exception as error:  # every format of ASE has errors of its own
        raise InputError(
            f"cannot read structures from {path}: {error or type(error).__name__}; give a file in "
            "a format of ASE, e.g. .xyz, .cif, .vasp, .pdb"
        ) from error
    if not structures:
        raise InputError(f"{path} holds no structures")
    return structures


def calculators_for(
    structures: Sequence[Atoms], args: argparse.Namespace
) -> list[tuple[str, JMPCalculator]]:
    """The model that ``args`` or the elements choose for each structure, loaded once each.

    Raises:
        ModelNotFoundError: No model was named and no shipped one covers a structure.
    """
    from jmp_md.calculators.ase import JMPCalculator
    from jmp_md.memory import keep_freed_memory

    keep_freed_memory()
    names = [args.model or _shipped_model(atoms) for atoms in structures]
    loaded = {
        name: JMPCalculator(
            name,
            head=args.head,
            dtype=args.dtype,
            device=args.device,
            compile=args.compile,
            trust=args.trust,
            tags=getattr(args, "tags", None),
        )
        for name in dict.fromkeys(names)
    }
    if args.compile:
        for name, calculator in loaded.items():
            _warm_up(name, calculator, structures[names.index(name)])
    return [(name, loaded[name]) for name in names]


def _warm_up(name: str, calculator: JMPCalculator, atoms: Atoms) -> None:
    """Compile before the command starts, and say how long it took."""
    from jmp_md.errors import InputError

    print(f"compiling {name} ...", end=" ", file=sys.stderr, flush=True)
    try:
        print(f"ready after {calculator.warmup(atoms):.1f} s", file=sys.stderr)
    except InputError:  # the command reports it
        print("failed", file=sys.stderr)


def check_output(path: Path, source: Path, count: int) -> None:
    """Refuse, before any computing, a file that cannot be written or would overwrite the input.

    Args:
        path: File to write structures to.
        source: File they came from.
        count: How many there are.

    Raises:
        InputError: It is the input, its folder is missing, or ASE cannot write its format.
    """
    from ase.io.formats import UnknownFileTypeError, filetype, ioformats

    from jmp_md.errors import InputError

    if path.resolve() == source.resolve():
        raise InputError(f"{path} is the input and would be overwritten: choose another --output")
    if not path.resolve().parent.is_dir():
        raise InputError(f"there is no folder {path.parent} for {path.name}: create it first")
    try:
        form = ioformats.get(filetype(path, read=False))
    except UnknownFileTypeError:
        form = None
    if form is None or not form.can_write or (count > 1 and form.single):
        raise InputError(
            f"ASE cannot write {count} structures to {path}: choose another ending, e.g. .extxyz"
        )


def write_structures(path: Path, structures: Sequence[Atoms]) -> None:
    """Write structures, with the energies and forces they have, atomically.

    Args:
        path: File to replace; its name gives the format.
        structures: Structures; see :func:`frozen` for keeping results.
    """
    from ase.io import write
    from ase.io.formats import filetype

    from jmp_md.files import atomic_write

    with atomic_write(path) as temporary:
        images = structures if len(structures) > 1 else structures[0]
        write(temporary, images, format=filetype(path, read=False))


def frozen(atoms: Atoms) -> Atoms:
    """A copy that keeps energy, forces and stress where they are known, but no calculator."""
    from ase.calculators.singlepoint import SinglePointCalculator

    copy = atoms.copy()
    known = {
        name: value
        for name in ("energy", "forces", "stress")
        if (value := atoms.calc.get_property(name, atoms, allow_calculation=False)) is not None
    }
    copy.calc = SinglePointCalculator(copy, **known)
    return copy


def _shipped_model(atoms: Atoms) -> str:
    from jmp_md.errors import ModelNotFoundError
    from jmp_md.models.registry import list_models, shipped_for

    if entries := shipped_for(atoms.numbers.tolist()):
        return entries[0].name
    formula = atoms.get_chemical_formula(mode="hill")
    covering = [
        entry.name
        for entry in list_models()
        if set(atoms.numbers.tolist()) <= set(entry.elements) and entry.domain in ("", formula)
    ]
    others = f"{', '.join(covering)} does" if covering else "nor does any other model at hand"
    raise ModelNotFoundError(
        f"no shipped model covers {formula}, {others}: pass --model NAME or FILE; 'jmp-md models' "
        "lists names and the elements they cover"
    )
