"""Replay: a head of the base goes on learning its own data, so that fine-tuning does not forget."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
from ase.data import chemical_symbols
from tqdm import tqdm

from jmp_md.batch import Result
from jmp_md.errors import InputError
from jmp_md.evaluation import evaluate
from jmp_md.header import HeadInfo
from jmp_md.potential import Potential
from jmp_md.training.data.frame import Dataset, Frame, FrameList, Subset, frames, sampled
from jmp_md.training.data.splits import random_split
from jmp_md.training.distributed import Ranks
from jmp_md.training.loss import Scales
from jmp_md.training.metrics import to_atoms
from jmp_md.training.recipe import Recipe
from jmp_md.training.sections import ReplaySection
from jmp_md.training.start import Start
from jmp_md.training.summary import summarised
from jmp_md.training.task import Task

SHARES = (0.9, 0.1, 0.0)  # of the replayed frames, to train, validate and test on
AT_ONCE = 64  # frames that are labelled together
COMPARED = 32  # labelled frames whose energies are compared with those of the base
LARGEST_SHIFT = 1.0  # eV per atom, by which they may differ and still be of one level of theory


def replay_task(recipe: Recipe, start: Start, given: Dataset, labelled: bool, ranks: Ranks) -> Task:
    """The task of a head of the base, which keeps its references.

    Args:
        recipe: What to do; it has a section ``replay``.
        start: The base.
        given: Frames to draw from.
        labelled: Whether to take the labels of the frames where they have any; else, and where
            they have none, the base labels them.
        ranks: This process among those of the run; the first one labels.

    Raises:
        InputError: The base has no such head, no two frames are of its elements, or their energies
            are of another level of theory.
    """
    section = recipe.replay
    assert section is not None
    head = replayed_head(recipe, section, start)
    chosen = list(frames(sampled(given, section.n, recipe.seed)))
    known = [frame for frame in chosen if not head.elements or set(frame.numbers.tolist())
             <= set(head.elements)]  # fmt: skip
    if len(known) < 2:
        names = ", ".join(chemical_symbols[z] for z in head.elements)
        raise InputError(
            f"replay: {len(known)} of {len(chosen)} frames are of the elements that head "
            f"{head.name!r} of the base knows ({names}), at least 2 are needed: give others as "
            "replay.data"
        )
    potential = Potential.from_state(start.header(recipe.model, heads=(head,)), start.state)
    potential = potential.float().to(ranks.device)
    by_base = not (labelled and any(f.energy is not None and f.forces is not None for f in known))
    if by_base:
        known = ranks.first(lambda: list(_labelled(known, potential, bool(recipe.loss.stress))))
    else:
        ranks.first(lambda: _require_level(known, potential))
    split = random_split(len(known), SHARES, recipe.seed)
    held_out = split.val if len(split.val) else split.train[:1]
    train, validation = (Subset(FrameList(known), part) for part in (split.train, held_out))
    rms = summarised(train).force_rms
    return Task(
        head,
        train,
        validation,
        scales=Scales(rms, rms),
        terms=("energy", "forces", "stress") if recipe.loss.stress else ("energy", "forces"),
        start=head.name,
        shift="never",
        seen=dict(start.base.training_range(head)) if start.base else {},
        about={
            "replay": {
                "head": head.name,
                "frames": len(known),
                "left_out": len(chosen) - len(known),
                "labels": "base" if by_base else "data",
            }
        },
    )


def replayed_head(recipe: Recipe, section: ReplaySection, start: Start) -> HeadInfo:
    """The head of the base that is replayed; without direct forces where the recipe has none.

    Raises:
        InputError: No base, no such head, several and none named, or one of the new head's name.
    """
    if start.base is None:
        raise InputError("replay needs a base that would forget: give model.base")
    name = section.head or start.base.default_head or ""
    if not name and len(start.heads) == 1:
        name = next(iter(start.heads))
    if name not in start.heads:
        raise InputError(
            f"replay.head = {section.head!r}: the base has the heads {', '.join(start.heads)}; "
            "name one of them"
        )
    if name == recipe.model.head:
        raise InputError(
            f"model.head = {name!r} is also the head of the base that is replayed: name the new "
            f"one otherwise, e.g. model.head=new-{name}"
        )
    head = start.heads[name]
    return head if recipe.model.forces == "direct" else dataclasses.replace(head, force_scale=None)


def _labelled(known: list[Frame], potential: Potential, stress: bool) -> Iterator[Frame]:
    """Frames with what the base says of them; those it cannot compute are left out."""
    with tqdm(total=len(known), desc="labels of the base", unit="frame", leave=False) as bar:
        for first in range(0, len(known), AT_ONCE):
            part = known[first : first + AT_ONCE]
            for frame, result in zip(part, _predicted(part, potential, stress), strict=True):
                if result.error is None:
                    tension = result.stress if stress and all(frame.pbc) else None
                    yield dataclasses.replace(
                        frame,
                        energy=result.energy,
                        forces=result.forces,
                        stress=tension,
                        fixed=None,
                    )
            bar.update(len(part))


def _predicted(part: list[Frame], potential: Potential, stress: bool) -> list[Result]:
    return evaluate(
        [to_atoms(frame) for frame in part],
        potential,
        properties=("energy", "forces", "stress") if stress else ("energy", "forces"),
        forces="conservative" if potential.force_head is None else "direct",
        tags="oc",
        on_error="keep",
    )


def _require_level(known: list[Frame], potential: Potential) -> None:
    """Refuse labels whose energies are not those that the head of the base stands for."""
    some = [frame for frame in known if frame.energy is not None][:COMPARED]
    results = _predicted(some, potential, stress=False)
    errors = [
        abs(result.energy - frame.energy) / len(frame)
        for frame, result in zip(some, results, strict=True)
        if frame.energy is not None and result.error is None
    ]
    if errors and float(np.median(errors)) > LARGEST_SHIFT:
        raise InputError(
            f"replay.data: its energies are {np.median(errors):.3g} eV per atom from those of head "
            f"{potential.head.name!r} of the base ({potential.head.level_of_theory}), so they are "
            "of another level of theory: take data of that level, or structures without labels, "
            "which the base labels"
        )
