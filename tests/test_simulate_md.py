"""Molecular dynamics samples what it says, and a killed run continues as if nothing had been."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from ase.calculators.harmonic import HarmonicCalculator, HarmonicForceField
from ase.calculators.lj import LennardJones
from ase.constraints import FixAtoms, FixInternals
from ase.io import read, write
from ase.stress import full_3x3_to_voigt_6_stress
from factories import random_potential, write_model
from killing import killed

from jmp_md.calculators.ase import JMPCalculator
from jmp_md.errors import InputError
from jmp_md.files import locked
from jmp_md.options import choices_of
from jmp_md.report.sample import sample_frames
from jmp_md.runs.md import run_md as md_with_report
from jmp_md.runs.md import run_md_replicas
from jmp_md.simulate.md import MDOptions, MDResult
from jmp_md.simulate.md.log import read_log
from jmp_md.simulate.state import load_state
from jmp_md.simulate.trajectory.formats import read_frames


def md(*args: Any, **options: Any) -> MDResult:
    return md_with_report(*args, **({"report": False} | options))


def water() -> Atoms:
    atoms = molecule("H2O")
    atoms.calc = EMT()
    return atoms


def copper() -> Atoms:
    atoms = bulk("Cu", cubic=True) * (2, 1, 1)
    atoms.rattle(0.05, seed=1)
    atoms.calc = EMT()
    return atoms


def wells(n: int = 12, stiffness: float = 5.0) -> Atoms:
    """Independent atoms in harmonic wells."""
    atoms = Atoms(f"Ar{n}", np.arange(3.0 * n).reshape(n, 3) * 5)
    field = HarmonicForceField(atoms.copy(), stiffness * np.eye(3 * n))
    atoms.calc = HarmonicCalculator(field)
    return atoms


def table(result: MDResult) -> np.ndarray:
    return np.genfromtxt(result.log, delimiter=",", names=True)


def frames(path: Path) -> list[Atoms]:
    return read(path, index=":")


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.name: path.read_bytes()
        for path in folder.iterdir()
        if path.name.startswith(("trajectory", "log"))
    }


def test_energy_is_conserved_and_frames_are_spaced_evenly_in_time(tmp_path: Path) -> None:
    atoms = copper()
    before = atoms.positions.copy()
    result = md(atoms, tmp_path / "run", ensemble="nve", steps=40, timestep=2.0, interval=8)
    log = table(result)
    assert log["time_fs"].tolist() == [0, 16, 32, 48, 64, 80]
    assert np.ptp(log["total_eV"]) < 0.02 * np.ptp(log["potential_eV"])
    seen = frames(result.trajectory)
    assert [frame.info["time_fs"] for frame in seen] == log["time_fs"].tolist()
    assert [frame.get_potential_energy() for frame in seen] == pytest.approx(log["potential_eV"])
    assert seen[0].get_forces().shape == (8, 3)
    assert np.array_equal(atoms.positions, before)
    assert not atoms.get_momenta().any()
    assert abs(result.atoms.get_momenta().sum(axis=0)).max() < 1e-9
    assert not result.atoms.constraints


def test_a_ramp_heats(tmp_path: Path) -> None:
    result = md(
        wells(), tmp_path, steps=1000, timestep=10.0, tdamp=50, temperature=50, temperature_end=550
    )
    temperature = table(result)["temperature_K"]
    assert temperature[:20].mean() < 150
    assert temperature[-20:].mean() == pytest.approx(525, rel=0.2)


@pytest.mark.parametrize("ensemble", ["npt", "npt-full"])
def test_the_cell_follows_the_pressure(ensemble: str, tmp_path: Path) -> None:
    result = md(
        copper(), tmp_path, ensemble=ensemble, steps=300, timestep=4.0, pdamp=100.0, pressure=10.0
    )
    volume = table(result)["volume_A3"]
    assert volume[-10:].mean() < 0.97 * volume[0]
    shape = result.atoms.cell.array / result.atoms.cell[1, 1]
    assert (abs(shape - np.diag([2.0, 1.0, 1.0])).max() < 1e-9) == (ensemble == "npt")
    assert frames(result.trajectory)[-1].cell.volume == pytest.approx(volume[-1])


def jmp(dtype: str = "float64") -> JMPCalculator:
    return JMPCalculator(random_potential(), dtype=dtype, device="cpu", skin=0.05)


def hot_water() -> Atoms:
    atoms = molecule("H2O")
    atoms.calc = jmp()
    return atoms


@pytest.mark.parametrize("trajectory", ["extxyz", "traj"])
def test_an_interrupted_run_of_a_jmp_model_continues_bit_for_bit(
    trajectory: str, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"ensemble": "nve", "temperature": 600, "trajectory": trajectory}
    options |= {"steps": 24, "interval": 3, "save_interval": 7}
    atoms = hot_water()
    md(atoms, tmp_path / "whole", **options)

    def stop(line: dict[str, float]) -> None:
        if line["step"] == 18:  # the last state is that of step 14
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        md(hot_water(), tmp_path / "parts", progress=stop, **options)
    state, _ = load_state(tmp_path / "parts") or ({}, {})
    for positions in (atoms.positions, state["positions"]):  # neighbours were searched on the way
        assert not np.array_equal(state["searched_positions"], positions)
    assert len(frames(tmp_path / f"parts/trajectory.{trajectory}")) == 7
    result = md(hot_water(), tmp_path / "parts", restart=True, **options)
    assert files(tmp_path / "parts") == files(tmp_path / "whole")
    assert [frame.info["step"] for frame in frames(result.trajectory)] == list(range(0, 25, 3))


class Lattice(Calculator):
    """Springs to sites that move with the cell; nothing is left from one call to the next."""

    implemented_properties = ("energy", "forces", "stress")

    def __init__(self, atoms: Atoms) -> None:
        super().__init__()
        self.sites, self.volume = atoms.get_scaled_positions(), atoms.get_volume()

    def calculate(self, atoms: Atoms, *args: Any) -> None:
        super().calculate(atoms, *args)
        volume = atoms.get_volume()
        moved = atoms.positions - self.sites @ atoms.cell
        strain = 2.0 * moved.T @ moved + 50.0 * (volume - self.volume) * np.eye(3)
        energy = (moved**2).sum() + 25.0 * (volume - self.volume) ** 2 / self.volume
        stress = full_3x3_to_voigt_6_stress(strain / volume)
        self.results = {"energy": energy, "forces": -2.0 * moved, "stress": stress}


def lattice() -> Atoms:
    atoms = bulk("Cu", cubic=True)
    atoms.calc = Lattice(atoms)
    atoms.rattle(0.05, seed=1)
    return atoms


@pytest.mark.parametrize("trajectory", ["extxyz", "h5"])
@pytest.mark.parametrize("ensemble", choices_of(MDOptions.model_fields["ensemble"]))
def test_every_ensemble_continues_bit_for_bit(
    ensemble: str, trajectory: str, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"ensemble": ensemble, "interval": 2, "save_interval": 5}
    options |= {"trajectory": trajectory}
    whole = md(lattice(), tmp_path / "whole", steps=20, **options)
    for steps in (0, 8, 8, 13, 13, 20):  # the end at 13 is no multiple of the interval
        parts = md(lattice(), tmp_path / "parts", steps=steps, restart=True, **options)
        ends = read_frames(parts.trajectory)[-1], parts.atoms
        assert ends[0].info["step"] == steps
        assert ends[0].positions == pytest.approx(ends[1].positions, abs=1e-6)
    assert parts.log.read_bytes() == whole.log.read_bytes()
    frames = [read_frames(result.trajectory) for result in (parts, whole)]
    for a, b in zip(*frames, strict=True):
        assert a.info["step"] == b.info["step"]
        assert np.array_equal(a.positions, b.positions)
        assert np.array_equal(a.get_momenta(), b.get_momenta())
        assert np.array_equal(a.cell.array, b.cell.array)


def continue_water(folder: Path, options: dict[str, Any]) -> None:
    md(water(), folder, restart=True, **options)


@pytest.mark.parametrize("trajectory", ["extxyz", "traj"])
def test_killed_runs_lose_and_double_no_frame(trajectory: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"steps": 900, "interval": 1, "save_interval": 9}
    options |= {"trajectory": trajectory}
    md(water(), tmp_path / "whole", **options)
    rng, kills = np.random.default_rng(5), 0
    for _ in range(10):
        if not killed(rng.uniform(0.02, 0.2), continue_water, tmp_path / "parts", options):
            break
        kills += 1
    assert kills > 2
    result = md(water(), tmp_path / "parts", restart=True, **options)
    assert [frame.info["step"] for frame in frames(result.trajectory)] == list(range(901))
    assert files(tmp_path / "parts") == files(tmp_path / "whole")


def test_a_full_disk_leaves_a_state_to_continue_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"steps": 30, "interval": 1, "save_interval": 10}
    md(water(), tmp_path / "whole", **options)

    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = (tmp_path / "whole/trajectory.extxyz").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size * 2 // 3, limits[1]))  # writes fail from here
    try:
        with pytest.raises(OSError, match="File too large"):
            md(water(), tmp_path / "parts", **options)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    md(water(), tmp_path / "parts", restart=True, **options)
    assert files(tmp_path / "parts") == files(tmp_path / "whole")


def test_the_summary_says_what_was_run(tmp_path: Path) -> None:
    result = md(hot_water(), tmp_path, ensemble="nve", steps=2, interval=1)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["settings"]["ensemble"] == "nve"
    assert summary["results"]["temperature_K"] == result.temperature
    assert summary["model"]["name"] == "random"
    single = hot_water()
    single.calc = jmp("float32")
    md(single, tmp_path / "single", ensemble="nve", steps=1)
    other = json.loads((tmp_path / "single/summary.json").read_text())
    assert other["model"]["dtype"] == "float32"
    assert len(summary["model"]["sha256"]) == 64


def test_momenta_and_constraints_of_the_structure_are_kept(tmp_path: Path) -> None:
    atoms = water()
    atoms.set_constraint(FixAtoms([0]))
    atoms.set_momenta([[0, 0, 0], [0, 0, 0.1], [0, 0, 0]])
    result = md(atoms, tmp_path, ensemble="nve", steps=3, interval=1)
    assert np.array_equal(frames(result.trajectory)[0].get_momenta(), atoms.get_momenta())
    assert np.array_equal(result.atoms.positions[0], atoms.positions[0])
    assert not np.array_equal(result.atoms.positions[1], atoms.positions[1])


class Limited(EMT):
    """Knows structures no larger than 1.05 Å."""

    def calculate(self, atoms: Atoms, *args: Any) -> None:
        if atoms.get_distance(0, 1) > 1.05:
            raise InputError("too large")
        super().calculate(atoms, *args)


def test_a_structure_that_cannot_be_computed_is_reported_with_its_step(tmp_path: Path) -> None:
    atoms = water()
    atoms.calc = Limited()
    with pytest.raises(InputError, match=r"stopped after step (\d+): too large; frames up to"):
        md(atoms, tmp_path, ensemble="nve", interval=1, temperature=3000)
    log = np.genfromtxt(tmp_path / "log.csv", delimiter=",", names=True)
    assert [frame.info["step"] for frame in frames(tmp_path / "trajectory.extxyz")] == list(
        log["step"]
    )
    assert len(log) > 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ensemble": "nvt"}, "ensemble 'nvt': choose one of nve"),
        ({"trajectory": "xyz"}, "trajectory 'xyz': choose one of extxyz, traj"),
        ({"timestep": 0.0}, "timestep 0.0 fs: must be positive"),
        ({"temperature": float("nan")}, "temperature nan K: must be a finite number"),
        ({"steps": -1}, "steps -1: must be 0 or more"),
        ({"ensemble": "npt"}, r"pbc \[False, False, False\]: choose an nvt ensemble"),
        ({"ensemble": "nve", "temperature_end": 9.0}, "temperature_end goes with nvt-langevin"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(
    options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        md(water(), tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_long_timesteps_with_hydrogen_bring_a_warning(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"timestep of 2.0 fs is too long"):
        md(water(), tmp_path, steps=0, timestep=2.0)


CHANGES: dict[str, Callable[[Atoms], Any]] = {
    "masses": lambda atoms: atoms.set_masses([18, 1, 1]),
    "positions": lambda atoms: atoms.translate(0.1),
    "constraints": lambda atoms: atoms.set_constraint(FixAtoms([0])),
    "momenta": lambda atoms: atoms.set_momenta(np.ones((3, 3))),
    "calculator": lambda atoms: setattr(atoms, "calc", LennardJones()),
}


def test_a_run_goes_on_with_other_intervals(tmp_path: Path) -> None:
    md(water(), tmp_path, steps=4, interval=2)
    result = md(water(), tmp_path, steps=10, interval=3, save_interval=1, restart=True)
    assert table(result)["step"].tolist() == [0, 2, 4, 6, 9, 10]


def test_a_run_asks_once_who_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hashes of large models and many structures take time."""
    from jmp_md.simulate import identity

    asked: list[int] = []
    real = identity.identify_calculator
    monkeypatch.setattr(
        identity, "identify_calculator", lambda calculator: asked.append(1) or real(calculator)
    )
    md(water(), tmp_path, steps=2)
    assert len(asked) == 1
    md(water(), tmp_path, steps=4, restart=True)
    assert len(asked) == 2


