"""PDBBind: a ligand (sdf) in its pocket (pdb) and the binding affinity, as MoleculeNet has it.

Layout: a folder `<code>` per complex with `<code>_ligand.sdf` and `<code>_pocket.pdb`, and an
index: PDBBind's own (`INDEX_core_data.2013`: code, resolution, year, -logKd/Ki, ...) or
MoleculeNet's csv (`pdb_id`, `label`). `Frame.targets["-logKd/Ki"]` is dimensionless, for Kd and Ki
in mol/l.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from jmp_md.errors import InputError
from jmp_md.training.data.frame import Frame, make_frame, wrap_index
from jmp_md.training.data.molfile import parse_molblock, read_atoms

TARGET = "-logKd/Ki"
INDEX_PATTERNS = ("INDEX_*_data.*", "index/INDEX_*_data.*", "*.csv")


def open_pdbbind(path: str | Path, index: str | Path | None = None) -> PdbBind:
    """Open PDBBind.

    Args:
        path: The folder of complexes.
        index: The index file; by default the only one in the folder (or in `index/`).

    Raises:
        InputError: There is no index, or more than one, or none of its complexes is there.
    """
    path = Path(path)
    found = sorted({file for pattern in INDEX_PATTERNS for file in path.glob(pattern)})
    files = found if index is None else [Path(index)]
    if len(files) != 1:
        raise InputError(
            f"{path}: {len(files)} index files in this folder; name the one to use: "
            f"index={' or '.join(str(file) for file in files) or 'INDEX_core_data.2013'}"
        )
    return PdbBind(path, _read_index(files[0]))


class PdbBind:
    """Ligand then pocket atoms of each complex.

    Args:
        path: The folder of complexes.
        affinities: -log10(Kd or Ki) by PDB code; codes without a folder are left out.

    Raises:
        InputError: No complex has a folder.
    """

    def __init__(self, path: Path, affinities: dict[str, float]) -> None:
        self.path = path
        self._affinities = affinities
        self._codes = [code for code in affinities if (path / code).is_dir()]
        if not self._codes:
            raise InputError(f"{path}: has no folder for any of {len(affinities)} complexes")

    def __len__(self) -> int:
        return len(self._codes)

    def __getitem__(self, index: int) -> Frame:
        code = self._codes[wrap_index(index, len(self))]
        ligand = self.path / code / f"{code}_ligand.sdf"
        pocket = self.path / code / f"{code}_pocket.pdb"
        parts = [
            parse_molblock(_lines(ligand), str(ligand)),
            parse_pdb(_lines(pocket), str(pocket)),
        ]
        return make_frame(
            self.path,
            code,
            numbers=np.concatenate([numbers for numbers, _ in parts]),
            positions=np.concatenate([positions for _, positions in parts]),
            system=code,
            targets={TARGET: self._affinities[code]},
        )


def parse_pdb(lines: list[str], where: str) -> tuple[np.ndarray, np.ndarray]:
    """Atomic numbers (n,) and positions (n, 3) in Å of the first model of a pdb file.

    Of alternate locations the first is taken. The element is read from columns 77-78, or where
    these are blank from the atom's name (wwPDB format 3.3).

    Raises:
        InputError: There is no atom, or a line that does not parse.
    """
    atoms = []
    for line in lines:
        if line.startswith("ENDMDL"):
            break
        if line.startswith(("ATOM", "HETATM")) and line[16:17] in (" ", "A", "1"):
            atoms.append(line)
    if not atoms:
        raise InputError(f"{where}: holds no atom")
    return read_atoms(atoms, [_element(a) for a in atoms], (30, 38, 46), 8, where, "pdb")


def _element(line: str) -> str:
    """Symbol of the element: ` CA ` is a carbon and `CA  ` calcium where no column says more."""
    symbol = line[76:78].strip()
    if not symbol.isalpha():
        name = line[12:16]
        two_letters = name[0].isalpha() and not (name[0] == "H" and len(name.strip()) == 4)
        symbol = name[:2] if two_letters else name.lstrip(" 0123456789")[:1]
    return "H" if symbol == "D" else symbol.strip().capitalize()


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error})") from error


def _read_index(path: Path) -> dict[str, float]:
    """-log10(Kd or Ki) by PDB code, in the order of the file."""
    lines = [line for line in _lines(path) if line.strip() and not line.startswith("#")]
    try:
        if path.suffix == ".csv":
            rows = csv.DictReader(lines)
            return {row["pdb_id"]: float(row["label"]) for row in rows}
        return {line.split()[0]: float(line.split()[3]) for line in lines}
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: not an index of PDBBind, {error!r}; its lines read 'code resolution year "
            "-logKd/Ki ...', or as csv 'pdb_id' and 'label'"
        ) from error
