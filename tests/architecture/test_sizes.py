"""Files and functions stay small enough to be read, and modules are named for what they are."""

from __future__ import annotations

import ast
import statistics
from pathlib import Path

from tests.architecture.tree import ROOT, python_files

FILE_LINES = 450
FUNCTION_LINES = 60
MEDIAN_FUNCTION_LINES = 9
# Names that say nothing collect everything.
NAMELESS = {"base", "common", "helper", "helpers", "manager", "misc", "tools", "util", "utils"}


def functions(path: Path) -> list[tuple[str, int]]:
    """Name and length of each function, its signature and docstring not counted."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body
            if len(body) > 1 and ast.get_docstring(node) is not None:
                body = body[1:]
            found.append((node.name, (node.end_lineno or 0) - body[0].lineno + 1))
    return found


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_no_file_is_too_long():
    lengths = {shown(p): len(p.read_text(encoding="utf-8").splitlines()) for p in python_files()}
    assert {name: n for name, n in lengths.items() if n > FILE_LINES} == {}


def test_no_function_is_too_long():
    long = {
        f"{shown(path)} {name}": lines
        for path in python_files()
        for name, lines in functions(path)
        if lines > FUNCTION_LINES
    }
    assert long == {}


def test_the_usual_function_of_the_cluster_is_short():
    lengths = [lines for path in python_files("cluster") for _, lines in functions(path)]
    assert statistics.median(lengths) <= MEDIAN_FUNCTION_LINES


def test_no_module_is_named_for_nothing():
    parts = {shown(p): {p.stem, *p.relative_to(ROOT).parts[:-1]} for p in python_files()}
    assert {name: words & NAMELESS for name, words in parts.items() if words & NAMELESS} == {}


def test_every_module_has_a_caption():
    def caption(path: Path) -> bool:
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        first, _, rest = text.partition("\n")
        return bool(first) and (not rest or rest.startswith("\n"))

    bare = [shown(p) for p in python_files() if p.stat().st_size and not caption(p)]
    assert bare == []