def test_a_run_is_not_continued_as_another(tmp_path: Path) -> None:
    md(water(), tmp_path, steps=4)
    with pytest.raises(InputError, match=r"holds a run.*--restart"):
        md(water(), tmp_path, steps=4)
    with pytest.raises(InputError, match=r"timestep: 0.5, now 0.25"):
        md(water(), tmp_path, steps=4, timestep=0.25, restart=True)
    with pytest.raises(InputError, match=r"as another one.*formula: 'H2O', now 'Cu8'"):
        md(copper(), tmp_path, steps=4, restart=True)
    for name, change in CHANGES.items():
        other = water()
        change(other)
        with pytest.raises(InputError, match=rf"as another one; different: .*\b{name}\b"):
            md(other, tmp_path, steps=8, restart=True)
    with pytest.raises(InputError, match=r"trajectory: 'extxyz', now 'h5'"):
        md(water(), tmp_path, steps=8, restart=True, trajectory="h5")
    with pytest.raises(InputError, match=r"has got to step 4: ask for more than 3"):
        md(water(), tmp_path, steps=3, restart=True)
    (tmp_path / "log.csv").write_text("")
    with pytest.raises(InputError, match=r"log.csv has 0 bytes, but had"):
        md(water(), tmp_path, steps=8, restart=True)
    (tmp_path / "state.npz").write_bytes(b"PK nothing")
    with pytest.raises(InputError, match=r"cannot read the state .*state.npz"):
        md(water(), tmp_path, steps=8, restart=True)


