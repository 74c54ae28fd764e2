"""One update of the weights, in any precision and on any number of processes."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import parametrize

from jmp_md.errors import InputError
from jmp_md.nn.backbone import GemNetOC
from jmp_md.potential import Potential
from jmp_md.training.derivatives import derivatives_of
from jmp_md.training.distributed import Ranks
from jmp_md.training.gradients import LossScale, clip_gradients, reconciled, scale_shared_gradients
from jmp_md.training.objective import Objective
from jmp_md.training.optimisation import averaged, layer_groups, make_optimiser
from jmp_md.training.sections import OptimiserSection
from jmp_md.training.sharding import Sharded, drop_unused, gathered, scattered


class Update:
    """Steps of an optimiser on an objective, and the averaged weights.

    Args:
        objective: What to minimise; its model is on the device already.
        section: How.
        ranks: This process among those of the run.
        seed: Of what is drawn at random.
        shard: Split weights, moments and averages between the processes.

    Attributes:
        average: The averaged model; in parts where it is split.
        factors: Share of the learning rate of each group of the optimiser.
        scale: Of the loss, in fp16.
    """

    def __init__(
        self,
        objective: Objective,
        section: OptimiserSection,
        ranks: Ranks,
        seed: int = 0,
        shard: bool = False,
    ) -> None:
        self.objective, self.section, self.ranks, self.seed = objective, section, ranks, seed
        self.average = averaged(objective.model, section.ema_decay)
        self._whole: nn.Module | None = self.average.module
        self._prepare(objective.model)
        self.sharded = shard and ranks.size > 1
        self.parallel: nn.Module = objective
        if self.sharded:
            if objective.apart:
                raise InputError("mix.pcgrad needs whole gradients: leave out --shard")
            if any(parametrize.is_parametrized(module) for module in objective.modules()):
                raise InputError("model.lora needs whole weights: leave out --shard")
            self._whole = copy.deepcopy(self.average.module) if ranks.rank == 0 else None
            self.parallel = Sharded(objective, ranks.device)
            Sharded(self.average.module, ranks.device)
        elif ranks.size > 1 and not objective.apart:
            # Tasks that a batch lacks leave their heads without gradients.
            self.parallel = DistributedDataParallel(objective, find_unused_parameters=True)
        objective.derivatives = derivatives_of(section, sharded=self.sharded)
        groups = layer_groups(objective.model, section.layer_factors)
        self.factors = list(groups)
        self.parameters = [p for group in groups.values() for p in group]
        own = {id(p) for part in ("embedding", "backbone")
               for p in getattr(objective.model, part).parameters()}  # fmt: skip
        self.shared = [id(p) in own for p in self.parameters]
        self.optimiser = make_optimiser(groups, section)
        self.scale = LossScale(section.precision == "fp16")

    @property
    def backbone(self) -> GemNetOC:
        """The backbone that is trained."""
        backbone = self.objective.model.backbone
        assert isinstance(backbone, GemNetOC)
        return backbone

    def _prepare(self, model: nn.Module) -> None:
        """Precision, recomputation and dropout of what is trained; its average has none of them."""
        self.backbone.bf16 = self.section.precision == "bf16"
        self.backbone.fp16 = self.section.precision == "fp16"
        self.backbone.recompute = self.section.recompute
        for module in model.modules():
            if isinstance(module, Potential):  # sets it on its backbone
                module.memory = "lean" if self.section.recompute else "fast"
        if self.section.dropout:
            add_dropout(self.backbone, self.section.dropout)

    def __call__(self, batch: Any, step: int, n_structures: int) -> float | None:
        """Update the weights.

        Args:
            batch: Share of this process in the batch.
            step: Its number; what is drawn at random depends on it.
            n_structures: Structures of the batch of all processes.

        Returns:
            The mean loss; None where it or the gradient was not finite and nothing changed.
        """
        self.optimiser.zero_grad(set_to_none=True)
        self.objective.gradient_scale = self.scale.value
        counted = self.ranks.rank < n_structures  # else another process has its structure as well
        with self._drawing(step):
            if self.objective.apart:
                loss = self._backward_by_task(batch, counted, step)
            else:
                loss = self._backward(batch, counted)
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        if self.scale.value != 1.0:
            for gradient in gradients:
                gradient.div_(self.scale.value)
        scale_shared_gradients(self.backbone)
        norm = clip_gradients(self.parameters, self.section)
        total = self.ranks.summed(loss)
        finite = bool(torch.isfinite(norm + total))
        self.scale.after_step(finite)
        if not finite:
            return None
        self.optimiser.step()
        self.average.update_parameters(self.objective.model)
        return float(total)

    @contextmanager
    def _drawing(self, step: int) -> Iterator[None]:
        """What is drawn depends on the step alone, so that a resumed run draws the same."""
        devices = [self.ranks.device] if self.ranks.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            place = (self.seed, step, self.ranks.rank)
            torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1)[0]))
            yield

    def _backward(self, batch: Any, counted: bool) -> Tensor:
        """Gradients of the mean over all processes; returns this process' part of the loss."""
        sums, counts = self.parallel(batch)
        loss = (self._per_entry(counts * counted) * sums * counted).sum()
        # Positions need none of it, but are leaves, too. Weights in parts are no leaves.
        leaves = None if self.sharded else self.parameters
        # Gradients are averaged over the processes, not summed.
        (loss * self.ranks.size * self.scale.value).backward(inputs=leaves)
        if self.sharded:
            drop_unused(self.parameters, self.ranks)
        return loss.detach()

    def _backward_by_task(self, batch: dict[str, Any], counted: bool, step: int) -> Tensor:
        """As :meth:`_backward`, with gradients of the tasks that do not conflict."""
        sums, counts = {}, {}
        for task in self.objective.apart:
            if task in batch:
                task_sums, task_counts = self.objective({task: batch[task]})
                sums[task], counts[task] = task_sums * counted, task_counts * counted
        each = self._per_entry(torch.stack(list(counts.values())).sum(0))
        losses = {task: (each * sums[task]).sum() for task in sums}
        by_task = []
        for task in self.objective.apart:
            found: tuple[Tensor | None, ...] = (None,) * len(self.parameters)
            if task in losses:
                scaled = losses[task] * self.scale.value
                found = torch.autograd.grad(scaled, self.parameters, allow_unused=True)
            by_task.append(self._summed(found))
        result = reconciled(by_task, self.shared, np.random.default_rng([self.seed, step]))
        for parameter, gradient in zip(self.parameters, result, strict=True):
            parameter.grad = gradient
        return torch.stack(list(losses.values())).sum().detach()

    def _per_entry(self, counts: Tensor) -> Tensor:
        """Weight of one entry of each term: that of the term, shared by all entries."""
        weights = counts.new_tensor(self.objective.weights)
        return weights / self.ranks.summed(counts.clone()).clamp(min=1)

    def _summed(self, gradients: tuple[Tensor | None, ...]) -> list[Tensor | None]:
        """Sums over the processes; None where no process has one."""
        if self.ranks.size == 1:
            return list(gradients)
        given = [0.0 if g is None else 1.0 for g in gradients]
        used = self.ranks.summed(torch.tensor(given, device=self.ranks.device)).tolist()
        return [
            self.ranks.summed(torch.zeros_like(p) if g is None else g.contiguous()) if n else None
            for p, g, n in zip(self.parameters, gradients, used, strict=True)
        ]

    def averages(self) -> nn.Module | None:
        """The averaged model in one piece, on the first process; all processes must ask for it."""
        if self.sharded:
            values = gathered(self.average.module.state_dict())
            if self._whole is not None:
                self._whole.load_state_dict(values)
        return self._whole

    def latest(self) -> nn.Module | None:
        """A copy of the trained model as it is now, ready to be measured, on the first process.

        All processes must ask for it.
        """
        values = self.objective.model.state_dict()
        if self.sharded:
            values = gathered(values)
        if self._whole is None:
            return None
        model = copy.deepcopy(self._whole)
        model.load_state_dict(values)
        return model

    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed run needs, in one piece; all processes must ask for it."""
        state = {
            "potential": self.objective.model.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }
        whole: dict[str, Any] = gathered(state) if self.sharded else state
        return whole | {"loss_scale": self.scale.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave, on any number of processes."""
        if self.sharded:
            state = scattered(state, self.objective.model, self.average, self.parameters)
        self.objective.model.load_state_dict(state["potential"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.scale.load_state_dict(state.get("loss_scale", {}))


def add_dropout(backbone: GemNetOC, probability: float) -> None:
    """Let training zero features of what atoms receive from their edges in each block."""

    def hook(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        return functional.dropout(output, probability, module.training)

    for name, module in backbone.named_modules():
        if name.endswith(".atom_update"):
            module.register_forward_hook(hook)
