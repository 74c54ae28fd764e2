"""A head of the base that is replayed is not forgotten, and both heads are in one file."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import pytest
from factories import random_potential
from training_cases import ALONE, TINY, tiny_recipe, well, write_npz

from jmp_md.calculators.ase import JMPCalculator
from jmp_md.checkpoints.native import read_header, read_native, write_native
from jmp_md.errors import InputError
from jmp_md.evaluation import evaluate
from jmp_md.load import load_model
from jmp_md.potential import Potential
from jmp_md.training.assembly import assemble
from jmp_md.training.data.frame import Frame, FrameList
from jmp_md.training.metrics import dataset_errors, to_atoms
from jmp_md.training.recipe import Recipe
from jmp_md.training.session import train
from jmp_md.training.task import TaskData
from jmp_md.training.trainer import Trainer

FAST = "optimiser={epochs: %d, batch_size: 4, learning_rate: 4.0e-3, ema_decay: 0.8}"
SEEN = {"periodic": "none", "molecules": 1}


def labelled(frames: list[Frame], potential: Potential) -> list[Frame]:
    """Frames with the energies and forces of a potential."""
    return [
        dataclasses.replace(frame, energy=result.energy, forces=result.forces)
        for frame in frames
        for result in evaluate([to_atoms(frame)], potential)
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a base, data of it, and data to fine-tune it on."""
    folder = tmp_path_factory.mktemp("replay")
    head = {"name": "energy", "references": {1: -10.0, 8: -2000.0}, "elements": (1, 8),
            "level_of_theory": "springs"}  # fmt: skip
    base = random_potential(head=head, header={"training": {"seen": SEEN}}, **TINY)
    base.energy_head[-1].weight.mul_(1000.0)  # forces of the size of those to fine-tune on
    write_native(folder / "base.safetensors", base.header, base.native_state())
    write_npz(folder / "old.npz", labelled(well(24), base))
    write_npz(folder / "new.npz", well(14, seed=3))
    return folder


def recipe_on_base(folder: Path, *overrides: str) -> Recipe:
    base = folder / "base.safetensors"
    options = [f"model.base={base}", "model.sizes={}", "model.head=new", "data.train=new.npz",
               "data.n_train=10", FAST % 6, *overrides]  # fmt: skip
    return tiny_recipe(*options)


def replaying(folder: Path, output: Path, *overrides: str) -> Trainer:
    """A trainer on the frames to fine-tune on, with the base's own structures labelled by it."""
    recipe = recipe_on_base(folder, "replay={}", *overrides)
    frames = well(14, seed=3)
    return assemble(
        recipe, {"new": TaskData(FrameList(frames[:10]), FrameList(frames[10:]))}, output, ALONE
    )


def forgotten(path: Path, base: Path) -> float:
    """How far forces of the base's head are from what they were, on structures not trained on."""
    header, state = read_native(path)
    if len(header.heads) == 1:  # its weights on the network that changed under it
        old, weights = read_native(base)
        state |= {key: value for key, value in weights.items() if key.startswith("heads.")}
        header = dataclasses.replace(header, heads=old.heads, default_head=None)
    before = FrameList(labelled(well(6, seed=9), load_model(base)))
    errors = dataset_errors(Potential.from_state(header, state, "energy"), before).summary()
    return errors["force_mae_meV_per_A"]


@pytest.mark.slow
def test_a_replayed_head_forgets_less(folder: Path, tmp_path: Path) -> None:
    base, errors = folder / "base.safetensors", {}
    for name, replay in (("none", "null"), ("data", "{data: old.npz}")):
        path = train(recipe_on_base(folder, f"replay={replay}"), folder, tmp_path / name)
        errors[name] = forgotten(path, base)
    assert errors["data"] < 0.6 * errors["none"]