def test_frames_have_the_constraints_of_the_structure_only(tmp_path: Path) -> None:
    result = md(water(), tmp_path, steps=2, interval=1, trajectory="traj")
    assert not any(frame.constraints for frame in frames(result.trajectory))


def test_constraints_that_are_not_known_are_refused_by_name(tmp_path: Path) -> None:
    atoms = water()
    atoms.set_constraint(FixInternals(bonds=[[0.96, [0, 1]]]))
    with pytest.raises(InputError, match=r"does not know the constraint FixInternals, only"):
        md(atoms, tmp_path, steps=1)


def test_steps_that_are_too_long_end_the_run_and_say_so(tmp_path: Path) -> None:
    atoms = wells(4, stiffness=20.0)  # stable up to 29 fs
    with pytest.raises(InputError, match=r"after step \d+: it exploded: .* below 40 fs, or relax"):
        md(atoms, tmp_path, timestep=40.0, steps=1000)
    assert not (tmp_path / "summary.json").exists()


def test_momenta_of_the_structure_win_with_a_warning_or_are_drawn_anew(tmp_path: Path) -> None:
    atoms = water()
    atoms.set_momenta(np.diag([0.1, -0.1, 0.1]))
    with pytest.warns(UserWarning, match=r"has momenta, of 26.39 K.*--redraw-velocities"):
        kept = md(atoms, tmp_path / "kept", steps=0, remove_drift=False)
    assert np.array_equal(kept.atoms.get_momenta(), atoms.get_momenta())
    drawn = md(atoms, tmp_path / "drawn", steps=0, redraw_velocities=True)
    assert abs(drawn.atoms.get_momenta() - atoms.get_momenta()).min() > 1e-3


