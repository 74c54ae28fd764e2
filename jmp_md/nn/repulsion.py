"""The repulsion of nuclei at short range, known before anything is learned."""

from typing import Final

import torch
from ase.data import covalent_radii
from torch import Tensor, nn

from jmp_md.graph.layout import Edges
from jmp_md.graph.smooth import smoothstep


class NuclearRepulsion(nn.Module):
    """ZBL pair energies that end, with two continuous derivatives, inside covalent distances.

    The universal screening function is that of Ziegler, Biersack and Littmark, "The Stopping and
    Range of Ions in Solids" (1985): the sum of amplitude exp(-exponent r / a), with
    a = 0.8854 a_0 / (Z_i^0.23 + Z_j^0.23).

    Models learn what this leaves. It keeps atoms apart where there are no training data, as data
    of molecules and crystals near their minima never hold two nuclei close to each other.

    Args:
        reach: Where a pair's energy ends, as a share of the sum of its covalent radii.
        num_elements: Elements of the network.
    """

    radii: Tensor
    charges: Tensor
    coulomb: Final[float]
    screening_length: Final[float]

    def __init__(self, reach: float, num_elements: int) -> None:
        super().__init__()
        self.coulomb = 14.399645478  # e^2 / (4 pi epsilon_0), eV Å
        self.screening_length = 0.8854 * 0.529177210903  # Å
        self.amplitudes = [0.18175, 0.50986, 0.28022, 0.02817]
        self.exponents = [3.19980, 0.94229, 0.40290, 0.20162]
        # On the CPU and of these values even where networks are laid out without any.
        charges = torch.arange(num_elements + 1, dtype=torch.float64, device="cpu")
        radii = torch.ones(num_elements + 1, dtype=torch.float64, device="cpu")
        known = min(len(covalent_radii), num_elements + 1)
        radii[:known] = torch.from_numpy(covalent_radii[:known].copy())
        self.register_buffer("charges", charges, persistent=False)
        self.register_buffer("radii", reach * radii, persistent=False)

    def forward(self, numbers: Tensor, main: Edges) -> Tensor:
        """(n_atoms,) eV, half of each pair's energy, differentiable in the distances.

        Args:
            numbers: (n_atoms,) atomic numbers.
            main: Main edges, each pair in both directions.
        """
        charge, radius = self.charges[numbers], self.radii[numbers]
        z_s, z_t = charge.index_select(0, main.source), charge.index_select(0, main.target)
        end = radius.index_select(0, main.source) + radius.index_select(0, main.target)
        x = main.distance * (z_s.pow(0.23) + z_t.pow(0.23)) / self.screening_length
        screening = torch.zeros_like(x)
        for amplitude, exponent in zip(self.amplitudes, self.exponents):  # noqa: B905
            screening = screening + amplitude * torch.exp(-exponent * x)
        energy = self.coulomb * z_s * z_t / main.distance * screening
        energy = 0.5 * energy * smoothstep(1.0 - main.distance / end)
        return torch.zeros_like(charge).index_add(0, main.target, energy)
