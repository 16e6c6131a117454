"""A worker as a child process: what it inherits, and how its status lines are read.

Rules
- The configuration, with its secrets, is passed in an anonymous memory file, never in arguments
  or the environment.
- A status line is one JSON object, and each is a heartbeat. An invalid line is ignored; a worker
  that sends no valid ones is found by its missing heartbeats.
- A lane's live gauges are deleted after its process has ended, before the lane is used again.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, cast

from cluster import log
from cluster.children.child import STATES, Child, State
from cluster.children.process import Launch
from cluster.config.sources import ENV_PREFIX

COMMAND: Final = (sys.executable, "-m", "cluster", "worker")
_READ_BYTES: Final = 65536
_LONGEST_LINE: Final = 65536


class WorkerSpec:
    """The workers of one slot.

    Args:
        slot: the slot's number.
        listen_fd: the slot's listening socket, owned by the supervisor.
        local_fd: its unix socket, the same; None if it has none.
        document: the resolved configuration as JSON.
        instance: `host:port` of the admin port.
        metrics_dir: directory of the multiprocess files.
        command: the program and its first arguments.

    Attributes:
        waits_for_store: whether a worker waits for an unreachable store instead of failing to
            boot. True once the cluster has served, so that an outage does not cause boot failures
            that end the program.
    """

    name = "worker"
    stop_signal = signal.SIGTERM
    boot_seconds = 60.0
    output_level = "warning"

    def __init__(
        self,
        slot: int,
        *,
        listen_fd: int,
        local_fd: int | None = None,
        document: bytes,
        instance: str,
        metrics_dir: Path,
        command: Sequence[str] = COMMAND,
    ) -> None:
        self.lanes: tuple[str, ...] = (f"w{slot}a", f"w{slot}b")
        self.document = document
        self._slot = slot
        self._listen_fd = listen_fd
        self._local_fd = local_fd
        self._instance = instance
        self._metrics_dir = metrics_dir
        self._command = tuple(command)
        self.waits_for_store = False

    def launch(self, lane: str) -> Launch:
        """Return the command that starts a worker in a lane."""
        # Again, because `ended` may have failed for lack of descriptors.
        self.ended(lane)
        config_fd = _memory_file(self.document)
        try:
            status_fd, writes = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            os.close(config_fd)
            raise
        arguments = {
            "--slot": self._slot,
            "--lane": lane,
            "--instance": self._instance,
            "--listen-fd": self._listen_fd,
            "--status-fd": writes,
            "--config-fd": config_fd,
        }
        inherited = [self._listen_fd, writes, config_fd]
        if self._local_fd is not None:
            arguments["--local-fd"] = self._local_fd
            inherited.append(self._local_fd)
        return Launch(
            argv=(
                *self._command,
                *(str(part) for pair in arguments.items() for part in pair),
                *(("--patient",) if self.waits_for_store else ()),
            ),
            env=environment(
                PROMETHEUS_MULTIPROC_DIR=str(self._metrics_dir), **log.child_environment()
            ),
            death_signal=signal.SIGKILL,
            pass_fds=tuple(inherited),
            close_fds=(writes, config_fd),
            status_fd=status_fd,
        )

    async def watch(self, child: Child, status_fd: int | None) -> None:
        """Read status lines until the worker closes its end of the pipe or ends."""
        assert status_fd is not None
        loop = asyncio.get_running_loop()
        closed = asyncio.Event()
        lines = StatusLines(child)

        def read() -> None:
            if not lines.read(status_fd):
                loop.remove_reader(status_fd)
                closed.set()

        loop.add_reader(status_fd, read)
        try:
            await closed.wait()
        finally:
            # The last lines may still be in the pipe.
            if loop.remove_reader(status_fd):
                lines.read(status_fd)
            os.close(status_fd)

    def loggable(self, text: str) -> str:
        """Return the text unchanged: a worker never writes what clients sent."""
        return text

    def ended(self, lane: str) -> None:
        """Delete the lane's live gauges, or the next worker would inherit them."""
        for path in self._metrics_dir.glob(f"gauge_live*_{lane}.db"):
            path.unlink(missing_ok=True)


class StatusLines:
    """Splits the data of the status pipe into lines and reports each to the child."""

    def __init__(self, child: Child) -> None:
        self._child = child
        self._rest = b""

    def read(self, fd: int) -> bool:
        """Read the available data; returns False at the end of the pipe."""
        try:
            chunk = os.read(fd, _READ_BYTES)
        except BlockingIOError:
            return True
        *lines, rest = (self._rest + chunk).split(b"\n")
        self._rest = rest[-_LONGEST_LINE:]
        for line in lines:
            self._report(line)
        if not chunk:
            self._child.begin_exit_phase()
        return bool(chunk)

    def _report(self, line: bytes) -> None:
        with suppress(ValueError):
            status = json.loads(line)
            if isinstance(status, dict) and status.get("state") in STATES:
                self._child.beat()
                self._child.report(
                    cast(State, status["state"]),
                    str(status.get("reason") or ""),
                    str(status.get("phase") or ""),
                    is_final=bool(status.get("final")),
                )


def environment(**extra: str) -> dict[str, str]:
    """Return this process's environment without our options, which may hold secrets."""
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(ENV_PREFIX)
    }
    return inherited | extra


def _memory_file(document: bytes) -> int:
    fd = os.memfd_create("ws-cluster-config", os.MFD_CLOEXEC)
    with os.fdopen(fd, "wb", closefd=False) as file:
        file.write(document)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd
