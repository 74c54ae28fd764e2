"""Trajectories that a killed run continues: text, ASE's format and H5MD."""
