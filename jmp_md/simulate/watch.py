"""Whether the structures of a run lie within what its model was trained on, and saying so."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from jmp_md.domain import Finding, findings, knows
from jmp_md.errors import DomainWarning
from jmp_md.simulate.forces import as_jmp

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import Calculator

_MOST = 3  # kinds of findings in a sentence


@dataclass
class _Tally:
    """Findings of some structures: of each kind the worst, how often, and where first."""

    structures: int = 0
    outside: int = 0
    worst: dict[str, Finding] = field(default_factory=dict)
    count: dict[str, int] = field(default_factory=dict)
    first: dict[str, str] = field(default_factory=dict)

    def add(self, found: Sequence[Finding], where: str) -> None:
        self.structures += 1
        self.outside += bool(found)
        for finding in found:
            kind = finding.kind
            self.first.setdefault(kind, where)
            self.count[kind] = self.count.get(kind, 0) + 1
            if finding.measure >= self.worst.get(kind, finding).measure:
                self.worst[kind] = finding

    def sentence(self) -> str:
        parts = []
        for kind, finding in list(self.worst.items())[:_MOST]:
            many = f" (in {self.count[kind]} of {self.structures})" if self.structures > 1 else ""
            parts.append(finding.text + many)
        more = len(self.worst) - _MOST
        return "; ".join(parts) + (f"; and {more} more, see summary.json" if more > 0 else "")

    def record(self) -> dict[str, Any]:
        return {
            "structures": self.structures,
            "outside": self.outside,
            "findings": [
                {
                    "kind": kind,
                    "text": finding.text,
                    "structures": self.count[kind],
                    "first": self.first[kind],
                }
                for kind, finding in self.worst.items()
            ],
        }


class DomainWatch:
    """Compares the structures of a run with what its model was trained on.

    It warns (:class:`~jmp_md.errors.DomainWarning`) at the start, when a structure on its way first
    leaves in some respect, and at the end; :meth:`record` is for ``summary.json``. With a
    calculator that is no JMP model all of this does nothing.

    Args:
        calculator: The calculator of the run.
    """

    def __init__(self, calculator: Calculator | None) -> None:
        self._calculator = as_jmp(calculator)
        self._phases = {name: _Tally() for name in ("start", "run", "end")}

    def begin(self, structures: Sequence[Atoms]) -> None:
        """See the structures a run starts from."""
        if self._calculator is None:
            return
        self._calculator.told_of_domain = True  # as this says more
        start = self._see_all("start", structures)
        if start.outside:
            these = "the structure lies" if start.structures == 1 else "structures lie"
            self._say(f"{these} outside of what {self._name} was trained on: {start.sentence()}")

    def see(self, atoms: Atoms, where: str) -> None:
        """See a structure on its way.

        Args:
            atoms: The structure, with forces where they are known.
            where: Which it is, e.g. ``"step 100"``.
        """
        if self._calculator is None:
            return
        run, start = self._phases["run"], self._phases["start"]
        known = run.worst.keys() | start.worst.keys()
        found = self._find(atoms)
        run.add(found, where)
        if new := [finding.text for finding in found if finding.kind not in known]:
            what = "; ".join(new[:_MOST])
            self._say(f"{where} left what {self._name} was trained on: {what}")

    def end(self, structures: Sequence[Atoms]) -> None:
        """See the structures a run ends with."""
        if self._calculator is None:
            return
        end, run = self._see_all("end", structures), self._phases["run"]
        if end.outside:
            these = "the last structure lies" if end.structures == 1 else "last structures lie"
            self._say(
                f"{these} outside of what {self._name} was trained on, the results may be wrong: "
                f"{end.sentence()}"
            )
        elif run.outside:
            self._say(
                f"{run.outside} of {run.structures} structures on the way lay outside of what "
                f"{self._name} was trained on: {run.sentence()}"
            )

    @property
    def left(self) -> bool:
        """Whether a structure ended as a molecule other than the model's, and did not begin so."""
        start, end = self._phases["start"].worst.values(), self._phases["end"].worst.values()
        return any(f.foreign for f in end) and not any(f.foreign for f in start)

    def record(self) -> dict[str, Any] | None:
        """What was seen, for ``summary.json``; None where the calculator is no JMP model.

        Returns:
            ``recorded``, whether the model's header says what it was trained on beyond elements,
            and for ``start``, ``run`` and ``end``: ``structures``, how many were seen,
            ``outside``, how many of them lay outside, and ``findings`` by kind.
        """
        if self._calculator is None:
            return None
        potential = self._calculator.potential
        phases = {name: tally.record() for name, tally in self._phases.items() if tally.structures}
        return {"recorded": knows(potential.header, potential.head), **phases}

    @property
    def _name(self) -> str:
        assert self._calculator is not None
        return f"model {self._calculator.potential.header.name!r}"

    def _find(self, atoms: Atoms) -> list[Finding]:
        assert self._calculator is not None
        potential = self._calculator.potential
        return findings(atoms, potential.header, potential.head)

    def _see_all(self, phase: str, structures: Sequence[Atoms]) -> _Tally:
        tally = self._phases[phase] = _Tally()
        for index, atoms in enumerate(structures):
            tally.add(self._find(atoms), f"structure {index}")
        return tally

    def _say(self, text: str) -> None:
        warnings.warn(text, DomainWarning, stacklevel=3)


def watch_domain(
    structures: Sequence[Atoms], models: Sequence[tuple[str, Calculator]]
) -> dict[str, DomainWatch]:
    """By name of the model, a watch over its structures, which warns of those given."""
    watches: dict[str, DomainWatch] = {}
    for name, calculator in dict(models).items():
        own = [atoms for atoms, (model, _) in zip(structures, models, strict=True) if model == name]
        watches[name] = DomainWatch(calculator)
        watches[name].begin(own)
    return watches
