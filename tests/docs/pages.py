"""The documentation as data: pages, fenced blocks, links.

How `test_examples.py` tests a block:

- ```console: the lines that begin with `$ ` are run by bash in the top folder beside a running
  cluster; the other lines must be found in the output, in this order; `…` matches any text.
- ```python and ```js: run as programs beside a running cluster.
- ```toml and ```json: a configuration that `ws-cluster check-config` accepts.
- ```nginx: the inside of an `http` block that `nginx -t` accepts.
- ```text, ```mermaid: nothing to run.
- Any other block, and a block that cannot be run, has `<!-- not run: why -->` on the line before it.

The ports 8000, 8001 and 8101… are replaced by those of the cluster under test.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.architecture.tree import ROOT, files

RUNNABLE = ("console", "python", "js", "toml", "json", "nginx")
SILENT = ("text", "mermaid")

_FENCE = re.compile(r"^(`{3,})(\S*)\s*$")
_EXCLUSION = re.compile(r"^<!-- not run: (.+) -->$")
_LINK = re.compile(r"(?<!!)!?\[[^\]]*\]\(([^)\s]+)\)|<img src=\"([^\"]+)\"")
_HEADING = re.compile(r"^#{1,6} (.+)$")


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block."""

    page: Path
    line: int
    kind: str
    text: str
    exclusion: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def is_run(self) -> bool:
        """Whether a test runs it."""
        return self.kind in RUNNABLE and not self.exclusion


def pages() -> list[Path]:
    """Every Markdown page of the top folder and of docs/."""
    found = [path for path in files() if path.suffix == ".md"]
    return [p for p in found if p.parent == ROOT or p.relative_to(ROOT).parts[0] == "docs"]


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page, from top to bottom."""
    opened: tuple[str, str, int, str] | None = None
    inside: list[str] = []
    before = ""
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        match = _FENCE.match(line)
        if opened is None and match:
            exclusion = _EXCLUSION.match(before)
            opened = (match[1], match[2], number, exclusion[1] if exclusion else "")
        elif opened and line.strip() == opened[0]:
            yield Block(page, opened[2], opened[1], "\n".join(inside) + "\n", opened[3])
            opened, inside = None, []
        elif opened:
            inside.append(line)
        before = line.strip() or before
    assert opened is None, f"{page}:{opened[2]} is never closed"


def all_blocks() -> list[Block]:
    """The fenced blocks of every page."""
    return [block for page in pages() for block in blocks(page)]


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return re.sub(r"(?ms)^(`{3,}).*?^\1\s*$", "", page.read_text(encoding="utf-8"))


def links(page: Path) -> list[str]:
    """The targets of a page's links and pictures that stay inside the repository."""
    found = (link or image for link, image in _LINK.findall(prose(page)))
    return [target for target in found if not re.match(r"[a-z]+:", target)]


def anchors(page: Path) -> set[str]:
    """The names of a page's headings, as a renderer makes them."""
    found = set()
    for line in prose(page).splitlines():
        if match := _HEADING.match(line):
            plain = re.sub(r"[^\w\- ]", "", match[1].lower().replace("`", ""))
            found.add(plain.strip().replace(" ", "-"))
    return found
