"""Tables of the pages from what `jmp-md benchmark --keep` has found of the shipped models.

    python docs/site/shipped.py

writes them anew between their marks; a test fails where they are of other weights.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[1]
MODELS = DOCS.parent / "jmp_md" / "models"
MODEL = "jmp-xs-organic"
SHORT = (
    "worst bond of molecules", "harmonic frequencies", "barriers of methyl rotors",
    "reaction energies", "rigid torsions", "interactions of S22",
)  # fmt: skip
PAGES = {"benchmark.md": None, "models.md": SHORT}
BEGIN, END = "<!-- made by docs/site/shipped.py -->", "<!-- to here -->"


def table(rows: tuple[str, ...] | None) -> str:
    """Mean absolute errors of all heads, or of some parts, with the worst case of the first."""
    heads = json.loads((MODELS / f"{MODEL}.benchmark.json").read_text(encoding="utf-8"))
    (first, parts), *others = (
        (name, {part["name"]: part for part in found["parts"]}) for name, found in heads.items()
    )
    names = [first, *(name for name, _ in others)]
    titles = [f"head `{name}`{' (default)' if name == first else ''}" for name in names]
    lines = [
        f"| mean error | cases | {' | '.join(titles)} | worst, `{first}` |",
        "|---" * (len(names) + 3) + "|",
    ]
    for name, part in parts.items():
        if rows is not None and name not in rows:
            continue
        found = [part, *(each[name] for _, each in others if name in each)]
        unit = f", {part['unit']}" if part["unit"] else ""
        cases = ", ".join(str(len(each["cases"])) for each in found)
        errors = " | ".join(f"{number(mean_error(each))}" for each in found)
        lines.append(f"| {name}{unit} | {cases} | {errors} | {worst(part)} |")
    return "\n".join(lines)


def mean_error(part: dict[str, Any]) -> float:
    """Mean absolute error of the cases of a part."""
    cases = part["cases"]
    return sum(abs(case["value"] - case["reference"]) for case in cases) / len(cases)


def worst(part: dict[str, Any]) -> str:
    """The case with the largest error; its reference in parentheses."""
    case = max(part["cases"], key=lambda each: abs(each["value"] - each["reference"]))
    error = case["value"] - case["reference"]
    if abs(error) < 1e-6:
        return ""
    sign = "+" if error > 0 else ""
    return f"{case['name']}: {sign}{number(error)} ({number(case['reference'], 3)})"


def number(value: float, digits: int = 2) -> str:
    """Some digits of a number, and all before the point."""
    return f"{value:.0f}" if abs(value) >= 10 ** (digits - 1) else f"{value:.{digits}g}"


def with_table(text: str, rows: tuple[str, ...] | None) -> str:
    """A page with the table of now between its marks."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{table(rows)}\n\n{END}{after}"


def main() -> None:
    for name, rows in PAGES.items():
        page = DOCS / name
        page.write_text(with_table(page.read_text(encoding="utf-8"), rows), encoding="utf-8")


if __name__ == "__main__":
    main()
