"""What is missing is skipped by a developer and fails in CI; no test skips itself in another way."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from tests.architecture.tree import ROOT
from tests.cluster.test_half_open import namespace
from tests.harness.needs import is_missing, is_not_permitted, needs, needs_root
from tests.harness.small_disk import small_disk

SKIPPED, FAILED = pytest.skip.Exception, pytest.fail.Exception
#: They skip themselves for what no package brings: another C library, an engine, Go and Java with a
#: network, a log server.
OTHERS = {
    "harness/needs.py", "harness/test_needs.py", "unit/test_heap.py", "compose/conftest.py",
    "compose/test_swarm.py", "conformance/test_go_program.py", "conformance/test_go_library.py",
    "conformance/test_java_program.py", "conformance/sdk_clients.py", "integration/test_log_path.py",
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value", "end"),
    [("CI", "true", is_missing), ("ROOT_TESTS", "required", is_not_permitted)],
)
def test_what_is_missing_is_skipped_and_fails_where_it_must_be_there(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, end: Callable[[str], NoReturn]
):
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.delenv("ROOT_TESTS", raising=False)
    with pytest.raises(SKIPPED):
        end("it is not there")
    monkeypatch.setenv(name, value)
    with pytest.raises(FAILED, match="it is not there"):
        end("it is not there")


def test_a_mark_skips_only_where_a_test_may_be_skipped(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    for is_required in (False, True):
        monkeypatch.setenv("CI", "true" if is_required else "")
        monkeypatch.setenv("ROOT_TESTS", "required" if is_required else "")
        for mark in (needs("", "a program"), needs_root("a mount")):
            assert mark.args == (not is_required,)
        assert needs("/usr/bin/program", "a program").args == (False,)


def test_a_small_disk_that_may_not_be_mounted_fails_where_root_is_required(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    for value, expected in (("", SKIPPED), ("required", FAILED)):
        monkeypatch.setenv("ROOT_TESTS", value)
        with pytest.raises((SKIPPED, FAILED)) as ended, small_disk(tmp_path / f"a{value}", 1 << 20):
            pass
        assert ended.type is expected


def test_a_network_namespace_without_iproute2_fails_in_ci(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "/nowhere")
    for value, expected in (("", SKIPPED), ("true", FAILED)):
        monkeypatch.setenv("CI", value)
        with pytest.raises((SKIPPED, FAILED), match="iproute2") as ended, namespace():
            pass
        assert ended.type is expected


def test_no_test_skips_itself_in_another_way():
    tests = ROOT / "tests"
    found = {
        path.relative_to(tests).as_posix()
        for path in tests.rglob("*.py")
        if re.search(r"\bpytest\.skip\(|\bmark\.skip(if)?\(", path.read_text(encoding="utf-8"))
    }
    assert found - OTHERS == set()


def test_what_the_tests_need_of_iproute2_is_installed():
    script = (ROOT / "scripts" / "test-system.sh").read_text(encoding="utf-8")
    wanted = script.partition("missing_for_the_tests() {")[2].partition("}\n")[0]
    assert "|| echo iproute2" in wanted
