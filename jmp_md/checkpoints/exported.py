"""Exported TorchScript files as models: read, described, and used as any other potential."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn

from jmp_md.checkpoints.sound import require_sound
from jmp_md.errors import CheckpointError, InputError, shown
from jmp_md.header import ModelHeader
from jmp_md.potential import Potential
from jmp_md.structures import Structures

EXTRA_FILE = "jmp_md.json"
DTYPES = {"float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True)
class ExportInfo:
    """What an exported file says of itself, beside the header of its model.

    Attributes:
        header: The model, with the exported head only.
        form: ``"general"`` (Å, eV) or ``"openmm"`` (nm, kJ/mol, fixed atoms).
        forces: ``"conservative"`` or ``"direct"``.
        dtype: ``"float32"`` or ``"float64"``.
        numbers: Atomic numbers of the fixed atoms; empty in the general form.
        periodic: Whether the OpenMM form takes box vectors.
    """

    header: ModelHeader
    form: str
    forces: str
    dtype: str
    numbers: tuple[int, ...] = ()
    periodic: bool = False

    def to_json(self) -> str:
        """Serialise; :meth:`from_json` restores an equal object."""
        return json.dumps({**asdict(self), "header": json.loads(self.header.to_json())})

    @classmethod
    def from_json(cls, text: str) -> ExportInfo:
        """Parse.

        Raises:
            CheckpointError: Not what :meth:`to_json` writes.
        """
        try:
            raw = json.loads(text)
            raw["header"] = ModelHeader.from_json(json.dumps(raw["header"]))
            raw["numbers"] = tuple(raw["numbers"])
            info = cls(**raw)
            require_sound(info.header)
            info.header.head()
        except (TypeError, ValueError, KeyError, RecursionError) as error:
            raise CheckpointError(
                f"the description of the export is damaged: {shown(error)}"
            ) from error
        sound = info.forces in ("conservative", "direct") and info.dtype in tuple(DTYPES)
        if not sound or info.form not in ("general", "openmm", "graph"):
            raise CheckpointError("the description of the export is damaged: unknown kinds")
        return info


class FixedPotential(Potential):
    """A potential whose network is the code of an exported file, as which it was exported.

    Attributes:
        info: What the file says of itself.
    """

    def __init__(self, info: ExportInfo) -> None:
        nn.Module.__init__(self)  # the network is in the file, not built from the header
        self.info = info
        self.header = info.header
        self.head = info.header.head()
        self.policy = self.head.graph

    def native_state(self) -> dict[str, Tensor]:
        """Refused: the names of the tensors belong to the version that exported the file.

        Raises:
            InputError: Always.
        """
        raise InputError(
            f"the exported file of model {self.header.name!r} cannot be turned into a model file: "
            "use the model file it was exported from"
        )


class ScriptedPotential(FixedPotential):
    """A potential from a TorchScript file.

    Attributes:
        module: The general form of the exported module.
    """

    def __init__(self, module: torch.jit.ScriptModule, info: ExportInfo) -> None:
        super().__init__(info)
        self.module = module
        self.embedding = module.embedding
        self.force_head = module.force_head if self.head.force_scale is not None else None
        self.register_buffer("references", module.references, persistent=False)

    def prepare(self, structures: Structures, margin: float) -> Structures:
        """On the device of the weights; the module builds its graphs itself."""
        return structures.to(self.embedding.weight.device, self.embedding.weight.dtype)

    def network(self, structures: Structures) -> tuple[Tensor, Tensor]:
        """Raw outputs: energy per atom (n_atoms,) and direct forces (n_atoms, 3) or empty."""
        s = structures
        # Without this, the first calls take a hundred times as long, to optimise the code.
        with torch.jit.optimized_execution(False):
            energies, forces = self.module.network(
                s.positions, s.numbers, s.tags, s.structure, s.cells, s.pairs
            )
        return energies, forces

    def __reduce__(self) -> tuple[Any, ...]:
        buffer = io.BytesIO()
        extra = {EXTRA_FILE: replace(self.info, form="general").to_json()}
        torch.jit.save(self.module, buffer, _extra_files=extra)
        return _from_bytes, (buffer.getvalue(), str(self.references.device))


def is_exported(path: Path) -> bool:
    """Whether a file is a TorchScript archive; official checkpoints, also .pt, are not."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError):
        return False  # names that are not text, formats to come


def read_exported(path: Path | BinaryIO, device: torch.device | str = "cpu") -> ScriptedPotential:
    """Load an exported file, as a potential with the type it was exported in.

    The file is a program: loading it runs code that it holds, which may do anything.

    Args:
        path: The file, by name or open.
        device: Where to.

    Raises:
        CheckpointError: Truncated, or not exported by this project.
    """
    extra = {EXTRA_FILE: ""}
    try:
        module = torch.jit.load(path, map_location=device, _extra_files=extra)
    except (RuntimeError, ValueError) as error:
        first = (str(error).strip() or "damaged").splitlines()[0]
        raise CheckpointError(f"cannot read {path}: {first}; export or copy it again") from error
    text = extra[EXTRA_FILE]
    if not text:
        raise CheckpointError(
            f"{path} is a TorchScript file, but not of jmp-md: make one with 'jmp-md export'"
        )
    info = ExportInfo.from_json(text if isinstance(text, str) else text.decode(errors="replace"))
    general = module if info.form == "general" else module.potential
    return ScriptedPotential(general.eval(), info)


def _from_bytes(data: bytes, device: str) -> ScriptedPotential:
    """What pickle calls."""
    return read_exported(io.BytesIO(data), device)


def exported_header(potential: Potential) -> ModelHeader:
    """The header with nothing but the head in use, and the graphs it is used with."""
    return replace(potential.header, heads=(replace(potential.head, graph=potential.policy),))
