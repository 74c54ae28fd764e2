"""A potential: backbone, one head and its graph rules, with energies and forces in eV and Å."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from jmp_md.errors import CheckpointError, InputError
from jmp_md.forks import expect_threads
from jmp_md.graph.builder import GraphBuilder
from jmp_md.graph.layout import Graph
from jmp_md.graph.policy import GraphPolicy
from jmp_md.header import HeadInfo, ModelHeader
from jmp_md.nn.backbone import GemNetOC
from jmp_md.nn.fold import FoldedNetwork
from jmp_md.nn.footprint import fits
from jmp_md.nn.layers import mlp_head
from jmp_md.nn.repulsion import NuclearRepulsion
from jmp_md.nn.shapes import shapes_only
from jmp_md.step import Step, StepResult
from jmp_md.structures import Structures, strained


class Prediction(NamedTuple):
    """Physical results for a batch of structures, detached.

    Attributes:
        energy: (n_structures,) float64, eV.
        energies: (n_atoms,) float64, eV; they sum to ``energy``.
        forces: (n_atoms, 3) eV/Å, or None when not asked for.
        stress: (n_structures, 3, 3) eV/Å³, positive under tension, or None.
    """

    energy: Tensor
    energies: Tensor
    forces: Tensor | None
    stress: Tensor | None

    def on_host(self) -> Prediction:
        """The same as float64 on the CPU, copied from the device in one piece."""
        given = [t for t in self if t is not None]
        flat = torch.cat([t.double().flatten() for t in given]).cpu()
        parts = iter(flat.split([t.numel() for t in given]))
        energy, energies = (next(parts).view(t.shape) for t in (self.energy, self.energies))
        forces, stress = (
            None if t is None else next(parts).view(t.shape) for t in (self.forces, self.stress)
        )
        return Prediction(energy, energies, forces, stress)


class Potential(nn.Module):
    """One head of a model on its backbone.

    Args:
        header: Architecture and heads.
        head: Name of the head; may be left out where there is only one.
        graph: Graph rules in place of the head's own, for parity checks and experiments.

    Attributes:
        memory: ``"fast"`` keeps what the backward pass needs, ``"lean"`` computes each block again
            there, ``"auto"`` does so when the former would take half of the free memory.
        step: What :meth:`predict` computes the network with; None for the modules themselves, as
            they are trained.

    Raises:
        CheckpointError: No such head.
    """

    references: Tensor
    step: Step | None = None

    def __init__(
        self, header: ModelHeader, head: str | None = None, graph: GraphPolicy | None = None
    ) -> None:
        super().__init__()
        c = header.architecture
        self.header = header
        self.head: HeadInfo = header.head(head)
        self.memory = "fast"
        self.policy = graph or self.head.graph
        self.graph = GraphBuilder(self.policy)
        self.embedding = nn.Embedding(c.num_elements, c.emb_size_atom)
        self.backbone = GemNetOC(c)
        self.energy_head = mlp_head(c.emb_size_atom, self.head.bias)
        self.force_head = (
            mlp_head(c.emb_size_edge, self.head.bias) if self.head.force_scale is not None else None
        )
        self.repulsion = (
            NuclearRepulsion(self.head.repulsion, c.num_elements)
            if self.head.repulsion is not None
            else None
        )
        references = element_references(self.head, c.num_elements)
        self.register_buffer("references", references, persistent=False)
        self.register_load_state_dict_post_hook(_forget_step)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Potential:
        """Every change of type or device; references are too large for single precision."""
        exact = self.references
        super()._apply(fn, recurse)
        self.references = exact.to(self.references.device)
        _forget_step(self)
        return self

    def requires_grad_(self, requires_grad: bool = True) -> Potential:
        """Freeze weights, or let them be trained, after which steps are of what they are then."""
        super().requires_grad_(requires_grad)
        _forget_step(self)
        return self

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if isinstance(value, nn.Module):
            _forget_step(self)

    def take_references(self, references: Mapping[int, float]) -> None:
        """Replace the energies of elements, eV by atomic number, here and in the header."""
        head = dataclasses.replace(self.head, references=dict(references))
        heads = tuple(head if h.name == head.name else h for h in self.header.heads)
        self.header = dataclasses.replace(self.header, heads=heads)
        self.head = head
        values = element_references(head, self.header.architecture.num_elements)
        self.references = values.to(self.references.device)

    @torch.inference_mode(False)
    def prepare(self, structures: Structures, margin: float) -> Structures:
        """Structures in the type and on the device of the weights, with what is known in advance.

        Args:
            structures: With all pairs within the largest graph cutoff and the margin.
            margin: Å; what is returned holds for other positions until an atom has moved half
                of it.
        """
        weight = self.embedding.weight
        s = structures.to(weight.device, weight.dtype)._replace(known=None)
        if margin > 0:
            known = self.graph.neighbourhood(
                s.positions, s.cells, s.structure, s.tags, s.pairs, margin
            )
            s = s._replace(known=known)
        return s

    def graph_of(self, structures: Structures) -> Graph:
        """The graphs of structures where they are now, differentiable in positions and cells."""
        s = structures
        if s.known is not None:
            return self.graph.measure(s.positions, s.cells, s.known)
        graph: Graph = self.graph(s.positions, s.cells, s.structure, s.tags, s.pairs)
        return graph

    def network(self, structures: Structures) -> tuple[Tensor, Tensor]:
        """Raw outputs: energy per atom (n_atoms,) and direct forces (n_atoms, 3) or empty."""
        expect_threads()
        s = structures
        graph = self.graph_of(s)
        self.backbone.recompute = self._must_save_memory(graph)
        return self.on_graph(s.numbers, graph)

    def on_graph(self, numbers: Tensor, graph: Graph) -> tuple[Tensor, Tensor]:
        """Raw outputs for atoms (n_atoms,) whose graph is known, as :meth:`network` gives them."""
        x_e, x_f = self.backbone(self.embedding(numbers - 1), graph)
        forces = x_e.new_zeros(0, 3)
        if self.force_head is not None:
            main = graph.main
            along = self.force_head(x_f) * main.unit * main.weight.unsqueeze(-1)
            forces = x_e.new_zeros(x_e.shape[0], 3).index_add(0, main.target, along)
        energies = self.energy_head(x_e).squeeze(-1)
        if self.repulsion is not None:  # where edges are dropped, right on average
            known = self.repulsion(numbers, graph.main) / graph.kept
            energies = energies + known / self.head.energy_scale
        return energies, forces

    def fold(self, *, trained: bool = False) -> FoldedNetwork:
        """The network of the weights as they are now, for inference.

        Args:
            trained: Keep what the gradient by the weights needs.
        """
        return FoldedNetwork(
            self.embedding,
            self.backbone,
            self.energy_head,
            self.force_head,
            self.repulsion,
            energy_scale=self.head.energy_scale,
            cutoff=self.policy.cutoff,
            half=torch.bfloat16 if self.backbone.bf16 else None,
            trained=trained,
        )

    def _must_save_memory(self, graph: Graph, kernels: bool = False) -> bool:
        """Whether blocks are to be computed again in the backward pass."""
        weight, slots = self.embedding.weight, graph.differ_quadruplet.shape[:2].numel()
        if self.memory == "auto":
            return not fits(slots, self.header.architecture, weight, kernels)
        return self.memory == "lean"

    def interaction_energy(self, structures: Structures) -> Tensor:
        """(n_structures,) eV without the constants of :meth:`constant_energies`; differentiable.

        Kept apart because the constants would drown the differences in float32.
        """
        energies, _ = self.network(structures)
        total = energies.new_zeros(structures.cells.shape[0])
        return total.index_add(0, structures.structure, energies) * self.head.energy_scale

    def constant_energies(self, structures: Structures) -> Tensor:
        """(n_atoms,) float64 eV: element references and the mean, spread over the atoms."""
        ones = torch.ones_like(structures.structure, dtype=torch.float64)
        count = ones.new_zeros(structures.cells.shape[0]).index_add(0, structures.structure, ones)
        mean = self.head.energy_mean / count
        return self.references.double()[structures.numbers] + mean[structures.structure]

    @torch.inference_mode(False)  # which also enables gradients, whatever the caller has switched
    def predict(
        self,
        structures: Structures,
        *,
        forces: bool = True,
        stress: bool = False,
        direct: bool = False,
    ) -> Prediction:
        """Energies, forces and stress, in the type and on the device of the weights.

        The caller's modes (autocast, no_grad, inference_mode) make no difference.

        Args:
            structures: Any type and device.
            forces: Whether forces are wanted.
            stress: Whether the stress is wanted; every cell must have a volume. Only strains
                within periodic directions mean something, see
                :func:`jmp_md.structures.periodic_stress`.
            direct: Take forces from the direct force head, not from the energy.

        Raises:
            InputError: Direct forces from a model without a force head, or together with stress.
        """
        if direct and self.force_head is None:
            raise InputError(
                f"model {self.header.name!r} has no direct force head: use forces='conservative'"
            )
        if direct and stress:
            raise InputError("direct forces have no stress: use forces='conservative'")
        expect_threads()
        weight = self.embedding.weight
        s = structures.to(weight.device, weight.dtype)
        with torch.autocast(weight.device.type, enabled=False):
            return self._predict(s, forces, stress, direct)

    def _predict(self, s: Structures, forces: bool, stress: bool, direct: bool) -> Prediction:
        conservative = forces and not direct
        strain = torch.zeros_like(s.cells)
        if stress:
            s = strained(s, strain.requires_grad_())
        positions = s.positions if stress else s.positions.detach()
        if conservative and not stress:
            positions.requires_grad_()
        s = s._replace(positions=positions)
        inputs = ([positions] if conservative else []) + ([strain] if stress else [])
        with torch.set_grad_enabled(bool(inputs)):
            energies, direct_forces, sum_of_energies = self._step(s, direct and forces)
        gradients = list(torch.autograd.grad(sum_of_energies, inputs)) if inputs else []

        scale = self.head.energy_scale
        per_atom = energies.detach().double() * scale + self.constant_energies(s)
        total = per_atom.new_zeros(s.cells.shape[0]).index_add(0, s.structure, per_atom)
        force = -gradients.pop(0) * scale if conservative else None
        if direct and forces:
            force = direct_forces.detach() * (self.head.force_scale or 1.0)
        volume = torch.linalg.det(s.cells.detach()).abs().view(-1, 1, 1)
        tensor = gradients.pop(0) * scale / volume if stress else None
        return Prediction(total, per_atom, force, tensor)

    def _step(self, s: Structures, direct: bool) -> StepResult:
        if self.step is None:
            energies, forces = self.network(s)
            return StepResult(energies, forces, energies.sum())
        graph = self.graph_of(s)
        lean = self._must_save_memory(graph, self.step.frugal and not direct)
        return self.step(s.numbers, graph, direct=direct, lean=lean)

    @classmethod
    @torch.inference_mode(False)
    def from_state(
        cls,
        header: ModelHeader,
        state: dict[str, Tensor],
        head: str | None = None,
        graph: GraphPolicy | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> Potential:
        """Build from a native state dict, with frozen weights.

        Raises:
            CheckpointError: No such head, or tensors that do not fit the header.
        """
        name = header.head(head).name
        with shapes_only():  # the file has the rest
            potential = cls(header, name, graph)
        try:
            own = {key: value.clone() for key, value in own_names(state, name).items()}
            potential.load_state_dict(own, assign=True)
        except RuntimeError as error:
            raise CheckpointError(
                f"the tensors of model {header.name!r} do not fit its header: {error}"
            ) from error
        return potential.to(dtype).requires_grad_(False)

    def native_state(self) -> dict[str, Tensor]:
        """The tensors under the names of the native format."""
        prefix = f"heads.{self.head.name}"
        renamed = {}
        for key, value in self.state_dict().items():
            key = key.replace("energy_head.", f"{prefix}.energy.layers.", 1)
            key = key.replace("force_head.", f"{prefix}.forces.layers.", 1)
            renamed[key] = value.detach().cpu().contiguous()
        return renamed


def _forget_step(potential: Potential, _keys: Any = None) -> None:
    """What is called when weights become others."""
    if potential.step is not None:
        potential.step.forget()


def element_references(head: HeadInfo, num_elements: int) -> Tensor:
    """(num_elements + 1,) float64 eV by atomic number, 0 where there is none."""
    references = torch.zeros(num_elements + 1, dtype=torch.float64, device="cpu")
    for number, value in head.references.items():
        references[number] = value
    return references


def own_names(state: dict[str, Tensor], head: str | None) -> dict[str, Tensor]:
    """Tensors of a model file under the names of a potential, of one of its heads or of none."""
    renamed = {}
    for key, value in state.items():
        if key.startswith("heads."):
            if head is None or not key.startswith(f"heads.{head}."):
                continue
            key = key.replace(f"heads.{head}.energy.layers.", "energy_head.")
            key = key.replace(f"heads.{head}.forces.layers.", "force_head.")
        renamed[key] = value
    return renamed
