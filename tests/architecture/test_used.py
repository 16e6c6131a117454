"""What is declared is used: a metric that is never written, an option that is never read, fails here."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any

from cluster import config
from cluster.metrics.catalogue import FAMILIES
from tests.architecture.tree import ROOT, python_files

CATALOGUE = ROOT / "cluster" / "metrics" / "catalogue.py"
MODEL = ROOT / "cluster" / "config" / "model.py"

# The supervisor copies these from the store in one loop over the prefix.
COPIED = "app_sessions_"
# Options that can be set before the part that reads them exists, each with that part.
NOT_YET_READ: dict[str, str] = {}


@cache
def nodes() -> tuple[ast.AST, ...]:
    """Every node of the code in cluster/, without the two declarations."""
    declarations = (CATALOGUE, MODEL)
    trees = [
        ast.parse(path.read_text(encoding="utf-8"))
        for path in python_files("cluster")
        if path not in declarations
    ]
    return tuple(node for tree in trees for node in ast.walk(tree))


def options(section: Any) -> Iterator[str]:
    """The names of all fields below a section of the configuration."""
    for field in fields(section):
        yield field.name
        value = getattr(section, field.name)
        if is_dataclass(value):
            yield from options(value)


def test_every_metric_of_the_catalogue_is_written():
    named = {n.value for n in nodes() if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    names = [family.name for family in FAMILIES if not family.name.startswith(COPIED)]
    assert [name for name in names if name not in named] == []


def test_every_option_of_the_configuration_is_read():
    read = {node.attr for node in nodes() if isinstance(node, ast.Attribute)}
    assert set(options(config.Config())) - read == set(NOT_YET_READ)
