"""Largest relative differences from the outputs of the official JMP network.

    python benchmarks/parity.py FOLDER

The folder holds checkpoints NAME.ckpt, the official outputs NAME-expected.json and the
structures tiny-structures.json. A relative error is max |difference| / max |reference|.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from jmp_md.checkpoints.official import read_official, to_native
from jmp_md.graph.pairs import find_pairs
from jmp_md.graph.policy import GraphPolicy
from jmp_md.header import ModelHeader
from jmp_md.potential import Potential
from jmp_md.step import FoldedStep
from jmp_md.structures import Structures, single_structure

QUANTITIES = ("energies", "conservative_forces", "direct_forces")


@dataclass(frozen=True)
class Case:
    """One structure and graph with one set of weights, and what the official network gave.

    Attributes:
        name: ``"<checkpoint>/[<weights>/]<structure>/<cutoff>A_<neighbours>"``.
        expected: Network outputs before de-normalisation, by quantity and number of the head.
    """

    name: str
    header: ModelHeader
    state: dict[str, Tensor]
    graph: GraphPolicy
    structure: Structures
    expected: dict[str, Any]


def read_cases(folder: Path) -> Iterator[Case]:
    """All cases of a folder, from each checkpoint file through the reader users get."""
    raw = {s["name"]: s for s in json.loads((folder / "tiny-structures.json").read_text())}
    for path in sorted(folder.glob("*.ckpt")):
        models: dict[str, tuple[ModelHeader, dict[str, Tensor]]] = {}
        outputs = json.loads((folder / f"{path.stem}-expected.json").read_text())["cases"]
        for key, expected in outputs.items():
            *weights, structure, graph = key.split("/")
            cutoff, neighbours = graph.split("A_")
            policy = GraphPolicy.official(float(cutoff), int(neighbours))
            kind = weights[0] if weights else "raw"
            if kind not in models:
                models[kind] = to_native(read_official(path, kind), path.stem)
            header, state = models[kind]
            placed = _place(raw[structure], policy.cutoff)
            yield Case(f"{path.stem}/{key}", header, state, policy, placed, expected)


def errors(case: Case) -> dict[torch.dtype, dict[str, float]]:
    """The largest relative error of each quantity over all heads, in both precisions.

    Of the network as it is trained, and folded for inference.
    """
    worst: dict[torch.dtype, dict[str, float]] = {torch.float64: {}, torch.float32: {}}
    for t, head in enumerate(case.header.heads):
        potential = Potential.from_state(case.header, case.state, head.name, case.graph)
        for (dtype, row), step in product(worst.items(), (None, FoldedStep(potential))):
            potential.step = step
            outputs = _network_outputs(potential.to(dtype), case.structure)
            for name, value in outputs.items():
                reference = torch.tensor(case.expected[f"{name}_{t}"], dtype=torch.float64)
                error = float((value.double() - reference).abs().max() / reference.abs().max())
                row[name] = max(row.get(name, 0.0), error)
    return worst


def main() -> None:
    """Print one row per case, and the worst of all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder with checkpoints and official outputs")
    results = {case.name: errors(case) for case in read_cases(parser.parse_args().folder)}
    for dtype in (torch.float64, torch.float32):
        rows = {name: result[dtype] for name, result in results.items()}
        rows["worst"] = {q: max(row.get(q, 0.0) for row in rows.values()) for q in QUANTITIES}
        print(f"\n{str(dtype).removeprefix('torch.'):44}" + "".join(f"{q:>22}" for q in QUANTITIES))
        for name, row in rows.items():
            cells = [f"{row[q]:22.1e}" if q in row else f"{'-':>22}" for q in QUANTITIES]
            print(f"{name:44}" + "".join(cells))


def _network_outputs(potential: Potential, structure: Structures) -> dict[str, Tensor]:
    """Predictions in the units of the network."""
    head = potential.head
    p = potential.predict(structure)
    assert p.forces is not None
    outputs = {
        "energies": (p.energies - potential.constant_energies(structure)) / head.energy_scale,
        "conservative_forces": p.forces / head.energy_scale,
    }
    if head.force_scale is not None:
        direct = potential.predict(structure, direct=True).forces
        assert direct is not None
        outputs["direct_forces"] = direct / head.force_scale
    return outputs


def _place(raw: dict[str, Any], cutoff: float) -> Structures:
    positions, cell = np.array(raw["positions"]), np.array(raw["cell"])
    pairs = find_pairs(positions, cell, np.array(raw["pbc"]), cutoff)
    return single_structure(positions, raw["numbers"], cell, pairs, raw["tags"])


if __name__ == "__main__":
    main()
