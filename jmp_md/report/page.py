"""A self-contained HTML page of figures, tables, notes and structures."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from importlib.resources import files
from io import BytesIO, StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jmp_md._version import __version__
from jmp_md.files import atomic_write
from jmp_md.simulate.verdict import Verdict

if TYPE_CHECKING:
    from ase import Atoms
    from matplotlib.figure import Figure

NAME = "report.html"
_WORDS = {True: ("good", "good"), False: ("doubt", "in doubt"), None: ("unknown", "not known")}
_MOST_FRAMES, _MOST_ATOMS = 200, 200_000  # of a 3D view: what a browser turns without effort


class Report:
    """A page that grows section by section.

    Figures become SVG images and the 3D viewer (3Dmol.js) is written into the page, so that the
    file can be mailed, kept and opened without network.

    Args:
        title: Heading of the page.
        subtitle: A line below it.
    """

    def __init__(self, title: str, subtitle: str = "") -> None:
        self.title, self.subtitle = title, subtitle
        self._parts: list[str] = []
        self._views: list[dict[str, Any]] = []

    def add_heading(self, text: str) -> None:
        """Start a section."""
        self._parts.append(f"<h2>{escape(text)}</h2>")

    def add_text(self, text: str) -> None:
        """Add a paragraph."""
        self._parts.append(f"<p>{escape(text)}</p>")

    def add_notes(self, notes: Sequence[str]) -> None:
        """Add what the reader should know; nothing where there is nothing."""
        items = "".join(f"<li>{escape(text)}</li>" for text in notes)
        if items:
            self._parts.append(f'<ul class="notes">{items}</ul>')

    def add_verdicts(self, verdicts: Iterable[Verdict]) -> None:
        """Add judgements, each with its number, its threshold and why that threshold."""
        self._parts.append(f'<ul class="verdicts">{"".join(map(_verdict, verdicts))}</ul>')

    def add_settings(self, summary: Mapping[str, Any]) -> None:
        """Add, folded, what ``summary.json`` says: command, versions, model, settings, results."""
        known = dict(_flat({name: value for name, value in summary.items() if name != "domain"}))
        self.add_values(known, "Command, settings, results, model and versions")

    def add_table(self, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """Add a table; numbers are written to six digits."""
        head = "".join(f"<th>{escape(name)}</th>" for name in columns)
        body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
        self._parts.append(_scrolling(f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody>"))

    def add_values(self, values: Mapping[str, Any], folded: str | None = None) -> None:
        """Add a table of names and values.

        Args:
            values: By name.
            folded: Words that open the table when clicked; None shows it at once.
        """
        rows = "".join(f"<tr><th>{escape(name)}</th>{_cell(v)}</tr>" for name, v in values.items())
        table = _scrolling(f"<tbody>{rows}</tbody>")
        if folded is not None:
            table = f"<details><summary>{escape(folded)}</summary>{table}</details>"
        self._parts.append(table)

    def add_headlines(self, values: Mapping[str, str]) -> None:
        """Add what a reader wants first: numbers with their units, large."""
        items = "".join(
            f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>"
            for name, value in values.items()
        )
        self._parts.append(f'<dl class="headlines">{items}</dl>')

    def add_figure(self, figure: Figure, caption: str) -> None:
        """Add a matplotlib figure with what it shows in words."""
        data = BytesIO()
        figure.draw_without_rendering()  # ticks, and so the room they take, are settled then
        figure.savefig(data, format="svg", transparent=True, metadata={"Date": None})
        image = base64.b64encode(data.getvalue()).decode("ascii")
        text = escape(caption, quote=True)
        self._parts.append(
            f'<figure><img alt="{text}" src="data:image/svg+xml;base64,{image}">'
            f"<figcaption>{text}</figcaption></figure>"
        )

    def add_structures(self, frames: Sequence[Atoms], caption: str) -> None:
        """Add a 3D view of a structure, or of a trajectory with a slider.

        Long trajectories are thinned out evenly; the last frame stays.
        """
        chosen = _thinned(frames)
        cell = chosen[0].cell.array.tolist() if chosen[0].pbc.any() else None
        self._views.append({"xyz": _xyz(chosen), "cell": cell, "frames": len(chosen)})
        view = f'<div class="view" id="view{len(self._views) - 1}"></div>'
        shown = f" ({len(chosen)} of {len(frames)} frames)" if len(chosen) < len(frames) else ""
        self._parts.append(
            f"<figure>{view}<figcaption>{escape(caption + shown)}</figcaption></figure>"
        )

    def html(self) -> str:
        """The page."""
        assets = files("jmp_md.report") / "assets"
        scripts = ""
        if self._views:
            data = json.dumps(self._views).replace("<", "\\u003c")
            library = (assets / "3Dmol-min.js").read_text(encoding="utf-8")
            viewer = (assets / "viewer.js").read_text(encoding="utf-8")
            scripts = f"<script>{library}</script><script>const VIEWS = {data};\n{viewer}</script>"
        style = (assets / "style.css").read_text(encoding="utf-8")
        return (
            '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{escape(self.title)}</title><style>{style}</style></head><body><main>"
            f"<h1>{escape(self.title)}</h1><p>{escape(self.subtitle)}</p>{''.join(self._parts)}"
            f"<footer>written by jmp-md {__version__}</footer></main>{scripts}</body></html>\n"
        )

    def write(self, path: Path) -> None:
        """Write the page atomically."""
        with atomic_write(path) as temporary:
            temporary.write_text(self.html(), encoding="utf-8")


def _verdict(verdict: Verdict) -> str:
    kind, word = _WORDS[verdict.holds]
    doubt = f"<p>{escape(verdict.doubt)}</p>" if verdict.holds is False else ""
    return (
        f'<li class="{kind}"><b>{word}</b><div><strong>{escape(verdict.subject)}</strong> '
        f'<span class="measured">{_whole(verdict.measured)}</span> '
        f"<span>(asked: {_whole(verdict.asked)})</span>{doubt}"
        f"<small>{escape(verdict.reason)}</small></div></li>"
    )


def _whole(text: str) -> str:
    """Text whose units are not parted at the end of a line."""
    return escape(text).replace("/", "/&#8288;")


def _flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Names and values, those of parts by names with points; what is None says nothing."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}.")
        elif value is not None:
            yield f"{before}{name}", value


def _scrolling(table: str) -> str:
    """A table that scrolls by itself where it is wider than the page; the keyboard reaches it."""
    return f'<div class="scroll" tabindex="0"><table>{table}</table></div>'


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f'<td class="number">{value:.6g}</td>'
    kind = ' class="number"' if isinstance(value, int) and not isinstance(value, bool) else ""
    return f"<td{kind}>{escape(str(value))}</td>"


def _thinned(frames: Sequence[Atoms]) -> Sequence[Atoms]:
    most = max(1, min(_MOST_FRAMES, _MOST_ATOMS // max(len(frames[0]), 1)))
    return [frames[i] for i in evenly(len(frames), most)]


def evenly(count: int, most: int) -> list[int]:
    """At most ``most`` of ``count`` places, evenly spread from the first to the last."""
    if count <= most:
        return list(range(count))
    return [round(i * (count - 1) / max(most - 1, 1)) for i in range(most)]


def _xyz(frames: Sequence[Atoms]) -> str:
    from ase.io import write

    text = StringIO()
    for frame in frames:
        plain = frame.copy()
        plain.calc = None
        write(text, plain, format="xyz", comment="frame")
    return text.getvalue()
