"""CONTRIBUTING and the walks name files that exist, and the map shows every part of the server."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.architecture.tree import ROOT, python_files
from tests.docs.pages import blocks

PAGE = ROOT / "CONTRIBUTING.md"
TEXT = PAGE.read_text(encoding="utf-8")
# Written by a reader: the name stands for one that is new.
PLACEHOLDER = re.compile(r"<\w+>")


def mapped() -> set[Path]:
    """The paths of the map: an entry belongs to the nearest entry above with less indentation."""
    (block,) = [b for b in blocks(PAGE) if b.kind == "text"]
    found: set[Path] = set()
    parents: list[tuple[int, Path]] = [(-1, Path())]
    for line in block.text.splitlines():
        indent = len(line) - len(line.lstrip())
        while parents[-1][0] >= indent:
            parents.pop()
        names = [name for name in line.split() if name.endswith(("/", ".py"))]
        paths = [parents[-1][1] / name for name in names]
        found.update(paths)
        parents.append((indent, paths[0]))
    return found


def test_every_path_of_the_map_exists():
    assert sorted(str(path) for path in mapped() if not (ROOT / path).exists()) == []


def test_the_map_shows_every_part_of_the_server():
    parts = {Path(*p.relative_to(ROOT).parts[:2]) for p in python_files("cluster")}
    entered = {path for path in parts if path.name not in ("__init__.py", "__main__.py")}
    assert sorted(str(path) for path in entered - mapped()) == []


def test_every_file_that_is_named_exists():
    named = re.findall(r"`([\w.-]+(?:/[\w.<>-]+)+/?)`", TEXT)
    assert named
    assert [n for n in named if not PLACEHOLDER.search(n) and not (ROOT / n).exists()] == []


def test_every_test_that_ci_leaves_out_is_named():
    marked = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "tests").rglob("*.py")
        if re.search(r"pytest\.mark\.full\b", path.read_text(encoding="utf-8"))
    }
    # `make test-compose` and `make test-swarm` run the stories of the containers.
    left_out = {name for name in marked if not name.startswith("tests/compose/")}
    named = set(re.findall(r"`(tests/[\w/]+\.py)`", TEXT))
    assert left_out - named == set()


def test_every_recipe_has_five_steps_and_the_last_names_the_tests():
    recipes = re.findall(r"(?ms)^## Add an? (\w+(?: \w+)?)\n\n(1\. .*?)\n\n", TEXT)
    assert [name for name, _ in recipes] == [
        "alert", "drill", "command", "config option", "metric",
    ]  # fmt: skip
    for name, steps in recipes:
        lines = steps.splitlines()
        assert len(lines) == 5, name
        assert re.search(r"^5\. If you forget (?:it|one): `tests/", lines[-1]), name


@pytest.mark.parametrize("topic", ["message", "scrape", "sigterm"])
def test_a_walk_names_files_that_exist(topic: str):
    page = ROOT / "docs" / "topics" / f"life-of-a-{topic}.md"
    text = " ".join(block.text for block in blocks(page) if block.kind == "text")
    named = re.findall(r"\S+\.py\b", text)
    assert named
    assert [name for name in named if not (ROOT / "cluster" / name).is_file()] == []
