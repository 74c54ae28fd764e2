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
from ase.io import read, write
from factories import write_model
from killing import killed

from jmp_md.cli.main import main
from jmp_md.errors import InputError
from jmp_md.simulate.relax import relax


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
