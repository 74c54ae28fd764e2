"""The network as compiled code: energies and their gradients in one call, for any shapes.

Which edges exist depends on the positions, so the graph is built in eager mode. From there on,
the network and its backward pass are traced once with symbolic sizes and compiled by AOTInductor.
No change of sizes compiles again. Compiled code is kept in the user's cache, as PyTorch keeps its
own, and loaded from there by later processes.
"""

from __future__ import annotations

import hashlib
import os
import platform
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from jmp_md._version import __version__
from jmp_md.checkpoints.native import atomic_write
from jmp_md.graph.layout import Edges, Graph
from jmp_md.models.registry import cache_dir

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from jmp_md.potential import Potential

Step = Callable[..., tuple[Tensor, ...]]

# Sizes of an example, all different, so that tracing takes none for another.
_SIZES = {
    "atoms": 23,
    "main": 311,
    "atom_edge": 307,
    "quadruplet": 61,
    "atom_atom": 293,
    "main_slots": 19,
    "atom_edge_slots": 17,
    "quadruplet_slots": 7,
    "atom_atom_slots": 13,
}
# What rounding explains, relative to the largest component.
_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-9}
_TOLERANCE_BF16 = 0.1


class StepResult(NamedTuple):
    """What the network gives for a graph.

    Attributes:
        energies: (n_atoms,) as :meth:`jmp_md.potential.Potential.network` gives them.
        forces: (n_atoms, 3) direct forces, or empty.
        roots: Tensors of the graph that the energy depends on.
        gradients: Gradient of the total energy by each of them.
    """

    energies: Tensor
    forces: Tensor
    roots: list[Tensor]
    gradients: list[Tensor]


class CompiledNetwork:
    """The compiled network of a potential, which falls back to eager mode with one warning.

    The first use compiles, or loads what was compiled before, and compares with eager mode.

    Args:
        potential: In its type and on its device, which must not change afterwards.

    Attributes:
        failure: Why compiled code is not used; empty where nothing is wrong.
        seconds: What compiling or loading took so far.
    """

    def __init__(self, potential: Potential) -> None:
        self.failure = ""
        self.seconds = 0.0
        self._potential = potential
        self._steps: dict[bool, Step] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_steps": {}}  # compiled code cannot be copied; it is cached

    def __call__(self, numbers: Tensor, graph: Graph, gradient: bool) -> StepResult | None:
        """Run the network on a graph; None where it has to be done in eager mode.

        Args:
            numbers: (n_atoms,) atomic numbers.
            graph: Graph with distances, unit vectors and weights in the autograd graph.
            gradient: Whether gradients are wanted.
        """
        inputs = graph_inputs(numbers, graph)
        if self.failure or min(min(x.shape) for x in inputs) < 2:
            return None  # sizes of 0 and 1 would need code of their own
        try:
            with torch.no_grad():
                outputs = self._step(inputs, gradient)(*inputs)
        except Exception as error:  # whatever a compiler may raise
            self._fail(_reason(error))
            return None
        roots = [x for edges in _edges(graph) for x in _measures(edges)] if gradient else []
        pairs = [(x, g) for x, g in zip(roots, outputs[2:], strict=True) if x.requires_grad]
        return StepResult(outputs[0], outputs[1], [x for x, _ in pairs], [g for _, g in pairs])

    def _step(self, inputs: list[Tensor], gradient: bool) -> Step:
        """The compiled step, ready and compared."""
        if gradient not in self._steps:
            began = time.perf_counter()
            step = _load_or_compile(self._potential, gradient)
            self.seconds += time.perf_counter() - began
            error = deviation(self._potential, step(*inputs), inputs, gradient)
            if not error <= tolerance(self._potential):
                raise ValueError(f"results differ from eager mode by {error:.1e}, relatively")
            self._steps[gradient] = step
        return self._steps[gradient]

    def _fail(self, reason: str) -> None:
        self.failure = reason
        warnings.warn(
            f"model {self._potential.header.name!r} runs in eager mode, not compiled: {reason}",
            stacklevel=5,
        )


