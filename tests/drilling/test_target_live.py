"""Drills against a running cluster that is not the drill's own, through its target file only."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtest.drilling.mends import Mends
from loadtest.drilling.stage import Stage
from tests.architecture.tree import ROOT
from tests.drilling.conftest import COMPRESS
from tests.drilling.test_mends import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Somebody's cluster; the disk of its node_exporter is small where the right is there."""
    folder = tmp_path_factory.mktemp("theirs")
    with Mends() as open_mends:
        one = Stage("theirs", folder=folder / "stage", compress=COMPRESS, open_mends=open_mends)
        try:
            one.start()
            if one.disk.path is None:
                pytest.skip(f"only what is real can be broken by a command: {one.disk.why_not}")
            yield one
        finally:
            one.close()


@pytest.fixture
def target(stage: Stage, tmp_path: Path) -> Path:
    addresses, ballast = stage.addresses, f"{stage.disk.path}/ballast"
    urls = ("websocket", "admin", "prometheus", "alertmanager", "receiver")
    lines = "\n".join(f'{name} = "{getattr(addresses, name)}"' for name in urls)
    file = tmp_path / "theirs.toml"
    file.write_text(f"""
name = "theirs"
drillable = true
profile = "compressed"
compress = {COMPRESS:g}
data_dir = "{stage.monitoring_dir}"
[urls]
{lines}
[drills.high_disk_usage]
provoke = "head -c 15728640 /dev/zero > {ballast}"
mend = "rm -f {ballast}; touch {tmp_path}/mended"
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


def test_a_drill_killed_in_the_middle_is_mended_by_the_target_s_command(
    stage: Stage, target: Path, tmp_path: Path
):
    ballast = Path(f"{stage.disk.path}/ballast")
    drill = drilling(target, tmp_path / "report")
    try:
        until(lambda: ballast.exists() or drill.poll() is not None, 60)
        assert drill.poll() is None, (tmp_path / "drill.log").read_text()
    finally:
        drill.kill()
        drill.wait()
    until(lambda: (tmp_path / "mended").exists() and not ballast.exists(), 30)


def test_a_running_cluster_is_broken_proven_and_mended(stage: Stage, target: Path, tmp_path: Path):
    drill = drilling(target, tmp_path / "report")
    try:
        assert drill.wait(180) == 0, (tmp_path / "drill.log").read_text()
    finally:
        drill.kill()
        drill.wait()
    document = json.loads((tmp_path / "report" / "drill.json").read_text())
    [outcome] = document["alerts"]
    assert (document["target"], outcome["result"], outcome["stage"]) == (
        "theirs",
        "passed",
        "theirs",
    )
    assert outcome["acknowledged_s"] > outcome["firing_s"] > 0
    assert set(outcome["notified"]) == {"slack #websocket-alerts", "slack #infrastructure-alerts"}
    assert (tmp_path / "mended").exists()
    assert not Path(f"{stage.disk.path}/ballast").exists()
