"""References, scales and what `inspect` reports, on data whose answers are known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from jmp_md.errors import InputError
from jmp_md.training.data.frame import Frame, FrameList, make_frame
from jmp_md.training.data.npz import open_npz
from jmp_md.training.data.statistics import inspect
from jmp_md.training.summary import summarised

ATOMIC = {1: -13.6, 6: -1030.5, 8: -2042.0}


def molecules(n: int, seed: int, noise: float = 0.0) -> list[Frame]:
    """Random molecules whose energies are sums over atoms, with forces of a known size."""
    rng = np.random.default_rng(seed)
    frames = []
    for k in range(n):
        numbers = rng.choice(list(ATOMIC), size=rng.integers(2, 9))
        energy = sum(ATOMIC[z] for z in numbers) + noise * rng.normal()
        forces = rng.choice([-2.0, 2.0], size=(len(numbers), 3))
        positions = rng.normal(size=(len(numbers), 3))
        frame = make_frame(
            "test", k, numbers=numbers, positions=positions, energy=energy, forces=forces
        )
        frames.append(frame)
    return frames


def test_references_recover_atomic_energies() -> None:
    references = summarised(FrameList(molecules(60, seed=1))).references()
    assert references == pytest.approx(ATOMIC, rel=1e-9)


def test_references_are_the_least_squares_solution() -> None:
    """Grouping frames of one composition must not change the fit over all frames."""
    frames = molecules(80, seed=2, noise=0.5)
    counts = np.array([[(frame.numbers == z).sum() for z in ATOMIC] for frame in frames])
    energies = np.array([frame.energy for frame in frames])
    expected = np.linalg.lstsq(counts, energies, rcond=None)[0]
    found = summarised(FrameList(frames)).references()
    np.testing.assert_allclose([found[z] for z in ATOMIC], expected, rtol=1e-9)


def test_references_of_one_molecule_are_unique_and_reproduce_its_energy() -> None:
    water = {"numbers": [8, 1, 1], "positions": np.eye(3)}
    dataset = FrameList([make_frame("w", k, energy=-2079.0 + k, **water) for k in range(3)])
    references = summarised(dataset).references()
    assert references[8] + 2 * references[1] == pytest.approx(-2078.0)
    # By the Thomas-Fermi model, within a percent of the atoms of oxygen (wB97X: -2042 eV).
    assert references[8] == pytest.approx(-2042.0, rel=0.01)
    assert summarised(dataset).energy_std(references) == pytest.approx(np.sqrt(2 / 3))


def test_scales_of_energies_and_forces() -> None:
    frames = molecules(2000, seed=3, noise=0.25)
    summary = summarised(FrameList(frames))
    assert summary.energy_std(ATOMIC) == pytest.approx(0.25, rel=0.05)
    assert summary.force_rms == 2.0


def test_held_atoms_do_not_set_the_force_scale() -> None:
    frame = make_frame(
        "slab",
        0,
        numbers=[29, 1],
        positions=np.eye(3)[:2],
        forces=[[90.0, 90.0, 90.0], [3.0, -3.0, 3.0]],
        fixed=[True, False],
    )
    assert summarised(FrameList([frame])).force_rms == 3.0


def test_scales_are_safe_to_divide_by() -> None:
    exact = FrameList(molecules(3, seed=4))  # fewer frames than elements fit exactly
    summary = summarised(exact)
    assert summary.energy_std(summary.references()) == 1.0
    bare = FrameList([make_frame("b", 0, numbers=[1], positions=[[0, 0, 0]], forces=[[0, 0, 0]])])
    assert summarised(bare).force_rms == 1.0
    with pytest.raises(InputError, match="no frame has an energy"):
        summarised(bare).references()


def test_inspect_finds_what_was_planted() -> None:
    frames = molecules(50, seed=5, noise=0.01)
    planted = {"numbers": [1, 6], "positions": np.eye(3)[:2], "forces": np.zeros((2, 3))}
    energy = ATOMIC[1] + ATOMIC[6]
    frames += [
        make_frame("p", 0, **planted, energy=energy, system="CH", targets={"gap": 1.0}),
        make_frame("p", 1, **planted, energy=energy, system="CH", targets={"gap": 2.0}),
        make_frame("p", 2, **{**planted, "positions": 2 * np.eye(3)[:2]}, energy=energy + 40.0),
        make_frame("p", 3, **{**planted, "forces": np.full((2, 3), 50.0)}, cell=9 * np.eye(3)),
    ]
    report = inspect(FrameList(frames))
    assert report["frames"] == 54
    assert report["periodic"] == 1
    assert report["energy"]["frames"] == 53
    assert report["targets"] == {
        "gap": {"frames": 2, "min": 1.0, "mean": 1.5, "max": 2.0, "std": 0.5}
    }
    assert report["duplicates"] == {"number": 1, "first": [51]}
    assert report["outliers"]["force"] == {"number": 1, "first": [53]}
    assert report["outliers"]["energy"]["first"] == [52]
    assert report["forces"]["max"] == pytest.approx(50 * np.sqrt(3))
    assert report["elements"].keys() == {"H", "C", "O"}
    assert inspect(FrameList(frames), max_force=100.0)["outliers"]["force"]["number"] == 0
    json.dumps(report, allow_nan=False)


def test_inspect_of_geometries_alone() -> None:
    frame = make_frame("g", 0, numbers=[2], positions=[[0, 0, 0]])
    report = inspect(FrameList([frame]))
    assert report["energy"] == report["forces"] == {"frames": 0}
    assert report["references"] == report["targets"] == {}
    json.dumps(report, allow_nan=False)


def test_genuine_outliers_are_found(shared: Path) -> None:
    """The notes on this file say that components of its forces reach 351 eV/Å."""
    report = inspect(open_npz(shared / "data/pretrain/oc20.npz"))
    assert report["systems"] == 30
    assert report["forces"]["max"] == pytest.approx(355.5, abs=0.1)
    assert 0 < report["outliers"]["force"]["number"] < 20
