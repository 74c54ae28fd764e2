"""``import jmp_md`` is instant, offers the whole way, and its names are what they say."""

from __future__ import annotations

import pkgutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.calculators.emt import EMT

import jmp_md

WAY = [
    "JMPCalculator",
    "load_model",
    "evaluate",
    "relax",
    "md",
    "neb",
    "phonons",
    "vibrations",
    "finetune",
    "benchmark",
]


def in_a_fresh_process(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_import_loads_nothing_heavy_and_takes_no_time() -> None:
    code = (
        "import sys, time; before = set(sys.modules); t = time.process_time(); import jmp_md; "
        "dir(jmp_md); print(time.process_time() - t, *sorted(set(sys.modules) - before))"
    )
    seconds, *modules = in_a_fresh_process(code).split()
    assert float(seconds) < 0.1
    assert not {"torch", "ase", "numpy", "scipy", "matplotlib"} & set(modules)


@pytest.mark.parametrize("options", ["", ", kernels=False"])
def test_the_first_forces_load_no_compiler_and_no_other_part_of_the_package(options: str) -> None:
    """PyTorch's compiler and sympy take 2 s to import, more than all else but PyTorch itself."""
    code = (
        "import sys; from ase import Atoms; from jmp_md import JMPCalculator\n"
        "water = Atoms('H2O', [[0, 0.8, -0.5], [0, -0.8, -0.5], [0, 0, 0.1]])\n"
        f"water.calc = JMPCalculator('jmp-xs-organic'{options}); water.get_forces()\n"
        "print(*sys.modules)"
    )
    modules = in_a_fresh_process(code).split()
    packages = {name.partition(".")[0] for name in modules}
    assert not {"sympy", "scipy", "pydantic", "matplotlib", "openmm"} & packages
    assert not {"torch._dynamo", "torch._inductor", "ase.build", "ase.io"} & set(modules)
    ours = {name.split(".")[1] for name in modules if name.startswith("jmp_md.")}
    assert not {"cli", "check", "training", "simulate", "export", "analysis", "runs"} & ours


def test_dir_lists_the_whole_way_and_nothing_else() -> None:
    assert set(WAY) <= set(dir(jmp_md))
    assert dir(jmp_md) == sorted(jmp_md.__all__)
    assert all(callable(getattr(jmp_md, name)) for name in WAY)


def test_no_module_takes_the_name_of_a_function() -> None:
    """Importing a submodule would put it in the place of the function."""
    assert not {module.name for module in pkgutil.iter_modules(jmp_md.__path__)} & set(WAY)


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="relaxx"):
        _ = jmp_md.relaxx


def test_copper_from_the_front_door(tmp_path: Path) -> None:
    """EMT's lattice constant of copper is 3.59 Å (ASE's documentation of EMT)."""
    copper = bulk("Cu", a=3.7)
    copper.calc = EMT()
    relaxed = jmp_md.relax(copper, relax_cell=True, fmax=0.001).atoms
    assert relaxed.cell.cellpar()[0] * np.sqrt(2) == pytest.approx(3.59, abs=0.01)
    hot = relaxed * (2, 2, 2)
    hot.calc = EMT()
    result = jmp_md.md(hot, tmp_path / "md", ensemble="nve", steps=4, report=False)
    assert result.trajectory.exists()


def test_two_atoms_vibrate_with_their_force_constant() -> None:
    """A harmonic bond: the frequency is sqrt(k / mu), by hand."""
    from ase import units
    from ase.calculators.calculator import Calculator

    class Spring(Calculator):
        implemented_properties = ["energy", "forces"]  # noqa: RUF012

        def calculate(self, atoms=None, properties=None, system_changes=None) -> None:  # type: ignore[no-untyped-def]
            super().calculate(atoms, properties, system_changes)
            bond = atoms.positions[1] - atoms.positions[0]
            length = np.linalg.norm(bond)
            pull = 30.0 * (length - 1.1) * bond / length
            self.results = {"energy": 15.0 * (length - 1.1) ** 2, "forces": np.array([pull, -pull])}

    atoms = molecule("N2")
    atoms.set_distance(0, 1, 1.1)
    mu = atoms.get_masses()[0] / 2
    quantum = units._hbar * 1e10 / np.sqrt(units._e * units._amu)  # eV per sqrt(eV / Å^2 / amu)
    expected = quantum * np.sqrt(30.0 / mu) / units.invcm
    assert max(jmp_md.vibrations(atoms, Spring()).frequencies) == pytest.approx(expected, rel=1e-4)


def test_basin_hopping_of_ase_runs_and_an_atom_too_close_is_a_high_energy(tmp_path: Path) -> None:
    from ase.optimize.basin import BasinHopping

    atoms = molecule("CH3CH2OH")
    atoms.calc = jmp_md.JMPCalculator("jmp-xs-organic", dtype="float64")
    start = atoms.get_potential_energy()
    files = {name: str(tmp_path / name) for name in ("trajectory", "local_minima_trajectory")}
    logs = {"logfile": None, "optimizer_logfile": None}
    search = BasinHopping(atoms, temperature=0.1, dr=0.1, fmax=0.3, **files, **logs)
    search.run(1)
    assert search.get_minimum()[0] <= start
    close = molecule("CH3CH2OH")
    close.positions[8] = close.positions[2] + [0.05, 0.0, 0.0]
    close.calc = atoms.calc
    assert close.get_potential_energy() > start + 5.0
