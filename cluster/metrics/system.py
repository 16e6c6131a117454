"""Resource usage from the kernel: memory of the cgroup (v1 or v2) or machine, and of processes.

Rules
- Values are read on each call; a value that cannot be read is omitted, never guessed.
- A cgroup without a limit is limited by the machine's memory.
- The working set does not include inactive file pages, because they can be reclaimed.
"""

from __future__ import annotations

import os
import resource
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

CGROUP_ROOT: Final = Path("/sys/fs/cgroup")
PROC: Final = Path("/proc")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class MemoryUsage:
    """Memory that cannot be reclaimed, and the limit, in bytes."""

    working_set: int
    limit: int


@dataclass(frozen=True, slots=True)
class ProcessUsage:
    """Resource usage of one process."""

    cpu_seconds: float
    resident_bytes: int
    open_fds: int
    max_fds: int


def memory(root: Path = CGROUP_ROOT, proc: Path = PROC) -> MemoryUsage:
    """Return the memory usage of this process's cgroup, or else of the machine."""
    machine = _machine_memory(proc)
    for folder, names in _cgroup_folders(root, proc):
        use = _number(folder / names.use)
        if use is None:
            continue
        idle = _fields(folder / "memory.stat").get(names.idle, 0)
        limit = _number(folder / names.limit)
        return MemoryUsage(
            max(0, use - idle), min(limit, machine.limit) if limit else machine.limit
        )
    return machine


def task_limit(root: Path = CGROUP_ROOT, proc: Path = PROC) -> int | None:
    """Return how many processes and threads this process's cgroups allow together; None for any number."""
    folders: list[Path] = []
    for mount, path in _cgroups("pids", root, proc):
        below = mount / path.lstrip("/")
        folders += [below, *(one for one in below.parents if one.is_relative_to(mount))]
    limits = (_number(folder / "pids.max") for folder in (*folders, root / "pids", root))
    return min((one for one in limits if one is not None), default=None)


@dataclass(frozen=True, slots=True)
class _Names:
    use: str
    limit: str
    idle: str


_V1: Final = _Names("memory.usage_in_bytes", "memory.limit_in_bytes", "total_inactive_file")
_V2: Final = _Names("memory.current", "memory.max", "inactive_file")


def _cgroup_folders(root: Path, proc: Path) -> list[tuple[Path, _Names]]:
    """The directories that may account this process's memory, the most specific first.

    Inside a container the path may be the host's; then the root of the mount is the right one.
    """
    folders: list[tuple[Path, _Names]] = []
    for mount, path in _cgroups("memory", root, proc):
        if mount == root:
            folders.append((root / path.lstrip("/"), _V2))
        else:
            folders += [(mount / path.lstrip("/"), _V1), (mount, _V1)]
    return [*folders, (root, _V2)]


def _cgroups(controller: str, root: Path, proc: Path) -> list[tuple[Path, str]]:
    """Where this process's cgroups with this controller are: mount (v1: of the controller) and path below it."""
    found: list[tuple[Path, str]] = []
    with suppress(OSError, ValueError):
        for line in (proc / "self" / "cgroup").read_text().splitlines():
            number, controllers, path = line.split(":", 2)
            if controller in controllers.split(","):
                found.append((root / controller, path))
            elif number == "0" and not controllers:
                found.append((root, path))
    return found


def _machine_memory(proc: Path) -> MemoryUsage:
    fields = _fields(proc / "meminfo")
    total = fields.get("MemTotal:", 0) * 1024
    return MemoryUsage(total - fields.get("MemAvailable:", 0) * 1024, total)


def _number(path: Path) -> int | None:
    """The number in a file; None if it contains none ("max") or cannot be read."""
    with suppress(OSError, ValueError):
        return int(path.read_text())
    return None


def _fields(path: Path) -> dict[str, int]:
    fields: dict[str, int] = {}
    with suppress(OSError):
        for line in path.read_text().splitlines():
            name, _, rest = line.partition(" ")
            with suppress(ValueError, IndexError):
                fields[name] = int(rest.split()[0])
    return fields


def process(pid: int, proc: Path = PROC) -> ProcessUsage | None:
    """Return the resource usage of a process; None if it has ended."""
    folder = proc / str(pid)
    try:
        # The command name is in parentheses and may itself contain parentheses.
        parts = (folder / "stat").read_text().rpartition(")")[2].split()
        return ProcessUsage(
            cpu_seconds=(int(parts[11]) + int(parts[12])) / _TICKS,
            resident_bytes=int(parts[21]) * _PAGE,
            open_fds=len(os.listdir(folder / "fd")),  # noqa: PTH208 - thousands of names, no paths
            max_fds=resource.prlimit(pid, resource.RLIMIT_NOFILE)[0],
        )
    except (OSError, ValueError, IndexError):
        return None
