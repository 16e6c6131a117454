"""One operating-system process: started in its own session, heard when it ends, never left behind.

Guarantees
- A child leads its own session and process group, so a terminal's Ctrl-C does not reach it.
- If this process dies, even by SIGKILL, the kernel sends the child its death signal.
- When a child's exit is reported, the rest of its process group has been killed.
Rules
- `spawn` belongs to the main thread: the death signal is tied to the thread that forks.
- While an adopting `Reaper` is installed nothing else in this process may wait for children.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from cluster.children.subprocesses import before_exec

_PR_SET_CHILD_SUBREAPER: Final = 36
_GROUP_POLL_SECONDS: Final = 0.01
_libc: Final = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Launch:
    """All that is needed to start one process.

    Attributes:
        pass_fds: descriptors it inherits under the same numbers.
        close_fds: descriptors of ours that are closed once it runs.
        death_signal: what it gets when this process dies.
        status_fd: where it will report; None if it is asked instead.
        inherits_stdout: whether its standard output is ours; else it is captured like its errors.
    """

    argv: Sequence[str]
    env: Mapping[str, str]
    death_signal: signal.Signals
    pass_fds: tuple[int, ...] = ()
    close_fds: tuple[int, ...] = ()
    status_fd: int | None = None
    inherits_stdout: bool = True


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended: its code, or minus the signal that ended it."""

    pid: int
    code: int
    cpu_seconds: float = 0.0

    def __str__(self) -> str:
        if self.code >= 0:
            return f"exit code {self.code}"
        with suppress(ValueError):
            return f"signal {signal.Signals(-self.code).name}"
        return f"signal {-self.code}"


def become_subreaper() -> None:
    """Let orphans of our children become ours, so that whole groups can be waited for."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def spawn(launch: Launch) -> tuple[int, int]:
    """Start a process; returns its id and the descriptor its captured output is read from.

    Raises:
        OSError: if it cannot be started.
    """
    reads, writes = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    os.set_blocking(writes, True)
    try:
        process = subprocess.Popen(
            list(launch.argv),
            env=dict(launch.env),
            pass_fds=launch.pass_fds,
            stdin=subprocess.DEVNULL,
            stdout=None if launch.inherits_stdout else writes,
            stderr=writes,
            start_new_session=True,
            preexec_fn=before_exec(launch.death_signal),  # noqa: PLW1509
        )
    except BaseException:
        os.close(reads)
        raise
    finally:
        for fd in (writes, *launch.close_fds):
            os.close(fd)
    # The reaper waits for it; Popen must not.
    process.returncode = 0
    return process.pid, reads


class Reaper:
    """Hears of every child that ends, through SIGCHLD.

    Args:
        adopts: whether unknown children (orphans that became ours) are reaped as well.
    """

    def __init__(self, *, adopts: bool = False) -> None:
        self._adopts = adopts
        self._loop = asyncio.get_running_loop()
        self._watched: dict[int, asyncio.Future[Exit]] = {}
        self._loop.add_signal_handler(signal.SIGCHLD, self._collect)

    def close(self) -> None:
        """Stop listening to SIGCHLD."""
        self._loop.remove_signal_handler(signal.SIGCHLD)

    def watch(self, pid: int) -> asyncio.Future[Exit]:
        """The future of a child's exit; it is never cancelled, so shield it when awaiting."""
        future: asyncio.Future[Exit] = self._loop.create_future()
        self._watched[pid] = future
        # It may have ended before it was watched; that SIGCHLD was for nobody.
        self._loop.call_soon(self._collect)
        return future

    def _collect(self) -> None:
        for pid in list(self._watched):
            if _ended(os.P_PID, pid):
                self._report(pid)
        while self._adopts and (pid := _ended(os.P_ALL, 0)):
            if pid in self._watched:
                self._report(pid)
            else:
                os.waitpid(pid, 0)

    def _report(self, pid: int) -> None:
        # Until wait4 the zombie keeps the group's id from being used again.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
        _, status, usage = os.wait4(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        future = self._watched.pop(pid)
        if not future.done():
            future.set_result(Exit(pid, code, usage.ru_utime + usage.ru_stime))


def _ended(id_type: int, pid: int) -> int:
    """The id of a child that ended and has not been waited for, or 0."""
    try:
        found = os.waitid(id_type, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return 0
    return found.si_pid if found else 0


async def group_ended(pid: int, timeout_seconds: float) -> bool:
    """Kill what is left of a process group and wait until nothing is; False if something stays."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_seconds
    while loop.time() < deadline:
        try:
            os.killpg(pid, signal.SIGKILL)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        await asyncio.sleep(_GROUP_POLL_SECONDS)
    return False
