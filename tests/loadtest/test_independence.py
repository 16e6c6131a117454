"""The load test's client shares no code with the server: it would mirror its faults."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from gevent.monkey import is_module_patched

from loadtest.load_context import websocket_url
from tests.architecture.tree import ROOT

INDEPENDENT = [
    *sorted((ROOT / "loadtest").glob("*.py")),
    *sorted((ROOT / "loadtest" / "users").glob("*.py")),
]
# An application of the cluster, which its workers load: no part of the load or of a drill.
APPLICATION = ROOT / "loadtest" / "drilling" / "faults" / "failing_application.py"
# What starts a cluster of its own, or is a form, knows the operator's side.
DEPENDENT = {"__main__.py", "capacity.py", "drill.py"}


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return names


@pytest.mark.parametrize("path", INDEPENDENT, ids=lambda path: path.name)
def test_nothing_of_the_server_is_imported(path: Path):
    if path.name not in DEPENDENT:
        assert [name for name in imported(path) if name.split(".")[0] == "cluster"] == []


def test_the_drills_import_only_the_operators_clients_errors_process_and_text_modules():
    allowed = (
        "cluster.alerting",
        "cluster.monitor",
        "cluster.errors",
        "cluster.children.binaries",
        "cluster.children.subprocesses",
        # What is shown in a terminal is escaped in one place for all programs.
        "cluster.terminal_text",
    )
    wrong = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in (ROOT / "loadtest").rglob("*.py")
        if path != APPLICATION
        for name in imported(path)
        if name.split(".")[0] == "cluster" and not name.startswith(allowed)
    }
    assert wrong == set()
    of_the_project = {
        name for name in imported(APPLICATION) if name.startswith(("cluster", "loadtest"))
    }
    assert of_the_project == {"cluster"}, "an application has the package's public names only"


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("ws://127.0.0.1:8000/connection/websocket", "ws://127.0.0.1:8000/connection/websocket"),
        ("http://localhost:8000", "ws://localhost:8000/connection/websocket"),
        ("https://chat.example", "wss://chat.example/connection/websocket"),
        ("chat.example:80", "ws://chat.example:80/connection/websocket"),
        ("ws://h/other", "ws://h/other"),
    ],
)
def test_a_host_becomes_the_websocket_address(host: str, url: str):
    assert websocket_url(host) == url


def test_the_tests_own_sockets_and_threads_are_the_system_s():
    """Or a test that waits for a thread may wait for ever."""
    patched = [name for name in ("socket", "thread", "select", "os") if is_module_patched(name)]
    assert patched == []
