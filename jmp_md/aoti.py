"""The differentiable step as compiled code: network and gradients from a graph, for any sizes.

Which edges exist depends on the positions, so graphs are built in eager mode. From there on, the
network and its backward pass are traced once with symbolic sizes and compiled by AOTInductor.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule

from jmp_md.errors import InputError
from jmp_md.files import atomic_write
from jmp_md.graph.layout import Edges, Graph
from jmp_md.graph.policy import GraphPolicy
from jmp_md.nn.fold import FoldedNetwork
from jmp_md.step import StepResult, with_gradients

Code = Callable[..., Sequence[Tensor]]

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


def graph_inputs(numbers: Tensor, graph: Graph) -> list[Tensor]:
    """What a step takes: 32 tensors.

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


def is_general(inputs: Sequence[Tensor]) -> bool:
    """Whether no size is 0 or 1, for which tracing would give code of its own."""
    return all(min(x.shape) > 1 for x in inputs)


def step_result(outputs: Sequence[Tensor], graph: Graph) -> StepResult:
    """Outputs of a step, matched to the tensors of the graph it ran on."""
    energies, forces, *gradients = outputs
    measures = [x for edges in _edges(graph) for x in _measures(edges)]
    found = [(x, g) for x, g in zip(measures, gradients, strict=False) if x.requires_grad]
    total = with_gradients(energies.sum(), [x for x, _ in found], [g for _, g in found])
    return StepResult(energies, forces, total)


def weights(network: FoldedNetwork) -> dict[str, Tensor]:
    """What a package without weights takes before the inputs of the graph."""
    return {**dict(network.named_parameters()), **dict(network.named_buffers())}


def network_step(network: FoldedNetwork, policy: GraphPolicy, gradient: bool) -> Code:
    """The network from :func:`graph_inputs` to energies, direct forces and gradients.

    With gradients, 12 tensors follow: the gradient of the total energy by distance, unit and
    weight of the edges of each of the four graphs.
    """
    smooth, inline_sin2 = policy.kind == "smooth", policy.inline_sin2

    def step(numbers: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
        swap, differ_ae, differ_q, open_triplet, closing, is_closing, slots_aa = inputs[24:]
        n, k, ka = differ_ae.shape
        slots = (k, ka, differ_q.shape[2], slots_aa.shape[0])
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
            energies, forces = network(numbers, graph)
            total = energies.sum()
        if not gradient:
            return energies, forces
        found = torch.autograd.grad(total, roots, allow_unused=True)
        gradients = [
            torch.zeros_like(x) if g is None else g for x, g in zip(roots, found, strict=True)
        ]
        return energies.detach(), forces.detach(), *gradients

    return step


def compile_step(
    network: FoldedNetwork,
    policy: GraphPolicy,
    gradient: bool,
    path: Path,
    *,
    with_weights: bool,
    metadata: dict[str, str] | None = None,
) -> None:
    """Compile a step and write it as an AOTInductor package.

    Args:
        network: What to compile, for its type and device.
        policy: Rules of the graphs it gets.
        gradient: Whether the step computes gradients.
        path: File ``*.pt2`` to write.
        with_weights: Whether the package holds the weights, or takes them as inputs.
        metadata: What the package tells about itself.

    Raises:
        InputError: There is no compiler.
        Exception: Anything a compiler may raise.
    """
    from torch._inductor import aoti_compile_and_package

    _require_compiler()
    options: dict[str, Any] = {
        "aot_inductor.metadata": metadata or {},
        # Half a minute less: kernels are what is worth optimising.
        "aot_inductor.compile_wrapper_opt_level": "O0",
        "aot_inductor.precompile_headers": False,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of PyTorch about itself
        with torch.autocast(network.embedding.weight.device.type, enabled=False):
            program = trace(network, policy, gradient, with_weights=with_weights)
        aoti_compile_and_package(program, package_path=str(path), inductor_configs=options)


def _require_compiler() -> None:
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler as error:
        raise InputError(
            "there is no C++ compiler to compile with: install g++ (apt install g++), or name "
            "another in the environment variable CXX"
        ) from error


@contextmanager
def package_file(path: Path) -> Iterator[Path]:
    """A temporary file that replaces ``path`` when all went well, named as packages must be."""
    with atomic_write(path) as temporary:
        package = temporary.with_suffix(".pt2")
        try:
            yield package
            os.replace(package, temporary)
        finally:
            package.unlink(missing_ok=True)


def trace(
    network: FoldedNetwork, policy: GraphPolicy, gradient: bool, *, with_weights: bool
) -> Any:
    """The step as an exported program for any sizes of 2 or more."""
    from torch.export import Dim, export
    from torch.fx.experimental.proxy_tensor import make_fx

    example, names = _example(network)
    dims = {name: Dim(name, min=2, max=2**31) for name in _SIZES}
    shapes = [{i: dims[name] for i, name in enumerate(own)} for own in names]
    module = make_fx(
        network_step(network, policy, gradient),
        tracing_mode="symbolic",
        _allow_non_fake_inputs=True,
    )(*example)
    if not with_weights:
        given = list(weights(network).values())
        _take_weights(module, given)
        example, shapes = given + example, [{} for _ in given] + shapes
    # Tracing cannot prove inequalities of strides that hold for all sizes: checked when run.
    return export(
        module,
        tuple(example),
        dynamic_shapes=tuple(shapes),
        prefer_deferred_runtime_asserts_over_guards=True,
    )


def _take_weights(module: GraphModule, given: list[Tensor]) -> None:
    """Turn constants of a traced module that are among ``given`` into its first inputs."""
    graph, inputs = module.graph, {}
    with graph.inserting_before(next(iter(graph.nodes))):
        for i, weight in enumerate(given):
            inputs[id(weight)] = graph.placeholder(f"weight_{i}")
    for node in graph.find_nodes(op="get_attr"):
        constant = getattr(module, str(node.target))
        if id(constant) in inputs:
            node.replace_all_uses_with(inputs[id(constant)])
            graph.erase_node(node)
    module.recompile()


def load_code(path: Path, device: torch.device) -> Code:
    """Load a package, which runs code that it holds."""
    from torch._inductor import aoti_load_package

    index = -1 if device.index is None else device.index
    code: Code = aoti_load_package(str(path), device_index=index)
    return code


def deviation(got: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Largest difference between outputs, relative to the largest component of each kind."""
    largest = 0.0
    for ours, theirs in zip(got, expected, strict=True):
        if theirs.numel():
            size = theirs.abs().max().clamp(min=1e-3)
            largest = max(largest, float((ours - theirs).abs().max().div(size).nan_to_num(1e9)))
    return largest


def tolerance(network: FoldedNetwork) -> float:
    """Deviation that rounding explains."""
    if network.backbone.reduced is not None:
        return _TOLERANCE_BF16
    return _TOLERANCE[network.embedding.weight.dtype]


def _edges(graph: Graph) -> tuple[Edges, Edges, Edges, Edges]:
    return graph.main, graph.atom_edge, graph.quadruplet, graph.atom_atom


def _measures(edges: Edges) -> tuple[Tensor, Tensor, Tensor]:
    return edges.distance, edges.unit, edges.weight


def _example(network: FoldedNetwork) -> tuple[list[Tensor], list[tuple[str, ...]]]:
    """Inputs to trace with, and the names of the sizes of each; only their shapes matter."""
    weight = network.embedding.weight
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
