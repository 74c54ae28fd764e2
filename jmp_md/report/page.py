"""A self-contained HTML page of figures, tables, notes and structures."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jmp_md._version import __version__
from jmp_md.files import atomic_write
from jmp_md.report.view import frames_shown, view_data
from jmp_md.simulate.verdict import Verdict

if TYPE_CHECKING:
    from ase import Atoms
    from matplotlib.figure import Figure

NAME = "report.html"
_LONG = 200  # letters of a list
_SHORT = 30  # letters of a cell that is not broken
_NUMBER = re.compile(r"[+-]?[\d.]+(e[+-]?\d+)?|[+-]?(nan|inf)")
_WORDS = {True: ("good", "good"), False: ("doubt", "in doubt"), None: ("unknown", "not known")}


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

    def add_figure(
        self,
        figure: Figure,
        caption: str,
        data: Mapping[str, np.ndarray] | None = None,
        frames: np.ndarray | None = None,
    ) -> None:
        """Add a matplotlib figure with what it shows in words.

        Args:
            figure: The figure.
            caption: The words.
            data: Columns of a table that can be saved from the page.
            frames: Where the frames of the last 3D view are on the horizontal axis: a line marks
                the one that is shown, and a click shows another.
        """
        image = BytesIO()
        figure.set_dpi(72)  # of SVG; ticks, and so the room they take, are settled by drawing
        figure.draw_without_rendering()
        figure.savefig(image, format="svg", transparent=True, metadata={"Date": None})
        text, places = escape(caption, quote=True), ""
        if frames is not None:
            view = len(self._views) - 1
            places = f' data-view="{view}" data-places="{_places(figure, frames)}"'
        self._parts.append(
            f'<figure><div class="plot"{places}><img alt="{text}" '
            f'src="{_url("image/svg+xml", image.getvalue())}"></div>'
            f"<figcaption>{text}{_table(caption, data)}</figcaption></figure>"
        )

    def add_structures(
        self,
        frames: Sequence[Atoms],
        caption: str,
        labels: Sequence[str] | None = None,
        modes: Mapping[str, np.ndarray] | None = None,
    ) -> list[int]:
        """Add a 3D view of a structure, or of several with a slider.

        Args:
            frames: Structures; of many, some are shown, the first and the last among them.
            caption: What they are.
            labels: What is said beside each.
            modes: Displacements (n_atoms, 3) by name, which the view animates.

        Returns:
            Which are shown.
        """
        shown = frames_shown(frames)
        said = None if labels is None else [labels[i] for i in shown]
        self._views.append(view_data([frames[i] for i in shown], said, modes))
        view = f'<div class="view" id="view{len(self._views) - 1}"></div>'
        some = f" ({len(shown)} of {len(frames)} are shown)" if len(shown) < len(frames) else ""
        self._parts.append(
            f"<figure>{view}<figcaption>{escape(caption + some)}; drag to turn, scroll to zoom, "
            "click two to four atoms for distance, angle or torsion</figcaption></figure>"
        )
        return shown

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

    def write_run(self, folder: Path, summary: Mapping[str, Any]) -> Path:
        """End the page of a run with its settings, and write it as ``report.html``.

        Args:
            folder: Of the run.
            summary: What ``summary.json`` says.

        Returns:
            The file.
        """
        self.add_settings(summary)
        self.write(folder / NAME)
        return folder / NAME


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
        elif isinstance(value, list) and len(str(value)) > _LONG:
            yield f"{before}{name}", f"{len(value)} values, see summary.json"
        elif value is not None:
            yield f"{before}{name}", value


def _scrolling(table: str) -> str:
    """A table that scrolls by itself where it is wider than the page; the keyboard reaches it."""
    return f'<div class="scroll" tabindex="0"><table>{table}</table></div>'


def _cell(value: Any) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    kind = "number" if _NUMBER.fullmatch(text) else "long" if len(text) > _SHORT else "short"
    return f'<td class="{kind}">{escape(text)}</td>'


def _url(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _table(caption: str, data: Mapping[str, np.ndarray] | None) -> str:
    """A link that saves columns as CSV; empty where there are none."""
    if data is None:
        return ""
    rows = [
        ",".join(data),
        *(",".join(f"{v:.10g}" for v in row) for row in zip(*data.values(), strict=True)),
    ]
    name = "-".join(re.findall(r"[a-z0-9]+", caption.lower())[:3])
    url = _url("text/csv", "\n".join(rows).encode())
    return f' <a download="{name}.csv" href="{url}">data</a>'


def _places(figure: Figure, values: np.ndarray) -> list[float]:
    """Where values on the horizontal axis are, as shares of the width of the figure."""
    axes = figure.axes[0]
    x = axes.transData.transform(np.stack([values, np.zeros_like(values)], axis=1))[:, 0]
    width = figure.bbox.width
    return [round(float(place), 4) for place in x / width]
