"""``jmp-md doctor``: test every engine and say what to install."""

from __future__ import annotations

import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    """There is nothing to choose."""


def run(args: argparse.Namespace) -> int:
    """Execute the command: 1 where something that is installed does not work."""
    from jmp_md.doctor import BROKEN, report, run_checks

    checks = run_checks()
    print(report(checks))
    return int(any(check.status == BROKEN for check in checks))
