"""From what the files hold to a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import atomic_numbers, chemical_symbols

from jmp_md.errors import InputError
from jmp_md.files import user_path
from jmp_md.header import HeadInfo
from jmp_md.training.config import build
from jmp_md.training.data.frame import frames
from jmp_md.training.data.open import open_dataset
from jmp_md.training.data.references import composition, fit_references, is_lone_atom
from jmp_md.training.recipe import Recipe
from jmp_md.training.start import same_level
from jmp_md.training.tuning.base import Untouched
from jmp_md.training.tuning.contents import Contents
from jmp_md.training.tuning.options import Options
from jmp_md.training.tuning.reading import Files, share
from jmp_md.yaml_text import read_yaml

GOOD_START = 0.6  # of the mean force: a head that errs less is kept
MANY_SYSTEMS = 10  # molecules or materials, from which whole ones validate
PASSES = 2000  # of 40 frames through the network in a first run
TRAINING_COST = 4.5  # times that of evaluating a frame
LEARNING_RATE = 1e-3


def make_recipe(
    name: str, base: str, files: Files, contents: Contents, found: Untouched, options: Options
) -> Recipe:
    """The recipe of a fine-tune.

    Args:
        name: Of the model.
        base: Name or path of the base.
        files: Where the frames are.
        contents: What they hold.
        found: What the base does on them.
        options: What the user wishes.

    Raises:
        InputError: A wish that cannot be granted.
    """
    kept = keeps_head(found, contents, options)
    data = _data(files, contents, options)
    n_train = round(len(contents.frames) * (1 - data["n_validation"] - data["n_test"]))
    own = "own" if found.head.name == "energy" else "energy"  # heads of one file differ in name
    model = {
        "name": name,
        "base": base,
        "head": found.head.name if kept and options.replay is None else own,
        "keep_head": found.head.name if kept else False,
        "references": references(base, found.head, contents, options.e0),
        "level_of_theory": options.level or "unknown",
        "data": ", ".join(files.train),
        "licence": options.licence or "unknown",
        "freeze": options.freeze,
        "lora": options.lora,
    }
    if not kept:  # graphs of the head that errs least, as those of several may differ
        model["graph"] = graph_of(found.head)
    stress = 30.0 if contents.stress else 0.0
    many = len(contents.formulas) > 1
    return build(
        Recipe,
        {
            "model": model,
            "data": data,
            "optimiser": _optimiser(n_train, contents, found, options),
            "loss": {"energy": 0.1 if many else 0.02, "forces": 1.0, "stress": stress},
            "replay": _replay(files, found, options),
            "seed": options.seed,
        },
    )


def _replay(files: Files, found: Untouched, options: Options) -> dict[str, Any] | None:
    if options.replay is None:
        return None
    return {"data": files.replay, "tags": options.tags, "head": found.head.name}


def keeps_head(found: Untouched, contents: Contents, options: Options) -> bool:
    """Whether to go on from the base's head: at its level of theory, or from a good start."""
    if options.keep_head is not None or options.head:
        return options.keep_head is not False
    if options.level and same_level(options.level, found.head.level_of_theory):
        return True
    return found.force_mae < GOOD_START * 1000 * contents.mean_force


def graph_of(head: HeadInfo) -> dict[str, Any]:
    """The graphs of a head as a recipe has them."""
    policy = head.graph
    if policy.kind == "official":
        return {
            "kind": "official",
            "cutoff": policy.cutoffs[0],
            "max_neighbors": policy.counts[0],
        }
    names = ("main", "atom_edge", "quadruplet", "atom_atom")
    return {"kind": "smooth", **dict(zip(names, policy.cutoffs, strict=True))}


def references(base: str, head: HeadInfo, contents: Contents, e0: str) -> dict[str, float]:
    """eV by symbol that energies of elements stay near to; empty to fit them alone.

    Raises:
        InputError: The base has none, or a file holds none that are of use.
    """
    symbols = [chemical_symbols[z] for z in contents.elements]
    if e0 == "base":
        known = {chemical_symbols[z]: energy for z, energy in head.references.items()}
        if missing := [symbol for symbol in symbols if symbol not in known]:
            raise InputError(
                f"--e0 base: the head {head.name!r} of {base} has no energy of "
                f"{', '.join(missing)}; leave --e0 out, or give a file"
            )
        return {symbol: known[symbol] for symbol in symbols}
    given = contents.lone_atoms if e0 == "fit" else _read_atoms(user_path(e0))
    given = {symbol: energy for symbol, energy in given.items() if symbol in symbols}
    if not given:
        if e0 != "fit":
            raise InputError(f"--e0 {e0}: it holds no isolated atom of {', '.join(symbols)}")
        return {}
    return given | _completed(contents, given)


