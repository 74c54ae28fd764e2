"""Typed recipes: what a training run does, read from YAML."""

from __future__ import annotations

import dataclasses
import difflib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import yaml

from jmp_md.errors import InputError


@dataclass(frozen=True)
class ModelSection:
    """What is trained.

    Attributes:
        name: Name the finished model goes by.
        preset: Sizes of a new network, see :func:`jmp_md.nn.config.preset`.
        sizes: Sizes that differ from the preset.
        base: Checkpoint to start from (name or path) in place of a new network.
        graph: Options of :meth:`GraphPolicy.smooth`, or ``{kind: official, cutoff, max_neighbors}``.
        head: Name of the head.
        level_of_theory: Of the labels.
        data: Data set and licence, in words.
        licence: Licence of the weights.
    """

    name: str
    preset: str = "jmp-xs"
    sizes: dict[str, Any] = field(default_factory=dict)
    base: str | None = None
    graph: dict[str, Any] = field(default_factory=dict)
    head: str = "energy"
    level_of_theory: str = "unknown"
    data: str = "unknown"
    licence: str = "unknown"


@dataclass(frozen=True)
class DataSection:
    """Where frames come from; file names are relative to ``--data``.

    Attributes:
        train: File that training and validation frames are drawn from.
        test: File of test frames.
        n_train: Training frames.
        n_validation: Validation frames.
        split_seed: Seed of the shuffle (the paper's runs use 42).
        single_molecule: Whether all frames are one molecule, which then is the model's domain.
    """

    train: str
    test: str | None = None
    n_train: int = 950
    n_validation: int = 50
    split_seed: int = 42
    single_molecule: bool = False


@dataclass(frozen=True)
class OptimiserSection:
    """AdamW, a warm-up and a cosine, gradient clipping and averaged weights.

    Attributes:
        learning_rate: Highest rate.
        betas: Of AdamW.
        weight_decay: Of AdamW.
        batch_size: Structures per step.
        epochs: Passes over the training frames.
        warmup_epochs: Epochs from ``warmup_factor`` to the full rate.
        warmup_factor: Share of the rate at the first step.
        final_factor: Share of the rate at the end of the cosine.
        clip_norm: Largest norm of the gradient; None for no limit.
        ema_decay: Decay per step of the averaged weights, which validation and the model use.
    """

    learning_rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.01
    batch_size: int = 4
    epochs: int = 200
    warmup_epochs: float = 1.0
    warmup_factor: float = 0.1
    final_factor: float = 0.01
    clip_norm: float | None = 10.0
    ema_decay: float = 0.99


@dataclass(frozen=True)
class LossSection:
    """Weights of the terms: mean absolute energy error, mean length of the force error."""

    energy: float = 0.0
    forces: float = 1.0


@dataclass(frozen=True)
class Recipe:
    """A whole run."""

    model: ModelSection
    data: DataSection
    optimiser: OptimiserSection = field(default_factory=OptimiserSection)
    loss: LossSection = field(default_factory=LossSection)
    seed: int = 0


def load_recipe(path: str | Path, overrides: list[str] | None = None) -> Recipe:
    """Read a recipe; ``overrides`` are ``section.key=value`` with YAML values.

    Raises:
        InputError: No such file, not YAML, unknown key (with the nearest valid one), wrong type.
    """
    try:
        raw = yaml.safe_load(Path(path).read_text())
    except OSError as error:
        raise InputError(f"cannot read recipe {path}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise InputError(f"recipe {path} is not valid YAML: {error}") from error
    if not isinstance(raw, dict):
        raise InputError(f"recipe {path} must be a mapping with sections model and data")
    for override in overrides or []:
        _apply(raw, override)
    recipe = _build(Recipe, raw, "")
    assert isinstance(recipe, Recipe)
    return recipe


def to_yaml(recipe: Recipe) -> str:
    """The recipe with every default written out; :func:`load_recipe` reads it back."""
    plain = dataclasses.asdict(recipe)
    plain["optimiser"]["betas"] = list(plain["optimiser"]["betas"])
    return yaml.safe_dump(plain, sort_keys=False)


def _apply(raw: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator:
        raise InputError(f"--set {override!r}: write it as section.key=value")
    *path, last = key.strip().split(".")
    section = raw
    for part in path:
        section = section.setdefault(part, {})
        if not isinstance(section, dict):
            raise InputError(f"--set {override!r}: {part!r} is not a section")
    section[last] = yaml.safe_load(text)


def _build(cls: type, raw: Any, where: str) -> Any:
    """A dataclass from a mapping, section by section, refusing what does not belong."""
    if not isinstance(raw, dict):
        raise InputError(f"recipe section {where.rstrip('.')!r} must be a mapping, not {raw!r}")
    hints = get_type_hints(cls)
    for key in raw:
        if key not in hints:
            near = difflib.get_close_matches(str(key), hints, n=1)
            hint = f"did you mean {where}{near[0]}?" if near else f"known: {', '.join(hints)}"
            raise InputError(f"unknown recipe key {where}{key}: {hint}")
    values = {}
    for f in dataclasses.fields(cls):
        required = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        if f.name in raw:
            values[f.name] = _convert(raw[f.name], hints[f.name], f"{where}{f.name}")
        elif required:
            raise InputError(f"the recipe needs {where}{f.name}")
    return cls(**values)


def _convert(value: Any, kind: Any, name: str) -> Any:
    if dataclasses.is_dataclass(kind):
        return _build(kind, value, f"{name}.")  # type: ignore[arg-type]
    kinds = get_args(kind) if get_origin(kind) not in (dict, tuple) else ()
    if value is None and type(None) in kinds:
        return None
    kind = next((k for k in kinds if k is not type(None)), kind)
    if get_origin(kind) is tuple and isinstance(value, list | tuple):
        return tuple(float(v) for v in value)
    if get_origin(kind) is dict and isinstance(value, dict):
        return value
    if kind is float and isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            return float(value)  # YAML reads 1e-3 as a string
        except ValueError:
            pass
    elif (
        isinstance(kind, type)
        and isinstance(value, kind)
        and (kind is bool or not isinstance(value, bool))
    ):
        return value
    wanted = getattr(kind, "__name__", str(kind))
    raise InputError(f"recipe key {name} = {value!r}: expected {wanted}")
