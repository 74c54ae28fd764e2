"""The ASE calculator."""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes
from ase.stress import full_3x3_to_voigt_6_stress

from jmp_md.checkpoints.exported import FixedPotential
from jmp_md.domain import foreign
from jmp_md.errors import DomainWarning, InputError
from jmp_md.fingerprint import fingerprint
from jmp_md.graph.neighbours import NeighbourCache
from jmp_md.load import load_model
from jmp_md.moving import MovingStructure
from jmp_md.potential import Potential, Prediction
from jmp_md.structures import has_stress, periodic_stress
from jmp_md.validate import check_structure, check_tags, ignored_electrons

_DTYPES = {"float32": torch.float32, "float64": torch.float64}


class JMPCalculator(Calculator):
    """Energies (eV), forces (eV/Å) and stress (eV/Å³) of a JMP model in ASE.

    Threads may share one: it computes one structure at a time.

    Args:
        model: Name that ``jmp-md models`` lists, file of a model, or a loaded potential.
        head: Task of a model with several, e.g. ``"ani1x"``; it brings its graph settings.
        forces: ``"conservative"``, the gradient of the energy, or ``"direct"``, from the force
            head of a pre-trained model.
        dtype: ``"float32"``, or ``"float64"`` for relaxations, phonons and finite differences.
        device: E.g. ``"cuda:1"``; None takes CUDA where there is one.
        weights: ``"ema"``, or ``"raw"`` for those of an official checkpoint without averaging.
        cutoff: Å, in place of the head's own; for models with official graphs.
        max_neighbors: Base count of neighbours, likewise.
        tags: None gives every atom OC20's tag 2, right for molecules and bulk; ``"oc"`` reads
            OC20's tags from the structures: 0 sub-surface, 1 surface, 2 adsorbate.
        skin: Å by which neighbours are searched beyond the cutoff, to search less often; None
            takes what is fast on the device.
        references: Energy in eV of each element, e.g. ``{"H": -13.6}``, added per atom.
        precision: ``"bf16"`` for dense layers in bfloat16; ``jmp-md check`` measures what it costs.
        memory: ``"lean"`` computes parts of the network twice to need less memory, ``"fast"``
            never, ``"auto"`` where half of the free memory would not do.
        compile: Compile the network at its first use, which takes minutes once per model and
            machine; :meth:`warmup` does so in advance.
        kernels: Use kernels of this package on a processor, compiled once per machine, see
            :func:`jmp_md.load.load_model`; False for PyTorch's operations.
        trust: Whether an exported file may be loaded, which runs code that it holds.

    Attributes:
        potential: The model.
        direct: Whether forces come from the direct force head.
        oc_tags: Whether the tags of structures are OC20's.
        told_of_domain: Whether the user was told that a structure is not the only molecule of the
            model; set it to keep the calculator silent.

    Raises:
        InputError: An option that does not exist or does not fit the model.
        ModelNotFoundError: The model is not at hand.
        CheckpointError: The file is damaged, or has no such head.
    """

    implemented_properties: ClassVar = ["energy", "free_energy", "energies", "forces", "stress"]
    ignored_changes: ClassVar = {"initial_charges", "initial_magmoms"}  # the network sees neither

    def __init__(
        self,
        model: str | Path | Potential,
        *,
        head: str | None = None,
        forces: str = "conservative",
        dtype: str = "float32",
        device: str | torch.device | None = None,
        weights: str = "ema",
        cutoff: float | None = None,
        max_neighbors: int | None = None,
        tags: str | None = None,
        skin: float | None = None,
        references: Mapping[str, float] | None = None,
        precision: str = "full",
        memory: str = "auto",
        compile: bool = False,
        kernels: bool = True,
        trust: bool = False,
    ) -> None:
        self._lock = threading.RLock()
        self._parameters: dict[str, Any] = {}
        super().__init__()
        for name, value, choices in (
            ("forces", forces, ("conservative", "direct")),
            ("dtype", dtype, tuple(_DTYPES)),
            ("tags", tags, (None, "oc")),
        ):
            if value not in choices:
                raise InputError(f"{name} = {value!r}: choose {' or '.join(map(repr, choices))}")
        self.potential = load_model(
            model,
            head=head,
            weights=weights,
            cutoff=cutoff,
            max_neighbors=max_neighbors,
            references=references,
            dtype=_DTYPES[dtype],
            device=device,
            precision=precision,
            memory=memory,
            compile=compile,
            kernels=kernels,
            trust=trust,
        )
        self.direct = forces == "direct"
        if self.direct and self.potential.force_head is None:
            raise InputError(
                f"head {self.potential.head.name!r} of model {self.potential.header.name!r} has no "
                "direct forces: use forces='conservative'"
            )
        self.oc_tags = tags == "oc"
        self._warned: set[str] = set()
        self.told_of_domain = False
        self._structure = MovingStructure(self.potential, skin)
        if not self.potential.head.has_references:
            warnings.warn(
                f"energies of head {self.potential.head.name!r} are relative to an unknown "
                "constant per element: compare structures of one composition, or give references=",
                stacklevel=2,
            )

    def __repr__(self) -> str:
        about = {**self.parameters, "sha256": self.parameters["sha256"][:12]}
        return f"JMPCalculator({', '.join(f'{name}={value!r}' for name, value in about.items())})"

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.RLock()

    @property
    def neighbours(self) -> NeighbourCache:
        """The neighbour list; ``neighbours.rebuilds`` counts searches."""
        return self._structure.neighbours

    @neighbours.setter
    def neighbours(self, neighbours: NeighbourCache) -> None:
        self._structure.neighbours = neighbours

    @property
    def parameters(self) -> dict[str, Any]:
        """What the numbers depend on, as databases and trajectories of ASE record it.

        ``model``, ``head``, ``forces``, ``dtype``, ``precision``, ``tags``, ``graph`` and
        ``sha256``, see :func:`~jmp_md.fingerprint.fingerprint`.
        """
        if not self._parameters and hasattr(self, "potential"):
            potential, policy = self.potential, self.potential.policy
            fixed = isinstance(potential, FixedPotential)
            self._parameters = {
                "model": potential.header.name,
                "head": potential.head.name,
                "forces": "direct" if self.direct else "conservative",
                "dtype": str(potential.embedding.weight.dtype).removeprefix("torch."),
                "precision": "bf16" if not fixed and potential.backbone.bf16 else "full",
                "tags": "oc" if self.oc_tags else None,
                "graph": {
                    "kind": policy.kind,
                    "cutoffs": list(policy.cutoffs),
                    "counts": list(policy.counts),
                },
                "sha256": fingerprint(potential),
            }
        return self._parameters

    @parameters.setter
    def parameters(self, value: object) -> None:
        """ASE resets them before there is a model; they are the model's, whatever is set."""

    def set(self, **options: Any) -> dict[str, Any]:
        """Refuse options: they are given when the calculator is made."""
        if options:
            raise InputError(f"cannot set {', '.join(options)}: make a new JMPCalculator with it")
        return {}

    def warmup(self, atoms: Atoms) -> float:
        """Compute forces once, so that no later call has to compile; returns the seconds it took.

        Raises:
            InputError: A structure the model cannot be used for.
        """
        began = time.perf_counter()
        self.calculate(atoms, ("energy", "forces"))
        self.reset()
        return time.perf_counter() - began

    def check_state(self, atoms: Atoms, tol: float = 1e-15) -> list[str]:
        """What changed since the last calculation: ASE's list, and tags where they count."""
        changes: list[str] = super().check_state(atoms, tol)
        if self.oc_tags and self.atoms and not np.array_equal(atoms.get_tags(), self._tags()):
            changes.append("tags")
        return changes

    def get_property(
        self, name: str, atoms: Atoms | None = None, allow_calculation: bool = True
    ) -> Any:
        """A result, computed where need be; arrays are copies."""
        with self._lock:  # what another thread computes meanwhile must not become this result
            return super().get_property(name, atoms, allow_calculation)

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Fill ``results``; forces and, where they can be had, stress come together.

        Known results of the same structure stay where others are refused.

        Raises:
            InputError: A structure the model cannot be used for.
            PropertyNotImplementedError: Stress where there is none.
        """
        with self._lock:
            self._calculate(atoms, properties, system_changes)

    def _calculate(
        self, atoms: Atoms | None, properties: Sequence[str], system_changes: Sequence[str]
    ) -> None:
        if atoms is not None and self.check_state(atoms):
            self.results = {}  # those of another structure, should this one be refused
        super().calculate(atoms, properties, system_changes)
        if "stress" in properties:
            self._require_stress()
        self._warn("electrons", ignored_electrons(self.atoms))
        prediction = self._predict(not {"forces", "stress"}.isdisjoint(properties))
        energy = float(prediction.energy[0])
        results: dict[str, Any] = {
            "energy": energy,
            "free_energy": energy,
            "energies": prediction.energies.numpy(),
        }
        if prediction.forces is not None:
            results["forces"] = prediction.forces.numpy()
        if prediction.stress is not None:
            tensor = prediction.stress[0].numpy()
            stress = periodic_stress(tensor, self.atoms.cell.array, self.atoms.pbc)
            results["stress"] = full_3x3_to_voigt_6_stress(stress)
        for name, value in results.items():
            if not np.isfinite(value).all():
                raise InputError(
                    f"model {self.potential.header.name!r} gives {name} that are not finite: the "
                    "structure is too far from its training data; check for atoms too close"
                )
        self.results = results

    def _predict(self, forces: bool) -> Prediction:
        atoms, potential = self.atoms, self.potential
        numbers, cell = atoms.numbers, atoms.cell.array
        check_structure(atoms.positions, numbers, cell, atoms.pbc, potential.header, potential.head)
        tags = self._tags()
        if self.oc_tags:
            check_tags(tags)
        self._warn_foreign()
        return potential.predict(
            self._structure.at(atoms.positions, numbers, cell, atoms.pbc, tags),
            forces=forces,
            stress=forces and self._has_stress(),
            direct=self.direct,
        ).on_host()

    def _tags(self) -> np.ndarray:
        return self.atoms.get_tags() if self.oc_tags else np.full(len(self.atoms), 2)

    def _has_stress(self) -> bool:
        return has_stress(self.atoms.cell.array, self.atoms.pbc) and not self.direct

    def _require_stress(self) -> None:
        if self.direct:
            raise PropertyNotImplementedError(
                "direct forces have no stress: use forces='conservative'"
            )
        if not self._has_stress():
            raise PropertyNotImplementedError(
                f"stress needs a periodic structure in a cell with a volume, this one has pbc "
                f"{self.atoms.pbc.tolist()} and cell {self.atoms.cell.array.tolist()}: set "
                "atoms.cell and atoms.pbc"
            )

    def _warn(self, about: str, message: str) -> None:
        """Warn, once about each thing."""
        if message and about not in self._warned:
            self._warned.add(about)
            warnings.warn(message, stacklevel=2)

    def _warn_foreign(self) -> None:
        """Once, also where a molecule comes apart on its way."""
        message = "" if self.told_of_domain else foreign(self.atoms, self.potential.header)
        if message:
            self.told_of_domain = True
            warnings.warn(message, DomainWarning, stacklevel=2)
