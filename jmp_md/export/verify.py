"""Proof that an exported file computes what the model does, before anyone gets it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from jmp_md.checkpoints.exported import EXTRA_FILE, ExportInfo
from jmp_md.checkpoints.packaged import PackagedPotential
from jmp_md.errors import InputError
from jmp_md.graph.neighbours import NeighbourCache
from jmp_md.potential import Potential
from jmp_md.structures import Structures, concatenate, single_structure
from jmp_md.units import EV_IN_KJ_PER_MOL, EV_PER_ANGSTROM_IN_KJ_PER_MOL_PER_NM, NM_IN_ANGSTROM

_TOLERANCE = {"float32": 1e-5, "float64": 1e-11}  # ten times what is promised for real structures
_SPACING = 1.9  # Å between atoms of the samples


def verify(path: Path, potential: Potential, info: ExportInfo) -> None:
    """Compare a file, as loaded, with the model it was made from, on structures made up here.

    Raises:
        InputError: They differ.
    """
    if info.form == "graph":
        _verify_package(PackagedPotential(path), potential, info)
        return
    module = torch.jit.load(str(path), _extra_files={EXTRA_FILE: ""})
    with torch.jit.optimized_execution(False):
        if info.form == "general":
            _verify_general(module, potential, info)
        else:
            _verify_openmm(module, potential, info)


def _verify_package(package: Potential, potential: Potential, info: ExportInfo) -> None:
    _, _, batch = sample_batch(potential)
    direct = info.forces == "direct"
    got, expected = (
        p.predict(batch, direct=direct, stress=not direct) for p in (package, potential)
    )
    _compare("energy", got.energy, expected.energy, info)
    _compare("forces", got.forces, expected.forces, info)
    if expected.stress is not None and got.stress is not None:
        _compare("stress", got.stress[1:], expected.stress[1:], info)


def sample_batch(potential: Potential) -> tuple[_Sample, _Sample, Structures]:
    """A molecule, a crystal with a small cell, and both in a batch."""
    elements = list(potential.head.references or potential.head.elements or (1, 6, 8))
    numbers = [elements[i % len(elements)] for i in range(7)]
    molecule = _Sample(_grid(len(numbers)), numbers, np.zeros((3, 3)))
    small = _SPACING * np.array([[1.3, 0, 0], [0.5, 1.4, 0], [-0.4, 0.3, 1.6]])
    crystal = _Sample(_grid(2), [elements[0], elements[-1]], small)
    parts = [s.structure(NeighbourCache(potential.policy.cutoff, 0.0)) for s in (molecule, crystal)]
    return molecule, crystal, concatenate(parts)


def _verify_general(module: torch.jit.ScriptModule, potential: Potential, info: ExportInfo) -> None:
    molecule, crystal, batch = sample_batch(potential)
    direct = info.forces == "direct"
    # The same batch: shapes decide how single precision rounds. The molecule's stress is void.
    expected = potential.predict(batch, direct=direct, stress=not direct)
    energy, forces, stress = module(
        torch.from_numpy(np.concatenate([molecule.positions, crystal.positions])),
        batch.numbers,
        batch.cells,
        torch.tensor([[False] * 3, [True] * 3]),
        batch.structure,
    )
    _compare("energy", energy, expected.energy, info)
    _compare("forces", forces, expected.forces, info)
    if expected.stress is not None:
        _compare("stress", stress[1:], expected.stress[1:], info)


def _verify_openmm(module: torch.jit.ScriptModule, potential: Potential, info: ExportInfo) -> None:
    numbers = list(info.numbers)
    side = _SPACING * (np.ceil(len(numbers) ** (1 / 3)) + 1)
    cell = side * np.eye(3) if info.periodic else np.zeros((3, 3))
    start = _grid(len(numbers))
    neighbours = NeighbourCache(potential.policy.cutoff, 1.0)
    # The second time, the module reuses its neighbours.
    for positions in (start, start + 0.02 * np.sin(np.arange(start.size)).reshape(-1, 3)):
        structure = _Sample(positions, numbers, cell).structure(neighbours)
        expected = potential.predict(structure, direct=info.forces == "direct")
        x = torch.from_numpy(positions / NM_IN_ANGSTROM).requires_grad_()
        box = [torch.from_numpy(cell / NM_IN_ANGSTROM)] if info.periodic else []
        energy, forces = _openmm_outputs(module(x, *box), x)
        _compare("energy", energy / EV_IN_KJ_PER_MOL, expected.energy[0], info)
        _compare("forces", forces / EV_PER_ANGSTROM_IN_KJ_PER_MOL_PER_NM, expected.forces, info)


def _openmm_outputs(result: Any, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Energy and forces, as OpenMM gets them."""
    if isinstance(result, tuple):
        return result
    (gradient,) = torch.autograd.grad(result, positions)
    return result.detach(), -gradient


@dataclass(frozen=True)
class _Sample:
    positions: np.ndarray
    numbers: list[int]
    cell: np.ndarray

    def structure(self, neighbours: NeighbourCache) -> Structures:
        """As the model gets it from the calculators."""
        pbc = np.full(3, bool(self.cell.any()))
        numbers = np.array(self.numbers)
        pairs, placed = neighbours.update(self.positions, numbers, self.cell, pbc)
        return single_structure(placed, numbers, self.cell, pairs)


def _grid(n_atoms: int) -> np.ndarray:
    """Atoms on a shaken grid: near enough for every term, and far enough for none to explode."""
    side = int(np.ceil(n_atoms ** (1 / 3)))
    grid = np.stack(np.unravel_index(np.arange(n_atoms), (side, side, side)), axis=1)
    return _SPACING * (grid + np.random.default_rng(0).uniform(-0.2, 0.2, grid.shape))


def _compare(name: str, got: Tensor | None, expected: Tensor | None, info: ExportInfo) -> None:
    assert got is not None
    assert expected is not None
    size = max(1e-3, float(expected.abs().max()))
    error = float((got.double() - expected.double()).abs().max()) / size
    if not error <= _TOLERANCE[info.dtype]:
        raise InputError(
            f"the exported {name} of model {info.header.name!r} differ from the model's by "
            f"{error:.1e}, relatively, in {info.dtype}: nothing was written; export with "
            "dtype='float64', or report this with the versions 'jmp-md doctor' prints"
        )
