"""Many runs in one batch are the runs they would be alone; a bad one harms no other."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.emt import EMT
from factories import random_potential
from killing import killed

from jmp_md.batch import Result
from jmp_md.calculators.ase import JMPCalculator
from jmp_md.errors import InputError
from jmp_md.runs.md import run_md
from jmp_md.runs.md import run_md_replicas as run_md_replicas_with_report
from jmp_md.simulate.md import ReplicaResult
from jmp_md.simulate.trajectory.formats import read_frames
from jmp_md.systems import BatchedSystems


def calculator() -> JMPCalculator:
    return JMPCalculator(random_potential(), dtype="float64", device="cpu", skin=0.05)


def run_md_replicas(*args: Any, **options: Any) -> list[ReplicaResult]:
    return run_md_replicas_with_report(*args, **({"report": False} | options))


def water() -> Atoms:
    return molecule("H2O")


def table(log: Path) -> np.ndarray:
    return np.genfromtxt(log, delimiter=",", names=True)


def files(folder: Path) -> dict[str, bytes]:
    """What the runs wrote; HDF5 notes the way it was written, so that its frames are compared."""
    found = {}
    for path in sorted(folder.glob("replica-*/*")):
        name = str(path.relative_to(folder))
        if path.suffix == ".h5":
            frames = [(a.info["step"], a.positions, a.get_momenta()) for a in read_frames(path)]
            found[name] = repr(frames).encode()
        else:
            found[name] = path.read_bytes()
    return found


@pytest.mark.parametrize("ensemble", ["nve", "nvt-langevin", "nvt-bussi", "nvt-nose-hoover"])
def test_the_first_replica_is_the_run_alone(ensemble: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"ensemble": ensemble, "steps": 12, "interval": 4}
    options |= {"seed": 5, "temperature": 200}
    structures = [water(), molecule("CO2")]
    results = run_md_replicas(structures, calculator(), tmp_path / "all", replicas=2, **options)
    assert len(results) == 4
    atoms = water()
    atoms.calc = calculator()
    alone = run_md(atoms, tmp_path / "alone", report=False, **options)
    assert results[0].atoms.positions == pytest.approx(alone.atoms.positions, abs=1e-9)
    assert results[0].atoms.get_momenta() == pytest.approx(alone.atoms.get_momenta(), abs=1e-8)
    logs = [table(result.log)["conserved_eV"] for result in (results[0], alone)]
    assert logs[0] == pytest.approx(logs[1], abs=1e-8)
    assert not np.allclose(results[0].atoms.positions, results[1].atoms.positions, atol=1e-3)
    assert all(result.error is None for result in results)


def test_replicas_of_other_seeds_share_no_trajectory(tmp_path: Path) -> None:
    ends = []
    for seed in range(3):
        found = run_md_replicas(
            [water()], EMT(), tmp_path / str(seed), replicas=3, steps=3, seed=seed
        )
        ends += [result.atoms.get_momenta()[0] for result in found]
    apart = [abs(a - b).max() for i, a in enumerate(ends) for b in ends[:i]]
    assert min(apart) > 1e-3


def test_energy_is_conserved_in_a_batch(tmp_path: Path) -> None:
    results = run_md_replicas(
        [water()],
        calculator(),
        tmp_path,
        replicas=3,
        ensemble="nve",
        steps=60,
        timestep=0.25,
        interval=3,
    )
    for result in results:
        log = table(result.log)
        assert np.ptp(log["total_eV"]) < 0.02 * np.ptp(log["kinetic_eV"])
        assert np.ptp(log["kinetic_eV"]) > 0


@pytest.mark.parametrize("trajectory", ["extxyz", "h5"])
def test_stopped_replicas_continue_bit_for_bit(trajectory: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"replicas": 3, "ensemble": "nve", "temperature": 600}
    options |= {"steps": 20, "interval": 2, "save_interval": 7, "trajectory": trajectory}
    run_md_replicas([water()], calculator(), tmp_path / "whole", **options)

    def stop(step: int, lines: Any) -> None:
        if step == 12:  # the last state is that of step 7
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_md_replicas([water()], calculator(), tmp_path / "parts", progress=stop, **options)
    results = run_md_replicas([water()], calculator(), tmp_path / "parts", restart=True, **options)
    assert files(tmp_path / "parts") == files(tmp_path / "whole")
    steps = [frame.info["step"] for frame in read_frames(results[2].trajectory)]
    assert steps == list(range(0, 21, 2))


def explode(monkeypatch: pytest.MonkeyPatch, key: int, call: int) -> None:
    """Make the forces on a system absurd from a call on."""
    real, calls = BatchedSystems.compute, []

    def absurd(systems: BatchedSystems, *args: Any, **options: Any) -> list[Result]:
        calls.append(0)
        results = real(systems, *args, **options)
        if len(calls) > call and key in systems.keys:
            i = systems.keys.index(key)
            results[i] = replace(results[i], forces=1e6 * np.ones_like(results[i].forces))
        return results

    monkeypatch.setattr(BatchedSystems, "compute", absurd)


@pytest.mark.parametrize("trajectory", ["extxyz", "h5"])
def test_a_bad_replica_is_dropped_and_the_rest_finish(
    trajectory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = water()
    broken.positions[0, 0] = np.nan
    structures = [water(), broken, water()]
    options: dict[str, Any] = {"ensemble": "nve", "interval": 2, "trajectory": trajectory}
    run_md_replicas([water()], calculator(), tmp_path / "alone", steps=8, **options)
    explode(monkeypatch, key=1, call=3)  # the broken one never got a key
    seen: list[int] = []
    results = run_md_replicas(
        structures,
        calculator(),
        tmp_path / "all",
        steps=8,
        report=True,
        progress=lambda step, lines: seen.append(len(lines)),
        **options,
    )
    assert seen == [2, 2, 1, 1, 1]
    assert [result.steps for result in results] == [8, 0, 2]
    assert results[0].error is None
    assert "not finite" in str(results[1].error)
    assert "it exploded: its temperature is" in str(results[2].error)
    assert [a.info["step"] for a in read_frames(results[2].trajectory)] == [0, 2]
    end = read_frames(results[2].trajectory)[-1]  # not the start, as if nothing had happened
    assert np.array_equal(results[2].atoms.positions, end.positions)
    alone = table(tmp_path / "alone/replica-000/log.csv")
    assert table(results[0].log)["total_eV"] == pytest.approx(alone["total_eV"], abs=1e-9)
    summary = json.loads((tmp_path / "all/summary.json").read_text())
    assert set(summary["results"]["dropped"]) == {"1", "2"}
    page = (tmp_path / "all/report.html").read_text(encoding="utf-8")
    assert "3 replicas, 2 dropped" in page
    assert "replica 2 was dropped after step 2: it exploded" in page
    again = run_md_replicas(
        structures, calculator(), tmp_path / "all", steps=10, restart=True, **options
    )
    assert [result.steps for result in again] == [10, 0, 2]
    assert again[2].error == results[2].error


def continue_replicas(folder: Path, options: dict[str, Any]) -> None:
    run_md_replicas([water()], calculator(), folder, restart=True, **options)


def test_killed_replicas_lose_and_double_no_frame(tmp_path: Path) -> None:
    options: dict[str, Any] = {"replicas": 2, "ensemble": "nvt-langevin", "temperature": 500}
    options |= {"steps": 60, "interval": 1, "save_interval": 3, "trajectory": "h5"}
    run_md_replicas([water()], calculator(), tmp_path / "whole", **options)
    rng, kills = np.random.default_rng(1), 0
    for _ in range(8):
        if not killed(rng.uniform(0.1, 0.4), continue_replicas, tmp_path / "parts", options):
            break
        kills += 1
    assert kills > 1
    results = run_md_replicas([water()], calculator(), tmp_path / "parts", restart=True, **options)
    for result in results:
        steps = [frame.info["step"] for frame in read_frames(result.trajectory)]
        assert steps == list(range(61))
    assert files(tmp_path / "parts") == files(tmp_path / "whole")


def test_what_cannot_be_meant_is_refused(tmp_path: Path) -> None:
    model = calculator()
    run = tmp_path / "run"
    with pytest.raises(InputError, match="periodic in three directions"):
        run_md_replicas([water()], model, run, ensemble="npt")
    with pytest.raises(InputError, match="0 structures, 1 replicas"):
        run_md_replicas([], model, run)
    with pytest.raises(InputError, match="no option timstep: did you mean timestep"):
        run_md_replicas([water()], model, run, timstep=1.0)
    assert not run.exists()
    run_md_replicas([water()], model, run, steps=1)
    with pytest.raises(InputError, match=r"holds a run.*--restart"):
        run_md_replicas([water()], model, run, steps=1)
    with pytest.raises(InputError, match=r"replicas: 1, now 2"):
        run_md_replicas([water()], model, run, steps=1, replicas=2, restart=True)
    with pytest.raises(InputError, match="structures: 1, now 2"):
        run_md_replicas([water(), water()], model, run, steps=1, restart=True)


def test_a_full_disk_leaves_a_state_to_continue_from(tmp_path: Path) -> None:
    import resource

    options: dict[str, Any] = {"replicas": 2, "ensemble": "nve", "steps": 12, "interval": 1}
    options |= {"save_interval": 3, "trajectory": "h5"}
    run_md_replicas([water()], calculator(), tmp_path / "whole", **options)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = (tmp_path / "whole/replica-000/trajectory.h5").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size * 9 // 10, limits[1]))  # writes fail from here
    try:
        with pytest.raises(OSError, match="File too large"):
            run_md_replicas([water()], calculator(), tmp_path / "parts", **options)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    run_md_replicas([water()], calculator(), tmp_path / "parts", restart=True, **options)
    assert files(tmp_path / "parts") == files(tmp_path / "whole")


def test_replicas_with_the_same_momenta_are_refused(tmp_path: Path) -> None:
    moving = water()
    moving.set_momenta(np.ones((3, 3)))
    with pytest.raises(InputError, match="one and the same run in nve"):
        run_md_replicas(
            [moving], calculator(), tmp_path / "nve", replicas=2, ensemble="nve", steps=1
        )
    run_md_replicas([moving], calculator(), tmp_path / "one", ensemble="nve", steps=1)
    run_md_replicas([moving], calculator(), tmp_path / "langevin", replicas=2, steps=1)
