"""One child process without an event loop: started, asked whether it runs, stopped, its log kept small.

Guarantees
- The child leads a session of its own, so a terminal's Ctrl-C does not reach it.
- With a death signal, the kernel sends that signal to the child when its parent dies, even by SIGKILL.
- Its output is appended to a log file of its own, which is private when it is made.
- No program that it starts gains privileges (set-user-ID, file capabilities), and it keeps no user id
  that this process has in reserve.

Rule: the death signal belongs to the thread that forks. A thread that may end before the child must
start it without one.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from cluster.private_files import open_private

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NO_NEW_PRIVS: Final = 38
_MAX_LOG_BYTES: Final = 16 << 20
_TAIL_BYTES: Final = 4096
_libc: Final = ctypes.CDLL(None, use_errno=True)


def allow_no_new_privileges() -> None:
    """Let no program that this process executes gain privileges; children inherit it."""
    _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def set_death_signal(number: int) -> None:
    """Have the kernel send this process a signal when the thread that forked it ends; 0 for none."""
    _libc.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)


def before_exec(death_signal: int | None) -> Callable[[], None]:
    """What a child runs between fork and exec so that it gains no privileges and does not outlive this process.

    Only system calls, through ctypes and os: safe after a fork in a process with threads.

    Args:
        death_signal: what the kernel sends it when the thread that forks ends; None for nothing.
    """
    parent = os.getpid()

    def prepare() -> None:
        uid, gid = os.geteuid(), os.getegid()
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
        allow_no_new_privileges()
        # After the change of the user, which makes the kernel forget the death signal.
        if death_signal is not None:
            set_death_signal(death_signal)
            # The parent may have died between the fork and the line above.
            if os.getppid() != parent:
                os._exit(1)
        # A process that waits with sigtimedwait has signals blocked; its children inherit that set.
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    return prepare


class Subprocess:
    """One child process.

    Args:
        name: for messages.
        log: the file that its output is appended to.
        environment: variables beyond this process's own.
        cwd: its working directory; None for this process's.
        death_signal: what the kernel sends it when this process dies; None if something else ends it.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        environment: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        death_signal: signal.Signals | None = signal.SIGTERM,
    ) -> None:
        self.name = name
        self.log = log
        self._command = list(command)
        self._environment = dict(environment or {})
        self._cwd = cwd
        self._death_signal = death_signal
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it.

        Raises:
            OSError: if it cannot be started.
        """
        self.trim_log()
        with open(self.log, "ab", opener=open_private) as out:
            self._process = subprocess.Popen(
                self._command,
                cwd=self._cwd,
                env={**os.environ, **self._environment},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
                preexec_fn=before_exec(self._death_signal),  # noqa: PLW1509
            )

    @property
    def pid(self) -> int:
        """Its process id.

        Raises:
            ProcessLookupError: if it has not been started.
        """
        if self._process is None:
            raise ProcessLookupError(f"{self.name} has not been started")
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """How it ended; None while it runs or before it was started."""
        return self._process.poll() if self._process else None

    def reload(self) -> None:
        """Have it read its configuration again."""
        if self._process is not None and self.is_running:
            self._process.send_signal(signal.SIGHUP)

    def terminate(self) -> None:
        """Send it SIGTERM, if it runs."""
        if self._process is not None and self.is_running:
            with suppress(ProcessLookupError):
                self._process.terminate()

    def kill(self) -> None:
        """Send it SIGKILL and wait for its end."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def wait(self, deadline: float) -> bool:
        """Wait for its end until a point of the monotonic clock; whether it has ended by then."""
        if self._process is None:
            return True
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(max(0.0, deadline - time.monotonic()))
        return self._process.returncode is not None

    def stop(self, deadline: float) -> None:
        """Wait for its end until a point of the monotonic clock, then kill it."""
        if not self.wait(deadline):
            self.kill()

    def last_lines(self, count: int = 1) -> str:
        """The end of its log on one line, or "nothing"."""
        with suppress(OSError), self.log.open("rb") as log:
            log.seek(max(0, self.log.stat().st_size - _TAIL_BYTES))
            text = log.read().decode("utf-8", "replace")
            lines = [line.strip() for line in text.splitlines() if line.strip()]
            return " | ".join(lines[-count:]) or "nothing"
        return "nothing"

    def trim_log(self) -> None:
        """Keep its log and one older copy of it; the child appends, so the file is emptied in place."""
        with suppress(OSError):
            if self.log.stat().st_size > _MAX_LOG_BYTES:
                shutil.copyfile(self.log, self.log.with_suffix(".log.1"))
                os.truncate(self.log, 0)
