"""What is raised is made for the occasion: a shared exception keeps the frames of every raise."""

from __future__ import annotations

import ast

from tests.architecture.tree import ROOT, python_files


def test_no_entry_of_the_catalogue_is_raised_itself():
    raised = [
        f"{path.relative_to(ROOT)}:{node.lineno} raise {node.exc.id}"
        for path in python_files("cluster")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Name) and node.exc.id.isupper()
    ]
    assert raised == [], "raise a copy: NAME.fresh()"
