"""What both backends are asked for: a potential, and the particles it acts among."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jmp_md.potential import Potential


@dataclass(frozen=True)
class Interaction:
    """A potential among some particles of a system.

    Attributes:
        potential: The model.
        numbers: (n_atoms,) atomic numbers of the particles the potential acts among.
        atoms: Their indices in the system; None for all particles, in order.
        periodic: Whether there is a box.
        direct: Take forces from the direct force head.
        skin: Å by which neighbours are searched beyond the cutoff; None for the usual.
        parameter: Global parameter that scales energy and forces, if any.
    """

    potential: Potential
    numbers: np.ndarray
    atoms: list[int] | None
    periodic: bool
    direct: bool
    skin: float | None
    parameter: str | None
