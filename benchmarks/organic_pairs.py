"""Pairs and trios of molecules for the recipe `organic`: beside each other, and hydrogen-bonded."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from ase import Atoms
from organic_teacher import Molecule, Row, Teacher, relaxed

PARTNERS = """
O N CO CN C#N c1ccccc1 NC=O OC=O CC(=O)O CC(N)=O C C=C C#C CC F Cl S O=C=O CF CCl CBr CS C=O
CC(C)=O COC CNC CSC c1ccncc1 c1cnccn1 c1cc[nH]c1 c1ccoc1 c1ccsc1 Oc1ccccc1 Nc1ccccc1 CNC=O CCC
C1CCCC1 NC(N)=O O=c1cc[nH]c(=O)[nH]1 CS(C)=O CC#N COP(=O)(O)O c1ccccc1F c1ccccc1Cl N#N [H][H]
ClCl FF P CP c1ccc2[nH]ccc2c1 Oc1ccccn1 Nc1ccccn1 Cc1c[nH]c(=O)[nH]c1=O Nc1ncnc2[nH]cnc12
""".split()  # noqa: SIM905
POLAR = (7, 8, 9)  # elements of hydrogen bonds


def complexes(
    teacher: Teacher, partners: list[Molecule], rng: np.random.Generator
) -> Iterator[Row]:
    """Two or three molecules that touch, from any side."""
    count = 3 if rng.random() < 0.15 else 2
    chosen = [partners[k] for k in rng.integers(len(partners), size=count)]
    chosen = [m for m in chosen if len(m.numbers) <= 16] if count == 3 else chosen
    placed: list[np.ndarray] = []
    for molecule in chosen:
        atoms = Atoms(numbers=molecule.numbers, positions=molecule.positions)
        atoms.positions -= atoms.positions.mean(axis=0)
        atoms.euler_rotate(*rng.uniform(0, 360, 3))
        way = rng.normal(size=3)
        way /= np.linalg.norm(way)
        distance = 0.0
        while placed and closest(np.concatenate(placed), atoms.positions + distance * way) < 2.6:
            distance += 0.2
        placed.append(atoms.positions + distance * way)
    if len(placed) > 1:
        yield from around_minimum(teacher, "pair", chosen, placed, int(rng.integers(10, 35)), rng)


def hydrogen_bonded(
    teacher: Teacher, partners: list[Molecule], rng: np.random.Generator
) -> Iterator[Row]:
    """Two molecules from a straight hydrogen bond of 1.9 Å, turned about it by any angle."""
    donor, acceptor = (partners[k] for k in rng.integers(len(partners), size=2))
    polar = polar_hydrogens(donor)
    sites = np.flatnonzero(np.isin(acceptor.numbers, POLAR))
    if not polar or not len(sites):
        return
    hydrogen, heavy = polar[rng.integers(len(polar))]
    site = rng.choice(sites)
    first, second = (Atoms(numbers=m.numbers, positions=m.positions) for m in (donor, acceptor))
    first.positions -= donor.positions[hydrogen]
    first.rotate(first.positions[hydrogen] - first.positions[heavy], (0, 0, 1))
    second.positions -= acceptor.positions[site]
    rest = second.positions.mean(axis=0)  # away from the hydrogen, a little to one side
    second.rotate(rest + 1e-3, (0, 0, 1))
    second.rotate(rng.uniform(0, 60), (1, 0, 0))
    second.rotate(rng.uniform(0, 360), (0, 0, 1))
    second.positions += (0, 0, 1.9)
    placed = [first.positions, second.positions]
    if closest(*placed) > 1.4:
        steps = int(rng.integers(20, 80))
        yield from around_minimum(teacher, "hydrogen-bond", [donor, acceptor], placed, steps, rng)


def doubly_bonded(
    teacher: Teacher, partners: list[Molecule], rng: np.random.Generator
) -> Iterator[Row]:
    """Two molecules in one plane with two hydrogen bonds in a ring, as acids and amides have."""
    faced = [(molecule, found) for molecule in partners if (found := faces(molecule))]
    (one, some), (two, others) = (faced[k] for k in rng.integers(len(faced), size=2))
    if rng.random() < 0.5:
        two, others = one, some  # many of the known ones are of two alike
    hydrogen, acceptor = some[rng.integers(len(some))]
    first, across = towards(one, hydrogen, acceptor, 1)
    hydrogen, acceptor = others[rng.integers(len(others))]
    second, other = towards(two, hydrogen, acceptor, -1)
    second = Atoms(numbers=two.numbers, positions=second)
    second.rotate(rng.uniform(-30, 30), (1, 0, 0), center=(0, 0, 0))
    away = np.sqrt(max(1.9**2 - ((across - other) / 2) ** 2, 1.2**2))  # Å between the faces
    placed = [first, second.positions + (0, away, 0)]
    if closest(*placed) > 1.3:
        steps = int(rng.integers(10, 60))
        yield from around_minimum(teacher, "hydrogen-bond", [one, two], placed, steps, rng)


def faces(molecule: Molecule) -> list[tuple[int, int]]:
    """Polar hydrogens with an acceptor beside them, 1.9 to 2.9 Å away on another atom."""
    x = molecule.positions
    return [
        (hydrogen, int(acceptor))
        for hydrogen, heavy in polar_hydrogens(molecule)
        for acceptor in np.flatnonzero(np.isin(molecule.numbers, (7, 8)))
        if acceptor != heavy and 1.9 < np.linalg.norm(x[hydrogen] - x[acceptor]) < 2.9
    ]


def towards(molecule: Molecule, hydrogen: int, acceptor: int, way: int) -> tuple[np.ndarray, float]:
    """A molecule with a face on the x axis, its bulk below or above, and the length of the face.

    Args:
        molecule: The molecule.
        hydrogen: One end of the face.
        acceptor: The other.
        way: 1 for a hydrogen on the left and the bulk at negative y, -1 for all this turned by half
            a circle.

    Returns:
        Positions with the middle of the face at the origin, and its length.
    """
    x = molecule.positions - molecule.positions[[hydrogen, acceptor]].mean(axis=0)
    along = x[acceptor] - x[hydrogen]
    length = float(np.linalg.norm(along))
    along = along / length
    outward = -x.mean(axis=0)
    outward -= (outward @ along) * along
    outward /= np.linalg.norm(outward) + 1e-9
    axes = np.array([way * along, way * outward, np.cross(along, outward)])
    return x @ axes.T, length


def polar_hydrogens(molecule: Molecule) -> list[tuple[int, int]]:
    """Hydrogens that can be in hydrogen bonds, each with the atom it is bonded to."""
    return [
        (int(h), int(x))
        for h in np.flatnonzero(molecule.numbers == 1)
        for x in np.flatnonzero(np.isin(molecule.numbers, POLAR))
        if np.linalg.norm(molecule.positions[h] - molecule.positions[x]) < 1.2
    ]


def around_minimum(
    teacher: Teacher,
    source: str,
    chosen: list[Molecule],
    placed: list[np.ndarray],
    steps: int,
    rng: np.random.Generator,
) -> Iterator[Row]:
    """Molecules relaxed together, closer and farther, and the first of them alone."""
    numbers = np.concatenate([m.numbers for m in chosen])
    name = "|".join(sorted(m.name for m in chosen))
    x = relaxed(teacher, numbers, np.concatenate(placed), steps)
    first = len(chosen[0].numbers)
    way = x[:first].mean(axis=0) - x[first:].mean(axis=0)
    way /= np.linalg.norm(way)
    for shift in (0.0, rng.uniform(-0.4, 0.4), rng.uniform(0.2, 1.0), rng.uniform(0.8, 4.0)):
        y = x + rng.normal(0, rng.choice([0.0, 0.02, 0.05]), x.shape)
        y[:first] += shift * way
        if closest(y[:first], y[first:]) > 0.9:
            yield Row(source, name, numbers, y)
    yield Row("apart", chosen[0].name, chosen[0].numbers, y[:first])


def closest(a: np.ndarray, b: np.ndarray) -> float:
    """Å between the two nearest atoms of two molecules."""
    return float(np.linalg.norm(a[:, None] - b[None], axis=-1).min())
