"""Relaxations and bands that were stopped go on where they were."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.io import read, write
from ase.units import GPa
from factories import write_model
from killing import killed

from jmp_md.cli.main import main
from jmp_md.errors import InputError
from jmp_md.runs.elastic import run_elastic
from jmp_md.runs.eos import run_eos
from jmp_md.simulate.options import RelaxOptions
from jmp_md.simulate.relax import RelaxResult, relax, relax_batched
from jmp_md.simulate.relax.state import RelaxState


class Slow(EMT):
    """Takes its time, so that a kill finds it at work."""

    def calculate(self, *args: object, **options: object) -> None:
        time.sleep(0.005)
        super().calculate(*args, **options)


def crumpled() -> Atoms:
    atoms = bulk("Cu", cubic=True) * (2, 1, 1)
    atoms.rattle(0.2, seed=2)
    atoms.calc = Slow()
    return atoms


def frames(path: Path) -> list[Atoms]:
    return read(path, index=":")


def continue_crumpled(path: Path) -> None:
    relax(crumpled(), fmax=0.02, optimizer="FIRE", trajectory=path, restart=True)


def test_a_killed_relaxation_goes_on_from_its_last_step(tmp_path: Path) -> None:
    whole = relax(crumpled(), fmax=0.02, trajectory=tmp_path / "whole.traj")
    path = tmp_path / "parts.traj"
    rng, kills, seen = np.random.default_rng(3), 0, [0]
    for _ in range(40):
        if not killed(rng.uniform(0.03, 0.12), continue_crumpled, path):
            break
        kills += 1
        seen.append(len(frames(path)) if path.exists() and path.stat().st_size > 100 else 0)
    assert kills > 2
    assert seen == sorted(seen)  # no frame is lost
    progress: list[int] = []
    end = relax(
        crumpled(),
        fmax=0.02,
        optimizer="FIRE",
        trajectory=path,
        restart=True,
        progress=lambda *line: progress.append(line[0]),
    )
    steps = frames(path)
    assert end.converged
    assert end.steps == len(steps) - 1 == progress[-1]
    places = [atoms.positions.tobytes() for atoms in steps]
    assert len(set(places)) == len(places)  # none is there twice
    assert end.energy == pytest.approx(whole.energy, abs=1e-3)
    assert end.energy_change == pytest.approx(whole.energy_change, abs=1e-3)


def pressed_metals() -> list[Atoms]:
    metals = [bulk("Cu", a=3.8), bulk("Al", a=3.9) * (2, 1, 1), bulk("Ni", a=3.4)]
    for i, atoms in enumerate(metals):
        atoms.rattle(0.05, seed=i)
    return metals


def continue_metals(folder: Path) -> list[RelaxResult]:
    options = RelaxOptions(relax_cell=True, pressure=2.0, fmax=1e-3, optimizer="FIRE")
    around = (folder / "state", Slow(), options, True, lambda i: folder / f"{i}.traj")
    with RelaxState(*around) as record:
        return relax_batched(pressed_metals(), Slow(), options, batch_size=2, record=record)


def test_a_batch_of_cells_that_is_killed_ends_as_one_that_was_not(tmp_path: Path) -> None:
    """Under pressure, with a trajectory for each: none loses a frame or has one twice."""
    folders = [tmp_path / "whole", tmp_path / "parts"]
    for folder in folders:
        folder.mkdir()
    whole = continue_metals(folders[0])
    rng, kills = np.random.default_rng(5), 0
    while kills < 3 and killed(rng.uniform(0.2, 0.5), continue_metals, folders[1]):
        kills += 1
    ends = continue_metals(folders[1])
    assert kills == 3
    for i, (end, alone) in enumerate(zip(ends, whole, strict=True)):
        assert end.converged
        enthalpies = [each.energy + 2 * GPa * each.atoms.get_volume() for each in (end, alone)]
        assert enthalpies[0] == pytest.approx(enthalpies[1], abs=1e-6)
        assert end.energy_change == pytest.approx(alone.energy_change, abs=1e-3)
        assert end.atoms.get_volume() == pytest.approx(alone.atoms.get_volume(), rel=1e-3)
        steps = frames(folders[1] / f"{i}.traj")
        assert end.steps == len(steps) - 1
        places = [a.positions.tobytes() + a.cell.array.tobytes() for a in steps]
        assert len(set(places)) == len(places)
        assert steps[-1].get_stress() == pytest.approx(end.atoms.get_stress(), abs=1e-12)


def test_a_rise_before_a_kill_is_seen_after_it(tmp_path: Path) -> None:
    """Beyond its inflection LBFGS drives a dimer of argon apart, to where no forces are."""
    sigma = 3.4
    atoms = Atoms("Ar2", [[0, 0, 0], [0, 0, 1.4 * sigma]])
    atoms.calc = LennardJones(sigma=sigma, epsilon=0.0104, rc=10 * sigma)
    options = {"fmax": 1e-5, "optimizer": "LBFGS", "trajectory": tmp_path / "steps.traj"}
    stopped = relax(atoms, steps=8, **options)
    assert stopped.energy_change > 1e-3
    assert not stopped.converged
    with pytest.warns(UserWarning, match="the energy rose by"):
        end = relax(atoms, steps=2000, restart=True, **options)
    assert end.fmax < 1e-5
    assert not end.converged


def test_a_relaxation_is_not_continued_as_another(tmp_path: Path) -> None:
    path = tmp_path / "steps.traj"
    with pytest.raises(InputError, match="restart goes on from a trajectory"):
        relax(crumpled(), restart=True)
    relax(crumpled(), steps=1, trajectory=path)
    water = molecule("H2O")
    water.calc = EMT()
    with pytest.raises(InputError, match=r"formula: 'Cu8', now 'H2O'"):
        relax(water, trajectory=path, restart=True)
    path.write_bytes(b"no trajectory")
    with pytest.raises(InputError, match=r"cannot continue from .*steps.traj"):
        relax(crumpled(), trajectory=path, restart=True)


def test_batches_continue_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JMP_MD_HOME", str(tmp_path / "home"))
    model = str(write_model(tmp_path, head={"elements": (1, 8)}))
    structures = [molecule("H2O") for _ in range(3)]
    for i, atoms in enumerate(structures):
        atoms.rattle(0.1, seed=i)
    write("all.xyz", structures)
    command = ["relax", "all.xyz", "--model", model, "--batch-size", "2", "--fmax", "0.02"]
    real = os.replace

    def stop(source: str, target: Path) -> None:
        real(source, target)
        if Path(target).name == "state.npz":
            raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", stop)
    assert main(command) == 130
    monkeypatch.setattr("os.replace", real)
    assert main(command) == 1
    assert "holds a run" in capsys.readouterr().err
    assert main([*command, "--restart"]) == 0
    assert len(frames(Path("all-relax/relaxed.extxyz"))) == 3
    assert not list(tmp_path.glob("*/state"))


def test_a_run_on_a_crystal_goes_on_as_itself_only(tmp_path: Path) -> None:
    copper, options = bulk("Cu", cubic=True), {"relax": "none", "report": False}
    run_eos(copper, EMT(), tmp_path, **options)
    again = run_eos(copper, EMT(), tmp_path, restart=True, points=7, **options)
    assert len(again.volumes) == 7  # nothing of the other points is used
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(InputError, match=r"structures\.formula: 'Cu4', now 'Al4'"):
        run_eos(bulk("Al", cubic=True), EMT(), tmp_path, restart=True, **options)
    with pytest.raises(InputError, match="verb: 'eos', now 'elastic'"):
        run_elastic(copper, EMT(), tmp_path, restart=True, **options)
    with pytest.raises(InputError, match="model"):
        run_eos(copper, LennardJones(), tmp_path, restart=True, **options)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    (tmp_path / "run.json").unlink()
    with pytest.raises(InputError, match="of another kind or of an older jmp-md"):
        run_eos(copper, EMT(), tmp_path, restart=True, **options)
