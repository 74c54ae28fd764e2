"""``jmp-md convert``: turn an official checkpoint into a model file of this project."""

from __future__ import annotations

import argparse
from pathlib import Path


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("checkpoint", help="official .pt or .ckpt file, or a name such as jmp-s")
    parser.add_argument("out", type=Path, help="model file to write, *.safetensors")
    parser.add_argument(
        "--weights", choices=("ema", "raw"), default="ema", help="which weights (default: ema)"
    )
    parser.add_argument("--name", help="name in the header (default: stem of OUT)")
    parser.add_argument(
        "--ignore-global",
        metavar="NAME",
        action="append",
        default=[],
        help="class the checkpoint may mention and that is skipped, never run; repeat for more",
    )


def run(args: argparse.Namespace) -> int:
    """Execute the command."""
    from jmp_md.checkpoints.native import SUFFIX, write_native
    from jmp_md.checkpoints.official import read_official, to_native
    from jmp_md.errors import InputError
    from jmp_md.models.registry import resolve

    if args.out.suffix != SUFFIX:
        raise InputError(f"cannot write {args.out}: the name of a model file ends in {SUFFIX}")
    source = resolve(args.checkpoint)
    if source.suffix == SUFFIX:
        raise InputError(f"{source} is a native model file already: use it as it is")
    checkpoint = read_official(source, weights=args.weights, ignore=args.ignore_global)
    header, state = to_native(checkpoint, args.name or args.out.stem)
    write_native(args.out, header, state)
    size = args.out.stat().st_size / 1e6
    heads = ", ".join(head.name for head in header.heads)
    print(f"{args.out}: {size:.1f} MB, {header.weights} weights, heads {heads}; {header.licence}")
    return 0
