"""A fine-tune from files to a model with a name."""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jmp_md.checkpoints.native import read_header
from jmp_md.errors import InputError
from jmp_md.files import require_writable
from jmp_md.load import usable_device
from jmp_md.models.registry import add_model, model_file, models_dir, require_free
from jmp_md.training.data.frame import Frame, Subset
from jmp_md.training.recipe import Recipe, load_recipe, to_yaml
from jmp_md.training.session import chosen_frames, split_of, train
from jmp_md.training.trainer import LAST_FILE, LOG_FILE, MODEL_FILE, RECIPE_FILE
from jmp_md.training.tuning import words
from jmp_md.training.tuning.base import Untouched, base_header, best_untouched, fitting_heads
from jmp_md.training.tuning.contents import Contents, contents_of, overlap
from jmp_md.training.tuning.options import Options, options_from
from jmp_md.training.tuning.plan import make_recipe
from jmp_md.training.tuning.reading import Files, find_files, read_files
from jmp_md.training.tuning.units import along_forces, check_energies, check_forces, check_lengths

SPLIT_FILE = "split.json"


def finetune(
    base: str | Path,
    files: str | Path | Sequence[str | Path],
    *,
    say: Callable[[str], object] = print,
    **options: Any,
) -> Path | None:
    """Fine-tune a model on files of labelled frames and register it by name.

    Args:
        base: Name that ``jmp-md models`` lists, or file of a model.
        files: What to train on: a file, or several.
        say: Takes each line of what was seen and chosen.
        **options: Of :class:`jmp_md.training.tuning.options.Options`, as ``jmp-md finetune --help``
            explains them, e.g. ``name="mymodel"``, ``valid="0.1"``, ``epochs=20``.

    Returns:
        The model file; the registry has a copy under the name. None where only the recipe was
        asked for.

    Raises:
        InputError: Files, options or a name that cannot be used; nothing was trained then.
        ModelNotFoundError: The base is not at hand.
        InterruptedRunError: SIGINT or SIGTERM came; ``resume=True`` goes on.
    """
    wishes = options_from(options)
    paths = [files] if isinstance(files, str | Path) else list(files)
    source = str(base)
    if (path := model_file(base)) is not None:
        source = str(path.resolve())
    name = wishes.name or _name_after(paths)
    output = Path(wishes.output or f"runs/{name}")
    device = str(usable_device(wishes.device))
    if not wishes.print_recipe:
        _check_places(name, output, wishes)
    contents: Contents | None = None
    found: Untouched | None = None
    if wishes.resume:
        folder, recipe = _begun(output, paths, wishes)
        say(f"goes on as {output / RECIPE_FILE} says; of the options only --epochs, --max-minutes "
            "and --device count")  # fmt: skip
    else:
        own = read_files(paths, wishes)
        contents, found = look(source, own, wishes)
        recipe = make_recipe(name, source, own, contents, found, wishes)
        parts = _parts(own, contents, recipe)
        folder = own.folder
        if wishes.print_recipe:
            say(f"# jmp-md train THIS_FILE --data {folder}")
            say(to_yaml(recipe).rstrip())
            return None
        for line in words.seen(own, contents, found, source):
            say(line)
        for line in words.chosen(recipe, parts, contents, found):
            say(line)
        if wishes.overwrite:
            for file in (LAST_FILE, LOG_FILE, MODEL_FILE, RECIPE_FILE, SPLIT_FILE):
                (output / file).unlink(missing_ok=True)
    model = train(
        recipe,
        folder,
        output,
        resume=wishes.resume,
        device=device,
        max_minutes=wishes.max_minutes,
    )
    add_model(name, model, force=wishes.overwrite or wishes.resume)
    metrics = read_header(model).metrics
    history = _history(output / LOG_FILE)
    for line in words.result(name, str(model), contents, metrics, history, found):
        say(line)
    return model


