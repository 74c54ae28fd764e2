"""What a user may ask of a fine-tune: one definition for the command and for Python."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from jmp_md.errors import InputError

GROUPS = ("data", "training", "model", "run")


def _option(default: Any, group: str, metavar: str, text: str, *choices: str) -> Any:
    about = {"group": group, "metavar": metavar, "help": text, "choices": choices or None}
    return dataclasses.field(default=default, metadata=about)


@dataclass(frozen=True)
class Options:
    """Wishes besides the base and the files; what is None is chosen by what the files hold."""

    name: str | None = _option(
        None, "model", "NAME", "name that the model gets (default: that of the first file)"
    )
    valid: str | None = _option(
        None,
        "data",
        "FILE|SHARE",
        "file of validation frames, or their share, e.g. 0.1 (default: a tenth, and 10 at least)",
    )
    test: str | None = _option(
        None, "data", "FILE|SHARE", "file of test frames, or their share (default: none)"
    )
    energy_key: str | None = _option(None, "data", "KEY", "what the files call energies")
    forces_key: str | None = _option(None, "data", "KEY", "what the files call forces")
    stress_key: str | None = _option(None, "data", "KEY", "what they call stress, or a virial")
    energy_unit: str | None = _option(
        None, "data", "UNIT", "eV, kcal/mol or Ha (default: eV, and it is checked)"
    )
    force_unit: str | None = _option(
        None,
        "data",
        "UNIT",
        "eV/Å, kcal/mol/Å, Ha/Å, Ha/bohr or eV/bohr; with a minus before it, as in "
        "--force-unit=-Ha/bohr, for gradients",
    )
    length_unit: str | None = _option(None, "data", "UNIT", "Å, bohr or nm, of positions and cells")
    tags: str | None = _option(
        None,
        "data",
        "{oc}",
        "read OC20's tags from the files: 0 sub-surface, 1 surface, 2 adsorbate (default: all "
        "atoms get 2, right for molecules and bulk)",
        "oc",
    )
    max_force: float | None = _option(
        None, "data", "EV_PER_A", "leave out frames with a larger force, e.g. 50"
    )
    weights: str | None = _option(
        None, "data", "KEY", "what the files call the weight of a frame, e.g. config_weight"
    )
    e0: str = _option(
        "fit",
        "data",
        "FILE|fit|base",
        "energies of the elements: fitted to the frames and any isolated atoms among them (fit), "
        "near those of the base (base), or near those of a file of isolated atoms or of lines such "
        "as 'H: -13.6' (default: fit)",
    )
    epochs: int | None = _option(
        None, "training", "N", "passes over the frames (default: by their number)"
    )
    lr: float | None = _option(None, "training", "RATE", "highest learning rate (default: 1e-3)")
    batch_size: int | None = _option(
        None, "training", "N", "frames per step (default: by number and size of the frames)"
    )
    max_minutes: float | None = _option(
        None, "training", "MINUTES", "choose as many epochs as fit, and stop after this time"
    )
    seed: int = _option(0, "training", "N", "of split, order and new weights (default: 0)")
    keep_head: bool | None = _option(
        None,
        "model",
        "",
        "go on from the base's head, or draw a new one (default: keep it where it is a good start)",
    )
    head: str | None = _option(
        None, "model", "NAME", "head of the base to keep (default: the one that fits best)"
    )
    freeze: int = _option(
        0, "model", "N", "keep embeddings and the first N blocks of the base as they are"
    )
    lora: int | None = _option(
        None, "model", "R", "train updates of rank R of the base's layers, e.g. 8, not all weights"
    )
    replay: str | None = _option(
        None,
        "model",
        "FILE|auto",
        "keep the base's head, too, and go on training it on frames of its kind in FILE, or on "
        "your structures labelled by the base (auto), so that it does not forget",
    )
    level: str | None = _option(
        None, "model", "TEXT", "level of theory of the labels, e.g. PBE-D3/def2-SVP"
    )
    licence: str | None = _option(
        None, "model", "TEXT", "licence of the model (default: unknown; a base may impose its own)"
    )
    device: str | None = _option(
        None, "run", "DEVICE", "cpu or cuda (default: cuda where there is one)"
    )
    output: str | None = _option(None, "run", "FOLDER", "folder of the run (default: runs/NAME)")
    resume: bool = _option(False, "run", "", "continue a run that was stopped, or extend it")
    overwrite: bool = _option(
        False, "run", "", "replace the model of this name and the run in the folder"
    )
    print_recipe: bool = _option(
        False, "run", "", "print the recipe and stop; 'jmp-md train' takes it"
    )


def options_from(given: dict[str, Any]) -> Options:
    """Options by name.

    Raises:
        InputError: A name that is none, or options that exclude each other.
    """
    names = [field.name for field in dataclasses.fields(Options)]
    for name in given:
        if name not in names:
            raise InputError(f"option {name!r}: it is none of {', '.join(names)}")
    options = Options(**given)
    if options.resume and options.overwrite:
        raise InputError("--restart goes on with the run that --overwrite removes: choose one")
    if options.keep_head is False and options.head:
        raise InputError("--new-head and --head: a new head is none of the base's, leave out one")
    for field in dataclasses.fields(Options):
        value, known = getattr(options, field.name), field.metadata["choices"]
        if value is not None and known and value not in known:
            raise InputError(
                f"--{field.name} {value!r}: choose {' or '.join(known)}, or leave it out"
            )
    for name in ("epochs", "batch_size", "lr", "max_minutes", "max_force"):
        value = getattr(options, name)
        if value is not None and not value > 0:
            raise InputError(f"--{name.replace('_', '-')} {value}: must be above 0")
    return options
