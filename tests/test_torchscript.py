"""Scripted networks compute what the eager ones do; OpenMM's TorchForce runs them."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from network_oracle import sensitive_potential, structures_of
from torch import Tensor

from jmp_md.export.write import general_module
from jmp_md.graph.policy import GraphPolicy
from jmp_md.structures import Structures, concatenate

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*instance-level annotations:UserWarning"),
]
POLICIES = {
    "official": GraphPolicy.official(5.0, 8),
    "smooth": GraphPolicy("smooth", (5.0, 4.5, 3.0, 5.0), (6, 4, None, None)),
}
LIMITS = {torch.float64: 1e-12, torch.float32: 1e-6}


Outputs = tuple[Tensor, Tensor, Tensor]


@pytest.fixture(autouse=True)
def _without_profiling() -> Iterator[None]:
    """The profiling executor would recompile at the second and third calls."""
    with torch.jit.optimized_execution(False):
        yield


@pytest.fixture(params=POLICIES)
def policy(request: pytest.FixtureRequest) -> GraphPolicy:
    return POLICIES[request.param]


def samples(cutoff: float) -> list[Structures]:
    """A molecule, an in-line one, a crystal, one atom without an edge, and all in a batch."""
    ethanol, silicon = molecule("CH3CH2OH"), bulk("Si", a=4.5)
    for atoms in (ethanol, silicon):
        atoms.rattle(0.1, rng=np.random.default_rng(0))
    parts = [structures_of(a, cutoff) for a in (ethanol, molecule("CO2"), silicon, Atoms("H"))]
    return [*parts, concatenate(parts)]


def outputs_of(s: Structures, run: Callable[[Structures], tuple[Tensor, Tensor]]) -> Outputs:
    """Energies, their gradient by positions, and direct forces."""
    x = s.positions.clone().requires_grad_()
    energies, direct = run(s._replace(positions=x))
    (gradient,) = torch.autograd.grad(energies.sum(), x)
    return energies.detach(), gradient, direct.detach()


def scripted_outputs(scripted: torch.jit.ScriptModule, s: Structures) -> Outputs:
    return outputs_of(
        s,
        lambda s: scripted.network(s.positions, s.numbers, s.tags, s.structure, s.cells, s.pairs),
    )


@pytest.mark.parametrize(
    ("direct", "dtype"), [(False, torch.float64), (True, torch.float64), (True, torch.float32)]
)
def test_scripted_network_equals_eager(
    direct: bool, dtype: torch.dtype, policy: GraphPolicy
) -> None:
    potential = sensitive_potential(policy, direct=direct).to(dtype)
    before = {name: x.clone() for name, x in potential.native_state().items()}
    scripted, network = (
        general_module(potential, "direct" if direct else "conservative"),
        potential.fold(),
    )

    def folded(s: Structures) -> tuple[Tensor, Tensor]:
        graph = potential.graph(s.positions, s.cells, s.structure, s.tags, s.pairs)
        energies, forces = network(s.numbers, graph)
        return energies, forces

    assert all(torch.equal(x, before[name]) for name, x in potential.native_state().items())
    for s in samples(policy.cutoff):
        s = s.to(s.positions.device, dtype)
        eager = outputs_of(s, folded)
        for got, expected in zip(scripted_outputs(scripted, s), eager, strict=True):
            assert got.dtype == dtype
            size = max(float(expected.abs().max()), 1e-3) if expected.numel() else 0.0
            assert not got.numel() or float((got - expected).abs().max()) < LIMITS[dtype] * size
        assert bool(eager[2].any()) == (direct and len(s.pairs.source) > 0)


def test_saved_network_gives_the_same_bits(policy: GraphPolicy) -> None:
    scripted = general_module(sensitive_potential(policy), "conservative")
    buffer = io.BytesIO()
    torch.jit.save(scripted, buffer)
    buffer.seek(0)
    loaded = torch.jit.load(buffer)
    for s in samples(policy.cutoff):
        for got, expected in zip(
            scripted_outputs(loaded, s), scripted_outputs(scripted, s), strict=True
        ):
            assert torch.equal(got, expected)
