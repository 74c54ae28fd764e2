"""Labels that a structure carries never pass for results, nor cost them, in any verb."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.io import read, write
from factories import write_model

from jmp_md.cli.main import main

VERBS = {
    "singlepoint in.traj --output out": "out/results.extxyz",
    "relax in.traj --steps 2 --trajectory traj --output out": "out/relaxed.extxyz",
    "relax in.traj --steps 2 --batch-size 2 --output out": "out/relaxed.extxyz",
    "screen in.traj --task singlepoint --output out": "out/results.extxyz",
    "md in.traj --steps 2 --interval 1 --no-report --output out": "out/trajectory.extxyz",
    "neb in.traj end.traj --n-images 3 --steps 1 --no-report --output out": "out/path.extxyz",
}


def labelled(**changes: Any) -> Atoms:
    atoms = molecule("H2O")
    atoms.rattle(0.05, seed=1)
    atoms.info |= {"stress": np.ones(6), "free_energy": -7.0, "name": "mine", "strange": None}
    atoms.info |= {"energy": -7.0, **changes}
    atoms.arrays["forces"] = np.full((3, 3), 7.0)
    return atoms


@pytest.mark.parametrize("command", VERBS)
def test_results_win(here: Path, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    model = str(write_model(here, num_blocks=1, head={"elements": (1, 8)}))
    write("in.traj", labelled())
    end = labelled()
    end.set_angle(1, 0, 2, 95)
    write("end.traj", end)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert main([*command.split(), "--model", model]) in (0, 2), capsys.readouterr().err
    for atoms in read(VERBS[command], index=":"):
        assert atoms.get_potential_energy() > -2.0
        assert np.abs(atoms.get_forces()).max() < 2.0
        assert atoms.info["name"] == "mine"
        assert not {"energy", "stress", "free_energy", "strange"} & set(atoms.info)
        assert "stress" not in atoms.calc.results
