"""Pages keep the rules of `pages.py`: blocks of known kinds, links that lead somewhere."""

from __future__ import annotations

import re

from tests.architecture.tree import ROOT
from tests.docs.pages import RUNNABLE, SILENT, all_blocks, anchors, links, pages


def test_every_block_is_run_or_says_why_not():
    free = [
        f"{block} {block.kind or 'no kind'}"
        for block in all_blocks()
        if not block.exclusion and block.kind not in (*RUNNABLE, *SILENT)
    ]
    assert free == []


def test_a_test_that_is_named_as_a_reason_exists():
    named = {
        (str(block), name)
        for block in all_blocks()
        for name in re.findall(r"(?:tests|scripts)/[\w/.-]+\.\w+", block.exclusion)
    }
    assert [pair for pair in named if not (ROOT / pair[1]).is_file()] == []


def test_every_command_of_a_console_block_begins_with_a_dollar():
    bare = [
        str(b) for b in all_blocks() if b.kind == "console" and not re.search(r"(?m)^\$ ", b.text)
    ]
    assert bare == []


def test_every_make_target_that_is_named_exists():
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"(?m)^([a-z][a-z-]*):", makefile))
    named = {
        (page.name, target)
        for page in pages()
        for target in re.findall(r"(?:`|\$ )make ([a-z][a-z-]*)", page.read_text())
    }
    assert named
    assert {pair for pair in named if pair[1] not in targets} == set()


def test_every_link_leads_to_a_file_or_a_heading():
    lost = []
    for page in pages():
        for target in links(page):
            name, _, anchor = target.partition("#")
            goal = (page.parent / name).resolve() if name else page
            if not goal.exists() or (
                anchor and goal.suffix == ".md" and anchor not in anchors(goal)
            ):
                lost.append(f"{page.relative_to(ROOT)}: {target}")
    assert lost == []


def test_every_page_can_be_reached_from_the_readme():
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page not in reached and page.suffix == ".md":
            reached.add(page)
            names = (target.partition("#")[0] for target in links(page))
            waiting += [(page.parent / name).resolve() for name in names if name]
    assert [str(p.relative_to(ROOT)) for p in pages() if p not in reached] == []
