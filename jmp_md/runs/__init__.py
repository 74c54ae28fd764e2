"""Runs in a folder: lock, restart, summary and report around what `jmp_md.simulate` computes."""
