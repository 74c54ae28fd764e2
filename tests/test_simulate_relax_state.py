"""Relaxations that were stopped go on as what they were, and never touch what is not theirs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.constraints import FixAtoms
from ase.io import read, write
from factories import write_model

from jmp_md.cli.main import main
from jmp_md.errors import InputError
from jmp_md.files import locked, locked_file
from jmp_md.simulate.options import RelaxOptions
from jmp_md.simulate.relax import RelaxResult, relax, relax_batched
from jmp_md.simulate.relax.relaxation import Relaxation
from jmp_md.simulate.relax.state import DONE, RelaxState
from jmp_md.simulate.state import NAME


def copper(seed: int = 0) -> Atoms:
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=seed)
    atoms.calc = EMT()
    return atoms


def kept(
    folder: Path, atoms: Atoms, steps: int = 500, trajectory: Path | None = None, **around: Any
) -> RelaxResult:
    options = RelaxOptions(steps=steps, fmax=0.01)
    where = None if trajectory is None else lambda index: trajectory
    with RelaxState(folder, EMT(), options, restart=True, trajectory=where) as state:
        [end] = relax_batched([atoms], EMT(), options, on_error="raise", record=state, **around)
    return end


def stop_at(step: int) -> Any:
    def observer(now: Relaxation) -> None:
        if now.steps == step:
            raise KeyboardInterrupt

    return observer


def test_an_interrupted_relaxation_goes_on_where_it_was(tmp_path: Path) -> None:
    whole = relax(copper(), fmax=0.01)
    with pytest.raises(KeyboardInterrupt):
        kept(tmp_path / "run", copper(), observer=stop_at(3))
    steps: list[int] = []
    end = kept(tmp_path / "run", copper(), observer=lambda now: steps.append(now.steps))
    assert steps[0] == 3
    assert end.converged
    assert end.energy == pytest.approx(whole.energy, abs=1e-4)
    assert end.energy_change == pytest.approx(whole.energy_change, abs=1e-4)
    again = kept(tmp_path / "run", copper(), observer=stop_at(0))  # nothing is computed
    assert again.energy == end.energy
    assert np.array_equal(again.atoms.positions, end.atoms.positions)
    assert np.array_equal(again.atoms.get_forces(), end.atoms.get_forces())


def test_a_trajectory_may_begin_on_the_way(tmp_path: Path) -> None:
    """What was done without it is not done again; steps and energies count from the start."""
    whole, path = relax(copper(), fmax=0.01), tmp_path / "steps.traj"
    with pytest.raises(KeyboardInterrupt):
        kept(tmp_path / "run", copper(), observer=stop_at(2))
    with (
        pytest.warns(UserWarning, match=r"steps\.traj lacks the steps 0 to 1, which were taken"),
        pytest.raises(KeyboardInterrupt),
    ):
        kept(tmp_path / "run", copper(), trajectory=path, observer=stop_at(3))
    assert [atoms.info["step"] for atoms in read(path, index=":")] == [2, 3]
    seen: list[int] = []

    def stop(now: Relaxation) -> None:
        seen.append(now.steps)
        if now.steps == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        kept(tmp_path / "run", copper(), trajectory=path, observer=stop)
    assert seen == [3, 4]
    with pytest.raises(KeyboardInterrupt):  # without it again, and further than it
        kept(tmp_path / "run", copper(), observer=stop_at(6))
    with pytest.warns(UserWarning, match=r"lacks the steps 5 to 5, which"):
        end = kept(tmp_path / "run", copper(), trajectory=path)
    steps = [atoms.info["step"] for atoms in read(path, index=":")]
    assert steps == [2, 3, 4, *range(6, end.steps + 1)]
    assert end.converged
    assert end.energy_change == pytest.approx(whole.energy_change, abs=1e-4)


def test_more_steps_go_on_from_where_too_few_ended(tmp_path: Path) -> None:
    first = kept(tmp_path / "run", copper(), steps=2)
    assert not first.converged
    end = kept(tmp_path / "run", copper(), steps=500)
    assert end.converged
    assert end.energy_change == pytest.approx(relax(copper()).energy_change, abs=1e-4)


CHANGES: dict[str, Any] = {
    "positions": lambda atoms: atoms.rattle(1e-4, seed=9),
    "masses": lambda atoms: atoms.set_masses([62.0] * 4),
    "constraints": lambda atoms: atoms.set_constraint(FixAtoms([1])),
    "cell": lambda atoms: atoms.set_cell(atoms.cell * 1.001),
}


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("where", ["moving", "done", "trajectory"])
def test_another_structure_is_refused_and_nothing_is_lost(
    tmp_path: Path, name: str, where: str
) -> None:
    run, steps = tmp_path / "run", tmp_path / "steps.traj"
    if where == "trajectory":
        relax(copper(), steps=2, trajectory=steps)
    elif where == "done":
        kept(run, copper())
    else:
        with pytest.raises(KeyboardInterrupt):
            kept(run, copper(), observer=stop_at(2))
    other = copper()
    CHANGES[name](other)
    before = {p: p.read_bytes() for p in (run / DONE, steps) if p.exists()}
    again = partial(relax, trajectory=steps, restart=True)
    with pytest.raises(InputError, match=rf"as another one; different: .*{name}.*: give what"):
        again(other) if where == "trajectory" else kept(run, other)
    assert {path: path.read_bytes() for path in before} == before
    if where == "moving":
        seen: list[int] = []
        kept(run, copper(), observer=lambda now: seen.append(now.steps))
        assert seen[0] == 2


def test_a_trajectory_is_not_continued_with_another_potential_or_pressure(tmp_path: Path) -> None:
    path = tmp_path / "steps.traj"
    relax(copper(), steps=2, trajectory=path, relax_cell=True)
    other = copper()
    other.calc = LennardJones(sigma=2.3, epsilon=0.3)
    for atoms, options, message in (
        (other, {"relax_cell": True}, r"model\.calculator"),
        (copper(), {"relax_cell": True, "pressure": 1.0}, r"settings\.pressure: 0\.0, now 1\.0"),
        (copper(), {}, r"settings\.cell: \[1, 1, 1, 1, 1, 1\], now None"),
    ):
        with pytest.raises(InputError, match=message):
            relax(atoms, trajectory=path, restart=True, **options)
    assert len(read(path, index=":")) == 3
    write(path, molecule("H2O"))
    with pytest.raises(InputError, match="does not say of which run it is"):
        relax(copper(), trajectory=path, restart=True)


def test_one_process_at_a_time_writes(tmp_path: Path) -> None:
    with locked(tmp_path / "run"), pytest.raises(InputError, match="another process is writing"):
        kept(tmp_path / "run", copper())
    path = tmp_path / "steps.traj"
    with locked_file(path), pytest.raises(InputError, match=r"another process .*steps\.traj"):
        relax(copper(), trajectory=path)
    assert not path.exists()
    relax(copper(), steps=1, trajectory=path)


def test_results_are_only_ever_added(tmp_path: Path) -> None:
    sizes, before = [], b""
    options = RelaxOptions(fmax=0.01)

    def look(index: int, end: RelaxResult) -> None:
        nonlocal before
        now = (tmp_path / DONE).read_bytes()
        assert now.startswith(before)
        before = now
        sizes.append((tmp_path / NAME).stat().st_size)

    with RelaxState(tmp_path, EMT(), options, restart=False) as state:
        relax_batched(map(copper, range(20)), EMT(), options, record=state, progress=look)
    assert len(sizes) == 20
    assert max(sizes) <= sizes[0] + 1000  # one on its way at most
    with (tmp_path / DONE).open("ab") as file:
        file.write(b'{"index": 20, "cut')  # as a kill leaves it
    with RelaxState(tmp_path, EMT(), options, restart=True) as state:
        assert isinstance(state.start(19, copper(19)), RelaxResult)
        assert state.start(20, copper(20)) is None
    assert (tmp_path / DONE).read_bytes() == before
    (tmp_path / DONE).write_bytes(b"no record\n" + before)
    with pytest.raises(InputError, match=r"cannot read line 1 of .*done\.jsonl"):
        RelaxState(tmp_path, EMT(), options, restart=True).__enter__()


def test_a_run_that_fails_at_once_leaves_nothing(tmp_path: Path) -> None:
    water = molecule("H2O")
    water.positions[1] = np.nan
    water.calc = LennardJones()
    with pytest.raises(InputError):
        kept(tmp_path / "run", Atoms(calculator=EMT()))
    assert not (tmp_path / "run").exists()


def shaken(count: int) -> list[Atoms]:
    structures = [molecule("H2O") for _ in range(count)]
    for i, atoms in enumerate(structures):
        atoms.rattle(0.1, seed=i)
    return structures


@pytest.mark.parametrize("batch", [(), ("--batch-size", "2")])
def test_folders_of_others_and_their_files_stay(
    here: Path, batch: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(write_model(here, head={"elements": (1, 8)}))
    write("all.xyz", shaken(2))
    mine = [Path("all-relax/state/precious.txt"), Path("all-relaxed.state/precious.txt")]
    for path in mine:
        path.parent.mkdir(parents=True)
        path.write_text("years of work")
    assert main(["relax", "all.xyz", "--model", model, "--fmax", "0.05", *batch]) == 0
    assert [path.read_text() for path in mine] == ["years of work"] * 2
    assert [len(list(path.parent.iterdir())) for path in mine] == [1, 1]
    found = read("all-relax/relaxed.extxyz", index=":")
    assert [atoms.info["index"] for atoms in found] == [0, 1]
    assert all(atoms.info["converged"] for atoms in found)


@pytest.mark.parametrize("size", ["1", "2"])
def test_a_run_is_not_continued_with_other_structures_or_another_model(
    here: Path, size: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = str(write_model(here, head={"elements": (1, 8)}))
    write("all.xyz", shaken(3))
    command = ["relax", "all.xyz", "--model", model, "--batch-size", size, "--fmax", "0.05"]
    real = RelaxState.end

    def end(self: RelaxState, index: int, result: RelaxResult) -> None:
        real(self, index, result)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RelaxState, "end", end)
        assert main(command) == 130
    assert "the same command with --restart goes on" in capsys.readouterr().out
    write("all.xyz", shaken(3)[::-1])
    assert main([*command, "--restart"]) == 1
    assert "(structure 0) as another one; different: positions" in capsys.readouterr().err
    write("all.xyz", shaken(3))
    other = Path(write_model(here, "other", num_blocks=1, head={"elements": (1, 8)}))
    first = Path(model).read_bytes()
    Path(model).write_bytes(other.read_bytes())
    assert main([*command, "--restart"]) == 1
    assert "model.sha256" in capsys.readouterr().err
    Path(model).write_bytes(first)
    Path(model).rename("moved.safetensors")
    Path("moved.safetensors").rename(model)
    assert main([*command, "--restart"]) == 0
    assert not list(here.glob("*/state"))


@pytest.mark.parametrize("batch", [(), pytest.param(("--batch-size", "4"), marks=pytest.mark.slow)])
def test_sigterm_keeps_what_is_finished(here: Path, batch: tuple[str, ...]) -> None:
    model = str(write_model(here, num_blocks=1, head={"elements": (1, 8)}))
    write("all.xyz", [molecule("H"), *shaken(1)])
    command = [sys.executable, "-m", "jmp_md.cli.main", "relax", "all.xyz", "--model", model]
    command += ["--fmax", "1e-12", "--steps", "1000000", *batch]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, encoding="utf-8", env=environment
    ) as process:
        assert process.stdout is not None
        seen = ""
        for line in process.stdout:
            seen += line
            second = "structure 2 of 2" in seen and line.startswith("  step")
            if second or (batch and "structure 1 of 2: converged" in line):
                break
        process.send_signal(signal.SIGTERM)
        rest = process.communicate(timeout=60)[0]
    assert process.returncode == 143, seen + rest
    assert "the same command with --restart goes on" in rest
    [atoms] = read("all-relax/relaxed.extxyz", index=":")
    assert atoms.get_chemical_formula() == "H"
    steps = ["--steps", "30"]
    restarted = subprocess.run(
        [*command, *steps, "--restart"], capture_output=True, text=True, env=environment
    )
    assert restarted.returncode == 2, restarted.stderr
    rows = json.loads(Path("all-relax/summary.json").read_text())["results"]["structures"]
    assert rows[0]["converged"]
    assert len(read("all-relax/relaxed.extxyz", index=":")) == 2
