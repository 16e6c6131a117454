"""How every fault of a drill is undone, logged before the fault is injected.

Rules
- An undo action is data, so that another process can carry it out: the undo daemon outlives this process,
  and if this process is killed, it carries out the actions that are still open, the last one first.
- This process carries out an action at most once; the undo daemon tries one that failed again in the end.
  Every action is idempotent.
- No fault is injected unless the undo daemon runs.
- A process is identified by its pid and its start time, so that no other process is ever signalled.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Self

UndoAction = Mapping[str, Any]

_COMMAND_SECONDS: Final = 120.0
_END_SECONDS: Final = 20.0
_POLL_SECONDS: Final = 0.05
_HTTP_SECONDS: Final = 5.0


# --- the kinds of undo actions -------------------------------------------------------------


def signalled(pid: int, number: int) -> UndoAction:
    """Send a process a signal, such as CONT."""
    return {"do": "signal", "pid": pid, "started": started(pid), "number": int(number)}


def ended(pid: int) -> UndoAction:
    """End a process that the drill started: TERM, and KILL if it does not end."""
    return {"do": "end", "pid": pid, "started": started(pid)}


def written(path: Path) -> UndoAction:
    """Give a file the content it has now."""
    return {"do": "write", "path": str(path), "text": path.read_text(encoding="utf-8")}


def removed(path: Path) -> UndoAction:
    """Remove a file or a directory that the drill makes."""
    return {"do": "remove", "path": str(path)}


def removed_all(folder: Path, pattern: str) -> UndoAction:
    """Remove the files of a directory that match."""
    return {"do": "remove_all", "path": str(folder), "pattern": pattern}


def unmounted(path: Path) -> UndoAction:
    """Unmount a file system that the drill mounts, and remove the directory."""
    return {"do": "unmount", "path": str(path)}


def posted(url: str) -> UndoAction:
    """Send an HTTP POST without a body."""
    return {"do": "post", "url": url}


def run(command: Sequence[str], cwd: Path | None = None) -> UndoAction:
    """Run a command."""
    return {"do": "run", "command": list(command), "cwd": str(cwd or Path.cwd())}


def file_limit(pid: int, soft: int, hard: int) -> UndoAction:
    """Give a process its limit of open files."""
    return {"do": "file_limit", "pid": pid, "started": started(pid), "soft": soft, "hard": hard}


def priority(pid: int) -> UndoAction:
    """Give a process the priority it has now."""
    value = os.getpriority(os.PRIO_PROCESS, pid)
    return {"do": "priority", "pid": pid, "started": started(pid), "value": value}


def started(pid: int) -> int:
    """When a process started, in ticks since the boot of the machine; 0 if it has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return 0
    return int(stat.rpartition(")")[2].split()[19])


