"""Tags of data sets: OC20's where they are asked for, and else none."""

from __future__ import annotations

import warnings
from dataclasses import replace

from jmp_md.training.data.frame import Dataset, Frame, n_atoms


def tagged(dataset: Dataset, tags: str | None) -> Dataset:
    """A data set whose tags count as they are to.

    Tags of ASE number layers, bonds or whatever a program likes; the network knows those of OC20.

    Args:
        dataset: The data set.
        tags: ``"oc"`` where they are OC20's (0 below the surface, 1 surface, 2 adsorbate); None
            gives all atoms the tag 2, right for molecules and bulk, and warns where they have
            others.
    """
    return dataset if tags == "oc" else Untagged(dataset)


class Untagged:
    """A data set all of whose atoms have the tag 2; it warns, once, where they have others.

    Args:
        dataset: The data set.
    """

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self._warned = False

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Frame:
        frame = self._dataset[index]
        if frame.tags is None:
            return frame
        if not self._warned and (frame.tags != 2).any():
            self._warned = True
            warnings.warn(
                "the data set has tags, which do not count: where they are OC20's, give --tags oc, "
                "or in the section of a recipe tags: oc",
                stacklevel=2,
            )
        return replace(frame, tags=None)

    def n_atoms(self, index: int) -> int:
        """Atoms of a frame."""
        return n_atoms(self._dataset, index)
