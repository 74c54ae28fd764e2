"""What the base does on the user's frames before any training."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase.data import chemical_symbols

from jmp_md.errors import InputError
from jmp_md.evaluation import evaluate
from jmp_md.header import HeadInfo, ModelHeader
from jmp_md.load import load_model, read_model
from jmp_md.training.data.frame import Frame
from jmp_md.training.data.references import Composition, composition, fit_references
from jmp_md.training.metrics import to_atoms
from jmp_md.training.tuning.units import Slope, slope_of

FEW, MANY = 12, 60  # frames to choose a head by, and to measure it by
MOST_ATOMS = 3000  # in those
MEV = 1000.0


@dataclass(frozen=True)
class Untouched:
    """A head of the base on some of the frames.

    Attributes:
        head: The head.
        n_frames: How many frames were looked at.
        force_mae: meV/Å.
        energy_mae: meV per atom, after the energies of the elements were fitted; None without.
        forces, energies: Labels against predictions; energies within one composition.
        seconds: Per atom.
    """

    head: HeadInfo
    n_frames: int
    force_mae: float
    energy_mae: float | None
    forces: Slope
    energies: Slope
    seconds: float


def base_header(base: str, elements: Sequence[int], head: str | None) -> ModelHeader:
    """Header of the base.

    Raises:
        InputError: It does not know all elements, or has no such head.
        ModelNotFoundError: It is not at hand.
    """
    header, _ = read_model(base)
    heads = header.heads if head is None else (header.head(head),)
    unknown = any(not info.elements for info in heads)
    strange = set(elements) - {z for info in heads for z in info.elements}
    if strange and not unknown:
        which = f"the head {head!r} of {base}" if head else base
        raise InputError(
            f"{which} was not trained on {', '.join(chemical_symbols[z] for z in sorted(strange))}"
            f": {_others(elements)}"
        )
    return header


def fitting_heads(header: ModelHeader, elements: Sequence[int], head: str | None) -> list[HeadInfo]:
    """Heads that know all elements: the one named, or each."""
    heads = header.heads if head is None else (header.head(head),)
    return [info for info in heads if not info.elements or set(elements) <= set(info.elements)]


def best_untouched(base: str, heads: Sequence[HeadInfo], frames: Sequence[Frame]) -> Untouched:
    """The head whose forces correlate best with some frames', in any unit, measured on more."""
    few = _some(frames, FEW)
    if len(heads) > 1:
        heads = [min((_measured(base, head, few) for head in heads),
                     key=lambda found: -abs(found.forces.correlation)).head]  # fmt: skip
    return _measured(base, heads[0], _some(frames, MANY))


def _some(frames: Sequence[Frame], most: int) -> list[Frame]:
    """Frames evenly spread, and not too many atoms of them."""
    atoms = float(np.mean([len(frame) for frame in frames]))
    n = int(np.clip(MOST_ATOMS / atoms, 3, most))
    places = np.unique(np.linspace(0, len(frames) - 1, n).round().astype(int))
    return [frames[k] for k in places.tolist() if frames[k].forces is not None] or list(frames[:1])


def _measured(base: str | Path, head: HeadInfo, frames: Sequence[Frame]) -> Untouched:
    potential = load_model(base, head=head.name, device="cpu")
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of structures that the base was not trained on
        results = evaluate([to_atoms(frame) for frame in frames], potential, tags="oc")
    seconds = time.process_time() - start
    label = np.concatenate([f.forces for f in frames if f.forces is not None])
    predicted = np.concatenate(
        [r.forces for f, r in zip(frames, results, strict=True)
         if f.forces is not None and r.forces is not None]
    )  # fmt: skip
    kinds, energies, expected = [], [], []
    for frame, result in zip(frames, results, strict=True):
        if frame.energy is not None:
            kinds.append(composition(frame))
            energies.append(frame.energy)
            expected.append(result.energy)
    return Untouched(
        head,
        len(frames),
        MEV * float(np.abs(predicted - label).mean()),
        _left(kinds, np.array(energies) - np.array(expected)) if kinds else None,
        slope_of(label, predicted),
        slope_of(*(_within(kinds, np.array(values)) for values in (energies, expected))),
        seconds / sum(map(len, frames)),
    )


def _left(kinds: list[Composition], missed: np.ndarray) -> float:
    """Mean absolute error in meV per atom once energies of the elements are fitted to it."""
    zero = {z: 0.0 for kind in kinds for z, _ in kind}
    change = fit_references(kinds, missed.tolist(), zero)
    fitted = np.array([sum(n * change[z] for z, n in kind) for kind in kinds])
    sizes = np.array([sum(n for _, n in kind) for kind in kinds])
    return MEV * float(np.abs((missed - fitted) / sizes).mean())


def _within(kinds: list[Composition], values: np.ndarray) -> np.ndarray:
    """Values less the mean of those of the same composition."""
    numbers = {kind: k for k, kind in enumerate(dict.fromkeys(kinds))}
    groups = np.array([numbers[kind] for kind in kinds], dtype=int)
    means = np.bincount(groups, values) / np.maximum(np.bincount(groups), 1) if kinds else groups
    return values - means[groups]


def _others(elements: Sequence[int]) -> str:
    """Which models know the elements."""
    from jmp_md.models.registry import list_models

    known = [e.name for e in list_models() if not e.domain and set(elements) <= set(e.elements)]
    if not known:
        return "no model at hand knows them all; 'jmp-md models' lists what each knows"
    return f"take {' or '.join(known)} as the base"
