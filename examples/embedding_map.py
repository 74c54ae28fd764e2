"""A map of data sets as a model sees them: mean embeddings of structures, by t-SNE.

After the figure of the JMP paper. Frames are taken evenly from each file; every frame goes through
the same head, whose graphs are all that matters of it.

Run: python examples/embedding_map.py MODEL HEAD FILE...   (needs scikit-learn; a minute)
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from jmp_md.calculators.ase import JMPCalculator
from jmp_md.report.crystals import embedding_map
from jmp_md.simulate.descriptors import check_method, descriptors, plane
from jmp_md.training.data.open import open_dataset
from jmp_md.training.metrics import to_atoms

FRAMES = 150  # of each file


def main() -> None:
    if len(sys.argv) < 4:
        raise SystemExit(__doc__)
    check_method("tsne")
    model, head, *files = sys.argv[1:]
    calculator = JMPCalculator(model, head=head)
    structures, names = [], []
    for file in files:
        dataset = open_dataset(file)
        chosen = np.unique(np.linspace(0, len(dataset) - 1, FRAMES).round().astype(int))
        structures += [to_atoms(dataset[int(i)]) for i in chosen]
        names += [Path(file).stem] * len(chosen)
    known = set(calculator.potential.head.elements)
    kept = [i for i, atoms in enumerate(structures) if set(atoms.numbers.tolist()) <= known]
    found = descriptors([structures[i] for i in kept], calculator)
    planes = {"node embeddings": plane(found.nodes), "edge embeddings": plane(found.edges)}
    figure = embedding_map(planes, [names[i] for i in kept], "t-SNE")
    figure.savefig("embedding-map.svg", dpi=150, metadata={"Date": None})
    print(f"wrote embedding-map.svg: {len(kept)} of {len(structures)} structures")


if __name__ == "__main__":
    main()
