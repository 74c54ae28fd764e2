"""Readers for published data sets. Everything they give is in Å, eV and eV/Å."""