def _completed(contents: Contents, given: dict[str, float]) -> dict[str, float]:
    """Energies of the elements that have none, fitted to what the others leave."""
    known = {atomic_numbers[symbol]: energy for symbol, energy in given.items()}
    kinds, left = [], []
    for frame in contents.frames:
        rest = tuple((z, n) for z, n in composition(frame) if z not in known)
        if frame.energy is not None and rest:
            kinds.append(rest)
            left.append(frame.energy - sum(known.get(int(z), 0.0) for z in frame.numbers))
    found = fit_references(kinds, left) if kinds else {}
    return {chemical_symbols[z]: energy for z, energy in found.items()}


def _read_atoms(path: Path) -> dict[str, float]:
    if path.suffix in (".yaml", ".yml", ".json", ".txt"):
        raw = read_yaml(path, f"--e0 {path}")
        if not isinstance(raw, dict) or not all(
            key in atomic_numbers and isinstance(value, int | float) for key, value in raw.items()
        ):
            raise InputError(f"--e0 {path}: give lines such as 'H: -13.6', in eV")
        return {symbol: float(energy) for symbol, energy in raw.items()}
    return {
        chemical_symbols[int(frame.numbers[0])]: frame.energy
        for frame in frames(open_dataset(path))
        if is_lone_atom(frame) and frame.energy is not None
    }


def _data(files: Files, contents: Contents, options: Options) -> dict[str, Any]:
    n = len(contents.frames)
    valid = share(options.valid) if options.valid else float(np.clip(10 / n, 0.1, 0.25))
    test = (share(options.test) if options.test else None) or 0.0
    valid = 0.0 if files.validation else valid or 0.0
    if valid + test >= 1:
        raise InputError(f"--valid {valid} and --test {test} leave no frames to train on")
    for part, size in (("--valid", valid), ("--test", test)):
        if 0 < size * n < 1:
            raise InputError(f"{part} {size} of {n} frames is less than one")
    return {
        "train": list(files.train),
        "validation": files.validation,
        "test": files.test,
        "options": files.reading,
        "tags": options.tags,
        "split": _split(contents),
        "n_train": None,
        "n_validation": valid or 0,
        "n_test": test or 0,
        "split_seed": options.seed,
        "max_force": options.max_force,
        "isolated_atoms": not contents.lone_atoms,
        "weights": options.weights,
        "single_molecule": contents.one_molecule,
    }


def _split(contents: Contents) -> str:
    if contents.found["systems"] >= MANY_SYSTEMS and len(contents.formulas) >= MANY_SYSTEMS:
        return "systems"
    return "stretches" if contents.trajectory else "frames"


def _optimiser(
    n_train: int, contents: Contents, found: Untouched, options: Options
) -> dict[str, Any]:
    batch = options.batch_size or _batch_size(n_train, contents.largest)
    steps_per_epoch = -(-n_train // batch)
    epochs = options.epochs
    if epochs is None:
        passes = PASSES * np.sqrt(n_train / 40)
        if options.max_minutes is not None:
            passes = min(passes, 60 * options.max_minutes / seconds_per_pass(contents, found))
        epochs = int(np.clip(round(passes / n_train), 1, 100))
    steps = epochs * steps_per_epoch
    return {
        "learning_rate": options.lr or LEARNING_RATE,
        "batch_size": batch,
        "epochs": epochs,
        "warmup_steps": min(100, steps // 10),
        "validate_every": max(steps // 12, min(10, steps_per_epoch)),
        "ema_decay": 0.99 if steps < 2000 else 0.995,
        "clip_norm": 10.0,
    }


def _batch_size(n_train: int, largest: int) -> int:
    """Few for few frames, so that there are steps enough; fewer of large structures."""
    wanted = 4 if n_train < 200 else 8 if n_train < 2000 else 16
    return max(min(wanted, 2000 // largest), 1)


def seconds_per_pass(contents: Contents, found: Untouched) -> float:
    """Processor time of a frame in training, by what it takes to evaluate one."""
    atoms = float(np.mean([len(frame) for frame in contents.frames]))
    return TRAINING_COST * found.seconds * atoms


def listed(names: Sequence[str], most: int = 6) -> str:
    """Names, of many the first few."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
