"""Processes: how they start and end, and that their process groups end with them."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
import sys

import psutil
import pytest

from cluster.children.child import Child, Grace
from cluster.children.process import Exit, Launch, Reaper, kill_group, spawn
from cluster.children.worker_child import WorkerSpec

SLEEP = (sys.executable, "-c", "import time; print('up', flush=True); time.sleep(100)")
FAMILY = (
    sys.executable,
    "-c",
    "import os, time\nif os.fork() == 0:\n    print(os.getpid(), flush=True)\ntime.sleep(100)",
)


def launch(*argv: str, death: signal.Signals = signal.SIGKILL) -> Launch:
    return Launch(argv=argv, env=os.environ, death_signal=death, inherits_stdout=False)


@pytest.fixture
async def reaper():
    reaper = Reaper()
    yield reaper
    reaper.close()


async def output(fd: int) -> str:
    while True:
        try:
            return os.read(fd, 1000).decode()
        except BlockingIOError:
            await asyncio.sleep(0.01)


async def test_a_child_leads_its_own_session_and_its_exit_is_reported(reaper):
    pid, fd = spawn(launch(*SLEEP))
    exited = reaper.watch(pid)
    assert await output(fd) == "up\n"
    assert os.getsid(pid) == os.getpgid(pid) == pid
    os.kill(pid, signal.SIGTERM)
    assert (await exited).code == -signal.SIGTERM
    os.close(fd)


async def test_a_child_that_ends_before_it_is_watched_is_reported_too(reaper):
    pid, fd = spawn(launch("/bin/true"))
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert (await asyncio.wait_for(reaper.watch(pid), 5)).code == 0
    os.close(fd)


async def test_the_rest_of_a_group_ends_with_its_leader(reaper):
    pid, fd = spawn(launch(*FAMILY))
    other = int(await output(fd))
    exited = reaper.watch(pid)
    os.kill(pid, signal.SIGKILL)
    await exited
    # Without a subreaper init waits for the orphan; until then it may be a zombie.
    await kill_group(pid, 2)
    assert not psutil.pid_exists(other) or psutil.Process(other).status() == psutil.STATUS_ZOMBIE
    os.close(fd)


async def test_a_missing_program_raises_an_os_error():
    files = psutil.Process().num_fds()
    with pytest.raises(OSError, match="No such file"):
        spawn(launch("/nonexistent/program"))
    assert psutil.Process().num_fds() == files


def test_an_exit_is_described_in_words():
    assert str(Exit(1, 3)) == "exit code 3"
    assert str(Exit(1, -9)) == "signal SIGKILL"
    assert str(Exit(1, -63)) == "signal 63"


class PythonSpec:
    """A child that runs a line of Python."""

    name = "sleeper"
    lanes: tuple[str, ...] = ("s",)
    stop_signal = signal.SIGTERM
    boot_seconds = 30.0
    output_level = "info"

    def __init__(self, code: str) -> None:
        self.code = code
        self.cleaned: list[str] = []

    def launch(self, lane: str) -> Launch:
        return launch(sys.executable, "-c", self.code)

    async def watch(self, child: Child, status_fd: int | None) -> None:
        while "up" not in child.last_output_line:
            await asyncio.sleep(0.01)
        child.report("ready")

    def loggable(self, text: str) -> str:
        return text

    def ended(self, lane: str) -> None:
        self.cleaned.append(lane)


OBEDIENT = "import time; print('up', flush=True); time.sleep(100)"
STUBBORN = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(100)"


async def test_a_child_that_obeys_its_stop_signal_is_clean(reaper):
    spec = PythonSpec(
        "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(0));" + OBEDIENT
    )
    child = Child(spec, "s", reaper, lambda _: None)
    assert await child.became_ready()
    assert (await child.stop(Grace(10))).code == 0
    assert child.outcome == "clean"
    assert spec.cleaned == ["s"]
    assert (child.shutdown_seconds() or 9) < 5


async def test_a_child_that_ignores_its_stop_signal_is_killed_after_its_grace(reaper):
    child = Child(PythonSpec(STUBBORN), "s", reaper, lambda _: None)
    assert await child.became_ready()
    assert (await child.stop(Grace(0.2))).code == -signal.SIGKILL
    assert child.outcome == "killed"
    assert child.reason == "killed: deadline"
    assert (child.shutdown_seconds() or 0) >= 0.2


async def test_a_grace_can_be_shortened_while_a_stop_waits_for_it(reaper):
    child = Child(PythonSpec(STUBBORN), "s", reaper, lambda _: None)
    assert await child.became_ready()
    grace = Grace(100)
    stopping = asyncio.create_task(child.stop(grace))
    await asyncio.sleep(0)
    grace.shorten(0.2)
    assert (await asyncio.wait_for(stopping, 5)).code == -signal.SIGKILL


async def test_the_reason_of_a_crash_is_the_last_line_of_output(reaper):
    child = Child(PythonSpec("raise ValueError('no such thing')"), "s", reaper, lambda _: None)
    assert not await child.became_ready()
    await child.ended()
    assert child.reason == "ValueError: no such thing (exit code 1)"
    assert child.outcome == "crashed"


async def test_a_start_that_fails_for_lack_of_descriptors_leaks_none(reaper, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        spec = WorkerSpec(
            0, listen_fd=listener.fileno(), document=b"{}", instance="i", metrics_dir=tmp_path
        )
        own = psutil.Process()
        before = own.num_fds()
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        failures = 0
        first_free = os.open(os.devnull, os.O_RDONLY)
        os.close(first_free)
        try:
            # Whichever of its descriptors is the first that cannot be had.
            for free in range(6):
                resource.setrlimit(resource.RLIMIT_NOFILE, (first_free + free, limits[1]))
                with pytest.raises(OSError, match="Too many open files"):
                    Child(spec, "w0a", reaper, lambda child: None)
                failures += 1
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert failures == 6
        assert own.num_fds() == before
