"""Hashes of data files, which runs and prepared data keep to say what they were made from."""

from __future__ import annotations

import hashlib
from pathlib import Path


def sha256_of(path: str | Path) -> str:
    """SHA-256 of a file; of a folder, that of the names and hashes of the files below it."""
    path = Path(path)
    total = hashlib.sha256()
    if path.is_file():
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                total.update(block)
        return total.hexdigest()
    for member in sorted(p for p in path.rglob("*") if p.is_file()):
        total.update(f"{member.relative_to(path)} {sha256_of(member)}\n".encode())
    return total.hexdigest()
