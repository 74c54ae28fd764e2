"""A pretended accelerator for machines without one: tensors of device "meta" that hold real data.

Operations that mix its tensors with those of the CPU raise, by CUDA's rules; those for which the
host waits, copies between the two, and all other operations but views are counted.
"""

from __future__ import annotations

import traceback
from collections import Counter
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

DEVICE = torch.device("meta")
_WAITS = frozenset(
    ("_local_scalar_dense", "item", "equal", "nonzero", "is_nonzero", "masked_select")
    + ("bincount", "_unique2", "unique_dim", "unique_consecutive", "linalg_eigh")
)
_NO_LAUNCH = frozenset(
    ("view", "_unsafe_view", "_reshape_alias", "detach", "t", "transpose", "permute", "alias")
    + ("unsqueeze", "squeeze", "expand", "slice", "select", "split", "split_with_sizes")
    + ("as_strided", "unbind", "narrow", "lift_fresh", "diagonal", "empty", "new_empty")
    + ("empty_strided", "empty_like", "new_empty_strided")
)


class OnDevice(Tensor):
    """A tensor of the pretended device; ``held`` is what it holds."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor, requires_grad: bool = False) -> OnDevice:
        made: OnDevice = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=DEVICE,
            requires_grad=requires_grad,
        )
        return made

    def __init__(self, held: Tensor, requires_grad: bool = False) -> None:
        self.held = held

    def __repr__(self, **options: Any) -> str:
        return f"OnDevice({self.held})"

    def numpy(self, **options: Any) -> Any:
        raise TypeError("cannot turn a tensor of a device into an array: copy it first")

    def tolist(self) -> Any:
        raise TypeError("one wait for each number: copy the tensor first")

    def data_ptr(self) -> int:
        return self.held.data_ptr()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        mode = PretendedDevice.current
        assert mode is not None, "a tensor of the pretended device outlived it"
        return mode.run(func, args, kwargs or {})


class PretendedDevice(TorchDispatchMode):
    """The device, for as long as it is entered.

    Attributes:
        waits: What made the host wait, by operation and line of the package.
        uploads: Copies from the host, likewise.
        launches: Number of operations on the device.
    """

    current: PretendedDevice | None = None

    def __init__(self) -> None:
        super().__init__()
        self.reset()

    def reset(self) -> None:
        self.waits: Counter[str] = Counter()
        self.uploads: Counter[str] = Counter()
        self.launches = 0

    def __enter__(self) -> PretendedDevice:
        PretendedDevice.current = self
        self._autocast, torch.autocast = torch.autocast, _autocast  # it knows of no such device
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        torch.autocast = self._autocast  # type: ignore[misc]
        PretendedDevice.current = None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.run(func, args, kwargs or {})

    def run(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        name = func._schema.name.removeprefix("aten::")
        tensors = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, Tensor)]
        ours = [x for x in tensors if isinstance(x, OnDevice)]
        to = None if kwargs.get("device") is None else torch.device(kwargs["device"])
        copies = name in ("_to_copy", "copy_")
        if ours and not copies:
            self._refuse_others(name, args, tensors)
        self._count(name, args, kwargs, bool(ours), to)
        plain_args, plain = tree_map(_held, (args, kwargs))
        if to == DEVICE:
            plain = {**plain, "device": torch.device("cpu")}
        out = func(*plain_args, **plain)
        if func._schema.is_mutable and isinstance(out, Tensor):
            given = [x for x in tensors if _held(x) is out]
            return given[0] if given else out
        return tree_map(_on_device, out) if (bool(ours) if to is None else to == DEVICE) else out

    def _refuse_others(self, name: str, args: Any, tensors: list[Tensor]) -> None:
        others = [x for x in tensors if not isinstance(x, OnDevice) and x.dim() > 0]
        if (
            others
            and name in ("index", "index_put", "index_put_")
            and isinstance(args[0], OnDevice)
        ):
            self.uploads[_site(f"{name} by an index of the host")] += 1
        elif others:
            shapes = [(type(x).__name__, tuple(x.shape)) for x in tensors]
            raise RuntimeError(f"{name}: tensors of two devices: {shapes}")

    def _count(
        self,
        name: str,
        args: Any,
        kwargs: dict[str, Any],
        ours: bool,
        to: torch.device | None,
    ) -> None:
        upload = to == DEVICE and not ours
        if name == "copy_":
            upload = isinstance(args[0], OnDevice) and not isinstance(args[1], OnDevice)
        masks = name in ("index", "index_put", "index_put_") and any(
            isinstance(i, Tensor) and i.dtype == torch.bool for i in args[1] or ()
        )
        unsized = name == "repeat_interleave" and "output_size" not in kwargs
        leaves = ours and name == "_to_copy" and to is not None and to != DEVICE
        leaves |= ours and name == "copy_" and not isinstance(args[0], OnDevice)
        if ours and (name in _WAITS or masks or unsized or leaves):
            self.waits[_site(name)] += 1
        elif upload and name in ("_to_copy", "copy_"):
            self.uploads[_site(name)] += 1
        if (ours or upload) and name not in _NO_LAUNCH:
            self.launches += 1


def pretend(module: nn.Module) -> None:
    """Move weights and buffers to the pretended device."""
    for part in module.modules():
        for name, weight in part._parameters.items():
            if weight is not None:
                moved = OnDevice(weight.data)
                part._parameters[name] = nn.Parameter(moved, requires_grad=weight.requires_grad)
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = OnDevice(buffer)


def _autocast(device: str, *args: Any, **options: Any) -> Any:
    assert device == DEVICE.type
    return nullcontext()


def _held(x: Any) -> Any:
    return x.held if isinstance(x, OnDevice) else x


def _on_device(x: Any) -> Any:
    return OnDevice(x) if isinstance(x, Tensor) and not isinstance(x, OnDevice) else x


def _site(name: str) -> str:
    """The operation with the line of the package that called it."""
    for frame in reversed(traceback.extract_stack()):
        if "/jmp_md/" in frame.filename or "/calculators/" in frame.filename:
            return (
                f"{name} at {frame.filename.rpartition('jmp_md/')[2]}:{frame.lineno} {frame.line}"
            )
    return f"{name} in autograd"
