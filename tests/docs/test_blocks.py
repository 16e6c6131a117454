"""The parser of the pages finds every block: otherwise an example would not be tested."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.pages import anchors, blocks
from tests.docs.test_examples import assert_shown

PAGE = """# One `page`

```console
$ echo one
one
```

<!-- not run: it needs the moon -->
```go
package main
```
"""


@pytest.fixture
def page(tmp_path: Path) -> Path:
    path = tmp_path / "page.md"
    path.write_text(PAGE)
    return path


def test_blocks_are_found_with_their_kind_and_exclusion(page: Path):
    first, second = blocks(page)
    assert (first.kind, first.text, first.exclusion) == ("console", "$ echo one\none\n", "")
    assert (second.kind, second.exclusion) == ("go", "it needs the moon")
    assert first.is_run
    assert not second.is_run


def test_headings_become_anchors(page: Path):
    assert anchors(page) == {"one-page"}


def test_output_is_compared_in_order_and_with_gaps():
    assert_shown(["a … c", "d"], "x\na b c\nd\n")
    with pytest.raises(AssertionError, match="not in the output: a"):
        assert_shown(["d", "a"], "a\nd\n")
