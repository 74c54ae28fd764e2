"""Exported AOTInductor packages as models: their network is machine code, their graphs are ours."""

from __future__ import annotations

import json
import zipfile
import zlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from jmp_md.aoti import graph_inputs, is_general, load_code, step_result
from jmp_md.checkpoints.exported import DTYPES, EXTRA_FILE, ExportInfo, FixedPotential
from jmp_md.errors import CheckpointError, InputError
from jmp_md.forks import refuse_lost_threads
from jmp_md.graph.builder import GraphBuilder
from jmp_md.potential import element_references
from jmp_md.step import StepResult
from jmp_md.structures import Structures

_LARGEST_METADATA = 16 * 2**20  # bytes


class PackagedPotential(FixedPotential):
    """A potential whose network is the machine code of an exported package.

    Args:
        path: The package; its code is loaded into this process.

    Attributes:
        path: The package.

    Raises:
        CheckpointError: Damaged, not exported by this project, or compiled for other machines.
    """

    def __init__(self, path: Path) -> None:
        info = read_package_info(path)
        super().__init__(info)
        self.graph = GraphBuilder(self.policy)
        # What others ask for type and device, and whether there are direct forces.
        self.embedding = nn.Embedding(1, 1, dtype=DTYPES[info.dtype]).requires_grad_(False)
        self.force_head = nn.Sequential() if info.forces == "direct" else None
        references = element_references(self.head, self.header.architecture.num_elements)
        self.register_buffer("references", references, persistent=False)
        self.path = path
        try:
            self._code = load_code(path, torch.device("cpu"))
        except RuntimeError as error:
            first = str(error).strip().splitlines()[0]
            raise CheckpointError(
                f"cannot load {path}: {first}; packages run on the kind of processor and the "
                "version of PyTorch they were exported with: export the model again here"
            ) from error

    def network(self, structures: Structures) -> tuple[Tensor, Tensor]:
        """Raw outputs: energy per atom (n_atoms,) and direct forces (n_atoms, 3) or empty."""
        s = structures
        result = self._run(s, torch.is_grad_enabled())
        return result.energies, result.forces

    def _step(self, s: Structures, direct: bool) -> StepResult:
        gradient = torch.is_grad_enabled()
        if gradient and self.info.forces == "direct":
            raise InputError(
                f"the package of model {self.header.name!r} has direct forces only: use "
                "forces='direct', or export it with forces='conservative'"
            )
        return self._run(s, gradient)

    def _run(self, s: Structures, gradient: bool) -> StepResult:
        refuse_lost_threads(whatever_number=True)
        graph = self.graph_of(s)
        inputs = graph_inputs(s.numbers, graph)
        if not is_general(inputs):
            raise InputError(
                "exported packages take structures with two neighbours or more in every graph, "
                f"this one has {len(s.numbers)} atoms: use the model itself"
            )
        with torch.no_grad():
            return step_result(self._code(*inputs), graph)

    def __reduce__(self) -> tuple[Any, ...]:
        return PackagedPotential, (self.path,)


def read_package_info(path: Path) -> ExportInfo:
    """What a package says of itself; none of its code is loaded.

    Raises:
        CheckpointError: Damaged, or not exported by this project.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [e for e in archive.infolist() if e.filename.endswith("metadata.json")]
            if sum(entry.file_size for entry in entries) > _LARGEST_METADATA:
                raise ValueError(f"its metadata have more than {_LARGEST_METADATA} bytes")
            found = [json.loads(archive.read(entry)) for entry in entries]
    # RuntimeError for encrypted entries; zlib.error is nobody's
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error, ValueError, RuntimeError) as error:
        raise CheckpointError(f"cannot read {path}: {error}; export or copy it again") from error
    for metadata in found:
        if isinstance(metadata, dict) and EXTRA_FILE in metadata:
            return ExportInfo.from_json(str(metadata[EXTRA_FILE]))
    raise CheckpointError(f"{path} is a package, but not of jmp-md: make one with 'jmp-md export'")
