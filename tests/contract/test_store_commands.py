"""The commands that the code sends are those that the documented user may run, no fewer and no more."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import zip_longest

import pytest

from tests.architecture.tree import ROOT
from tests.contract.servers import Server
from tests.contract.test_store_reasons import PAGE, rules

CODE = ROOT / "cluster"
#: Tried once on keys of an earlier layout; the page names them apart.
LAYOUT_1 = {"scan", "renamenx"}


def documented() -> set[str]:
    return {rule[1:] for rule in rules() if rule.startswith("+")}


def in_scripts(known: set[str], name: str = "*") -> set[str]:
    """The commands of a script, or of all."""
    texts = [path.read_text("utf-8") for path in (CODE / "lua").glob(f"{name}.lua")]
    words = {word.lower() for text in texts for word in re.findall(r"'([A-Z]+)'", text)}
    return words & known


def in_python(known: set[str]) -> set[str]:
    """The commands, with their subcommands, that modules of the store write as arguments or in a tuple."""
    return {
        command
        for path in CODE.rglob("*.py")
        if "cluster.resp" in (text := path.read_text("utf-8"))
        for node in ast.walk(ast.parse(text))
        for command in _commands(node, known)
    }


def _commands(node: ast.AST, known: set[str]) -> Iterator[str]:
    if isinstance(node, ast.Tuple):
        words = node.elts
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
        called = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
        words = node.args if called == "call" else []
    else:
        return
    values = [word.value if isinstance(word, ast.Constant) else None for word in words]
    texts = [value if isinstance(value, str) else "" for value in values]
    for text, following in zip_longest(texts, texts[1:], fillvalue=""):
        if not text.isupper():
            continue
        if f"{text}|{following}".lower() in known:
            yield f"{text}|{following}".lower()
        elif text.lower() in known:
            yield text.lower()
        else:
            continue
        return


@pytest.fixture
def known(servers: dict[str, Server]) -> set[str]:
    """All commands of a server, and the subcommands of those of which only some are allowed."""
    server = servers["valkey"]
    containers = {name.partition("|")[0] for name in documented() if "|" in name}
    # Both words in one, so that the client leaves the answer as it is.
    about = server.ask("COMMAND INFO", *sorted(containers))
    subcommands = {str(one[0], "ascii") for command in about for one in command[9]}
    return {str(name, "ascii") for name in server.ask("COMMAND LIST")} | subcommands


def test_what_the_code_sends_is_what_the_page_allows(known: set[str]):
    sent = in_scripts(known) | in_python(known)
    assert sent - LAYOUT_1 == documented()
    assert all(f"`+{name}`" in PAGE.read_text("utf-8") for name in LAYOUT_1 & sent)


def test_every_command_of_a_script_is_tried_at_the_start(known: set[str]):
    assert in_scripts(known) == in_scripts(known, "check_access")
