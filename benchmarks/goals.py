"""The goals of the engine, and how far the measured numbers are from them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import growth

Results = Mapping[str, Any]
Steps = Mapping[str, Mapping[str, Mapping[str, float]]]
_WATER_ATOMS = 12_288


@dataclass(frozen=True)
class Goal:
    """A goal.

    Attributes:
        what: What is asked for.
        limit: The number.
        at_least: Whether more is better.
        unit: Unit of the number.
        measured: The number from the results of a run; KeyError where it was not measured.
    """

    what: str
    limit: float
    at_least: bool
    unit: str
    measured: Callable[[Results], float]

    def line(self, results: Results) -> str:
        """The goal, what was measured and whether that is enough."""
        sign = ">=" if self.at_least else "<="
        start = f"{self.what:52} {sign} {self.limit:6.2f} {self.unit:8}"
        try:
            value = self.measured(results)
        except (KeyError, StopIteration):
            return f"{start} not measured"
        met = value >= self.limit if self.at_least else value <= self.limit
        return f"{start} {value:7.2f}  {'met' if met else 'NOT met'}"


def lines(results: Results) -> Iterator[str]:
    """One line per goal."""
    yield f"{'goal':66} measured"
    for goal in GOALS:
        yield goal.line(results)


def _ratio(row: str, above: str, below: str) -> Callable[[Results], float]:
    """Time of one method over that of another; ``ours`` is the faster of fast and compiled."""

    def measured(results: Results) -> float:
        times = results["steps"][row]
        return _time(times, above, results["clock"]) / _time(times, below, results["clock"])

    return measured


def _time(methods: Mapping[str, Mapping[str, float]], name: str, clock: str) -> float:
    if name != "ours":
        return methods[name][clock]
    return min(methods[m][clock] for m in ("fast", "compiled") if clock in methods.get(m, {}))


def _steps_per_second(row: str) -> Callable[[Results], float]:
    return lambda results: 1e3 / _time(results["steps"][row], "ours", results["clock"])


def _peak(row: str) -> Callable[[Results], float]:
    return lambda results: results["steps"][row]["lean"]["peak_MiB"] / 1024


def _growth(key: str) -> Callable[[Results], float]:
    """Percent from linear growth, of the first method that fits at the largest size."""

    def measured(results: Results) -> float:
        clock = results["clock"]
        largest = [r for r in results["growth"] if r["atoms"] >= _WATER_ATOMS and clock in r]
        method = next(row["method"] for row in largest)
        rows = [row for row in results["growth"] if row["method"] == method]
        return 100 * growth.deviation(rows, key or clock)

    return measured


def _neighbours(structure: str) -> Callable[[Results], float]:
    return lambda results: next(
        100 * row["neighbour_share"] for row in results["split"] if row["structure"] == structure
    )


def _batch(molecule: str) -> Callable[[Results], float]:
    return lambda results: next(
        row["faster"] for row in results["batching"] if row["molecule"] == molecule
    )


GOALS = (
    Goal(
        "JMP-S, 148 atoms: over the floor",
        1.2,
        False,
        "x",
        _ratio("jmp-s:catcher", "ours", "floor"),
    ),
    Goal(
        "JMP-S, 148 atoms: against the oracle",
        4,
        True,
        "x",
        _ratio("jmp-s:catcher", "oracle", "ours"),
    ),
    Goal(
        "jmp-xs, official graphs, 21 atoms: against the oracle",
        10,
        True,
        "x",
        _ratio("jmp-xs-official:aspirin", "oracle", "ours"),
    ),
    Goal(
        "jmp-xs, 21 atoms: steps/s of JMPCalculator",
        60,
        True,
        "1/s",
        _steps_per_second("jmp-xs:aspirin"),
    ),
    Goal(
        "jmp-xs, official graphs, 200 atoms: against the oracle",
        12,
        True,
        "x",
        _ratio("jmp-xs-official:tube", "oracle", "ours"),
    ),
    Goal("jmp-xs, 9 atoms: against MACE", 1.5, True, "x", _ratio("jmp-xs:ethanol", "mace", "ours")),
    Goal(
        "jmp-xs, 21 atoms: against MACE", 1.5, True, "x", _ratio("jmp-xs:aspirin", "mace", "ours")
    ),
    Goal(
        "jmp-xs, 64 atoms: against MACE", 1.5, True, "x", _ratio("jmp-xs:ammonia", "mace", "ours")
    ),
    Goal("jmp-xs, 200 atoms: against MACE", 1.5, True, "x", _ratio("jmp-xs:tube", "mace", "ours")),
    Goal(
        "JMP-S, 148 atoms: bfloat16 against float32",
        3,
        True,
        "x",
        _ratio("jmp-s:catcher", "fast", "bf16"),
    ),
    Goal("JMP-L, 148 atoms: lean memory over weights", 3, False, "GiB", _peak("jmp-l:catcher")),
    Goal("JMP-L, 370 atoms: lean memory over weights", 8, False, "GiB", _peak("jmp-l:nanotube")),
    Goal("water to 12,288 atoms: time linear within", 15, False, "%", _growth("")),
    Goal("water to 12,288 atoms: memory linear within", 15, False, "%", _growth("peak_MiB")),
    Goal("neighbours' share of a step, 21 atoms", 5, False, "%", _neighbours("aspirin")),
    Goal("neighbours' share of a step, 1,536 atoms", 5, False, "%", _neighbours("water-512")),
    Goal("256 ethanol: batch against one by one", 4, True, "x", _batch("ethanol")),
    Goal("64 aspirin: batch against one by one", 4, True, "x", _batch("aspirin")),
)
