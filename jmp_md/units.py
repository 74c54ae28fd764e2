"""Conversions between the units of this package (Å, eV) and those of OpenMM (nm, kJ/mol)."""

# N_A e / 1000, exact by definition of the SI (2019).
EV_IN_KJ_PER_MOL = 96.48533212331001
NM_IN_ANGSTROM = 10.0
EV_PER_ANGSTROM_IN_KJ_PER_MOL_PER_NM = EV_IN_KJ_PER_MOL * NM_IN_ANGSTROM
