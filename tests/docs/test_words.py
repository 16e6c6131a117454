"""The pages use the field's words: the private ones of tests/architecture/test_names.py are gone."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.architecture.test_names import PRIVATE, Found, private
from tests.architecture.tree import ROOT
from tests.docs.pages import pages

# The CHANGELOG lists old names beside the new ones.
PAGES = [page for page in pages() if page != ROOT / "CHANGELOG.md"]
WORDS = PRIVATE | {r"whoever": "if a client, a process that"}

# Where a word has its usual meaning in a page.
USUAL = {
    r"\bwheels?\b": "a Python package in the form of a wheel",
    r"systemd's journal": "the log of the machine",
    r"`stages`": "the name of a shape on Locust's command line",
    r"--stages\b": "an option, which keeps its name",
    r"(?m)^mend = .*$|`mend`": "a key of a target file, which keeps its name",
}


def wrong(page: Path) -> list[str]:
    found = []
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        text = line
        for usual in USUAL:
            text = re.sub(usual, " ", text)
        found += private(Found(f"{page.relative_to(ROOT)}:{number}", "line", text), WORDS)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_has_no_private_word(page: Path):
    assert wrong(page) == []
