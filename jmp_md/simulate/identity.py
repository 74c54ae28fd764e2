"""What makes a run the one it is: its physics, not its place, device or output options.

Two runs with one identity give the same results to rounding, so that one may continue the other.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jmp_md.errors import InputError
from jmp_md.simulate.forces import as_jmp
from jmp_md.simulate.summary import describe

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import Calculator

_DIGEST = "sha256:"
# Parameters of calculators that say where something is computed, not what.
_PLACES = frozenset({"device", "directory", "label", "command", "profile", "txt", "logfile"})
_MISSING = object()


def identity(
    calculator: Calculator,
    settings: Mapping[str, Any],
    structures: Sequence[Atoms] = (),
    *,
    momenta: bool = False,
) -> dict[str, Any]:
    """The identity of a run.

    Args:
        calculator: What computes.
        settings: Options that change results: no interval of output, format, folder or number of
            structures computed at a time.
        structures: Where the run starts; may be left out where each of many structures is
            identified by itself, see :func:`identify_structure`.
        momenta: Whether momenta of the structures count, as in dynamics.

    Returns:
        ``model``, ``settings`` and ``structures``, as JSON gives them back.
    """
    found = {
        "model": identify_calculator(calculator),
        "settings": settings,
        "structures": identify_structures(structures, momenta=momenta),
    }
    plain: dict[str, Any] = _plain(found)
    return plain


def identify_structures(structures: Sequence[Atoms], *, momenta: bool = False) -> dict[str, Any]:
    """That of one structure, or digests of those of all: a few lines for any number.

    Args:
        structures: Any number, of any sizes.
        momenta: Whether their momenta count.
    """
    if len(structures) == 1:
        return {"number": 1, **identify_structure(structures[0], momenta=momenta)}
    digests: dict[str, Any] = {}
    formulas: dict[str, None] = {}
    for i, atoms in enumerate(structures):
        known = identify_structure(atoms, momenta=momenta)
        formulas[known.pop("formula")] = None
        for key, value in known.items():
            digests.setdefault(key, sha256()).update(f"{i} {json.dumps(value)}\n".encode())
    found = {key: _DIGEST + digest.hexdigest() for key, digest in digests.items()}
    shown = ", ".join(list(formulas)[:3]) + (", ..." if len(formulas) > 3 else "")
    return {"number": len(structures), "formula": shown, **found}


def identify_structure(atoms: Atoms, *, momenta: bool = False) -> dict[str, Any]:
    """Formula, pbc, constraints and digests of all else that results may depend on.

    Args:
        atoms: The structure.
        momenta: Whether its momenta count.
    """
    found = {
        "formula": atoms.get_chemical_formula(mode="hill"),
        "elements": _digest(atoms.numbers),
        "masses": _digest(atoms.get_masses()),
        "positions": _digest(atoms.positions),
        "cell": _digest(atoms.cell.array),
        "pbc": atoms.pbc.tolist(),
        "tags": _digest(atoms.get_tags()),
        "charges": _digest(atoms.get_initial_charges()),
        "magnetic moments": _digest(atoms.get_initial_magnetic_moments()),
        "constraints": _plain([identify_constraint(each) for each in atoms.constraints]),
    }
    found |= {key: _plain(atoms.info[key]) for key in ("charge", "spin") if key in atoms.info}
    if momenta:
        found["momenta"] = _digest(atoms.get_momenta())
    return found


def identify_calculator(calculator: Calculator) -> dict[str, Any]:
    """A JMP model by its hash, head, precision and options; others by class and parameters.

    What another calculator keeps elsewhere than in ASE's ``parameters`` cannot be seen.
    """
    if as_jmp(calculator) is not None:
        about = {k: v for k, v in describe(calculator).items() if k not in ("name", "device")}
        return about
    kind = type(calculator)
    parameters = dict(getattr(calculator, "parameters", None) or {})
    about = {k: v for k, v in parameters.items() if k not in _PLACES}
    about["calculator"] = f"{kind.__module__}.{kind.__qualname__}"
    mixer = getattr(calculator, "mixer", None)  # of ASE's sums of calculators
    if mixer is not None:
        about["parts"] = [identify_calculator(each) for each in mixer.calcs]
        about["weights"] = mixer.weights
    plain: dict[str, Any] = _plain(about)
    return plain


def require_same(saved: Mapping[str, Any], asked: Mapping[str, Any], where: str | Path) -> None:
    """Refuse to continue a run as another one.

    Args:
        saved: Identity, or part of one, of the run that was saved.
        asked: That of the run asked for.
        where: What holds the saved run, for the message.

    Raises:
        InputError: They differ; each difference is named.
    """
    differences = list(_differences("", _plain(saved), _plain(asked)))
    if differences:
        raise InputError(
            f"cannot continue the run in {where} as another one; different: "
            f"{', '.join(differences)}: give what it was started with, or choose another output"
        )


def _differences(name: str, saved: Any, asked: Any) -> Iterator[str]:
    """Names of what differs, with both values where a reader can make something of them."""
    if isinstance(saved, dict) and isinstance(asked, dict):
        for key, what in (("number", f"number of {name}"), ("formula", f"{name}.formula")):
            if saved.get(key) != asked.get(key):  # and with it all else
                yield f"{what}: {saved.get(key)!r}, now {asked.get(key)!r}"
                return
        for key in dict.fromkeys([*saved, *asked]):
            path = f"{name}.{key}" if name else str(key)
            yield from _differences(path, saved.get(key, _MISSING), asked.get(key, _MISSING))
    elif saved != asked:
        shown = [_shown(value) for value in (saved, asked)]
        told = all(len(text) <= 60 and _DIGEST not in text for text in shown)
        yield f"{name}: {shown[0]}, now {shown[1]}" if told else name


def _shown(value: Any) -> str:
    return "none" if value is _MISSING else repr(value)


def identify_constraint(constraint: Any) -> Any:
    """What a constraint of ASE holds and how; of one that cannot tell, its class."""
    try:
        return constraint.todict()
    except (AttributeError, NotImplementedError):
        return type(constraint).__name__


def _digest(values: Any) -> str:
    array = np.asarray(values)
    real = array.dtype.kind == "f"  # minus zero is zero then
    array = array.astype("<f8") + 0.0 if real else array.astype("<i8")
    return _DIGEST + sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def _plain(value: Any) -> Any:
    """What JSON gives back; unknown objects by their class, for their repr may hold an address."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, set | frozenset):
        return sorted(repr(part) for part in value)
    if isinstance(value, Path):
        return str(value)
    return f"{type(value).__module__}.{type(value).__qualname__}"
