"""``jmp-md train``: fit a model by a recipe."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from signal import SIGTERM

_RECIPES = Path(__file__).parents[1] / "training" / "recipes"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("recipe", nargs="?", help="recipe file, or the name of one in the package")
    parser.add_argument("--list", action="store_true", help="list the recipes in the package")
    parser.add_argument("--data", default=".", help="folder of the data files (default: here)")
    parser.add_argument("--output", help="folder of the run (default: runs/NAME)")
    parser.add_argument(
        *("--restart", "--resume"),
        dest="resume",
        action="store_true",
        help="continue a run that was stopped",
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument(
        "--devices", type=int, default=1, help="devices of this machine to train on (default: 1)"
    )
    parser.add_argument(
        "--shard",
        action="store_true",
        help="split weights and optimiser between the devices, for models too large for one",
    )
    parser.add_argument(
        "--workers", type=int, default=0, help="processes per device that make batches (default: 0)"
    )
    parser.add_argument("--max-minutes", type=float, help="stop after the epoch this time falls in")
    parser.add_argument(
        "--epochs",
        type=int,
        help="epochs of the recipe; with --restart, more extend a finished run",
    )
    parser.add_argument(
        "--cache",
        type=float,
        metavar="GB",
        help="memory for pairs of atoms, all processes together (default: a quarter of the free)",
    )
    parser.add_argument("--tensorboard", action="store_true", help="also log for TensorBoard")
    parser.add_argument("--wandb", action="store_true", help="also log for Weights & Biases")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="change a recipe key"
    )
    parser.add_argument(
        "--scratch",
        action="store_true",
        help="the baseline of a recipe that fine-tunes: a new network of the same size",
    )
    parser.add_argument(
        "--print-config", action="store_true", help="print the whole recipe and stop"
    )


def run(args: argparse.Namespace) -> int:
    """Train, then measure the best model on the test frames."""
    from jmp_md.errors import InputError
    from jmp_md.training.distributed import launch
    from jmp_md.training.interruption import InterruptedRunError
    from jmp_md.training.recipe import load_recipe, to_yaml
    from jmp_md.training.session import train

    if args.list:
        _list()
        return 0
    if args.recipe is None:
        raise InputError("name a recipe or its file; 'jmp-md train --list' names those there are")
    if args.epochs is not None:
        args.set.append(f"optimiser.epochs={args.epochs}")
    recipe = load_recipe(find_recipe(args.recipe), args.set, args.scratch)
    if args.print_config:
        print(to_yaml(recipe), end="")
        return 0
    output = Path(args.output or f"runs/{recipe.model.name}")
    if args.devices > 1 and "WORLD_SIZE" not in os.environ:
        from jmp_md.cli.main import main

        return launch(main, _arguments(args, output), args.devices)
    try:
        model = train(
            recipe,
            Path(args.data),
            output,
            resume=args.resume,
            device=args.device,
            max_minutes=args.max_minutes,
            workers=args.workers,
            tensorboard=args.tensorboard,
            wandb=args.wandb,
            shard=args.shard,
            cache=None if args.cache is None else int(args.cache * 1e9),
        )
    except InterruptedRunError as stop:
        if os.environ.get("RANK", "0") == "0":
            print(stop, file=sys.stderr)
        return 128 + (stop.signum or SIGTERM)
    if os.environ.get("RANK", "0") == "0":
        print(f"model: {model}")
    return 0


def _arguments(args: argparse.Namespace, output: Path) -> list[str]:
    """The command line of each process of a run on several devices."""
    words = ["train", args.recipe, "--data", args.data, "--output", str(output)]
    words += ["--device", args.device, "--workers", str(args.workers)]
    words += [word for assignment in args.set for word in ("--set", assignment)]
    if args.cache is not None:
        words += ["--cache", str(args.cache)]
    if args.max_minutes is not None:
        words += ["--max-minutes", str(args.max_minutes)]
    words += [
        f"--{name}"
        for name in ("resume", "scratch", "tensorboard", "wandb", "shard")
        if getattr(args, name)
    ]
    return words


def _list() -> None:
    """Names of the recipes, each with the first sentence of its comment."""
    for path in sorted(_RECIPES.glob("*.yaml")):
        lines = path.read_text(encoding="utf-8").splitlines()
        about = " ".join(line[1:].strip() for line in lines if line.startswith("#"))
        print(f"{path.stem:20}{about.split('. ')[0].split(': ')[0].rstrip('.')}")


def find_recipe(recipe: str) -> Path:
    """File of a recipe: the one given, or one in the package where there is no such file."""
    packaged = _RECIPES / f"{recipe}.yaml"
    return packaged if packaged.is_file() and not Path(recipe).is_file() else Path(recipe)
