"""Typed recipes: what a training run does, read from YAML.

A recipe is of one of three kinds, told by its key ``task``: ``potential`` (the default), one head
for energies and forces; ``property``, one number or class per structure; ``pretrain``, a head per
data set on one backbone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field

from jmp_md.errors import InputError, shown
from jmp_md.nn.config import preset
from jmp_md.training.config import Section, Seed, build, flat, override, plain
from jmp_md.training.sections import (
    DataSection,
    LossSection,
    MixSection,
    ModelSection,
    OptimiserSection,
    ReplaySection,
    TargetSection,
    TaskSection,
)
from jmp_md.yaml_text import parse_yaml, read_yaml


class AnyRecipe(Section):
    """What every run has."""

    model: ModelSection
    optimiser: OptimiserSection = Field(default_factory=OptimiserSection)
    seed: Seed = 0


class Recipe(AnyRecipe):
    """Training of one head for energies and forces."""

    task: Literal["potential"] = "potential"
    data: DataSection
    loss: LossSection = Field(default_factory=LossSection)
    replay: ReplaySection | None = None


class PropertyRecipe(AnyRecipe):
    """Training of a property of whole structures."""

    task: Literal["property"] = "property"
    data: DataSection
    target: TargetSection


class PretrainRecipe(AnyRecipe):
    """Training of one backbone on several data sets, each with a head of its own."""

    task: Literal["pretrain"] = "pretrain"
    tasks: dict[str, TaskSection]
    mix: MixSection = Field(default_factory=MixSection)


STOPPING = ("epochs", "patience", "min_learning_rate", "max_skipped")
_KINDS: dict[str, type[AnyRecipe]] = {
    "potential": Recipe,
    "property": PropertyRecipe,
    "pretrain": PretrainRecipe,
}


def load_recipe(
    path: str | Path, overrides: list[str] | None = None, scratch: bool = False
) -> AnyRecipe:
    """Read a recipe.

    Args:
        path: The file.
        overrides: ``section.key=value`` with YAML values.
        scratch: Train a new network of the size of the base, see :func:`from_scratch`.

    Raises:
        InputError: No such file, not YAML, unknown key (with the nearest valid one), wrong type
            or range, or a molecule that was not given.
    """
    return _recipe(read_yaml(path, f"recipe {path}"), f"recipe {path}", overrides, scratch)


def from_yaml(
    text: str, where: str, overrides: list[str] | None = None, scratch: bool = False
) -> AnyRecipe:
    """As :func:`load_recipe`, of a text that messages call ``where``."""
    return _recipe(parse_yaml(text, where), where, overrides, scratch)


def _recipe(raw: Any, where: str, overrides: list[str] | None, scratch: bool) -> AnyRecipe:
    if not isinstance(raw, dict):
        raise InputError(f"{where} must be a mapping with sections model and data")
    for assignment in overrides or []:
        override(raw, assignment)
    if scratch:
        from_scratch(raw, where)
    kind = raw.get("task", "potential")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise InputError(f"recipe key task = {shown(kind)}: expected {', '.join(_KINDS)}")
    return build(_KINDS[kind], _filled(raw, _words(raw.get("model")), where))


def from_scratch(raw: dict[str, Any], where: str) -> None:
    """Turn a recipe that fine-tunes into its baseline, as the paper compares with.

    A new network of the same size, one rate for all of its layers, and that rate lowered on a
    plateau alone where the recipe does that: no warm-up, no cosine.

    Raises:
        InputError: The recipe has no base, or one that is no preset.
    """
    model, optimiser = raw.get("model", {}), raw.setdefault("optimiser", {})
    base = model.pop("base", None) if isinstance(model, dict) else None
    if not isinstance(base, str):
        raise InputError(f"{where} starts from no base: leave out --scratch")
    preset(base)
    model |= {"preset": base, "name": f"{model.get('name', base)}-scratch"}
    optimiser["layer_factors"] = {}
    if optimiser.get("plateau_patience") is not None:  # else nothing would lower the rate
        optimiser |= {"warmup_epochs": 0, "cosine_epochs": 0}


def to_yaml(recipe: AnyRecipe) -> str:
    """The recipe with every default written out; :func:`load_recipe` reads it back."""
    return yaml.safe_dump(plain(recipe), sort_keys=False)


def extended(recipe: AnyRecipe, begun: AnyRecipe) -> AnyRecipe:
    """``recipe`` for a run that was begun as ``begun``: the cosine ends where it did.

    More epochs than were planned go on at the rate that the cosine ended with.
    """
    new, old = recipe.optimiser, begun.optimiser
    end = old.cosine_epochs
    if end is None and new.epochs != old.epochs:
        end = float(old.epochs)
    if new.cosine_epochs is not None or end is None:
        return recipe
    optimiser = new.model_copy(update={"cosine_epochs": end})
    return recipe.model_copy(update={"optimiser": optimiser})


def differences(a: AnyRecipe, b: AnyRecipe) -> list[str]:
    """Keys in which two recipes differ, but for those that say when to stop and what to test."""
    one, other = (dict(flat(plain(_endless(recipe)))) for recipe in (a, b))
    return sorted(key for key in one | other if one.get(key) != other.get(key))


def differences_from(text: str, name: str, recipe: AnyRecipe) -> list[str]:
    """Those between a recipe that a run was begun with, as YAML, and the one it goes on with."""
    found = differences(from_yaml(text, name), recipe)
    if "tags:" in text:
        return found
    return [key for key in found if not key.endswith("tags")]  # they counted before the key was


def _endless(recipe: AnyRecipe) -> AnyRecipe:
    section = recipe.optimiser
    usual = {key: OptimiserSection.model_fields[key].default for key in STOPPING}
    if section.cosine_epochs is None:
        usual["cosine_epochs"] = float(section.epochs)
    update: dict[str, Any] = {"optimiser": section.model_copy(update=usual)}
    if isinstance(recipe, Recipe | PropertyRecipe):
        update["data"] = recipe.data.model_copy(update={"max_test": None})
    return recipe.model_copy(update=update)


def _words(model: Any) -> dict[str, str | None]:
    """What stands for ``{base}`` and ``{molecule}``."""
    section = model if isinstance(model, dict) else {}
    base = section.get("base") or section.get("preset", ModelSection.model_fields["preset"].default)
    molecule = section.get("molecule")
    return {"base": Path(str(base)).stem, "molecule": None if molecule is None else str(molecule)}


def _filled(value: Any, words: dict[str, str | None], where: str) -> Any:
    """``value`` with the words in their places in every text."""
    if isinstance(value, dict):
        return {key: _filled(item, words, where) for key, item in value.items()}
    if isinstance(value, str):
        for name, word in words.items():
            if f"{{{name}}}" in value:
                if word is None:
                    raise InputError(f"{where} needs one more word: add --set model.{name}=NAME")
                value = value.replace(f"{{{name}}}", word)
    return value
