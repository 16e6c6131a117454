"""Drills against a running cluster that is not the drill's own, through its target file only."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtest.drilling.environment.cluster import Environment
from loadtest.drilling.undo import UndoLog
from tests.architecture.tree import ROOT
from tests.drilling.conftest import COMPRESS
from tests.drilling.test_undo import until
from tests.harness.needs import is_not_permitted

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    """A running cluster; the disk of its node_exporter is small if the privilege is there."""
    folder = tmp_path_factory.mktemp("theirs")
    with UndoLog() as undo_log:
        one = Environment(
            "theirs", folder=folder / "environment", compress=COMPRESS, undo_log=undo_log
        )
        try:
            one.start()
            if one.disk.path is None:
                is_not_permitted(
                    f"only what is real can be broken by a command: {one.disk.why_not}"
                )
            yield one
        finally:
            one.close()


@pytest.fixture
def target(environment: Environment, tmp_path: Path) -> Path:
    addresses, memory_hog = environment.addresses, f"{environment.disk.path}/memory_hog"
    urls = ("websocket", "admin", "prometheus", "alertmanager", "receiver")
    lines = "\n".join(f'{name} = "{getattr(addresses, name)}"' for name in urls)
    file = tmp_path / "theirs.toml"
    file.write_text(f"""
name = "theirs"
drillable = true
profile = "compressed"
compress = {COMPRESS:g}
data_dir = "{environment.monitoring_dir}"
[urls]
{lines}
[drills.high_disk_usage]
provoke = "head -c 15728640 /dev/zero > {memory_hog}"
mend = "rm -f {memory_hog}; touch {tmp_path}/undone"
""")
    return file


def drilling(target: Path, report: Path) -> subprocess.Popen[bytes]:
    words = ("drill", "HighDiskUsage", "--target", str(target), "--report", str(report))
    with (target.parent / "drill.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "loadtest", *words],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )


def test_a_drill_killed_in_the_middle_is_undone_by_the_target_s_command(
    environment: Environment, target: Path, tmp_path: Path
):
    memory_hog = Path(f"{environment.disk.path}/memory_hog")
    drill = drilling(target, tmp_path / "report")
    try:
        until(lambda: memory_hog.exists() or drill.poll() is not None, 60)
        assert drill.poll() is None, (tmp_path / "drill.log").read_text()
    finally:
        drill.kill()
        drill.wait()
    until(lambda: (tmp_path / "undone").exists() and not memory_hog.exists(), 30)


def test_a_running_cluster_is_broken_proven_and_undone(
    environment: Environment, target: Path, tmp_path: Path
):
    drill = drilling(target, tmp_path / "report")
    try:
        assert drill.wait(180) == 0, (tmp_path / "drill.log").read_text()
    finally:
        drill.kill()
        drill.wait()
    document = json.loads((tmp_path / "report" / "drill.json").read_text())
    [result] = document["alerts"]
    assert (document["target"], result["result"], result["environment"]) == (
        "theirs",
        "passed",
        "theirs",
    )
    assert result["acknowledged_seconds"] > result["firing_seconds"] > 0
    assert set(result["notified"]) == {"slack #websocket-alerts", "slack #infrastructure-alerts"}
    assert (tmp_path / "undone").exists()
    assert not Path(f"{environment.disk.path}/memory_hog").exists()
