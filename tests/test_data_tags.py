"""Tags of data sets are OC20's where they are asked for; the network knows no others."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import fcc111
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from training_cases import PRETRAIN, RECIPE

from jmp_md.errors import InputError
from jmp_md.training.data.frame import Concatenation, Frame, FrameList, Subset, frames, make_frame
from jmp_md.training.data.tags import tagged
from jmp_md.training.recipe import PretrainRecipe, Recipe, from_yaml
from jmp_md.training.session import training_frames
from jmp_md.training.tuning.options import options_from
from jmp_md.training.tuning.reading import read_files


def slabs(n: int) -> list[Atoms]:
    """ASE counts the layers of a slab by tags, from 1 at the top."""
    found = []
    for k in range(n):
        atoms = fcc111("Cu", (1, 1, 3), vacuum=5.0)
        atoms.info.clear()
        atoms.rattle(0.05, seed=k)
        forces = np.random.default_rng(k).normal(size=(3, 3))
        atoms.calc = SinglePointCalculator(atoms, energy=float(k), forces=forces)
        found.append(atoms)
    return found


@pytest.mark.parametrize("kind", ["train", "pretrain", "finetune"])
def test_trainers_read_tags_where_they_are_asked_to_and_else_say_that_they_do_not(
    kind: str, tmp_path: Path
) -> None:
    write(tmp_path / "slabs.extxyz", slabs(12))

    def read(tags: str | None) -> list[Frame]:
        asked = f", tags: {tags}" if tags else ""
        if kind == "finetune":
            return read_files([tmp_path / "slabs.extxyz"], options_from({"tags": tags})).frames
        if kind == "train":
            recipe = from_yaml(RECIPE.replace("train.npz", f"slabs.extxyz{asked}"), "recipe")
        else:
            own = f"train: slabs.extxyz, validation: slabs.extxyz{asked}"
            recipe = from_yaml(PRETRAIN.replace("train: water.npz", own), "recipe")
            recipe = recipe.model_copy(update={"tasks": {"water": recipe.tasks["water"]}})
        assert isinstance(recipe, Recipe | PretrainRecipe)
        return list(frames(next(iter(training_frames(recipe, tmp_path).values()))))

    with pytest.warns(UserWarning, match="has tags, which do not count") as said:
        found = read(None)
    assert len(said) == 1
    assert all(frame.tags is None for frame in found)
    found = read("oc")
    assert all(sorted(frame.tags.tolist()) == [1, 2, 3] for frame in found)


def test_a_wish_that_is_none_is_refused() -> None:
    with pytest.raises(InputError, match="--tags 'OC20': choose oc, or leave it out"):
        options_from({"tags": "OC20"})
    with pytest.raises(InputError, match=r"data\.tags.*expected 'oc'"):
        from_yaml(RECIPE.replace("train.npz", "train.npz, tags: OC20"), "recipe")


@pytest.mark.parametrize("name", ["pretrain", "pretrain-demo"])
def test_recipes_for_oc20_read_its_tags(name: str) -> None:
    path = Path(__file__).parents[1] / "training" / "recipes" / f"{name}.yaml"
    recipe = from_yaml(path.read_text(), name)
    assert isinstance(recipe, PretrainRecipe)
    asked = {task for task, section in recipe.tasks.items() if section.tags == "oc"}
    assert asked == {task for task in recipe.tasks if task.startswith("oc")} != set()


class Known(FrameList):
    """Knows sizes without reading."""

    def __getitem__(self, index: int) -> Frame:
        raise AssertionError("it was read")

    def n_atoms(self, index: int) -> int:
        return 7 + index


def test_sizes_are_known_without_reading_whatever_is_around_a_data_set() -> None:
    around = Subset(Concatenation([tagged(Known([None] * 3), None), Known([None] * 3)]), [4, 1])
    assert [around.n_atoms(0), around.n_atoms(1)] == [8, 8]


def test_molecules_and_tags_of_2_bring_no_warning() -> None:
    plain = make_frame("x", 0, numbers=[1, 1], positions=np.eye(3)[:2])
    two = make_frame("x", 0, numbers=[1, 1], positions=np.eye(3)[:2], tags=[2, 2])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [f.tags for f in frames(tagged(FrameList([plain, two]), None))] == [None, None]
