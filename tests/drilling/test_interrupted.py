"""A drill that is ended in the middle leaves nothing broken and nothing behind."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

from tests.architecture.tree import ROOT
from tests.harness.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


class Drilling:
    """`ws-cluster drill` as a program, and what it made on this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.report = folder / "report"
        self.work = folder / "work"
        self.log = folder / "drill.log"
        with self.log.open("wb") as log:
            command = [
                sys.executable,
                "-m",
                "loadtest",
                "drill",
                "NodeExporterDown",
                "HighDiskUsage",
            ]
            command += ["--stages", "1", "--compress", "30", "--report", str(self.report)]
            self.process = subprocess.Popen(
                [*command, "--keep", str(self.work)],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def programs(self) -> list[psutil.Process]:
        """Every process whose command line names the folder."""
        found = []
        for process in psutil.process_iter():
            try:
                if str(self.work) in " ".join(process.cmdline()) and process != psutil.Process():
                    found.append(process)
            except psutil.Error:
                continue
        return [one for one in found if one.pid != self.process.pid]

    def mounts(self) -> list[str]:
        return [
            line for line in Path("/proc/mounts").read_text().splitlines() if str(self.work) in line
        ]

    def broken(self) -> list[psutil.Process]:
        """What the drill has stopped."""
        stopped = []
        for process in self.programs():
            try:
                if process.status() == psutil.STATUS_STOPPED:
                    stopped.append(process)
            except psutil.Error:
                continue
        return stopped

    def groups(self) -> set[Path]:
        """Control groups that hold programs of this drill."""
        names: set[str] = set()
        for process in self.programs():
            with suppress(OSError):
                text = Path(f"/proc/{process.pid}/cgroup").read_text()
                names.update(re.findall(r"ws-drill-\d+", text))
        return {group for group in cgroups() if group.name in names}

    async def until_broken(self) -> None:
        await until(
            lambda: bool(self.broken()) or self.process.poll() is not None,
            120,
            "something is broken",
        )
        assert self.process.poll() is None, self.log.read_text()

    async def until_nothing_is_left(self) -> None:
        await until(lambda: not self.programs() and not self.mounts(), 60, "nothing is left")


@pytest_asyncio.fixture
async def drilling(tmp_path: Path) -> AsyncIterator[Drilling]:
    one = Drilling(tmp_path)
    try:
        yield one
    finally:
        if one.process.poll() is None:
            one.process.kill()
        one.process.wait()
        await one.until_nothing_is_left()


async def test_killed_in_the_middle_it_is_undone_by_the_daemon(drilling: Drilling):
    await drilling.until_broken()
    groups = drilling.groups()
    # Also those whose command lines name no folder, such as the undo daemon itself.
    family = psutil.Process(drilling.process.pid).children(recursive=True)
    drilling.process.kill()
    drilling.process.wait()
    await drilling.until_nothing_is_left()
    await until(lambda: not [one for one in family if is_alive(one)], 30, "all of them have ended")
    await until(lambda: not (cgroups() & groups), 30, "the control groups are removed")


async def test_ctrl_c_undoes_ends_with_130_and_reports(drilling: Drilling):
    await drilling.until_broken()
    drilling.process.send_signal(signal.SIGINT)
    code = await asyncio.to_thread(drilling.process.wait, 60)
    assert code == 130, drilling.log.read_text()
    assert drilling.programs() == []
    assert drilling.mounts() == []
    document = json.loads((drilling.report / "drill.json").read_text())
    assert not document["is_passed"]
    [broken] = [one for one in document["alerts"] if one["alert"] == "NodeExporterDown"]
    assert broken["why"] == "the run was interrupted"


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def cgroups() -> set[Path]:
    """Control groups of drills."""
    return set(Path("/sys/fs/cgroup").glob("memory/ws-drill-*")) | set(
        Path("/sys/fs/cgroup").glob("ws-drill-*")
    )
