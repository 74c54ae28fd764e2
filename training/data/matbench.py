"""MatBench v0.1 (10.1038/s41524-020-00406-3): `matbench_*.json.gz` with crystal structures.

The file is a table: an index, two columns (the structure and the target) and the rows.
"""

from __future__ import annotations

from pathlib import Path

from jmp_md.errors import InputError
from jmp_md.training.data.crystals import parse_structure, stream_object
from jmp_md.training.data.frame import Frame, FrameList, make_frame


def open_matbench(path: str | Path) -> FrameList:
    """Open a MatBench task whose input is a structure.

    Args:
        path: The file, such as `matbench_mp_gap.json.gz`. The target keeps its name and unit in
            `Frame.targets`; true and false (`is_metal`) become 1 and 0. `Frame.system` is the
            number of the row.

    Raises:
        InputError: The file is broken, or its input is not a structure.
    """
    path = Path(path)
    columns: list[str] = []
    frames: list[Frame] = []
    for name, value in stream_object(path, "data"):
        if name == "columns":
            columns = value
        elif name == "data":
            frames.append(_frame(path, len(frames), columns, value))
    if not frames:
        raise InputError(f"{path}: not a MatBench file; it has no rows under 'data'")
    return FrameList(frames)


def _frame(path: Path, row: int, columns: list[str], values: list) -> Frame:
    where = f"{path}, record {row}"
    if "structure" not in columns or len(columns) != 2 or len(values) != 2:
        raise InputError(
            f"{where}: has columns {columns}, where JMP needs 'structure' and a target; choose "
            "a task whose input is a structure"
        )
    cells = dict(zip(columns, values, strict=True))
    numbers, positions, cell = parse_structure(cells.pop("structure"), where)
    ((target, value),) = cells.items()
    if not isinstance(value, int | float):
        raise InputError(f"{where}, field {target}: {value!r} is not a number")
    return make_frame(
        path,
        row,
        numbers=numbers,
        positions=positions,
        cell=cell,
        pbc=(True, True, True),
        system=str(row),
        targets={target: float(value)},
    )
