"""Hashes of data files, which runs and prepared data keep to say what they were made from."""

from __future__ import annotations

import hashlib
from pathlib import Path

from jmp_md.training.data.prepared import INDEX_FILE, PreparedDataset

Hash = str | dict[str, str]


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


def hash_of_data(path: Path) -> Hash:
    """Hash of a data file or folder, or those a prepared data set keeps of its sources."""
    return PreparedDataset(path).source if (path / INDEX_FILE).is_file() else sha256_of(path)
