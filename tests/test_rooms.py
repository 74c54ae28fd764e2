"""Imports between modules and between rooms (packages, and modules beside them) run one way."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import jmp_md

PACKAGE = Path(jmp_md.__file__).parent
Graph = dict[str, set[str]]


def sources() -> dict[str, str]:
    """Text of every module, by name; training/ and calculators/ are behind symbolic links."""
    folders = [PACKAGE, PACKAGE / "training", PACKAGE / "calculators"]
    paths = {path for folder in folders for path in folder.resolve().rglob("*.py")}
    names = {}
    for path in paths:
        top = PACKAGE if path.is_relative_to(PACKAGE.resolve()) else PACKAGE.resolve().parent
        parts = ("jmp_md", *path.relative_to(top.resolve()).with_suffix("").parts)
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        names[name] = path.read_text(encoding="utf-8")
    return names


def imports(texts: Mapping[str, str], types: bool) -> Graph:
    """The modules that each imports anywhere in its text, also for types alone where asked for."""
    graph: Graph = {}
    for name, text in texts.items():
        found = set()
        for node in walk(ast.parse(text), types):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                whole = {f"{node.module}.{alias.name}" for alias in node.names}
                found |= {each if each in texts else node.module for each in whole}
        graph[name] = (found & texts.keys()) - {name}
    return graph


def walk(node: ast.AST, types: bool) -> Iterator[ast.AST]:
    """All below a node, without what stands under ``if TYPE_CHECKING`` unless asked for."""
    yield node
    for child in ast.iter_child_nodes(node):
        guarded = isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"
        if types or not guarded:
            yield from walk(child, types)


def rooms(graph: Graph) -> Graph:
    """The same between packages; a module beside them is a room of its own."""
    found: Graph = {}
    for name, others in graph.items():
        if name != "jmp_md":  # names that are looked up when they are used
            found.setdefault(room(name), set()).update(map(room, others - {"jmp_md"}))
    return {name: others - {name} for name, others in found.items()}


def room(name: str) -> str:
    """The room of a module."""
    return ".".join(name.split(".")[:2])


def in_circles(graph: Graph) -> set[str]:
    """Those from which a way leads back to them."""
    return {name for name in graph if name in reached(graph, graph[name])}


def reached(graph: Graph, start: Iterable[str]) -> set[str]:
    """All that can be reached."""
    found: set[str] = set()
    waiting = list(start)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += graph.get(name, ())
    return found


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = imports(sources(), types=False)
    assert len(graph) > 200
    assert graph["jmp_md.training.trainer"] >= {"jmp_md.signals", "jmp_md.training.update"}
    assert not in_circles(graph)


def test_no_rooms_import_each_other_in_a_circle() -> None:
    assert not in_circles(rooms(imports(sources(), types=True)))


def test_calculations_know_neither_reports_nor_commands() -> None:
    graph = rooms(imports(sources(), types=True))
    outer = {"jmp_md.report", "jmp_md.runs", "jmp_md.cli", "jmp_md.benchmarking"}
    assert not reached(graph, ["jmp_md.simulate"]) & outer
    assert not reached(graph, ["jmp_md.report"]) & (outer - {"jmp_md.report"})


def test_a_circle_is_found_wherever_the_import_stands() -> None:
    texts = {
        "jmp_md.a": "def f():\n    from jmp_md import b\n",
        "jmp_md.b": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import jmp_md.c\n",
        "jmp_md.c": "from jmp_md.a import f\n",
        "jmp_md.d": "from jmp_md.a import f\n",
    }
    assert in_circles(imports(texts, types=True)) == {"jmp_md.a", "jmp_md.b", "jmp_md.c"}
    assert not in_circles(imports(texts, types=False))
