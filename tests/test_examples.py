"""The examples run, and what they show is right."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase.io import read

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(folder: Path, name: str, *arguments: str) -> list[str]:
    """Run an example in a folder; the lines it prints."""
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_proton_moves_over_a_symmetric_barrier(tmp_path: Path) -> None:
    lines = run(tmp_path, "malonaldehyde_proton_transfer.py")
    [barriers] = [line.split() for line in lines if line.startswith("barrier")]
    assert float(barriers[1]) == pytest.approx(float(barriers[4]), abs=1.0)
    # That the highest point is no saddle of the shipped model is a finding, which is told.
    [modes] = [line.split("[")[1].split("]")[0] for line in lines if line.startswith("lowest")]
    saddle = float(modes.split(",")[0]) < 0
    summary = (tmp_path / "malonaldehyde-transfer" / "summary.json").read_text()
    assert saddle != ("NOT a transition state" in summary)
    path = read(tmp_path / "malonaldehyde-transfer" / "path.extxyz", index=":")
    middle = path[len(path) // 2]
    assert middle.get_distance(4, 8) == pytest.approx(middle.get_distance(3, 8), abs=0.01)


def test_conformers_are_ranked_and_drawn(tmp_path: Path) -> None:
    lines = run(tmp_path, "aspirin_conformers.py", "3")
    assert sum(line.startswith("guess") for line in lines) == 3
    energies = [a.get_potential_energy() for a in read(tmp_path / "aspirin-conformers.extxyz", ":")]
    assert energies == sorted(energies)
    assert (tmp_path / "aspirin-conformers.svg").exists()


def test_guesses_turn_torsions_only() -> None:
    example = runpy.run_path(str(EXAMPLES / "aspirin_conformers.py"))
    start = read(EXAMPLES / "aspirin.xyz")
    bonded = np.triu(start.get_all_distances() < 1.7, k=1)
    for guess in example["guesses"](start, 5):
        np.testing.assert_allclose(
            guess.get_all_distances()[bonded], start.get_all_distances()[bonded], atol=1e-6
        )


def test_a_spectrum_has_the_stretching_modes(tmp_path: Path) -> None:
    lines = run(tmp_path, "ethanol_spectrum.py", "0.2")
    [harmonic] = [line for line in lines if line.startswith("harmonic")]
    assert len(harmonic.split()) == 23  # 21 modes of 9 atoms
    assert (tmp_path / "ethanol-spectrum.svg").exists()
