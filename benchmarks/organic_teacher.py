"""The networks that label frames for the recipe `organic`, and what goes in and out of them.

    python benchmarks/organic_teacher.py MODELS --parts barriers torsions reactions dimers
    python benchmarks/organic_teacher.py MODELS --parts --frames thermal.xyz

tells how good the four that label are, in the tests of `jmp-md benchmark` and on frames that were
labelled by others (organic_test.py). MODELS: see organic_labels.py.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.io import iread
from ase.optimize import BFGS

BATCH = 32
MAX_FORCE = 30.0  # eV/Å; frames with larger ones are left out


@dataclass
class Molecule:
    """A molecule at a minimum of the teacher, with the bonds about which parts turn.

    Attributes:
        name: SMILES.
        rotors: First atom, second atom, and the atoms that turn with the second.
    """

    name: str
    numbers: np.ndarray
    positions: np.ndarray
    rotors: list[tuple[int, int, list[int]]]


@dataclass
class Row:
    """A frame to label."""

    source: str
    name: str
    numbers: np.ndarray
    positions: np.ndarray
    temperature: int = 0


class Teacher:
    """AIMNet2: one network to make geometries with, four to label them."""

    def __init__(self, folder: Path) -> None:
        self.one = torch.jit.load(str(folder / "aimnet2_wb97m-d3_0.jpt"), map_location="cpu")
        self.four = torch.jit.load(str(folder / "aimnet2_wb97m_ens_f.jpt"), map_location="cpu")

    def forces(self, numbers: np.ndarray, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Energies (n,) and forces (n, n_atoms, 3) of geometries of one molecule, by one."""
        inputs = padded([numbers] * len(positions), list(positions))
        coordinates = inputs["coord"].requires_grad_(True)
        energy = self.one(inputs)["energy"]
        (gradient,) = torch.autograd.grad(energy.sum(), coordinates)
        return energy.detach().double().numpy(), -gradient.double().numpy()

    def by_one(self, numbers: np.ndarray, positions: np.ndarray) -> tuple[float, np.ndarray]:
        """Energy and forces of one geometry, by the first network."""
        energy, forces = self.forces(numbers, positions[None])
        return float(energy[0]), forces[0]

    def by_four(self, numbers: np.ndarray, positions: np.ndarray) -> tuple[float, np.ndarray]:
        """Energy and forces of one geometry, the mean of the four that label."""
        [(_, energy, forces, *_)] = self.labels([Row("", "", numbers, positions)])
        return energy, forces.astype(float)

    def labels(self, rows: list[Row]) -> Iterator[tuple[Row, float, np.ndarray, float, float]]:
        """Each frame with energy, forces and the spreads of both (largest of the forces)."""
        for start in range(0, len(rows), BATCH):
            some = rows[start : start + BATCH]
            found = self.four(padded([r.numbers for r in some], [r.positions for r in some]))
            for k, row in enumerate(some):
                n = len(row.numbers)
                yield (
                    row,
                    float(found["energy"][k].double()),
                    found["forces"][k, :n].detach().numpy(),
                    float(found["energy_std"][k].detach()),
                    float(found["forces_std"][k, :n].detach().abs().max()),
                )

    def write(self, path: Path, rows: list[Row]) -> None:
        """Label frames and write them as organic_data.py reads them."""
        rows = sorted(rows, key=lambda row: len(row.numbers))
        kept = [r for r in self.labels(rows) if np.abs(r[2]).max() < MAX_FORCE]
        print(f"{len(kept)} of {len(rows)} frames kept", flush=True)
        np.savez_compressed(
            path,
            n_atoms=np.array([len(row.numbers) for row, *_ in kept]),
            numbers=np.concatenate([row.numbers for row, *_ in kept]).astype(np.int16),
            positions=np.concatenate([row.positions for row, *_ in kept]).astype(np.float32),
            forces=np.concatenate([forces for _, _, forces, _, _ in kept]).astype(np.float32),
            energy=np.array([energy for _, energy, *_ in kept]),
            system_id=np.array([row.name for row, *_ in kept]),
            source=np.array([row.source for row, *_ in kept]),
            temperature=np.array([row.temperature for row, *_ in kept]),
            energy_std=np.array([spread for *_, spread, _ in kept]),
            force_std_max=np.array([spread for *_, spread in kept]),
        )


def padded(numbers: list[np.ndarray], positions: list[np.ndarray]) -> dict[str, torch.Tensor]:
    """Inputs of the networks: shorter molecules are filled up with atoms of number 0."""
    longest = max(map(len, numbers))
    z = torch.zeros(len(numbers), longest, dtype=torch.long)
    x = torch.zeros(len(numbers), longest, 3)
    for k, (a, b) in enumerate(zip(numbers, positions, strict=True)):
        z[k, : len(a)] = torch.as_tensor(a)
        x[k, : len(a)] = torch.as_tensor(b, dtype=torch.float32)
    return {"coord": x, "numbers": z, "charge": torch.zeros(len(numbers))}


class TeacherCalculator(Calculator):
    """The teacher for ASE.

    Args:
        compute: Energy in eV and forces in eV/Å of atomic numbers and positions.
    """

    implemented_properties = ("energy", "forces")

    def __init__(
        self, compute: Callable[[np.ndarray, np.ndarray], tuple[float, np.ndarray]]
    ) -> None:
        super().__init__()
        self._compute = compute

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):  # type: ignore[no-untyped-def]
        super().calculate(atoms, properties, system_changes)
        energy, forces = self._compute(atoms.numbers, atoms.positions)
        self.results = {"energy": energy, "forces": forces}


def relaxed(teacher: Teacher, numbers: np.ndarray, positions: np.ndarray, steps: int) -> np.ndarray:
    """Positions after some steps of BFGS."""
    atoms = Atoms(
        numbers=numbers, positions=positions, calculator=TeacherCalculator(teacher.by_one)
    )
    BFGS(atoms, logfile=None, maxstep=0.1).run(fmax=0.01, steps=steps)
    return np.array(atoms.positions)


def tell_errors(calculator: Calculator, frames: Path) -> None:
    """Errors of forces on labelled frames, by element."""
    errors: dict[str, list[np.ndarray]] = {}
    for atoms in iread(frames):
        found = atoms.copy()
        found.calc = calculator
        for symbol, error in zip(
            atoms.symbols, found.get_forces() - atoms.get_forces(), strict=True
        ):
            errors.setdefault(symbol, []).append(abs(error))
    every = np.concatenate([np.concatenate(found) for found in errors.values()])
    print(f"forces: mean error {1e3 * every.mean():.1f} meV/Å")
    for symbol, found in errors.items():
        print(f"    {symbol}: {1e3 * np.mean(found):.1f} meV/Å of {len(found)} atoms")


def main() -> None:
    from jmp_md.benchmarking import benchmark
    from jmp_md.benchmarking.results import Part

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", type=Path)
    parser.add_argument("--parts", nargs="*", default=["barriers", "torsions"])
    parser.add_argument("--frames", type=Path, help="labelled; their forces are compared")
    args = parser.parse_args()

    def show(part: Part) -> None:
        print(f"{part.name}: mean error {part.mean_error:.3g} {part.unit}")
        for case in part.cases:
            print(f"    {case.name}: {case.value:.1f} of {case.reference:.1f}")

    teacher = TeacherCalculator(Teacher(args.models).by_four)
    if args.parts:
        benchmark(teacher, "teacher", parts=args.parts, progress=show)
    if args.frames:
        tell_errors(teacher, args.frames)


if __name__ == "__main__":
    main()
