"""Descriptors of structures in a folder, and a map of them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jmp_md.options import with_options
from jmp_md.report.page import NAME as REPORT
from jmp_md.runs.folder import opened
from jmp_md.runs.options import DescriptorOptions, FolderOptions, divided
from jmp_md.simulate.summary import NAME as SUMMARY
from jmp_md.simulate.summary import describe, write_summary

if TYPE_CHECKING:
    from ase import Atoms

    from jmp_md.calculators.ase import JMPCalculator
    from jmp_md.simulate.descriptors import Descriptors

VERB, VECTORS, MAP = "descriptors", "descriptors.npz", "map.svg"
FILES = (VECTORS, MAP, SUMMARY, REPORT)


@with_options(DescriptorOptions, FolderOptions)
def run_descriptors(
    structures: Sequence[Atoms],
    calculator: JMPCalculator,
    output: str | Path,
    options: DescriptorOptions | None = None,
    *,
    files: Sequence[str] | None = None,
    **changes: Any,
) -> Descriptors:
    """Compute mean embeddings of structures and, where asked for, draw a map of them.

    The folder gets ``descriptors.npz`` (``nodes``, ``edges``, ``n_atoms``, ``formulas``,
    ``files``), ``summary.json``, ``report.html`` and with ``map`` the figure ``map.svg``.

    Args:
        structures: Any number, of any sizes.
        calculator: A model; one for all, as embeddings of different models do not compare.
        output: Folder of the run, created if need be.
        options: See :class:`~jmp_md.runs.options.DescriptorOptions`; None for the defaults.
        files: Name of the file that each structure is from; None leaves them empty.
        changes: Options by name, in place of those of ``options``, and ``overwrite``
            and ``report``, see :class:`~jmp_md.runs.options.FolderOptions`.

    Raises:
        InputError: As of :func:`~jmp_md.simulate.descriptors.descriptors`, an option that does not
            exist or does not fit, too few structures for a map, or a folder that holds a run.
    """
    from jmp_md.simulate.descriptors import check_map, descriptors
    from jmp_md.simulate.watch import DomainWatch

    options, around = divided(options or DescriptorOptions(), changes, FolderOptions)
    if options.map is not None:
        check_map(options.map, len(structures))
    started, folder = time.monotonic(), Path(output)
    formulas = [atoms.get_chemical_formula(mode="hill") for atoms in structures]
    origins = [""] * len(structures) if files is None else files
    watch = DomainWatch(calculator)
    with opened(folder, FILES, around):
        watch.begin(structures)
        result = descriptors(structures, calculator)
        _write(folder / VECTORS, result, structures, formulas, origins)
        if options.map is not None:
            groups = formulas if options.colour == "formula" else origins
            _draw(folder / MAP, result, groups, options.map, options.seed)
        summary = write_summary(
            folder,
            VERB,
            model=describe(calculator),
            settings=options.model_dump(),
            results={
                "n_structures": len(structures),
                "node_features": result.nodes.shape[1],
                "edge_features": result.edges.shape[1],
            },
            seconds=time.monotonic() - started,
            domain=watch.record(),
        )
        if around.report:
            from jmp_md.report.descriptors import write_descriptors_report

            write_descriptors_report(folder, structures, origins, result, summary)
    return result


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


def _draw(path: Path, result: Descriptors, groups: Sequence[str], method: str, seed: int) -> None:
    from jmp_md.files import atomic_write
    from jmp_md.report.crystals import embedding_map
    from jmp_md.simulate.descriptors import plane

    planes = {
        f"{name} embeddings": plane(rows, method, seed)
        for name, rows in (("node", result.nodes), ("edge", result.edges))
    }
    with atomic_write(path) as temporary:
        figure = embedding_map(planes, groups, method.upper().replace("TSNE", "t-SNE"))
        figure.savefig(temporary, format="svg", metadata={"Date": None})
