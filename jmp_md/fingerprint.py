"""A hash of all that the numbers of a potential depend on."""

from __future__ import annotations

import json
from dataclasses import asdict
from hashlib import sha256

from jmp_md.checkpoints.exported import ScriptedPotential
from jmp_md.checkpoints.packaged import PackagedPotential
from jmp_md.potential import Potential


def fingerprint(potential: Potential) -> str:
    """SHA-256, in hex, of architecture, head, graphs, references and weights.

    It does not depend on the precision in use, nor on names and notes in the header.
    """
    about = {
        "architecture": asdict(potential.header.architecture),
        "head": {**asdict(potential.head), "level_of_theory": None},
        "graph": asdict(potential.policy),
        "references": potential.references.tolist(),
    }
    digest = sha256(json.dumps(about, sort_keys=True).encode())
    if isinstance(potential, PackagedPotential):
        digest.update(potential.path.read_bytes())
        return digest.hexdigest()
    if isinstance(potential, ScriptedPotential):
        state = potential.module.state_dict()
    else:
        state = potential.native_state()
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(state[name].double().cpu().numpy().tobytes())
    return digest.hexdigest()
