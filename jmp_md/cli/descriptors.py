"""``jmp-md descriptors``: what a model knows of structures, as vectors and as a map."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jmp_md.cli.common import (
    add_model_arguments,
    add_tags_argument,
    calculators_for,
    read_structures,
)
from jmp_md.cli.config import add_config

if TYPE_CHECKING:
    from ase import Atoms

    from jmp_md.simulate.descriptors import Descriptors

NAME = "descriptors"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("structures", nargs="+", type=Path, help="files of structures")
    add_model_arguments(parser, dtype="float32")
    add_tags_argument(parser)
    parser.add_argument("--output", type=Path, help="folder (default: STEM-descriptors here)")
    add_config(parser)
    parser.add_argument(
        "--map", choices=("tsne", "pca"), help="also a figure of the structures in the plane"
    )
    parser.add_argument(
        "--colour", choices=("formula", "file"), default="formula", help="default: %(default)s"
    )
    parser.add_argument("--seed", type=int, default=0, help="of t-SNE, %(default)s")


def run(args: argparse.Namespace) -> int:
    """Execute the command."""
    from jmp_md.simulate.descriptors import check_method, descriptors
    from jmp_md.simulate.summary import describe, write_summary
    from jmp_md.simulate.watch import DomainWatch

    started = time.monotonic()
    if args.map:
        check_method(args.map)
    structures: list[Atoms] = []
    files: list[str] = []
    for path in args.structures:
        structures += read_structures(path)
        files += [str(path)] * (len(structures) - len(files))
    # One for all: embeddings of different models do not compare.
    model, calculator = calculators_for(structures, args, one_model=True)[0]
    output = args.output or Path(f"{args.structures[0].stem}-{NAME}")
    output.mkdir(parents=True, exist_ok=True)
    print(f"{len(structures)} structures, model {model}")
    watch = DomainWatch(calculator)
    watch.begin(structures)
    result = descriptors(structures, calculator)
    formulas = [atoms.get_chemical_formula(mode="hill") for atoms in structures]
    _write(output / "descriptors.npz", result, structures, formulas, files)
    written = ["descriptors.npz"]
    if args.map:
        _draw(output / "map.svg", result, formulas if args.colour == "formula" else files, args)
        written.append("map.svg")
    write_summary(
        output,
        NAME,
        model=describe(calculator),
        settings={name: getattr(args, name) for name in ("map", "colour", "seed")},
        results={
            "n_structures": len(structures),
            "node_features": result.nodes.shape[1],
            "edge_features": result.edges.shape[1],
        },
        seconds=time.monotonic() - started,
        domain=watch.record(),
    )
    print(f"wrote {output}: {', '.join([*written, 'summary.json'])}")
    return 0


def _write(
    path: Path,
    result: Descriptors,
    structures: Sequence[Atoms],
    formulas: Sequence[str],
    files: Sequence[str],
) -> None:
    import numpy as np

    from jmp_md.files import atomic_write

    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(
            file,
            nodes=result.nodes,
            edges=result.edges,
            n_atoms=np.array([len(atoms) for atoms in structures]),
            formulas=np.array(formulas),
            files=np.array(files),
        )


def _draw(path: Path, result: Descriptors, groups: Sequence[str], args: argparse.Namespace) -> None:
    from jmp_md.files import atomic_write
    from jmp_md.report.crystals import embedding_map
    from jmp_md.simulate.descriptors import plane

    planes = {
        f"{name} embeddings": plane(rows, args.map, args.seed)
        for name, rows in (("node", result.nodes), ("edge", result.edges))
    }
    with atomic_write(path) as temporary:
        figure = embedding_map(planes, groups, args.map.upper().replace("TSNE", "t-SNE"))
        figure.savefig(temporary, format="svg", metadata={"Date": None})
