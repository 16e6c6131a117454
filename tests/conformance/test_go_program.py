"""The program of the Go SDK: where it cannot be built, the tests with it are skipped and say why."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.conformance import go_sdk
from tests.conformance.go_sdk import SOURCE, USUAL, go_program

GO = shutil.which("gofmt") or shutil.which("gofmt", path=USUAL)


def test_without_a_toolchain_there_is_a_reason(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(go_sdk, "USUAL", "/nowhere")
    monkeypatch.setenv("PATH", "/nowhere")
    program, reason = go_program.__wrapped__()
    assert program is None
    assert "Go toolchain" in reason


@pytest.mark.skipif(GO is None, reason="no Go toolchain")
def test_a_build_that_fails_is_a_reason(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GOFLAGS", "-mod=vendor")
    program, reason = go_program.__wrapped__()
    assert program is None
    assert "cannot be built" in reason


@pytest.mark.skipif(GO is None, reason="no Go toolchain")
def test_the_go_source_is_formatted():
    assert GO is not None
    done = subprocess.run(
        [GO, "-l", str(SOURCE)], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == ""
