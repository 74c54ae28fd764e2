"""Scripted networks compute what the eager ones do; OpenMM's TorchForce runs them."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from network_oracle import sensitive_potential, structures_of
from torch import Tensor, nn

from jmp_md.graph.pairs import Pairs
from jmp_md.graph.policy import GraphPolicy
from jmp_md.potential import Potential
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


class Network(nn.Module):
    """The parts of a potential in a row, typed as TorchScript needs them."""

    def __init__(self, potential: Potential) -> None:
        super().__init__()
        self.graph, self.embedding = potential.graph, potential.embedding
        self.backbone, self.energy_head = potential.backbone, potential.energy_head
        self.force_head = potential.force_head

    def forward(
        self,
        positions: Tensor,
        numbers: Tensor,
        tags: Tensor,
        structure: Tensor,
        cells: Tensor,
        pairs: Pairs,
    ) -> tuple[Tensor, Tensor]:
        graph = self.graph(positions, cells, structure, tags, pairs)
        x_e, x_f = self.backbone(self.embedding(numbers - 1), graph)
        forces = torch.zeros_like(positions)
        if self.force_head is not None:
            along = self.force_head(x_f) * graph.main.unit * graph.main.weight.unsqueeze(-1)
            forces = forces.index_add(0, graph.main.target, along)
        return self.energy_head(x_e).squeeze(-1), forces


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


def outputs(network: nn.Module, s: Structures) -> tuple[Tensor, Tensor, Tensor]:
    """Energies, their gradient by positions, and direct forces."""
    x = s.positions.clone().requires_grad_()
    energies, direct = network(x, s.numbers, s.tags, s.structure, s.cells, s.pairs)
    (gradient,) = torch.autograd.grad(energies.sum(), x)
    return energies.detach(), gradient, direct.detach()


@pytest.mark.parametrize(
    ("direct", "dtype"), [(False, torch.float64), (True, torch.float64), (True, torch.float32)]
)
def test_scripted_network_equals_eager(
    direct: bool, dtype: torch.dtype, policy: GraphPolicy
) -> None:
    potential = sensitive_potential(policy, direct=direct).to(dtype)
    eager = Network(potential)
    scripted = torch.jit.script(eager)
    for s in samples(policy.cutoff):
        s = s.to(s.positions.device, dtype)
        for got, expected in zip(outputs(scripted, s), outputs(eager, s), strict=True):
            assert got.dtype == dtype
            size = max(float(expected.abs().max()), 1e-3)
            assert float((got - expected).abs().max()) < LIMITS[dtype] * size
        assert bool(outputs(eager, s)[2].any()) == (direct and len(s.pairs.source) > 0)


def test_saved_network_gives_the_same_bits(policy: GraphPolicy) -> None:
    scripted = torch.jit.script(Network(sensitive_potential(policy)))
    buffer = io.BytesIO()
    torch.jit.save(scripted, buffer)
    buffer.seek(0)
    loaded = torch.jit.load(buffer)
    for s in samples(policy.cutoff):
        for got, expected in zip(outputs(loaded, s), outputs(scripted, s), strict=True):
            assert torch.equal(got, expected)


def test_network_of_the_test_is_that_of_the_potential(policy: GraphPolicy) -> None:
    potential = sensitive_potential(policy, direct=True)
    for s in samples(policy.cutoff):
        energies, _, direct = outputs(Network(potential), s)
        expected_energies, expected_direct = potential.network(s)
        assert torch.equal(energies, expected_energies)
        assert torch.equal(direct, expected_direct)
