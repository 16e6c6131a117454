"""Prometheus, Alertmanager, node_exporter and our own parts as child processes.

Guarantees
- A child leads its own session: Ctrl-C reaches it through us only. If we die, even by SIGKILL, the
  kernel sends it SIGTERM.
- What it says is appended to a file of its own in the log directory, which is kept small.
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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cluster.errors import DependencyMissing

_PR_SET_PDEATHSIG: Final = 1
_MOST_LOG_BYTES: Final = 16 << 20
_TAIL_BYTES: Final = 4096
_libc: Final = ctypes.CDLL(None, use_errno=True)

# What each is called on PATH, and the Debian package that brings it.
KNOWN: Final[Mapping[str, tuple[tuple[str, ...], str]]] = {
    "prometheus": (("prometheus",), "prometheus"),
    "alertmanager": (("alertmanager", "prometheus-alertmanager"), "prometheus-alertmanager"),
    "node_exporter": (("node_exporter", "prometheus-node-exporter"), "prometheus-node-exporter"),
}


def find(names: Sequence[str], *, path: str | None = None) -> dict[str, str]:
    """The paths of programs.

    Raises:
        DependencyMissing: names all that are missing and how to install them.
    """
    found = {
        name: next((p for n in KNOWN[name][0] if (p := shutil.which(n, path=path))), "")
        for name in names
    }
    missing = [name for name in names if not found[name]]
    if missing:
        packages = " ".join(KNOWN[name][1] for name in missing)
        verb = "was" if len(missing) == 1 else "were"
        raise DependencyMissing(
            f"{', '.join(missing)} {verb} not found on PATH: install Debian's packages"
            f" (apt-get install {packages}; the services they enable are not needed: systemctl"
            f" disable --now {packages}), or put the binaries of the Prometheus project on PATH"
        )
    return found


@dataclass(slots=True)
class StackProcess:
    """One child: how it is started, how it is found ready, and the process while it runs.

    Attributes:
        is_ready: asked until it is true.
        log: the file its output is appended to.
    """

    name: str
    command: Sequence[str]
    log: Path
    is_ready: Callable[[], bool]
    environment: Mapping[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    failures: int = 0
    start_again_at: float = 0.0
    started_at: float = 0.0

    def start(self) -> None:
        """Start it.

        Raises:
            OSError: if it cannot be started.
        """
        self.trim_log()
        self.started_at = time.monotonic()
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                list(self.command),
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
                # Two system calls only: safe after a fork.
                preexec_fn=_before_exec(os.getpid()),  # noqa: PLW1509
            )

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """How it ended; None while it runs or before it was started."""
        return self.process.poll() if self.process else None

    def reload(self) -> None:
        """Have it read its configuration again."""
        if self.process is not None and self.is_running:
            self.process.send_signal(signal.SIGHUP)

    def terminate(self) -> None:
        """Ask it to end."""
        if self.process is not None and self.is_running:
            with suppress(ProcessLookupError):
                self.process.terminate()

    def wait(self, deadline: float) -> None:
        """Wait for its end until a point of the monotonic clock, then kill it."""
        if self.process is None:
            return
        try:
            self.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def last_words(self) -> str:
        """The last line of its log."""
        with suppress(OSError), self.log.open("rb") as said:
            said.seek(max(0, self.log.stat().st_size - _TAIL_BYTES))
            lines = said.read().decode("utf-8", "replace").splitlines()
            return next((line.strip() for line in reversed(lines) if line.strip()), "")
        return ""

    def trim_log(self) -> None:
        """Keep its log and one older piece of it; it appends, so the file is emptied in place."""
        with suppress(OSError):
            if self.log.stat().st_size > _MOST_LOG_BYTES:
                shutil.copyfile(self.log, self.log.with_suffix(".log.1"))
                os.truncate(self.log, 0)


def _before_exec(parent: int) -> Callable[[], None]:
    def prepare() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        # The parent may have died between the fork and the line above.
        if os.getppid() != parent:
            os._exit(1)
        # We wait for these signals with sigtimedwait; children inherit the blocked set.
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    return prepare
