"""``jmp-md finetune``: a model of one's own from a base and files of labelled frames."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from signal import SIGTERM
from typing import Any

from jmp_md.training.tuning.options import GROUPS, Options

_TYPES: dict[str, Any] = {"str": str, "int": int, "float": float}
_ABOUT = """\
Fine-tune a model on your own data, in one command.

  jmp-md finetune jmp-xs-organic mydata.xyz --name mymodel

BASE is a model that 'jmp-md models' lists, or a file of one: jmp-xs-organic for molecules of
H C N O F P S Cl Br, jmp-xs for anything else. FILE is anything that holds structures with energies
and forces: extended xyz, .traj, .db, OUTCAR, vasprun.xml, npz, ... The command says what it sees in
the files and what the base does on them, chooses everything else, trains, and registers the model,
so that 'jmp-md relax x.xyz --model mymodel' and JMPCalculator("mymodel") work."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = _ABOUT
    parser.add_argument("base", metavar="BASE", help="name or file of the model to start from")
    parser.add_argument("files", nargs="+", metavar="FILE", help="labelled frames")
    groups = {name: parser.add_argument_group(name) for name in GROUPS}
    for field in dataclasses.fields(Options):
        _add(groups[field.metadata["group"]], field)


def _add(group: Any, field: dataclasses.Field[Any]) -> None:
    about, flag = field.metadata, "--" + field.name.replace("_", "-")
    if field.type == "bool":
        names = ("--restart", flag) if field.name == "resume" else (flag,)
        group.add_argument(*names, dest=field.name, action="store_true", help=about["help"])
    elif field.name == "keep_head":
        group.add_argument(flag, action="store_const", const=True, default=None, help=about["help"])
        group.add_argument(
            "--new-head", dest=field.name, action="store_const", const=False, help="see above"
        )
    else:
        kind = _TYPES[str(field.type).split(" ")[0]]
        group.add_argument(
            flag,
            type=kind,
            default=field.default,
            choices=about["choices"],
            metavar=about["metavar"],
            help=about["help"],
        )


def run(args: argparse.Namespace) -> int:
    """Look, choose, train and register."""
    from jmp_md.training.interruption import InterruptedRunError
    from jmp_md.training.tuning.run import finetune

    given = {field.name: getattr(args, field.name) for field in dataclasses.fields(Options)}
    try:
        finetune(args.base, args.files, **given)
    except InterruptedRunError as stop:
        print(stop, file=sys.stderr)
        return 128 + (stop.signum or SIGTERM)
    return 0
