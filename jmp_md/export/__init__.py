"""Export of models to files that run without this package."""

from jmp_md.export.write import export

__all__ = ["export"]
