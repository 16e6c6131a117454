"""Resources that need a privilege: a control group for memory, a small file system.

Rules
- Each is tried, not guessed from the user id. If it fails, the reason is kept as a sentence, and the fault
  that needs it is simulated and says so.
- The undo log knows how to remove each before it is made.
"""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from loadtest.drilling import undo
from loadtest.drilling.undo import UndoLog

_CGROUPS: Final = Path("/sys/fs/cgroup")
_DISK_BYTES: Final = 16 << 20


@dataclass(frozen=True, slots=True)
class Privilege:
    """A directory that was made, or None and the reason."""

    path: Path | None
    why_not: str = ""


def memory_group(name: str, limit_bytes: int, undo_log: UndoLog) -> Privilege:
    """A control group whose memory is limited, v1 or v2."""
    parent, limit_name = _memory_parent()
    if parent is None:
        return Privilege(None, "this machine has no control groups for memory that can be seen")
    path = parent / name
    number = undo_log.note(undo.removed(path))
    try:
        path.mkdir()
        (path / limit_name).write_text(str(limit_bytes), encoding="ascii")
        return Privilege(path)
    except OSError as error:
        with suppress(OSError):
            path.rmdir()
        undo_log.forget(number)
        reason = error.strerror or "refused"
        return Privilege(None, f"no control group could be made under {parent} ({reason})")


def _memory_parent() -> tuple[Path | None, str]:
    v1 = _CGROUPS / "memory"
    if (v1 / "memory.limit_in_bytes").exists():
        return v1, "memory.limit_in_bytes"
    if (_CGROUPS / "cgroup.controllers").exists():
        return _CGROUPS, "memory.max"
    return None, ""


def small_disk(path: Path, undo_log: UndoLog) -> Privilege:
    """A file system of 16 MB at `path`, which is made."""
    path.mkdir()
    number = undo_log.note(undo.unmounted(path))
    command = ["mount", "-t", "tmpfs", "-o", f"size={_DISK_BYTES}", "tmpfs", str(path)]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        why = " ".join(done.stderr.split())
    except OSError as error:
        done, why = None, str(error.strerror)
    if done is not None and done.returncode == 0:
        return Privilege(path)
    undo_log.forget(number)
    whose = "" if os.geteuid() == 0 else "; only root may do that"
    return Privilege(None, f"no small file system could be mounted ({why}{whose})")