def test_momenta_that_are_only_drift_or_of_fixed_atoms_are_drawn_and_it_is_said(
    tmp_path: Path,
) -> None:
    drifting = wells()
    drifting.set_velocities(np.tile([0.01, 0.02, 0.0], (12, 1)))
    held = wells()
    held.set_constraint(FixAtoms([0]))
    held.set_momenta([[3.0, 0, 0], *[[0, 0, 0]] * 11], apply_constraint=False)
    for name, atoms in {"drift": drifting, "held": held}.items():
        with pytest.warns(UserWarning, match="others are drawn at 300 K"):
            md(atoms, tmp_path / name, ensemble="nve", steps=1, interval=1)
        assert read_log(tmp_path / name / "log.csv")["temperature_K"][0] > 50
    part = wells()
    part.set_velocities(np.tile([0.01, 0.0, 0.0], (12, 1)) + 0.01 * np.eye(12)[:, :3])
    momenta = part.get_momenta()
    masses = part.get_masses()[:, None]
    left = momenta - masses * momenta.sum(axis=0) / masses.sum()
    kelvin = (left**2 / masses).sum() / (33 * units.kB)
    with pytest.warns(UserWarning, match=f"momenta, of {kelvin:.4g} K.* is taken out"):
        md(part, tmp_path / "part", ensemble="nve", steps=1)


