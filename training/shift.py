"""What training leaves of energies, put into the references of the elements."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from ase.data import chemical_symbols
from torch_geometric.data import Batch

from jmp_md.potential import Potential
from jmp_md.training.batches import PairedFrames, to_structures
from jmp_md.training.data.references import composition_of, fit_references
from jmp_md.training.packing import packed

SAMPLE = 1000  # frames, drawn with a seed


class Shift(NamedTuple):
    """References that make up for what a potential misses on average.

    Attributes:
        references: eV by atomic number.
        change: eV by chemical symbol, from those the potential has.
        before: meV per atom, mean absolute error of energies with those.
        after: meV per atom, with the new ones.
    """

    references: dict[int, float]
    change: Mapping[str, float]
    before: float
    after: float


def shifted_references(
    potential: Potential,
    train: PairedFrames,
    seed: int = 0,
    prior: Mapping[int, float] | None = None,
) -> Shift:
    """Fit the change of references to energy errors on training frames.

    Forces say nothing of the energies of elements, and energies of small weight little. Linear in
    the composition, the change leaves energies size-consistent, and where the frames do not tell
    elements apart it is the smallest there is.

    Args:
        potential: The model.
        train: Training frames; of many, a sample.
        seed: Of the sample.
        prior: eV by atomic number, what references stay near to where the frames do not tell
            elements apart; None for those the potential has.
    """
    n = min(SAMPLE, len(train))
    chosen = np.random.default_rng(seed).permutation(len(train))[:n].tolist()
    kinds, missed, sizes = [], [], []
    for part in packed(potential, (train[index] for index in chosen)):
        batch = Batch.from_data_list(part)
        structures = to_structures(batch)
        error = batch.energy - potential.predict(structures, forces=False).energy.cpu()
        for i in np.flatnonzero(~error.isnan().numpy()).tolist():
            kinds.append(composition_of(structures.numbers[structures.structure == i].numpy()))
            missed.append(float(error[i]))
            sizes.append(sum(count for _, count in kinds[-1]))
    old = potential.head.references
    if not kinds:
        return Shift(old, {}, float("nan"), float("nan"))
    found = {z for kind in kinds for z, _ in kind}
    near = {z: prior[z] - old.get(z, 0.0) if prior else 0.0 for z in found}
    change = fit_references(kinds, missed, near)
    left = [e - sum(n * change[z] for z, n in kind) for kind, e in zip(kinds, missed, strict=True)]
    references = old | {z: old.get(z, 0.0) + e for z, e in change.items()}
    by_symbol = {chemical_symbols[z]: energy for z, energy in change.items()}
    before, after = (
        1000 * float((np.abs(errors) / np.array(sizes)).mean()) for errors in (missed, left)
    )
    return Shift(references, by_symbol, before, after)
