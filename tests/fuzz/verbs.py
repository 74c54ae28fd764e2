"""Every verb with options of any kind, on two atoms and a small model."""

from __future__ import annotations

import argparse
import random
from pathlib import Path

from jmp_md.cli.main import COMMANDS, main, parser_for

from .mutate import TEXTS

NUMBERS = ("0", "1", "2", "-1", "3", "0.5", "1e-3", "-0.0", "nan", "inf", "1e-320", "x", "", "1.5")
FILES = ("h2.xyz", "cell.xyz", "empty.xyz", "none.xyz", ".", "random.safetensors", "/dev/null", "")
# What takes long, looks for other machines or does what no test may do.
LEFT_OUT = ("train", "doctor")
SKIPPED = ("ray", "compile", "help", "debug", "config", "num_workers", "device")
SHORT = {"steps": "2", "max_steps": "2", "n_images": "3", "supercell": "1", "images": "3"}


def verbs() -> dict[str, argparse.ArgumentParser]:
    """The parser of each verb."""
    parsers = {name: parser_for([name]).asked for name in COMMANDS if name not in LEFT_OUT}
    return {name: parser for name, parser in parsers.items() if parser is not None}


def command(rng: random.Random, name: str, parser: argparse.ArgumentParser) -> list[str]:
    """A command line: most of it sound, so that something is reached."""
    words = [name]
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            words += [rng.choice(list(action.choices)), rng.choice(TEXTS), rng.choice(FILES)]
        elif action.dest in SKIPPED or action.help == argparse.SUPPRESS:
            continue
        elif not action.option_strings:
            words += [_file(rng)] * (2 if name == "neb" else 1)
        elif action.dest == "model":
            words += ["--model", _pick(rng, "random.safetensors", FILES + TEXTS)]
        elif action.dest in SHORT:
            words += [action.option_strings[-1], _pick(rng, SHORT[action.dest], NUMBERS)]
        elif action.required or rng.random() < 0.25:
            words += _option(rng, action)
    return words


def _pick(rng: random.Random, usual: str, others: tuple[str, ...]) -> str:
    return usual if rng.random() < 0.85 else rng.choice(others)


def _file(rng: random.Random) -> str:
    return _pick(rng, rng.choice(FILES[:2]), FILES + TEXTS)


def _option(rng: random.Random, action: argparse.Action) -> list[str]:
    option = action.option_strings[-1]
    if action.nargs == 0:
        return [option]
    if action.choices:
        value = _pick(rng, str(rng.choice(list(action.choices))), TEXTS)
    elif action.type in (int, float) or action.metavar in ("X", "N"):
        value = _pick(rng, rng.choice(NUMBERS), TEXTS)
    elif action.dest in ("output", "json", "report"):
        value = _pick(rng, rng.choice(("out", "out.xyz", "out.html", "out.png")), FILES + TEXTS)
    else:
        value = rng.choice(NUMBERS + FILES + TEXTS)
    count = action.nargs if isinstance(action.nargs, int) else rng.choice((1, 1, 2, 3))
    several = count > 1 and (action.nargs not in (None, "?"))
    return [option, *[value] * count] if several else [f"{option}={value}"]


def run(words: list[str]) -> None:
    """Run a command line here; an exit of the parser is a result like any other."""
    try:
        status = main(words)
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    if status not in (0, 1, 2):
        raise AssertionError(f"exit status {status}")


def prepare(folder: Path) -> None:
    """Files that the commands name, and kernels that no command compiles any more."""
    from ase import Atoms
    from ase.io import write
    from factories import write_model

    from jmp_md import JMPCalculator

    model = write_model(folder, num_blocks=1)
    for dtype in ("float32", "float64"):
        Atoms(
            "H2", [[0, 0, 0], [0, 0, 0.8]], calculator=JMPCalculator(model, dtype=dtype)
        ).get_forces()
    write(folder / "h2.xyz", Atoms("H2", [[0, 0, 0], [0, 0, 0.8]]))
    write(folder / "cell.xyz", Atoms("He", cell=[3, 3, 3], pbc=True))
    (folder / "empty.xyz").write_text("")
