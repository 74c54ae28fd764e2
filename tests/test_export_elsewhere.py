"""Exported files in C++, and in the torch of another environment."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from factories import write_model

from jmp_md import JMPCalculator
from jmp_md.export import export
from jmp_md.units import EV_IN_KJ_PER_MOL

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")

ROOT = Path(__file__).parents[1]
OTHER = os.environ.get("JMP_MD_OTHER_PYTHON", "")

# Loads both forms with torch alone, and prints energies in eV and forces in eV/Å.
RUN = """
import json, sys, torch
general, fixed, data = sys.argv[1:]
atoms = json.load(open(data))
x = torch.tensor(atoms["positions"], dtype=torch.float64)
cell = torch.tensor(atoms["cell"], dtype=torch.float64)
numbers = torch.tensor(atoms["numbers"])
with torch.jit.optimized_execution(False):
    found = torch.jit.load(general)(
        x, numbers, cell[None], torch.tensor([[True] * 3]), torch.zeros_like(numbers)
    )
    nm = (x / 10).requires_grad_()
    energy = torch.jit.load(fixed)(nm, cell / 10)
    energy.backward()
assert "jmp_md" not in sys.modules
results = [found[0].item(), found[1].tolist(), energy.item(), (-nm.grad).tolist()]
print(json.dumps({"torch": torch.__version__, "results": results}))
"""


def relative(got: object, expected: object) -> float:
    a, b = np.asarray(got, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    return float(np.abs(a - b).max() / np.abs(b).max())


def crystal() -> Atoms:
    atoms = bulk("Si", cubic=True)
    atoms.rattle(0.05, seed=0)
    return atoms


@pytest.mark.parametrize("writer", ["this", "other"])
def test_files_load_in_older_and_newer_versions_of_torch(tmp_path: Path, writer: str) -> None:
    if not OTHER:
        pytest.skip("set JMP_MD_OTHER_PYTHON to the Python of an environment with another torch")
    atoms = crystal()
    model = write_model(tmp_path, num_blocks=1)
    files = [tmp_path / "general.pt", tmp_path / "fixed.pt"]
    common = ["-m", "jmp_md.cli.main", "export", "--model", str(model), "--dtype", "float64"]
    atoms.write(tmp_path / "crystal.xyz")
    here, there = (sys.executable, OTHER) if writer == "this" else (OTHER, sys.executable)
    for path, options in zip(
        files, ([], ["--structure", str(tmp_path / "crystal.xyz")]), strict=True
    ):
        subprocess.run(
            [here, *common, "--output", str(path), *options],
            check=True,
            capture_output=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
    data = tmp_path / "atoms.json"
    lists = {"positions": atoms.positions, "numbers": atoms.numbers, "cell": atoms.cell.array}
    data.write_text(json.dumps({name: array.tolist() for name, array in lists.items()}))
    done = subprocess.run(
        [there, "-c", RUN, *map(str, (*files, data))], check=True, capture_output=True, text=True
    )
    printed = json.loads(done.stdout.splitlines()[-1])
    assert (printed["torch"] == torch.__version__) == (writer == "other")
    energy, forces, kilojoules, gradients = printed["results"]
    atoms.calc = JMPCalculator(model, dtype="float64", device="cpu")
    assert relative(energy, atoms.get_potential_energy()) < 1e-12
    assert relative(forces, atoms.get_forces()) < 1e-11
    assert relative(kilojoules, atoms.get_potential_energy() * EV_IN_KJ_PER_MOL) < 1e-12
    assert relative(gradients, atoms.get_forces() * EV_IN_KJ_PER_MOL * 10) < 1e-11


def test_the_example_in_cpp_computes_what_ase_does(tmp_path: Path) -> None:
    if shutil.which("cmake") is None or shutil.which("c++") is None:
        pytest.skip("needs cmake and a C++ compiler")
    if torch.version.cuda is not None:
        pytest.skip("libtorch of a CUDA build needs the whole CUDA toolkit; run with a CPU build")
    source, build = ROOT / "examples" / "cpp", tmp_path / "build"
    for command in (
        [
            "cmake",
            "-S",
            source,
            "-B",
            build,
            f"-DCMAKE_PREFIX_PATH={torch.utils.cmake_prefix_path}",
        ],
        ["cmake", "--build", build],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    atoms = molecule("CH3CH2OH")
    atoms.write(tmp_path / "ethanol.xyz")
    model = write_model(tmp_path, num_blocks=1)
    export(model, tmp_path / "m.pt", dtype="float64")
    program = build / "jmp_energy"
    done = subprocess.run(
        [program, tmp_path / "m.pt", tmp_path / "ethanol.xyz"],
        capture_output=True,
        text=True,
        check=True,
    )
    first, _, *rows = done.stdout.splitlines()
    atoms.calc = JMPCalculator(model, dtype="float64", device="cpu")
    # The file has eight decimals of the positions, and so has what is printed.
    assert float(first.split()[1]) == pytest.approx(atoms.get_potential_energy(), abs=1e-5)
    printed = np.array([[float(x) for x in row.split()] for row in rows])
    assert np.abs(printed - atoms.get_forces()).max() < 1e-5
    failed = subprocess.run(
        [program, tmp_path / "m.pt", tmp_path / "none.xyz"], capture_output=True, text=True
    )
    assert failed.returncode == 1
    assert "none.xyz: the first line must be the number of atoms" in failed.stderr
