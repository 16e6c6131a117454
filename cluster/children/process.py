"""Operating-system processes: started in their own session, reaped when they exit.

Guarantees
- A child leads its own session and process group, so a terminal's Ctrl-C does not reach it.
- If this process dies, even by SIGKILL, the kernel sends the child its death signal.
- A child is the user that this process is, keeps no other user in reserve, and gains no privileges.
- When a child's exit is reported, SIGKILL has been sent to the rest of its process group.
Rules
- Call `spawn` in the main thread: the death signal is sent when the thread that forked ends.
- While a `Reaper` that reaps orphans is installed, no other code may wait for child processes.
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
    """The command, environment and descriptors of a new process.

    Attributes:
        pass_fds: descriptors the process inherits, with the same numbers.
        close_fds: descriptors of this process to close after the start.
        death_signal: the signal the process gets when this process dies.
        status_fd: the read end of its status pipe; None if it is probed instead.
        inherits_stdout: whether it shares our standard output; otherwise its output is captured
            together with its standard error.
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
    """How a process ended: its exit code, or the negative number of the signal that ended it."""

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
    """Become the parent of our children's orphans, so that whole groups can be waited for."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def spawn(launch: Launch) -> tuple[int, int]:
    """Start a process; returns its id and the read end of the pipe with its captured output.

    Raises:
        OSError: if it cannot be started.
    """
    try:
        reads, writes = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        for fd in launch.close_fds:
            os.close(fd)
        raise
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
    # The reaper waits for the process; Popen must not.
    process.returncode = 0
    return process.pid, reads


class Reaper:
    """Waits for child processes on SIGCHLD.

    Args:
        reaps_orphans: whether to reap unknown children too: orphans that became ours.
    """

    def __init__(self, *, reaps_orphans: bool = False) -> None:
        self._reaps_orphans = reaps_orphans
        self._loop = asyncio.get_running_loop()
        self._watched: dict[int, asyncio.Future[Exit]] = {}
        self._loop.add_signal_handler(signal.SIGCHLD, self._collect)

    def close(self) -> None:
        """Remove the handler of SIGCHLD."""
        self._loop.remove_signal_handler(signal.SIGCHLD)

    def watch(self, pid: int) -> asyncio.Future[Exit]:
        """Return a future of a child's exit; it must not be cancelled, so shield it when awaiting."""
        future: asyncio.Future[Exit] = self._loop.create_future()
        self._watched[pid] = future
        # The child may have ended before this call; its SIGCHLD was ignored then.
        self._loop.call_soon(self._collect)
        return future

    def _collect(self) -> None:
        for pid in list(self._watched):
            if _ended(os.P_PID, pid):
                self._report(pid)
        while self._reaps_orphans and (pid := _ended(os.P_ALL, 0)):
            if pid in self._watched:
                self._report(pid)
            else:
                os.waitpid(pid, 0)

    def _report(self, pid: int) -> None:
        # Until wait4 the zombie prevents the reuse of the group's id.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
        _, status, usage = os.wait4(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        future = self._watched.pop(pid)
        if not future.done():
            future.set_result(Exit(pid, code, usage.ru_utime + usage.ru_stime))


def _ended(id_type: int, pid: int) -> int:
    """Return the id of a child that has ended but was not waited for, or 0."""
    try:
        found = os.waitid(id_type, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return 0
    return found.si_pid if found else 0


async def kill_group(pid: int, timeout_seconds: float) -> bool:
    """Kill a process group and wait until it is empty; False if a process survives."""
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
