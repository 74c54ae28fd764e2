"""Checks that a result does not depend on how it is computed."""

from __future__ import annotations

import numpy as np
import torch

from jmp_md.batch import Result
from jmp_md.check.subject import MEV, Outcome, Subject, difference, forces_of
from jmp_md.checkpoints.exported import FixedPotential
from jmp_md.compiled import CompiledStep
from jmp_md.evaluation import evaluate
from jmp_md.export.write import general_module
from jmp_md.load import load_model
from jmp_md.systems import BatchedSystems


def batch_independence(s: Subject) -> Outcome:
    """The structure in a batch with copies that have fewer neighbours, against each alone."""
    apart = s.atoms.copy()
    apart.set_cell(2 * apart.cell.array)
    apart.positions *= 2
    batch = [apart, s.rattled(0.1), s.atoms]
    alone = [*(s.results([atoms])[0] for atoms in batch[:2]), s.own]
    error = max(difference(a, b) for a, b in zip(s.results(batch), alone, strict=True))
    return Outcome("independent of the batch", error, 1e-9, "eV, eV/Å")


def cached_neighbours(s: Subject) -> Outcome:
    """Neighbours searched for before the atoms moved, against fresh ones."""
    systems = BatchedSystems(s.potential, [s.atoms], oc_tags=s.tags == "oc")
    systems.compute()
    moved = s.rattled(0.25)
    (cached,), (fresh,) = systems.compute([moved.positions]), s.results([moved])
    note = "" if systems.rebuilds == 1 else "neighbours were searched for again"
    return Outcome("reused neighbours", difference(cached, fresh), 1e-9, "eV, eV/Å", note)


def single_precision(s: Subject) -> Outcome:
    """Forces in float32 against float64."""
    if isinstance(s.potential, FixedPotential):
        note = "an exported file has its own precision"
        return Outcome("float32 against float64", None, None, "meV/Å", note)
    (result,) = evaluate([s.atoms], s.potential, dtype="float32", tags=s.tags)
    error = MEV * float(np.abs(forces_of(result) - forces_of(s.own)).max())
    return Outcome("float32 against float64", error, 1.0, "meV/Å")


def bfloat16(s: Subject) -> Outcome:
    """Forces with dense layers in bfloat16 against float64; told, as it is a choice."""
    name, unit = "bf16 against float64", "meV/Å"
    if isinstance(s.potential, FixedPotential):
        return Outcome(name, None, None, unit, "an exported file has its own precision")
    device = s.potential.embedding.weight.device
    reduced = load_model(s.potential, dtype=torch.float32, device=device, precision="bf16")
    (result,) = evaluate([s.atoms], reduced, tags=s.tags)
    error = MEV * float(np.abs(forces_of(result) - forces_of(s.own)).max())
    return Outcome(name, error, None, unit, "what precision='bf16' would cost")


def compiled(s: Subject) -> Outcome:
    """The model in TorchScript, as it is exported, against the one in Python."""
    name, unit = "TorchScript", "eV, eV/Å"
    if isinstance(s.potential, FixedPotential):
        return Outcome(name, None, None, unit, "the model is a TorchScript file already")
    device = s.potential.embedding.weight.device
    with torch.jit.optimized_execution(False):
        energy, forces, _ = general_module(s.potential, "conservative")(
            torch.from_numpy(s.atoms.positions).to(device),
            torch.from_numpy(s.atoms.numbers).to(device),
            torch.from_numpy(s.atoms.cell.array).to(device).unsqueeze(0),
            torch.from_numpy(s.atoms.pbc).to(device).unsqueeze(0),
            torch.zeros(len(s.atoms), dtype=torch.long, device=device),
            None if s.tags is None else torch.from_numpy(s.atoms.get_tags()).to(device),
        )
    result = Result(float(energy), s.own.energies, forces.cpu().numpy())
    return Outcome(name, difference(result, s.own), 1e-9, unit)


def machine_code(s: Subject) -> Outcome:
    """The compiled network against eager mode, both in the type that simulations run in."""
    name, unit = "compiled", "eV, eV/Å"
    if isinstance(s.potential, FixedPotential):
        return Outcome(name, None, None, unit, "an exported file is not compiled")
    if not s.compile:
        return Outcome(name, None, None, unit, "not asked for: --compile, or compile=True")
    dtype, device = getattr(torch, s.dtype), s.potential.embedding.weight.device
    fast = load_model(s.potential, dtype=dtype, device=device, memory="fast", compile=True)
    (result,) = evaluate([s.atoms], fast, tags=s.tags)
    (eager,) = evaluate([s.atoms], s.potential, dtype=s.dtype, tags=s.tags)
    assert isinstance(fast.step, CompiledStep)
    if fast.step.failure or not fast.step.seconds:
        why = fast.step.failure or "the structure is too small"
        return Outcome(name, None, None, unit, why)
    limit = {"float32": 1e-3, "float64": 1e-9}[s.dtype]
    note = f"{s.dtype}, ready after {fast.step.seconds:.1f} s"
    return Outcome(name, difference(result, eager), limit, unit, note)
