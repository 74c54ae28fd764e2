"""Operations and bytes of a step per main edge: what is counted, not timed.

    python benchmarks/cost.py [--structure aspirin] [--models jmp-xs jmp-s jmp-l]

- dense: multiply-adds of the dense layers on main edges, forward (the floor of `engine.py` does
  twice that, with input gradients).
- matrix: all multiply-adds in matrix products, of energy and forces.
- saved: bytes that the backward pass finds kept by the forward pass, in units of one embedding of
  an edge; `lean` computes most of them again.
"""

from __future__ import annotations

import argparse
import warnings
from typing import Any

import torch
from methods import MODELS, edge_weights, edges, make_potential
from structures import build
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from jmp_md.graph.pairs import find_pairs
from jmp_md.potential import Potential
from jmp_md.structures import Structures, concatenate, single_structure


class MultiplyAdds(TorchDispatchMode):
    """Counts those in matrix products. (PyTorch's own counter does not stand autograd.grad.)"""

    total = 0.0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if func.overloadpacket in flop_registry:
            self.total += 0.5 * flop_registry[func.overloadpacket](
                *args, **(kwargs or {}), out_val=out
            )
        return out


def saved_bytes(potential: Potential, structures: Structures) -> int:
    """Of tensors that the forward pass keeps for the backward pass."""
    kept: dict[int, int] = {}

    def note(t: torch.Tensor) -> torch.Tensor:
        kept[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    s = structures.to(potential.embedding.weight.device, potential.embedding.weight.dtype)
    s = s._replace(positions=s.positions.detach().requires_grad_())
    with saved_tensors_hooks(note, lambda t: t):
        energy = potential.interaction_energy(s)  # alive, so that no address is used twice
    assert energy.requires_grad
    return sum(kept.values())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--structure", default="aspirin")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    atoms = build(args.structure)
    print("model              edges    dense   matrix  over 2 x dense   saved  saved, lean")
    for model in args.models:
        potential = make_potential(model)
        cutoff = potential.policy.cutoff
        pairs = find_pairs(atoms.positions, atoms.cell.array, atoms.pbc, cutoff)
        s = single_structure(atoms.positions, atoms.numbers, atoms.cell.array, pairs)
        two = concatenate([s, s])  # what it takes more is per edge; weights are the same
        n_edges = len(edges(potential.policy, atoms)["main"])
        dense = sum(w.numel() for w in edge_weights(potential))
        potential.memory = "fast"
        with MultiplyAdds() as counter:
            potential.predict(s)
        matrix = counter.total / n_edges
        c = potential.header.architecture
        unit = n_edges * c.emb_size_edge * 4 * c.num_blocks
        fast = (saved_bytes(potential, two) - saved_bytes(potential, s)) / unit
        potential.memory = "lean"
        lean = (saved_bytes(potential, two) - saved_bytes(potential, s)) / unit
        print(
            f"{model:16} {n_edges:7d} {dense / 1e6:6.2f} M {matrix / 1e6:6.1f} M "
            f"{matrix / dense / 2:12.2f} {fast:11.1f} {lean:11.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
