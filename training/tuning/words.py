"""What a fine-tune says: what it saw, what it chose, how good the model is, what to do next."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from ase.data import chemical_symbols

from jmp_md.training.recipe import Recipe
from jmp_md.training.tuning.base import Untouched
from jmp_md.training.tuning.contents import Contents
from jmp_md.training.tuning.plan import listed, seconds_per_pass
from jmp_md.training.tuning.reading import Files

WIDTH, INDENT = 100, 14


def row(word: str, text: str) -> str:
    """A word, and what is to say of it."""
    return textwrap.fill(
        text, WIDTH, initial_indent=f"  {word}".ljust(INDENT), subsequent_indent=" " * INDENT
    )


def seen(files: Files, contents: Contents, found: Untouched, base: str) -> list[str]:
    """What the files hold and what the base does on it."""
    about = contents.found
    lines = [f"{', '.join(files.train)}: {len(contents.frames)} frames"]
    lines.append(row("structures", _structures(contents)))
    lines.append(row("elements", " ".join(chemical_symbols[z] for z in contents.elements)))
    lines.append(row("labels", _labels(files, contents)))
    forces = about["forces"]
    lines.append(
        row("forces", f"{forces['rms']:.3g} eV/Å rms, the strongest {forces['max']:.3g} eV/Å")
    )
    lines.append(row("units", _units(found, files)))
    if contents.trajectory:
        lines.append(row("order", "frames follow each other as in a trajectory"))
    if contents.lone_atoms:
        atoms = ", ".join(f"{s} {e:.4f} eV" for s, e in sorted(contents.lone_atoms.items()))
        lines.append(row("atoms", f"isolated ones give energies of elements: {atoms}"))
    if doubtful := _doubtful(about):
        lines.append(row("doubtful", doubtful))
    zero = 1000 * contents.mean_force
    energies = (
        ""
        if found.energy_mae is None
        else f", energies by {found.energy_mae:.1f} meV per atom once elements are fitted"
    )
    lines.append(
        row(
            "base",
            f"{base} untouched, its head {found.head.name} ({found.head.level_of_theory}): forces "
            f"off by {found.force_mae:.0f} meV/Å (mean force {zero:.0f}){energies}; "
            f"{found.n_frames} frames",
        )
    )
    return lines


def _structures(contents: Contents) -> str:
    formulas = [f"{name} ({count})" for name, count in contents.formulas.items()]
    sizes = contents.found["atoms"]
    atoms = f"{sizes['min']:.0f}"
    if sizes["max"] > sizes["min"]:
        atoms += f" to {sizes['max']:.0f}"
    if contents.one_molecule:
        return f"one molecule, {next(iter(contents.formulas))}, {atoms} atoms"
    kind = "crystals or surfaces" if contents.crystal else "molecules"
    low, high = contents.molecules
    if not contents.crystal and high > 1:
        each = f"{low}" if low == high else f"{low} to {high}"
        kind = f"frames of {each} separate molecules"
    where = {0: "not periodic", contents.found["frames"]: "periodic"}.get(
        contents.found["periodic"], f"{contents.found['periodic']} of them periodic"
    )
    many = len(contents.formulas)
    count = "one formula" if many == 1 else f"{many} formulas"
    return f"{kind}, {count}: {listed(formulas)}; {atoms} atoms, {where}"


def _labels(files: Files, contents: Contents) -> str:
    keys = files.reading
    parts = []
    for label in ("energy", "forces"):
        number = contents.found[label]["frames"]
        name = keys.get(f"{label}_key", label)
        some = "" if number == len(contents.frames) else f" in {number} frames"
        parts.append(("" if number else "no ") + name + some)
    stress = f"stress in {contents.stress}" if contents.stress else "no stress"
    if contents.stress == len(contents.frames):
        stress = keys.get("stress_key", "stress")
    others = sorted({name for frame in contents.frames[:20] for name in frame.others})
    unread = f" (not read: {listed(others)})" if others else ""
    return ", ".join((*parts, stress)) + unread


def _units(found: Untouched, files: Files) -> str:
    told = [str(value) for key, value in files.reading.items() if key.endswith("_unit")]
    if told:
        return f"as told: {', '.join(told)}; converted to eV, eV/Å and Å"
    if found.forces.sure:
        return (
            f"eV and Å: forces are {found.forces.slope:.2f} times those of the base (correlation "
            f"{found.forces.correlation:.2f})"
        )
    return "taken as eV and Å; the base knows too little of such structures to tell"


def _doubtful(about: Mapping[str, Any]) -> str:
    words = []
    if n := about["duplicates"]["number"]:
        words.append(f"{n} frames repeat the geometry of another ({_first(about['duplicates'])})")
    if n := about["outliers"]["force"]["number"]:
        first = _first(about["outliers"]["force"])
        words.append(f"{n} have forces above 50 eV/Å ({first}): --max-force 50 leaves them out")
    if n := about["outliers"]["energy"]["number"]:
        first = _first(about["outliers"]["energy"])
        words.append(f"{n} have energies far from the others' ({first}): look at them")
    return "; ".join(words)


def _first(found: Mapping[str, Any]) -> str:
    return "frame " + listed([str(k) for k in found["first"]], 4)


def chosen(
    recipe: Recipe, n_parts: Sequence[int], contents: Contents, found: Untouched
) -> list[str]:
    """What was chosen."""
    model, data, optimiser = recipe.model, recipe.data, recipe.optimiser
    train, validation, test = n_parts
    how = {
        "systems": "whole formulas or systems apart",
        "stretches": "by stretches of consecutive frames, neighbours together",
        "frames": "drawn at random",
    }[data.split]
    lines = ["chosen"]
    tested = f", {test} test" if test else ""
    lines.append(row("split", f"{train} frames train, {validation} validate{tested}; {how}"))
    head = f"goes on from the base's head {model.keep_head}" if model.keep_head else "a new one"
    lines.append(row("head", f"{head}; level of theory: {model.level_of_theory}"))
    near = "those given" if model.references else "the base's" if model.keep_head else "Z^(7/3)"
    lines.append(row("elements", f"their energies fitted, near {near} where frames do not tell"))
    for word, text in _ways(recipe):
        lines.append(row(word, text))
    passes = optimiser.epochs * train * (2 if recipe.replay else 1)
    minutes = passes * seconds_per_pass(contents, found) / 60
    lines.append(
        row(
            "training",
            f"{optimiser.epochs} epochs in steps of {optimiser.batch_size}, rate "
            f"{optimiser.learning_rate:g}; about {max(minutes, 0.1):.1f} minutes of one processor",
        )
    )
    return lines


def _ways(recipe: Recipe) -> list[tuple[str, str]]:
    """What is trained beside or in place of all weights."""
    model, replay = recipe.model, recipe.replay
    ways = []
    if replay is not None:
        on = replay.data or "your structures, labelled by the base"
        ways.append(("replay", f"the base's head {replay.head} stays and goes on with {on}"))
    if model.freeze:
        ways.append(("frozen", f"embeddings and the first {model.freeze} blocks of the base"))
    if model.lora:
        ways.append(("lora", f"updates of rank {model.lora} in place of all weights"))
    return ways


def result(
    name: str,
    model: str,
    contents: Contents | None,
    metrics: Mapping[str, Any],
    history: Sequence[Mapping[str, float]],
    found: Untouched | None,
) -> list[str]:
    """How good the model is, and the commands that use it."""
    tested = "force_mae_meV_per_A" in metrics
    key = "force_mae_meV_per_A" if tested else "validation_force_mae_meV_per_A"
    frames = "test" if tested else "validation"
    lines = [f"model {name}: {model}"]
    if key in metrics:
        before = f" (the base: {found.force_mae:.0f})" if found else ""
        lines.append(row("forces", f"{metrics[key]:.1f} meV/Å on {frames} frames{before}"))
    stress = key.replace("force_mae_meV_per_A", "stress_mae_meV_per_A3")
    if stress in metrics:
        lines.append(row("stress", f"{metrics[stress]:.2f} meV/Å³ on {frames} frames"))
    energy = metrics.get("energy_mae_meV")
    if energy is not None:
        lines.append(row("energies", f"{energy:.1f} meV per structure on test frames"))
    if len(history) > 1 and _best(history) == 0:
        text = "no epoch was better than the base: these are its weights, under another name"
        lines.append(row("unchanged", text))
    if len(history) > 1 and history[-1]["step"] == _best(history):
        lines.append(
            row(
                "not done",
                "errors still fell at the end: add epochs by the same command with "
                "--restart --epochs N",
            )
        )
    lines += [
        "go on with",
        f"  jmp-md relax molecule.xyz --model {name}",
        f"  jmp-md md molecule.xyz --model {name}",
        f"  jmp-md evaluate --model {name} --data other.xyz",
        f"  python: JMPCalculator({name!r})",
    ]
    return lines


def _best(history: Sequence[Mapping[str, float]]) -> float:
    key = "force_mae_meV_per_A"
    return min(history, key=lambda entry: entry.get(key, float("inf")))["step"]
