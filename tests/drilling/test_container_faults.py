"""The faults of the containers that need no engine, and what is said if there is none."""

from __future__ import annotations

import json
import os
from pathlib import Path

import psutil
import pytest

from loadtest.drilling.faults import containers


def test_a_full_disk_is_written_as_node_exporter_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    file = tmp_path / "drill.prom"
    monkeypatch.setattr(containers, "_TEXTFILE", file)
    for _ in range(2):
        assert containers.main(["fill-disk"]) == 0
        lines = [line for line in file.read_text().splitlines() if not line.startswith("#")]
        values = {line.partition("{")[0]: float(line.rpartition(" ")[2]) for line in lines}
        assert values["node_filesystem_avail_bytes"] / values["node_filesystem_size_bytes"] < 0.1
        assert all('mountpoint="/"' in line for line in lines)
    for _ in range(2):
        assert containers.main(["free-disk"]) == 0
        assert list(tmp_path.iterdir()) == []


def test_busy_loops_are_ended_and_nothing_else_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = tmp_path / "pids"
    monkeypatch.setattr(containers, "_PIDS", file)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    assert containers.main(["use-cpu"]) == 0
    [[pid, since]] = json.loads(file.read_text())
    assert psutil.Process(pid).is_running()
    # A process of the same number that started at another time is another one.
    file.write_text(json.dumps([[pid, since + 1]]))
    assert containers.main(["free-cpu"]) == 0
    assert psutil.Process(pid).is_running()
    file.write_text(json.dumps([[pid, since]]))
    assert containers.main(["free-cpu"]) == 0
    assert psutil.Process(pid).wait(10) is not None
    assert containers.main(["free-cpu"]) == 0


def test_an_engine_that_does_not_answer_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    path = str(tmp_path / "none.sock")
    monkeypatch.setattr(containers, "ContainerEngine", lambda: ENGINE(path))
    assert containers.main(["pause", "app"]) == 1
    assert capsys.readouterr().err.startswith(f"containers: the engine does not answer at {path}")


ENGINE = containers.ContainerEngine
