"""The shipped models anew on a GPU: one command, ten minutes each, the most important first.

    python benchmarks/organic_data.py PRETRAIN --frames 100000 --extra extra.npz --output DATA
    cp RMD17/rmd17_*.npz DATA
    python benchmarks/gpu_training.py DATA --output trained
    python benchmarks/gpu_training.py DATA --output trained --device cpu --quick   # all lines of it

Each model first trains for a few steps, which tell how many epochs its minutes hold: a schedule of
the learning rate has to know its end. What is finished is not done again, what was stopped goes on.
models.md tells errors and times.
"""

from __future__ import annotations

import argparse
import csv
import shutil
from pathlib import Path
from typing import Any, NamedTuple

from pretraining import MOLECULES, finished

from jmp_md.checkpoints.native import read_header
from jmp_md.cli.train import find_recipe
from jmp_md.training.recipe import PretrainRecipe, Recipe, load_recipe
from jmp_md.training.session import train, training_frames
from jmp_md.training.trainer import LAST_FILE, LOG_FILE, MODEL_FILE

TRIAL = 40  # steps
ORGANIC = "jmp-xs-organic"
# About two million parameters; the widest that kernels for processors take.
WIDER = (
    "model.name=jmp-sm-organic", "model.base=null", "model.sizes.emb_size_atom=128",
    "model.sizes.emb_size_edge=128", "model.sizes.num_blocks=3",
)  # fmt: skip


class Model(NamedTuple):
    """What is trained.

    Attributes:
        name: Of its folder.
        recipe: Packaged.
        batch: Structures per step.
        changes: Of the recipe.
        base: Folder of the model it goes on from, where that is another of these.
    """

    name: str
    recipe: str
    batch: int
    changes: tuple[str, ...]
    base: str = ""


MODELS = (
    Model(ORGANIC, "organic", 64, (f"model.base={ORGANIC}", "optimiser.learning_rate=2.0e-3")),
    *(
        Model(f"jmp-xs-rmd17-{name}", "rmd17-xs", 16, (f"model.molecule={name}",), ORGANIC)
        for name in dict.fromkeys(("ethanol", "aspirin", *MOLECULES))
    ),
    Model("jmp-sm-organic", "organic", 64, WIDER),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--output", type=Path, default=Path("trained"))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--minutes", type=float, default=10.0, help="for each model")
    parser.add_argument("--models", nargs="+", default=[model.name for model in MODELS])
    parser.add_argument(
        "--quick", action="store_true", help="one validation of each, small batches"
    )
    args = parser.parse_args()
    for model in MODELS:
        if model.name in args.models:
            run(model, args)
            (args.output / "models.md").write_text(table(args.output), encoding="utf-8")
    print(table(args.output))


def run(model: Model, args: argparse.Namespace) -> None:
    """Train a model for its minutes, unless that was done."""
    folder = args.output / model.name
    if finished(folder) is not None:
        return
    recipe = of(model, args, 1)
    if not (folder / LAST_FILE).exists():
        steps = steps_in(model, recipe, args)
        frames = sum(len(each) for each in training_frames(recipe, args.data).values())
        epochs = max(round(steps * recipe.optimiser.batch_size / frames), 1)
        (args.output / f"{model.name}.epochs").write_text(str(epochs), encoding="utf-8")
    epochs = int((args.output / f"{model.name}.epochs").read_text(encoding="utf-8"))
    print(f"{model.name}: {epochs} epochs", flush=True)
    most = 0.0 if args.quick else 1.5 * args.minutes
    train(of(model, args, epochs), args.data, folder, resume=(folder / LAST_FILE).exists(),
          device=args.device, max_minutes=most)  # fmt: skip


def of(model: Model, args: argparse.Namespace, epochs: int, *more: str) -> Recipe | PretrainRecipe:
    """The recipe of a model."""
    base = args.output / model.base / MODEL_FILE
    changes = [*model.changes, *([f"model.base={base}"] if model.base and base.exists() else [])]
    batch = 4 if args.quick else model.batch
    changes += [f"optimiser.batch_size={batch}", f"optimiser.epochs={epochs}",
                f"optimiser.validate_every={TRIAL if args.quick else 500}", *more]  # fmt: skip
    recipe = load_recipe(find_recipe(model.recipe), changes)
    assert isinstance(recipe, Recipe | PretrainRecipe)
    return recipe


def steps_in(model: Model, recipe: Recipe | PretrainRecipe, args: argparse.Namespace) -> float:
    """How many steps the minutes of a model hold, by a short run."""
    folder = args.output / f"{model.name}.trial"
    shutil.rmtree(folder, ignore_errors=True)
    trial = of(model, args, 1, f"optimiser.validate_every={TRIAL}")
    train(trial, args.data, folder, device=args.device, max_minutes=0.0)
    with (folder / LOG_FILE).open(encoding="utf-8") as lines:
        rows: list[dict[str, Any]] = list(csv.DictReader(lines))
    seconds = float(rows[-1]["seconds"]) / float(rows[-1]["step"])
    shutil.rmtree(folder)
    return 60 * args.minutes / seconds


def table(output: Path) -> str:
    """Validation errors of what is finished, as Markdown."""
    lines = ["| model | epochs | hours | force error, meV/Å |", "|---|---|---|---|"]
    for model in MODELS:
        folder = output / model.name
        if (found := finished(folder)) is None:
            continue
        training = read_header(folder / MODEL_FILE).training
        ending = "force_mae_meV_per_A"
        known = {k.removesuffix(ending): v for k, v in found.items() if k.endswith(ending)}
        errors = [f"{name.strip('_') or 'test'} {error:.1f}" for name, error in known.items()]
        lines.append(
            f"| {model.name} | {training.get('epochs', '')} | {found['hours']:.2f} | "
            f"{', '.join(errors)} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