def look(base: str, files: Files, options: Options) -> tuple[Contents, Untouched]:
    """What files hold and what the base does on it.

    Raises:
        InputError: Frames that cannot be learned from, elements that the base does not know, or
            units that look wrong.
    """
    check_lengths(files.frames, options.length_unit)
    contents = contents_of(files.frames)
    header = base_header(base, contents.elements, options.head)
    heads = fitting_heads(header, contents.elements, options.head) or list(header.heads)
    found = best_untouched(base, heads, contents.frames)
    along = along_forces(contents.frames)
    check_forces(found.forces, along, options.force_unit)
    check_energies(contents.frames, found.energies, along, options.energy_unit)
    if options.weights:
        weights = [frame.targets[options.weights] for frame in contents.frames]
        if min(weights) < 0 or not any(weights):
            raise InputError(
                f"--weights {options.weights}: they are {min(weights):g} to {max(weights):g}; give "
                "numbers from 0 on, not all of them 0"
            )
    if options.freeze > header.architecture.num_blocks:
        raise InputError(
            f"--freeze {options.freeze}: {base} has {header.architecture.num_blocks} blocks"
        )
    if options.stress_key and not contents.stress:
        raise InputError(
            f"--stress-key {options.stress_key}: no frame is periodic in three directions, and "
            "stress needs a cell; leave it out, or give frames with cells"
        )
    return contents, found


def _check_places(name: str, output: Path, options: Options) -> None:
    """Refuse what would lose the work at its end."""
    require_free(name, options.overwrite or options.resume, "replace it with --overwrite")
    require_writable(models_dir())
    require_writable(output)
    if (output / LAST_FILE).exists() and not (options.resume or options.overwrite):
        raise InputError(
            f"{output} holds a run: go on with it by --restart, replace it by --overwrite, or "
            "choose another --name or --output"
        )


def _begun(output: Path, paths: Sequence[str | Path], options: Options) -> tuple[Path, Recipe]:
    """Folder of the data and recipe of a run that was stopped."""
    if not (output / LAST_FILE).exists():
        raise InputError(f"{output} holds no run to resume: leave out --restart")
    changes = [] if options.epochs is None else [f"optimiser.epochs={options.epochs}"]
    recipe = load_recipe(output / RECIPE_FILE, changes)
    if not isinstance(recipe, Recipe):
        raise InputError(f"{output} holds a run of another kind: resume it with 'jmp-md train'")
    name = options.name or _name_after(paths)
    if recipe.model.name != name:  # whose model in the registry would be replaced
        raise InputError(
            f"the run in {output} is of {recipe.model.name!r}, not of {name!r}: resume it with "
            f"--name {recipe.model.name}"
        )
    return find_files(paths, options)[0], recipe


def _parts(files: Files, contents: Contents, recipe: Recipe) -> tuple[int, int, int]:
    """Frames that train, validate and test; they are told apart.

    Raises:
        InputError: A part is empty, or frames to train on are validated or tested on.
    """
    section = recipe.data
    dataset = chosen_frames(section, files.folder, section.train)
    split = split_of(recipe, dataset)
    learned = [dataset[int(k)] for k in split.train]
    if not learned:
        raise InputError("the split leaves no frames to train on: give more, or smaller shares")
    parts: dict[str, tuple[str | None, list[Frame]]] = {"training": (None, learned)}
    for part, name, drawn in (
        ("validation", files.validation, split.val),
        ("test", files.test, split.test),
    ):
        others = (
            Subset(dataset, drawn) if name is None else chosen_frames(section, files.folder, name)
        )
        parts[part] = (name, [others[k] for k in range(len(others))])
    _refuse_overlaps(parts)
    sizes = [len(part) for _, part in parts.values()]
    if not sizes[1]:
        raise InputError("there are no validation frames: give a larger share as --valid")
    return sizes[0], sizes[1], sizes[2]


def _refuse_overlaps(parts: Mapping[str, tuple[str | None, list[Frame]]]) -> None:
    """Frames that are in two parts, of which one has a file of its own; others were drawn apart.

    Raises:
        InputError: There are some.
    """
    purpose = {"training": "train", "validation": "validate"}
    for first, second in itertools.combinations(parts, 2):
        (one, seen), (other, left) = parts[first], parts[second]
        if one is None and other is None:
            continue
        if same := overlap(seen, left):
            place = f" in {other}" if other else ""
            raise InputError(
                f"{same} of {len(left)} {second} frames{place} are among those that "
                f"{purpose[first]}: errors on them would look better than they are; give other "
                "frames, or leave them out of one file"
            )


def _name_after(paths: Sequence[str | Path]) -> str:
    stem = Path(paths[0]).name.split(".")[0].lower() if paths else ""
    return re.sub(r"[^a-z0-9._+-]", "-", stem).strip("-._+")


def _history(path: Path) -> list[dict[str, float]]:
    with path.open(encoding="utf-8") as file:
        return [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]