def test_a_file_holds_the_new_head_and_the_old_one(folder: Path, tmp_path: Path) -> None:
    base = read_header(folder / "base.safetensors")
    options = ("replay={n: 8}", "optimiser.epochs=1")
    path = train(recipe_on_base(folder, *options), folder, tmp_path / "run")
    header = read_header(path)
    assert header.default_head == "new"
    assert {head.name for head in header.heads} == {"new", "energy"}
    assert header.head("energy").references == base.head().references
    assert header.head("energy").level_of_theory == "springs"
    assert header.training_range(header.head("energy")) == base.training_range(base.head())
    assert header.training["replay"] == {
        "head": "energy", "frames": 8, "left_out": 0, "labels": "base"
    }  # fmt: skip
    assert header.metrics.keys() >= {"force_mae_meV_per_A", "validation_energy_force_mae_meV_per_A"}
    found = [JMPCalculator(path, head=head).potential.head.name for head in (None, "energy")]
    assert found == ["new", "energy"]


def test_structures_without_labels_are_labelled_by_the_base(folder: Path, tmp_path: Path) -> None:
    trainer = replaying(folder, tmp_path)
    task = trainer.objective.tasks["energy"]
    potential = load_model(folder / "base.safetensors")
    sums = dataset_errors(potential, task.train).summary()
    assert sums["force_mae_meV_per_A"] < 0.1
    assert sums["energy_mae_meV"] < 0.1
    assert len(task.train) == 9
    assert any("labelled by the base" in note for note in trainer.notes)


def test_batches_hold_both_heads_in_their_shares(folder: Path, tmp_path: Path) -> None:
    trainer = replaying(folder, tmp_path, "replay.share=0.25", "optimiser.batch_size=8")
    assert trainer.sampler.steps_per_epoch == 2  # ten new frames, six at a time
    assert Counter(task for task, _ in trainer.sampler.batch(0)) == {"new": 6, "energy": 2}
    new = [k for step in range(2) for task, k in trainer.sampler.batch(step) if task == "new"]
    assert sorted(new) == list(range(10))
    with pytest.raises(InputError, match=r"batch_size = 1: replay\.share = 0\.5"):
        replaying(folder, tmp_path, "optimiser.batch_size=1")


def test_energies_of_the_old_head_are_trained_where_new_ones_are_not(
    folder: Path, tmp_path: Path
) -> None:
    trainer = replaying(folder, tmp_path)
    keys = [("new", 0), ("energy", 0), ("energy", 1)]
    batch = trainer.frames.collate([trainer.frames[key] for key in keys])
    _, counts = trainer.objective(batch)
    assert counts.tolist() == [2, 9]  # energies of the old head, forces of all atoms
    sums, counts = trainer.objective({"new": batch["new"]})  # what one of two processes may have
    assert counts.tolist() == [0, 3]
    assert sums[0] == 0


def test_what_cannot_be_replayed_is_told_before_the_first_step(
    folder: Path, tmp_path: Path
) -> None:
    def refused(match: str, *overrides: str, **options: FrameList) -> None:
        recipe = recipe_on_base(folder, "replay={}", *overrides)
        part = FrameList(well(4))
        with pytest.raises(InputError, match=match):
            assemble(recipe, {recipe.model.head: TaskData(part, part)}, tmp_path, ALONE, **options)

    refused("model.head = 'energy' is also the head", "model.head=energy")
    refused("the base has the heads energy; name one", "replay.head=other")
    other = [dataclasses.replace(frame, energy=-1000.0) for frame in well(4)]
    refused("so they are of another level of theory", replay=FrameList(other))
    refused("0 of 4 frames are of the elements", replay=FrameList(well(4, "CH4")))
    part = FrameList(well(4))
    recipe = tiny_recipe("replay={}", "model.head=new")
    with pytest.raises(InputError, match="replay needs a base"):
        assemble(recipe, {"new": TaskData(part, part)}, tmp_path, ALONE)


def test_a_head_that_is_lost_is_named(folder: Path, tmp_path: Path) -> None:
    frames = FrameList(well(4))
    recipe = recipe_on_base(folder)
    trainer = assemble(recipe, {"new": TaskData(frames, frames)}, tmp_path, ALONE)
    assert "will not have" in trainer.notes[0]
    assert ": energy;" in trainer.notes[0]