def test_a_cell_that_explodes_ends_its_own_run_only(tmp_path: Path) -> None:
    calm, hot = (bulk("Cu", cubic=True) * 2 for _ in range(2))
    hot.set_momenta(np.random.default_rng(0).normal(0, 60, (32, 3)))
    options = {"timestep": 4.0, "pressure": -8.0, "pdamp": 100.0, "interval": 10, "report": False}
    runs = run_md_replicas([calm, hot], EMT(), tmp_path, ensemble="npt", steps=60, **options)
    assert runs[0].error is None
    assert runs[1].error is not None
    calm.calc = EMT()
    options["pressure"] = -30.0
    with pytest.raises(InputError, match="the run stopped after step"):
        md(calm, tmp_path / "torn", ensemble="npt", steps=300, **options)


@pytest.mark.parametrize("name", ["velocities", "vel", "velo"])
def test_columns_of_velocities_are_not_read_in_silence(name: str, tmp_path: Path) -> None:
    atoms = water()
    atoms.set_array(name, np.ones((3, 3)))
    atoms.info["energy"] = 7.0  # of another method
    with pytest.warns(UserWarning, match=f"the column {name} of the structure is not read"):
        result = md(atoms, tmp_path, steps=1, interval=1)
    [first, _] = frames(result.trajectory)
    assert name not in first.arrays  # it would contradict the momenta
    assert first.get_potential_energy() == pytest.approx(table(result)["potential_eV"][0])


def unusable() -> dict[str, tuple[Atoms, str]]:
    fixed, flat, broken = water(), water(), water()
    fixed.set_constraint(FixAtoms([0, 1, 2]))
    flat.pbc = True
    broken.positions[1, 2] = np.nan
    return {
        "empty": (Atoms(), "the structure has no atoms"),
        "fixed": (fixed, "nothing can move: the constraints FixAtoms hold all 3 atoms"),
        "flat": (flat, "has no volume in its periodic directions"),
        "broken": (broken, "not finite"),
    }


@pytest.mark.parametrize("kind", ["empty", "fixed", "flat", "broken"])
def test_structures_that_cannot_be_run_bring_one_error(kind: str, tmp_path: Path) -> None:
    atoms, message = unusable()[kind]
    atoms.calc = EMT()
    with pytest.raises(InputError, match=message):
        md(atoms, tmp_path / "run", ensemble="nvt-bussi", steps=2)
    with pytest.raises(InputError, match=message):
        run_md_replicas([atoms], EMT(), tmp_path / "run", replicas=2, steps=2)
    assert not (tmp_path / "run").exists()


def test_replicas_that_cannot_be_computed_bring_one_error(tmp_path: Path) -> None:
    double = water()
    double.positions[2] = double.positions[1]
    with pytest.raises(InputError, match=r"none of 2 replicas can be computed: .* 0.0000 Å apart"):
        run_md_replicas([double], jmp(), tmp_path, replicas=2, steps=2)


def test_constant_pressure_logs_pressure_and_cell(tmp_path: Path) -> None:
    result = md(lattice(), tmp_path, ensemble="npt-full", steps=3, interval=1, report=True)
    log, last = table(result), read_frames(result.trajectory)[-1]
    assert [log[f"{name}_A"][-1] for name in "abc"] == pytest.approx(last.cell.lengths())
    angles = [log[f"{name}_deg"][-1] for name in ("alpha", "beta", "gamma")]
    assert angles == pytest.approx(last.cell.angles())
    virial = -last.get_stress()[:3].mean()
    ideal = 4 * units.kB * log["temperature_K"][-1] / last.cell.volume
    assert log["pressure_GPa"][-1] == pytest.approx((virial + ideal) / units.GPa)
    assert result.pressure == pytest.approx(log["pressure_GPa"].mean())
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert all(word in page for word in ("Volume; mean", "Density;", "Pressure; mean"))


