"""Reports: one HTML file with figures, tables and a 3D view, that needs no network."""

from jmp_md.report.page import Report

__all__ = ["Report"]