def graph_inputs(numbers: Tensor, graph: Graph) -> list[Tensor]:
    """What a step takes: 33 tensors.

    Atomic numbers (n,); source, target, slot, distance, unit and weight of the edges of each of
    the four graphs; then, with k, ka, kq and kaa slots, the fields of
    :class:`~jmp_md.graph.layout.Graph`: swap, differ_atom_edge (n, k, ka), differ_quadruplet
    (n, k, kq), open_triplet (n, kq, k), closing (n, k, kq), is_closing (n, k, kq); and a
    tensor (kaa,), whose values are not read.
    """
    n, k, kq = len(numbers), graph.main.slots, graph.quadruplet.slots
    inputs = [numbers]
    for edges in _edges(graph):
        inputs += [edges.source, edges.target, edges.slot]
        inputs += [x.detach() for x in _measures(edges)]
    return [
        *inputs,
        graph.swap,
        graph.differ_atom_edge,
        graph.differ_quadruplet,
        graph.open_triplet.view(n, kq, k),
        graph.closing.view(n, k, kq),
        graph.is_closing,
        torch.empty(graph.atom_atom.slots, device=numbers.device),
    ]


def _edges(graph: Graph) -> tuple[Edges, Edges, Edges, Edges]:
    return graph.main, graph.atom_edge, graph.quadruplet, graph.atom_atom


def _measures(edges: Edges) -> tuple[Tensor, Tensor, Tensor]:
    return edges.distance, edges.unit, edges.weight


