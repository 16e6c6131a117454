"""The program of the Java SDK: its jars are those that were chosen; where it cannot be built, the reason is said."""

from __future__ import annotations

import fcntl
import shutil
from pathlib import Path

import pytest

from tests.conformance import java_sdk
from tests.conformance.java_sdk import ForeignJar, foreign_jars, java_program

HAS_TOOLS = all(shutil.which(tool) for tool in ("java", "javac", "mvn"))
needs_tools = pytest.mark.skipif(not HAS_TOOLS, reason="no JDK or no Maven")


@pytest.fixture
def maven(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Takes the place of Maven; what it writes into the folder of jars is up to the test."""
    tools = tmp_path / "tools"
    tools.mkdir()
    program = tools / "mvn"
    program.touch(mode=0o755)
    for tool in ("java", "javac"):
        (tools / tool).symlink_to("/bin/false")
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    monkeypatch.setattr(java_sdk, "JARS", tmp_path / "build" / "jars")
    return program


def test_without_a_toolchain_there_is_a_reason(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert java_program.__wrapped__() == ((), "no JDK or no Maven, which centrifuge-java needs")


def test_jars_that_cannot_be_had_are_a_reason(maven: Path):
    maven.write_text("#!/bin/sh\necho '[ERROR] nowhere to be found'\nexit 1\n")
    program, reason = java_program.__wrapped__()
    assert program == ()
    assert reason == "centrifuge-java cannot be fetched: [ERROR] nowhere to be found"


def test_a_process_that_waits_for_another_s_jars_in_vain_says_so(
    maven: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(java_sdk, "FETCH_WITHIN_SECONDS", 0.3)
    java_sdk.JARS.mkdir(parents=True)
    with (java_sdk.JARS.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert java_program.__wrapped__() == ((), "centrifuge-java was not fetched in time")


def test_a_maven_that_hangs_is_ended_and_a_reason(maven: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(java_sdk, "FETCH_WITHIN_SECONDS", 0.3)
    maven.write_text("#!/bin/sh\nexec sleep 60\n")
    assert java_program.__wrapped__() == ((), "centrifuge-java was not fetched in time")


def test_a_jar_that_is_not_the_chosen_one_is_an_error_and_is_not_kept(maven: Path):
    folder = java_sdk.JARS
    maven.write_text(f"#!/bin/sh\nmkdir -p {folder}\necho evil > {folder}/gson-2.13.2.jar\n")
    with pytest.raises(ForeignJar, match=r"gson-2\.13\.2\.jar"):
        java_program.__wrapped__()
    assert not folder.exists()


def test_a_jar_that_is_changed_or_added_or_missing_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    sums = tmp_path / "jars.sha256"
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    sums.write_text(f"{empty}  a.jar\n{empty}  b.jar\n")
    monkeypatch.setattr(java_sdk, "SUMS", sums)
    (tmp_path / "a.jar").touch()
    assert foreign_jars(tmp_path) == ["b.jar"]
    (tmp_path / "b.jar").touch()
    assert foreign_jars(tmp_path) == []
    (tmp_path / "a.jar").write_text("x")
    (tmp_path / "c.jar").touch()
    assert foreign_jars(tmp_path) == ["a.jar", "c.jar"]


@needs_tools
def test_a_source_that_does_not_compile_is_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    program, reason = java_program()
    if not program:
        pytest.skip(reason)
    (tmp_path / "SdkClient.java").write_text("final class SdkClient { this is no Java }")
    monkeypatch.setattr(java_sdk, "SOURCE", tmp_path)
    program, reason = java_program.__wrapped__()
    assert program == ()
    assert reason.startswith("centrifuge-java cannot be compiled: ")
