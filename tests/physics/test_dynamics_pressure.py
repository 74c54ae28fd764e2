"""Constant pressure samples the volume and the shape of a cell that analysis knows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from analytic import ElasticCell, Run
from ase import Atoms, units
from test_dynamics import KT, require_mean

from jmp_md.simulate.md.barostat import pressure
from jmp_md.simulate.md.options import MDOptions

COUNT, ATOMS, GPA = 500, 4, 0.3
OPTIONS: dict[str, Any] = {"timestep": 5.0, "tdamp": 60.0, "pdamp": 150.0, "pressure": GPA}


def elastic_cell() -> tuple[Atoms, ElasticCell]:
    cell = 6.0 * np.eye(3) + 0.4 * np.tri(3, k=-1)
    sites = np.random.default_rng(4).random((ATOMS, 3))
    atoms = Atoms(f"Ar{ATOMS}", sites @ cell, cell=cell, pbc=True)
    return atoms, ElasticCell(cell, sites, bulk=0.006, shear=3.0)


def volumes(forces: ElasticCell) -> tuple[np.ndarray, np.ndarray]:
    """Volumes, and their weights exp(-(P V + U(V)) / kT)."""
    grid = np.linspace(1.0, 3 * forces.volume, 100_001)
    energy = GPA * units.GPa * grid + forces.elastic(grid)
    weight = np.exp(-(energy - energy.min()) / KT)
    return grid, weight / weight.sum()


def equilibrium(run: Run, forces: ElasticCell) -> dict[str, np.ndarray]:
    """Arrays of a state drawn from the distribution that constant pressure has to keep.

    Distances from sites are those of a run at constant volume, as they do not depend on the cell.
    """
    rng = np.random.default_rng(7)
    grid, weight = volumes(forces)
    # A strain s gives e = (1 + s)², hence an energy of 2 c |s|² for small s without a trace.
    noise = rng.standard_normal((COUNT, 3, 3)) * np.sqrt(KT / (4 * forces.shear))
    strain = 0.5 * (noise + np.swapaxes(noise, 1, 2))
    strain -= np.trace(strain, axis1=1, axis2=2)[:, None, None] / 3 * np.eye(3)
    values, vectors = np.linalg.eigh(strain)
    shape = (vectors * np.exp(values)[:, None, :]) @ np.swapaxes(vectors, 1, 2)
    size = np.cbrt(rng.choice(grid, COUNT, p=weight) / forces.volume)[:, None, None]
    arrays = run.state.arrays()
    shape = shape if run.options.ensemble == "npt-full" else np.eye(3)
    cells = forces.cell @ (size * shape)
    moved = arrays["positions"].reshape(COUNT, ATOMS, 3) - forces.sites @ forces.cell
    arrays |= {"cells": cells, "positions": (moved + forces.sites @ cells).reshape(-1, 3)}
    return arrays


@pytest.mark.parametrize("ensemble", ["npt", "npt-full"])
def test_volume_pressure_temperature_and_shape(ensemble: str) -> None:
    atoms, forces = elastic_cell()
    run = Run(atoms, forces, COUNT, ensemble="nvt-langevin", timestep=5.0, tdamp=30.0)
    run.steps(100)
    sample = run.state.arrays()
    run.restart(MDOptions(ensemble=ensemble, **OPTIONS), sample)
    run.restart(run.options, equilibrium(run, forces))
    grid, weight = volumes(forces)
    mean = float(grid @ weight)
    variance = float((grid - mean) ** 2 @ weight)
    before, seen = run.conserved(), []
    for _ in range(25):
        run.steps(8)
        hot = run.temperature()
        e = forces.metric(run.state.cells)
        volume = run.state.volumes()
        virial = pressure(run.state, hot) * volume
        seen.append(
            [volume, (volume - mean) ** 2, hot, (hot / 300 - 1) ** 2, virial, e[:, 0, 1] ** 2]
        )
    found = np.mean(seen, axis=0)
    require_mean(found[0], mean)
    require_mean(found[1], variance)
    require_mean(found[2], 300.0)
    require_mean(found[3], 2 / (3 * ATOMS - 3))
    require_mean(found[4] - GPA * units.GPa * found[0], 0.0)
    if ensemble == "npt-full":
        assert found[5].mean() == pytest.approx(KT / (2 * forces.shear), rel=0.06)
    else:
        assert found[5].max() < 1e-20
    assert np.sqrt(np.mean((run.conserved() - before) ** 2)) < 0.004


@pytest.mark.parametrize("ensemble", ["npt", "npt-full"])
def test_time_can_be_turned_back(ensemble: str) -> None:
    run = Run(*elastic_cell(), 4, ensemble=ensemble, **OPTIONS)
    place, cells = run.state.positions.copy(), run.state.cells.copy()
    run.steps(100)
    assert abs(run.state.cells - cells).max() > 0.01
    run.turn_back()
    run.steps(100)
    assert run.state.positions == pytest.approx(place, abs=1e-8)
    assert run.state.cells == pytest.approx(cells, abs=1e-8)