def is_same(pid: int, since: int) -> bool:
    """Whether the process is the one that started then, and no zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return False
    return int(stat[19]) == since and stat[0] not in ("Z", "X")


# --- carrying them out ---------------------------------------------------------------------


def carry_out(action: UndoAction) -> None:
    """Carry out an undo action; it does nothing if the fault is undone already.

    Raises:
        OSError, subprocess.SubprocessError: it cannot be done.
    """
    _ACTIONS[action["do"]](action)


def _signal(action: UndoAction) -> None:
    if is_same(action["pid"], action["started"]):
        with suppress(ProcessLookupError):
            os.kill(action["pid"], action["number"])


def _end(action: UndoAction) -> None:
    pid, since = action["pid"], action["started"]
    deadline = time.monotonic() + _END_SECONDS
    # A stopped process does not handle TERM.
    for number in (signal.SIGCONT, signal.SIGTERM):
        if is_same(pid, since):
            with suppress(ProcessLookupError):
                os.kill(pid, number)
    while is_same(pid, since) and time.monotonic() < deadline:
        with suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        time.sleep(_POLL_SECONDS)
    if is_same(pid, since):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _write(action: UndoAction) -> None:
    path = Path(action["path"])
    if path.parent.is_dir():
        path.write_text(action["text"], encoding="utf-8")


def _remove(action: UndoAction) -> None:
    path = Path(action["path"])
    if path.is_dir() and not str(path).startswith("/sys/fs/cgroup"):
        shutil.rmtree(path, ignore_errors=True)
    elif path.is_dir():
        _remove_cgroup(path)
    else:
        path.unlink(missing_ok=True)


def _remove_cgroup(path: Path) -> None:
    """A control group can be removed only a moment after its last process has ended."""
    deadline = time.monotonic() + _END_SECONDS
    while path.is_dir():
        try:
            path.rmdir()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(_POLL_SECONDS)


def _remove_all(action: UndoAction) -> None:
    for path in Path(action["path"]).glob(action["pattern"]):
        path.unlink(missing_ok=True)


def _unmount(action: UndoAction) -> None:
    path = Path(action["path"])
    if path.is_mount():
        subprocess.run(["umount", "--lazy", str(path)], check=True, stdin=subprocess.DEVNULL)
    with suppress(OSError):
        path.rmdir()


def _post(action: UndoAction) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(action["url"], data=b"", method="POST")
    with opener.open(request, timeout=_HTTP_SECONDS) as answer:
        answer.read()


def _run(action: UndoAction) -> None:
    subprocess.run(
        action["command"],
        cwd=action["cwd"],
        check=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=_COMMAND_SECONDS,
        # Ctrl-C is for the drill, not for a command that undoes.
        start_new_session=True,
    )


def _file_limit(action: UndoAction) -> None:
    import resource

    if is_same(action["pid"], action["started"]):
        with suppress(ProcessLookupError):
            resource.prlimit(
                action["pid"], resource.RLIMIT_NOFILE, (action["soft"], action["hard"])
            )


def _priority(action: UndoAction) -> None:
    if is_same(action["pid"], action["started"]):
        with suppress(ProcessLookupError):
            os.setpriority(os.PRIO_PROCESS, action["pid"], action["value"])


_ACTIONS: Final = {
    "signal": _signal,
    "end": _end,
    "write": _write,
    "remove": _remove,
    "remove_all": _remove_all,
    "unmount": _unmount,
    "post": _post,
    "run": _run,
    "file_limit": _file_limit,
    "priority": _priority,
}


# --- the log of open actions ---------------------------------------------------------------


class UndoDaemonGone(OSError):
    """The undo daemon has ended, so no more faults are injected."""


class UndoLog:
    """The open undo actions, which the undo daemon knows, too. A context manager; safe for threads.

    Attributes:
        faults: a sentence for each fault that was not undone in the end.
    """

    def __init__(self) -> None:
        self.faults: list[str] = []
        self._open: dict[int, UndoAction] = {}
        self._last = 0
        self._lock = threading.Lock()
        self._daemon = subprocess.Popen(
            [sys.executable, "-m", "loadtest.drilling.undo_daemon"],
            stdin=subprocess.PIPE,
            start_new_session=True,
            cwd=Path(__file__).resolve().parents[2],
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        failed = self.undo_all()
        assert self._daemon.stdin is not None
        with suppress(OSError):
            self._daemon.stdin.close()
        if self._daemon.wait() != 0:
            self.faults += failed or ["the undo daemon could not undo everything: see above"]

    @property
    def pid(self) -> int:
        """The undo daemon's pid."""
        return self._daemon.pid

    def note(self, action: UndoAction) -> int:
        """Log an undo action; inject the fault only after this. Returns its number.

        Raises:
            UndoDaemonGone: if the undo daemon has ended.
        """
        with self._lock:
            if self._daemon.poll() is not None:
                raise UndoDaemonGone("the undo daemon has ended: no more faults are injected")
            self._last += 1
            self._open[self._last] = action
            self._send({"number": self._last, "undo": dict(action)})
            return self._last

    def undo(self, numbers: Sequence[int]) -> list[str]:
        """Carry these out, the last first; returns a sentence for each that failed."""
        faults = []
        for number in sorted(numbers, reverse=True):
            action = self._open.get(number)
            if action is None:
                continue
            try:
                carry_out(action)
            except (OSError, subprocess.SubprocessError, ValueError) as error:
                faults.append(f"could not be undone ({action['do']} {_about(action)}): {error}")
                with self._lock:
                    # The undo daemon keeps it, and tries again when this process has ended.
                    self._open.pop(number, None)
            else:
                self.forget(number)
        return faults

    def forget(self, number: int) -> None:
        """Its fault is undone already."""
        with self._lock:
            self._open.pop(number, None)
            self._send({"number": number})

    def undo_all(self) -> list[str]:
        """Carry out all open actions."""
        return self.undo(list(self._open))

    def _send(self, document: Mapping[str, Any]) -> None:
        assert self._daemon.stdin is not None
        with suppress(OSError):
            self._daemon.stdin.write(json.dumps(document).encode() + b"\n")
            self._daemon.stdin.flush()


def _about(action: UndoAction) -> str:
    return str(
        action.get("path") or action.get("pid") or action.get("command") or action.get("url")
    )
