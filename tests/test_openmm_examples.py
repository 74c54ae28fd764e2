"""The OpenMM examples run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch  # noqa: F401 - before openmm, or the TorchForce plugin does not load

pytest.importorskip("openmm")

from jmp_md.calculators.openmm_python import has_python_force
from jmp_md.calculators.openmm_torch import plugin_problem
from jmp_md.cli.main import main

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(name: str, *arguments: str) -> list[str]:
    command = [sys.executable, str(EXAMPLES / "openmm" / name), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, cwd=EXAMPLES.parent)
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


def test_ethanol_alone() -> None:
    lines = run("ethanol.py", "--steps", "40")
    assert len(lines) == 8
    energies = [float(line.split()[-2]) for line in lines[:4]]
    assert max(energies) - min(energies) < 1.0  # NVE


def test_ethanol_in_water() -> None:
    if not has_python_force(subset=True) and plugin_problem():
        pytest.skip("needs OpenMM 8.6, or TorchForce")
    lines = run("ethanol_in_water.py", "--steps", "12", "--waters", "100")
    assert len(lines) == 4
    assert float(lines[-1].split()[-2]) < 1.8  # Å


def test_restart_from_a_checkpoint() -> None:
    (line,) = run("restart.py", "--steps", "10")
    assert float(line.split()[-3]) < 1e-6


def test_plain_torchforce(tmp_path: Path) -> None:
    if problem := plugin_problem():
        pytest.skip(problem)
    structure, output = str(EXAMPLES / "ethanol.xyz"), str(tmp_path / "ethanol.pt")
    model = ["--model", "jmp-xs-rmd17-ethanol"]
    assert main(["export", *model, "--structure", structure, "--output", output]) == 0
    assert len(run("plain_torchforce.py", output, structure, "--steps", "8")) == 4
