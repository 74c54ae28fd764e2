"""The report of descriptors: a map of structures, and those that are nearest to each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jmp_md.report.crystals import embedding_map
from jmp_md.report.judgement import judge_domain
from jmp_md.report.page import Report
from jmp_md.report.view import evenly
from jmp_md.simulate.descriptors import LEAST, nearest, plane, plane_share

if TYPE_CHECKING:
    from ase import Atoms

    from jmp_md.simulate.descriptors import Descriptors

_MOST_COMPARED = 5000  # structures whose distances are computed
_MOST_PAIRS = 50  # of a table


def write_descriptors_report(
    folder: Path,
    structures: Sequence[Atoms],
    files: Sequence[str],
    result: Descriptors,
    summary: Mapping[str, Any],
) -> Path:
    """Write ``report.html`` of descriptors.

    Args:
        folder: Where to.
        structures: What they are of.
        files: Name of the file of each; empty where it is not known.
        result: The descriptors.
        summary: What ``summary.json`` says.

    Returns:
        The file.
    """
    formulas = [atoms.get_chemical_formula(mode="hill") for atoms in structures]
    count, size = result.nodes.shape
    title = f"Descriptors of {formulas[0] if count == 1 else f'{count} structures'}"
    report = Report(title, f"{size} numbers of atoms, {result.edges.shape[1]} of edges, for each")
    report.add_verdicts([judge_domain([summary.get("domain")])])
    compared = np.array(evenly(count, _MOST_COMPARED))
    distances, others = nearest(result.nodes[compared])
    report.add_headlines(_headlines(result, distances))
    labels = [f"{i}: {formula}" for i, formula in enumerate(formulas)]
    report.add_structures(structures, "The structures", labels)
    if count >= LEAST:
        _add_maps(report, result, formulas, files)
    else:
        report.add_notes([f"a map needs {LEAST} structures or more"])
    if count > 1:
        _add_pairs(report, compared, distances, others, formulas, files)
    return report.write_run(folder, summary)


def _headlines(result: Descriptors, distances: np.ndarray) -> dict[str, str]:
    found = {"structures": str(len(result.nodes))}
    if len(distances) > 1:
        found["least distance"] = f"{distances.min():.4g}"
        found["median distance to the nearest"] = f"{np.median(distances):.4g}"
    if len(result.nodes) >= LEAST:
        found["variance on the map"] = f"{plane_share(result.nodes):.0%} (atoms)"
    return found


def _add_maps(
    report: Report, result: Descriptors, formulas: Sequence[str], files: Sequence[str]
) -> None:
    report.add_heading("Maps")
    sources = [Path(file).name for file in files]
    groups = {"formula": formulas} | ({"file": sources} if len(set(sources)) > 1 else {})
    for name, rows in (("atoms", result.nodes), ("edges", result.edges)):
        points = plane(rows, "pca")
        data = {"structure": np.arange(len(rows)), "x": points[:, 0], "y": points[:, 1]}
        for what, own in groups.items():
            report.add_figure(
                embedding_map({name: points}, own, "PCA"),
                f"Mean embeddings of {name} in the two directions of largest variance, which have "
                f"{plane_share(rows):.0%} of it, coloured by {what}; what is near here may be far "
                "in the other directions",
                data,
            )


def _add_pairs(
    report: Report,
    compared: np.ndarray,
    distances: np.ndarray,
    others: np.ndarray,
    formulas: Sequence[str],
    files: Sequence[str],
) -> None:
    """Add the pairs of structures that are nearest, each of them once."""
    pairs = {
        (min(i, j), max(i, j)): float(distance)
        for i, j, distance in zip(
            compared.tolist(), compared[others].tolist(), distances, strict=True
        )
    }
    order = sorted(pairs, key=lambda pair: pairs[pair])[:_MOST_PAIRS]
    some = f"; {len(compared)} of {len(formulas)}, evenly spread, were compared"
    some = some if len(compared) < len(formulas) else ""
    report.add_heading("Nearest pairs")
    report.add_text(
        "Each structure with the one nearest to it by the Euclidean distance of the mean "
        f"embeddings of atoms; 0 is the same structure to the model{some}."
    )
    sources = [Path(file).name for file in files]
    known = any(sources)
    columns = ["structure", "formula", *(["file"] if known else [])]
    rows = [
        [part for k in pair for part in (k, formulas[k], *([sources[k]] if known else []))]
        + [pairs[pair]]
        for pair in order
    ]
    report.add_table([*columns, *columns, "distance"], rows)