def test_two_processes_do_not_write_to_one_folder(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(InputError, match="another process is writing"):
        md(water(), tmp_path, steps=1)


def test_every_frame_is_shown_to_who_watches(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    md(water(), tmp_path, steps=5, interval=2, watch=lambda i, a: seen.append((i, a.info["step"])))
    assert seen == [(0, 0), (0, 2), (0, 4), (0, 5)]


def test_a_run_asked_to_stop_saves_its_state(tmp_path: Path) -> None:
    options: dict[str, Any] = {"steps": 20, "interval": 3}
    md(water(), tmp_path / "whole", **options)
    answers = iter([False] * 6 + [True])
    with pytest.raises(KeyboardInterrupt):
        md(water(), tmp_path / "parts", stop=lambda: next(answers), **options)
    _, facts = load_state(tmp_path / "parts") or ({}, {})
    assert facts["step"] == 7
    md(water(), tmp_path / "parts", restart=True, **options)
    assert files(tmp_path / "parts") == files(tmp_path / "whole")


def test_sigterm_saves_and_says_how_to_go_on(here: Path) -> None:
    write("water.xyz", molecule("H2O"))
    model = str(write_model(here, head={"elements": (1, 8)}))
    command = [sys.executable, "-m", "jmp_md.cli.main", "md", "water.xyz", "--model", model]
    command += ["--output", "run", "--steps", "1000000", "--interval", "1", "--no-report"]
    written = Path("run/trajectory.extxyz")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            if written.exists() and written.read_bytes().count(b"Properties=") > 3:
                process.send_signal(signal.SIGTERM)
                break
            time.sleep(0.02)
        rest = process.communicate(timeout=60)[0]
    assert process.returncode == 143
    assert "the state is saved; continue with --restart --output run" in rest
    _, facts = load_state(Path("run")) or ({}, {})
    seen = [frame.info["step"] for frame in read_frames(Path("run/trajectory.extxyz"))]
    assert seen == list(range(facts["step"] + 1))


def test_logs_of_any_length_are_summed_exactly(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(60_003, 2)) + [0, 300]
    time = np.arange(60_003.0)
    with (tmp_path / "log.csv").open("w") as file:
        file.write("time_fs,conserved_eV,temperature_K\n")
        for t, (e, k) in zip(time.tolist(), values.tolist(), strict=True):
            file.write(f"{t!r},{e - 1e5 + 1e-3 * t!r},{k!r}\n")
    log = read_log(tmp_path / "log.csv", most=100)
    assert log.count == 60_003
    assert 100 <= len(log.rows) <= 201
    assert log["time_fs"][[0, -1]].tolist() == [0.0, 60_002.0]
    assert log.mean("temperature_K") == pytest.approx(values[:, 1].mean())
    assert log.deviation("temperature_K") == pytest.approx(values[:, 1].std())
    energy = values[:, 0] + 1e-3 * time
    assert log.slope == pytest.approx(np.polyfit(time / 1000, energy, 1)[0], rel=1e-6)


@pytest.mark.parametrize("trajectory", ["extxyz", "traj", "h5"])
def test_some_frames_are_read_without_the_others(trajectory: str, tmp_path: Path) -> None:
    result = md(water(), tmp_path, steps=30, interval=1, trajectory=trajectory)
    found = sample_frames(result.trajectory, 31, most=4)
    assert [frame.info["step"] for frame in found] == [0, 10, 20, 30]
    assert found[-1].positions == pytest.approx(result.atoms.positions, abs=1e-6)


def test_the_error_of_the_mean_temperature_counts_correlations(tmp_path: Path) -> None:
    atoms = bulk("Cu", cubic=True) * (2, 2, 2)
    atoms.calc = EMT()
    options: dict[str, Any] = {"ensemble": "nvt-langevin", "temperature": 300, "interval": 1}
    result = md(atoms, tmp_path, steps=400, timestep=2, tdamp=50, **options)
    values = read_log(result.log, most=1000)["temperature_K"]
    naive = values.std() / np.sqrt(len(values))
    blocks = values[1:].reshape(10, 40).mean(axis=1)  # 80 fs each, longer than correlations last
    assert 2 * naive < result.temperature_error
    assert result.temperature_error == pytest.approx(blocks.std(ddof=1) / np.sqrt(10), rel=0.6)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["results"]["temperature_error_K"] == result.temperature_error
