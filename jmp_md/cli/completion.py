"""``jmp-md completion``: have a shell complete commands, options and files."""

from __future__ import annotations

import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("shell", choices=("bash", "zsh", "tcsh"), help="which")
    parser.epilog = (
        "bash: jmp-md completion bash >> ~/.bash_completion; "
        "zsh: jmp-md completion zsh > FOLDER/_jmp-md, a folder of fpath"
    )


def run(args: argparse.Namespace) -> int:
    """Execute the command."""
    import shtab

    from jmp_md.cli.main import COMMANDS, parser_for

    parser = parser_for([], whole=COMMANDS)
    for action in parser.files:
        action.complete = shtab.FILE  # type: ignore[attr-defined]
    print(shtab.complete(parser, args.shell))
    return 0
