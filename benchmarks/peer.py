"""The peer: steps of a MACE model in ASE (needs mace-torch, perhaps in another environment).

    OTHER/bin/python benchmarks/peer.py STRUCTURE.extxyz            # a worker of engine.py

The model has the size of MACE-OFF small (arXiv 2312.15211): 96 scalar channels, two layers,
l <= 3, correlation 3, 4.5 Å; its weights are random.
"""

from __future__ import annotations

import argparse
import os
import warnings

# e3nn loads constants of its own by pickle.
os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] = "1"

import numpy as np
import torch
from ase import Atoms
from ase.io import read
from turns import serve


def make_calculator(atoms: Atoms) -> object:
    """A MACECalculator for the elements of a structure, in float32."""
    from e3nn import o3
    from mace.calculators import MACECalculator
    from mace.modules import ScaleShiftMACE, interaction_classes

    block = interaction_classes["RealAgnosticResidualInteractionBlock"]
    numbers = sorted(set(atoms.numbers.tolist()))
    torch.manual_seed(0)
    model = ScaleShiftMACE(
        r_max=4.5,
        num_bessel=8,
        num_polynomial_cutoff=5,
        max_ell=3,
        interaction_cls=block,
        interaction_cls_first=block,
        num_interactions=2,
        num_elements=len(numbers),
        hidden_irreps=o3.Irreps("96x0e"),
        MLP_irreps=o3.Irreps("16x0e"),
        atomic_energies=np.zeros(len(numbers)),
        avg_num_neighbors=10.0,
        atomic_numbers=numbers,
        correlation=3,
        gate=torch.nn.functional.silu,
        atomic_inter_scale=1.0,
        atomic_inter_shift=0.0,
        radial_MLP=[64, 64, 64],
    )
    return MACECalculator(models=[model.float()], device="cpu", default_dtype="float32")


def main() -> None:
    """Serve the turns of ``engine.py``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("structure")
    parser.add_argument("--memory", type=float, help="GiB that steps may take")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    atoms = read(args.structure)
    moved = atoms.copy()
    moved.calc = make_calculator(atoms)
    rng = np.random.default_rng(0)

    def run() -> object:
        moved.positions = atoms.positions + rng.uniform(-0.02, 0.02, atoms.positions.shape)
        return moved.get_forces()

    serve(run, args.memory)


if __name__ == "__main__":
    main()
