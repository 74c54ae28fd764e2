"""What an installed package holds."""

from __future__ import annotations

import configparser
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_file_that_is_no_module_is_package_data() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    data = {
        package: value.replace(",", " ").split()
        for package, value in config["options.package_data"].items()
    }
    missing = []
    for start in ("jmp_md", "training", "calculators"):
        top = "jmp_md" if start == "jmp_md" else f"jmp_md.{start}"
        for path in sorted((ROOT / start).rglob("*")):
            if path.is_dir() or path.suffix in (".py", ".pyc"):
                continue
            inside = path.relative_to(ROOT / start)
            names = [
                (".".join([top, *inside.parts[:k]]), "/".join(inside.parts[k:]))
                for k in range(len(inside.parts))
            ]
            if not any(fnmatch(n, glob) for p, n in names for glob in data.get(p, [])):
                missing.append(str(path.relative_to(ROOT)))
    assert not missing
