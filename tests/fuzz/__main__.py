"""Fuzz for a time: ``python -m tests.fuzz --minutes 20``; exit code 1 where something is found."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # where the tests' own modules are


def main() -> int:
    """Run, in processes that may crash."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", default=[], help="kinds whose names have these words")
    parser.add_argument("--journal", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.journal:
        from .worker import work

        with tempfile.TemporaryDirectory() as folder:
            seconds = 60 * args.minutes
            work(Path(folder).resolve(), seconds, args.seed, args.only, args.journal)
        return 0
    findings, counts = fuzz(60 * args.minutes, args.seed, args.only)
    for kind, (tried, accepted) in counts.items():
        print(f"{kind:24}{tried:8} inputs, {accepted} accepted")
    for finding in findings:
        print(json.dumps(finding, indent=1))
    print(f"{sum(n for n, _ in counts.values())} inputs, {len(findings)} findings")
    return int(bool(findings))


def fuzz(
    seconds: float, seed: int, only: list[str]
) -> tuple[list[dict[str, Any]], dict[str, tuple[int, int]]]:
    """Findings, one for each place in the code, and inputs tried and accepted by kind."""
    findings: dict[str, dict[str, Any]] = {}
    counts: dict[str, tuple[int, int]] = {}
    end = time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as folder:
        for k in range(1000):
            left = end - time.monotonic()
            if left < min(5.0, seconds / 2):
                break
            journal = Path(folder) / f"{k}.jsonl"
            options = ["--minutes", str(left / 60), "--seed", str(seed), "--journal", str(journal)]
            only_options = ["--only", *only] if only else []
            command = [sys.executable, "-B", "-X", "faulthandler", "-m", str(__package__)]
            # The package is `fuzz` where pytest imports it and `tests.fuzz` by command.
            root = Path(__file__).resolve().parents[str(__package__).count(".") + 1]
            paths = os.pathsep.join([str(root), *filter(None, [os.environ.get("PYTHONPATH")])])
            result = subprocess.run(
                [*command, *options, *only_options],
                capture_output=True,
                text=True,
                env={**os.environ, "PYTHONPATH": paths},
            )
            lines = journal.read_text().splitlines() if journal.exists() else []
            for finding in map(json.loads, lines):
                place = finding["found"][:40] + "".join(finding["trace"][-3:])
                findings.setdefault(finding["kind"] + place, finding)
            current = journal.with_suffix(".next")
            if result.returncode != 0:
                last = json.loads(current.read_text()) if current.exists() else {"seed": seed}
                tail = result.stderr[-1500:]
                crash = {**last, "found": f"ended with {result.returncode}", "trace": [tail]}
                findings[json.dumps(last)] = crash
                seed = last["seed"] + 1_000_003 * (k + 1)
                if not current.exists():  # it did not even begin
                    break
                continue
            found = json.loads(journal.with_suffix(".counts").read_text())
            for kind, tried in found["tried"].items():
                before = counts.get(kind, (0, 0))
                accepted = found["accepted"].get(kind, 0)
                counts[kind] = before[0] + tried, before[1] + accepted
            break
    return list(findings.values()), counts


if __name__ == "__main__":
    sys.exit(main())
