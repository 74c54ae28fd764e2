"""Contexts that share a system, a model or a thread get their own forces."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch  # noqa: F401 - before openmm, or the TorchForce plugin does not load
from ase.build import molecule
from factories import random_potential

openmm = pytest.importorskip("openmm")

from openmm_systems import KJ, context_of, empty_system, forces_of, platforms, topology_of  # noqa: E402

from jmp_md import JMPCalculator  # noqa: E402
from jmp_md.calculators.openmm import add_jmp_force  # noqa: E402
from jmp_md.calculators.openmm_python import has_python_force  # noqa: E402
from jmp_md.calculators.openmm_torch import plugin_problem  # noqa: E402
from jmp_md.graph.policy import GraphPolicy  # noqa: E402
from jmp_md.potential import Potential  # noqa: E402

BACKENDS = (["python"] if has_python_force(subset=False) else []) + (
    [] if plugin_problem() else ["torch"]
)
if not BACKENDS:
    pytest.skip("needs PythonForce or TorchForce", allow_module_level=True)
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")

EVALUATIONS = 120
METHANOL = molecule("CH3OH")
# Two contexts whose neighbours differ, and places within the skin and beyond for each.
PLACES = [
    [
        scale * METHANOL.positions + np.random.default_rng(k).normal(0, 0.05, (6, 3))
        for k in range(5)
    ]
    for scale in (1.0, 1.9)
]


def model() -> Potential:
    return random_potential(num_blocks=1, graph=GraphPolicy.smooth(4.0, 4.0, 2.5, 4.5))


def system_of(backend: str) -> openmm.System:
    system = empty_system(METHANOL)
    options: dict[str, Any] = {"backend": backend, "dtype": "float64", "device": "cpu"}
    add_jmp_force(system, topology_of(METHANOL), model(), **options)
    return system


def forces_at(context: openmm.Context, place: np.ndarray) -> np.ndarray:
    context.setPositions(place / 10)
    return forces_of(context)


@pytest.fixture(scope="module")
def right() -> list[list[np.ndarray]]:
    """Forces of every place by a calculator that remembers nothing: kJ/mol/nm."""
    atoms = METHANOL.copy()
    atoms.calc = JMPCalculator(model(), dtype="float64", device="cpu", skin=0.0)
    found: list[list[np.ndarray]] = []
    for places in PLACES:
        found.append([])
        for place in places:
            atoms.positions = place
            found[-1].append(atoms.get_forces() * KJ * 10)
    return found


@pytest.mark.parametrize("platform", platforms())
@pytest.mark.parametrize("backend", BACKENDS)
def test_contexts_in_threads_get_the_forces_of_their_own_positions(
    backend: str, platform: str, right: list[list[np.ndarray]]
) -> None:
    if backend == "torch" and platform == "OpenCL":
        pytest.skip("the plugin of openmmtorch 1.5 does not load on OpenCL")
    system = system_of(backend)

    def worst(k: int) -> float:
        context = context_of(system, PLACES[k][0], platform=platform)
        found = 0.0
        for turn in range(EVALUATIONS):
            got = forces_at(context, PLACES[k][turn % 5])
            found = max(found, float(np.abs(got - right[k][turn % 5]).max()))
        return found

    with ThreadPoolExecutor(2) as threads:
        errors = list(threads.map(worst, range(2)))
    assert max(errors) < (1e-9 if platform == "Reference" else 1e-3)


@pytest.mark.parametrize("backend", BACKENDS)
def test_contexts_and_copies_that_take_turns_do_not_meet(
    backend: str, right: list[list[np.ndarray]]
) -> None:
    system = system_of(backend)
    systems = [system, system, copy.deepcopy(system), openmm.XmlSerializer.clone(system)]
    contexts = [context_of(s, PLACES[0][0]) for s in systems]
    for turn in range(12):
        k = turn % 2
        for context in contexts:
            got = forces_at(context, PLACES[k][turn % 5])
            assert np.abs(got - right[k][turn % 5]).max() < 1e-9
            k = 1 - k
