"""Compiled code in place of eager mode: compared with it, and given up where it fails.

Compiled code is kept in the user's cache, as PyTorch keeps its own, and loaded from there by later
processes. Models that differ in their weights alone share it.
"""

from __future__ import annotations

import hashlib
import platform
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from jmp_md._version import __version__
from jmp_md.aoti import (
    Code,
    compile_step,
    deviation,
    graph_inputs,
    is_general,
    load_code,
    network_step,
    package_file,
    step_result,
    tolerance,
    weights,
)
from jmp_md.files import require_own
from jmp_md.graph.layout import Graph
from jmp_md.memory import is_out_of_memory
from jmp_md.models.registry import cache_dir
from jmp_md.nn.fold import FoldedNetwork
from jmp_md.potential import Potential
from jmp_md.step import FoldedStep, StepResult

# What the code of a step is made from: other versions of it are other code.
_SOURCES = ("nn/*.py", "graph/layout.py", "aoti.py")
_SLOWER = 1.15  # times eager mode, beyond noise


class CompiledStep:
    """The compiled network of a potential, which falls back to eager mode with one warning.

    The first use compiles, or loads what was compiled before, compares with eager mode, and
    warns where that is faster. Energies alone, structures with next to no edges and lean memory
    are left to eager mode.

    Args:
        potential: What to compute.

    Attributes:
        failure: Why compiled code is not used; empty where nothing is wrong.
        seconds: What compiling, loading, comparing and timing took so far.
    """

    def __init__(self, potential: Potential) -> None:
        self.failure = ""
        self.seconds = 0.0
        self._potential = potential
        self._eager = FoldedStep(potential)
        self.forget()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_network": None, "_codes": {}}  # code is loaded again

    @property
    def frugal(self) -> bool:
        """See :class:`~jmp_md.step.Step`."""
        return False

    def forget(self) -> None:
        """Expect other weights, of another type or on another device."""
        self._eager.forget()
        self._network: FoldedNetwork | None = None
        self._weights: list[Tensor] = []
        self._codes: dict[tuple[bool, int], Code] = {}

    def __call__(self, numbers: Tensor, graph: Graph, *, direct: bool, lean: bool) -> StepResult:
        gradient, slower = torch.is_grad_enabled(), ""
        inputs = graph_inputs(numbers, graph)
        compiled = (gradient or direct) and not lean and not self.failure and is_general(inputs)
        if not compiled:
            return self._eager(numbers, graph, direct=direct, lean=lean)
        try:
            with torch.no_grad():
                self._follow(self._eager.network)
                key = gradient, torch.get_num_threads()  # which is part of the code
                if key not in self._codes:
                    self._codes[key], slower = self._prepare(inputs, gradient)
                outputs = self._codes[key](*self._weights, *inputs)
        except Exception as error:  # whatever a compiler may raise
            if is_out_of_memory(error):
                raise
            self.failure = (str(error).strip() or type(error).__name__).splitlines()[0]
            warnings.warn(
                f"model {self._potential.header.name!r} runs in eager mode, not compiled: "
                f"{self.failure}",
                stacklevel=5,
            )
            return self._eager(numbers, graph, direct=direct, lean=lean)
        if slower:
            # Not left: which of the two runs must not depend on what else the machine does.
            warnings.warn(slower, stacklevel=5)
        return step_result(outputs, graph)

    def _follow(self, network: FoldedNetwork) -> None:
        """Give the code the weights of a network that was folded again."""
        if network is not self._network:
            self._network, self._weights = network, list(weights(network).values())

    def _prepare(self, inputs: list[Tensor], gradient: bool) -> tuple[Code, str]:
        """The compiled step, compared with eager mode, and a warning where it is slower."""
        began = time.perf_counter()
        assert self._network is not None
        network, policy = self._network, self._potential.policy
        code = _load_or_compile(network, self._potential, gradient)
        eager, everything = network_step(network, policy, gradient), [*self._weights, *inputs]
        error = deviation(code(*everything), eager(*inputs))
        if not error <= tolerance(network):
            raise ValueError(f"its results differ from eager mode's by {error:.1e}, relatively")
        ours, theirs = _seconds(code, everything), _seconds(eager, inputs)
        slower = ""
        if ours > _SLOWER * theirs:
            slower = (
                f"compiled code takes {1e3 * ours:.1f} ms for this structure, eager mode "
                f"{1e3 * theirs:.1f} ms: leave out compile=True (--compile) for more speed"
            )
        self.seconds += time.perf_counter() - began
        return code, slower


def _seconds(code: Code, inputs: list[Tensor]) -> float:
    """What a step takes that has run before, the best of three; of fewer if they take long."""
    taken: list[float] = []
    while len(taken) < 3 and sum(taken) < 1.0:
        began = time.perf_counter()
        code(*inputs)[0].sum().item()  # waits for the device
        taken.append(time.perf_counter() - began)
    return min(taken)


def _load_or_compile(network: FoldedNetwork, potential: Potential, gradient: bool) -> Code:
    folder = cache_dir() / "compiled"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    require_own(folder)
    path = folder / f"{_key(network, potential, gradient)}.pt2"
    if not path.exists():
        with package_file(path) as package:
            compile_step(network, potential.policy, gradient, package, with_weights=False)
            package.chmod(0o600)
    require_own(path)
    return load_code(path, network.embedding.weight.device)


def _key(network: FoldedNetwork, potential: Potential, gradient: bool) -> str:
    """Name of compiled code: a hash of all it depends on."""
    from torch._inductor.cpu_vec_isa import pick_vec_isa

    weight, policy, head = network.embedding.weight, potential.policy, potential.head
    about = (
        __version__,
        torch.__version__,
        platform.platform(),
        str(pick_vec_isa()),
        torch.get_num_threads(),
        potential.header.architecture,
        (policy.kind, policy.inline_sin2, head.repulsion and head.energy_scale),
        [(name, tuple(x.shape), x.dtype) for name, x in weights(network).items()],
        gradient,
        torch.cuda.get_device_name(weight.device) if weight.is_cuda else weight.device.type,
    )
    digest = hashlib.sha256(repr(about).encode())
    folder = Path(__file__).parent
    for source in _SOURCES:
        for path in sorted(folder.glob(source)):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:32]
