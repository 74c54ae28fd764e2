"""Time and memory of energy + conservative forces, against the official algorithm and the floor.

    python benchmarks/engine.py                       # the table
    python benchmarks/engine.py --rows jmp-s:nanotube-144 --methods ours lean oracle floor

Each row runs in a fresh process; rows of one structure run one after the other. Methods:

- ours: the network as the calculators use it; lean: the same with blocks recomputed;
  bf16: the same with bfloat16 blocks.
- oracle: the enumerating reference network of the tests, the algorithm of the official code.
- floor: the dense layers on edges alone, forward and input gradient, at the same shapes.
- mace: a MACE model of the size of MACE-OFF small with random weights (needs mace-torch).

Weights are random: they do not change what is computed. Peak memory is the growth of the resident
set over the process with weights loaded.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.build import molecule, nanotube
from ase.io import read
from torch import Tensor
from torch.nn.functional import linear

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from jmp_md.graph.layout import Edges
from jmp_md.graph.pairs import find_pairs
from jmp_md.graph.policy import GraphPolicy
from jmp_md.header import HeadInfo, ModelHeader
from jmp_md.nn.config import preset
from jmp_md.nn.layers import Dense, scaled_silu
from jmp_md.potential import Potential
from jmp_md.structures import Structures, single_structure

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
ROWS = (
    "jmp-xs:ethanol",
    "jmp-xs:aspirin",
    "jmp-xs:water-64",
    "jmp-xs:nanotube-200",
    "jmp-s:aspirin",
    "jmp-s:ammonia-16",
    "jmp-s:nanotube-144",
    "jmp-l:aspirin",
    "jmp-l:nanotube-144",
    "jmp-l:nanotube-360",
)
METHODS = ("ours", "lean", "bf16", "oracle", "floor", "mace")


def structure(name: str) -> Atoms:
    """A benchmark structure by name, or a file."""
    kind, _, size = name.partition("-")
    if kind == "ethanol":
        return molecule("CH3CH2OH")
    if kind == "aspirin":
        return read(EXAMPLES / "aspirin.xyz")
    if kind == "water":
        return water(int(size))
    if kind == "ammonia":
        return ammonia(int(size))
    if kind == "nanotube":
        atoms = nanotube(5, 5, length=round(int(size) / 60)) if int(size) >= 300 else None
        if atoms is None:
            return nanotube(6, 6, length=round(int(size) / 24))
        outer = nanotube(10, 10, length=round(int(size) / 60))
        outer.positions += atoms.get_center_of_mass() - outer.get_center_of_mass()
        return atoms + outer
    return read(name)


def water(molecules: int) -> Atoms:
    """Periodic water at 1 g/cm3 on a slightly shaken lattice."""
    per_side = round(molecules ** (1 / 3))
    if per_side**3 != molecules:
        raise SystemExit(f"water-{molecules}: the number must be a cube")
    spacing = 3.104  # Å, one molecule per spacing^3 at 1 g/cm3
    one = molecule("H2O")
    one.cell = np.eye(3) * spacing
    box = one.repeat(per_side)
    box.pbc = True
    box.rattle(0.05, seed=1)
    return box


def ammonia(molecules: int) -> Atoms:
    """A cluster of ammonia on a slightly shaken lattice, not periodic."""
    one = molecule("NH3")
    one.cell = np.eye(3) * 3.6
    box = one.repeat((2, 2, molecules // 4))
    box.rattle(0.05, seed=1)
    return Atoms(box.numbers, box.positions)


def make_potential(size: str) -> Potential:
    """Random weights of a size, with the graphs it is used with."""
    graph = GraphPolicy.smooth() if size == "jmp-xs" else GraphPolicy.official(12.0, 30)
    head = HeadInfo(name="energy", graph=graph)
    torch.manual_seed(0)
    return Potential(ModelHeader(size, preset(size), (head,))).float().requires_grad_(False)


def make_structures(atoms: Atoms, potential: Potential) -> Structures:
    """A structure with pairs as far as the graphs reach."""
    cell, pbc = atoms.cell.array, np.array(atoms.pbc)
    pairs = find_pairs(atoms.positions, cell, pbc, potential.policy.cutoff)
    return single_structure(atoms.positions, atoms.numbers, cell, pairs)


def ours(potential: Potential, s: Structures) -> Callable[[], object]:
    return lambda: potential.predict(s)


def lean(potential: Potential, s: Structures) -> Callable[[], object]:
    potential.memory = "lean"
    return ours(potential, s)


def bf16(potential: Potential, s: Structures) -> Callable[[], object]:
    potential.backbone.bf16 = True
    return ours(potential, s)


def oracle(potential: Potential, s: Structures) -> Callable[[], object]:
    """The enumerating network on the same edges, with the official names of the weights."""
    import oracle as reference
    from oracle_graphs import OracleEdges

    weight = potential.embedding.weight
    s = s.to(weight.device, weight.dtype)
    state = official_names(potential)
    graph = potential.graph(s.positions, s.cells, s.structure, s.tags, s.pairs)
    graphs = {
        name: OracleEdges(e.source, e.target, _offsets(e, s), None)
        for name, e in zip(("main", "atom_edge", "quadruplet", "atom_atom"), graph[:4], strict=True)
    }

    def run() -> object:
        x = s.positions.detach().requires_grad_()
        out = reference.oracle_forward(
            state, potential.header.architecture, s.numbers, x, s.cells[0], graphs
        )
        energy = potential.energy_head(out["X_E"]).sum()
        return torch.autograd.grad(energy, x)

    return run


def _offsets(edges: Edges, s: Structures) -> Tensor:
    """Cell offsets of edges, from their vectors."""
    if not s.cells.any():
        return torch.zeros(len(edges.source), 3, dtype=torch.long)
    vector = edges.unit * edges.distance.unsqueeze(1)
    shift = s.positions[edges.target] - s.positions[edges.source] - vector
    return (shift @ torch.linalg.pinv(s.cells[0])).round().long()


def official_names(potential: Potential) -> dict[str, Tensor]:
    """State dict under official names, with the copies the official layout holds."""
    state = {}
    for key, value in potential.state_dict().items():
        state[key] = value
        if ".layers." in key and "out_blocks" in key:
            state[key.replace(".layers.", ".seq_energy_pre.")] = value
    radial = potential.backbone.radial
    for name in (
        "radial_basis",
        "radial_basis_aeaint",
        "radial_basis_aint",
        "cbf_basis_qint.radial_basis",
        "sbf_basis_qint.radial_basis",
        "cbf_basis_aeint.radial_basis",
        "cbf_basis_eaint.radial_basis",
        "cbf_basis_tint.radial_basis",
    ):
        state[f"backbone.bases.{name}.rbf.offset"] = radial.offset
        state[f"backbone.bases.{name}.rbf.temps"] = radial.temps
    return state


def floor(potential: Potential, s: Structures) -> Callable[[], object]:
    """The dense layers of the interaction blocks that act on main edges, with input gradients."""
    weight = potential.embedding.weight
    s = s.to(weight.device, weight.dtype)
    graph = potential.graph(s.positions, s.cells, s.structure, s.tags, s.pairs)
    n_edges = len(graph.main.source)
    weights = edge_weights(potential)
    inputs = {w.shape[1]: torch.randn(n_edges, w.shape[1]) for w in weights}

    def run() -> object:
        x = {width: t.detach().requires_grad_() for width, t in inputs.items()}
        total = sum(scaled_silu(linear(x[w.shape[1]], w)).sum() for w in weights)
        return torch.autograd.grad(total, list(x.values()))

    return run


def edge_weights(potential: Potential) -> list[Tensor]:
    """Weights of the dense layers of the blocks that are applied once per main edge."""
    emb = potential.header.architecture.emb_size_atom
    on_atoms = (
        "atom_emb_layers",
        ".atom_interaction",
        "atom_update.layers",
        "atom_edge_interaction.dense",
        "atom_edge_interaction.down",
        "atom_edge_interaction.mlp_rbf",
        "edge_atom_interaction.up",
        "edge_atom_interaction.mlp_cbf",
    )
    weights = []
    for name, module in potential.backbone.int_blocks.named_modules():
        if not isinstance(module, Dense) or any(part in name for part in on_atoms):
            continue
        weight = module.linear.weight
        weights.append(weight[:, 2 * emb :] if "concat_layer" in name else weight)
    return weights


def mace(potential: Potential, s: Structures, atoms: Atoms) -> Callable[[], object]:
    """ASE steps of a MACE of MACE-OFF small's size: 96x0e, two layers, 4.5 Å, l = 3."""
    from e3nn import o3
    from mace.calculators import MACECalculator
    from mace.modules import ScaleShiftMACE, interaction_classes

    block = interaction_classes["RealAgnosticResidualInteractionBlock"]
    numbers = sorted(set(atoms.numbers.tolist()))
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
    calculator = MACECalculator(models=[model.float()], device="cpu", default_dtype="float32")
    copy = atoms.copy()
    copy.calc = calculator

    def run() -> object:
        copy.rattle(1e-3)
        return copy.get_forces()

    return run


