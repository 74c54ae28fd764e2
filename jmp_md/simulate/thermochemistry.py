"""Ideal-gas thermochemistry of molecules, from their vibrations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jmp_md.errors import InputError
from jmp_md.options import with_options
from jmp_md.simulate.options import GasOptions
from jmp_md.simulate.rotations import distance_from_axis, is_linear, symmetry_number
from jmp_md.simulate.vibrations import STATIONARY, n_rigid_motions

if TYPE_CHECKING:
    from ase import Atoms

    from jmp_md.simulate.vibrations import Vibrations

_GEOMETRIES = {3: "monatomic", 5: "linear", 6: "nonlinear"}
_PASCAL_PER_BAR = 1e5
# Å: a molecule that is linear, or symmetric, by this tolerance but not by the usual one is
# neither clearly.
_NEARLY_LINEAR, _NEARLY_SYMMETRIC = 0.1, 0.15


@dataclass(frozen=True)
class Thermochemistry:
    """A molecule as an ideal gas of rigid rotors and harmonic oscillators.

    Attributes:
        temperature: K.
        pressure: bar.
        zero_point_energy: eV.
        internal_energy: eV, with the potential and zero-point energy.
        enthalpy: eV.
        entropy: eV/K.
        gibbs_energy: eV.
        geometry: ``"monatomic"``, ``"linear"`` or ``"nonlinear"``.
        symmetry_number: Given, or found.
        spin: Given, or of the initial magnetic moments, or the lowest that the number of electrons
            allows.
    """

    temperature: float
    pressure: float
    zero_point_energy: float
    internal_energy: float
    enthalpy: float
    entropy: float
    gibbs_energy: float
    geometry: str
    symmetry_number: int
    spin: float


@with_options(GasOptions)
def thermochemistry(
    vibrations: Vibrations, options: GasOptions | None = None, **changes: Any
) -> Thermochemistry:
    """Ideal-gas thermochemistry with ASE's ``IdealGasThermo``.

    Args:
        vibrations: Of a molecule at a minimum.
        options: See :class:`~jmp_md.simulate.options.GasOptions`; None for the defaults.
        changes: Options by name, in place of those of ``options``.

    Raises:
        InputError: A periodic or constrained structure, one that is not at a minimum or neither
            clearly linear or symmetric nor clearly not, a temperature at which its rotations are
            not classical or its entropy not positive, or an option that does not exist or does not
            fit.
    """
    from ase.thermochemistry import IdealGasThermo
    from ase.units import invcm

    options = (options or GasOptions()).changed(changes)
    temperature, pressure = options.temperature, options.pressure
    atoms = vibrations.data.get_atoms()
    if len(vibrations.data.get_indices()) < len(atoms):
        raise _not_free()
    check_gas(atoms, options)
    _check_minimum(vibrations)
    geometry = _GEOMETRIES[n_rigid_motions(atoms)]
    sigma = options.symmetry_number or _found_symmetry_number(atoms)
    total_spin = _likely_spin(atoms) if options.spin is None else options.spin
    _check_classical(atoms, temperature)
    gas = IdealGasThermo(
        vibrations.frequencies * invcm,
        geometry,
        potentialenergy=vibrations.energy,
        atoms=atoms,
        symmetrynumber=sigma,
        spin=total_spin,
        vib_selection="exact",
    )
    pascal = pressure * _PASCAL_PER_BAR
    if gas.get_entropy(temperature, pascal, verbose=False) < 0:
        raise InputError(
            f"temperature {temperature!r} K: the entropy of a classical gas is negative there, "
            "which no gas has; give a higher one"
        )
    return Thermochemistry(
        temperature,
        pressure,
        float(gas.get_ZPE_correction()),
        float(gas.get_internal_energy(temperature, verbose=False)),
        float(gas.get_enthalpy(temperature, verbose=False)),
        float(gas.get_entropy(temperature, pascal, verbose=False)),
        float(gas.get_gibbs_energy(temperature, pascal, verbose=False)),
        geometry,
        sigma,
        total_spin,
    )


def check_gas(atoms: Atoms, options: GasOptions) -> None:
    """Refuse what :func:`thermochemistry` would, before anything is computed.

    Raises:
        InputError: See there.
    """
    spin = options.spin
    if atoms.pbc.any() or atoms.constraints:
        raise _not_free()
    if spin is None:
        return
    electrons = _n_electrons(atoms)
    if not (float(2 * spin).is_integer() and 2 * spin <= electrons):
        raise InputError(f"spin {spin!r}: give a multiple of 0.5, e.g. 0.5 for one lone electron")
    if (electrons - int(2 * spin)) % 2:
        lowest = (electrons % 2) / 2
        raise InputError(
            f"spin {spin!r} does not go with {electrons} electrons: give {lowest:g} or "
            f"{lowest + 1:g}, or the charge of an ion as info['charge']"
        )


def _not_free() -> InputError:
    return InputError("an ideal gas is of free molecules: give one without pbc and constraints")


def _check_minimum(vibrations: Vibrations) -> None:
    if vibrations.fmax > STATIONARY:
        raise InputError(
            f"the molecule is not at a minimum, it has forces of {vibrations.fmax:.3f} eV/Å: "
            "relax it first"
        )
    imaginary = vibrations.frequencies[vibrations.frequencies < 0]
    if len(imaginary):
        raise InputError(
            f"the molecule is not at a minimum, it has imaginary frequencies of "
            f"{imaginary.round(1).tolist()} cm⁻¹: relax it further (--fmax 0.001, in float64)"
        )
    atoms = vibrations.data.get_atoms()
    if len(atoms) > 2 and not is_linear(atoms):
        bent = distance_from_axis(atoms)
        if bent < _NEARLY_LINEAR:
            raise InputError(
                f"the molecule is neither linear nor clearly bent, atoms lie {bent:.3f} Å off "
                "its axis: relax it further; a rigid rotor does not describe it"
            )


def _found_symmetry_number(atoms: Atoms) -> int:
    found, nearly = symmetry_number(atoms), symmetry_number(atoms, _NEARLY_SYMMETRIC)
    if found != nearly:
        raise InputError(
            f"the symmetry number is {found}, but {nearly} where atoms may miss their places by "
            f"{_NEARLY_SYMMETRIC} Å: relax the molecule further, or give the number "
            "(--symmetry-number)"
        )
    return found


def _likely_spin(atoms: Atoms) -> float:
    odd = _n_electrons(atoms) % 2
    lone = round(abs(float(atoms.get_initial_magnetic_moments().sum())))
    return lone / 2 if lone % 2 == odd else odd / 2


def _check_classical(atoms: Atoms, temperature: float) -> None:
    """Refuse temperatures at which steps between rotational levels are not small."""
    from ase.units import _amu, _hbar, _k

    moments = atoms.get_moments_of_inertia() * _amu * 1e-20  # kg m2
    moments = moments[moments > 1e-3 * moments.max()] if moments.max() > 0 else moments[:0]
    if not len(moments):
        return
    limit = float(_hbar**2 / (2 * moments.min() * _k))
    if temperature < limit:
        raise InputError(
            f"temperature {temperature!r} K: below {limit:.3g} K the rotations of this molecule "
            "are not those of a classical rotor; give a higher temperature"
        )


def _n_electrons(atoms: Atoms) -> int:
    charge = atoms.info.get("charge", atoms.get_initial_charges().sum())
    return int(atoms.numbers.sum()) - round(float(charge))
