"""Analyses of trajectories give what is known of ideal gases, oscillators and random walks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.io import write
from ase.md.velocitydistribution import Stationary

from jmp_md.analysis import (
    blocked_errors,
    bond_lengths,
    diffusion,
    element_temperatures,
    mean_squared_displacement,
    radial_distribution,
    read_series,
    standard_error,
    statistical_inefficiency,
    velocity_autocorrelation,
    vibrational_spectrum,
)
from jmp_md.errors import InputError

C = 2.99792458e-5  # cm/fs


def gas(count: int, number: int, side: float = 12.0) -> list[Atoms]:
    rng = np.random.default_rng(0)
    return [
        Atoms(f"Ar{number - 4}He4", rng.uniform(0, side, (number, 3)), cell=[side] * 3, pbc=True)
        for _ in range(count)
    ]


def test_g_of_an_ideal_gas_is_one_of_all_atoms_and_of_pairs_however_few() -> None:
    found = radial_distribution(gas(4000, 14), bins=12)
    shells = np.diff(np.linspace(0, 6, 13) ** 3)
    assert np.average(found.total, weights=shells) == pytest.approx(1.0, abs=0.005)
    assert list(found.pairs) == ["Ar-Ar", "Ar-He", "He-He"]
    for g in found.pairs.values():
        assert np.average(g, weights=shells) == pytest.approx(1.0, abs=0.02)
        assert g[5:] == pytest.approx(1.0, abs=0.1)


def test_shells_of_a_crystal_have_their_neighbours_at_their_distances() -> None:
    """fcc: 12 at a / sqrt(2), 6 at a."""
    side = 3.6
    atoms = bulk("Cu", a=side, cubic=True) * (3, 3, 3)
    found = radial_distribution([atoms], reach=4.2, bins=400)
    width = found.distances[1] - found.distances[0]
    density = (len(atoms) - 1) / atoms.cell.volume
    counts = 4 / 3 * np.pi * density * found.total
    counts *= (found.distances + width / 2) ** 3 - (found.distances - width / 2) ** 3
    shells = np.flatnonzero(counts > 0.5)
    assert counts[shells] == pytest.approx([12, 6])
    assert found.distances[shells] == pytest.approx([side / np.sqrt(2), side], abs=width)
    with pytest.raises(InputError, match=r"at most 5\.400 Å, half the least height"):
        radial_distribution([atoms], reach=6.0)
    with pytest.raises(InputError, match="in a periodic cell"):
        radial_distribution([molecule("H2O")])


def test_displacements_are_those_of_all_pairs_of_frames() -> None:
    rng = np.random.default_rng(2)
    positions = 100 + rng.normal(size=(40, 3, 3)).cumsum(axis=0)
    direct = [
        np.mean([((positions[t + k] - positions[t]) ** 2).sum() / 3 for t in range(40 - k)])
        for k in range(40)
    ]
    assert mean_squared_displacement(positions) == pytest.approx(np.array(direct), abs=1e-9)


def walk(n: int, atoms: int, variance: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.sqrt(variance) * rng.normal(size=(n, atoms, 3)).cumsum(axis=0)


def test_brownian_particles_have_their_diffusion_coefficient_within_its_error() -> None:
    """Steps of variance s in a time h along each axis: D = s / 2 h."""
    interval, variance = 4.0, 0.02
    expected = variance / (2 * interval)
    found = [diffusion(walk(1000, 30, variance, seed), interval) for seed in range(30)]
    deviations = np.array([each.coefficient - expected for each in found])
    assert deviations.mean() == pytest.approx(0, abs=0.02 * expected)
    errors = np.array([each.error for each in found])
    assert np.sqrt((deviations**2).mean()) == pytest.approx(np.sqrt((errors**2).mean()), rel=0.4)
    assert not found[0].doubts
    assert found[0].exponent == pytest.approx(1, abs=0.1)
    assert found[0].lags[1] == interval


def test_flight_and_rest_are_not_taken_for_diffusion() -> None:
    times = np.arange(500.0)
    flight = diffusion(times[:, None, None] * np.array([[[0.01, 0.0, 0.0], [0.0, 0.02, 0.0]]]), 1.0)
    assert flight.exponent == pytest.approx(2)
    assert flight.displacements[10] == pytest.approx((0.1**2 + 0.2**2) / 2)
    assert "to the power 2.00" in flight.doubts[0]
    rest = diffusion(np.random.default_rng(0).normal(size=(500, 10, 3)), 1.0)
    assert abs(rest.exponent) < 0.1
    assert any("atoms stay in their places" in text for text in rest.doubts)
    with pytest.raises(InputError, match="a line needs 3 lags"):
        diffusion(np.zeros((8, 1, 3)), 1.0)


def oscillations(
    wavenumbers: list[float], interval: float, n: int, phase: float = 0.3
) -> np.ndarray:
    """(n, modes, 3) Å/fs, of unit amplitude along x."""
    times = interval * np.arange(n)[:, None]
    found = np.zeros((n, len(wavenumbers), 3))
    found[..., 0] = np.sin(2 * np.pi * C * np.array(wavenumbers) * times + phase)
    return found


def test_an_oscillator_shows_its_frequency() -> None:
    velocities = oscillations([1600.0], 2.0, 4000)
    found = vibrational_spectrum(velocities, 2.0, np.ones(1), resolution=5.0)
    assert found.peaks == pytest.approx([1600.0], abs=found.resolution)
    assert found.resolution == pytest.approx(5.0, rel=1e-2)
    assert found.wavenumbers[-1] == pytest.approx(1 / (2 * 2.0 * C))
    lags = 2.0 * np.arange(100)
    expected = np.cos(2 * np.pi * C * 1600.0 * lags)
    correlation = velocity_autocorrelation(velocities, np.ones(1))[:100]
    assert correlation == pytest.approx(expected, abs=5e-3)


def test_modes_of_one_temperature_have_one_area_whatever_their_mass() -> None:
    masses = np.array([1.0, 16.0])
    velocities = oscillations([700.0, 3000.0], 2.0, 8000) / np.sqrt(masses)[:, None]
    found = vibrational_spectrum(velocities, 2.0, masses, resolution=10.0)
    width = found.wavenumbers[1]
    assert found.density.sum() * width == pytest.approx(1.0)
    low = found.density[found.wavenumbers < 1500].sum() * width
    assert low == pytest.approx(0.5, abs=0.005)
    assert found.peaks == pytest.approx([700, 3000], abs=10)
    with pytest.raises(InputError, match="there is no motion"):
        vibrational_spectrum(np.zeros((20, 1, 3)), 1.0, np.ones(1))


def autoregression(share: float, n: int, seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=n)
    values = np.empty(n)
    values[0] = noise[0] / np.sqrt(1 - share**2)
    for i in range(1, n):
        values[i] = share * values[i - 1] + noise[i]
    return values


@pytest.mark.parametrize("share", [0.0, 0.5, 0.9])
def test_an_autoregression_has_its_known_inefficiency_and_error(share: float) -> None:
    """AR(1) with coefficient p: (1 + p) / (1 - p) values are worth one, deviation 1/sqrt(1-p^2)."""
    n = 100_000
    values = autoregression(share, n)
    expected = (1 + share) / (1 - share)
    assert statistical_inefficiency(values) == pytest.approx(expected, rel=0.1)
    error = np.sqrt(expected / n / (1 - share**2))
    assert standard_error(values) == pytest.approx(error, rel=0.1)
    lengths, errors = blocked_errors(values)
    assert errors[0] == pytest.approx(np.sqrt(1 / n / (1 - share**2)), rel=0.05)
    long = (lengths >= 128) & (lengths <= 1024)
    assert errors[long].mean() == pytest.approx(error, rel=0.15)
    assert statistical_inefficiency(np.ones(9)) == 1.0
    assert np.isnan(standard_error(np.ones(1)))


def test_bond_lengths_follow_the_bonds_of_the_first_frame() -> None:
    first = molecule("H2O")
    stretched = first.copy()
    stretched.positions *= 3.0
    lengths, start = bond_lengths([first, stretched])
    assert list(lengths) == ["H-O"]
    np.testing.assert_allclose(lengths["H-O"], np.concatenate([start["H-O"], 3 * start["H-O"]]))
    across = Atoms("H2", [[0.1, 0, 0], [4.6, 0, 0]], cell=[5, 5, 5], pbc=True)
    np.testing.assert_allclose(bond_lengths([across])[0]["H-H"], [0.5])


def test_temperatures_of_elements_are_those_of_their_velocities() -> None:
    atoms = molecule("CH3CH2OH")
    rng = np.random.default_rng(0)
    frames = []
    for _ in range(4000):
        frame = atoms.copy()
        thermal = np.sqrt(frame.get_masses() * units.kB * 300)[:, None]
        frame.set_momenta(thermal * rng.normal(size=(len(frame), 3)))
        Stationary(frame, preserve_temperature=False)
        frames.append(frame)
    found = element_temperatures(frames)
    assert list(found) == ["C", "O", "H"]
    assert list(found.values()) == pytest.approx([300.0] * 3, rel=0.03)
    for frame in frames:  # a drift of the whole is no temperature
        frame.set_momenta(frame.get_momenta() + 0.3 * frame.get_masses()[:, None])
    assert list(element_temperatures(frames).values()) == pytest.approx(list(found.values()))
    hot = [frame.copy() for frame in frames[:100]]
    for frame in hot:
        frame.arrays["momenta"][frame.symbols == "H"] *= 2
    assert element_temperatures(hot)["H"] > 3 * found["H"]
    assert element_temperatures([atoms]) == {}


def moving(count: int, folded: bool) -> list[Atoms]:
    """An atom that crosses cells that breathe, and one that stays; 5 fs apart."""
    frames = []
    for i in range(count):
        atoms = Atoms("ArHe", cell=np.diag([4.0, 5.0, 6.0]) * (1 + 0.01 * np.sin(i)), pbc=True)
        atoms.set_scaled_positions([[0.3 * i, -0.1 * i, 0.5], [0.5, 0.5, 0.5]])
        if folded:
            atoms.wrap()
        atoms.info["time_fs"] = 5.0 * i
        frames.append(atoms)
    return frames


@pytest.mark.parametrize("ending", ["extxyz", "traj"])
def test_atoms_are_followed_across_borders(ending: str, tmp_path: Path) -> None:
    path, folded = tmp_path / f"a.{ending}", tmp_path / f"b.{ending}"
    for place, fold in ((path, False), (folded, True)):
        frames = moving(20, fold)
        for atoms in frames:
            atoms.set_cell([4.0, 5.0, 6.0], scale_atoms=True)
        write(place, frames)
    straight = read_series(path)
    assert read_series(folded).positions == pytest.approx(straight.positions, abs=1e-6)
    assert straight.positions[-1, 0, 0] == pytest.approx(0.3 * 19 * 4.0)
    assert (straight.interval, straight.velocities) == (5.0, None)
    later = read_series(path, start=20.0, stride=2)
    assert later.times == pytest.approx([20, 30, 40, 50, 60, 70, 80, 90])


def test_an_atom_that_stays_in_a_breathing_cell_does_not_diffuse(tmp_path: Path) -> None:
    write(tmp_path / "a.traj", moving(200, folded=True))
    still = read_series(tmp_path / "a.traj").positions[:, 1]
    assert np.linalg.norm(still[-100:] - still[:100], axis=1).max() < 0.5


def test_a_last_frame_out_of_turn_is_left_out_and_other_faults_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.traj"
    frames = moving(10, folded=False)
    frames[-1].info["time_fs"] -= 3.0
    write(path, frames)
    assert len(read_series(path).times) == 9
    frames[4].info["time_fs"] += 1.0
    write(path, frames)
    with pytest.raises(InputError, match="not evenly spaced in time, 5 fs at first and 6 fs"):
        read_series(path)
    far = moving(10, folded=False)
    for i, atoms in enumerate(far):
        atoms.set_scaled_positions([[0.45 * i, 0.5, 0.5], [0.5, 0.5, 0.5]])
        atoms.wrap()
    write(path, far)
    with pytest.raises(InputError, match=r"moves by 0.4\d of the cell between two frames"):
        read_series(path)
    del far[0].info["time_fs"]
    write(path, far)
    with pytest.raises(InputError, match="has no time_fs in its info: give the time"):
        read_series(path)
    with pytest.raises(InputError, match="an analysis needs 3"):
        read_series(path, interval=1.0, start=8.0)