def worker(row: str, method: str, repeats: int) -> dict[str, float]:
    """Measure one row in this process."""
    size, name = row.split(":", 1)
    atoms = structure(name)
    potential = make_potential(size)
    s = make_structures(atoms, potential)
    makers = {"ours": ours, "lean": lean, "bf16": bf16, "oracle": oracle, "floor": floor}
    call = mace(potential, s, atoms) if method == "mace" else makers[method](potential, s)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    call()
    first = time.perf_counter() - began
    times = []
    for _ in range(repeats if first < 5 else min(repeats, 2)):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "atoms": len(atoms),
        "ms": 1e3 * statistics.median(times),
        "first_ms": 1e3 * first,
        "peak_MiB": (peak - before) / 1024,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", nargs="+", default=list(ROWS), metavar="SIZE:STRUCTURE")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--timeout", type=float, default=300, help="seconds for one row")
    parser.add_argument("--json", type=Path, help="write the results here")
    parser.add_argument("--worker", nargs=2, metavar=("ROW", "METHOD"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        print(json.dumps(worker(*args.worker, args.repeats)))
        return
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.machine()}")
    print(f"{'row':24} {'method':8} {'atoms':>6} {'ms':>10} {'first ms':>10} {'peak MiB':>9}")
    results = {}
    for row in args.rows:
        for method in args.methods:
            command = [sys.executable, __file__, "--worker", row, method]
            command += ["--repeats", str(args.repeats)]
            try:
                done = subprocess.run(
                    command,
                    capture_output=True,
                    text=True,
                    timeout=args.timeout,
                    check=True,
                    # For e3nn, which the peer imports: it loads its own constants by pickle.
                    env={**os.environ, "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"},
                )
                result = json.loads(done.stdout.splitlines()[-1])
                line = f"{result['atoms']:6d} {result['ms']:10.1f} {result['first_ms']:10.1f} "
                line += f"{result['peak_MiB']:9.0f}"
            except subprocess.TimeoutExpired:
                result, line = {"error": "timeout"}, f"over {args.timeout:.0f} s"
            except subprocess.CalledProcessError as error:
                reason = (error.stderr.strip().splitlines() or ["killed: out of memory?"])[-1]
                result, line = {"error": reason}, reason
            results[f"{row}/{method}"] = result
            print(f"{row:24} {method:8} {line}", flush=True)
    if args.json:
        args.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
