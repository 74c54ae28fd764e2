"""Fixtures every test may use."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from getpass import getuser
from pathlib import Path

import pytest

# Read when torch is loaded, here and in what tests start: threads that wait for each other slow
# small tensors a hundredfold.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENMM_CPU_THREADS", "1")
# Tests have caches of their own, but kernels are compiled once for all of them.
os.environ.setdefault("JMP_MD_KERNELS", str(Path(tempfile.gettempdir()) / f"jmp-md-{getuser()}"))

import torch


@pytest.fixture(autouse=True)
def _same_random_numbers() -> Iterator[None]:
    """Every test draws the same random weights, whatever ran before it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder with reference vectors and real data beside the repository; skips where absent."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip("the folder of reference data is not beside this checkout")
    return folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory and cache."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JMP_MD_HOME", str(tmp_path / "home"))
    return tmp_path
