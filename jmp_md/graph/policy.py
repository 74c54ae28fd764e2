"""Which pairs of atoms enter which of the four graphs, and with what weight."""

from __future__ import annotations

from dataclasses import dataclass

from jmp_md.errors import InputError

GRAPHS = ("main", "atom_edge", "quadruplet", "atom_atom")


@dataclass(frozen=True)
class GraphPolicy:
    """Rules for the four graphs, in the order ``main, atom_edge, quadruplet, atom_atom``.

    ``official`` is the published network: hard cutoff, nearest ``counts`` neighbours, main graph
    made symmetric by atom index. ``smooth`` weights every edge by switches that vanish, with two
    continuous derivatives, at the cutoff and, where a count is given, once more neighbours than
    that are closer.

    Attributes:
        kind: ``"official"`` or ``"smooth"``.
        cutoffs: Å, one per graph.
        counts: Neighbours kept per atom, one per graph; None in a smooth graph means all.
        width: Share of the cutoff over which a smooth edge goes from full weight to zero.
        rank_width: Neighbours beyond the count over which a smooth edge goes to zero.
        inline_sin2: sin^2 of the angle below which a smooth dihedral begins to fade.
    """

    kind: str
    cutoffs: tuple[float, float, float, float]
    counts: tuple[int | None, int | None, int | None, int | None] = (None, None, None, None)
    width: float = 0.2
    rank_width: float = 4.0
    inline_sin2: float = 0.03

    def __post_init__(self) -> None:
        object.__setattr__(self, "cutoffs", tuple(float(c) for c in self.cutoffs))
        object.__setattr__(self, "counts", tuple(self.counts))
        if self.kind not in ("official", "smooth"):
            raise InputError(f"graph policy {self.kind!r}: choose 'official' or 'smooth'")
        if len(self.cutoffs) != 4 or len(self.counts) != 4:
            raise InputError("a graph policy takes four cutoffs and four counts")
        if not min(self.cutoffs) > 0:
            raise InputError(f"graph cutoffs {self.cutoffs} must be positive (Å)")
        if any(c is not None and c < 0 for c in self.counts) or self.counts[0] == 0:
            raise InputError(f"neighbour counts {self.counts}: the main graph needs at least 1")
        if self.kind == "official" and None in self.counts:
            raise InputError("the official graph policy needs a neighbour count for every graph")
        if self.kind == "smooth" and not 0 < self.width < 1:
            raise InputError(f"switch width {self.width} is a share of the cutoff: between 0 and 1")

    @classmethod
    def official(cls, cutoff: float, max_neighbors: int) -> GraphPolicy:
        """The published rule: one cutoff in Å and a base count B (spec section 1)."""
        b = max_neighbors
        counts = (b, b * 20 // 30, b * 8 // 30, b * 1000 // 30)
        return cls("official", (cutoff,) * 4, counts)

    @classmethod
    def smooth(
        cls,
        main: float = 5.0,
        atom_edge: float = 5.0,
        quadruplet: float = 2.2,
        atom_atom: float = 6.0,
        width: float = 0.2,
        inline_sin2: float = 0.03,
    ) -> GraphPolicy:
        """Every graph with a cutoff of its own, in Å, and no limit by count."""
        cutoffs = (main, atom_edge, quadruplet, atom_atom)
        return cls("smooth", cutoffs, width=width, inline_sin2=inline_sin2)

    @property
    def cutoff(self) -> float:
        """Å, the largest of the four cutoffs: how far a neighbour search must reach."""
        return max(self.cutoffs)
