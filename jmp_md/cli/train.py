"""``jmp-md train``: fit a potential by a recipe."""

from __future__ import annotations

import argparse
from pathlib import Path

NAME = "train"
HELP = "train a potential by a recipe"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("recipe", help="recipe file, or the name of one in the package")
    parser.add_argument("--data", default=".", help="folder of the data files (default: here)")
    parser.add_argument("--output", help="folder of the run (default: runs/NAME)")
    parser.add_argument("--resume", action="store_true", help="continue a run that was stopped")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument("--max-minutes", type=float, help="stop after the epoch this time falls in")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="change a recipe key"
    )
    parser.add_argument(
        "--print-config", action="store_true", help="print the whole recipe and stop"
    )


def run(args: argparse.Namespace) -> int:
    """Train, then measure the best model on the test frames."""
    from jmp_md.training.recipe import load_recipe, to_yaml
    from jmp_md.training.session import train

    recipe = load_recipe(_find(args.recipe), args.set)
    if args.print_config:
        print(to_yaml(recipe), end="")
        return 0
    output = Path(args.output or f"runs/{recipe.model.name}")
    model = train(
        recipe,
        Path(args.data),
        output,
        resume=args.resume,
        device=args.device,
        max_minutes=args.max_minutes,
    )
    print(f"model: {model}")
    return 0


def _find(recipe: str) -> Path:
    packaged = Path(__file__).parents[1] / "training" / "recipes" / f"{recipe}.yaml"
    return packaged if packaged.is_file() and not Path(recipe).exists() else Path(recipe)
