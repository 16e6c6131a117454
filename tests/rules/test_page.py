"""docs/alerts.md says what the rules are."""

from __future__ import annotations

from tests.rules.page import PAGE, page


def test_the_page_is_the_one_that_the_rules_make():
    assert PAGE.read_text(encoding="utf-8") == page(), "run `python -m tests.rules.page`"
