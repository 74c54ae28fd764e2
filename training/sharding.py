"""Models split between processes (FSDP2), for those whose training state fits on no single device.

The objective as a whole is what is sharded, not its layers: its weights are gathered for a forward
pass, which holds the first backward pass of conservative forces, and stay until the gradients are
split again. The master weights, the moments of the optimiser and the averages, five copies of the
weights, are each held in parts; one copy and its gradient are whole during a step.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim.swa_utils import AveragedModel

from jmp_md.training.distributed import Ranks


class Sharded(nn.Module):
    """A module whose parameters are split between the processes, in place.

    Args:
        module: What to split; its own ``forward`` must not be used any more.
        device: Of this process.
    """

    def __init__(self, module: nn.Module, device: torch.device) -> None:
        super().__init__()
        self.module = module
        fully_shard(self, mesh=init_device_mesh(device.type, (dist.get_world_size(),)))

    def forward(self, batch: Any) -> tuple[Tensor, Tensor]:
        """As the objective does, with a gradient for every parameter.

        Processes must split gradients of the same parameters, and tasks may be missing on some.
        """
        sums, counts = self.module(batch)
        nothing = sum(p.sum() for p in self.module.parameters()) * 0.0
        return sums + nothing, counts


def drop_unused(parameters: list[nn.Parameter], ranks: Ranks) -> None:
    """Take away gradients that are zero everywhere: no task used those parameters.

    The optimiser then leaves them alone, as it does on one process.
    """
    local = [p.grad.to_local() for p in parameters if isinstance(p.grad, DTensor)]
    used = torch.stack([(part != 0).any() for part in local]).float()
    for parameter, n in zip(parameters, ranks.summed(used).tolist(), strict=True):
        if not n:
            parameter.grad = None


def gathered(value: Any) -> Any:
    """``value`` with split tensors in one piece, on the CPU; all processes take part."""
    if isinstance(value, dict):
        return {key: gathered(item) for key, item in value.items()}
    if isinstance(value, list):
        return [gathered(item) for item in value]
    return value.full_tensor().cpu() if isinstance(value, DTensor) else value


def scattered(
    state: dict[str, Any], model: nn.Module, average: AveragedModel, parameters: list[nn.Parameter]
) -> dict[str, Any]:
    """The state of an update, split as ``model`` and ``average`` are; all processes have it."""
    moments = {
        index: {name: _split(value, parameters[index]) for name, value in kept.items()}
        for index, kept in state["optimiser"]["state"].items()
    }
    return state | {
        "potential": _split_all(state["potential"], model),
        "average": _split_all(state["average"], average),
        "optimiser": state["optimiser"] | {"state": moments},
    }


def _split_all(values: dict[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    own = module.state_dict()
    return {name: _split(value, own[name]) for name, value in values.items()}


def _split(value: Tensor, like: Tensor) -> Tensor:
    """``value`` split as ``like``, where it is a tensor of the same shape."""
    if not isinstance(like, DTensor) or value.shape != like.shape:
        return value
    return distribute_tensor(
        value.to(like.device), like.device_mesh, like.placements, src_data_rank=None
    )
