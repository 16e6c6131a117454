"""The table of SDKs in docs/how-to/move-from-centrifugo.md says what the tests do."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.architecture.tree import ROOT
from tests.conformance.sdk_browser import BROWSER_SDKS
from tests.conformance.sdk_clients import SDKS

PAGE = ROOT / "docs" / "how-to" / "move-from-centrifugo.md"
CONFORMANCE = ROOT / "tests" / "conformance"
NAMES = {"JavaScript": "js", "Python": "python", "Go": "go", "Java": "java"}


def section() -> str:
    return PAGE.read_text().split("## Which SDKs are tested")[1].split("\n## ")[0]


def rows() -> dict[str, tuple[str, str]]:
    """The version and the rest of each row, by the SDK's language."""
    cells = [line.strip("| ").split(" | ") for line in section().splitlines() if line[:1] == "|"]
    return {sdk: (version, how) for sdk, version, how in cells[2:]}


def found(pattern: str, path: Path) -> str:
    match = re.search(pattern, path.read_text())
    assert match is not None, path
    return match[1]


def pinned(language: str) -> str:
    if language == "JavaScript":
        package = json.loads((CONFORMANCE / "package.json").read_text())
        return str(package["dependencies"]["centrifuge"])
    return {
        "Python": lambda: found(
            r"(?m)^centrifuge-python==(\S+)", ROOT / "requirements" / "test.txt"
        ),
        "Go": lambda: found(r"centrifuge-go v(\S+)", CONFORMANCE / "go" / "go.mod"),
        "Java": lambda: found(
            r"centrifuge-java</artifactId>\s*<version>(.+?)<", CONFORMANCE / "java" / "pom.xml"
        ),
    }[language]()


def test_the_sdks_with_a_version_are_those_that_the_tests_drive():
    with_version = {sdk for sdk, (version, _) in rows().items() if version != "–"}
    assert with_version == set(NAMES)
    assert {NAMES[sdk] for sdk in with_version} == {name.split("-")[0] for name in SDKS}


@pytest.mark.parametrize("language", NAMES)
def test_the_version_is_the_pinned_one_and_the_codecs_are_those_of_the_tests(language: str):
    version, how = rows()[language]
    assert version == pinned(language)
    names = [name for name in SDKS if name.split("-")[0] == NAMES[language]]
    assert ("JSON" in how) == any("protobuf" not in name for name in names)
    assert ("Protobuf" in how) == any("protobuf" in name for name in names)


def test_a_browser_is_named_where_one_is_driven():
    assert ("Chromium" in rows()["JavaScript"][1]) == bool(BROWSER_SDKS)


def test_every_test_that_is_named_exists():
    named = re.findall(r"`(tests/[^`]+)`", section())
    assert named
    assert [path for path in named if not list(ROOT.glob(path))] == []