def network_step(potential: Potential, gradient: bool) -> Step:
    """The network from :func:`graph_inputs` to energies, direct forces and gradients.

    With gradients, 12 tensors follow: the gradient of the total
    energy by distance, unit and weight of the edges of each of the four graphs.
    """
    smooth, inline_sin2 = potential.policy.kind == "smooth", potential.policy.inline_sin2

    def step(numbers: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
        potential.backbone.recompute = False
        swap, differ_ae, differ_q, open_triplet, closing, is_closing, aa = inputs[24:]
        n, k, ka = differ_ae.shape
        slots = (k, ka, differ_q.shape[2], aa.shape[0])
        places = torch.arange(k, device=swap.device)
        edges: list[Edges] = []
        roots: list[Tensor] = []
        for i in range(4):
            source, target, slot = inputs[6 * i : 6 * i + 3]
            own = [x.detach().requires_grad_(gradient) for x in inputs[6 * i + 3 : 6 * i + 6]]
            edges.append(Edges(source, target, slot, slots[i], *own))
            roots += own
        graph = Graph(
            main=edges[0],
            atom_edge=edges[1],
            quadruplet=edges[2],
            atom_atom=edges[3],
            swap=swap,
            differ_main=places.unsqueeze(0) != places.unsqueeze(1),
            differ_atom_edge=differ_ae,
            differ_quadruplet=differ_q,
            open_triplet=open_triplet.reshape(n * slots[2], k),
            closing=closing.reshape(-1),
            is_closing=is_closing,
            smooth=smooth,
            inline_sin2=inline_sin2,
            kept=1.0,
        )
        with torch.set_grad_enabled(gradient):
            energies, forces = potential.on_graph(numbers, graph)
        if not gradient:
            return energies, forces
        found = torch.autograd.grad(energies.sum(), roots, allow_unused=True)
        gradients = [
            torch.zeros_like(x) if g is None else g for x, g in zip(roots, found, strict=True)
        ]
        return energies.detach(), forces.detach(), *gradients

    return step


def trace(potential: Potential, gradient: bool) -> ExportedProgram:
    """The step as a graph of operations for any sizes of 2 or more."""
    from torch.export import Dim, export
    from torch.fx.experimental.proxy_tensor import make_fx

    example, names = _example(potential)
    dims = {name: Dim(name, min=2, max=2**31) for name in _SIZES}
    shapes = tuple({i: dims[name] for i, name in enumerate(own)} for own in names)
    module = make_fx(
        network_step(potential, gradient), tracing_mode="symbolic", _allow_non_fake_inputs=True
    )(*example)
    # Tracing cannot prove inequalities of strides that hold for all sizes: checked when run.
    return export(
        module,
        tuple(example),
        dynamic_shapes=shapes,
        prefer_deferred_runtime_asserts_over_guards=True,
    )


def compile_step(
    potential: Potential, gradient: bool, path: Path, metadata: dict[str, str] | None = None
) -> None:
    """Compile a step and write it to ``path``, an AOTInductor package.

    Raises:
        Exception: Anything a compiler may raise.
    """
    from torch._inductor import aoti_compile_and_package

    options: dict[str, Any] = {"aot_inductor.metadata": metadata or {}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of PyTorch about itself
        program = trace(potential, gradient)
        aoti_compile_and_package(program, package_path=str(path), inductor_configs=options)


def deviation(
    potential: Potential, outputs: tuple[Tensor, ...], inputs: list[Tensor], gradient: bool
) -> float:
    """Largest difference from eager mode, relative to the largest component of its kind."""
    largest = 0.0
    for got, expected in zip(outputs, network_step(potential, gradient)(*inputs), strict=True):
        if expected.numel():
            size = expected.abs().max().clamp(min=1e-3)
            largest = max(largest, float((got - expected).abs().max().div(size).nan_to_num(1e9)))
    return largest


def tolerance(potential: Potential) -> float:
    """Deviation that rounding explains."""
    return (
        _TOLERANCE_BF16 if potential.backbone.bf16 else _TOLERANCE[potential.embedding.weight.dtype]
    )


def _load_or_compile(potential: Potential, gradient: bool) -> Step:
    folder = cache_dir() / "compiled"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if hasattr(os, "getuid") and folder.stat().st_uid != os.getuid():
        raise PermissionError(f"{folder}, which holds code, belongs to somebody else")
    path = folder / f"{_key(potential, gradient)}.pt2"
    if not path.exists():
        with atomic_write(path) as temporary:
            package = temporary.with_suffix(".pt2")
            try:
                compile_step(potential, gradient, package)
                os.replace(package, temporary)
            finally:
                package.unlink(missing_ok=True)
    return load_step(path, potential.embedding.weight.device)


def load_step(path: Path, device: torch.device) -> Step:
    """Load a package; this runs code that it holds."""
    from torch._inductor import aoti_load_package

    index = -1 if device.index is None else device.index
    package = aoti_load_package(str(path), device_index=index)

    def step(*inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(package(*inputs))

    return step


def _key(potential: Potential, gradient: bool) -> str:
    """Name of the compiled code: a hash of all it depends on."""
    from torch._inductor.cpu_vec_isa import pick_vec_isa

    weight = potential.embedding.weight
    digest = hashlib.sha256()
    about = (
        __version__,
        torch.__version__,
        platform.platform(),
        str(pick_vec_isa()),
        torch.get_num_threads(),
        potential.header.to_json(),
        potential.policy,
        potential.backbone.bf16,
        gradient,
        weight.dtype,
        torch.cuda.get_device_name(weight.device) if weight.is_cuda else weight.device.type,
    )
    digest.update(repr(about).encode())
    for name, value in potential.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    folder = Path(__file__).parent
    for source in ("nn/*.py", "graph/layout.py", "potential.py", "compiled.py"):
        for path in sorted(folder.glob(source)):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:32]


def _example(potential: Potential) -> tuple[list[Tensor], list[tuple[str, ...]]]:
    """Inputs to trace with, and the names of the sizes of each; only their shapes matter."""
    weight = potential.embedding.weight
    index = torch.ones(1, dtype=torch.long, device=weight.device)
    flag, real = index.bool(), torch.ones(1, dtype=weight.dtype, device=weight.device)
    n, k, ka, kq = "atoms", "main_slots", "atom_edge_slots", "quadruplet_slots"
    names: list[tuple[str, ...]] = [(n,)]
    values = [index]
    for edges in ("main", "atom_edge", "quadruplet", "atom_atom"):
        names += [(edges,)] * 6
        values += [index, index, index, real, real, real]
    names += [("main",), (n, k, ka), (n, k, kq), (n, kq, k), (n, k, kq), (n, k, kq)]
    values += [index, flag, flag, flag, index, flag]
    shapes = [[_SIZES[name] for name in own] for own in names]
    for i in range(4):
        shapes[5 + 6 * i].append(3)  # unit vectors
    example = [v.new_ones(shape) for v, shape in zip(values, shapes, strict=True)]
    example.append(torch.empty(_SIZES["atom_atom_slots"], device=weight.device))
    return example, [*names, ("atom_atom_slots",)]


def _reason(error: Exception) -> str:
    first = (str(error).strip() or type(error).__name__).splitlines()[0]
    if "Cxx" in type(error).__name__ or "C++ compiler" in str(error):
        return "there is no C++ compiler: install g++ (Debian, Ubuntu: apt install g++)"
    return first
